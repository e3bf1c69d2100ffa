//! No key and nonce together ever seal two different things: looked for on the disk, without any key.
//!
//! Two kinds of keys are followed. The data key of a slot of a log file, by what it commits to, seals frames; their nonces are the file's
//! nonce field and the sequence. The account key seals data keys, of log files and of segments; the nonce is in the wrap. What was seen
//! is remembered when its file is gone or was written again. Data keys come from the system's random numbers; that one of them was wrapped
//! twice cannot be seen without the account key.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use logseal_core::AekId;
use logseal_segment::inspect::wrapped_dek;
use logseal_wal::format::FRAMES_OFFSET;
use logseal_wal::{FileReader, Item, SystemDisk, WalError};

const NONCE_BYTES: usize = 12;

/// Bytes of a data key as an account key seals it: nonce, ciphertext, tag.
const WRAP_BYTES: usize = NONCE_BYTES + 32 + 16;

type Nonce = [u8; NONCE_BYTES];

/// What was sealed under which key and nonce.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    /// By the data key's commitment and the nonce: a hash of the frame.
    frames: HashMap<([u8; 32], Nonce), u64>,
    /// By the account key and the nonce: a hash of the wrap and of what it is the key of.
    wraps: HashMap<(AekId, Nonce), u64>,
}

