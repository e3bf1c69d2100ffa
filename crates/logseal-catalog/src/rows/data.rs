//! Tables, columns and segments, and what became of those that are gone.

use logseal_core::{AekId, SegmentId, TableId, TableName, UnixNanos, WorkspaceId};

use super::Authenticated;

/// A table of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableRow {
    /// Its id.
    pub id: TableId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: TableName,
    /// When it was made.
    pub created: UnixNanos,
}

/// An attribute column of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColumnRow {
    /// The table.
    pub table: TableId,
    /// Position in the order of assignment, from 0.
    pub ordinal: u32,
    /// Code of the attribute container.
    pub container: u8,
    /// Code of the attribute kind.
    pub kind: u8,
    /// The AEK that seals the name.
    pub aek: AekId,
    /// The sealed name.
    pub name_sealed: Vec<u8>,
    /// The name's fingerprint.
    pub name_fingerprint: Vec<u8>,
}

/// A segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentRow {
    /// Its id.
    pub id: SegmentId,
    /// The workspace that owns it.
    pub workspace: WorkspaceId,
    /// The table whose records it holds.
    pub table: TableId,
    /// The AEK that wraps its DEK.
    pub aek: AekId,
    /// The object's path in the store.
    pub path: String,
    /// The object's size in bytes.
    pub bytes: u64,
    /// Its number of records.
    pub rows: u64,
    /// The smallest `time` in it.
    pub min_time: UnixNanos,
    /// The largest `time` in it.
    pub max_time: UnixNanos,
    /// When it was made.
    pub created: UnixNanos,
    /// The wrapped DEK (`logseal_crypto::WrappedDek`).
    pub wrapped_dek: Vec<u8>,
    /// What the DEK commits to.
    pub dek_commitment: Vec<u8>,
}

/// An AEK that was destroyed, so that what it sealed can be told from damage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShreddedRow {
    /// The AEK.
    pub aek: AekId,
    /// The workspace that it belonged to.
    pub workspace: WorkspaceId,
    /// When it was destroyed.
    pub at: UnixNanos,
}

/// An object in the store that nothing refers to any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GarbageRow {
    /// The object's path.
    pub path: String,
    /// Since when.
    pub since: UnixNanos,
}

/// What a workspace has sent on one day, and whether its daily cap was reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageRow {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The day, counted from 1970-01-01 (UTC).
    pub day: i64,
    /// Bytes of the requests that were acknowledged on that day, at most `i64::MAX`.
    pub bytes: u64,
    /// Whether it is in the audit trail that the cap was reached on that day.
    pub reached: bool,
}

authenticated!(
    TableRow,
    "table",
    |r| r.name.to_string(),
    [r.id.as_bytes(), r.workspace.as_bytes(), r.name.as_str().as_bytes(), r.created.0.to_le_bytes(),]
);
authenticated!(
    ColumnRow,
    "column",
    |r| format!("{}/{}", r.table, r.ordinal),
    [
        r.table.as_bytes(),
        r.ordinal.to_le_bytes(),
        [r.container],
        [r.kind],
        r.aek.as_bytes(),
        r.name_sealed,
        r.name_fingerprint,
    ]
);
authenticated!(
    SegmentRow,
    "segment",
    |r| r.id.to_string(),
    [
        r.id.as_bytes(),
        r.workspace.as_bytes(),
        r.table.as_bytes(),
        r.aek.as_bytes(),
        r.path.as_bytes(),
        r.bytes.to_le_bytes(),
        r.rows.to_le_bytes(),
        r.min_time.0.to_le_bytes(),
        r.max_time.0.to_le_bytes(),
        r.created.0.to_le_bytes(),
        r.wrapped_dek,
        r.dek_commitment,
    ]
);
authenticated!(
    ShreddedRow,
    "shredded AEK",
    |r| r.aek.to_string(),
    [r.aek.as_bytes(), r.workspace.as_bytes(), r.at.0.to_le_bytes()]
);
authenticated!(GarbageRow, "garbage", |r| r.path.clone(), [r.path.as_bytes(), r.since.0.to_le_bytes()]);
authenticated!(
    UsageRow,
    "usage",
    |r| r.workspace.to_string(),
    [r.workspace.as_bytes(), r.day.to_le_bytes(), r.bytes.to_le_bytes(), [u8::from(r.reached)]]
);
