//! What is answered, and in which form.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Empty, Full};
use logseal_core::{Clock, UnixNanos};
use logseal_ingest::{Accepted, DailyCaps, IntakeError};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;

use super::{HttpClient, JSON, LOGS, PROTOBUF, REQUEST, REQUEST_JSON, Version};
use crate::harness::{Script, Server, WORKSPACE, open_body};

/// Scenario: what the intake says, asked in both forms. Guarantee: the answer has the request's form; full success has no partial
/// success, everything else has exactly what was said.
#[tokio::test]
async fn success_has_the_form_of_the_request() {
    let cases = [
        (Accepted { accepted: 5, rejected: 0, message: None }, None, "{}"),
        (
            Accepted { accepted: 5, rejected: 2, message: Some("why".to_owned()) },
            Some((2, "why")),
            r#"{"partialSuccess":{"errorMessage":"why","rejectedLogRecords":"2"}}"#,
        ),
        (
            Accepted { accepted: 0, rejected: 2, message: None },
            Some((2, "")),
            r#"{"partialSuccess":{"rejectedLogRecords":"2"}}"#,
        ),
        (
            Accepted { accepted: 5, rejected: 0, message: Some("hm".to_owned()) },
            Some((0, "hm")),
            r#"{"partialSuccess":{"errorMessage":"hm"}}"#,
        ),
    ];
    for (accepted, expected, json) in cases {
        let said = accepted.clone();
        let server = Server::start(
            Script::new(move |_| {
                let said = said.clone();
                async { Ok(said) }
            }),
            |_| (),
        )
        .await;
        for version in [Version::One, Version::Two] {
            let mut client = HttpClient::connect(&server, version).await;
            let answer = client.post(&[], REQUEST).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, PROTOBUF));
            let response = ExportLogsServiceResponse::decode(&answer.body[..]).expect("a response");
            let partial = response.partial_success.map(|p| (p.rejected_log_records, p.error_message));
            assert_eq!(partial, expected.map(|(rejected, text)| (rejected, text.to_owned())), "{accepted:?}");
            let answer = client.post(&[("content-type", "application/json; charset=utf-8")], REQUEST_JSON).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body, serde_json::from_str::<serde_json::Value>(json).expect("JSON"), "{accepted:?}");
        }
    }
}

/// Scenario: each way in which the intake refuses, and a panic, asked in both forms. Guarantee: statuses on which clients do what is
/// meant, with the code of gRPC and the same text in the form of the request; whole seconds, not before what was asked.
#[tokio::test]
async fn refusals_have_status_code_and_form() {
    let intake = Script::new(|request| async move {
        let unavailable = |millis: Option<u64>| IntakeError::Unavailable {
            reason: "the cluster is revoked".to_owned(),
            retry_after: millis.map(Duration::from_millis),
        };
        // The name of the severity tells what to do: both forms have it.
        match request.body.last() {
            Some(b'1') => Err(IntakeError::Undecodable("no".to_owned())),
            Some(b'2') => Err(IntakeError::TooLarge("too many records".to_owned())),
            Some(b'3') => panic!("expected by this test"),
            Some(b'4') => Err(unavailable(None)),
            _ => Err(unavailable(Some(3_500))),
        }
    });
    let server = Server::start(intake, |_| ()).await;
    let mut client = HttpClient::connect(&server, Version::One).await;
    for (what, status, code, least, most) in [
        (b'1', 400, 3, 0, 0),
        (b'2', 413, 8, 0, 0),
        (b'3', 503, 14, 1, 5),
        (b'4', 503, 14, 1, 5),
        (b'5', 503, 14, 4, 5),
    ] {
        let protobuf = [&[0x0A, 0x08, 0x12, 0x06, 0x12, 0x04, 0x1A, 0x02, b't', what][..]].concat();
        let json = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"severityText":"t{}"}}]}}]}}]}}"#,
            char::from(what)
        );
        for (kind, body) in [(PROTOBUF, protobuf), (JSON, json.into_bytes())] {
            let answer = client.post(&[("content-type", kind)], body).await;
            assert_eq!(answer.header("content-type"), kind);
            let (found, found_code, retry_after) = answer.refusal();
            assert_eq!((found, found_code, retry_after.is_some()), (status, code, most > 0), "{answer:?}");
            assert!((least..=most).contains(&retry_after.unwrap_or_default()), "{answer:?}");
            assert!(!answer.message().contains("expected by this test"));
        }
    }
    server.idle().await;
}

