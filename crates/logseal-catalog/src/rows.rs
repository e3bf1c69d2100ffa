//! The catalog's rows as values, and what the MAC of each covers: every field.

use logseal_core::{AekId, ClusterId, NodeId, SegmentId, TableId, TableName, UnixNanos, WalFileId, WorkspaceId};

/// The KEK version that a cluster uses or that wrapped an AEK.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KekRow {
    /// The vault's URI.
    pub vault_uri: String,
    /// The key's name.
    pub name: String,
    /// The key's version.
    pub version: String,
}

/// A cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterRow {
    /// Its id.
    pub id: ClusterId,
    /// Its name, unique in the deployment.
    pub name: String,
    /// When it was made.
    pub created: UnixNanos,
    /// The KEK version in use.
    pub kek: KekRow,
}

/// A workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkspaceRow {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, unique in the deployment.
    pub name: String,
    /// The cluster that it is linked to.
    pub cluster: ClusterId,
    /// When it was made.
    pub created: UnixNanos,
}

/// One access key of a workspace; the key itself is not in the row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkspaceKeyRow {
    /// The workspace that it ships to.
    pub workspace: WorkspaceId,
    /// `primary` or `secondary`.
    pub slot: String,
    /// HMAC of the key under the root key: how a presented key is found.
    pub lookup: Vec<u8>,
    /// The key, sealed under the root key: how `workspace keys` can show it.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created: UnixNanos,
}

/// An account encryption key, wrapped by a KEK version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AekRow {
    /// Its id.
    pub id: AekId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The cluster whose KEK wraps it.
    pub cluster: ClusterId,
    /// Counted from 1 within the workspace.
    pub generation: u32,
    /// The KEK version that wrapped it.
    pub kek: KekRow,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// What the key commits to.
    pub commitment: Vec<u8>,
    /// When it was made.
    pub created: UnixNanos,
}

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

/// What became of a file of the write-ahead log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WalFileState {
    /// It is there and may hold frames that no segment covers.
    Live,
    /// Each of its frames is covered: it may be deleted, or is gone.
    Retired,
    /// It was missing, or older than what was known of it, and was reported.
    Lost,
}

impl WalFileState {
    /// The number in the row.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Live => 1,
            Self::Retired => 2,
            Self::Lost => 3,
        }
    }

    /// The state with this number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Live, Self::Retired, Self::Lost].into_iter().find(|state| state.code() == code)
    }
}

/// A file of the write-ahead log. Numbers are at most `i64::MAX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WalFileRow {
    /// Its id.
    pub id: WalFileId,
    /// The node that wrote it.
    pub node: NodeId,
    /// The cluster whose records it holds.
    pub cluster: ClusterId,
    /// Its position in the file sequence of its cluster, from 0.
    pub ordinal: u64,
    /// SHA-256 of its header, 32 bytes.
    pub header_hash: Vec<u8>,
    /// When it was made.
    pub created: UnixNanos,
    /// What became of it.
    pub state: WalFileState,
    /// When `state` last changed.
    pub changed: UnixNanos,
    /// A sequence number that is known to have been durable: a frame missing at or below it is a loss, not a torn tail.
    pub attested: u64,
}

/// The frames `first..=last` of one stream in one file of the write-ahead log are settled. Numbers are at most `i64::MAX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CoverageRow {
    /// The file.
    pub file: WalFileId,
    /// The table of the stream.
    pub table: TableId,
    /// The AEK of the stream.
    pub aek: AekId,
    /// The first sequence number.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
    /// The segment that holds the records; `None` when the frames are quarantined.
    pub segment: Option<SegmentId>,
}

/// A row with a MAC.
pub(crate) trait Authenticated {
    /// The kind of row: the MAC's domain, and the word in error messages.
    const KIND: &'static str;

    /// The row's id for error messages.
    fn label(&self) -> String;

    /// Every field of the row as bytes.
    fn fields(&self) -> Vec<Vec<u8>>;
}

macro_rules! authenticated {
    ($row:ty, $kind:literal, |$r:ident| $label:expr, [$($field:expr),+ $(,)?]) => {
        impl Authenticated for $row {
            const KIND: &'static str = $kind;
            fn label(&self) -> String {
                let $r = self;
                $label
            }
            fn fields(&self) -> Vec<Vec<u8>> {
                let $r = self;
                vec![$($field.to_vec()),+]
            }
        }
    };
}

authenticated!(
    ClusterRow,
    "cluster",
    |r| r.name.clone(),
    [
        r.id.as_bytes(),
        r.name.as_bytes(),
        r.created.0.to_le_bytes(),
        r.kek.vault_uri.as_bytes(),
        r.kek.name.as_bytes(),
        r.kek.version.as_bytes(),
    ]
);
authenticated!(
    WorkspaceRow,
    "workspace",
    |r| r.name.clone(),
    [r.id.as_bytes(), r.name.as_bytes(), r.cluster.as_bytes(), r.created.0.to_le_bytes(),]
);
authenticated!(
    WorkspaceKeyRow,
    "workspace key",
    |r| format!("{}/{}", r.workspace, r.slot),
    [r.workspace.as_bytes(), r.slot.as_bytes(), r.lookup, r.sealed, r.created.0.to_le_bytes(),]
);
authenticated!(
    AekRow,
    "AEK",
    |r| r.id.to_string(),
    [
        r.id.as_bytes(),
        r.workspace.as_bytes(),
        r.cluster.as_bytes(),
        r.generation.to_le_bytes(),
        r.kek.vault_uri.as_bytes(),
        r.kek.name.as_bytes(),
        r.kek.version.as_bytes(),
        r.wrapped,
        r.commitment,
        r.created.0.to_le_bytes(),
    ]
);
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
    WalFileRow,
    "WAL file",
    |r| r.id.to_string(),
    [
        r.id.as_bytes(),
        r.node.as_bytes(),
        r.cluster.as_bytes(),
        r.ordinal.to_le_bytes(),
        r.header_hash,
        r.created.0.to_le_bytes(),
        [r.state.code()],
        r.changed.0.to_le_bytes(),
        r.attested.to_le_bytes(),
    ]
);
authenticated!(
    CoverageRow,
    "coverage",
    |r| format!("{}/{}/{}/{}", r.table, r.aek, r.file, r.first),
    [
        r.file.as_bytes(),
        r.table.as_bytes(),
        r.aek.as_bytes(),
        r.first.to_le_bytes(),
        r.last.to_le_bytes(),
        // An empty field stands for quarantine: an id is never empty, and the MAC frames each field by its length.
        r.segment.as_ref().map_or(&[][..], |id| id.as_bytes()),
    ]
);
