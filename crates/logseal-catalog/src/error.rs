//! What can go wrong with the catalog.

use std::path::PathBuf;
use std::sync::Arc;

use logseal_core::{OperationId, ResourceId, WalFileId};
use thiserror::Error;

/// A failed catalog operation.
#[derive(Clone, Debug, Error)]
pub enum CatalogError {
    /// SQLite refused or could not be reached.
    #[error("catalog operation `{operation}` failed")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// SQLite's answer; shared, because one failed commit answers every change in it.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// A row fails its MAC or cannot be decoded.
    #[error("catalog row {kind} `{id}` fails its integrity check: it was altered, or written under another root key")]
    Integrity {
        /// The kind of row.
        kind: &'static str,
        /// The row's id.
        id: String,
    },
    /// The row exists already.
    #[error("{kind} `{id}` exists already in the catalog")]
    Conflict {
        /// The kind of row.
        kind: &'static str,
        /// The row's id.
        id: String,
    },
    /// Another row covers frames of this range of the same stream.
    #[error("the frames {first} to {last} of WAL file `{file}` are covered already, at least in part")]
    Covered {
        /// The WAL file.
        file: WalFileId,
        /// The refused range's first sequence number.
        first: u64,
        /// The refused range's last sequence number.
        last: u64,
    },
    /// A change names a row that is not there.
    #[error("{kind} `{id}` is not in the catalog")]
    Unknown {
        /// The kind of row.
        kind: &'static str,
        /// The row's id.
        id: String,
    },
    /// A change states what no row can hold, or what other rows rule out.
    #[error("{kind} `{id}` is refused: {why}")]
    Invalid {
        /// The kind of row.
        kind: &'static str,
        /// The row's id.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A change was made from a row that is not the stored one any more: read it again.
    #[error("{kind} `{id}` was changed meanwhile")]
    Stale {
        /// The kind of row.
        kind: &'static str,
        /// The row's id.
        id: String,
    },
    /// Another operation of the resource goes on.
    #[error("resource `{resource}` is busy with operation `{operation}`")]
    Busy {
        /// The resource.
        resource: ResourceId,
        /// The operation that goes on.
        operation: OperationId,
    },
    /// The file of an older format has rows that cannot be brought to this one.
    #[error("the catalog cannot be brought to format {to}: rows would refer to rows that are not there")]
    Upgrade {
        /// The format that it was to get.
        to: i64,
    },
    /// Deleted rows may still be in the journal, because it could not be folded into the file.
    #[error("the catalog's journal stays in use by readers: deleted rows may still be in it")]
    Unscrubbed,
    /// A copy of the catalog would replace a file.
    #[error("`{}` exists already: a backup never replaces a file", .0.display())]
    Exists(PathBuf),
    /// A copy of the catalog could not be written.
    #[error("cannot write the catalog's backup `{}`", .path.display())]
    Backup {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A copy of the catalog is damaged, and so probably the catalog itself.
    #[error("the copy of the catalog is damaged: {0}")]
    Damaged(String),
    /// The file was written by a newer version, or is no catalog.
    #[error("the catalog has format {found}, this version of logseal knows formats 1 to {known}")]
    Format {
        /// The file's format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// The writer task has stopped.
    #[error("the catalog is shutting down")]
    Stopped,
}

/// SQLite's primary result codes (sqlite.org/rescode.html) that tell of the disk, of memory or of another process, never of
/// what a change says: PERM, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOLFS, NOTADB.
const STORAGE_CODES: &[u32] = &[3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 22, 26];

impl CatalogError {
    /// Whether the storage failed (full, I/O error, in use): nothing was changed, and the same change may succeed later.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        match self {
            Self::Sql { source, .. } => match source.as_ref() {
                sqlx::Error::Database(error) => {
                    let code = error.code().and_then(|code| code.parse::<u32>().ok());
                    code.is_none_or(|code| STORAGE_CODES.contains(&(code & 0xff)))
                }
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::BeginFailed
                | sqlx::Error::WorkerCrashed => true,
                _ => false,
            },
            Self::Backup { .. } | Self::Unscrubbed => true,
            _ => false,
        }
    }

    /// Whether the catalog refuses what the change says: the same change would be refused again. Neither this nor
    /// [`CatalogError::is_storage`] is [`CatalogError::Stopped`], which decides nothing.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        !self.is_storage() && !matches!(self, Self::Stopped)
    }

    pub(crate) fn sql(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { operation, source: Arc::new(source) }
    }
}
