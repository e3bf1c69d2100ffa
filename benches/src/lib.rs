//! What the criterion stages share: generated requests, scanned chunks, and a key to seal with.

use logseal_bench::Payload;
use logseal_core::{AekId, ClusterId, SegmentId, TableId, TableName, UnixNanos, WorkspaceId};
use logseal_crypto::{Aek, Key256, Lease, OsRandom};
use logseal_otlp::{ScanLimits, SchemaLimits, TableChunk, WorkspaceSchema};
use logseal_segment::SegmentIdentity;
use logseal_segment::footer::SegmentFooter;

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

/// A random AEK.
#[must_use]
pub fn aek() -> Aek {
    Aek::new(AekId::from_bytes([5; 16]), WORKSPACE, 1, Key256::generate(OsRandom), Lease::unlimited())
}
