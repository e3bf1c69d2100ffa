//! What a request body may be, and what is answered to every other.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Empty};
use logseal_ingest::{Accepted, IntakeError};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;

use crate::harness::{EXPORT, Script, Server, framed, open_body, soon};

const MIB: usize = 1024 * 1024;

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn gzip_zeros(mib: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; MIB];
    (0..mib).for_each(|_| encoder.write_all(&zeros).expect("in memory"));
    encoder.finish().expect("in memory")
}

fn zstd_zeros(mib: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    let zeros = vec![0; MIB];
    (0..mib).for_each(|_| encoder.write_all(&zeros).expect("in memory"));
    encoder.finish().expect("in memory")
}

/// Scenario: bytes that are no protobuf, plain and compressed. Guarantee: the intake sees exactly them, with budget for
/// them and their chunk, and its answer reaches the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_gets_the_bytes_and_decides() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let intake = Script::new(move |request| {
        assert!(request.permit.bytes() >= 2 * request.body.len());
        sink.lock().expect("not poisoned").push(request.body);
        async { Err(IntakeError::Undecodable("not an export request".to_owned())) }
    });
    let server = Server::start(intake, |_| ()).await;
    let mut client = server.client().await;
    let data: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (head, tail) = data.split_at(100_000);
    let bodies = [
        ("", framed(false, &data)),
        ("identity", framed(false, &data)),
        ("gzip", framed(false, &data)),
        ("gzip", framed(true, &gzip(&data))),
        ("gzip", framed(true, &[gzip(head), gzip(tail)].concat())),
        ("zstd", framed(true, &zstd::encode_all(&data[..], 1).expect("in memory"))),
    ];
    for (encoding, body) in bodies {
        let answer = client.export(&[("grpc-encoding", encoding)], body).await;
        assert_eq!((answer.refusal(), answer.message.as_str()), ((3, false), "not an export request"), "{encoding}");
        let body = seen.lock().expect("not poisoned").pop().expect("handed over");
        assert!(body == data, "{encoding}");
    }
    server.idle().await;
}

/// Scenario: everything that is not one message in a known form. Guarantee: the code on which clients neither resend for
/// ever nor drop what was our fault, nothing handed over, and no budget kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_wrong_are_refused_for_good() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    let flipped = {
        // Varied, since a copy from another place of a constant text is the same text.
        let text: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        let mut wire = gzip(text.as_bytes());
        let middle = wire.len() / 2;
        wire[middle] ^= 0x55;
        wire
    };
    let window_of_2_gib = b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0";
    let cases = [
        ("no message", "", vec![], 3),
        ("half a head", "", vec![0, 0, 0], 3),
        ("a message cut off", "", framed(false, b"abcdef")[..8].to_vec(), 3),
        ("two messages", "", [framed(false, b"abc"), framed(false, b"def")].concat(), 3),
        ("an empty message and another", "", [framed(false, b""), framed(false, b"def")].concat(), 3),
        ("a flag of 2", "", vec![2, 0, 0, 0, 0], 3),
        ("compressed without encoding", "", framed(true, &gzip(b"abc")), 3),
        ("compressed as identity", "identity", framed(true, &gzip(b"abc")), 3),
        ("unknown encoding", "snappy", framed(true, b"abc"), 12),
        ("unknown encoding, not even used", "br", framed(false, b"abc"), 12),
        ("gzip that is damaged", "gzip", framed(true, &flipped), 3),
        ("gzip of nothing", "gzip", framed(true, b""), 3),
        ("gzip and garbage", "gzip", framed(true, &[gzip(b"abc"), b"garbage".to_vec()].concat()), 3),
        ("zstd sent as gzip", "gzip", framed(true, &zstd::encode_all(&b"abc"[..], 1).expect("in memory")), 3),
        ("a gzip bomb of 1 GiB", "gzip", framed(true, &gzip_zeros(1_024)), 8),
        ("a zstd bomb of 1 GiB", "zstd", framed(true, &zstd_zeros(1_024)), 8),
        ("a zstd window of 2 GiB", "zstd", framed(true, window_of_2_gib), 8),
    ];
    for (name, encoding, body, code) in cases {
        let answer = client.export(&[("grpc-encoding", encoding)], body).await;
        assert_eq!(answer.refusal(), (code, false), "{name}: {answer:?}");
        if code == 12 {
            assert_eq!(answer.headers["grpc-accept-encoding"], "identity,gzip,deflate,zstd");
        }
        if code == 8 && !name.contains("window") {
            assert!(answer.message.contains("67108864") && answer.message.contains("ingest.max_request_bytes"));
        }
        server.idle().await;
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: sizes around the limit, plain and after decompression. Guarantee: the limit itself still passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_exact_in_every_form() {
    let server = Server::start(Script::accept(), |s| s.max_request_bytes = MIB).await;
    let mut client = server.client().await;
    for (size, passes) in [(MIB - 1, true), (MIB, true), (MIB + 1, false)] {
        let data = vec![b'x'; size];
        let forms = [
            ("", framed(false, &data)),
            ("gzip", framed(true, &gzip(&data))),
            ("zstd", framed(true, &zstd::encode_all(&data[..], 1).expect("in memory"))),
        ];
        for (encoding, body) in forms {
            let answer = client.export(&[("grpc-encoding", encoding)], body).await;
            assert_eq!(answer.is_whole(), passes, "{encoding} {size}: {answer:?}");
            if !passes {
                assert_eq!(answer.refusal(), (8, false), "{encoding} {size}");
            }
        }
    }
}

/// Scenario: five bytes announce 4 GiB, and the body stays open. Guarantee: refused at once, and all the while not one
/// byte of budget is taken, which is shown by somebody else holding all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_length_is_checked_before_memory_is_asked_for() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut client = server.client().await;
    let all = server.budget.take(server.budget.total()).await;
    let (sender, body) = open_body();
    sender.unbounded_send(b"\0\xff\xff\xff\xff").expect("open");
    let answer = client.call(EXPORT, &[], body).await;
    assert_eq!(answer.refusal(), (8, false));
    drop((sender, all));
    assert!(client.export(&[], framed(false, b"x")).await.is_whole(), "the connection is still good");
}

