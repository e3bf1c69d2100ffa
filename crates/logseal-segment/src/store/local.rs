//! The local file system as a store: what `object_store` 0.13 leaves to do for a file to be durable.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
        // What cannot be removed is no object to anybody, and an attempt that follows takes another name.
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

    fn durable(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new file beside `file`, named so that `object_store` takes it for no object: an upload that has not ended.
fn stage(file: &Path) -> io::Result<(PathBuf, File)> {
    for number in 1_u32.. {
        let mut name = OsString::from(file);
        name.push(format!("#{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Ok(open) => return Ok((name.into(), open)),
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
