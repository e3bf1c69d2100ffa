//! Reads one file, frame by frame, over damage, with memory for one frame.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::path::Path;

use logseal_core::{AekId, UnixNanos, WorkspaceId};
use logseal_crypto::Commitment;
use logseal_crypto::aad;
use logseal_crypto::aek::SEALED_DEK_BYTES;

use crate::format::frame::KEY_BODY_BYTES;
use crate::format::{BOUND_HEAD_BYTES, EntryMetadata, FileHeader, FrameKind, HEAD_BYTES, HEADER_BYTES, KeyMetadata};
use crate::scan::{self, BadRegion, Depth, ScannedFrame, Scanner, Step};
use crate::{CompressedBody, Compression, Disk, FileKeys, OpenError, Part, WalError};

/// What a file gives, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    /// A data key for a slot.
    Key(KeyFrame),
    /// A request.
    Entry(SealedEntry),
    /// What was durable.
    Attestation(Attestation),
    /// Bytes that are no intact frame, or frames that are missing, before or between frames that count.
    Damage(Damage),
    /// Bytes at the file's end that are no intact frame. Nothing follows. Only when no end was set.
    Torn(Torn),
}

/// A data key for a slot, wrapped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFrame {
    /// The frame's sequence.
    pub sequence: u64,
    /// Where the frame begins in the file, in bytes.
    pub offset: u64,
    /// The slot that it serves.
    pub slot: u16,
    /// The workspace whose entries use the slot.
    pub workspace: WorkspaceId,
    /// The AEK that wrapped the DEK.
    pub aek: AekId,
    /// The wrapped DEK.
    pub sealed: [u8; SEALED_DEK_BYTES],
    /// What the DEK commits to.
    pub commitment: Commitment,
}

/// A statement of what was durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attestation {
    /// The frame's sequence.
    pub sequence: u64,
    /// The highest sequence that was durable when it was made.
    pub durable: u64,
}

/// One request, still sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedEntry {
    /// The frame's sequence.
    pub sequence: u64,
    /// Where the frame begins in the file, in bytes.
    pub offset: u64,
    /// The slot whose key sealed it.
    pub slot: u16,
    /// When the request came.
    pub received: UnixNanos,
    /// The version of the rules by which it was scanned.
    pub scan_version: u16,
    /// How many of its records were accepted for which table.
    pub parts: Vec<Part>,
    /// Bytes of the request.
    pub raw_bytes: u32,
    /// How its body is compressed.
    pub compression: Compression,
    metadata_bytes: usize,
    /// Head, metadata, sealed body.
    frame: Vec<u8>,
}

impl SealedEntry {
    /// Bytes of the frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// The request's bytes.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which tells a missing key from an altered entry.
    pub fn open(&self, keys: &FileKeys) -> Result<Vec<u8>, OpenError> {
        let opener = keys.opener(self.slot)?;
        let (head, content) = self.frame.split_at(HEAD_BYTES);
        let (metadata, body) = content.split_at(self.metadata_bytes);
        let aad = aad::wal_frame(keys.file(), &head[..BOUND_HEAD_BYTES], metadata);
        let compressed = opener
            .open(self.sequence, &aad, body)
            .map_err(|error| OpenError::of_entry(self.sequence, self.slot, error))?;
        CompressedBody::of(self.compression, compressed.into(), self.raw_bytes as usize).decompress()
    }
}

/// What is wrong with damaged bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DamageCause {
    /// One copy of the file's header; the other is intact.
    HeaderCopy,
    /// No intact head where a frame should begin.
    Head,
    /// A frame with an intact head and altered metadata.
    Metadata,
    /// A frame with intact head and metadata, and an altered body.
    Body,
    /// A frame with an intact head whose content the file does not have.
    Cut,
    /// Sequences are missing between two frames that touch.
    Gap,
    /// The file ends before the last frame that counts.
    Truncated,
}

