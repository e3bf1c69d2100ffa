//! The file that is being written, and the group of frames that waits for the next sync.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use logseal_core::{AekId, WorkspaceId};
use logseal_crypto::seal::TAG_BYTES;
use logseal_crypto::{FrameSealError, FrameSealer, OsRandom, aad};

use crate::format::frame::{KEY_BODY_BYTES, KEY_METADATA_BYTES, encode_entry_metadata};
use crate::format::{
    Chain, EntryMetadata, FRAMES_OFFSET, FileHeader, FrameHead, FrameKind, HEAD_BYTES, KeyMetadata, Predecessor,
};
use crate::{ClosedFile, Disk, DiskFile, Entry, Position, WalError};

/// Capacity that the group's buffer keeps from one group to the next; a larger group's memory is given back.
const KEPT_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A file of this process life. Dropped after any error: nothing in it ever reopens a file for writing.
#[derive(Debug)]
pub(crate) struct ActiveFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: FileHeader,
    slots: HashMap<(WorkspaceId, AekId), Slot>,
    /// Frames not yet written.
    group: Vec<u8>,
    /// Up to the end of the group.
    written: Mark,
    /// Up to the last sync.
    durable: Mark,
    /// Length up to the last sync.
    bytes: u64,
    /// The highest `durable` that a durable head states.
    attested: u64,
    no_slot_left: bool,
}

#[derive(Debug)]
struct Slot {
    number: u16,
    sealer: FrameSealer,
}

/// A place in the stream of frames.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The last frame.
    sequence: u64,
    /// The last frame that is no attestation.
    content: u64,
    chain: Chain,
}

impl ActiveFile {
    /// Creates the file with both copies of its header, durable with its name. Leaves nothing behind if that fails.
    pub(crate) fn create(disk: &dyn Disk, folder: &Path, header: FileHeader) -> Result<Self, WalError> {
        let path = folder.join(format!("{}.wal", header.file));
        let mut file = disk.create_new(&path).map_err(WalError::io("create", path.as_path()))?;
        let copy = header.encode();
        let prepared = file
            .append(&[copy, copy].concat())
            .map_err(WalError::io("write", path.as_path()))
            .and_then(|()| file.sync().map_err(WalError::io("sync", path.as_path())))
            .and_then(|()| disk.sync_dir(folder).map_err(WalError::io("sync", folder)));
        if let Err(error) = prepared {
            // The error above is the one to tell; a file that stays has no frames and is in no registry.
            let _ = disk.remove(&path);
            return Err(error);
        }
        let start = Mark { sequence: 0, content: 0, chain: Chain::start(&copy) };
        Ok(Self {
            file,
            path,
            header,
            slots: HashMap::new(),
            group: Vec::new(),
            written: start,
            durable: start,
            bytes: FRAMES_OFFSET,
            attested: 0,
            no_slot_left: false,
        })
    }

    pub(crate) fn header(&self) -> &FileHeader {
        &self.header
    }

    pub(crate) fn durable_bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn has_key_under(&self, aek: AekId) -> bool {
        self.slots.keys().any(|(_, known)| *known == aek)
    }

    pub(crate) fn group_is_empty(&self) -> bool {
        self.group.is_empty()
    }

    pub(crate) fn group_bytes(&self) -> usize {
        self.group.len()
    }

    pub(crate) fn is_full(&self, file_bytes: u64) -> bool {
        self.bytes >= file_bytes || self.no_slot_left
    }

    /// Whether something durable is not stated to be by a durable frame.
    pub(crate) fn has_unattested(&self) -> bool {
        self.durable.content > self.attested
    }

    pub(crate) fn as_predecessor(&self) -> Predecessor {
        Predecessor {
            file: self.header.file,
            ordinal: self.header.ordinal,
            end: self.durable.sequence,
            chain: self.durable.chain.0,
        }
    }

    pub(crate) fn closed(&self) -> ClosedFile {
        // After an error there may be more in the file than is durable; it takes room all the same.
        let bytes = self.file.size().unwrap_or(self.bytes);
        ClosedFile { file: self.header.file, end: self.durable.sequence, bytes }
    }

