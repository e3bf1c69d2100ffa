//! One stream: rows that wait, rows that are being sealed, the segment that grows, and the segments that are being stored.

use std::collections::VecDeque;
use std::sync::Arc;

use logseal_core::{UnixNanos, WalFileId};
use tokio::time::Instant;

use super::{Closed, Lot};
use crate::pipeline::stream::{CutRule, Part, Run, Runs, Stream};

/// The frames of one segment that is not in the catalog yet. Their rows are sealed; some are in memory as well, for queries, as long
/// as there is room.
#[derive(Debug, Default)]
pub(super) struct SegmentFrames {
    /// All of them.
    runs: Runs,
    /// The first ones, whose rows are no longer in memory.
    evicted: Runs,
    /// The others, and whether a run begins with them.
    resident: VecDeque<(Arc<Part>, bool)>,
    resident_bytes: usize,
}

impl SegmentFrames {
    fn push(&mut self, part: Arc<Part>, apart: bool) {
        self.runs.push(&part, apart);
        self.resident_bytes += part.bytes;
        self.resident.push_back((part, apart));
    }

    /// Moves the oldest rows to `evicted` until `bytes` of them are there; how many bytes are missing to that.
    fn evict(&mut self, mut bytes: usize, evicted: &mut Vec<Arc<Part>>) -> usize {
        while bytes > 0
            && let Some((part, apart)) = self.resident.pop_front()
        {
            self.evicted.push(&part, apart);
            self.resident_bytes -= part.bytes;
            bytes = bytes.saturating_sub(part.bytes);
            evicted.push(part);
        }
        bytes
    }
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) stream: Stream,
    /// Not sealed yet, in the order of the log.
    waiting: VecDeque<Arc<Part>>,
    waiting_bytes: usize,
    /// What they count towards a row group.
    waiting_share: usize,
    /// Being sealed by the lot under way.
    sealing: Vec<Arc<Part>>,
    /// A lot is under way: the next one has to wait for it.
    busy: bool,
    /// When the first frame came that is in no closed segment.
    opened: Option<Instant>,
    growing: SegmentFrames,
    /// Memory that the growing segment takes.
    growing_bytes: usize,
    /// The frame before the next one that is sealed was set aside.
    interrupted: bool,
    /// By their numbers.
    closed: Vec<(u64, SegmentFrames)>,
}

