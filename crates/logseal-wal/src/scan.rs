//! Walks the frames of a file, over damage: reads blocks, checks heads and checksums, resynchronises on the marker.

use std::path::{Path, PathBuf};

use crate::format::{
    Chain, EntryMetadata, FRAMES_OFFSET, FileHeader, FrameHead, FrameKind, HEAD_BYTES, HEADER_BYTES, HeaderError,
};
use crate::{DamageCause, Disk, DiskFile, WalError};

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 * 1024;

/// Opens a file and reads its header from the first intact copy; also says which copies are damaged.
pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<(Scanner, FileHeader, [bool; 2]), WalError> {
    let file = disk.open(path).map_err(WalError::io("open", path))?;
    let size = file.size().map_err(WalError::io("read", path))?;
    let mut scanner = Scanner {
        file,
        path: path.to_owned(),
        marker: [0; 8],
        buffer: Vec::new(),
        base: 0,
        offset: FRAMES_OFFSET,
        size,
        last: 0,
        attested: 0,
        rewind: None,
        search_budget: size,
    };
    scanner.load(0, 2 * HEADER_BYTES)?;
    let copies = [0, HEADER_BYTES].map(|at| {
        let copy = scanner.buffer.get(at..at + HEADER_BYTES).and_then(<[u8]>::first_chunk::<HEADER_BYTES>);
        copy.ok_or(HeaderError::Damaged).and_then(FileHeader::decode)
    });
    let (header, damaged) = match copies {
        [Ok(first), second] => {
            let differs = second.as_ref() != Ok(&first);
            (first, [false, differs])
        }
        [Err(_), Ok(second)] => (second, [true, false]),
        [Err(source), Err(_)] => return Err(WalError::Header { path: path.to_owned(), source }),
    };
    scanner.marker = header.marker;
    Ok((scanner, header, damaged))
}

/// How much of each frame to look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depth {
    /// Heads alone; metadata and bodies are passed over.
    Heads,
    /// Everything, but of entries below this sequence the head alone.
    From(u64),
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// An intact frame. Its bytes are in the scanner until the next step: see [`Scanner::frame`].
    Frame(ScannedFrame),
    /// Bytes that are no intact frame, or a gap in the sequences.
    Bad(BadRegion),
    /// The end of the file, for now.
    End,
}

/// An intact frame: as far as `whole` says, its metadata and body are checked too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedFrame {
    pub(crate) head: FrameHead,
    pub(crate) offset: u64,
    pub(crate) whole: bool,
}

impl ScannedFrame {
    /// How long it is, with head, metadata and body.
    pub(crate) fn bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.head.metadata_bytes) + u64::from(self.head.body_bytes)
    }
}

/// What is not intact, up to the next intact head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadRegion {
    pub(crate) cause: DamageCause,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// The first sequence that is missing.
    pub(crate) first: u64,
    /// The last, known from the next intact head; `None` when there is no such head any more.
    pub(crate) last: Option<u64>,
    /// The head of the bad frame, if that is intact, and whether its metadata is.
    pub(crate) head: Option<(FrameHead, bool)>,
}

/// A walk over one file.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    marker: [u8; 8],
    /// Bytes of the file from `base` on.
    buffer: Vec<u8>,
    base: u64,
    /// Where the next frame is expected.
    offset: u64,
    size: u64,
    /// The sequence of the last head that was passed.
    last: u64,
    /// The highest `durable` of all intact heads so far.
    attested: u64,
    /// Where the unread content of the last frame begins: if no frame follows it, its length is not to be believed.
    rewind: Option<u64>,
    /// Bytes inside frames that may still be searched for other frames. Heads could be forged that contain one another, and
    /// to search each of them would take time that is quadratic in the file's length.
    search_budget: u64,
}

impl Scanner {
    /// The file's length as last seen.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The sequence of the last head that was passed.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Says that frames up to `sequence` are dealt with, so that they are not reported as missing any more.
    pub(crate) fn pass(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
    }

