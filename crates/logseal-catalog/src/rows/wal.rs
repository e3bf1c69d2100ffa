//! Files of the write-ahead log, and which of their frames are settled.

use logseal_core::{AekId, ClusterId, NodeId, SegmentId, TableId, UnixNanos, WalFileId};

use super::Authenticated;

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
