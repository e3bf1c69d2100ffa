//! The data directory: made with mode 0700, locked for the server's life.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// A data directory that no other server uses.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held open: the lock ends with the process, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes and locks the directory.
    pub(crate) fn lock(path: &Path) -> Result<Self, CommandError> {
        let doing = |what: &str| CommandError::io(format!("{what} data directory `{}`", path.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(doing("make"))?;
        if let Some(parent) = path.canonicalize().map_err(doing("find"))?.parent() {
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(doing("make durable"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(doing("protect"))?;
        let mut options = OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(doing("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&lock).take(100).read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder.trim().to_owned() };
                return Err(CommandError::Locked { dir: path.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(doing("lock")(error)),
        }
        lock.set_len(0).map_err(doing("lock"))?;
        lock.seek(SeekFrom::Start(0)).map_err(doing("lock"))?;
        writeln!(lock, "process {}", std::process::id()).map_err(doing("lock"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A path inside the directory.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces `file` as a whole, readable by its owner only, durable when this returns.
pub(crate) fn replace_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?; // mode 0600
    temporary.write_all(content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = DataDir::lock(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DataDir::lock(&path).expect("free again");
    }

    #[test]
    fn a_replaced_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        replace_private(&file, b"one").unwrap();
        replace_private(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
