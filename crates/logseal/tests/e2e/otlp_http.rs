//! OTLP/HTTP against the real server: what is posted comes back in queries, and what is refused says what to do.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_testkit::Server;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use serde_json::{Value, json};

use crate::Deployment;
use crate::cli::done;
use crate::lifecycle::request;
use crate::revocation::until;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Sends `body` to `path` with the server's key; a header of `headers` takes the place of the usual one.
async fn send(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let bearer = format!("Bearer {}", server.workspace_key());
    let mut request = http::Request::builder().method(method).uri(format!("{}{path}", server.otlp_http()));
    let usual = [("authorization", bearer.as_str()), ("content-type", JSON)];
    let replaced = |name: &str| headers.iter().any(|(other, _)| *other == name);
    for (name, value) in usual.iter().filter(|(name, _)| !replaced(name)).chain(headers) {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (parts, body) = client.request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a whole answer").to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn post(server: &Server, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    send(server, Method::POST, "/v1/logs", headers, body).await
}

/// A record whose body is `body`, with something of every kind.
fn record(body: &str) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeLogs": [{
            "scope": {"name": "lib", "version": "1.2"},
            "logRecords": [{
                "timeUnixNano": "1700000000000000001",
                "observedTimeUnixNano": 1_700_000_000_000_000_002_u64,
                "severityNumber": "SEVERITY_NUMBER_WARN2",
                "severityText": "warning",
                "body": {"stringValue": body},
                "traceId": "5B8EFFF798038103D269B633813FC60C",
                "spanId": "eee19b7ec3c1b174",
                "flags": 1,
                "attributes": [
                    {"key": "attempt", "value": {"intValue": "3"}},
                    {"key": "took", "value": {"doubleValue": 1.5}},
                    {"key": "raw", "value": {"bytesValue": "AQI="}},
                    {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}, {}]}}},
                ],
                "anUnknownField": {"of": ["a", "newer", "sender"]},
            }],
        }],
    }]})
}

/// Scenario: one record is posted in each form and encoding, and over gRPC's way as protobuf; the server is killed at once and started
/// again. Guarantee: each was acknowledged and is there, and all rows are equal.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_queried_back_after_a_crash() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["segment.max_age_ms=600000"]);
    let text = record("posted").to_string();
    let protobuf = logseal_otlp::from_json(text.as_bytes()).expect("a request");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&protobuf).unwrap();
    let posts = [
        (JSON, "identity", text.clone().into_bytes()),
        ("application/json; charset=utf-8", "gzip", gzip.finish().unwrap()),
        (PROTOBUF, "identity", protobuf.clone()),
        (PROTOBUF, "deflate", zlib.finish().unwrap()),
        (PROTOBUF, "zstd", zstd::encode_all(&protobuf[..], 1).unwrap()),
    ];
    for (kind, encoding, body) in posts {
        let answer = post(&server, &[("content-type", kind), ("content-encoding", encoding)], body).await;
        assert_eq!(answer.status, 200, "{kind} {encoding}: {:?}", answer.body);
        assert_eq!(answer.body, if kind == PROTOBUF { "" } else { "{}" });
    }
    logseal_testkit::ship::export_bytes(&server, protobuf.into()).await.unwrap();
    server.kill();

    let server = deployment.start();
    assert_eq!(server.value("SELECT count(*) FROM logs"), 6);
    let all = "SELECT DISTINCT time, observed_time, severity_number, severity_text, body, trace_id, span_id, flags, service_name, \
               scope_name, scope_version, attributes['attempt'] AS attempt, attributes['took'] AS took, attributes['raw'] AS raw, \
               attributes['list'] AS list, coalesce(overflow, 'nothing') AS overflow FROM logs";
    let expected = json!([{
        "time": "2023-11-14T22:13:20.000000001Z", "observed_time": "2023-11-14T22:13:20.000000002Z", "severity_number": 14,
        "severity_text": "warning", "body": "posted", "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
        "flags": 1, "service_name": "shop", "scope_name": "lib", "scope_version": "1.2", "attempt": 3, "took": 1.5, "raw": "AQI=",
        "list": "{\"arrayValue\":{\"values\":[{\"boolValue\":true},{}]}}", "overflow": "nothing",
    }]);
    assert_eq!(Value::Array(server.query(all).unwrap()), expected);
    assert!(server.stop().success());
}

