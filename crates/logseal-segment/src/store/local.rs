//! The local file system as a store: what `object_store` 0.13 leaves to do for a file to be durable.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, ReadDir, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logseal_core::ClusterId;
use object_store::PutPayload;

/// The folders of a local store.
#[derive(Clone, Debug)]
pub(super) struct LocalFolders {
    root: PathBuf,
    /// Those whose entry in the folder above them is durable, with their inodes: one that was deleted and made anew is another one.
    durable: Arc<Mutex<HashMap<PathBuf, u64>>>,
}

/// Folders that are remembered as durable; a store has one for each day and table.
const DURABLE_FOLDERS: usize = 10_000;

/// What is written of a file before it is synced. A file system that orders data before its journal makes every other sync wait for what
/// was written and not synced yet: whoever waits for the log is to wait for no more than this.
const SYNCED_BYTES: usize = 4 * 1024 * 1024;

impl LocalFolders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, durable: Arc::default() }
    }

    /// The file of an object.
    pub(super) fn file(&self, path: &object_store::path::Path) -> PathBuf {
        let mut file = self.root.clone();
        file.extend(path.parts().map(|part| part.as_ref().to_owned()));
        file
    }

    /// Writes `content` to the new file `file`, which is there whole or not at all. Its bytes are durable when this returns, its name is after
    /// [`LocalFolders::sync`].
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the file is there, or the system's.
    pub(super) fn put_new(&self, file: &Path, content: &PutPayload) -> io::Result<()> {
        let (staged, mut open) = stage(file)?;
        let written = write_synced(&mut open, content).and_then(|()| {
            // Unlike renaming, linking never replaces what is there.
            fs::hard_link(&staged, file)
        });
        // What cannot be removed is no object to anybody, and an attempt that follows takes another name; the next start removes it.
        let _ = fs::remove_file(&staged);
        written
    }

    /// Syncs `file`, the folder that it is in, and each folder above that is not known to be durable.
    pub(super) fn sync(&self, file: &Path) -> io::Result<()> {
        File::open(file)?.sync_all()?;
        let mut made_durable = Vec::new();
        for folder in file.ancestors().skip(1) {
            let opened = File::open(folder)?;
            opened.sync_all()?;
            let inode = opened.metadata()?.ino();
            if folder == self.root || self.durable().get(folder) == Some(&inode) {
                break;
            }
            made_durable.push((folder.to_owned(), inode));
        }
        let mut durable = self.durable();
        if durable.len() + made_durable.len() > DURABLE_FOLDERS {
            durable.clear();
        }
        // Only now: a folder is durable once the one above it was synced.
        durable.extend(made_durable);
        Ok(())
    }

    /// Removes the staged files of puts whose processes have ended, and says how many there were. Those of others that go on are held. Only clusters'
    /// folders are looked through, for names of segments and key copies: what else is in the store is somebody else's.
    pub(super) fn remove_broken_off(&self) -> io::Result<u64> {
        let mut folders = Vec::new();
        for entry in entries(&self.root.join("clusters"))?.into_iter().flatten() {
            let entry = entry?;
            let is_cluster = entry.file_name().to_str().is_some_and(|name| name.parse::<ClusterId>().is_ok());
            if is_cluster && entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        let mut removed = 0;
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder)?.into_iter().flatten() {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() && is_staged(&entry.file_name()) && remove_unheld(&entry.path())? {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn durable(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in `folder`; nothing when it is not there, or not any more.
fn entries(folder: &Path) -> io::Result<Option<ReadDir>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Whether [`stage`] gives such a name to the file of a segment or of a key's copy.
fn is_staged(name: &OsStr) -> bool {
    let Some((object, number)) = name.to_str().and_then(|name| name.rsplit_once('#')) else { return false };
    let is_number = number.parse::<u32>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == number);
    is_number && !object.contains('#') && (object.ends_with(".parquet") || object.ends_with(".json"))
}

/// Removes `staged`, unless a put holds it.
fn remove_unheld(staged: &Path) -> io::Result<bool> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let held = match OpenOptions::new().write(true).open(staged) {
        Err(error) if is_gone(&error) => return Ok(false),
        opened => opened?,
    };
    match held.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(false),
        locked => locked?,
    }
    match fs::remove_file(staged) {
        Err(error) if is_gone(&error) => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// A new file beside `file`, named so that `object_store` takes it for no object: an upload that has not ended. It is locked until it is closed,
/// which tells it from what a process left that was killed.
pub(super) fn stage(file: &Path) -> io::Result<(PathBuf, File)> {
    for number in 1_u32.. {
        let mut name = OsString::from(file);
        name.push(format!("#{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Ok(open) => match open.try_lock() {
                // Whoever removes what was left has come between, and removes it.
                Err(TryLockError::WouldBlock) => {}
                // Where a file system has no locks nothing is ever removed.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok((name.into(), open)),
            },
            // Left behind by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 1 => {
                fs::create_dir_all(file.parent().unwrap_or(file))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write_synced(open: &mut File, content: &PutPayload) -> io::Result<()> {
    let mut written = 0;
    for piece in content {
        open.write_all(piece)?;
        written += piece.len();
        if written >= SYNCED_BYTES {
            open.sync_data()?;
            written = 0;
        }
    }
    open.sync_all()
}
