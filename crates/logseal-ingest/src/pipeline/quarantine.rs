//! The one place where parts of the log go that become rows of no segment: copied as they are, noted in the catalog, counted once.
//!
//! Everything here may be repeated until it succeeds, and must be: a file of the log is deleted when all its frames are settled, and
//! the copy is then the only one. The same part gives the same copy, so a copy of the right size that is there before is not counted
//! again; it is written anew all the same, since nobody knows whether an earlier life came to sync it.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use logseal_catalog::{Catalog, CatalogError, Change, CoverageRow};
use logseal_core::WalFileId;
use logseal_wal::{Damage, Disk, Evidence, Position, WalError};
use metrics::counter;
use thiserror::Error;

use super::stream::StreamKey;
use crate::meter;

/// Sets parts of the log aside. Clones are the same one.
#[derive(Clone)]
pub struct Quarantine {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    catalog: Catalog,
    /// Copies whose last attempt failed, so that a later one counts them whatever the first left behind. Held while a copy is made:
    /// two at once would each remove what the other one writes.
    failed: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A part of the log that is in quarantine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Aside {
    /// The copy.
    pub path: PathBuf,
    /// Whether it was not there before, and so was counted.
    pub new: bool,
}

/// A part of the log could not be put into quarantine.
#[derive(Debug, Error)]
pub enum QuarantineError {
    /// It could not be copied: no note was made, and the log's own file must stay.
    #[error("cannot copy a part of the write-ahead log into quarantine")]
    Copy(#[source] WalError),
    /// Copying broke off. What broke it is not here, since a panic's text may quote data.
    #[error("copying a part of the write-ahead log into quarantine broke off")]
    Broken,
    /// The copy is there, but the catalog does not say so for each of the frame's streams.
    #[error("cannot note in the catalog that a frame is in quarantine")]
    Note {
        /// The copy.
        aside: PathBuf,
        /// The catalog's answer.
        #[source]
        source: CatalogError,
    },
}

impl QuarantineError {
    /// Whether repeating does not help: the frame is no longer readable where it was, or the catalog decided.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Copy(error) => matches!(error, WalError::NoEvidence { .. }),
            Self::Note { source, .. } => source.is_decision(),
            Self::Broken => false,
        }
    }
}

impl Quarantine {
    /// A quarantine in `folder`, which is made when something goes there.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf, catalog: Catalog) -> Self {
        Self { disk, folder, catalog, failed: Arc::default() }
    }

    /// Copies the frame at `position` out of the file `source`, still sealed, and then notes it as settled for each of `streams`; the
    /// copy.
    ///
    /// What another call or a segment settled already counts as noted. Doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`QuarantineError`]: the caller tries again, for without copy and note the frame would be lost or found again. A
    /// [`QuarantineError::Note`] whose source is a decision of the catalog will not pass by itself; the copy is there then, and all
    /// streams that the catalog does accept are noted.
    pub async fn frame(
        &self,
        source: &Path,
        position: Position,
        streams: &[StreamKey],
    ) -> Result<PathBuf, QuarantineError> {
        let Position { file, sequence } = position;
        let evidence = Evidence::Frames { first: sequence, last: sequence };
        let Aside { path: aside, .. } = self.copy(source, file, evidence).await?;
        let mut refusal = None;
        for StreamKey { table, aek } in streams.iter().copied() {
            let row = CoverageRow { file, table, aek, first: sequence, last: sequence, segment: None };
            // One change a stream: a stream that is settled already must not take the others with it.
            match self.catalog.apply(Change::Quarantine(vec![row])).await {
                Ok(()) | Err(CatalogError::Covered { .. }) => {}
                Err(source) if source.is_decision() => refusal = Some(source),
                Err(source) => return Err(QuarantineError::Note { aside, source }),
            }
        }
        match refusal {
            Some(source) => Err(QuarantineError::Note { aside, source }),
            None => Ok(aside),
        }
    }

    /// Copies the damaged bytes of `file` out of `source`; `None` when there is nothing to keep, since frames are missing.
    ///
    /// The catalog has no note of it: damage covers no stream that anybody could name.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Copy`] or [`QuarantineError::Broken`]; the caller tries again.
    pub async fn damage(
        &self,
        source: &Path,
        file: WalFileId,
        damage: &Damage,
    ) -> Result<Option<Aside>, QuarantineError> {
        match self.copy(source, file, Evidence::Damage(damage.clone())).await {
            Err(QuarantineError::Copy(WalError::NoEvidence { .. })) => Ok(None),
            copied => copied.map(Some),
        }
    }

    /// Whether a copy of the frames `first` to `last` of `file` is there, perhaps an unfinished one: then somebody reported them before.
    pub async fn has(&self, file: WalFileId, first: u64, last: u64) -> bool {
        let (disk, path) = (Arc::clone(&self.disk), self.path(file, first, last));
        tokio::task::spawn_blocking(move || size(&*disk, &path).is_some()).await.unwrap_or(false)
    }

    /// Where [`logseal_wal::quarantine()`] puts them.
    fn path(&self, file: WalFileId, first: u64, last: u64) -> PathBuf {
        self.folder.join(format!("{file}.{first}-{last}.wal"))
    }

    async fn copy(&self, source: &Path, file: WalFileId, evidence: Evidence) -> Result<Aside, QuarantineError> {
        let (first, last) = match &evidence {
            Evidence::Frames { first, last } => (*first, *last),
            Evidence::Damage(damage) => (damage.first, damage.last),
        };
        let path = self.path(file, first, last);
        let (disk, failed) = (Arc::clone(&self.disk), Arc::clone(&self.failed));
        let (source, folder) = (source.to_owned(), self.folder.clone());
        let work = move || {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            let before = size(&*disk, &path);
            match logseal_wal::quarantine(&*disk, &source, &evidence, &folder) {
                Ok(aside) => {
                    let new = failed.remove(&path) || size(&*disk, &aside) != before;
                    Ok(Aside { path: aside, new })
                }
                Err(error) => {
                    if !matches!(error, WalError::NoEvidence { .. }) {
                        failed.insert(path);
                    }
                    Err(error)
                }
            }
        };
        let copied = tokio::task::spawn_blocking(work).await.map_err(|_| QuarantineError::Broken)?;
        let aside = copied.map_err(QuarantineError::Copy)?;
        if aside.new {
            counter!(meter::QUARANTINED).increment(1);
        }
        Ok(aside)
    }
}

impl Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The length of the file at `path`, if there is one.
fn size(disk: &dyn Disk, path: &Path) -> Option<u64> {
    disk.open(path).and_then(|file| file.size()).ok()
}