/// Scenario: requests that are wrong in each way. Guarantee: each has its status, its form and its reason; none leaves a record; a record
/// that is wrong by itself is rejected alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_what_is_wrong() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["ingest.max_request_bytes=100000"]);
    let good = record("good").to_string();
    let long = record(&"x".repeat(100_000)).to_string();
    let misspelled = good.replace("\"3\"", "\"three\"");
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(Headers, &str, u16, &str); 7] = [
        (&[("authorization", "Bearer nobody's")], &good, 401, "unknown workspace key"),
        (&[("authorization", "Basic dXNlcjpwYXNz")], &good, 401, "`authorization: Bearer <workspace key>`"),
        (&[], "{\"resourceLogs\":", 400, "at byte 16"),
        (&[], &misspelled, 400, "logRecords[0].attributes[0].value.intValue`): expected a whole number"),
        (&[], &long, 413, "`ingest.max_request_bytes`"),
        (&[("content-encoding", "br")], &good, 415, "`identity,gzip,deflate,zstd`"),
        (&[("content-encoding", "gzip")], &good, 400, "not valid gzip"),
    ];
    for (headers, body, status, reason) in cases {
        let answer = post(&server, headers, body.to_owned()).await;
        assert_eq!((answer.status, answer.headers["content-type"] == JSON), (status, true), "{reason}");
        let message = answer.json()["message"].as_str().expect("a text").to_owned();
        assert!(message.contains(reason) && !message.contains("three"), "{message}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
        assert!(!answer.headers.contains_key("retry-after"), "nothing that makes a client come back");
    }
    let text = post(&server, &[("content-type", "text/plain")], good.clone()).await;
    assert_eq!((text.status, text.headers["content-type"] == PROTOBUF), (415, true));
    let broken = post(&server, &[("content-type", PROTOBUF)], &b"\x0a\xff\xff"[..]).await;
    assert_eq!((broken.status, broken.headers["content-type"] == PROTOBUF), (400, true));
    assert_eq!(send(&server, Method::GET, "/v1/logs", &[], "").await.headers["allow"], "POST");
    assert_eq!(send(&server, Method::POST, "/v1/traces", &[], "{}").await.status, 404);
    assert_eq!(server.value("SELECT count(*) FROM logs"), 0);

    let deep = format!("{}{{\"boolValue\":true}}{}", "{\"arrayValue\":{\"values\":[".repeat(100), "]}}".repeat(100));
    let mixed = good.replacen("\"logRecords\":[", &format!("\"logRecords\":[{{\"body\":{deep}}},"), 1);
    let answer = post(&server, &[], mixed.clone()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["partialSuccess"]["rejectedLogRecords"], "1", "{:?}", answer.body);
    let protobuf = logseal_otlp::from_json(mixed.as_bytes()).expect("a request");
    let answer = post(&server, &[("content-type", PROTOBUF)], protobuf).await;
    let partial = ExportLogsServiceResponse::decode(answer.body).expect("protobuf").partial_success.expect("partial");
    assert_eq!(partial.rejected_log_records, 1);
    assert_eq!(server.value("SELECT count(*) FROM logs WHERE body = 'good'"), 2);
    assert!(server.stop().success());
}

/// Scenario: the cluster's key is disabled, and enabled again. Guarantee: in between a shipper is told to come back, in whole seconds; then
/// it is taken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_cluster_tells_shippers_to_come_back() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"]);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    let answer = post(&server, &[("content-type", PROTOBUF)], request(&["later"]).encode_to_vec()).await;
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds");
    assert_eq!((answer.status, (1..=5).contains(&seconds)), (503, true));
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    let answer = post(&server, &[("content-type", PROTOBUF)], request(&["later"]).encode_to_vec()).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(server.value("SELECT count(*) FROM logs WHERE body = 'later'"), 1);
    assert!(server.stop().success());
}