    /// Seals an entry into the group, after the key frames of its slot if it is the slot's first.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Position, WalError> {
        let key = (entry.aek.workspace(), entry.aek.id());
        if !self.slots.contains_key(&key) {
            self.add_slot(entry)?;
        }
        let file = self.header.file;
        let slot = self.slots.get_mut(&key).expect("the slot was there or has just been added");
        let metadata_bytes = EntryMetadata::bytes(entry.parts.len());
        let body = entry.body.as_bytes();
        let body_bytes = body.len() + TAG_BYTES;
        let frame = begin_frame(
            &self.written,
            self.durable.sequence,
            FrameKind::Entry,
            slot.number,
            (metadata_bytes, body_bytes),
        );
        let raw_bytes = u32::try_from(entry.body.raw_bytes()).unwrap_or(u32::MAX);
        self.group.reserve(HEAD_BYTES + metadata_bytes + body_bytes);
        let start = self.group.len();
        self.group.resize(start + HEAD_BYTES, 0);
        let compression = entry.body.compression();
        encode_entry_metadata(
            entry.received,
            raw_bytes,
            entry.scan_version,
            compression,
            &entry.parts,
            &mut self.group,
        );
        let metadata = &self.group[start + HEAD_BYTES..];
        let aad = aad::wal_frame(file, &frame.encode_bound(self.header.marker), metadata);
        let sealed = slot.sealer.seal(frame.sequence, &aad, body, &mut self.group);
        if let Err(error) = sealed {
            self.group.truncate(start);
            return Err(match error {
                FrameSealError::Sequence(source) => WalError::Sequence { file, source },
                FrameSealError::LeaseOver(source) => source.into(),
            });
        }
        self.end_frame(start, frame);
        Ok(Position { file, sequence: frame.sequence })
    }

    /// Adds a frame that says what is durable.
    pub(crate) fn append_attestation(&mut self) {
        let frame = begin_frame(&self.written, self.durable.sequence, FrameKind::Attestation, 0, (0, 0));
        let start = self.group.len();
        self.group.resize(start + HEAD_BYTES, 0);
        self.end_frame(start, frame);
    }

    /// Writes and syncs the group. After an error the file must not be used any more.
    pub(crate) fn flush(&mut self) -> Result<Position, WalError> {
        self.file.append(&self.group).map_err(WalError::io("write", self.path.as_path()))?;
        self.file.sync().map_err(WalError::io("sync", self.path.as_path()))?;
        self.bytes += self.group.len() as u64;
        self.group.clear();
        self.group.shrink_to(KEPT_BUFFER_BYTES);
        // Each head of the group states what was durable when the group began.
        self.attested = self.durable.sequence;
        self.durable = self.written;
        Ok(Position { file: self.header.file, sequence: self.durable.sequence })
    }

    fn add_slot(&mut self, entry: &Entry) -> Result<(), WalError> {
        let file = self.header.file;
        let Some(number) = u16::try_from(self.slots.len() + 1).ok() else {
            self.no_slot_left = true;
            return Err(WalError::TooManyKeys { file });
        };
        let aek = &entry.aek;
        let (dek, sealed) = aek.new_wal_dek(file, OsRandom)?;
        let sealer = FrameSealer::new(&dek, self.header.nonce_field)?;
        let metadata = KeyMetadata { workspace: aek.workspace(), aek: aek.id() }.encode();
        for _copy in 0..2 {
            let lengths = (KEY_METADATA_BYTES, KEY_BODY_BYTES);
            let frame = begin_frame(&self.written, self.durable.sequence, FrameKind::Key, number, lengths);
            let start = self.group.len();
            self.group.resize(start + HEAD_BYTES, 0);
            self.group.extend_from_slice(&metadata);
            self.group.extend_from_slice(&sealed);
            self.group.extend_from_slice(dek.commitment().as_bytes());
            self.end_frame(start, frame);
        }
        self.slots.insert((aek.workspace(), aek.id()), Slot { number, sealer });
        Ok(())
    }

    /// Fills in the head of the frame that begins at `start` of the group and ends with it.
    fn end_frame(&mut self, start: usize, frame: FrameHead) {
        let (head, content) = self.group[start..].split_at_mut(HEAD_BYTES);
        let (metadata, body) = content.split_at(frame.metadata_bytes as usize);
        let bytes = frame.encode(self.header.marker, metadata, body);
        head.copy_from_slice(&bytes);
        let content = if frame.kind == FrameKind::Attestation { self.written.content } else { frame.sequence };
        self.written = Mark { sequence: frame.sequence, content, chain: self.written.chain.after(&bytes, body) };
    }
}

fn begin_frame(last: &Mark, durable: u64, kind: FrameKind, slot: u16, (metadata, body): (usize, usize)) -> FrameHead {
    FrameHead {
        sequence: last.sequence + 1,
        durable,
        metadata_bytes: u32::try_from(metadata).expect("metadata is within its limit of 64 KiB"),
        body_bytes: u32::try_from(body).expect("a body is within its limit of 65 MiB"),
        kind,
        slot,
    }
}
