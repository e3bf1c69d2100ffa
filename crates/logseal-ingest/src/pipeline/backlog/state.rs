//! The state behind the lock: streams with their batches, and the files of each cluster's log.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use logseal_core::{ClusterId, UnixNanos, WalFileId, WorkspaceId};
use logseal_wal::Position;
use tokio::time::Instant;

use super::{Durable, Head, Pinned};
use crate::pipeline::batch::{CutBatch, CutRule, OpenBatch, Part, Stream, StreamKey};

/// What a stream's segments are assumed to shrink to before one was written: the low end of what logs do.
const FIRST_FILE_BYTES_PER_ARROW_BYTE: f64 = 0.25;

/// A file of the log.
#[derive(Debug)]
pub struct LogFile {
    /// Its id.
    pub id: WalFileId,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its last frame; `None` while it is written.
    pub end: Option<u64>,
    /// The last durable frame.
    durable: u64,
    /// Loaded parts that are in no segment yet.
    pending: u64,
    /// Held by queries that read the file.
    pins: Arc<()>,
    retiring: bool,
}

impl LogFile {
    /// A file of `bytes` with frames up to `end`, `None` while it is written.
    #[must_use]
    pub fn new(id: WalFileId, path: PathBuf, bytes: u64, end: Option<u64>) -> Self {
        Self { id, path, bytes, end, durable: end.unwrap_or(0), pending: 0, pins: Arc::new(()), retiring: false }
    }
}

/// The next frame to replay.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The frame.
    pub next: Position,
    /// Its file.
    pub path: PathBuf,
    /// The last frame of the file that may be read now.
    pub durable: u64,
    /// Whether the file has ended there.
    pub ended: bool,
    /// The file after it.
    pub following: Option<WalFileId>,
}

/// Frames of one file that are only in the log.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The file.
    pub file: WalFileId,
    /// Where it is.
    pub path: PathBuf,
    /// The first of the frames.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    _pin: Arc<()>,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Records in no segment, loaded or parked.
    pub records: u64,
    /// When the oldest of them was received.
    pub oldest: Option<UnixNanos>,
    /// Files of all logs.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of files from the cursors on.
    pub parked_bytes: u64,
}

#[derive(Debug, Default)]
struct Feed {
    files: VecDeque<LogFile>,
    /// From this frame on nothing is loaded.
    parked_from: Option<Position>,
    parked_records: u64,
    parked_since: Option<UnixNanos>,
}

impl Feed {
    fn file_mut(&mut self, id: WalFileId) -> Option<&mut LogFile> {
        self.files.iter_mut().rev().find(|file| file.id == id)
    }

    fn index(&self, id: WalFileId) -> Option<usize> {
        self.files.iter().position(|file| file.id == id)
    }
}

#[derive(Debug)]
struct StreamState {
    stream: Stream,
    open: Option<OpenBatch>,
    cut: Vec<Arc<CutBatch>>,
    file_bytes_per_arrow_byte: f64,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Joined {
    /// Its rows are in batches.
    Loaded,
    /// They are, and a batch was opened or could be full.
    CutDue,
    /// It is only in the log, as what came before it.
    Parked,
    /// It is the first that is only in the log.
    BeganParking,
}

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct State {
    streams: HashMap<StreamKey, StreamState>,
    /// Streams whose last frame that the replay passed is settled elsewhere.
    interrupted: HashSet<StreamKey>,
    feeds: HashMap<ClusterId, Feed>,
    cut_bytes: usize,
    store_fails: bool,
}

impl State {
    pub(super) fn open(&mut self, cluster: ClusterId, files: Vec<LogFile>) {
        let parked_from = files.first().map(|file| Position { file: file.id, sequence: 1 });
        self.feeds.insert(cluster, Feed { files: files.into(), parked_from, ..Feed::default() });
    }

    pub(super) fn join(
        &mut self,
        cluster: ClusterId,
        group: Vec<Durable>,
        head: Head,
        park: bool,
        now: Instant,
    ) -> Joined {
        let feed = self.feeds.entry(cluster).or_default();
        match feed.file_mut(head.position.file) {
            Some(file) => (file.bytes, file.durable) = (head.bytes, head.position.sequence),
            None => {
                let mut file = LogFile::new(head.position.file, head.path, head.bytes, None);
                file.durable = head.position.sequence;
                feed.files.push_back(file);
            }
        }
        let was_parked = feed.parked_from.is_some();
        if park && !was_parked {
            feed.parked_from = group.first().map(|request| request.position);
        }
        if feed.parked_from.is_some() {
            for request in &group {
                feed.parked_records += request.rows.iter().map(super::Rows::count).sum::<u64>();
                feed.parked_since.get_or_insert(request.received);
            }
            return if was_parked { Joined::Parked } else { Joined::BeganParking };
        }
        if self.load(cluster, group, now) { Joined::CutDue } else { Joined::Loaded }
    }

