//! What can go wrong with the catalog.

use std::sync::Arc;

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
    /// The file was written by a newer version.
    #[error("the catalog has format {found}, this version knows format {known}: use a newer version of logseal")]
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

impl CatalogError {
    pub(crate) fn sql(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { operation, source: Arc::new(source) }
    }
}