    /// The highest `durable` of all intact heads so far.
    pub(crate) fn attested(&self) -> u64 {
        self.attested
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes one step on.
    pub(crate) fn step(&mut self, depth: Depth) -> Result<Step, WalError> {
        let Some(head) = self.head_at(self.offset)? else {
            return self.step_over_bad_head();
        };
        if head.sequence > self.last + 1 {
            let (first, last) = (self.last + 1, head.sequence - 1);
            self.last = last;
            let (offset, bytes, head) = (self.offset, 0, None);
            return Ok(Step::Bad(BadRegion { cause: DamageCause::Gap, offset, bytes, first, last: Some(last), head }));
        }
        self.attested = self.attested.max(head.durable);
        let content = self.offset + HEAD_BYTES as u64;
        let (metadata, body) = (head.metadata_bytes as usize, head.body_bytes as usize);
        let after = content + metadata as u64 + body as u64;
        if after > self.size && after > self.refresh_size()? {
            return self.step_over_bad_frame(head, DamageCause::Cut, false, content);
        }
        let heads_only = match depth {
            Depth::Heads => true,
            Depth::From(first) => head.kind == FrameKind::Entry && head.sequence < first,
        };
        let frame = ScannedFrame { head, offset: self.offset, whole: !heads_only };
        if heads_only {
            self.rewind = Some(content);
        } else {
            let length = HEAD_BYTES + metadata + body;
            if self.load(self.offset, length)? < length {
                return self.step_over_bad_frame(head, DamageCause::Cut, false, content);
            }
            let (stored, metadata, body) = self.frame(&frame);
            let checksums = FrameHead::checksums(stored);
            // Metadata that this version cannot read says as little as damaged metadata.
            let readable = head.kind != FrameKind::Entry || EntryMetadata::is_readable(metadata);
            let metadata_intact = readable && crc32fast::hash(metadata) == checksums.metadata;
            if !metadata_intact || crc32fast::hash(body) != checksums.body {
                let cause = if metadata_intact { DamageCause::Body } else { DamageCause::Metadata };
                if self.offset_is_boundary(head, after)? {
                    return Ok(self.bad_frame(head, cause, metadata_intact, after));
                }
                return self.step_over_bad_frame(head, cause, metadata_intact, content);
            }
            self.rewind = None;
        }
        self.last = head.sequence;
        self.offset = after;
        Ok(Step::Frame(frame))
    }

    /// Head, metadata and body of the frame that the last step gave; only if it is `whole`.
    pub(crate) fn frame(&self, frame: &ScannedFrame) -> (&[u8; HEAD_BYTES], &[u8], &[u8]) {
        let bytes = self.raw(frame);
        let (head, content) = bytes.split_first_chunk().expect("a whole frame has been loaded");
        let (metadata, body) = content.split_at(frame.head.metadata_bytes as usize);
        (head, metadata, body)
    }

    /// All bytes of the frame that the last step gave; only if it is `whole`.
    pub(crate) fn raw(&self, frame: &ScannedFrame) -> &[u8] {
        let start = usize::try_from(frame.offset - self.base).expect("a loaded frame lies in the buffer");
        let length = HEAD_BYTES + frame.head.metadata_bytes as usize + frame.head.body_bytes as usize;
        &self.buffer[start..start + length]
    }

    /// The metadata of a bad frame whose metadata is intact, right after the step that gave it.
    pub(crate) fn metadata_of_bad(&mut self, region: &BadRegion) -> Result<Option<Vec<u8>>, WalError> {
        let Some((head, true)) = region.head else { return Ok(None) };
        let (start, length) = (region.offset + HEAD_BYTES as u64, head.metadata_bytes as usize);
        let available = self.load(start, length)?;
        let from = usize::try_from(start - self.base).unwrap_or(usize::MAX);
        Ok((available == length).then(|| self.buffer[from..from + length].to_vec()))
    }

    /// Copies bytes of the file to `out`, block by block.
    pub(crate) fn copy(
        &mut self,
        mut offset: u64,
        bytes: u64,
        out: &mut dyn FnMut(&[u8]) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        let end = offset.saturating_add(bytes);
        while offset < end {
            let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let available = self.load(offset, want)?;
            if available == 0 {
                return Err(WalError::NoEvidence { path: self.path.clone() });
            }
            let start = usize::try_from(offset - self.base).expect("loaded bytes lie in the buffer");
            out(&self.buffer[start..start + available])?;
            offset += available as u64;
        }
        Ok(())
    }

    /// No intact head where the next frame was expected: find one, or the end.
    fn step_over_bad_head(&mut self) -> Result<Step, WalError> {
        if self.offset >= self.size && self.offset >= self.refresh_size()? {
            return Ok(Step::End);
        }
        // Content that was passed unread may hold the frames that should follow it.
        let inside = self.rewind.filter(|from| self.spend(self.offset - from));
        let found = self.search(inside.unwrap_or(self.offset + 1))?;
        let start = match (inside, found) {
            (Some(inside), Some((next, _))) if next <= self.offset => inside,
            _ => self.offset,
        };
        Ok(self.skip_to(found, DamageCause::Head, start, self.last + 1, None))
    }

    /// An intact head whose content is not: its length may be wrong as well, so what follows is searched from `content` on.
    fn step_over_bad_frame(
        &mut self,
        head: FrameHead,
        cause: DamageCause,
        metadata_intact: bool,
        content: u64,
    ) -> Result<Step, WalError> {
        let after = content + u64::from(head.metadata_bytes) + u64::from(head.body_bytes);
        let start = self.offset;
        // What the file does not have was not checked either: searching it again costs nothing.
        let from = if cause == DamageCause::Cut || self.spend(after - content) { content } else { after };
        let last = std::mem::replace(&mut self.last, head.sequence);
        let found = self.search(from).inspect_err(|_| self.last = last)?;
        Ok(self.skip_to(found, cause, start, head.sequence, Some((head, metadata_intact))))
    }

    /// A bad frame of a length that what follows confirms.
    fn bad_frame(&mut self, head: FrameHead, cause: DamageCause, metadata_intact: bool, after: u64) -> Step {
        let region = BadRegion {
            cause,
            offset: self.offset,
            bytes: after - self.offset,
            first: head.sequence,
            last: Some(head.sequence),
            head: Some((head, metadata_intact)),
        };
        (self.last, self.offset, self.rewind) = (head.sequence, after, None);
        Step::Bad(region)
    }

    fn skip_to(
        &mut self,
        found: Option<(u64, FrameHead)>,
        cause: DamageCause,
        offset: u64,
        first: u64,
        head: Option<(FrameHead, bool)>,
    ) -> Step {
        let (next, last) = match found {
            Some((next, following)) => (next, Some(following.sequence - 1)),
            None => (self.size, None),
        };
        self.rewind = None;
        self.offset = next;
        self.last = self.last.max(last.unwrap_or(0));
        Step::Bad(BadRegion { cause, offset, bytes: next - offset, first, last, head })
    }

    /// Whether a frame that ends at `after` is followed by an intact head or by the file's end.
    fn offset_is_boundary(&mut self, head: FrameHead, after: u64) -> Result<bool, WalError> {
        let last = std::mem::replace(&mut self.last, head.sequence);
        // This may move the buffer; the frame's bytes are not needed any more.
        let next = self.head_at(after);
        self.last = last;
        Ok(next?.is_some() || after >= self.size)
    }

    fn spend(&mut self, bytes: u64) -> bool {
        let left = self.search_budget.checked_sub(bytes);
        self.search_budget = left.unwrap_or(self.search_budget);
        left.is_some()
    }

    /// The first intact head of a later frame at or after `from`.
    fn search(&mut self, mut from: u64) -> Result<Option<(u64, FrameHead)>, WalError> {
        loop {
            // What is there is searched before more is read: the next head may be near, again and again.
            let available = match self.buffered(from) {
                some if some >= HEAD_BYTES => some,
                _ => self.load(from, BLOCK_BYTES)?,
            };
            if available < HEAD_BYTES {
                return Ok(None);
            }
            let start = usize::try_from(from - self.base).expect("loaded bytes lie in the buffer");
            let window = &self.buffer[start..start + available];
            let mut at = 0;
            // All markers of a block are tried before the next is read: a file may be nothing but markers.
            let next = loop {
                let found = window[at..].windows(self.marker.len()).position(|bytes| bytes == self.marker);
                let Some(found) = found else { break available - (self.marker.len() - 1) };
                at += found;
                let Some(head) = window[at..].first_chunk() else { break at };
                if let Some(head) = FrameHead::decode(head, self.marker).filter(|head| head.sequence > self.last) {
                    return Ok(Some((from + at as u64, head)));
                }
                at += 1;
            };
            from += next as u64;
        }
    }

    /// The head at `offset`, if it is intact and of a later frame than the last one.
    fn head_at(&mut self, offset: u64) -> Result<Option<FrameHead>, WalError> {
        if self.load(offset, HEAD_BYTES)? < HEAD_BYTES {
            return Ok(None);
        }
        let start = usize::try_from(offset - self.base).expect("loaded bytes lie in the buffer");
        let head = self.buffer[start..].first_chunk().and_then(|bytes| FrameHead::decode(bytes, self.marker));
        Ok(head.filter(|head| head.sequence > self.last))
    }

    fn refresh_size(&mut self) -> Result<u64, WalError> {
        self.size = self.file.size().map_err(WalError::io("read", self.path.as_path()))?;
        Ok(self.size)
    }

    /// How many bytes at `offset` are in the buffer.
    fn buffered(&self, offset: u64) -> usize {
        let start = offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        start.map_or(0, |start| self.buffer.len().saturating_sub(start))
    }

    /// Brings `length` bytes at `offset` into the buffer; returns how many of them there are. Callers have bounded `length`.
    fn load(&mut self, offset: u64, length: usize) -> Result<usize, WalError> {
        let start = match offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok()) {
            Some(start) if start <= self.buffer.len() => start,
            _ => {
                self.buffer.clear();
                self.base = offset;
                0
            }
        };
        if self.buffer.len() - start >= length {
            return Ok(length);
        }
        self.buffer.drain(..start);
        self.base = offset;
        let want = length.max(BLOCK_BYTES);
        if want < self.buffer.capacity() / 2 {
            self.buffer.shrink_to(want);
        }
        while self.buffer.len() < length {
            let have = self.buffer.len();
            self.buffer.resize(want, 0);
            let read = self.file.read_at(offset + have as u64, &mut self.buffer[have..]);
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            if read.map_err(WalError::io("read", self.path.as_path()))? == 0 {
                break;
            }
        }
        Ok(self.buffer.len().min(length))
    }
}

/// The chain of the frames that a scanner passes.
pub(crate) fn chain_after(chain: Chain, scanner: &Scanner, frame: &ScannedFrame) -> Chain {
    let (head, _, body) = scanner.frame(frame);
    chain.after(head, body)
}
