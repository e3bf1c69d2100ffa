//! The state behind the lock: streams, and the files of each cluster's log.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use logseal_core::{AekId, ClusterId, UnixNanos, WalFileId, WorkspaceId};
use logseal_wal::Position;
use tokio::time::Instant;

use super::files::{Cursor, Feed, FilePin, LogFile};
use super::streams::StreamState;
use super::{Closed, Durable, Head, Lot, Pinned, Surveyed};
use crate::pipeline::stream::{CutRule, Part, StreamKey};

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
    /// Memory that growing segments take, in bytes.
    pub growing_bytes: usize,
    /// Records of logs that were suspended, as far as they were counted; `records` and `oldest` are without them.
    pub suspended_records: u64,
    /// Bytes of these logs; `files` and `bytes` are with them.
    pub suspended_bytes: u64,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Joined {
    /// Its rows are in memory.
    Loaded,
    /// They are, and there may be something to seal, now or in time.
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
    /// Keys that were destroyed: no rows under them join any more.
    shredded: HashSet<AekId>,
    /// Clusters whose log is being closed: what comes is sealed at once.
    draining: HashSet<ClusterId>,
    /// What clusters had when their log was suspended.
    suspended: HashMap<ClusterId, Totals>,
    /// Segments that were closed so far.
    closed: u64,
    store_fails: bool,
}

