//! What a request body may be, and what is answered to every other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use logseal_ingest::Accepted;
use tokio::sync::oneshot;

use super::{HttpClient, JSON, LOGS, PROTOBUF, REQUEST, REQUEST_JSON, Version, bare_deflate, gzip, zlib, zstd};
use crate::harness::{Script, Server, open_body, soon};

const MIB: usize = 1024 * 1024;

/// JSON of about `bytes` bytes, and how many records are in it.
fn records(bytes: usize) -> (String, usize) {
    let record = r#"{"body":{"stringValue":"one more record"}}"#;
    let count = bytes / (record.len() + 1);
    let records = vec![record; count].join(",");
    (format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#), count)
}

/// Scenario: protobuf and JSON, small and large, in every encoding, over both versions of HTTP, with and without a length. Guarantee: the
/// intake sees the protobuf bytes, with budget for them and their chunk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_gets_protobuf_whatever_was_sent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let intake = Script::new(move |request| {
        assert!(request.permit.bytes() >= 2 * request.body.len());
        sink.lock().expect("not poisoned").push(request.body);
        async { Ok(Accepted { accepted: 1, ..Accepted::default() }) }
    });
    let server = Server::start(intake, |_| ()).await;
    let data: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (large, count) = records(300_000);
    let large_protobuf = logseal_otlp::from_json(large.as_bytes()).expect("a request");
    assert_eq!(logseal_otlp::framed_records(&large_protobuf), Some(count as u64));
    let bodies = [
        (PROTOBUF, REQUEST.to_vec(), REQUEST.to_vec()),
        (PROTOBUF, data.clone(), data),
        (JSON, REQUEST_JSON.as_bytes().to_vec(), REQUEST.to_vec()),
        (JSON, large.into_bytes(), large_protobuf),
    ];
    for version in [Version::One, Version::Two] {
        let mut client = HttpClient::connect(&server, version).await;
        for (kind, sent, expected) in &bodies {
            let wires = [
                ("", sent.clone()),
                ("identity", sent.clone()),
                ("gzip", gzip(sent)),
                ("deflate", zlib(sent)),
                ("deflate", bare_deflate(sent)),
                ("zstd", zstd(sent)),
            ];
            for (encoding, wire) in wires {
                let headers = [("content-type", *kind), ("content-encoding", encoding)];
                let answer = client.post(&headers, wire.clone()).await;
                assert!(answer.is_whole(), "{kind} {encoding}: {answer:?}");
                let (sender, body) = open_body();
                let wire: &'static [u8] = wire.leak();
                wire.chunks(7_000).for_each(|chunk| sender.unbounded_send(chunk).expect("open"));
                drop(sender);
                let answer = client.send(Method::POST, LOGS, &headers, body).await;
                assert!(answer.is_whole(), "{kind} {encoding}: {answer:?}");
                let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
                assert!(seen.len() == 2 && seen.iter().all(|body| body == expected), "{version:?} {kind} {encoding}");
            }
        }
    }
    server.idle().await;
}

