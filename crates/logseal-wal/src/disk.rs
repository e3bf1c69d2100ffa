//! The disk as a port, and the operating system's.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}

/// What the log needs of a file system.
///
/// Nothing is durable by itself: a file's bytes are after [`DiskFile::sync`], its name is after [`Disk::sync_dir`] of its folder.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that must not exist, mode 0600, for appending and reading.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, or the system's.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// The paths of all files and folders in `folder`, sorted.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the system's.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a folder and those above it that are missing, mode 0700, and makes their names durable.
    ///
    /// # Errors
    ///
    /// The system's.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;

    /// Makes the names in `folder` durable: those created, and that those removed are gone.
    ///
    /// # Errors
    ///
    /// The system's.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// `NotFound`, `DirectoryNotEmpty`, or the system's.
    fn remove_dir(&self, folder: &Path) -> io::Result<()>;

    /// The room on the file system that holds `folder`.
    ///
    /// # Errors
    ///
    /// The system's.
    fn space(&self, folder: &Path) -> io::Result<Space>;
}

/// An open file.
pub trait DiskFile: Debug + Send {
    /// Appends all of `bytes`; after an error any part of them may be in the file.
    ///
    /// # Errors
    ///
    /// The system's; always for a file that was opened for reading.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and length durable (`fdatasync`). After an error they are not, and a later `Ok` means nothing
    /// for what was appended before it.
    ///
    /// # Errors
    ///
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;

    /// Reads at `offset`; returns how many bytes, 0 only at the end or for an empty buffer.
    ///
    /// # Errors
    ///
    /// The system's.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// The file's length in bytes now.
    ///
    /// # Errors
    ///
    /// The system's.
    fn size(&self) -> io::Result<u64>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

#[derive(Debug)]
struct SystemFile(File);

impl Disk for SystemDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(path)?;
        Ok(Box::new(SystemFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = File::open(path)?;
        // A folder opens too, and fails only when it is read.
        if file.metadata()?.is_file() {
            Ok(Box::new(SystemFile(file)))
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) => Path::new("."),
            None => return Ok(()), // the root
        };
        if folder.is_dir() {
            // An earlier call may have made it and failed to sync its name. Who may not read the parent is given it as it is.
            return match self.sync_dir(parent) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                result => result,
            };
        }
        self.create_dir_all(parent)?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder)
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

impl DiskFile for SystemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(out, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_and_folders_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("a/b");
        SystemDisk.create_dir_all(&nested).unwrap();
        SystemDisk.create_dir_all(&nested).unwrap();
        let path = nested.join("x.wal");
        let mut file = SystemDisk.create_new(&path).unwrap();
        file.append(b"hello").unwrap();
        file.append(b" world").unwrap();
        file.sync().unwrap();
        SystemDisk.sync_dir(&nested).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&nested), mode(&folder.path().join("a"))), (0o600, 0o700, 0o700));
        assert_eq!(SystemDisk.create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);

        let mut read = SystemDisk.open(&path).unwrap();
        let mut out = [0; 20];
        assert_eq!(read.read_at(6, &mut out).unwrap(), 5);
        assert_eq!((&out[..5], read.size().unwrap()), (b"world".as_slice(), 11));
        assert_eq!(read.read_at(11, &mut out).unwrap(), 0);
        assert!(read.append(b"x").is_err(), "opened for reading");
        assert!(SystemDisk.open(&nested).is_err(), "a folder is no file");

        assert_eq!(SystemDisk.list(&nested).unwrap(), std::slice::from_ref(&path));
        SystemDisk.remove(&path).unwrap();
        assert_eq!(SystemDisk.open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_room_of_a_file_system_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let space = SystemDisk.space(folder.path()).unwrap();
        assert!(space.total > 0 && space.available <= space.total);
    }
}