impl Nonces {
    /// How many frames, and how many data keys, were seen.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.frames.len(), self.wraps.len())
    }

    /// Looks at all files of the log in `dir` and below. Says which frame or key has the nonce of another one.
    pub(crate) fn look_at_log(&mut self, dir: &Path) -> Result<(), String> {
        files(dir, "wal").iter().try_for_each(|path| self.log_file(path))
    }

    /// Looks at all segments in `dir` and below. Says which key has the nonce of another one.
    pub(crate) fn look_at_segments(&mut self, dir: &Path) -> Result<(), String> {
        for path in files(dir, "parquet") {
            let at = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
            let file = File::open(&path).map_err(|error| at(&error))?;
            let wrapped = wrapped_dek(&file).map_err(|error| at(&error))?;
            let bytes = wrapped.to_bytes();
            let sealed = bytes.last_chunk().ok_or_else(|| format!("{}: a short key", path.display()))?;
            self.wrap(wrapped.aek, sealed, wrapped.segment, &path)?;
        }
        Ok(())
    }

    fn log_file(&mut self, path: &Path) -> Result<(), String> {
        let at = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(|error| at(&error))?;
        let mut reader = match FileReader::open(&SystemDisk, path) {
            // The kill came between the file's name and its header.
            Err(WalError::Header { .. }) if bytes.len() < FRAMES_OFFSET as usize => return Ok(()),
            reader => reader.map_err(|error| at(&error))?,
        };
        let header = reader.header().clone();
        let mut keys = HashMap::new();
        while let Some(item) = reader.next_item().map_err(|error| at(&error))? {
            match item {
                Item::Key(key) => {
                    keys.insert(key.slot, *key.commitment.as_bytes());
                    self.wrap(key.aek, &key.sealed, (header.file, key.slot), path)?;
                }
                Item::Entry(entry) => {
                    let of = || format!("{}: frame {}", path.display(), entry.sequence);
                    let key = *keys.get(&entry.slot).ok_or_else(|| format!("{} has no key", of()))?;
                    let mut nonce = [0; NONCE_BYTES];
                    nonce[..4].copy_from_slice(&header.nonce_field);
                    nonce[4..].copy_from_slice(&entry.sequence.to_be_bytes());
                    let start = usize::try_from(entry.offset).map_err(|error| at(&error))?;
                    let frame = hash(&bytes[start..start + entry.frame_bytes()]);
                    if *self.frames.entry((key, nonce)).or_insert(frame) != frame {
                        return Err(format!("{} has key and nonce of another frame", of()));
                    }
                }
                // What lies behind damage is given all the same; whether there may be any is for others to judge.
                Item::Attestation(_) | Item::Damage(_) | Item::Torn(_) => {}
            }
        }
        Ok(())
    }

    fn wrap(&mut self, aek: AekId, sealed: &[u8; WRAP_BYTES], owner: impl Hash, path: &Path) -> Result<(), String> {
        let nonce = *sealed.first_chunk().expect("a wrap is longer than its nonce");
        let wrap = hash(&(sealed, owner));
        if *self.wraps.entry((aek, nonce)).or_insert(wrap) != wrap {
            return Err(format!("{}: its key was wrapped with the nonce of another one", path.display()));
        }
        Ok(())
    }
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The files in `dir` and below with this extension.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use logseal_core::{ClusterId, NodeId, UnixNanos, WalFileId, WorkspaceId};
    use logseal_wal::format::frame::{KEY_BODY_BYTES, encode_entry_metadata};
    use logseal_wal::format::{FrameHead, FrameKind, KeyMetadata};
    use logseal_wal::{Compression, FileHeader};

    use super::*;

    const MARKER: [u8; 8] = [5; 8];

    fn frame(sequence: u64, kind: FrameKind, metadata: &[u8], body: &[u8]) -> Vec<u8> {
        let lengths = (u32::try_from(metadata.len()).unwrap(), u32::try_from(body.len()).unwrap());
        let head = FrameHead { sequence, durable: 0, metadata_bytes: lengths.0, body_bytes: lengths.1, kind, slot: 1 };
        [head.encode(MARKER, metadata, body).as_slice(), metadata, body].concat()
    }

    /// A file of the log: its wrap and commitment are all `key`, its entries, from sequence 2 on, `bodies`.
    fn write(dir: &Path, file: u8, key: [u8; 2], bodies: &[&str]) {
        let id = |n: u8| [n; 16];
        let header = FileHeader {
            version: 2,
            file: WalFileId::from_bytes(id(file)),
            cluster: ClusterId::from_bytes(id(1)),
            node: NodeId::from_bytes(id(2)),
            ordinal: 0,
            created: UnixNanos(0),
            marker: MARKER,
            nonce_field: [7; 4],
            predecessor: None,
        };
        let owner = KeyMetadata { workspace: WorkspaceId::from_bytes(id(3)), aek: AekId::from_bytes(id(4)) };
        let mut wrap = [key[0]; KEY_BODY_BYTES];
        wrap[WRAP_BYTES..].fill(key[1]);
        let mut bytes = header.encode().repeat(2);
        bytes.extend(frame(1, FrameKind::Key, &owner.encode(), &wrap));
        for (sequence, body) in (2..).zip(bodies) {
            let mut metadata = Vec::new();
            encode_entry_metadata(UnixNanos(0), 1, 1, Compression::None, &[], &mut metadata);
            bytes.extend(frame(sequence, FrameKind::Entry, &metadata, body.as_bytes()));
        }
        fs::write(dir.join(format!("{file}.wal")), bytes).unwrap();
    }

    /// Scenario: files are seen again, grow, get a torn tail, and follow each other with other keys. Guarantee: no false alarm, and each
    /// frame and each key counts once.
    #[test]
    fn frames_that_are_seen_again_are_no_repetition() {
        let dir = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::default();
        write(dir.path(), 1, [1, 2], &["a", "b"]);
        nonces.look_at_log(dir.path()).unwrap();
        write(dir.path(), 1, [1, 2], &["a", "b", "c"]);
        fs::write(dir.path().join("unfinished.wal"), []).unwrap();
        nonces.look_at_log(dir.path()).unwrap();
        write(dir.path(), 2, [3, 4], &["d", "e"]);
        let whole = fs::read(dir.path().join("2.wal")).unwrap();
        fs::write(dir.path().join("2.wal"), &whole[..whole.len() - 1]).unwrap();
        nonces.look_at_log(dir.path()).unwrap();
        assert_eq!(nonces.counts(), (4, 2));
    }

    /// Scenario: a tail is cut off and other frames are written in its place, under the key and the sequences that it had. Guarantee: that is
    /// found, although the first frame is nowhere any more.
    #[test]
    fn a_frame_with_the_nonce_of_one_that_is_gone_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::default();
        write(dir.path(), 1, [1, 2], &["a", "b"]);
        nonces.look_at_log(dir.path()).unwrap();
        write(dir.path(), 1, [1, 2], &["a", "other"]);
        let found = nonces.look_at_log(dir.path()).unwrap_err();
        assert!(found.contains("frame 3 has key and nonce of another frame"), "{found}");
    }

    /// Scenario: a second file's key has the wrap of the first file's, and so its nonce. Guarantee: that is found.
    #[test]
    fn a_wrap_with_the_nonce_of_another_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::default();
        write(dir.path(), 1, [1, 2], &["a"]);
        nonces.look_at_log(dir.path()).unwrap();
        write(dir.path(), 2, [1, 3], &["a"]);
        let found = nonces.look_at_log(dir.path()).unwrap_err();
        assert!(found.contains("its key was wrapped with the nonce of another one"), "{found}");
    }
}