    pub(super) fn replayed(&mut self, cluster: ClusterId, frames: Vec<Durable>, next: Position, now: Instant) -> bool {
        if self.feeds.get(&cluster).is_none_or(|feed| feed.parked_from.is_none()) {
            // All was caught up with before: what came since is loaded, and `next` is behind it.
            return true;
        }
        let records: u64 = frames.iter().flat_map(|frame| &frame.rows).map(super::Rows::count).sum();
        self.load(cluster, frames, now);
        let Some(feed) = self.feeds.get_mut(&cluster) else { return true };
        feed.parked_records = feed.parked_records.saturating_sub(records);
        let last = feed.files.back();
        // The same lock is held when a group joins: nothing can come between this look and the switch.
        let caught_up = last.is_none_or(|last| next.file == last.id && next.sequence > last.durable);
        if caught_up {
            (feed.parked_from, feed.parked_records, feed.parked_since) = (None, 0, None);
        } else {
            feed.parked_from = Some(next);
        }
        caught_up
    }

    /// Adds rows to their streams' batches; true when a batch was opened or could be full.
    fn load(&mut self, cluster: ClusterId, group: Vec<Durable>, now: Instant) -> bool {
        let Some(feed) = self.feeds.get_mut(&cluster) else { return false };
        let mut opened = false;
        for Durable { position, received, rows, settled } in group {
            self.interrupted.extend(settled);
            if let Some(file) = feed.file_mut(position.file) {
                file.pending += rows.len() as u64;
            }
            for rows in rows {
                let key = rows.stream.key();
                let starts_run = self.interrupted.remove(&key);
                let stream = self.streams.entry(key).or_insert_with(|| StreamState {
                    stream: rows.stream.clone(),
                    open: None,
                    cut: Vec::new(),
                    file_bytes_per_arrow_byte: FIRST_FILE_BYTES_PER_ARROW_BYTE,
                });
                opened |= stream.open.is_none();
                let batch = stream.open.get_or_insert_with(|| OpenBatch::new(now));
                batch.add(Arc::new(Part::new(rows, position, received, starts_run)));
                // Exactly when it is full is the rule's question; a megabyte is worth asking it.
                opened |= batch.bytes >= 1 << 20;
            }
        }
        opened
    }

    pub(super) fn file_ended(&mut self, cluster: ClusterId, ended: LogFile) {
        let feed = self.feeds.entry(cluster).or_default();
        match feed.file_mut(ended.id) {
            Some(file) => (file.end, file.durable, file.bytes) = (ended.end, ended.durable, ended.bytes),
            // No sync of it ever succeeded. It takes room all the same, until it is retired like any other.
            None => feed.files.push_back(ended),
        }
    }

    pub(super) fn cursor(&self, cluster: ClusterId) -> Option<Cursor> {
        let feed = self.feeds.get(&cluster)?;
        let next = feed.parked_from?;
        let index = feed.index(next.file)?;
        let file = &feed.files[index];
        Some(Cursor {
            next,
            path: file.path.clone(),
            durable: file.durable,
            ended: file.end.is_some(),
            following: feed.files.get(index + 1).map(|file| file.id),
        })
    }

    pub(super) fn set_parked(&mut self, cluster: ClusterId, records: u64, since: UnixNanos) {
        if let Some(feed) = self.feeds.get_mut(&cluster).filter(|feed| feed.parked_from.is_some()) {
            feed.parked_records += records;
            feed.parked_since = feed.parked_since.into_iter().chain([since]).min();
        }
    }

    /// `pressed` is set when memory is short: then the largest batches are cut, as long as less than so many bytes are on their way
    /// into segments.
    pub(super) fn cut(
        &mut self,
        rule: &CutRule,
        now: Instant,
        everything: bool,
        pressed: Option<usize>,
    ) -> Vec<Arc<CutBatch>> {
        let mut batches = Vec::new();
        for stream in self.streams.values_mut() {
            let ratio = stream.file_bytes_per_arrow_byte;
            let due = |batch: &OpenBatch| everything || batch.due(rule) <= now || batch.is_full(rule, ratio);
            if stream.open.as_ref().is_some_and(due) {
                batches.extend(stream.cut());
            }
        }
        self.cut_bytes += batches.iter().map(|batch| batch.bytes).sum::<usize>();
        if let Some(most) = pressed {
            let mut open: Vec<_> = self.streams.values_mut().filter(|stream| stream.open.is_some()).collect();
            open.sort_by_key(|stream| std::cmp::Reverse(stream.open.as_ref().map_or(0, |batch| batch.bytes)));
            let mut open = open.into_iter();
            while self.cut_bytes < most
                && let Some(stream) = open.next()
            {
                let cut = stream.cut();
                self.cut_bytes += cut.as_ref().map_or(0, |batch| batch.bytes);
                batches.extend(cut);
            }
        }
        batches
    }

