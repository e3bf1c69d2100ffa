//! Everything that is acknowledged and in no segment yet.
//!
//! For each cluster the frames of its log fall in three runs: covered by segments, *loaded* (given to their streams here), and *parked*
//! (from the cursor on only in the log). Frames join in the order of the log and none is passed over, so that a segment covers runs of
//! its stream's frames. Usually nothing is parked: the cursor is only set while the log is replayed after a start, and while the store
//! does not take segments and memory runs short.
//!
//! A stream's rows wait until there are enough for a row group; a *lot* of them is sealed into the segment that grows, and stays in
//! memory for queries as long as there is room. When there is none, sealed rows are *evicted*: queries read them from the log. A
//! segment that is big or old enough is *closed*, stored, and settled when the catalog has it.
//!
//! State changes are pure and short; one lock holds them, and no I/O happens under it.

mod files;
mod state;
mod streams;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_core::{AekId, ClusterId, UnixNanos, WalFileId, WorkspaceId};
use logseal_wal::Position;
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub use self::files::{Cursor, FilePin, LogFile, Parked, ParkedRun};
pub use self::state::Totals;
use self::state::{Joined, State};
use super::stream::{CutRule, Part, Rows, Runs, Stream, StreamKey};
use crate::admission::Budget;
use crate::{cpu, meter};

/// Of the budget at most one in so many bytes is for rows that are sealed, and only stay for queries to find them at once. Memory that is soon
/// used again is in the caches and mapped: with all that the budget has, each new row would take memory that neither is.
const SEALED_SHARE: usize = 8;

/// A request whose frame is durable.
#[derive(Debug)]
pub struct Durable {
    /// Its frame.
    pub position: Position,
    /// When it was received.
    pub received: UnixNanos,
    /// Its rows for each stream.
    pub rows: Vec<Rows>,
    /// Streams whose rows in this frame are in a segment or in quarantine already.
    pub settled: Vec<StreamKey>,
}

/// Where the log ends.
#[derive(Clone, Debug)]
pub struct Head {
    /// The last durable frame.
    pub position: Position,
    /// The file that it is in.
    pub path: PathBuf,
    /// How far that file is durable, in bytes.
    pub bytes: u64,
}

/// Rows of one stream that are to be sealed into its growing segment. Until it is released there is no other lot of the stream.
#[derive(Debug)]
pub struct Lot {
    /// The stream.
    pub stream: Stream,
    /// The rows, in the order of the log.
    pub parts: Vec<Arc<Part>>,
    /// The segment is complete with them.
    pub close: bool,
}

impl Lot {
    fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}

/// A segment that takes no more rows.
#[derive(Clone, Debug)]
pub struct Closed {
    number: u64,
    /// Its stream.
    pub stream: Stream,
    /// Its frames.
    pub runs: Runs,
}

/// What a survey found in a file of an earlier life.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Records in it by key, those included that are in segments.
    pub records: HashMap<AekId, u64>,
    /// When it was begun.
    pub since: UnixNanos,
    /// Who has frames in it.
    pub workspaces: HashSet<WorkspaceId>,
}

/// What a query must read beside the segments, at one moment.
#[derive(Debug, Default)]
pub struct Pinned {
    /// Loaded rows. Those that a later snapshot of the catalog covers are to be dropped.
    pub parts: Vec<(Stream, Arc<Part>)>,
    /// Frames whose rows are only in the log; they stay on the disk as long as this exists.
    pub parked: Vec<Parked>,
}

/// The shared state.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// Bytes of evicted rows whose memory is being given back.
    evicting: Arc<AtomicUsize>,
    room_wanted: AtomicBool,
    /// There may be something to seal, or memory is short: the cutter looks again.
    pub(super) cut_due: Notify,
    /// A cluster's cursor was set: all replays look again.
    pub(super) replay_due: Notify,
    /// A file of some log is gone.
    file_gone: Notify,
}

/// Rows on their way out of memory.
struct Evicted {
    parts: Vec<Arc<Part>>,
    bytes: usize,
    evicting: Arc<AtomicUsize>,
}

