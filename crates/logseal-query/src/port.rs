//! What a query needs from the rest of the server, as ports that the server implements.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use logseal_core::{SegmentId, TableName, UnixNanos, WorkspaceId};
use logseal_otlp::AttributeColumn;
use object_store::path::Path;
use parquet::encryption::decrypt::FileDecryptionProperties;
use thiserror::Error;

/// Knows the tables and segments of a workspace.
#[async_trait]
pub trait SegmentCatalog: Debug + Send + Sync {
    /// The tables of `workspace` and all their segments at one moment.
    ///
    /// # Errors
    ///
    /// [`PortErrorKind::NotFound`] for an unknown workspace, [`PortErrorKind::Denied`] when its data must not be read.
    async fn snapshot(&self, workspace: WorkspaceId) -> Result<Snapshot, PortError>;
}

/// Opens segments for reading.
#[async_trait]
pub trait SegmentOpener: Debug + Send + Sync {
    /// The properties that decrypt `segment`: its key, whose commitment has been checked, and the AAD prefix that the
    /// catalog knows (never the one that the file claims).
    ///
    /// # Errors
    ///
    /// [`PortErrorKind::Denied`] when the key is revoked, [`PortErrorKind::Corrupt`] when it does not match its
    /// commitment, [`PortErrorKind::Unavailable`] when the key cannot be had now.
    async fn open(&self, segment: SegmentId) -> Result<Arc<FileDecryptionProperties>, PortError>;
}

/// The tables of a workspace at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every table, also those without segments.
    pub tables: Vec<TableSnapshot>,
}

/// One table of a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// Its name, as SQL uses it.
    pub name: TableName,
    /// The attribute columns of all its segments together.
    pub columns: Vec<AttributeColumn>,
    /// Its segments, in any order.
    pub segments: Vec<SegmentRef>,
}

/// One segment of a table. All of it is believed: it decides which files are opened, and counts without reading.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentRef {
    /// Its id.
    pub id: SegmentId,
    /// Where the object is, below the store's root.
    pub path: Path,
    /// Exact size of the object in bytes.
    pub bytes: u64,
    /// Exact number of rows.
    pub rows: u64,
    /// Smallest `time` of its rows, exactly.
    pub min_time: UnixNanos,
    /// Largest `time` of its rows, exactly.
    pub max_time: UnixNanos,
}

/// Why a port could not do what was asked.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{message}")]
pub struct PortError {
    /// What the caller can do about it.
    pub kind: PortErrorKind,
    /// Names the object and the reason; shown to whoever asked.
    pub message: String,
}

impl PortError {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: PortErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of [`PortError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortErrorKind {
    /// The object does not exist.
    NotFound,
    /// It cannot be had now; later it may.
    Unavailable,
    /// It is there and wrong.
    Corrupt,
    /// It must not be read: its key is revoked, or the caller has no right to it.
    Denied,
}
