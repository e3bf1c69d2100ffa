//! Golden bytes, sizes and the decoded shape of the payloads.

use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use sha2::{Digest, Sha256};

use super::*;

const ALL: [Payload; 3] = [Payload::A, Payload::B, Payload::C];
const SEED: u64 = 20_260_101;
/// 2026-01-01T00:00:00Z.
const BASE: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

fn full(payload: Payload, index: u64) -> Vec<u8> {
    request(payload, SEED, index, payload.default_batch(), BASE)
}

/// Compares `actual` with the file, or writes it when `LOGSEAL_BLESS=1`.
fn check_golden(name: &str, actual: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/bench").join(name);
    if std::env::var_os("LOGSEAL_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, actual).expect("testdata is writable");
    }
    let golden = std::fs::read(&path).unwrap_or_default();
    assert!(golden == actual, "`{name}` differs from testdata/bench; LOGSEAL_BLESS=1 rewrites it");
}

#[test]
fn golden_bytes_of_a_few_records() {
    for payload in ALL {
        check_golden(&format!("{payload}-3-records.otlp"), &request(payload, SEED, 7, 3, BASE));
    }
}

#[test]
fn golden_digests_of_full_requests() {
    let mut lines = String::new();
    for payload in ALL {
        for index in [0, 1, 2, 1_000_000] {
            let bytes = full(payload, index);
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
            let _ = writeln!(lines, "{digest}  payload={payload} index={index} bytes={}", bytes.len());
        }
    }
    check_golden("sha256.txt", lines.as_bytes());
}

#[test]
fn average_sizes_and_compressibility_stay_in_their_bounds() {
    let check = |payload, bytes: std::ops::Range<f64>, zstd_1: std::ops::Range<f64>| {
        let requests: Vec<_> = (0..20).map(|index| full(payload, index)).collect();
        let length: usize = requests.iter().map(Vec::len).sum();
        let average = length as f64 / (20 * payload.default_batch()) as f64;
        let ratio = |level| {
            let packed: usize =
                requests.iter().map(|r| zstd::bulk::compress(r, level).expect("compresses").len()).sum();
            packed as f64 / length as f64
        };
        let (one, three) = (ratio(1), ratio(3));
        let measured = format!("payload {payload}: {average:.1} bytes a record, zstd {one:.3} / {three:.3}");
        assert!(bytes.contains(&average) && zstd_1.contains(&one), "{measured}");
        measured
    };
    let measured = [
        check(Payload::A, 346.0..350.0, 0.27..0.31),
        check(Payload::B, 1_140.0..1_147.0, 0.50..0.55),
        check(Payload::C, 358.0..365.0, 0.42..0.46),
    ];
    // Shown by `cargo test -- --nocapture`, for the table in the module's docs.
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{}", measured.join("\n"));
}

#[test]
fn same_arguments_same_bytes_and_other_arguments_other_bytes() {
    for payload in ALL {
        assert_eq!(full(payload, 3), full(payload, 3));
        assert_ne!(full(payload, 3), full(payload, 4));
        assert_ne!(request(payload, 1, 0, 10, BASE), request(payload, 2, 0, 10, BASE));
        assert_ne!(request(payload, 1, 0, 10, BASE), request(payload, 1, 0, 10, UnixNanos(BASE.0 + 1)));
    }
    assert_eq!(request(Payload::A, 1, 5, 10, BASE), request(Payload::C, 1, 5, 10, BASE));
}

fn decoded(payload: Payload, index: u64) -> (ExportLogsServiceRequest, Vec<LogRecord>) {
    let bytes = full(payload, index);
    let message = ExportLogsServiceRequest::decode(bytes.as_slice()).expect("is OTLP");
    let records = message.resource_logs[0].scope_logs[0].log_records.clone();
    (message, records)
}

fn text_of(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|v| v.value.clone()) {
        Some(Any::StringValue(text)) => text,
        other => panic!("not a string: {other:?}"),
    }
}

#[test]
fn requests_decode_to_one_resource_one_scope_and_the_asked_records() {
    for payload in ALL {
        let (message, records) = decoded(payload, 2);
        assert_eq!((message.resource_logs.len(), message.resource_logs[0].scope_logs.len()), (1, 1));
        assert_eq!(records.len(), payload.default_batch());
        let resource = message.resource_logs[0].resource.as_ref().expect("a resource");
        assert_eq!(resource.attributes[0].key, "service.name");
        assert_eq!(resource.attributes.len(), 3);
        let scope = message.resource_logs[0].scope_logs[0].scope.as_ref().expect("a scope");
        assert_eq!(scope.version, "1.0.0");
        // Nothing is lost or added by a decoder that knows only OTLP's fields.
        assert_eq!(message.encoded_len(), full(payload, 2).len());
    }
}

#[test]
fn times_increase_within_a_request_and_across_requests() {
    for payload in ALL {
        let times: Vec<u64> = (0..3).flat_map(|i| decoded(payload, i).1).map(|r| r.time_unix_nano).collect();
        assert!(times[0] >= BASE.0.unsigned_abs());
        assert!(times.is_sorted_by(|a, b| a < b), "{payload}");
    }
    assert!(decoded(Payload::A, 0).1.iter().all(|r| r.observed_time_unix_nano > r.time_unix_nano));
}

#[test]
fn access_log_records_have_their_six_attributes() {
    let (_, records) = decoded(Payload::A, 0);
    let keys = [
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "http.server.request.duration",
        "client.address",
        "user_agent.original",
    ];
    for record in &records {
        assert_eq!(record.attributes.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), keys);
        assert!(text_of(record.body.as_ref()).starts_with(&text_of(record.attributes[0].value.as_ref())));
        assert!(matches!(record.trace_id.len(), 0 | 16) && matches!(record.span_id.len(), 0 | 8));
    }
    let traced = records.iter().filter(|r| !r.trace_id.is_empty()).count();
    assert!((900..970).contains(&traced), "{traced} of 1,000 records have a trace id");
}

#[test]
fn application_log_bodies_are_one_kib_and_all_different() {
    let (_, records) = decoded(Payload::B, 0);
    let bodies: std::collections::HashSet<_> = records.iter().map(|r| text_of(r.body.as_ref())).collect();
    assert_eq!(bodies.len(), 1_000);
    assert!(bodies.iter().all(|b| b.len() == BODY_BYTES && b.is_ascii()));
}

#[test]
fn payload_names_round_trip() {
    for payload in ALL {
        assert_eq!(payload.to_string().parse(), Ok(payload));
    }
    assert_eq!("d".parse::<Payload>(), Err(PayloadError));
}

#[test]
fn split_mix_gives_the_published_sequence() {
    // Reference values of the public-domain C implementation for seed 1234567.
    let mut random = SplitMix64(1_234_567);
    assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
}