impl Drop for Evicted {
    fn drop(&mut self) {
        self.parts.clear();
        self.evicting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Backlog {
    /// An empty backlog whose parts draw on `budget`.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            budget,
            evicting: Arc::default(),
            room_wanted: AtomicBool::new(false),
            cut_due: Notify::new(),
            replay_due: Notify::new(),
            file_gone: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory is short: three quarters of the budget are taken.
    fn is_pressed(&self) -> bool {
        self.budget.free() < self.budget.total() / 4
    }

    /// Adds the log of `cluster` with the files of earlier lives, oldest first; they are parked until they are replayed.
    pub fn open(&self, cluster: ClusterId, files: Vec<LogFile>) {
        self.state().open(cluster, files);
        self.replay_due.notify_waiters();
    }

    /// A group of requests is durable in the log of `cluster`, whose last frame is now `head`.
    pub fn join(&self, cluster: ClusterId, group: Vec<Durable>, head: Head, now: Instant) {
        let half_full = self.budget.free() < self.budget.total() / 2;
        let mut state = self.state();
        let park = half_full && state.store_fails();
        let joined = state.join(cluster, group, head, park, now);
        drop(state);
        if joined == Joined::BeganParking {
            self.replay_due.notify_waiters();
        }
        if joined == Joined::CutDue || self.is_pressed() {
            self.cut_due.notify_one();
        }
    }

    /// The log of `cluster` goes on in another file than `file`, which has ended.
    pub fn file_ended(&self, cluster: ClusterId, file: LogFile) {
        self.state().file_ended(cluster, file);
        self.cut_due.notify_one();
    }

    /// Where the replay of `cluster` goes on; `None` while nothing is parked.
    #[must_use]
    pub fn cursor(&self, cluster: ClusterId) -> Option<Cursor> {
        self.state().cursor(cluster)
    }

    /// Frames were read from the log, up to before `next`; true when nothing is parked any more.
    pub fn replayed(&self, cluster: ClusterId, frames: Vec<Durable>, next: Position, now: Instant) -> bool {
        let mut state = self.state();
        let done = state.replayed(cluster, frames, next, now);
        drop(state);
        self.cut_due.notify_one();
        done
    }

    /// Says what a survey found in a parked file of `cluster`.
    pub fn surveyed(&self, cluster: ClusterId, file: WalFileId, found: Surveyed) {
        self.state().surveyed(cluster, file, found);
    }

    /// Keeps `file` of the log of `cluster` from being retired; `None` when it is not there.
    #[must_use]
    pub fn hold(&self, cluster: ClusterId, file: WalFileId) -> Option<FilePin> {
        self.state().hold(cluster, file)
    }

    /// What is to be sealed and closed now: by the rule, and, when memory is short, what takes most of it. Evicts sealed rows before
    /// that.
    pub fn lots(&self, rule: &CutRule, now: Instant, everything: bool) -> Vec<Lot> {
        let total = self.budget.total();
        let wanted = self.room_wanted.swap(false, Ordering::Relaxed) && !self.has_room_for_replay();
        self.evict(match (wanted, self.is_pressed()) {
            (true, _) => total / 8 * 5,
            (false, true) => total / 8 * 3,
            (false, false) => 0,
        });
        let free = self.budget.free() + self.evicting.load(Ordering::Relaxed);
        let pressed = (self.is_pressed() || (wanted && free <= total / 2)).then_some(total);
        let mut state = self.state();
        let mut lots = state.lots(rule, now, everything, pressed);
        lots.extend(state.close_largest(self.budget.all() / 8 * 3, now));
        lots
    }

    /// Evicts sealed rows that are more than may stay, and others until `free` bytes of the budget are free, or will be soon.
    fn evict(&self, free: usize) {
        let on_their_way = self.evicting.load(Ordering::Relaxed);
        let missing = free.saturating_sub(self.budget.free() + on_their_way);
        let mut state = self.state();
        let beyond = state.resident_bytes().saturating_sub(self.budget.all() / SEALED_SHARE);
        let evicted = state.evict(missing.max(beyond));
        drop(state);
        if evicted.is_empty() {
            return;
        }
        let bytes = evicted.iter().map(|part| part.bytes).sum();
        counter!(meter::EVICTED_BYTES).increment(bytes as u64);
        self.evicting.fetch_add(bytes, Ordering::Relaxed);
        cpu::discard(Evicted { parts: evicted, bytes, evicting: Arc::clone(&self.evicting) });
    }

    /// When the next segment is old enough.
    #[must_use]
    pub fn next_due(&self, rule: &CutRule) -> Option<Instant> {
        self.state().next_due(rule)
    }

    /// The next parts of the stream's lot are sealed; those with false are set aside instead. The growing segment takes `growing_bytes`.
    pub fn grown(&self, stream: StreamKey, parts: &[(Arc<Part>, bool)], growing_bytes: usize) {
        self.state().grown(stream, parts, growing_bytes);
    }

    /// The growing segment of the stream takes no more rows; `None` when it has none.
    #[must_use]
    pub fn close_segment(&self, stream: StreamKey) -> Option<Closed> {
        self.state().close(stream)
    }

    /// The stream's lot is done with.
    pub fn release(&self, stream: StreamKey, now: Instant) {
        self.state().release(stream, now);
        self.cut_due.notify_one();
    }

    /// Each frame of `closed` is in a segment that queries see, or in quarantine.
    pub fn settled(&self, closed: &Closed) {
        let rows = self.state().settled(closed);
        cpu::discard(rows);
    }

    /// The keys `aeks` were destroyed: rows under them leave memory, their frames count as settled, and none joins any more. Lots and
    /// segments of them that are under way end in nothing.
    pub fn shred(&self, aeks: &[AekId]) {
        let gone = self.state().shred(aeks);
        cpu::discard(gone);
        self.cut_due.notify_one();
        // Files that were held for such a key are let go of.
        self.replay_due.notify_waiters();
    }

    /// Whether one of `aeks` was destroyed.
    #[must_use]
    pub fn has_shredded(&self, aeks: impl IntoIterator<Item = AekId>) -> bool {
        let state = self.state();
        aeks.into_iter().any(|aek| state.is_shredded(aek))
    }

    /// Records under `aeks` that are acknowledged and in no segment yet. While a log is replayed after a start this is an estimate: frames
    /// of files that the replay has not reached are not counted, and of the file that it is in, those are that are in segments.
    #[must_use]
    pub fn unsealed_of(&self, aeks: &[AekId]) -> u64 {
        self.state().unsealed_of(aeks)
    }

    /// The log of `cluster` is to become empty: what it has or gets is sealed and closed at once.
    pub fn drain(&self, cluster: ClusterId) {
        self.state().drain(cluster);
        self.cut_due.notify_one();
    }

    /// Returns once the log of `cluster` has no files.
    pub async fn files_gone(&self, cluster: ClusterId) {
        loop {
            // Made before the look, so that a file that goes in between wakes it.
            let gone = self.file_gone.notified();
            if self.left(cluster).1 == 0 {
                return;
            }
            gone.await;
        }
    }

    /// Records of the log of `cluster` that are in no segment, as far as they were counted, and its files.
    #[must_use]
    pub fn left(&self, cluster: ClusterId) -> (u64, usize) {
        self.state().left(cluster)
    }

    /// The log of `cluster` is suspended: nothing of it is in memory any more but how much there was.
    pub fn suspend(&self, cluster: ClusterId) {
        let gone = self.state().suspend(cluster);
        cpu::discard(gone);
    }

    /// The log of `cluster` is gone, or was never started: nothing of it is in memory any more.
    pub fn close(&self, cluster: ClusterId) {
        let gone = self.state().remove(cluster);
        cpu::discard(gone);
    }

    /// A commit failed for the store's sake (true), or succeeded (false).
    pub fn store_failed(&self, failed: bool) {
        self.state().set_store_fails(failed);
    }

    /// Returns once the store has failed for `patience` without a success.
    pub async fn store_keeps_failing(&self, patience: Duration) {
        const LOOK: Duration = Duration::from_millis(100);
        let mut failing = Duration::ZERO;
        while failing < patience {
            sleep(LOOK).await;
            failing = if self.state().store_fails() { failing + LOOK } else { Duration::ZERO };
        }
    }

    /// Files of the log that nobody needs any more, oldest first; each is given once, until [`Backlog::not_retired`].
    ///
    /// None is given before those older than it: the header of a file's successor says where the file ends, so that what a failed
    /// sync left behind that end is never taken for records after a restart.
    #[must_use]
    pub fn retirable(&self) -> Vec<(ClusterId, WalFileId, PathBuf)> {
        self.state().retirable()
    }

    /// The file is gone.
    pub fn retired(&self, cluster: ClusterId, id: WalFileId) {
        self.state().retired(cluster, id);
        self.file_gone.notify_waiters();
    }

    /// The file could not be retired now.
    pub fn not_retired(&self, cluster: ClusterId, id: WalFileId) {
        self.state().not_retired(cluster, id);
    }

    /// What a query of `workspace` must read beside the segments, in the logs of all clusters.
    #[must_use]
    pub fn pin(&self, workspace: WorkspaceId) -> Pinned {
        self.state().pin(workspace)
    }

    /// Sums for metrics and limits.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state().totals()
    }

    /// Bytes of the log of `cluster` on the disk.
    #[must_use]
    pub fn log_bytes(&self, cluster: ClusterId) -> u64 {
        self.state().log_bytes(cluster)
    }

    /// Where the file `id` of the log of `cluster` is.
    #[must_use]
    pub fn path_of(&self, cluster: ClusterId, id: WalFileId) -> Option<PathBuf> {
        self.state().path_of(cluster, id)
    }

    /// The replay waits for room: sealed rows go, and rows that wait are sealed, as when memory is short.
    pub fn want_room(&self) {
        self.room_wanted.store(true, Ordering::Relaxed);
        self.cut_due.notify_one();
    }

    /// Whether the replay may load more: below half of the budget, so that new requests have room.
    #[must_use]
    pub fn has_room_for_replay(&self) -> bool {
        self.budget.free() > self.budget.total() / 2
    }
}

#[cfg(test)]
pub(super) mod tests;