impl StreamState {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_share: 0,
            sealing: Vec::new(),
            busy: false,
            opened: None,
            growing: SegmentFrames::default(),
            growing_bytes: 0,
            interrupted: false,
            closed: Vec::new(),
        }
    }

    /// Adds a part; true when it is the first of its segment, or when there could be enough for a lot.
    pub(super) fn add(&mut self, part: Part, now: Instant) -> bool {
        let opened = self.opened.is_none();
        self.opened.get_or_insert(now);
        self.waiting_bytes += part.bytes;
        self.waiting_share += part.row_group_share;
        self.waiting.push_back(Arc::new(part));
        // Exactly when it is enough is the rule's question; a megabyte is worth asking it.
        opened || self.waiting_share >= 1 << 20
    }

    pub(super) fn due(&self, rule: &CutRule) -> Option<Instant> {
        self.opened.filter(|_| !self.busy).map(|opened| opened + rule.max_age)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Rows that are being sealed.
    pub(super) fn sealing_bytes(&self) -> usize {
        self.sealing.iter().map(|part| part.bytes).sum()
    }

    pub(super) fn growing_bytes(&self) -> usize {
        self.growing_bytes
    }

    /// What is to be done now by the rule, if anything.
    pub(super) fn lot(&mut self, rule: &CutRule, now: Instant, everything: bool) -> Option<Lot> {
        let due = self.opened.is_some() && (everything || self.due(rule).is_some_and(|due| due <= now));
        let enough = self.waiting_share >= rule.row_group_bytes;
        (!self.busy && (due || enough)).then(|| self.take(rule.row_group_bytes, due, now))
    }

    /// Takes of the rows that wait what counts about `share` bytes towards a row group. The segment is to be closed after them if `close` and none is left.
    pub(super) fn take(&mut self, share: usize, close: bool, now: Instant) -> Lot {
        let mut taken = 0;
        while taken < share
            && let Some(part) = self.waiting.pop_front()
        {
            taken += part.row_group_share;
            self.waiting_bytes -= part.bytes;
            self.sealing.push(part);
        }
        self.waiting_share -= taken;
        let close = close && self.waiting.is_empty();
        self.busy = true;
        if close {
            self.opened = None;
        } else {
            self.opened.get_or_insert(now);
        }
        Lot { stream: self.stream.clone(), parts: self.sealing.clone(), close }
    }

    /// The next parts of the lot are sealed as a part of the growing segment; those with false are set aside.
    pub(super) fn grown(&mut self, parts: &[(Arc<Part>, bool)], growing_bytes: usize) {
        for (part, sealed) in parts {
            if *sealed {
                let apart = std::mem::take(&mut self.interrupted) || part.starts_run;
                self.growing.push(Arc::clone(part), apart);
            } else {
                self.interrupted = true;
            }
        }
        // A lot is sealed in its order: these are the first of what is left of it.
        self.sealing.drain(..parts.len().min(self.sealing.len()));
        self.growing_bytes = growing_bytes;
    }

    /// The growing segment takes no more frames. Those that come later are of another one; `None` when it has none.
    pub(super) fn close(&mut self, number: u64) -> Option<Closed> {
        self.growing_bytes = 0;
        if self.waiting.is_empty() && self.sealing.is_empty() {
            self.opened = None;
        }
        let frames = std::mem::take(&mut self.growing);
        if frames.runs.is_empty() {
            return None;
        }
        let closed = Closed { number, stream: self.stream.clone(), runs: frames.runs.clone() };
        self.closed.push((number, frames));
        Some(closed)
    }

    /// The lot is done with.
    pub(super) fn release(&mut self, now: Instant) {
        self.busy = false;
        if self.opened.is_none() && !(self.waiting.is_empty() && self.growing.runs.is_empty()) {
            self.opened = Some(now);
        }
    }

    /// The rows that are still in memory; `None` when it has no such segment.
    pub(super) fn settled(&mut self, number: u64) -> Option<VecDeque<(Arc<Part>, bool)>> {
        let index = self.closed.iter().position(|(known, _)| *known == number)?;
        Some(self.closed.remove(index).1.resident)
    }

    /// Files with the number of its frames in them that are in no stored segment.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = (WalFileId, u64)> {
        let sealed = self.segments().flat_map(|frames| frames.runs.iter()).map(|run| (run.file, run.frames));
        sealed.chain(self.sealing.iter().chain(&self.waiting).map(|part| (part.position.file, 1)))
    }

    /// Nothing is left that would have to be remembered.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.opened.is_none() && self.sealing.is_empty() && self.closed.is_empty() && !self.interrupted
    }

    fn segments(&self) -> impl Iterator<Item = &SegmentFrames> {
        self.closed.iter().map(|(_, frames)| frames).chain([&self.growing])
    }

    /// Bytes of rows that are in memory although they are sealed.
    pub(super) fn resident_bytes(&self) -> usize {
        self.segments().map(|frames| frames.resident_bytes).sum()
    }

    /// Moves the oldest of these rows to `evicted` until `bytes` of them are there; how many bytes are missing to that.
    pub(super) fn evict(&mut self, bytes: usize, evicted: &mut Vec<Arc<Part>>) -> usize {
        let closed = self.closed.iter_mut().map(|(_, frames)| frames);
        closed.chain([&mut self.growing]).fold(bytes, |bytes, frames| frames.evict(bytes, evicted))
    }

    /// Rows in memory.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        let resident = self.segments().flat_map(|frames| &frames.resident).map(|(part, _)| part);
        resident.chain(&self.sealing).chain(&self.waiting)
    }

    /// Frames whose rows are only in the log.
    pub(super) fn evicted(&self) -> impl Iterator<Item = &Run> {
        self.segments().flat_map(|frames| frames.evicted.iter())
    }

    /// Records in no stored segment, and when the first of them was received.
    pub(super) fn unsealed(&self) -> (u64, Option<UnixNanos>) {
        let evicted: u64 = self.segments().map(|frames| frames.evicted.records()).sum();
        let records = evicted + self.parts().map(|part| part.rows).sum::<u64>();
        let oldest = self.segments().filter_map(|frames| frames.runs.received()).min();
        let next = self.sealing.first().or(self.waiting.front()).map(|part| part.received);
        (records, oldest.into_iter().chain(next).min())
    }
}
