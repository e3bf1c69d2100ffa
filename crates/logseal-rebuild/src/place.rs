//! A new catalog put in the place of another one, which is kept.
//!
//! The new one is made beside the old, as a whole, under another name; nothing is touched before it is closed and durable. Then the
//! present one moves aside, file before journals, and the new one takes its name. A crash between the two leaves no catalog,
//! which a start of the server refuses, and the same command again goes on from there. It never leaves a file beside a journal of another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use logseal_core::UnixNanos;

use crate::RebuildError;

/// What SQLite puts beside a file: the journal first, since it holds committed changes.
const JOURNALS: [&str; 2] = ["-wal", "-shm"];

/// Where a data directory's catalog is.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// The catalog of the data directory `folder`, which the caller has locked.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The catalog's file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join("catalog.sqlite")
    }

    /// Where the next catalog is made.
    #[must_use]
    pub fn next_file(&self) -> PathBuf {
        self.folder.join("catalog-next.sqlite")
    }

    /// Removes what an interrupted run left of the next catalog: nobody ever used it.
    ///
    /// # Errors
    ///
    /// [`RebuildError::File`].
    pub fn clear_next(&self) -> Result<(), RebuildError> {
        let next = self.next_file();
        for file in [next.clone(), beside(&next, JOURNALS[0]), beside(&next, JOURNALS[1]), beside(&next, ".partial")] {
            match fs::remove_file(&file) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RebuildError::File { what: "remove", file, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a catalog, or a journal that belongs to one, is in the place.
    ///
    /// # Errors
    ///
    /// [`RebuildError::File`] when that cannot be told.
    pub fn is_taken(&self) -> Result<bool, RebuildError> {
        let file = self.file();
        Ok(exists(&file)? || exists(&beside(&file, JOURNALS[0]))?)
    }

    /// Puts the next catalog, which is closed, in the place; durable when this returns. What was there is kept under a name that says
    /// when, `now`, it was replaced; that name is returned.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Open`] when the next catalog has a journal, [`RebuildError::InTheWay`], [`RebuildError::File`].
    pub fn install(&self, now: UnixNanos) -> Result<Option<PathBuf>, RebuildError> {
        let (file, next) = (self.file(), self.next_file());
        if exists(&beside(&next, JOURNALS[0]))? {
            return Err(RebuildError::Open(next));
        }
        File::open(&next).and_then(|file| file.sync_all()).map_err(failed("sync", &next))?;
        let aside = self.folder.join(format!("catalog-replaced-{}.sqlite", now.millis()));
        let mut replaced = None;
        for suffix in ["", JOURNALS[0], JOURNALS[1]] {
            let (from, to) = (beside(&file, suffix), beside(&aside, suffix));
            if !exists(&from)? {
                continue;
            }
            if exists(&to)? {
                return Err(RebuildError::InTheWay(to));
            }
            fs::rename(&from, &to).map_err(failed("move", &from))?;
            self.sync_folder()?;
            replaced = Some(aside.clone());
        }
        fs::rename(&next, &file).map_err(failed("move", &next))?;
        self.sync_folder()?;
        // Left by readers, and never a part of the catalog.
        let _ = fs::remove_file(beside(&next, JOURNALS[1]));
        Ok(replaced)
    }

    fn sync_folder(&self) -> Result<(), RebuildError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.folder))
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn exists(file: &Path) -> Result<bool, RebuildError> {
    file.try_exists().map_err(failed("look for", file))
}

fn failed(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> RebuildError {
    let file = file.to_owned();
    move |source| RebuildError::File { what, file, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_700_000_000_123_000_000);

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn place(files: &[&str]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let place = Place::new(dir.path());
        (dir, place)
    }

    /// Scenario: a catalog with a journal, which holds its newest changes, is replaced. Guarantee: it is kept with its journal under one
    /// name, and the new one has no journal of another beside it.
    #[test]
    fn what_is_replaced_is_kept_whole() {
        let (dir, place) =
            place(&["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog-next.sqlite"]);
        assert!(place.is_taken().unwrap());
        let kept = place.install(NOW).unwrap().unwrap();
        let kept_name = "catalog-replaced-1700000000123.sqlite";
        assert_eq!(kept, dir.path().join(kept_name));
        let expected = [kept_name, &format!("{kept_name}-shm"), &format!("{kept_name}-wal"), "catalog.sqlite"];
        assert_eq!(names(dir.path()), expected);
        assert_eq!(fs::read(place.file()).unwrap(), b"catalog-next.sqlite");
        assert_eq!(fs::read(beside(&kept, "-wal")).unwrap(), b"catalog.sqlite-wal");
    }

    /// Scenario: a run was killed after the old file had moved and before its journal had. Guarantee: the same run again finds a place
    /// that is taken, and leaves no journal in it.
    #[test]
    fn an_interrupted_replacement_is_finished() {
        let (dir, place) = place(&["catalog-replaced-1.sqlite", "catalog.sqlite-wal", "catalog-next.sqlite"]);
        assert!(place.is_taken().unwrap());
        assert!(place.install(NOW).unwrap().is_some());
        assert!(!dir.path().join("catalog.sqlite-wal").exists() && place.file().exists());
        assert!(dir.path().join("catalog-replaced-1.sqlite").exists());
    }

    #[test]
    fn an_open_catalog_is_not_put_in_place_and_nothing_is_overwritten() {
        let (dir, place) = place(&["catalog.sqlite", "catalog-next.sqlite", "catalog-next.sqlite-wal"]);
        assert!(matches!(place.install(NOW), Err(RebuildError::Open(_))));
        place.clear_next().unwrap();
        assert_eq!(names(dir.path()), ["catalog.sqlite"]);
        fs::write(place.next_file(), "next").unwrap();
        fs::write(dir.path().join("catalog-replaced-1700000000123.sqlite"), "an earlier one").unwrap();
        assert!(matches!(place.install(NOW), Err(RebuildError::InTheWay(_))));
        assert_eq!(fs::read(place.file()).unwrap(), b"catalog.sqlite");
    }

    #[test]
    fn an_empty_place_is_just_taken() {
        let (dir, place) = place(&["catalog-next.sqlite"]);
        assert!(!place.is_taken().unwrap());
        assert_eq!(place.install(NOW).unwrap(), None);
        assert_eq!(names(dir.path()), ["catalog.sqlite"]);
    }
}
