//! What can go wrong with a catalog's return.

use std::path::PathBuf;

use logseal_catalog::CatalogError;
use logseal_segment::SegmentError;
use thiserror::Error;

/// A failed restore or rebuild. Objects that cannot be used are no error: they are in the [`Report`](crate::Report).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The store could not say which objects it has.
    #[error("cannot list the store")]
    List(#[source] SegmentError),
    /// The catalog could not be read or written.
    #[error("the catalog fails")]
    Catalog(#[from] CatalogError),
    /// A file could not be read, written or moved.
    #[error("cannot {what} `{}`", file.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is in the way.
    #[error("`{}` is there, and nothing is ever replaced", .0.display())]
    InTheWay(PathBuf),
    /// The new catalog was not closed completely: moved as it is, it would lack its newest changes.
    #[error("`{}` still has a journal beside it", .0.display())]
    Open(PathBuf),
}
