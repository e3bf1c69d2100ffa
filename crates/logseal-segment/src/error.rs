//! What can go wrong with a segment.

use logseal_crypto::{LeaseOver, WrapError, WrapsExhausted};
use object_store::path::Path;
use thiserror::Error;

/// A failed segment operation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The rows could not be encoded.
    #[error("cannot encode a segment")]
    Encode(#[source] parquet::errors::ParquetError),
    /// The segment's key may not be used any more: nothing is wrong with the rows.
    #[error("the key of the segment may not be used")]
    LeaseOver(#[from] LeaseOver),
    /// The account key may wrap no key for the segment before its count is stored: nothing is wrong with the rows.
    #[error("no key can be made for the segment now")]
    Wraps(#[from] WrapsExhausted),
    /// The chunks do not fit one schema.
    #[error("cannot bring chunks under one schema")]
    Schema(#[source] arrow::error::ArrowError),
    /// The writer's settings would leave something in clear. A bug.
    #[error("refusing to write a segment: `{0}` does not hold")]
    UnsafeSettings(&'static str),
    /// The footer to be written describes another segment. A bug.
    #[error("refusing to write a segment: its footer states another value for {0}")]
    Footer(&'static str),
    /// The file does not open: another key or another segment's key metadata, or it was altered.
    #[error("cannot open the segment's footer")]
    Open(#[source] parquet::errors::ParquetError),
    /// The store could not take the object.
    #[error("cannot store object `{path}`")]
    Put {
        /// The object's path.
        path: Path,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The object could not be made durable.
    #[error("cannot make object `{path}` durable")]
    Sync {
        /// The object's path.
        path: Path,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store could not say which objects it has.
    #[error("cannot list the objects under `{prefix}`")]
    List {
        /// The folder.
        prefix: Path,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The store could not give the object.
    #[error("cannot read object `{path}`")]
    Get {
        /// The object's path.
        path: Path,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The store could not delete the object.
    #[error("cannot delete object `{path}`")]
    Delete {
        /// The object's path.
        path: Path,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The store gave fewer or more bytes than it says that the object has.
    #[error("object `{path}` has {stated} bytes, but the store gave {found}")]
    Size {
        /// The object's path.
        path: Path,
        /// The object's size in bytes, as the store states it.
        stated: u64,
        /// Bytes that were read.
        found: u64,
    },
    /// There is no such object.
    #[error("there is no object `{0}`")]
    Missing(Path),
    /// The object is larger than the caller takes.
    #[error("object `{path}` has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// The object's path.
        path: Path,
        /// Its size in bytes.
        bytes: u64,
        /// The most bytes that the caller takes.
        limit: u64,
    },
    /// Another object has this path.
    #[error("object `{0}` exists already with other content")]
    Conflict(Path),
    /// The file is not a sealed segment.
    #[error("not a sealed segment: {0}")]
    NotASegment(&'static str),
    /// The file's footer was written by a later version of this program.
    #[error("the segment's footer has format {format}, this version of logseal knows format {known}")]
    NewerFooter {
        /// The footer's format.
        format: u32,
        /// The format that this version knows.
        known: u32,
    },
}

impl From<WrapError> for SegmentError {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::LeaseOver(source) => source.into(),
            WrapError::Exhausted(source) => source.into(),
        }
    }
}

impl SegmentError {
    /// Whether the store failed: the same call may succeed later. Everything else is our own trouble or the object's, and stays.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        match self {
            Self::Put { source, .. }
            | Self::List { source, .. }
            | Self::Get { source, .. }
            | Self::Delete { source, .. } => !is_final(source),
            Self::Sync { .. } | Self::Size { .. } => true,
            _ => false,
        }
    }
}

/// Whether the store refused without trying: it can not do such a thing, or the path is none.
pub(crate) fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error::{InvalidPath, NotImplemented, NotSupported, UnknownConfigurationKey};
    matches!(error, NotImplemented { .. } | NotSupported { .. } | InvalidPath { .. } | UnknownConfigurationKey { .. })
}
