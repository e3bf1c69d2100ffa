//! Readiness, reflection and shutdown.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::stream;
use logseal_ingest::Accepted;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Script, Server, framed, soon, until};

const LOGS: &str = "opentelemetry.proto.collector.logs.v1.LogsService";

async fn channel(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    soon(endpoint.connect()).await.expect("listening")
}

/// Scenario: readiness goes off and on while somebody watches; then the server stops. Guarantee: both names follow,
/// without credentials, and the watch neither misses the end nor holds up the shutdown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_readiness_and_shutdown() {
    let server = Server::start(Script::accept(), |s| s.drain_ms = 60_000).await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", LOGS] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = soon(health.watch(request.clone())).await.expect("known").into_inner();
        for ready in [true, false, true] {
            server.ready.send_replace(ready);
            let expected = if ready { Serving } else { NotServing };
            while soon(watch.message()).await.expect("no error").expect("no end").status() != expected {}
            let answer = soon(health.check(request.clone())).await.expect("known");
            assert_eq!(answer.into_inner().status(), expected, "{service}");
        }
    }
    let unknown = health.check(HealthCheckRequest { service: "other".to_owned() });
    assert_eq!(soon(unknown).await.expect_err("unknown").code(), tonic::Code::NotFound);
    let mut watch = soon(health.watch(HealthCheckRequest::default())).await.expect("known").into_inner();
    server.shutdown.send_replace(true);
    let mut last = Serving;
    while let Ok(Some(message)) = soon(watch.message()).await {
        last = message.status();
    }
    assert_eq!(last, NotServing);
    drop((health, watch));
    soon(server.task).await.expect("no panic").expect("a clean end");
}

/// Scenario: one connection follows the server's health many times over, and another one asks. Guarantee: sixteen of these calls are under way on a connection at the
/// most, one more is told to wait for one to end, and other connections do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_credentials_are_bounded_on_each_connection() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut health = HealthClient::new(channel(&server).await);
    let request = HealthCheckRequest::default();
    let mut watches = Vec::new();
    for _ in 0..16 {
        watches.push(soon(health.watch(request.clone())).await.expect("there is room"));
    }
    let refused = soon(health.check(request.clone())).await.expect_err("there is none");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    let mut other = HealthClient::new(channel(&server).await);
    soon(other.check(request.clone())).await.expect("it is another connection");

    watches.pop();
    // The server hears of the end a moment later.
    soon(async { while health.check(request.clone()).await.is_err() {} }).await;
}

macro_rules! reflection_test {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ServerReflectionRequest, server_reflection_response};

            use super::*;

            async fn ask(server: &Server, request: MessageRequest) -> server_reflection_response::MessageResponse {
                let mut client = ServerReflectionClient::new(channel(server).await);
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let answers = soon(client.server_reflection_info(stream::iter([request]))).await.expect("open");
                let answer = soon(answers.into_inner().next()).await.expect("an answer").expect("no error");
                answer.message_response.expect("a message")
            }

            /// Scenario: a client that knows nothing asks for services, then for each file by symbol and name.
            /// Guarantee: what is served is listed, and every import can be had.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn lists_what_is_served() {
                let server = Server::start(Script::accept(), |_| ()).await;
                let answer = ask(&server, MessageRequest::ListServices(String::new())).await;
                let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
                let mut services: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
                services.sort();
                let expected = [
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                    LOGS,
                ];
                assert_eq!(services, expected);
                let mut asked = vec![MessageRequest::FileContainingSymbol(LOGS.to_owned())];
                let mut files = 0;
                while let Some(request) = asked.pop() {
                    let answer = ask(&server, request).await;
                    let MessageResponse::FileDescriptorResponse(found) = answer else { panic!("{answer:?}") };
                    for file in found.file_descriptor_proto {
                        let file: prost_types::FileDescriptorProto = prost::Message::decode(&file[..]).expect("valid");
                        files += 1;
                        asked.extend(file.dependency.into_iter().map(MessageRequest::FileByFilename));
                    }
                }
                assert!(files >= 4, "{files}");
            }
        }
    };
}

reflection_test!(v1);
reflection_test!(v1alpha);

/// Scenario: the server is stopped while a call is in the intake. Guarantee: the call is answered, new connections are
/// not taken, and the server ends after the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_calls_finish() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let intake = Script::new(move |_| {
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Ok(Accepted::default())
        }
    });
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    let answer = tokio::spawn(async move { client.export(&[], framed(false, b"x")).await });
    until(|| intake.taken.load(Ordering::SeqCst) == 1).await;
    server.shutdown.send_replace(true);
    soon(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    assert!(!server.task.is_finished());
    go.notify_one();
    assert!(answer.await.expect("no panic").is_whole());
    soon(server.task).await.expect("no panic").expect("a clean end");
}

/// Scenario: the server is stopped, and a call never ends. Guarantee: it is cut after `ingest.drain_ms`, with all that it
/// holds, and the server ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_bounded() {
    let intake = Script::new(|request| async move {
        let _keep = request;
        pending().await
    });
    let server = Server::start(Arc::clone(&intake), |s| s.drain_ms = 50).await;
    let mut client = server.client().await;
    let response = tokio::spawn({
        let (sender, body) = crate::harness::open_body();
        sender.unbounded_send(b"\0\0\0\0\x01x").expect("open");
        client.send(crate::harness::EXPORT, &[], body)
    });
    until(|| intake.taken.load(Ordering::SeqCst) == 1).await;
    server.shutdown.send_replace(true);
    assert!(soon(response).await.expect("no panic").is_err());
    server.idle().await;
    soon(server.task).await.expect("no panic").expect("a clean end");
}