    pub(super) fn next_due(&self, rule: &CutRule) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.open.as_ref()).map(|batch| batch.due(rule)).min()
    }

    pub(super) fn settled(&mut self, batch: &Arc<CutBatch>, file_bytes: Option<usize>) {
        self.cut_bytes = self.cut_bytes.saturating_sub(batch.bytes);
        let cluster = batch.stream.table.cluster;
        if let Some(feed) = self.feeds.get_mut(&cluster) {
            for part in &batch.parts {
                if let Some(file) = feed.file_mut(part.position.file) {
                    file.pending = file.pending.saturating_sub(1);
                }
            }
        }
        let key = batch.stream.key();
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.cut.retain(|known| !Arc::ptr_eq(known, batch));
            if let Some(bytes) = file_bytes {
                stream.file_bytes_per_arrow_byte = bytes as f64 / batch.bytes.max(1) as f64;
            }
        }
    }

    pub(super) fn halved(&mut self, batch: &Arc<CutBatch>, halves: [Arc<CutBatch>; 2]) {
        if let Some(stream) = self.streams.get_mut(&batch.stream.key()) {
            stream.cut.retain(|known| !Arc::ptr_eq(known, batch));
            stream.cut.extend(halves);
        }
    }

    pub(super) fn set_store_fails(&mut self, fails: bool) {
        self.store_fails = fails;
    }

    pub(super) fn store_fails(&self) -> bool {
        self.store_fails
    }

    pub(super) fn retirable(&mut self) -> Vec<(ClusterId, WalFileId, PathBuf)> {
        let mut retirable = Vec::new();
        for (cluster, feed) in &mut self.feeds {
            let replayed = match feed.parked_from {
                None => feed.files.len(),
                Some(next) => feed.index(next.file).unwrap_or(0),
            };
            for file in feed.files.iter_mut().take(replayed) {
                let unused = Arc::strong_count(&file.pins) == 1;
                if file.end.is_none() || file.pending > 0 || !unused {
                    break;
                }
                if !file.retiring {
                    file.retiring = true;
                    retirable.push((*cluster, file.id, file.path.clone()));
                }
            }
        }
        retirable
    }

    pub(super) fn retired(&mut self, cluster: ClusterId, id: WalFileId) {
        if let Some(feed) = self.feeds.get_mut(&cluster) {
            feed.files.retain(|file| file.id != id);
        }
    }

    pub(super) fn not_retired(&mut self, cluster: ClusterId, id: WalFileId) {
        if let Some(file) = self.feeds.get_mut(&cluster).and_then(|feed| feed.file_mut(id)) {
            file.retiring = false;
        }
    }

    pub(super) fn pin(&self, cluster: ClusterId, workspace: WorkspaceId) -> Pinned {
        let mut pinned = Pinned::default();
        for state in self.streams.values().filter(|state| state.stream.workspace() == workspace) {
            pinned.parts.extend(state.parts().map(|part| (state.stream.clone(), Arc::clone(part))));
        }
        let Some(feed) = self.feeds.get(&cluster) else { return pinned };
        let Some(next) = feed.parked_from else { return pinned };
        let first_file = feed.index(next.file).unwrap_or(0);
        for file in feed.files.iter().skip(first_file).filter(|file| file.durable > 0) {
            let first = if file.id == next.file { next.sequence } else { 1 };
            let (id, path, last) = (file.id, file.path.clone(), file.durable);
            if first <= last {
                pinned.parked.push(Parked { file: id, path, first, last, _pin: Arc::clone(&file.pins) });
            }
        }
        pinned
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut oldest = |time: Option<UnixNanos>| {
            totals.oldest = totals.oldest.into_iter().chain(time).min();
        };
        for stream in self.streams.values() {
            oldest(stream.open.as_ref().and_then(|batch| batch.parts.first()).map(|part| part.received));
            stream.cut.iter().for_each(|batch| oldest(batch.parts.first().map(|part| part.received)));
        }
        self.feeds.values().for_each(|feed| oldest(feed.parked_since));
        totals.records = self.streams.values().flat_map(StreamState::parts).map(|part| part.rows).sum();
        for feed in self.feeds.values() {
            totals.records += feed.parked_records;
            totals.files += feed.files.len();
            totals.bytes += feed.files.iter().map(|file| file.bytes).sum::<u64>();
            if let Some(index) = feed.parked_from.and_then(|next| feed.index(next.file)) {
                totals.parked_bytes += feed.files.iter().skip(index).map(|file| file.bytes).sum::<u64>();
            }
        }
        totals
    }

    pub(super) fn path_of(&self, cluster: ClusterId, id: WalFileId) -> Option<PathBuf> {
        self.feeds.get(&cluster)?.files.iter().find(|file| file.id == id).map(|file| file.path.clone())
    }

    pub(super) fn log_bytes(&self, cluster: ClusterId) -> u64 {
        self.feeds.get(&cluster).map_or(0, |feed| feed.files.iter().map(|file| file.bytes).sum())
    }
}

impl StreamState {
    /// Closes the open batch.
    fn cut(&mut self) -> Option<Arc<CutBatch>> {
        let batch = CutBatch::new(self.stream.clone(), self.open.take()?.parts);
        self.cut.push(Arc::clone(&batch));
        Some(batch)
    }

    fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        let cut = self.cut.iter().flat_map(|batch| &batch.parts);
        cut.chain(self.open.iter().flat_map(|batch| &batch.parts))
    }
}
