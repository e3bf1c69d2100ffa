//! Connections: how they begin, what they share, how they end.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use logseal_ingest::Accepted;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{HttpClient, REQUEST, Version};
use crate::harness::{KEY, Script, Server, framed, soon, until};

const MIB: usize = 1024 * 1024;

/// A head of HTTP/1.1 with `further` lines.
fn head(key: &str, length: usize, further: &str) -> String {
    format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n\
         authorization: Bearer {key}\r\ncontent-length: {length}\r\n{further}\r\n"
    )
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.http).await.expect("listening")
}

/// Reads until `stop` is there, or to the end.
async fn read_until(stream: &mut TcpStream, stop: &str) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 1_024];
    while !String::from_utf8_lossy(&read).contains(stop) {
        match soon(stream.read(&mut piece)).await.expect("not reset") {
            0 => break,
            length => read.extend_from_slice(&piece[..length]),
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// Scenario: a client that waits for our word before it sends its body, as curl does, once with a wrong key. Guarantee: the word comes
/// for a body that is wanted, and only then.
#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut stream = connect(&server).await;
    let expecting = head(KEY, REQUEST.len(), "expect: 100-continue\r\n");
    stream.write_all(expecting.as_bytes()).await.expect("sent");
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    stream.write_all(REQUEST).await.expect("sent");
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200 "));

    let mut stream = connect(&server).await;
    stream.write_all(head("wrong", MIB, "expect: 100-continue\r\n").as_bytes()).await.expect("sent");
    let answer = read_until(&mut stream, "at no time").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

/// Scenario: a body of many MiB that is refused by its head is sent all the same, and only then the answer is read. Guarantee: it is
/// there: the connection is not reset under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_lost_behind_a_large_body() {
    let server = Server::start(Script::accept(), |s| s.max_request_bytes = 16 * MIB).await;
    let body = vec![b'x'; 16 * MIB];
    for (key, announced, expected) in [("wrong", body.len(), "401"), (KEY, 16 * MIB + 1, "413")] {
        let mut stream = connect(&server).await;
        stream.write_all(head(key, announced, "").as_bytes()).await.expect("sent");
        soon(stream.write_all(&body)).await.expect("taken to the end");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
    }
    server.idle().await;
}

/// Scenario: a head of more than 16 KiB, in either version. Guarantee: it is refused, and later clients are served.
#[tokio::test]
async fn heads_are_bounded() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut stream = connect(&server).await;
    let large = format!("x-filler: {}\r\n", "x".repeat(17 * 1_024));
    // The server may close before all of it was sent.
    let _ = stream.write_all(head(KEY, 0, &large).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut client = HttpClient::connect(&server, Version::Two).await;
    let filler = "x".repeat(17 * 1_024);
    assert_eq!(client.post(&[("x-filler", filler.as_str())], REQUEST).await.status, 431);
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
    assert!(client.post(&[("x-filler", &filler[..8 * 1_024])], REQUEST).await.is_whole());
}

/// Scenario: as many connections as there may be, over both protocols. Guarantee: they share the limit: one more is closed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_listeners_share_the_connections() {
    let server = Server::start(Script::accept(), |s| s.max_connections = 2).await;
    let mut grpc = server.client().await;
    assert!(grpc.export(&[], framed(false, b"x")).await.is_whole());
    let mut http = HttpClient::connect(&server, Version::One).await;
    assert!(http.post(&[], REQUEST).await.is_whole());
    assert_eq!(soon(connect(&server).await.read(&mut [0])).await.unwrap_or(0), 0);
    drop(http);
    // Its end has to be noticed.
    soon(async {
        loop {
            let mut stream = connect(&server).await;
            let sent = stream.write_all([head(KEY, 1, "").as_bytes(), b"x"].concat().as_slice()).await;
            if sent.is_ok() && matches!(stream.read(&mut [0]).await, Ok(1)) {
                return;
            }
        }
    })
    .await;
}

/// Scenario: the server is stopped while a call is in the intake and another connection is idle. Guarantee: the call is answered, new
/// connections are not taken, and the server ends after the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_calls_finish() {
    for version in [Version::One, Version::Two] {
        let go = Arc::new(Notify::new());
        let waits = Arc::clone(&go);
        let intake = Script::new(move |_| {
            let waits = Arc::clone(&waits);
            async move {
                waits.notified().await;
                Ok(Accepted::default())
            }
        });
        let server = Server::start(Arc::clone(&intake), |s| s.drain_ms = 60_000).await;
        let _idle = connect(&server).await;
        let mut client = HttpClient::connect(&server, version).await;
        let answer = tokio::spawn(async move { client.post(&[], REQUEST).await });
        until(|| intake.taken.load(Ordering::SeqCst) == 1).await;
        server.shutdown.send_replace(true);
        soon(async { while TcpStream::connect(server.http).await.is_ok() {} }).await;
        assert!(!server.task.is_finished());
        go.notify_one();
        assert!(answer.await.expect("no panic").is_whole(), "{version:?}");
        soon(server.task).await.expect("no panic").expect("a clean end");
    }
}

/// Scenario: the server is stopped, and calls never end: one in the intake, one held for memory. Guarantee: both are cut after
/// `ingest.drain_ms`, with all that they hold, and the server ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_bounded() {
    let intake = Script::new(|request| async move {
        let _keep = request;
        pending().await
    });
    let server = Server::start(Arc::clone(&intake), |s| {
        s.drain_ms = 50;
        s.hold_ms = 60_000;
    })
    .await;
    let mut first = connect(&server).await;
    first.write_all(&[head(KEY, REQUEST.len(), "").as_bytes(), REQUEST].concat()).await.expect("sent");
    until(|| intake.taken.load(Ordering::SeqCst) == 1).await;
    let rest = server.budget.take(server.budget.free()).await;
    let mut held = connect(&server).await;
    held.write_all(&[head(KEY, REQUEST.len(), "").as_bytes(), REQUEST].concat()).await.expect("sent");
    server.shutdown.send_replace(true);
    for mut stream in [first, held] {
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap_or(0), 0, "cut without an answer");
    }
    drop(rest);
    server.idle().await;
    soon(server.task).await.expect("no panic").expect("a clean end");
}
