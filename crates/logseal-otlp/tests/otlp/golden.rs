//! Golden requests: `testdata/otlp/NAME.binpb` and, beside it, the rows that must come of it in `NAME.json`.
//!
//! `LOGSEAL_BLESS=1 cargo test -p logseal-otlp golden` writes both anew; the diff then shows what changed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::json::ArrayWriter;
use arrow::json::writer::JsonArray;
use logseal_otlp::Scanned;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::json;

use crate::wire_edges::{field, request};
use crate::{scan_with_defaults, workspace};

const NOON: u64 = 1_767_268_800_000_000_000; // 2026-01-01T12:00:00Z

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    value(Value::StringValue(text.to_owned()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), key_strindex: 0 }
}

fn array(values: Vec<AnyValue>) -> AnyValue {
    value(Value::ArrayValue(ArrayValue { values }))
}

fn kvlist(values: Vec<KeyValue>) -> AnyValue {
    value(Value::KvlistValue(KeyValueList { values }))
}

fn kinds() -> Vec<AnyValue> {
    let nested = array(vec![
        text("quote \" backslash \\ newline \n"),
        value(Value::IntValue(i64::MAX)),
        value(Value::DoubleValue(f64::NEG_INFINITY)),
        kvlist(vec![
            pair("inner", value(Value::BoolValue(false))),
            KeyValue { key: "none".into(), ..KeyValue::default() },
        ]),
        AnyValue { value: None },
    ]);
    vec![
        text("a line of text"),
        value(Value::BoolValue(true)),
        value(Value::IntValue(-5)),
        value(Value::DoubleValue(0.1)),
        value(Value::BytesValue(vec![0, 1, 0xFE])),
        nested.clone(),
        kvlist(vec![pair("list", nested)]),
        AnyValue { value: None },
    ]
}

fn all(record_list: Vec<LogRecord>, resource: Resource) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope {
        name: "io.example.library".into(),
        version: "1.2.3".into(),
        attributes: vec![pair("library.language", text("rust"))],
        dropped_attributes_count: 3,
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records: record_list,
                schema_url: "https://opentelemetry.io/schemas/1.37.0".into(),
            }],
            schema_url: "https://opentelemetry.io/schemas/1.36.0".into(),
        }],
    }
}

fn full(body: AnyValue) -> LogRecord {
    LogRecord {
        time_unix_nano: NOON + 1,
        observed_time_unix_nano: NOON + 2,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(body),
        attributes: vec![
            pair("http.request.method", text("GET")),
            pair("http.response.status_code", value(Value::IntValue(500))),
        ],
        dropped_attributes_count: 2,
        flags: 1,
        trace_id: (0..16).collect(),
        span_id: (16..24).collect(),
        event_name: "http.server.error".into(),
    }
}

fn service(name: &str) -> Resource {
    Resource { attributes: vec![pair("service.name", text(name))], dropped_attributes_count: 1, entity_refs: vec![] }
}

