//! Numbered records, the requests that carry them, and an encoder that breaks on chosen ones.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use arrow::array::{AsArray as _, RecordBatch};
use logseal_ingest::pipeline::commit::{Encoder, ParquetEncoder};
use logseal_segment::SegmentError;
use logseal_segment::encode::{SealedRows, SegmentWriter};
use logseal_testkit::ship::{attribute, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// The tables of each workspace.
pub(crate) const TABLES: [&str; 3] = ["logs", "audit", "access"];

/// A record: its number, and which table of which workspace it goes to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id {
    pub(crate) number: u32,
    pub(crate) workspace: u8,
    pub(crate) table: u8,
}

impl Id {
    fn body(self) -> String {
        format!("{:08x}.{:02x}.{:02x}. and then what happened", self.number, self.workspace, self.table)
    }

    fn parse(body: &str) -> Self {
        let field = |at| body.split('.').nth(at).and_then(|field| u32::from_str_radix(field, 16).ok()).unwrap();
        Self { number: field(0), workspace: field(1) as u8, table: field(2) as u8 }
    }
}

/// The records in `batch`.
pub(crate) fn ids(batch: &RecordBatch) -> Vec<Id> {
    let bodies = batch.column_by_name("body").unwrap().as_string::<i32>();
    bodies.iter().map(|body| Id::parse(body.unwrap())).collect()
}

/// A request with `records`, whose attributes' names begin with `keys`.
pub(crate) fn request(records: &[Id], keys: &str, padding: usize) -> ExportLogsServiceRequest {
    let of_table = |table: u8| {
        let records = records.iter().filter(|id| id.table == table).map(|id| LogRecord {
            time_unix_nano: 1_700_000_000_000_000_000 + u64::from(id.number),
            body: Some(text(id.body() + &"x".repeat(padding))),
            attributes: vec![attribute(
                format!("{keys}{}", id.number % 7),
                AnyValue { value: Some(Value::IntValue(i64::from(id.number))) },
            )],
            ..LogRecord::default()
        });
        ResourceLogs {
            resource: Some(Resource {
                attributes: vec![attribute("logseal.table", text(TABLES[usize::from(table)]))],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    };
    let tables: BTreeSet<u8> = records.iter().map(|id| id.table).collect();
    ExportLogsServiceRequest { resource_logs: tables.into_iter().map(of_table).collect() }
}

/// An encoder that panics over chosen records.
#[derive(Debug, Default)]
pub(crate) struct Poisoned(Mutex<HashSet<u32>>);

impl Poisoned {
    /// From now on the record `number` cannot be encoded.
    pub(crate) fn poison(&self, number: u32) {
        self.0.lock().unwrap().insert(number);
    }
}

impl Encoder for Poisoned {
    fn encode(&self, segment: &SegmentWriter, chunks: &[RecordBatch]) -> Result<SealedRows, SegmentError> {
        let poisoned = self.0.lock().unwrap().clone();
        let mut records = chunks.iter().flat_map(ids);
        assert!(!records.any(|id| poisoned.contains(&id.number)), "expected by this test: the record is poisoned");
        ParquetEncoder.encode(segment, chunks)
    }
}
