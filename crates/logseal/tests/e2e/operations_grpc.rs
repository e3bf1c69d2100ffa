//! `logseal.v1.Operations` of the real binary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use logseal_control::grpc::v1;
use logseal_control::grpc::v1::operations_client::OperationsClient;
use logseal_testkit::{Server, ship};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::Deployment;
use crate::lifecycle::request;

const SERVICE: &str = "logseal.v1.Operations";
const LOGS: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const WORKSPACES: &str = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/\
    Microsoft.OperationalInsights/workspaces";

#[derive(Clone)]
pub(crate) struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).expect("it is ASCII");
        call.metadata_mut().insert("authorization", value);
        Ok(call)
    }
}

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.otlp_grpc().to_owned()).expect("a URL").connect().await.expect("it listens")
}

pub(crate) async fn client(server: &Server, token: &str) -> OperationsClient<InterceptedService<Channel, Bearer>> {
    OperationsClient::with_interceptor(channel(server).await, Bearer(token.to_owned()))
}

/// Asks the management API, and returns the id of the operation that it began.
fn put_workspace(server: &Server, name: &str) -> String {
    let address = server.credential("/endpoints/management").trim_start_matches("http://");
    let (token, body) = (server.credential("/managementToken"), r#"{"location":"x"}"#);
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "PUT {WORKSPACES}/{name}?api-version=2025-07-01 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let header = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("azure-asyncoperation:"));
    let url = header.unwrap_or_else(|| panic!("no operation: {answer}"));
    let path = url.split('?').next().expect("a path");
    path.rsplit('/').next().expect("an id").to_owned()
}

/// Scenario: a workspace is made over HTTP and followed over gRPC, with the management token and with a shipper's key; then the server
/// starts again. Guarantee: the operation is seen to its end, also after the restart, and each credential opens its own service alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_followed_over_grpc() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let (token, key) = (server.credential("/managementToken").to_owned(), server.workspace_key().to_owned());
    let id = put_workspace(&server, "followed");
    let mut client_with_token = client(&server, &token).await;

    let changes =
        client_with_token.watch_operation(v1::WatchOperationRequest { id: id.clone() }).await.expect("it is known");
    let changes: Vec<_> = changes.into_inner().map(|change| change.expect("a change")).collect().await;
    let last = changes.last().expect("there is one at least");
    assert_eq!(
        (last.id.as_str(), last.kind.as_str(), last.status.as_str()),
        (id.as_str(), "createWorkspace", "Succeeded")
    );
    assert_eq!(last.resource_id, format!("{WORKSPACES}/followed"));
    assert!(last.done && last.end_time.is_some() && last.error.is_none());
    let timeout = Duration::from_secs(10).try_into().ok();
    let waited = client_with_token.wait_operation(v1::WaitOperationRequest { id: id.clone(), timeout }).await;
    assert_eq!(&waited.expect("it is known").into_inner(), last);
    let listed = client_with_token.list_operations(v1::ListOperationsRequest::default()).await.expect("a page");
    assert_eq!(listed.into_inner().operations[0], *last);
    let late = client_with_token.cancel_operation(v1::CancelOperationRequest { id: id.clone() }).await;
    assert_eq!(late.unwrap_err().code(), Code::FailedPrecondition);

    let mut shipper = client(&server, &key).await;
    let refused = shipper.get_operation(v1::GetOperationRequest { id: id.clone() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    ship::export(&server, &request(&["one"])).await.expect("the key ships");
    let mut logs =
        opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient::with_interceptor(
            channel(&server).await,
            Bearer(token.clone()),
        );
    let refused = logs.export(request(&["two"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "the management token does not ship");
    assert_eq!(server.value("SELECT count(*) FROM logs"), 1);
    assert!(server.stop().success());

    let server = deployment.start();
    let mut client_with_token = client(&server, &token).await;
    let kept = client_with_token.get_operation(v1::GetOperationRequest { id }).await.expect("it survives a restart");
    assert_eq!(&kept.into_inner(), last);
    assert!(server.stop().success());
}

macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        mod $name {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            use super::*;

            /// Scenario: a client that knows nothing asks what there is. Guarantee: the service is listed beside OTLP's, and its file and
            /// all that it imports can be had.
            #[tokio::test(flavor = "multi_thread")]
            async fn describes_operations_beside_otlp() {
                let deployment = Deployment::new();
                let server = deployment.start();
                let mut reflection = ServerReflectionClient::new(channel(&server).await);
                let mut ask = async |message_request| {
                    let request =
                        ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
                    let answers = reflection.server_reflection_info(stream::iter([request])).await.expect("open");
                    let answer = answers.into_inner().next().await.expect("an answer").expect("no error");
                    answer.message_response.expect("a message")
                };
                let answer = ask(MessageRequest::ListServices(String::new())).await;
                let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
                let services: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
                assert!(services.contains(&SERVICE) && services.contains(&LOGS), "{services:?}");
                for request in [
                    MessageRequest::FileContainingSymbol(SERVICE.to_owned()),
                    MessageRequest::FileContainingSymbol(LOGS.to_owned()),
                    MessageRequest::FileByFilename("google/protobuf/struct.proto".to_owned()),
                    MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned()),
                    MessageRequest::FileByFilename("google/protobuf/duration.proto".to_owned()),
                ] {
                    let answer = ask(request).await;
                    let MessageResponse::FileDescriptorResponse(found) = answer else { panic!("{answer:?}") };
                    assert!(!found.file_descriptor_proto.is_empty());
                }
                assert!(server.stop().success());
            }
        }
    };
}

reflection_test!(reflection_v1, v1);
reflection_test!(reflection_v1alpha, v1alpha);
