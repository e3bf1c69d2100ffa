//! A disk in memory that forgets what was not synced, and fails on command.
//!
//! It keeps apart what reads see and what would survive a power failure. Everything it decides by chance comes from seeds
//! that the caller gives, so each run can be repeated.
//!
//! | event | what the model does |
//! | --- | --- |
//! | append | reads see it at once; it is not durable |
//! | sync | everything appended to the file is durable, except what an earlier failed sync gave up |
//! | failed sync | what was not durable is given up for good: a later sync reports success without it (as Linux does) |
//! | create, remove | durable with the next sync of the folder; until then a power failure may undo it |
//! | failed or short write | a part of the bytes may be in the file |
//! | [`kill`](SimulatedDisk::kill) | open files die with their process; what reads saw stays |
//! | [`crash`](SimulatedDisk::crash) | not durable bytes are dropped, cut, zeroed or garbled, by 512-byte sectors |

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logseal_wal::{Disk, DiskFile, Space};

const SECTOR_BYTES: usize = 512;

/// An operation that can be told to fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Operation {
    /// Creating a file.
    Create,
    /// Appending to one.
    Write,
    /// Syncing one.
    Sync,
    /// Syncing a folder.
    SyncDir,
    /// Making folders.
    CreateDir,
    /// Reading.
    Read,
    /// Removing a file.
    Remove,
}

/// A seeded stream of numbers (SplitMix64), for tests and for this disk.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next_u64() % (limit.max(1) as u64)).unwrap_or(0)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The simulated disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    /// What is named how, as reads see it, and as a power failure would leave it.
    names: BTreeMap<PathBuf, Entry>,
    durable_names: BTreeMap<PathBuf, Entry>,
    faults: BTreeMap<Operation, Vec<(u64, ErrorKind)>>,
    calls: BTreeMap<Operation, u64>,
    failures: BTreeMap<Operation, u64>,
    /// Bytes that may still be written; `None` for as many as wanted.
    available: Option<u64>,
    /// Counts kills and crashes: a file opened before one is dead.
    life: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Entry {
    Folder,
    File(usize),
}

/// A file's bytes.
#[derive(Debug, Default)]
struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Written and not yet synced.
    dirty: Vec<Range<usize>>,
    /// Given up by a failed sync.
    lost: Vec<Range<usize>>,
    /// Everything that was ever handed to `append`.
    history: Vec<u8>,
}

impl SimulatedDisk {
    /// An empty disk without limits or faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the call of `operation` after `skip` more of them fail.
    pub fn fail(&self, operation: Operation, skip: u64, kind: ErrorKind) {
        let mut state = self.state();
        let at = state.calls.get(&operation).copied().unwrap_or(0) + skip;
        state.faults.entry(operation).or_default().push((at, kind));
    }

    /// Takes back all faults that have not happened.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Limits what may still be written; `None` lifts the limit. Removing a file gives its room back.
    pub fn set_available(&self, bytes: Option<u64>) {
        self.state().available = bytes;
    }

    /// How often `operation` was called.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or(0)
    }

    /// How often `operation` failed because it was told to.
    #[must_use]
    pub fn failures(&self, operation: Operation) -> u64 {
        self.state().failures.get(&operation).copied().unwrap_or(0)
    }

    /// The process dies: its open files are dead, what it wrote stays to be read and is as durable as it was.
    pub fn kill(&self) {
        self.state().life += 1;
    }

    /// The power fails: what was not durable is lost, kept or garbled as `seed` decides. What is left is durable.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Seeded::new(seed);
        state.life += 1;
        let (now, before) = (std::mem::take(&mut state.names), std::mem::take(&mut state.durable_names));
        let mut kept = BTreeMap::new();
        for (path, entry) in before.iter().chain(&now) {
            let certain = before.get(path) == Some(entry) && now.get(path) == Some(entry);
            let reachable =
                path.parent().is_none_or(|parent| parent.as_os_str().is_empty() || kept.contains_key(parent));
            if reachable && (certain || random.one_in(2)) {
                kept.insert(path.clone(), *entry);
            }
        }
        // A folder that vanished takes what is in it along.
        let folders: Vec<_> =
            kept.iter().filter(|(_, entry)| **entry == Entry::Folder).map(|(p, _)| p.clone()).collect();
        kept.retain(|path, _| path.parent().is_none_or(|p| p.as_os_str().is_empty() || folders.iter().any(|f| f == p)));
        for content in &mut state.files {
            content.crash(&mut random);
        }
        (state.names, state.durable_names) = (kept.clone(), kept);
    }

    /// The bytes of a file as a read would give them.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.names.get(path) {
            Some(Entry::File(file)) => Some(state.files[*file].bytes.clone()),
            _ => None,
        }
    }

    /// Puts a file in place, durable, with the folders above it; replaces one that is there.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Content { path: path.to_owned(), bytes, ..Content::default() });
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            state.names.insert(folder.to_owned(), Entry::Folder);
            state.durable_names.insert(folder.to_owned(), Entry::Folder);
        }
        state.names.insert(path.to_owned(), Entry::File(file));
        state.durable_names.insert(path.to_owned(), Entry::File(file));
    }

    /// For each file that ever was: its path and every byte that was handed to `append`, also what failed or was lost later.
    #[must_use]
    pub fn history(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state().files.iter().map(|file| (file.path.clone(), file.history.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked with the lock has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call and fails it if it was told to.
    fn call(&mut self, operation: Operation) -> io::Result<()> {
        let count = self.calls.entry(operation).or_default();
        let this = *count;
        *count += 1;
        let faults = self.faults.entry(operation).or_default();
        match faults.iter().position(|(at, _)| *at == this) {
            Some(found) => {
                *self.failures.entry(operation).or_default() += 1;
                Err(faults.swap_remove(found).1.into())
            }
            None => Ok(()),
        }
    }

    fn require_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => match self.names.get(parent) {
                Some(Entry::Folder) => Ok(()),
                _ => Err(ErrorKind::NotFound.into()),
            },
            _ => Ok(()),
        }
    }
}