/// Name and bytes of each request.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let every_kind: Vec<KeyValue> =
        kinds().into_iter().enumerate().map(|(index, value)| pair(&format!("kind.{index}"), value)).collect();
    let attributes = LogRecord { time_unix_nano: NOON, attributes: every_kind, ..LogRecord::default() };
    let entity = EntityRef {
        schema_url: "https://example.org/schema".into(),
        r#type: "service".into(),
        id_keys: vec!["service.name".into()],
        description_keys: vec!["service.version".into()],
    };
    let conflicts = vec![
        LogRecord {
            time_unix_nano: NOON,
            attributes: vec![pair("k", value(Value::IntValue(1)))],
            ..LogRecord::default()
        },
        LogRecord { time_unix_nano: NOON, attributes: vec![pair("k", text("another kind"))], ..LogRecord::default() },
        LogRecord {
            time_unix_nano: NOON,
            attributes: [1, 2, 3].map(|n| pair("k", value(Value::IntValue(n)))).to_vec(),
            trace_id: vec![0xAB],
            span_id: vec![0xCD; 9],
            ..LogRecord::default()
        },
        LogRecord { time_unix_nano: NOON, attributes: vec![pair("", text("no key"))], ..LogRecord::default() },
    ];
    let times = [(0, 0), (0, NOON), (u64::MAX, NOON), (NOON, u64::MAX), (u64::MAX, u64::MAX), (NOON, 0)];
    let times = times.map(|(time_unix_nano, observed_time_unix_nano)| LogRecord {
        time_unix_nano,
        observed_time_unix_nano,
        ..LogRecord::default()
    });
    let audit = Resource {
        attributes: vec![pair("logseal.table", text("audit")), pair("service.name", text("login"))],
        ..Resource::default()
    };
    let mut tables = all(vec![full(text("to logs"))], service("web"));
    tables.resource_logs.extend(all(vec![full(text("to audit"))], audit).resource_logs);
    tables.resource_logs.extend(all(vec![full(text("to logs again"))], service("api")).resource_logs);

    let bad_key = field(6, &field(1, b"\xFF"));
    let bad_text = [field(3, b"\xFF"), field(5, &field(1, b"caf\xE9"))].concat();
    let empty = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    vec![
        ("every-field", all(kinds().into_iter().map(full).collect(), service("checkout")).encode_to_vec()),
        ("every-attribute-kind", all(vec![attributes], service("checkout")).encode_to_vec()),
        (
            "entities",
            all(vec![full(text("x"))], Resource { entity_refs: vec![entity], ..service("checkout") }).encode_to_vec(),
        ),
        ("overflow", all(conflicts, service("checkout")).encode_to_vec()),
        ("times", all(times.to_vec(), service("checkout")).encode_to_vec()),
        ("tables", tables.encode_to_vec()),
        ("empty-record", empty.encode_to_vec()),
        ("invalid-content", request(&[bad_key, bad_text, vec![]])),
    ]
}

/// The batch with times in `+00:00`: Arrow prints no named zone, not even UTC, without its time zone database.
fn with_offset_times(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column: ArrayRef = match column.as_primitive_opt::<TimestampNanosecondType>() {
            Some(times) => Arc::new(times.clone().with_timezone("+00:00")),
            None => Arc::clone(column),
        };
        (field.name().clone(), column)
    });
    RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).expect("own data")
}

fn rows(scanned: &Scanned) -> serde_json::Value {
    let table = |chunk: &logseal_otlp::TableChunk| {
        let mut json = Vec::new();
        let mut writer: arrow::json::Writer<_, JsonArray> = ArrayWriter::new(&mut json);
        writer.write(&with_offset_times(&chunk.batch)).expect("own data");
        writer.finish().expect("own data");
        let columns = chunk.schema.columns();
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("{}['{}']: {}", column.container.column_name(), column.key, column.kind.name()))
            .collect();
        json!({
            "table": chunk.schema.name().as_str(),
            "minTime": chunk.min_time.0.to_string(),
            "maxTime": chunk.max_time.0.to_string(),
            "attributeColumns": columns,
            "rows": serde_json::from_slice::<serde_json::Value>(&json).expect("own data"),
        })
    };
    json!({
        "accepted": scanned.accepted,
        "rejected": scanned.rejected,
        "rejection": scanned.rejection,
        "replacedUtf8": scanned.replaced_utf8,
        "tables": scanned.chunks.iter().map(table).collect::<Vec<_>>(),
    })
}

#[test]
fn golden_requests_give_the_golden_rows() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/otlp"));
    let bless = std::env::var_os("LOGSEAL_BLESS").is_some();
    for (name, made) in requests() {
        let (request, expected) = (folder.join(format!("{name}.binpb")), folder.join(format!("{name}.json")));
        if bless {
            fs::write(&request, &made).unwrap();
        }
        let bytes = fs::read(&request).unwrap_or_else(|error| panic!("{}: {error}", request.display()));
        assert_eq!(bytes, made, "{name}.binpb is not what this test makes");
        let found = rows(&scan_with_defaults(&bytes, &workspace()).unwrap());
        if bless {
            fs::write(&expected, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        }
        let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(&expected).unwrap()).unwrap();
        assert_eq!(found, golden, "{name}");
    }
}