/// Scenario: everything that is not one body in a known form. Guarantee: 400, which no client sends again, nothing handed over, and no
/// budget kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_wrong_are_refused_for_good() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = HttpClient::connect(&server, Version::One).await;
    let text: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    let cut = |mut wire: Vec<u8>| {
        wire.truncate(wire.len() - 3);
        wire
    };
    let and_more = |mut wire: Vec<u8>| {
        wire.extend_from_slice(b"more");
        wire
    };
    let cases = [
        (PROTOBUF, "gzip", b"no gzip".to_vec()),
        (PROTOBUF, "gzip", Vec::new()),
        (PROTOBUF, "gzip", cut(gzip(text.as_bytes()))),
        (PROTOBUF, "deflate", b"\x78\x9cno deflate".to_vec()),
        (PROTOBUF, "deflate", Vec::new()),
        (PROTOBUF, "deflate", cut(zlib(text.as_bytes()))),
        (PROTOBUF, "deflate", cut(bare_deflate(text.as_bytes()))),
        (PROTOBUF, "deflate", and_more(zlib(text.as_bytes()))),
        (PROTOBUF, "deflate", and_more(bare_deflate(text.as_bytes()))),
        (PROTOBUF, "deflate", gzip(text.as_bytes())),
        (PROTOBUF, "zstd", cut(zstd(text.as_bytes()))),
        (JSON, "", text.clone().into_bytes()),
        (JSON, "", REQUEST.to_vec()),
        (JSON, "", REQUEST_JSON.as_bytes()[1..].to_vec()),
        (JSON, "gzip", cut(gzip(REQUEST_JSON.as_bytes()))),
        (JSON, "", records(300_000).0.into_bytes().split_off(1)),
    ];
    for (kind, encoding, body) in cases {
        let answer = client.post(&[("content-type", kind), ("content-encoding", encoding)], body).await;
        assert_eq!(answer.refusal(), (400, 3, None), "{kind} {encoding}: {answer:?}");
        server.idle().await;
    }
    let secret = REQUEST_JSON.replace('9', "[\"sEcret\"]");
    let answer = client.post(&[("content-type", JSON)], secret).await;
    let expected = "at byte 64 (`resourceLogs[0].scopeLogs[0].logRecords[0].severityNumber`)";
    assert!(answer.message().contains(expected) && !answer.message().contains("sEcret"), "{answer:?}");
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: sizes around the limit: announced, in pieces, after decompression, as JSON. Guarantee: the limit itself still passes, and
/// what is beyond it is 413, which no client sends again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_exact_in_every_form() {
    let server = Server::start(Script::accept(), |s| s.max_request_bytes = MIB).await;
    for (size, passes) in [(MIB, true), (MIB + 1, false)] {
        let data = vec![b'x'; size];
        let json = format!("{{{}}}", " ".repeat(size - 2)).into_bytes();
        let forms = [
            (PROTOBUF, "", data.clone()),
            (PROTOBUF, "gzip", gzip(&data)),
            (PROTOBUF, "deflate", zlib(&data)),
            (PROTOBUF, "zstd", zstd(&data)),
            (JSON, "", json.clone()),
            (JSON, "gzip", gzip(&json)),
        ];
        for (kind, encoding, wire) in forms {
            for announced in [true, false] {
                // A refused body ends its connection when there is too much of it.
                let mut client = HttpClient::connect(&server, Version::One).await;
                let headers = [("content-type", kind), ("content-encoding", encoding)];
                let answer = if announced {
                    client.post(&headers, wire.clone()).await
                } else {
                    let (sender, body) = open_body();
                    let wire: &'static [u8] = wire.clone().leak();
                    wire.chunks(10_000).for_each(|chunk| sender.unbounded_send(chunk).expect("open"));
                    drop(sender);
                    client.send(Method::POST, LOGS, &headers, body).await
                };
                assert_eq!(answer.is_whole(), passes, "{kind} {encoding} {size}: {answer:?}");
                if !passes {
                    assert_eq!(answer.refusal(), (413, 8, None), "{kind} {encoding} {size}");
                    assert!(answer.message().contains("`ingest.max_request_bytes`"), "{answer:?}");
                }
            }
        }
    }
    server.idle().await;
}

/// Scenario: a length of 4 GiB is announced, and the body stays away. Guarantee: refused at once, and all the while not one byte of
/// budget is taken, which is shown by somebody else holding all of it.
#[tokio::test]
async fn an_announced_length_is_checked_before_memory_is_asked_for() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut client = HttpClient::connect(&server, Version::Two).await;
    let _all = server.budget.take(server.budget.total()).await;
    let (_sender, body) = open_body();
    let answer = client.send(Method::POST, LOGS, &[("content-length", "4294967296")], body).await;
    assert_eq!(answer.refusal(), (413, 8, None));
}

/// Scenario: a call is refused by its head while its body, larger than a window, is still to come. Guarantee: the rest is received all the same, over
/// both versions of HTTP: a client whose connection or stream is reset may not look at the answer any more.
#[tokio::test]
async fn the_rest_of_a_refused_body_is_received() {
    for version in [Version::One, Version::Two] {
        let server = Server::start(Script::accept(), |_| ()).await;
        let (ended, end) = oneshot::channel();
        let mut ended = Some(ended);
        let pieces = (0..8).map(|_| Ok(Frame::data(Bytes::from(vec![0; 256 * 1024]))));
        let last = stream::poll_fn(move |_| {
            ended.take().map(|ended| ended.send(()));
            Poll::Ready(None)
        });
        let body = BodyExt::boxed(StreamBody::new(stream::iter(pieces).chain(last)));
        let mut client = HttpClient::connect(&server, version).await;
        let answer = client.send(Method::POST, LOGS, &[("authorization", "")], body).await;
        assert_eq!(answer.refusal(), (401, 16, None), "{version:?}");
        soon(end).await.unwrap_or_else(|_| panic!("{version:?}: all of it is sent"));
    }
}