/// Damage: a part of the file that counts and is not intact.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// What is wrong.
    pub cause: DamageCause,
    /// The first sequence that is lost.
    pub first: u64,
    /// The last sequence that is lost; less than `first` when no frame is lost (a header copy, or foreign bytes between two
    /// frames).
    pub last: u64,
    /// Where the bad bytes begin.
    pub offset: u64,
    /// How many there are; 0 for what is missing.
    pub bytes: u64,
    /// What the first lost frame was, if its head is intact. Of a key frame there is another copy.
    pub kind: Option<FrameKind>,
    /// The slot of the first lost frame, if its head is intact and it has one.
    pub slot: Option<u16>,
    /// What the first lost frame held, if it is an entry and its metadata is intact.
    pub parts: Vec<Part>,
}

impl Damage {
    /// How many frames are lost.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.last.saturating_add(1).saturating_sub(self.first)
    }

    pub(crate) fn header_copy(copy: usize) -> Self {
        let at = (copy * HEADER_BYTES) as u64;
        Self::region(DamageCause::HeaderCopy, (1, 0), at, HEADER_BYTES as u64)
    }

    pub(crate) fn truncated(first: u64, last: u64, size: u64) -> Self {
        Self::region(DamageCause::Truncated, (first, last), size, 0)
    }

    fn region(cause: DamageCause, (first, last): (u64, u64), offset: u64, bytes: u64) -> Self {
        Self { cause, first, last, offset, bytes, kind: None, slot: None, parts: Vec::new() }
    }

    /// The region, of which sequences up to `end` count.
    pub(crate) fn of(scanner: &mut Scanner, region: &BadRegion, end: u64) -> Self {
        let last = region.last.map_or(end, |last| last.min(end));
        let mut damage = Self::region(region.cause, (region.first, last), region.offset, region.bytes);
        damage.kind = region.head.map(|(head, _)| head.kind);
        damage.slot = region.head.map(|(head, _)| head.slot).filter(|slot| *slot != 0);
        // If the disk refuses to read it again, the damage is reported without what it held.
        if damage.kind == Some(FrameKind::Entry)
            && let Ok(Some(metadata)) = scanner.metadata_of_bad(region)
        {
            damage.parts = EntryMetadata::decode(&metadata).map(|entry| entry.parts).unwrap_or_default();
        }
        damage
    }
}

impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            DamageCause::HeaderCopy => return write!(f, "the copy of the header at byte {} is damaged", self.offset),
            DamageCause::Head => "no intact head",
            DamageCause::Metadata => "damaged metadata",
            DamageCause::Body => "a damaged body",
            DamageCause::Cut => "an incomplete frame",
            DamageCause::Gap => "a gap",
            DamageCause::Truncated => "the end of the file",
        };
        write!(f, "{what} at byte {}: ", self.offset)?;
        match self.frames() {
            0 => write!(f, "no frame is lost, but {} bytes between two frames are foreign", self.bytes),
            1 if self.kind == Some(FrameKind::Key) => {
                write!(f, "frame {}, one of two copies of a key, is lost", self.first)
            }
            1 => write!(f, "frame {} is lost", self.first),
            frames => write!(f, "{frames} frames from {} to {} are lost", self.first, self.last),
        }
    }
}

/// The torn tail of a file: what was being written when the process or the machine stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Torn {
    /// The first sequence that does not count.
    pub sequence: u64,
    /// Where the tail begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Reads the frames of one file in order.
///
/// Works on a file that a [`Writer`](crate::Writer) is writing, up to what is durable: set that as the end. Without an end
/// it gives every intact frame there is; whether those behind the last attestation count is for
/// [`survey_file`](crate::survey_file) to judge.
#[derive(Debug)]
pub struct FileReader {
    scanner: Scanner,
    header: FileHeader,
    pending: VecDeque<Damage>,
    end: Option<u64>,
    skip: u64,
    done: bool,
}