/// Scenario: a 0-byte message, plain and compressed. Guarantee: success without bothering the intake.
#[tokio::test]
async fn an_empty_request_is_a_success() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    assert!(client.export(&[], framed(false, b"")).await.is_whole());
    assert!(client.export(&[("grpc-encoding", "gzip")], framed(true, &gzip(b""))).await.is_whole());
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: what the intake says. Guarantee: full success has no partial success, everything else has exactly what was
/// said, with its text bounded.
#[tokio::test]
async fn partial_success_is_told_and_full_success_is_not() {
    let long = "\u{20ac}".repeat(5_000);
    let cases = [
        (Accepted { accepted: 5, rejected: 0, message: None }, None),
        (Accepted { accepted: 5, rejected: 2, message: Some("why".to_owned()) }, Some((2, "why".to_owned()))),
        (Accepted { accepted: 0, rejected: 2, message: None }, Some((2, String::new()))),
        (Accepted { accepted: 5, rejected: 0, message: Some("hm".to_owned()) }, Some((0, "hm".to_owned()))),
        (Accepted { accepted: 5, rejected: 1, message: Some(long.clone()) }, Some((1, long[..4_095].to_owned()))),
    ];
    for (accepted, expected) in cases {
        let said = accepted.clone();
        let server = Server::start(
            Script::new(move |_| {
                let said = said.clone();
                async { Ok(said) }
            }),
            |_| (),
        )
        .await;
        let answer = server.client().await.export(&[], framed(false, b"x")).await;
        assert_eq!((answer.http, answer.code), (200, 0));
        assert_eq!(answer.body[..5], framed(false, &answer.body[5..])[..5]);
        let response = ExportLogsServiceResponse::decode(&answer.body[5..]).expect("a response");
        let partial = response.partial_success.map(|p| (p.rejected_log_records, p.error_message));
        assert_eq!(partial, expected, "{accepted:?}");
    }
}

/// Scenario: each way in which the intake refuses, and a panic. Guarantee: codes and `RetryInfo` of design decision 8,
/// delays between 1 and 5 s and not before what was asked.
#[tokio::test]
async fn the_intakes_refusals_have_their_codes() {
    let intake = Script::new(|request| async move {
        let unavailable = |millis: Option<u64>| IntakeError::Unavailable {
            reason: "the cluster is revoked".to_owned(),
            retry_after: millis.map(Duration::from_millis),
        };
        match &request.body[..] {
            b"undecodable" => Err(IntakeError::Undecodable("no".to_owned())),
            b"large" => Err(IntakeError::TooLarge("too many records".to_owned())),
            b"panic" => panic!("expected by this test"),
            b"unavailable" => Err(unavailable(None)),
            b"soon" => Err(unavailable(Some(1))),
            b"later" => Err(unavailable(Some(3_000))),
            _ => Err(unavailable(Some(3_600_000))),
        }
    });
    let server = Server::start(intake, |_| ()).await;
    let mut client = server.client().await;
    let cases: [(&[u8], i32, u64, u64); 7] = [
        (b"undecodable", 3, 0, 0),
        (b"large", 8, 0, 0),
        (b"panic", 14, 1_000, 5_000),
        (b"unavailable", 14, 1_000, 5_000),
        (b"soon", 14, 1_000, 5_000),
        (b"later", 14, 3_000, 5_000),
        (b"much later", 14, 4_000, 5_000),
    ];
    for (body, code, least, most) in cases {
        let answer = client.export(&[], framed(false, body)).await;
        assert_eq!(answer.refusal(), (code, most > 0), "{}", body.escape_ascii());
        assert!(!answer.message.contains("expected by this test"));
        let delay = answer.retry.unwrap_or_default();
        assert!((Duration::from_millis(least)..=Duration::from_millis(most)).contains(&delay), "{delay:?}");
    }
    server.idle().await;
}

/// Scenario: other methods, services and protocols. Guarantee: `UNIMPLEMENTED` for gRPC, plain HTTP for what is none.
#[tokio::test]
async fn what_is_not_export_is_not_served() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    let service = "/opentelemetry.proto.collector.logs.v1.LogsService";
    for path in [format!("{service}/Import"), format!("{service}/export"), "/other.Service/Export".to_owned()] {
        let answer = client.call(&path, &[], BodyExt::boxed(Empty::<Bytes>::new())).await;
        assert_eq!((answer.http, answer.code), (200, 12), "{path}");
    }
    for kind in ["application/x-protobuf", "application/grpc-web", "application/grpc+json", ""] {
        let answer = client.export(&[("content-type", kind)], framed(false, b"x")).await;
        assert_eq!((answer.http, answer.code), (415, -1), "{kind}");
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: a message of many MiB in small pieces, far beyond the HTTP/2 windows. Guarantee: it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_larger_than_the_windows_arrives() {
    let server = Server::start(Script::accept(), |_| ()).await;
    let mut client = server.client().await;
    let (sender, body) = open_body();
    const PIECE: &[u8] = &[b'x'; 10_000];
    sender.unbounded_send(&[0, 0, 0x98, 0x96, 0x80]).expect("open");
    (0..1_000).for_each(|_| sender.unbounded_send(PIECE).expect("open"));
    drop(sender);
    assert!(soon(client.call(EXPORT, &[], body)).await.is_whole());
}
