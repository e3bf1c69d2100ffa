//! What can go wrong with a segment.

use object_store::path::Path;
use thiserror::Error;

/// A failed segment operation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The rows could not be encoded.
    #[error("cannot encode a segment")]
    Encode(#[source] parquet::errors::ParquetError),
    /// The chunks do not fit one schema.
    #[error("cannot bring chunks under one schema")]
    Schema(#[source] arrow::error::ArrowError),
    /// The writer's settings would leave something in clear. A bug.
    #[error("refusing to write a segment: `{0}` does not hold")]
    UnsafeSettings(&'static str),
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
    /// Another object has this path.
    #[error("object `{0}` exists already with other content")]
    Conflict(Path),
    /// The file is not a sealed segment.
    #[error("not a sealed segment: {0}")]
    NotASegment(&'static str),
}