impl FileReader {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    ///
    /// [`WalError::Header`] when neither copy of the header is intact, [`WalError::Io`] when the disk refuses.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, WalError> {
        let (scanner, header, damaged) = scan::open(disk, path)?;
        let pending = (0..2).filter(|copy| damaged[*copy]).map(Damage::header_copy).collect();
        Ok(Self { scanner, header, pending, end: None, skip: 0, done: false })
    }

    /// The file's header.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// SHA-256 of the header: what the catalog keeps of the file.
    #[must_use]
    pub fn header_hash(&self) -> [u8; 32] {
        self.header.hash()
    }

    /// The file's length in bytes, as last seen.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.scanner.size()
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.scanner.path()
    }

    /// Reads up to and with frame `end`, no further: every sequence up to it is given, or reported as damage. May be raised
    /// later.
    pub fn until(&mut self, end: u64) {
        self.end = Some(end);
    }

    /// Passes over entries below `sequence`, where possible without reading them. Key frames and damage are given all the same
    /// (damage inside an entry that was passed over is not seen).
    pub fn skip_below(&mut self, sequence: u64) {
        self.skip = sequence;
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`WalError::Io`] when the disk refuses; trying again goes on at the same place.
    pub fn next_item(&mut self) -> Result<Option<Item>, WalError> {
        if let Some(damage) = self.pending.pop_front() {
            return Ok(Some(Item::Damage(damage)));
        }
        loop {
            if self.done || self.end.is_some_and(|end| self.scanner.last() >= end) {
                return Ok(None);
            }
            match self.scanner.step(Depth::From(self.skip))? {
                Step::End => {
                    let Some(end) = self.end else { return Ok(None) };
                    let first = self.scanner.last() + 1;
                    self.scanner.pass(end);
                    return Ok(Some(Item::Damage(Damage::truncated(first, end, self.scanner.size()))));
                }
                Step::Bad(region) => return Ok(Some(self.bad(&region))),
                Step::Frame(frame) if !frame.whole => {}
                Step::Frame(frame) => {
                    if let Some(item) = self.item(&frame) {
                        return Ok(Some(item));
                    }
                }
            }
        }
    }

    fn bad(&mut self, region: &BadRegion) -> Item {
        match (self.end, region.last) {
            (None, None) => {
                self.done = true;
                Item::Torn(Torn { sequence: region.first, offset: region.offset, bytes: region.bytes })
            }
            (end, last) => {
                let damage = Damage::of(&mut self.scanner, region, end.or(last).unwrap_or(u64::MAX));
                self.scanner.pass(damage.last);
                Item::Damage(damage)
            }
        }
    }

    /// `None` only for what the scanner would not have called intact.
    fn item(&self, frame: &ScannedFrame) -> Option<Item> {
        let (_, metadata, body) = self.scanner.frame(frame);
        let (head, offset) = (frame.head, frame.offset);
        match head.kind {
            FrameKind::Attestation => {
                Some(Item::Attestation(Attestation { sequence: head.sequence, durable: head.durable }))
            }
            FrameKind::Key => {
                let KeyMetadata { workspace, aek } = KeyMetadata::decode(metadata)?;
                let (sealed, commitment) = body.first_chunk::<KEY_BODY_BYTES>()?.split_first_chunk()?;
                let commitment = Commitment::from_slice(commitment)?;
                let (sequence, slot, sealed) = (head.sequence, head.slot, *sealed);
                Some(Item::Key(KeyFrame { sequence, offset, slot, workspace, aek, sealed, commitment }))
            }
            FrameKind::Entry => {
                let decoded = EntryMetadata::decode(metadata)?;
                Some(Item::Entry(SealedEntry {
                    sequence: head.sequence,
                    offset,
                    slot: head.slot,
                    received: decoded.received,
                    scan_version: decoded.scan_version,
                    parts: decoded.parts,
                    raw_bytes: decoded.raw_bytes,
                    compression: decoded.compression,
                    metadata_bytes: metadata.len(),
                    frame: self.scanner.raw(frame).to_vec(),
                }))
            }
        }
    }
}
