//! Real logs through the stock Rust client, and back out of sealed segments, every field compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Compression, LogExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;

use crate::Deployment;

/// 2026-01-01T00:00:00Z; line `n` of all files gets this time plus `n` microseconds.
const BASE: u64 = 1_767_225_600_000_000_000;

struct Line {
    program: String,
    file: String,
    number: i64,
    bytes: Vec<u8>,
}

fn real_lines() -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real");
    let mut files: Vec<PathBuf> = logseal_testkit::canary::files_below(&root);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let (program, short) = (name(file.parent().expect("a folder")), name(&file));
        for (index, bytes) in fs::read(&file).expect("a log").split(|byte| *byte == b'\n').enumerate() {
            let number = i64::try_from(index).expect("few lines");
            lines.push(Line { program: program.clone(), file: short.clone(), number, bytes: bytes.to_vec() });
        }
    }
    assert!(lines.len() > 10_000, "{} lines", lines.len());
    lines
}

fn severity(index: usize) -> (Severity, &'static str, i64) {
    [(Severity::Info, "INFO", 9), (Severity::Warn, "WARN", 13), (Severity::Error2, "ERROR2", 18)][index % 3]
}

#[tokio::test(flavor = "multi_thread")]
async fn real_logs_come_back_field_by_field() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let lines = real_lines();
    let mut headers = MetadataMap::new();
    headers.insert("authorization", format!("Bearer {}", server.workspace_key()).parse().unwrap());
    let (first, second) = lines.split_at(lines.len() / 2);
    for (part, offset, compression) in [(first, 0, Compression::Gzip), (second, first.len(), Compression::Zstd)] {
        let exporter = LogExporter::builder()
            .with_tonic()
            .with_endpoint(server.otlp_grpc())
            .with_metadata(headers.clone())
            .with_compression(compression)
            .build()
            .unwrap();
        // A queue for all lines: the stock processor drops what does not fit.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(part.len() + 1)
            .with_scheduled_delay(Duration::from_millis(10))
            .build();
        let provider = SdkLoggerProvider::builder()
            .with_resource(
                Resource::builder_empty()
                    .with_attributes([KeyValue::new("service.name", "real-logs"), KeyValue::new("host.cpus", 2)])
                    .build(),
            )
            .with_log_processor(BatchLogProcessor::builder(exporter).with_batch_config(config).build())
            .build();
        let scope = InstrumentationScope::builder("filelog").with_version("1.2").with_schema_url("https://s/1").build();
        let logger = provider.logger_with_scope(scope);
        for (index, line) in part.iter().enumerate() {
            let index = offset + index;
            let mut record = logger.create_log_record();
            record.set_timestamp(UNIX_EPOCH + Duration::from_nanos(BASE + 1000 * index as u64));
            record.set_observed_timestamp(UNIX_EPOCH + Duration::from_nanos(BASE + 1000 * index as u64 + 7));
            let (number, text, _) = severity(index);
            record.set_severity_number(number);
            record.set_severity_text(text);
            record.set_event_name("log.line");
            record.set_body(match String::from_utf8(line.bytes.clone()) {
                Ok(text) => AnyValue::from(text),
                Err(error) => AnyValue::Bytes(Box::new(error.into_bytes())),
            });
            record.add_attribute("log.program", line.program.clone());
            record.add_attribute("log.file.name", line.file.clone());
            record.add_attribute("log.file.line", line.number);
            record.add_attribute("even", index % 2 == 0);
            record.add_attribute("ratio", index as f64 / 8.0);
            logger.emit(record);
        }
        let provider = tokio::task::spawn_blocking(move || provider.shutdown().map(|()| provider)).await.unwrap();
        provider.expect("everything was exported");
    }

    let sql = "SELECT CAST(time AS BIGINT) AS t, CAST(observed_time AS BIGINT) AS o, severity_number, severity_text, \
               event_name, body, body_kind, attributes['log.program'] AS program, attributes['log.file.name'] AS file, \
               attributes['log.file.line'] AS line, attributes['even'] AS even, attributes['ratio'] AS ratio, service_name, \
               resource_attributes['host.cpus'] AS cpus, scope_name, scope_version, scope_schema_url, overflow \
               FROM logs ORDER BY time";
    let rows = server.query(sql).unwrap();
    assert_eq!(rows.len(), lines.len());
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, (row, line)) in rows.iter().zip(&lines).enumerate() {
        let time = BASE + 1000 * index as u64;
        let (body, kind) = match std::str::from_utf8(&line.bytes) {
            Ok(text) => (text.to_owned(), "string"),
            Err(_) => (json!({"bytesValue": data_encoding::BASE64.encode(&line.bytes)}).to_string(), "bytes"),
        };
        *kinds.entry(kind).or_default() += 1;
        let expected = json!({
            "t": time, "o": time + 7, "severity_number": severity(index).2, "severity_text": severity(index).1,
            "event_name": "log.line", "body": body, "body_kind": kind, "program": line.program, "file": line.file,
            "line": line.number, "even": index % 2 == 0, "ratio": index as f64 / 8.0, "service_name": "real-logs",
            "cpus": 2, "scope_name": "filelog", "scope_version": "1.2", "scope_schema_url": "https://s/1",
        });
        let without_nulls = |value: &Value| {
            let map = value.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
            map.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(without_nulls(row), without_nulls(&expected), "line {index}");
    }
    assert!(kinds["bytes"] >= 1, "some real lines are not UTF-8: {kinds:?}");
    let by_program =
        server.query("SELECT attributes['log.program'] AS p, count(*) AS n FROM logs GROUP BY 1 ORDER BY 1").unwrap();
    assert_eq!(by_program.len(), 8, "{by_program:?}");
}