/// Scenario: a body without a length grows while others hold the rest of the budget. Guarantee: the call is told to come back, and gives
/// back what it had.
#[tokio::test]
async fn a_body_that_grows_takes_no_more_than_there_is() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut client = HttpClient::connect(&server, Version::Two).await;
    let rest = 500_000;
    let others = server.budget.take(server.budget.total() - rest).await;
    for (bytes, passes) in [(100_000, true), (400_000, false), (100_000, true)] {
        let (sender, body) = open_body();
        let data: &'static [u8] = vec![b'x'; bytes].leak();
        sender.unbounded_send(data).expect("open");
        drop(sender);
        let answer = client.send(Method::POST, LOGS, &[], body).await;
        assert_eq!(answer.is_whole(), passes, "{answer:?}");
        if !passes {
            let (status, code, retry_after) = answer.refusal();
            assert_eq!((status, code, retry_after.is_some()), (503, 14, true));
            assert!(answer.message().contains("`ingest.memory_budget_bytes`"), "{answer:?}");
        }
    }
    drop(soon(server.budget.take(rest)).await);
    drop(others);
}

/// Scenario: a body begins and does not go on. Guarantee: after `ingest.body_read_ms` the client is told to send it again.
#[tokio::test]
async fn a_body_that_stalls_is_to_be_sent_again() {
    let server = Server::start(Script::accept(), |s| s.body_read_ms = 50).await;
    for version in [Version::One, Version::Two] {
        let mut client = HttpClient::connect(&server, version).await;
        let (sender, body) = open_body();
        sender.unbounded_send(b"begin").expect("open");
        let start = Instant::now();
        let answer = client.send(Method::POST, LOGS, &[], body).await;
        let (status, code, retry_after) = answer.refusal();
        assert_eq!((status, code, retry_after.is_some()), (503, 14, true));
        assert!(answer.message().contains("`ingest.body_read_ms`"), "{answer:?}");
        assert!(start.elapsed() >= Duration::from_millis(50));
        drop(sender);
    }
    server.idle().await;
}

/// Scenario: nothing, plain, compressed, in pieces, and JSON without records. Guarantee: success without bothering the intake.
#[tokio::test]
async fn an_empty_request_is_a_success() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = HttpClient::connect(&server, Version::One).await;
    for kind in [PROTOBUF, JSON] {
        assert!(client.post(&[("content-type", kind)], "").await.is_whole());
        assert!(client.post(&[("content-type", kind), ("content-encoding", "gzip")], gzip(b"")).await.is_whole());
        let (_, body) = open_body();
        assert!(client.send(Method::POST, LOGS, &[("content-type", kind)], body).await.is_whole());
    }
    for json in ["{}", " { \"resourceLogs\" : [ ] } ", "{\"resourceLogs\":null}"] {
        assert!(client.post(&[("content-type", JSON)], json).await.is_whole(), "{json}");
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: the budget is taken when a call comes. Guarantee: the call is held, not refused, and served when budget is freed; if none
/// is, it is told to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_held_while_memory_is_short() {
    let server = Server::start(Script::accept(), |s| s.hold_ms = 60_000).await;
    let mut client = HttpClient::connect(&server, Version::One).await;
    let all = server.budget.take(server.budget.total()).await;
    let mut answer = std::pin::pin!(client.post(&[], REQUEST));
    let refused = async {
        let mut other = HttpClient::connect(&server, Version::One).await;
        other.post(&[("authorization", "")], REQUEST).await
    };
    tokio::select! {
        answer = &mut answer => panic!("answered while nothing was free: {answer:?}"),
        refused = refused => assert_eq!(refused.status, 401),
    }
    drop(all);
    assert!(answer.await.is_whole());

    let server = Server::start(Script::accept(), |s| s.hold_ms = 50).await;
    let _all = server.budget.take(server.budget.total()).await;
    let start = Instant::now();
    let (status, _, retry_after) = HttpClient::connect(&server, Version::Two).await.post(&[], REQUEST).await.refusal();
    assert_eq!((status, retry_after.is_some()), (503, true));
    assert!(start.elapsed() >= Duration::from_millis(50), "it was held");
}