/// Scenario: no, wrong, malformed credentials, and a key store that does not answer; the body never comes. Guarantee: an answer all the
/// same, so the body was not waited for, and the last is not told as the client's fault.
#[tokio::test]
async fn credentials_come_before_the_body() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    for version in [Version::One, Version::Two] {
        for (value, status, code) in
            [("", 401, 16), ("Bearer wrong", 401, 16), ("Basic dXNlcjpwYXNz", 401, 16), ("Bearer unavailable", 503, 14)]
        {
            let mut client = HttpClient::connect(&server, version).await;
            let (_sender, body) = open_body();
            // A content type that is not served does not hide what comes first.
            let headers = [("authorization", value), ("content-type", "text/plain")];
            let answer = client.send(Method::POST, LOGS, &headers, body).await;
            let (found, found_code, retry_after) = answer.refusal();
            assert_eq!((found, found_code, retry_after.is_some()), (status, code, status == 503), "{value}");
            assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
            assert!(!answer.message().contains("wrong"), "a key is not echoed");
        }
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: other paths, methods, content types and encodings. Guarantee: each is told what would be right.
#[tokio::test]
async fn what_is_not_served_is_told_what_is() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    for version in [Version::One, Version::Two] {
        let mut client = HttpClient::connect(&server, version).await;
        for path in ["/", "/v1/traces", "/v1/logs/", "/V1/logs", "/v1/log"] {
            let answer =
                client.send(Method::POST, path, &[("content-type", JSON)], Full::new(Bytes::from("{}")).boxed()).await;
            assert_eq!(answer.refusal(), (404, 12, None), "{path}");
            assert_eq!(answer.header("content-type"), JSON);
        }
        for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE] {
            let answer = client.send(method, LOGS, &[("authorization", "")], Empty::new().boxed()).await;
            assert_eq!((answer.refusal(), answer.header("allow")), ((405, 12, None), "POST"));
        }
        for kind in ["text/plain", "application/grpc", ""] {
            let answer = client.post(&[("content-type", kind)], REQUEST).await;
            assert_eq!(answer.refusal(), (415, 12, None), "{kind}");
            assert!(answer.message().contains("`application/x-protobuf,application/json`"), "{answer:?}");
        }
        for encoding in ["br", "gzip, gzip"] {
            let answer = client.post(&[("content-encoding", encoding)], REQUEST).await;
            assert_eq!(answer.refusal(), (415, 12, None), "{encoding}");
            assert!(answer.message().contains("`identity,gzip,deflate,zstd`"), "{answer:?}");
        }
        assert!(client.post(&[], REQUEST).await.is_whole(), "the connection is still good");
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 2);
}

/// A clock that a test sets.
#[derive(Debug)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(Ordering::SeqCst))
    }
}

/// Scenario: a workspace reaches its daily cap in the evening; midnight comes near, and passes. Guarantee: its calls are refused for good
/// while the reset is far away, and told to come back when it is near; JSON counts by the length that was sent.
#[tokio::test]
async fn a_daily_cap_is_permanent_until_its_reset_is_near() {
    const DAY: i64 = 86_400 * 1_000_000_000;
    let clock = Arc::new(Hands((20_000 * DAY).into()));
    let caps = Arc::new(DailyCaps::new(Arc::clone(&clock) as _));
    caps.set_cap(WORKSPACE, Some(REQUEST_JSON.len() as u64), 1);
    let server = Server::start_with(Script::accept(), |_| (), |door| door.with_daily_caps(Arc::clone(&caps))).await;
    let mut client = HttpClient::connect(&server, Version::One).await;
    assert!(client.post(&[("content-type", JSON)], REQUEST_JSON).await.is_whole());
    assert_eq!(caps.used(WORKSPACE), REQUEST_JSON.len() as u64);
    let far = client.post(&[], REQUEST).await;
    assert_eq!(far.refusal(), (403, 8, None));
    assert!(far.message().contains("`workspaceCapping.dailyQuotaGb`"), "{far:?}");
    clock.0.store(20_001 * DAY - 1, Ordering::SeqCst);
    let (status, code, retry_after) = client.post(&[], REQUEST).await.refusal();
    assert_eq!((status, code, retry_after.is_some()), (429, 14, true));
    clock.0.store(20_001 * DAY, Ordering::SeqCst);
    assert!(client.post(&[], REQUEST).await.is_whole());
}