impl State {
    pub(super) fn open(&mut self, cluster: ClusterId, files: Vec<LogFile>) {
        self.suspended.remove(&cluster);
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
                (file.durable, file.workspaces) = (head.position.sequence, Some(HashSet::new()));
                feed.files.push_back(file);
            }
        }
        if let Some(workspaces) = feed.file_mut(head.position.file).and_then(|file| file.workspaces.as_mut()) {
            workspaces.extend(group.iter().flat_map(|request| &request.rows).map(|rows| rows.stream.workspace()));
        }
        let was_parked = feed.parked_from.is_some();
        if park && !was_parked {
            feed.parked_from = group.first().map(|request| request.position);
        }
        if feed.parked_from.is_some() {
            for request in &group {
                for rows in request.rows.iter().filter(|rows| !self.shredded.contains(&rows.stream.aek.id())) {
                    feed.park(rows.stream.aek.id(), rows.count());
                }
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
        let rows = frames.iter().flat_map(|frame| &frame.rows);
        let loaded: Vec<_> = rows.map(|rows| (rows.stream.aek.id(), rows.count())).collect();
        self.load(cluster, frames, now);
        let Some(feed) = self.feeds.get_mut(&cluster) else { return true };
        loaded.into_iter().for_each(|(aek, records)| feed.unpark(aek, records));
        let last = feed.files.back();
        // The same lock is held when a group joins: nothing can come between this look and the switch.
        let caught_up = last.is_none_or(|last| next.file == last.id && next.sequence > last.durable);
        if caught_up {
            feed.caught_up();
        } else {
            feed.parked_from = Some(next);
        }
        caught_up
    }

    /// Adds rows to their streams; true when there may be a lot to seal, now or in time.
    fn load(&mut self, cluster: ClusterId, group: Vec<Durable>, now: Instant) -> bool {
        let Some(feed) = self.feeds.get_mut(&cluster) else { return false };
        let mut due = false;
        for Durable { position, received, mut rows, settled } in group {
            // A request that was under way when its key was destroyed: its frame cannot be opened any more.
            rows.retain(|rows| !self.shredded.contains(&rows.stream.aek.id()));
            self.interrupted.extend(settled.into_iter().filter(|stream| !self.shredded.contains(&stream.aek)));
            if let Some(file) = feed.file_mut(position.file) {
                file.pending += rows.len() as u64;
            }
            for rows in rows {
                let key = rows.stream.key();
                let starts_run = self.interrupted.remove(&key);
                let stream = self.streams.entry(key).or_insert_with(|| StreamState::new(rows.stream.clone()));
                due |= stream.add(Part::new(rows, position, received, starts_run), now);
            }
        }
        due
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

    pub(super) fn surveyed(&mut self, cluster: ClusterId, file: WalFileId, found: Surveyed) {
        let Some(feed) = self.feeds.get_mut(&cluster) else { return };
        if let Some(file) = feed.file_mut(file) {
            file.workspaces = Some(found.workspaces);
        }
        if feed.parked_from.is_some() {
            for (aek, records) in found.records {
                feed.park(aek, if self.shredded.contains(&aek) { 0 } else { records });
            }
            feed.parked_since = feed.parked_since.into_iter().chain([found.since]).min();
        }
    }

    /// What is to be sealed or closed by the rule. `budget` is set when memory is short: all of it, in bytes.
    pub(super) fn lots(&mut self, rule: &CutRule, now: Instant, everything: bool, budget: Option<usize>) -> Vec<Lot> {
        let draining = &self.draining;
        let due = self.streams.values_mut().filter_map(|stream| {
            let everything = everything || draining.contains(&stream.stream.cluster);
            stream.lot(rule, now, everything)
        });
        let mut lots: Vec<_> = due.collect();
        if let Some(budget) = budget {
            let under_way: usize = self.streams.values().map(StreamState::sealing_bytes).sum();
            self.seal_largest((budget / 8).saturating_sub(under_way), rule, now, &mut lots);
        }
        lots
    }

    /// Seals the largest rows that wait until `bytes` are under way.
    fn seal_largest(&mut self, mut bytes: usize, rule: &CutRule, now: Instant, lots: &mut Vec<Lot>) {
        let idle = self.streams.values_mut().filter(|stream| !stream.is_busy() && stream.waiting_bytes() > 0);
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|stream| Reverse(stream.waiting_bytes()));
        for stream in idle {
            if bytes == 0 {
                break;
            }
            let before = stream.waiting_bytes();
            lots.push(stream.take(rule.row_group_bytes, false, now));
            bytes = bytes.saturating_sub(before - stream.waiting_bytes());
        }
    }

    /// Closes the largest growing segments until all of them together take at most `bytes`.
    pub(super) fn close_largest(&mut self, bytes: usize, now: Instant) -> Vec<Lot> {
        let mut together: usize = self.streams.values().map(StreamState::growing_bytes).sum();
        if together <= bytes {
            return Vec::new();
        }
        let idle = self.streams.values_mut().filter(|stream| !stream.is_busy() && stream.growing_bytes() > 0);
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|stream| Reverse(stream.growing_bytes()));
        let mut lots = Vec::new();
        for stream in idle {
            if together <= bytes {
                break;
            }
            together -= stream.growing_bytes();
            lots.push(stream.take(0, false, now).closing());
        }
        lots
    }

    /// Bytes of rows that are in memory although they are sealed.
    pub(super) fn resident_bytes(&self) -> usize {
        self.streams.values().map(StreamState::resident_bytes).sum()
    }

    /// Moves rows out of memory that are sealed, those of the largest streams first, until `bytes` of them are out.
    pub(super) fn evict(&mut self, bytes: usize) -> Vec<Arc<Part>> {
        let mut streams: Vec<_> = self.streams.values_mut().map(|stream| (stream.resident_bytes(), stream)).collect();
        streams.sort_by_key(|(bytes, _)| Reverse(*bytes));
        let (mut evicted, mut missing) = (Vec::new(), bytes);
        for (resident, stream) in streams {
            if missing == 0 || resident == 0 {
                break;
            }
            missing = stream.evict(missing, &mut evicted);
        }
        evicted
    }

    pub(super) fn next_due(&self, rule: &CutRule) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.due(rule)).min()
    }

    pub(super) fn grown(&mut self, key: StreamKey, parts: &[(Arc<Part>, bool)], growing_bytes: usize) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.grown(parts, growing_bytes);
        if let Some(feed) = self.feeds.get_mut(&stream.stream.cluster) {
            let set_aside = parts.iter().filter(|(_, sealed)| !sealed);
            set_aside.for_each(|(part, _)| feed.settled(part.position.file, 1));
        }
    }

    pub(super) fn close(&mut self, key: StreamKey) -> Option<Closed> {
        self.closed += 1;
        self.streams.get_mut(&key)?.close(self.closed)
    }

    pub(super) fn release(&mut self, key: StreamKey, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.release(now);
            self.forget_if_idle(key);
        }
    }

    /// The segment's rows that are still in memory.
    pub(super) fn settled(&mut self, closed: &Closed) -> VecDeque<(Arc<Part>, bool)> {
        let key = closed.stream.key();
        // What was shredded was settled then.
        let rows = self.streams.get_mut(&key).and_then(|stream| stream.settled(closed.number));
        let Some(rows) = rows else { return VecDeque::new() };
        if let Some(feed) = self.feeds.get_mut(&closed.stream.cluster) {
            closed.runs.iter().for_each(|run| feed.settled(run.file, run.frames));
        }
        self.forget_if_idle(key);
        rows
    }

    fn forget_if_idle(&mut self, key: StreamKey) {
        if self.streams.get(&key).is_some_and(StreamState::is_idle) {
            self.streams.remove(&key);
        }
    }

    /// Forgets all streams under `aeks` and takes none of them any more: their frames are settled. What they were.
    pub(super) fn shred(&mut self, aeks: &[AekId]) -> Vec<StreamState> {
        self.shredded.extend(aeks);
        let shredded = &self.shredded;
        let gone: Vec<_> = self.streams.extract_if(|key, _| shredded.contains(&key.aek)).collect();
        for (_, stream) in &gone {
            let Some(feed) = self.feeds.get_mut(&stream.stream.cluster) else { continue };
            stream.unsettled().for_each(|(file, frames)| feed.settled(file, frames));
        }
        self.interrupted.retain(|key| !shredded.contains(&key.aek));
        self.feeds.values_mut().for_each(|feed| aeks.iter().for_each(|aek| feed.forget_parked(*aek)));
        gone.into_iter().map(|(_, stream)| stream).collect()
    }

    pub(super) fn is_shredded(&self, aek: AekId) -> bool {
        self.shredded.contains(&aek)
    }

    /// Records under `aeks` in no stored segment.
    pub(super) fn unsealed_of(&self, aeks: &[AekId]) -> u64 {
        let streams = self.streams.iter().filter(|(key, _)| aeks.contains(&key.aek));
        let parked = self.feeds.values().map(|feed| aeks.iter().map(|aek| feed.parked_of(*aek)).sum::<u64>());
        streams.map(|(_, stream)| stream.unsealed().0).chain(parked).sum()
    }

    pub(super) fn drain(&mut self, cluster: ClusterId) {
        self.draining.insert(cluster);
    }

    /// The log of `cluster` leaves memory, and stays where it is. What its streams were.
    pub(super) fn suspend(&mut self, cluster: ClusterId) -> Vec<StreamState> {
        let left = self.totals_of(|any| any == cluster);
        let gone = self.remove(cluster);
        self.suspended.insert(cluster, left);
        gone
    }

    /// The log of `cluster` is gone. What its streams were.
    pub(super) fn remove(&mut self, cluster: ClusterId) -> Vec<StreamState> {
        self.suspended.remove(&cluster);
        self.feeds.remove(&cluster);
        self.draining.remove(&cluster);
        let gone: HashMap<_, _> = self.streams.extract_if(|_, stream| stream.stream.cluster == cluster).collect();
        self.interrupted.retain(|key| !gone.contains_key(key));
        gone.into_values().collect()
    }

    /// Records of the log of `cluster` in no stored segment, and its files.
    pub(super) fn left(&self, cluster: ClusterId) -> (u64, usize) {
        let Some(feed) = self.feeds.get(&cluster) else { return (0, 0) };
        let streams = self.streams.values().filter(|stream| stream.stream.cluster == cluster);
        let loaded: u64 = streams.map(|stream| stream.unsealed().0).sum();
        (loaded + feed.parked_records(), feed.files.len())
    }

    pub(super) fn set_store_fails(&mut self, fails: bool) {
        self.store_fails = fails;
    }

    pub(super) fn store_fails(&self) -> bool {
        self.store_fails
    }

    pub(super) fn retirable(&mut self) -> Vec<(ClusterId, WalFileId, PathBuf)> {
        let of_cluster = |(cluster, feed): (&ClusterId, &mut Feed)| {
            let cluster = *cluster;
            feed.retirable().into_iter().map(move |(id, path)| (cluster, id, path))
        };
        self.feeds.iter_mut().flat_map(of_cluster).collect()
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

    pub(super) fn pin(&self, workspace: WorkspaceId) -> Pinned {
        let mut pinned = Pinned::default();
        for state in self.streams.values().filter(|state| state.stream.workspace() == workspace) {
            pinned.parts.extend(state.parts().map(|part| (state.stream.clone(), Arc::clone(part))));
            let feed = self.feeds.get(&state.stream.cluster);
            let evicted = state.evicted().filter_map(|run| feed?.parked_run(run, state.stream.key()));
            pinned.parked.extend(evicted);
        }
        // Also clusters that it was linked to before may have frames of it.
        pinned.parked.extend(self.feeds.values().flat_map(|feed| feed.parked(workspace)));
        pinned
    }

    pub(super) fn hold(&self, cluster: ClusterId, file: WalFileId) -> Option<FilePin> {
        self.feeds.get(&cluster)?.file(file).map(|file| file.pin())
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.totals_of(|_| true);
        for suspended in self.suspended.values() {
            totals.files += suspended.files;
            totals.bytes += suspended.bytes;
            totals.suspended_records += suspended.records;
            totals.suspended_bytes += suspended.bytes;
        }
        totals
    }

    /// Sums over the open logs that are `wanted`.
    fn totals_of(&self, wanted: impl Fn(ClusterId) -> bool) -> Totals {
        let mut totals = Totals::default();
        let streams = || self.streams.values().filter(|stream| wanted(stream.stream.cluster));
        let feeds = || self.feeds.iter().filter(|(cluster, _)| wanted(**cluster)).map(|(_, feed)| feed);
        let parked = feeds().map(|feed| (feed.parked_records(), feed.parked_since));
        for (records, oldest) in streams().map(StreamState::unsealed).chain(parked) {
            totals.records += records;
            totals.oldest = totals.oldest.into_iter().chain(oldest).min();
        }
        totals.growing_bytes = streams().map(StreamState::growing_bytes).sum();
        for feed in feeds() {
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