impl Content {
    fn crash(&mut self, random: &mut Seeded) {
        let mut doubtful: Vec<_> = self.dirty.drain(..).chain(self.lost.drain(..)).collect();
        doubtful.sort_by_key(|range| range.start);
        // The tail after the last certain byte may be cut anywhere.
        let mut certain = self.bytes.len();
        for range in doubtful.iter().rev() {
            if range.end >= certain {
                certain = certain.min(range.start);
            }
        }
        let length = match random.below(4) {
            0 => certain,
            1 => self.bytes.len(),
            _ => certain + random.below(self.bytes.len() - certain + 1),
        };
        self.bytes.truncate(length);
        let harm = random.below(3);
        for range in doubtful {
            let (start, end) = (range.start.min(length), range.end.min(length));
            let mut at = start;
            while at < end {
                let next = end.min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
                match harm {
                    1 if random.one_in(3) => self.bytes[at..next].fill(0),
                    2 if random.one_in(3) => {
                        self.bytes[at..next].fill_with(|| random.next_u64().to_le_bytes()[0]);
                    }
                    _ => {}
                }
                at = next;
            }
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Operation::Create)?;
        state.require_folder(path)?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.available == Some(0) {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.files.len();
        state.files.push(Content { path: path.to_owned(), ..Content::default() });
        state.names.insert(path.to_owned(), Entry::File(file));
        Ok(Box::new(SimulatedFile { disk: self.clone(), file, life: state.life, writable: true }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        match state.names.get(path) {
            Some(Entry::File(file)) => {
                Ok(Box::new(SimulatedFile { disk: self.clone(), file: *file, life: state.life, writable: false }))
            }
            Some(Entry::Folder) => Err(ErrorKind::InvalidInput.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        if state.names.get(folder) != Some(&Entry::Folder) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(state.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::CreateDir)?;
        let above: Vec<_> = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
        for folder in above {
            if let Some(Entry::File(_)) = state.names.get(folder) {
                return Err(ErrorKind::NotADirectory.into());
            }
            state.names.insert(folder.to_owned(), Entry::Folder);
            state.durable_names.insert(folder.to_owned(), Entry::Folder);
        }
        Ok(())
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::SyncDir)?;
        if state.names.get(folder) != Some(&Entry::Folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = |path: &Path| path.parent() == Some(folder);
        let now: Vec<_> = state.names.iter().filter(|(path, _)| inside(path)).map(|(p, e)| (p.clone(), *e)).collect();
        state.durable_names.retain(|path, _| !inside(path));
        state.durable_names.extend(now);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::Remove)?;
        let Some(Entry::File(file)) = state.names.get(path).copied() else { return Err(ErrorKind::NotFound.into()) };
        state.names.remove(path);
        let room = state.files[file].bytes.len() as u64;
        state.available = state.available.map(|available| available + room);
        Ok(())
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::Remove)?;
        if state.names.get(folder) != Some(&Entry::Folder) {
            return Err(ErrorKind::NotFound.into());
        }
        if state.names.keys().any(|path| path.parent() == Some(folder)) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.names.remove(folder);
        Ok(())
    }

    fn space(&self, _folder: &Path) -> io::Result<Space> {
        let available = self.state().available.unwrap_or(1 << 40);
        Ok(Space { total: 1 << 40, available })
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
    life: u64,
    writable: bool,
}

impl SimulatedFile {
    fn alive(&self, state: &State) -> io::Result<()> {
        if state.life == self.life { Ok(()) } else { Err(io::Error::other("the process that opened the file is dead")) }
    }
}

impl DiskFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let fault = state.call(Operation::Write);
        let room = state.available.unwrap_or(u64::MAX);
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        // A write that fails may have written some of it.
        let written = if fault.is_err() { fits / 2 } else { fits };
        state.available = state.available.map(|available| available - written as u64);
        let content = &mut state.files[self.file];
        content.history.extend_from_slice(bytes);
        let start = content.bytes.len();
        content.bytes.extend_from_slice(&bytes[..written]);
        content.dirty.push(start..start + written);
        fault?;
        if written < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        let fault = state.call(Operation::Sync);
        let content = &mut state.files[self.file];
        let dirty = std::mem::take(&mut content.dirty);
        if fault.is_err() {
            content.lost.extend(dirty);
        }
        fault
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        state.call(Operation::Read)?;
        let bytes = &state.files[self.file].bytes;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state();
        self.alive(&state)?;
        Ok(state.files[self.file].bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "wal";

    fn file(disk: &SimulatedDisk, name: &str) -> (PathBuf, Box<dyn DiskFile>) {
        let path = Path::new(FOLDER).join(name);
        disk.create_dir_all(Path::new(FOLDER)).unwrap();
        let file = disk.create_new(&path).unwrap();
        (path, file)
    }

    /// What was synced survives every crash; what was not survives none whole in all of them.
    #[test]
    fn a_crash_keeps_what_is_durable_and_not_always_the_rest() {
        let mut lost = [false; 3];
        for seed in 0..100 {
            let disk = SimulatedDisk::new();
            let (path, mut file_a) = file(&disk, "a");
            file_a.append(&[1; 700]).unwrap();
            file_a.sync().unwrap();
            disk.sync_dir(Path::new(FOLDER)).unwrap();
            file_a.append(&[2; 2000]).unwrap();
            let (path_b, mut file_b) = file(&disk, "b");
            file_b.append(&[3; 100]).unwrap();
            file_b.sync().unwrap();
            disk.crash(seed);
            let bytes = disk.bytes(&path).expect("its name was synced");
            assert_eq!(bytes[..700], [1; 700], "seed {seed}");
            lost[0] |= bytes.len() < 2700;
            lost[1] |= bytes.len() == 2700 && bytes[700..] != [2; 2000];
            lost[2] |= disk.bytes(&path_b).is_none();
            assert!(file_a.append(b"x").is_err(), "a dead process writes no more");
        }
        assert_eq!(lost, [true; 3], "tails are cut, sectors are garbled, unsynced names vanish");
    }

    #[test]
    fn a_failed_sync_gives_its_bytes_up_for_good() {
        let disk = SimulatedDisk::new();
        let (path, mut file) = file(&disk, "a");
        disk.sync_dir(Path::new(FOLDER)).unwrap();
        file.append(&[1; 600]).unwrap();
        disk.fail(Operation::Sync, 0, ErrorKind::Other);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.bytes(&path).map(|bytes| bytes.len()), Some(600), "reads see it");
        disk.crash(0);
        let kept: Vec<_> = (0..50)
            .map(|seed| {
                disk.crash(seed);
                disk.bytes(&path).unwrap()
            })
            .collect();
        assert!(kept.iter().all(|bytes| *bytes == kept[0]), "what a crash left is durable");
        let lost = (0..50).any(|seed| {
            let disk = SimulatedDisk::new();
            let (path, mut file) = self::file(&disk, "a");
            disk.sync_dir(Path::new(FOLDER)).unwrap();
            file.append(&[1; 600]).unwrap();
            disk.fail(Operation::Sync, 0, ErrorKind::Other);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            disk.crash(seed);
            disk.bytes(&path).unwrap() != [1; 600]
        });
        assert!(lost, "the second sync did not save it");
    }

    #[test]
    fn room_runs_out_in_the_middle_of_a_write_and_comes_back() {
        let disk = SimulatedDisk::new();
        let (path, mut file_a) = file(&disk, "a");
        disk.set_available(Some(10));
        assert_eq!(file_a.append(&[1; 16]).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(disk.bytes(&path).map(|bytes| bytes.len()), Some(10));
        assert_eq!(disk.create_new(Path::new("wal/b")).unwrap_err().kind(), ErrorKind::StorageFull);
        disk.remove(&path).unwrap();
        let (_, mut file_b) = file(&disk, "b");
        file_b.append(&[1; 10]).unwrap();
        assert_eq!(disk.history()[0].1.len(), 16, "the history has what was handed over");
    }

    #[test]
    fn faults_hit_the_call_that_was_named() {
        let disk = SimulatedDisk::new();
        let (_, mut file) = file(&disk, "a");
        disk.fail(Operation::Write, 1, ErrorKind::Other);
        file.append(b"one").unwrap();
        assert!(file.append(b"two").is_err());
        file.append(b"three").unwrap();
        disk.kill();
        assert!(file.append(b"four").is_err(), "a killed process writes no more");
    }
}
