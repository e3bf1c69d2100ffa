//! Rows as the server's own scan makes them, and logs that have them parked.

use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt};
use logseal_core::UnixNanos;
use logseal_otlp::{ScanLimits, SchemaLimits, WorkspaceSchema, scan};
use logseal_query::{ParkedRows, PortError};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::fixture::{NEW_YEAR, SECOND};

type Read = dyn Fn() -> BoxStream<'static, Result<RecordBatch, PortError>> + Send + Sync;

/// Parked rows that a closure reads.
struct Parked(Box<Read>);

impl Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked")
    }
}

impl ParkedRows for Parked {
    fn read(&self) -> BoxStream<'static, Result<RecordBatch, PortError>> {
        (self.0)()
    }
}

pub(crate) fn parked(
    read: impl Fn() -> BoxStream<'static, Result<RecordBatch, PortError>> + Send + Sync + 'static,
) -> Arc<dyn ParkedRows> {
    Arc::new(Parked(Box::new(read)))
}

/// Parked rows that are there at once, or only after the reader has waited before each batch.
pub(crate) fn log(batches: Vec<RecordBatch>, slow: bool) -> Arc<dyn ParkedRows> {
    parked(move || {
        let batches = stream::iter(batches.clone());
        let wait = move |batch| async move {
            if slow {
                tokio::task::yield_now().await;
            }
            Ok(batch)
        };
        batches.then(wait).boxed()
    })
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A request of its own resource and scope for each row.
#[derive(Clone, Default)]
pub(crate) struct Row {
    pub(crate) second: i64,
    pub(crate) severity: i32,
    pub(crate) body: String,
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) scope: Vec<KeyValue>,
}

pub(crate) fn row(second: i64, body: &str) -> Row {
    Row { second, severity: 9, body: body.into(), ..Row::default() }
}

pub(crate) fn no_columns() -> WorkspaceSchema {
    WorkspaceSchema::new(SchemaLimits::default())
}

/// The rows as the server's own scan makes them.
pub(crate) fn batch(schema: &WorkspaceSchema, rows: &[Row]) -> RecordBatch {
    let resource_logs = rows.iter().map(|row| {
        let record = LogRecord {
            time_unix_nano: u64::try_from(NEW_YEAR + row.second * SECOND).expect("after 1970"),
            severity_number: row.severity,
            body: Some(AnyValue { value: Some(Value::StringValue(row.body.clone())) }),
            attributes: row.attributes.clone(),
            ..LogRecord::default()
        };
        let scope = InstrumentationScope { attributes: row.scope.clone(), ..InstrumentationScope::default() };
        ResourceLogs {
            resource: Some(Resource { attributes: row.resource.clone(), ..Resource::default() }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    });
    let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
    let scanned = scan(&request.encode_to_vec(), schema, UnixNanos(NEW_YEAR), &ScanLimits::default());
    let [chunk] = &scanned.expect("a valid request").chunks[..] else { panic!("one table") };
    assert_eq!(chunk.batch.num_rows(), rows.len());
    chunk.batch.clone()
}
