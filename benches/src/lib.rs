//! What the benchmarks share: requests, scanned chunks, a key to seal with, a plot.

mod keys;
pub mod plot;
mod real;

use arrow::array::RecordBatch;
use logseal_bench::Payload;
use logseal_core::{AekId, ClusterId, SegmentId, TableId, TableName, UnixNanos, WorkspaceId};
use logseal_crypto::{Aek, Key256, Lease, OsRandom};
use logseal_otlp::{ScanLimits, SchemaLimits, TableChunk, WorkspaceSchema};
use logseal_segment::SegmentIdentity;
use logseal_segment::footer::SegmentFooter;

pub use keys::with_attribute_keys;

/// The workspace of all stages.
pub const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

/// The segment of all stages.
pub const IDENTITY: SegmentIdentity = SegmentIdentity {
    cluster: ClusterId::from_bytes([2; 16]),
    workspace: WORKSPACE,
    table: TableId::from_bytes([3; 16]),
    segment: SegmentId::from_bytes([4; 16]),
    received: UnixNanos(0),
};

/// A workspace's schema under the usual limits.
#[must_use]
pub fn schema() -> WorkspaceSchema {
    WorkspaceSchema::new(SchemaLimits { tables: 100, attribute_columns: 512, key_bytes: 256 })
}

/// The `index`th request of `payload` in its usual size.
#[must_use]
pub fn request(payload: Payload, index: u64) -> Vec<u8> {
    logseal_bench::request(payload, 1, index, payload.default_batch(), UnixNanos(1_767_225_600_000_000_000))
}

/// The chunks of `requests` requests of `payload`.
///
/// # Panics
///
/// When a generated request cannot be scanned: a bug.
#[must_use]
pub fn chunks(payload: Payload, requests: u64) -> Vec<TableChunk> {
    let schema = schema();
    let scan = |index| logseal_otlp::scan(&request(payload, index), &schema, UnixNanos(0), &ScanLimits::default());
    (0..requests).flat_map(|index| scan(index).expect("generated requests are well-formed").chunks).collect()
}

/// The footer of a segment of `rows` rows sealed under `aek`.
#[must_use]
pub fn footer(aek: &Aek, rows: u64) -> SegmentFooter {
    SegmentFooter {
        cluster: IDENTITY.cluster,
        workspace: WORKSPACE,
        workspace_name: "default".to_owned(),
        table: IDENTITY.table,
        table_name: TableName::logs(),
        aek: aek.id(),
        aek_generation: aek.generation(),
        segment: IDENTITY.segment,
        rows,
        min_time: UnixNanos(0),
        max_time: UnixNanos(0),
        created: UnixNanos(0),
        columns: Vec::new(),
        coverage: Vec::new(),
    }
}

/// Records to measure with.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// What tables call it.
    pub name: &'static str,
    payload: Option<Payload>,
}

/// The payloads of `logseal bench`, and the real logs of `testdata/real`.
pub const SOURCES: [Source; 4] = [
    Source { name: "a", payload: Some(Payload::A) },
    Source { name: "b", payload: Some(Payload::B) },
    Source { name: "c", payload: Some(Payload::C) },
    Source { name: "real", payload: None },
];

impl Source {
    /// Requests with about `records` records.
    #[must_use]
    pub fn requests(&self, records: usize) -> Vec<Vec<u8>> {
        match self.payload {
            Some(payload) => {
                (0..records.div_ceil(payload.default_batch()) as u64).map(|n| request(payload, n)).collect()
            }
            None => real::requests(records),
        }
    }

    /// About `rows` rows.
    ///
    /// # Panics
    ///
    /// When a request cannot be scanned: a bug.
    #[must_use]
    pub fn chunks(&self, rows: usize) -> Vec<RecordBatch> {
        let schema = schema();
        let scan = |request: Vec<u8>| logseal_otlp::scan(&request, &schema, UnixNanos(0), &ScanLimits::default());
        let scanned = self.requests(rows).into_iter().map(scan);
        scanned.flat_map(|scanned| scanned.expect("requests are well-formed").chunks).map(|chunk| chunk.batch).collect()
    }
}

/// A random AEK.
#[must_use]
pub fn aek() -> Aek {
    Aek::new(AekId::from_bytes([5; 16]), WORKSPACE, 1, Key256::generate(OsRandom), Lease::unlimited())
}
