//! Every way a query can fail, in the words that its caller sees.

use logseal_core::SegmentId;
use object_store::path::Path;
use thiserror::Error;

use crate::port::{PortError, PortErrorKind};

/// Why a query has no result.
///
/// The text of [`QueryError::Invalid`] and [`QueryError::Internal`] may quote the query or a value in it: it goes to the
/// caller and never into the program's own log.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum QueryError {
    /// The text is not a query of this workspace's tables, or failed on its values.
    #[error("{message}{}", Position::suffix(*.position))]
    Invalid {
        /// What is wrong, with a suggestion where there is one.
        message: String,
        /// Where in the text, if that is known.
        position: Option<Position>,
    },
    /// A statement other than a query.
    #[error("{what} refused: only SELECT, SHOW TABLES, SHOW COLUMNS, DESCRIBE and EXPLAIN are allowed")]
    Refused {
        /// The statement with its verb, such as `INSERT is`.
        what: String,
    },
    /// Sorts, joins, aggregates and results of the running queries need more memory than configured.
    #[error(
        "the query needs more memory than `query.memory_bytes` allows ({limit} bytes for all running queries); narrow its \
         time range or its columns, or raise the setting"
    )]
    OverMemory {
        /// The configured limit.
        limit: usize,
    },
    /// The time limit passed.
    #[error("the query did not finish within `query.timeout_ms` ({limit_ms} ms)")]
    TimedOut {
        /// The configured limit.
        limit_ms: u64,
    },
    /// The result has more rows or bytes than configured.
    #[error("the result is larger than `{setting}` allows ({limit}); add a LIMIT, select fewer columns or aggregate")]
    ResultTooLarge {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        limit: usize,
    },
    /// A segment that the query needs cannot be read; nothing of it is in the message.
    #[error("segment {segment} at `{path}` {fault}")]
    Segment {
        /// Which segment.
        segment: SegmentId,
        /// Where its object is or should be.
        path: Path,
        /// What is wrong with it.
        fault: SegmentFault,
    },
    /// Rows that are in no segment yet cannot be read although they were acknowledged.
    #[error("{message}")]
    Damaged {
        /// Names what is damaged or missing.
        message: String,
    },
    /// A key that the query needs is revoked, or the workspace must not be read.
    #[error("{message}")]
    Denied {
        /// Names the key's owner.
        message: String,
    },
    /// The workspace does not exist.
    #[error("{message}")]
    NotFound {
        /// Names the workspace.
        message: String,
    },
    /// The catalog, a key, the object store or the write-ahead log cannot be reached now.
    #[error("{message}")]
    Unavailable {
        /// Names what cannot be reached.
        message: String,
    },
    /// A defect of the program.
    #[error("internal error: {message}")]
    Internal {
        /// What is known about it.
        message: String,
    },
}

/// A place in the query's text; both count from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl Position {
    fn suffix(position: Option<Self>) -> String {
        position.map_or_else(String::new, |p| format!(" (line {}, column {})", p.line, p.column))
    }
}

/// What is wrong with a segment.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SegmentFault {
    /// The store has no such object.
    #[error("is missing from the object store")]
    Missing,
    /// The object's size differs from the catalog's.
    #[error("has {found} bytes instead of {expected}")]
    Size {
        /// What the catalog says.
        expected: u64,
        /// What the store says.
        found: u64,
    },
    /// It does not decrypt or decode with the key and the name that the catalog has for it.
    #[error("is damaged or is not the segment that was written there")]
    Damaged,
    /// Its key is missing or is not the one it was sealed with.
    #[error("has no usable key: {0}")]
    Key(String),
}

/// What the caller of a query can do about a [`QueryError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryErrorKind {
    /// Change the query.
    Invalid,
    /// Not a query at all.
    Refused,
    /// Ask for less, or raise a limit.
    OverLimit,
    /// Ask for less, or again later.
    TimedOut,
    /// Repair or restore the segment or the write-ahead log.
    Damaged,
    /// Restore access to the key.
    Denied,
    /// Name an existing workspace.
    NotFound,
    /// Ask again later.
    Unavailable,
    /// Report it.
    Internal,
}

impl QueryError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> QueryErrorKind {
        match self {
            Self::Invalid { .. } => QueryErrorKind::Invalid,
            Self::Refused { .. } => QueryErrorKind::Refused,
            Self::OverMemory { .. } | Self::ResultTooLarge { .. } => QueryErrorKind::OverLimit,
            Self::TimedOut { .. } => QueryErrorKind::TimedOut,
            Self::Segment { .. } | Self::Damaged { .. } => QueryErrorKind::Damaged,
            Self::Denied { .. } => QueryErrorKind::Denied,
            Self::NotFound { .. } => QueryErrorKind::NotFound,
            Self::Unavailable { .. } => QueryErrorKind::Unavailable,
            Self::Internal { .. } => QueryErrorKind::Internal,
        }
    }

    /// This error with the place that `find` finds, if it lacks one.
    pub(crate) fn placed(self, find: impl FnOnce(&str) -> Option<Position>) -> Self {
        match self {
            Self::Invalid { message, position: None } => {
                let position = find(&message);
                Self::Invalid { message, position }
            }
            other => other,
        }
    }

    /// The catalog's answer to a request for a snapshot.
    pub(crate) fn from_catalog(error: PortError) -> Self {
        let PortError { kind, message } = error;
        match kind {
            PortErrorKind::NotFound => Self::NotFound { message },
            PortErrorKind::Unavailable => Self::Unavailable { message },
            PortErrorKind::Corrupt => Self::Internal { message },
            PortErrorKind::Denied => Self::Denied { message },
        }
    }

    /// A failure to read rows that are only in the write-ahead log.
    pub(crate) fn from_parked(error: PortError) -> Self {
        let PortError { kind, message } = error;
        match kind {
            // The snapshot named these rows, so that they are gone is damage and no mistake of the caller's.
            PortErrorKind::NotFound | PortErrorKind::Corrupt => Self::Damaged { message },
            PortErrorKind::Unavailable => Self::Unavailable { message },
            PortErrorKind::Denied => Self::Denied { message },
        }
    }
}

impl QueryErrorKind {
    /// The value of the metrics' label `outcome`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::OverLimit => "over_limit",
            Self::TimedOut => "timed_out",
            Self::Damaged => "damaged",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}
