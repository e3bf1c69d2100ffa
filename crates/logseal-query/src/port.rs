//! What a query needs from the rest of the server, as ports that the server implements.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use logseal_core::{SegmentId, TableName, UnixNanos, WorkspaceId};
use logseal_otlp::AttributeColumn;
use object_store::path::Path;
use parquet::encryption::decrypt::FileDecryptionProperties;
use thiserror::Error;

/// Knows the tables and segments of a workspace.
#[async_trait]
pub trait SegmentCatalog: Debug + Send + Sync {
    /// The tables of `workspace` with all their segments and all their unsealed rows at one moment: each acknowledged
    /// row is either in one of the segments or once among the unsealed rows.
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

/// Reads rows that are only in the write-ahead log now.
pub trait ParkedRows: Debug + Send + Sync {
    /// The rows, in bounded batches of the same shape as [`Unsealed::batches`].
    ///
    /// Each call starts anew and gives the same rows: a query that names its table twice reads twice. Nothing is read
    /// before the stream is polled; dropping it stops the reading.
    ///
    /// # Errors
    ///
    /// [`PortErrorKind::Denied`] when the rows' key is revoked, [`PortErrorKind::Corrupt`] when the log is damaged or gone,
    /// [`PortErrorKind::Unavailable`] when it cannot be read now. The first error ends the stream and the query.
    fn read(&self) -> BoxStream<'static, Result<RecordBatch, PortError>>;
}

/// The tables of a workspace at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every table, also those without segments.
    pub tables: Vec<TableSnapshot>,
    /// How far the segments are behind the acknowledgements.
    pub lag: Lag,
}

/// What of a workspace is acknowledged and in no segment yet, at the moment of a [`Snapshot`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lag {
    /// How many records.
    pub records: u64,
    /// Time since the oldest of them was acknowledged; zero when there is none.
    pub age: Duration,
}

/// One table of a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// Its name, as SQL uses it.
    pub name: TableName,
    /// The attribute columns of all its segments and all its unsealed rows together.
    pub columns: Vec<AttributeColumn>,
    /// Its segments, in any order.
    pub segments: Vec<SegmentRef>,
    /// Rows that are acknowledged and in no segment yet, each exactly once beside the segments.
    pub unsealed: Unsealed,
}

/// Rows of a table that are in no segment yet.
///
/// Their batches have the columns that `logseal_otlp` makes: the fixed ones, and struct columns with a part of the table's
/// attributes; a struct column without any may be absent. They are shared, never copied.
#[derive(Clone, Default)]
pub struct Unsealed {
    /// In memory; may be very many and very small.
    pub batches: Vec<RecordBatch>,
    /// Only in the write-ahead log now; read when the query runs.
    pub parked: Vec<Arc<dyn ParkedRows>>,
}

impl Debug for Unsealed {
    /// Counts only: the batches' own text is what the logs say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsealed")
            .field("batches", &self.batches.len())
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
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
