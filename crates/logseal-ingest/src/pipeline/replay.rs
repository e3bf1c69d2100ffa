//! The task that loads a cluster's frames which are only in the log: after a start, and after the store was away.
//!
//! It surveys each file before it reads it, so that damage is reported before anything else, and stays below half of the memory
//! budget, so that new requests have room beside it. New requests are logged and acknowledged meanwhile; their frames are parked
//! behind the cursor and loaded in their turn.
//!
//! Frames of a workspace that is not available, such as one whose key's row was altered, are passed over: they are neither lost nor
//! damaged, and everybody else's go on. Their file is *held*: it is not retired in this life, and neither are those behind it, so that
//! a start after the repair loads them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::Catalog;
use logseal_core::{AekId, ClusterId, WalFileId};
use logseal_keys::KeyError;
use logseal_wal::{Bound, Damage, FileSurvey, Position};
use metrics::counter;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::backlog::{Backlog, Cursor, Durable, FilePin, Surveyed};
use super::frames::{BadFrame, Coverage, Frame, FrameReader, FrameRows, Frames, FramesError, Range};
use super::quarantine::{Quarantine, QuarantineError};
use super::stream::{Rows, Stream, StreamKey};
use crate::admission::{Budget, BudgetPermit};
use crate::error::Chain;
use crate::meter;

/// How often memory is looked at while there is none for more frames.
const ROOM: Duration = Duration::from_millis(20);

/// Pause after a failure that passes, such as a vault that does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// What the task works with.
#[derive(Debug)]
pub struct Replay {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Where rows join.
    pub backlog: Arc<Backlog>,
    /// Reads and scans frames.
    pub frames: Frames,
    /// What was covered when this process started; later commits are of loaded frames.
    pub coverage: Coverage,
    /// How each file of earlier lives is judged.
    pub bounds: Vec<(WalFileId, Bound)>,
    /// Where tables and columns are added that it lacks.
    pub catalog: Catalog,
    /// Where frames go that give no rows.
    pub quarantine: Quarantine,
    /// Covers what is loaded.
    pub budget: Arc<Budget>,
    /// True while something is parked, from the start on.
    pub replaying: watch::Sender<bool>,
}

