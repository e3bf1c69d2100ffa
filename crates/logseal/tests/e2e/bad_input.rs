//! Input that no client should send: each gets its answer, the server stays up, and its memory stays bounded.

use std::io::Write as _;

use bytes::Bytes;
use logseal_testkit::ship::{self, attribute, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tonic::Code;

use crate::Deployment;
use crate::lifecycle::request;

fn with_records(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

/// `depth` arrays around one another, written from the inside out: prost's own encoder would recurse.
fn nested_body(depth: usize) -> Bytes {
    let mut value = text("innermost").encode_to_vec();
    let length_delimited = |tag: u8, content: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    };
    for _ in 0..depth {
        value = length_delimited(0x2a, &length_delimited(0x0a, &value)); // AnyValue.array_value { values }
    }
    let record = length_delimited(0x2a, &value); // LogRecord.body
    let records = length_delimited(0x12, &record); // ScopeLogs.log_records
    let scope = length_delimited(0x12, &records); // ResourceLogs.scope_logs
    length_delimited(0x0a, &scope).into() // ExportLogsServiceRequest.resource_logs
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_answered_and_the_server_stays_up() {
    let deployment = Deployment::new();
    let mut server = deployment.start();
    let pseudo_random: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let good = request(&["good"]).encode_to_vec();

    for body in [Bytes::from(pseudo_random), Bytes::from(good[..good.len() - 2].to_vec())] {
        let refused = ship::export_bytes(&server, body).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }

    let answer = ship::export_bytes(&server, nested_body(10_000)).await.unwrap().partial_success.unwrap();
    assert_eq!(answer.rejected_log_records, 1, "{answer:?}");

    // Invalid UTF-8 in the body: kept as bytes.
    let mut invalid = request(&["AAAA"]).encode_to_vec();
    let at = invalid.windows(4).position(|window| window == b"AAAA").unwrap();
    invalid[at..at + 4].copy_from_slice(b"\xff\xfe\xfd\xfc");
    ship::export_bytes(&server, invalid.into()).await.unwrap();
    assert_eq!(server.value("SELECT body FROM logs WHERE body_kind = 'bytes'"), r#"{"bytesValue":"//79/A=="}"#);

    let many = (0..100_000).map(|n| attribute(format!("many.{n}"), text("v"))).collect();
    ship::export(&server, &with_records(vec![LogRecord { attributes: many, ..LogRecord::default() }])).await.unwrap();

    let times = [0, 1, u64::MAX].map(|time_unix_nano| LogRecord {
        time_unix_nano,
        event_name: "time".to_owned(),
        ..LogRecord::default()
    });
    ship::export(&server, &with_records(times.to_vec())).await.unwrap();
    let rows = server
        .query("SELECT overflow FROM logs WHERE event_name = 'time' AND overflow IS NOT NULL ORDER BY 1")
        .unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[1]["overflow"].as_str().unwrap().contains("18446744073709551615"), "{rows:?}");

    let huge = ship::export(&server, &request(&["x".repeat(100 << 20).as_str()])).await.unwrap_err();
    assert_eq!(huge.code(), Code::ResourceExhausted, "{huge:?}");
    assert!(huge.message().contains("ingest.max_request_bytes"), "{huge:?}");
    assert!(huge.metadata().get_bin("google.rpc.retryinfo-bin").is_none(), "nothing that makes a client come back");

    ship::export(&server, &request(&["still here"])).await.unwrap();
    assert_eq!(server.value("SELECT count(*) FROM logs WHERE body = 'still here'"), 1);
    assert!(server.is_running());
    let peak = server.peak_memory();
    assert!(peak < 1 << 30, "peak memory {peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_cost_bounded_memory() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let zeros = vec![0_u8; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..1024 {
        gzip.write_all(&zeros).unwrap();
        zstd.write_all(&zeros).unwrap();
    }
    for (encoding, bomb) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd.finish().unwrap())] {
        assert!(bomb.len() < 2 << 20, "{encoding}: {} bytes for 1 GiB", bomb.len());
        let refused = raw_call(&server, Some(encoding), bomb).await;
        assert_eq!(refused, Some(Code::ResourceExhausted as i32), "{encoding}");
    }
    let peak = server.peak_memory();
    assert!(peak < 700 << 20, "peak memory {peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_mints_tables_and_columns_is_bounded() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["schema.attribute_columns=50"]);
    for table in 0..130 {
        let resource = Resource {
            attributes: vec![attribute("logseal.table", text(format!("minted_{table}")))],
            ..Resource::default()
        };
        let records = (0..3)
            .map(|n| LogRecord {
                attributes: vec![attribute(
                    format!("minted.{table}.{n}"),
                    AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![text("v")] })) },
                )],
                ..LogRecord::default()
            })
            .collect();
        let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }];
        ship::export(&server, &ExportLogsServiceRequest { resource_logs }).await.unwrap();
    }
    let tables = server.value("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'");
    assert_eq!(tables, 100);
    // 99 minted tables; what came after them is in `logs`, nothing is lost.
    assert_eq!(server.value("SELECT count(*) FROM logs"), 31 * 3);
    assert_eq!(server.value("SELECT count(*) FROM minted_0"), 3);
    let overflowed = server.value("SELECT count(*) FROM logs WHERE overflow LIKE '%minted.%'");
    assert!(overflowed.as_u64().unwrap() >= 31 * 3 - 50, "{overflowed}");
}

/// A gRPC call with its message as it is; the grpc-status of the answer.
async fn raw_call(server: &logseal_testkit::Server, encoding: Option<&str>, message: Vec<u8>) -> Option<i32> {
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let mut framed = vec![u8::from(encoding.is_some())];
    framed.extend_from_slice(&u32::try_from(message.len()).expect("a small message").to_be_bytes());
    framed.extend_from_slice(&message);
    let mut call =
        http::Request::post(format!("{}/opentelemetry.proto.collector.logs.v1.LogsService/Export", server.otlp_grpc()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", server.workspace_key()));
    if let Some(encoding) = encoding {
        call = call.header("grpc-encoding", encoding);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let call = call.body(Full::new(Bytes::from(framed))).expect("a valid request");
    let response = client.request(call).await.expect("an answer");
    response.headers().get("grpc-status")?.to_str().ok()?.parse().ok()
}