/// Why the replay does not go on now.
#[derive(Debug, Error)]
enum ReplayError {
    #[error(transparent)]
    Frames(#[from] FramesError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

/// What outlasts a try that failed, so that the next one does not report it again.
#[derive(Debug, Default)]
struct Progress {
    /// The file that was surveyed last.
    surveyed: Option<WalFileId>,
    /// Its damages that are still to be put aside.
    damages: VecDeque<Damage>,
    /// Files with frames that were passed over.
    held: HashMap<WalFileId, Held>,
}

/// A file with frames that were passed over.
#[derive(Debug)]
struct Held {
    /// The keys of these frames.
    keys: HashSet<AekId>,
    /// Keeps the file from being retired.
    _pin: FilePin,
}

impl Replay {
    /// Runs until the task is dropped.
    pub async fn run(self) {
        let mut progress = Progress::default();
        loop {
            // Made before the look, so that a cursor that is set in between wakes it.
            let due = self.backlog.replay_due.notified();
            self.let_go_of_shredded(&mut progress);
            while let Some(cursor) = self.backlog.cursor(self.cluster) {
                self.set_replaying(true);
                if let Err(error) = self.file(&cursor, &mut progress).await {
                    warn!(cluster = %self.cluster, error = %Chain(&error), "the log cannot be replayed now, trying again");
                    sleep(PAUSE).await;
                }
            }
            self.set_replaying(false);
            due.await;
        }
    }

    /// A key that was destroyed holds no file.
    fn let_go_of_shredded(&self, progress: &mut Progress) {
        let before = progress.held.len();
        progress.held.retain(|_, held| {
            held.keys.retain(|aek| !self.frames.keyring.is_shredded(*aek));
            !held.keys.is_empty()
        });
        if progress.held.len() < before {
            self.backlog.cut_due.notify_one();
        }
    }

    fn set_replaying(&self, now: bool) {
        let changed = self.replaying.send_if_modified(|before| std::mem::replace(before, now) != now);
        if changed && !now {
            info!(cluster = %self.cluster, "the log is replayed: every acknowledged record is loaded or in a segment");
        }
    }

    /// Loads the cursor's file up to where it is durable now.
    async fn file(&self, cursor: &Cursor, progress: &mut Progress) -> Result<(), ReplayError> {
        let file = cursor.next.file;
        if cursor.next.sequence == 1
            && let Some((_, bound)) = self.bounds.iter().find(|(known, _)| *known == file)
        {
            self.survey(file, &cursor.path, *bound, progress).await?;
        }
        let range = Range { file, path: cursor.path.clone(), first: cursor.next.sequence, last: cursor.durable };
        if range.first <= range.last {
            let mut reader = FrameReader::open(&self.frames, &range).await?;
            let started = Instant::now();
            let mut frames_read = 0;
            loop {
                let held = progress.held.get(&file).map(|held| &held.keys);
                let is_held = |aek| held.is_some_and(|keys| keys.contains(&aek));
                let wanted =
                    |position, _, stream: StreamKey| !is_held(stream.aek) && !self.coverage.covers(position, stream);
                let lot = match reader.next(wanted).await {
                    Err(FramesError::Key { aek, workspace, source }) if source.is_lasting() => {
                        // What a query does not find must not look as if it were not there.
                        self.frames.keyring.refuse(workspace, &source);
                        // The next try begins at the same frame, and passes over those under this key.
                        return self.hold(progress, file, aek, &source);
                    }
                    lot => lot?,
                };
                let Some(lot) = lot else { break };
                let unavailable = lot.iter().filter(|frame| matches!(frame.rows, Err(BadFrame::Unavailable)));
                let unavailable = unavailable.flat_map(|frame| &frame.streams);
                // A workspace that was deleted since the lot was read is not available either, and never will be.
                for stream in unavailable.filter(|stream| !self.frames.keyring.is_shredded(stream.aek)) {
                    self.hold(progress, file, stream.aek, &BadFrame::Unavailable)?;
                }
                frames_read += lot.iter().filter(|frame| !frame.streams.is_empty()).count();
                if let Some(last) = lot.last().map(|frame| frame.sequence)
                    && self.load(&cursor.path, lot, Position { file, sequence: last + 1 }).await?
                {
                    // From here on new frames are loaded as they come: this cursor no longer says where to go on.
                    return Ok(());
                }
            }
            info!(cluster = %self.cluster, %file, frames = frames_read, seconds = started.elapsed().as_secs_f64(), "a file of the log is replayed");
        }
        let next = match cursor.following {
            Some(following) if cursor.ended => Position { file: following, sequence: 1 },
            _ => Position { file, sequence: cursor.durable + 1 },
        };
        self.backlog.replayed(self.cluster, Vec::new(), next, Instant::now());
        Ok(())
    }

    /// Holds `file`, whose frames under the key `aek` are passed over; says so once. The cursor must still be in the file: it is what
    /// keeps the file until then.
    fn hold(
        &self,
        progress: &mut Progress,
        file: WalFileId,
        aek: AekId,
        why: &(dyn Error + 'static),
    ) -> Result<(), ReplayError> {
        let held = match progress.held.entry(file) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(vacant) => {
                let pin = self.backlog.hold(self.cluster, file).ok_or(FramesError::Broken)?;
                vacant.insert(Held { keys: HashSet::new(), _pin: pin })
            }
        };
        if held.keys.insert(aek) {
            error!(cluster = %self.cluster, %file, %aek, error = %Chain(why), "records in the log are passed over; their file is kept, and a start loads them once their workspace is available");
        }
        Ok(())
    }

    /// Loads `lot`, behind which the frame `next` comes; true when nothing is parked any more. After an error the cursor is at the frame that caused it.
    async fn load(&self, path: &Path, lot: Vec<Frame>, next: Position) -> Result<bool, ReplayError> {
        let mut lot = VecDeque::from(lot);
        while !self.backlog.has_room_for_replay() {
            self.backlog.want_room();
            sleep(ROOM).await;
            self.let_go_of_rows(&mut lot);
        }
        let mut loaded = Vec::with_capacity(lot.len());
        while let Some(Frame { sequence, received, streams, unwanted, rows }) = lot.pop_front() {
            let position = Position { file: next.file, sequence };
            match rows {
                Ok(rows) if rows.is_empty() => {
                    loaded.push(Durable { position, received, rows: Vec::new(), settled: unwanted });
                }
                Ok(rows) => {
                    if let Err(error) = self.keep_tables(&rows).await {
                        self.backlog.replayed(self.cluster, loaded, position, Instant::now());
                        return Err(error.into());
                    }
                    let bytes = rows.iter().map(FrameRows::bytes).sum();
                    let mut permit = match self.budget.try_take(bytes) {
                        Some(permit) => permit,
                        None => {
                            // What waits here holds budget itself: it must be on its way into segments before this waits for more.
                            let ready = std::mem::take(&mut loaded);
                            self.backlog.replayed(self.cluster, ready, position, Instant::now());
                            match self.memory_for(bytes, &streams, &mut lot).await {
                                Some(permit) => permit,
                                None => {
                                    let settled = [streams, unwanted].concat();
                                    loaded.push(Durable { position, received, rows: Vec::new(), settled });
                                    continue;
                                }
                            }
                        }
                    };
                    let with_permit = |rows: FrameRows| {
                        let permit = permit.split(rows.bytes());
                        Rows { stream: rows.stream, chunks: rows.chunks, permit }
                    };
                    let rows = rows.into_iter().map(with_permit).collect();
                    loaded.push(Durable { position, received, rows, settled: unwanted });
                }
                // Its file is held, unless its key was destroyed. The stream's runs end here as they do where a frame is settled elsewhere.
                Err(bad) if bad == BadFrame::Unavailable || self.is_shredded(&streams) => {
                    let settled = [streams, unwanted].concat();
                    loaded.push(Durable { position, received, rows: Vec::new(), settled });
                }
                Err(bad) => {
                    if let Err(error) = self.put_aside(path, position, bad, &streams).await {
                        self.backlog.replayed(self.cluster, loaded, position, Instant::now());
                        return Err(error.into());
                    }
                    let settled = [streams, unwanted].concat();
                    loaded.push(Durable { position, received, rows: Vec::new(), settled });
                }
            }
        }
        Ok(self.backlog.replayed(self.cluster, loaded, next, Instant::now()))
    }

    /// Memory for the rows of a frame with these streams, before which `rest` waits; `None` when the frame's key is destroyed meanwhile.
    async fn memory_for(
        &self,
        bytes: usize,
        streams: &[StreamKey],
        rest: &mut VecDeque<Frame>,
    ) -> Option<BudgetPermit> {
        // One request for it all the while: another one would go to the end of the queue.
        let mut memory = pin!(self.budget.take(bytes));
        loop {
            tokio::select! {
                permit = &mut memory => return Some(permit),
                () = sleep(ROOM) => {
                    self.let_go_of_rows(rest);
                    if self.is_shredded(streams) {
                        return None;
                    }
                }
            }
        }
    }

    /// Drops rows whose key is destroyed: nobody may hold it for as long as memory is short.
    fn let_go_of_rows(&self, lot: &mut VecDeque<Frame>) {
        for frame in lot {
            if matches!(&frame.rows, Ok(rows) if !rows.is_empty()) && self.is_shredded(&frame.streams) {
                frame.rows = Ok(Vec::new());
            }
        }
    }

    /// Whether the key of a frame with these streams was destroyed since it was read.
    fn is_shredded(&self, streams: &[StreamKey]) -> bool {
        streams.iter().any(|stream| self.frames.keyring.is_shredded(stream.aek))
    }

    /// Adds tables and columns that the catalog lacks although the log has records of them: it is an older copy then.
    async fn keep_tables(&self, rows: &[FrameRows]) -> Result<(), FramesError> {
        for Stream { table, aek, .. } in rows.iter().map(|rows| &rows.stream) {
            match table.make_durable(&self.catalog, &self.frames.keyring, aek).await {
                Err(KeyError::Catalog(error)) if error.is_decision() && self.frames.keyring.is_shredded(aek.id()) => {
                    debug!(cluster = %self.cluster, error = %Chain(&error), "records of a key that was destroyed need no table");
                }
                Err(KeyError::Catalog(error)) if error.is_decision() => {
                    error!(cluster = %self.cluster, table = %table.row.id, error = %Chain(&error), "the catalog refuses a table that the log has records of");
                }
                added => added.map_err(FramesError::Table)?,
            }
        }
        Ok(())
    }

    /// Quarantines a frame that is intact but gives no rows. While that fails the replay does not go on behind it: the file would be
    /// deleted with the only copy.
    async fn put_aside(
        &self,
        path: &Path,
        position: Position,
        reason: BadFrame,
        streams: &[StreamKey],
    ) -> Result<(), QuarantineError> {
        let Position { file, sequence } = position;
        let known = self.quarantine.has(file, sequence, sequence).await;
        let (aside, noted) = match self.quarantine.frame(path, position, streams).await {
            // Of no use to try again: a row whose table is unknown cannot be noted.
            Err(QuarantineError::Note { aside, source }) if source.is_decision() => (aside, false),
            aside => (aside?, true),
        };
        let (cluster, aside) = (self.cluster, aside.display());
        if known && (!noted || streams.is_empty()) {
            // Without a note such a frame is found at each start, as long as its file is there.
            info!(%cluster, %file, sequence, %reason, %aside, noted, "a frame of the log is in quarantine since an earlier start");
        } else {
            error!(%cluster, %file, sequence, %reason, %aside, noted, "a frame of the log is in quarantine");
        }
        Ok(())
    }

    /// Reports what is wrong with a file, tells the backlog how much is in it, and puts damaged parts aside. A try after a failure goes
    /// on where that one stopped.
    async fn survey(
        &self,
        file: WalFileId,
        path: &Path,
        bound: Bound,
        progress: &mut Progress,
    ) -> Result<(), ReplayError> {
        let Progress { surveyed, damages, .. } = progress;
        if *surveyed != Some(file) {
            let (disk, source) = (Arc::clone(&self.frames.disk), path.to_owned());
            let work = move || logseal_wal::survey_file(&*disk, &source, &bound);
            let survey = tokio::task::spawn_blocking(work).await.map_err(|_| FramesError::Broken)?;
            let survey = survey.map_err(FramesError::Log)?;
            self.report(file, &survey).await;
            let found = Surveyed {
                records: survey.records_of.iter().map(|((_, aek), records)| (*aek, *records)).collect(),
                since: survey.header.created,
                workspaces: survey.records_of.keys().map(|(workspace, _)| *workspace).collect(),
            };
            self.backlog.surveyed(self.cluster, file, found);
            (*surveyed, *damages) = (Some(file), survey.damages.into());
        }
        while let Some(damage) = damages.front() {
            if let Some(aside) = self.quarantine.damage(path, file, damage).await? {
                let (cluster, file) = (self.cluster, aside.path.display());
                if aside.new {
                    error!(%cluster, %file, "a damaged part of the log is in quarantine");
                } else {
                    info!(%cluster, %file, "a damaged part of the log is in quarantine since an earlier start");
                }
            }
            damages.pop_front();
        }
        Ok(())
    }

    /// Damage of which there is a copy was reported and counted when that was made.
    async fn report(&self, id: WalFileId, survey: &FileSurvey) {
        let (cluster, file) = (self.cluster, survey.path.display());
        for alteration in &survey.alterations {
            counter!(meter::WAL_DAMAGE).increment(1);
            error!(%cluster, %file, ?alteration, "a file of the log is not the one that it should be");
        }
        for damage in &survey.damages {
            if self.quarantine.has(id, damage.first, damage.last).await {
                info!(%cluster, %file, %damage, "the log is damaged, as an earlier start reported");
            } else {
                counter!(meter::WAL_DAMAGE).increment(1);
                error!(%cluster, %file, %damage, "the log is damaged");
            }
        }
    }
}
