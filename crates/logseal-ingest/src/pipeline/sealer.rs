//! Brings every frame that it is given to its end: into a segment or into quarantine.
//!
//! Rows that cannot be encoded twice are halved until the frame is found that breaks the encoder: it goes, still sealed, into
//! quarantine, and the others go on. A commit that fails for the storage's sake is repeated for as long as it takes, and the log takes
//! the load meanwhile. A segment that cannot be finished, or whose frames another one has in part, is made again from the log.

mod suspend;

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::future::pending;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use logseal_catalog::{Catalog, CatalogError};
use logseal_core::{AekId, ClusterId};
use logseal_wal::Position;
use metrics::{counter, histogram};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::backlog::{Backlog, Closed, Lot};
use super::commit::{CommitError, Committer, GrowingSegment, Sealed};
use super::frames::{BadFrame, Coverage, Frame, FrameReader, Frames, FramesError, Range};
use super::quarantine::{Quarantine, QuarantineError};
use super::stream::{CutRule, Part, Rows, Run, Runs, Stream, StreamKey};
use crate::cpu::CpuPanic;
use crate::error::Chain;
use crate::meter;

/// Lots that are sealed at the same time: while some wait for their turn on the compute threads the others keep them busy.
const LOTS: usize = 3;

/// Segments that are stored at the same time: enough that their syncs share the disk's own commits, few enough not to besiege a store
/// that fails. Their memory is in the budget.
const PUTS: usize = 16;

/// First and longest pause after a failure of the storage; resuming must take less than 10 s once there is space again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(4));

/// Attempts after which rows that fail for their own sake are halved.
const ATTEMPTS: u32 = 2;

/// Seals, stores, repeats.
pub(super) struct Sealer {
    pub(super) rule: CutRule,
    pub(super) committer: Committer,
    pub(super) backlog: Arc<Backlog>,
    pub(super) frames: Frames,
    pub(super) quarantine: Quarantine,
    /// The growing segment of each stream that has one and whose lot is not under way.
    growing: Mutex<HashMap<StreamKey, GrowingSegment>>,
    lots: Semaphore,
    puts: Semaphore,
    /// Keys were destroyed, or clusters were suspended: who waits with such a key looks again.
    keys_gone: Notify,
    /// What is under way, by cluster.
    under_way: Mutex<HashMap<ClusterId, Weak<()>>>,
}

/// Why a segment could not be made again from the log.
#[derive(Debug, Error)]
enum RemakeError {
    #[error("cannot read its frames")]
    Frames(#[from] FramesError),
    #[error("cannot put a frame into quarantine")]
    Quarantine(#[from] QuarantineError),
    #[error("cannot seal or store it")]
    Commit(#[from] CommitError),
    #[error("its file of the log is not there")]
    NoFile,
    #[error("its workspace is not available")]
    Unavailable,
}

/// What became of parts that were to be added to a growing segment.
enum Added {
    /// Those with true are in it, the others break the encoder.
    Parts(GrowingSegment, Vec<(Arc<Part>, bool)>),
    /// They need another segment.
    Not(GrowingSegment),
}

impl Sealer {
    pub(super) fn new(
        rule: CutRule,
        committer: Committer,
        backlog: Arc<Backlog>,
        frames: Frames,
        quarantine: Quarantine,
    ) -> Self {
        let (lots, puts) = (Semaphore::new(LOTS), Semaphore::new(PUTS));
        Self {
            rule,
            committer,
            backlog,
            frames,
            quarantine,
            growing: Mutex::default(),
            lots,
            puts,
            keys_gone: Notify::new(),
            under_way: Mutex::default(),
        }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.committer.catalog
    }

    /// See [`super::cutter::Cutter::shred`].
    pub(super) fn shred(&self, aeks: &[AekId]) {
        // In this order: a lot under way that gives its segment back looks at the backlog after it did.
        self.backlog.shred(aeks);
        self.drop_growing(|segment| aeks.contains(&segment.aek()));
        self.keys_gone.notify_waiters();
    }

    fn is_shredded(&self, stream: &Stream) -> bool {
        self.backlog.has_shredded([stream.aek.id()])
    }

    /// Seals `lot` into its stream's growing segment, and stores what is complete with it.
    pub(super) async fn grow(self: Arc<Self>, lot: Lot) {
        let mut turn = self.lots.acquire().await.ok();
        let (stream, key) = (lot.stream.clone(), lot.stream.key());
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let (mut complete, mut columns, mut pause) = (Vec::new(), None, PAUSE.0);
        let mut waiting = Vec::from_iter((!lot.parts.is_empty()).then_some((lot.parts, 0)));
        while let Some((mut parts, failures)) = waiting.pop() {
            if self.is_shredded(&stream) {
                break;
            }
            let segment = match growing.take() {
                Some(segment) => Ok(segment),
                None => self.begin(&stream, &parts, columns.take()).await,
            };
            let added = match segment {
                Ok(segment) => self.add(segment, parts.clone()).await,
                Err(error) => Err(error),
            };
            match added {
                Ok(Added::Not(segment)) => {
                    // Columns that were there before are likely to come again.
                    columns = Some(Arc::clone(segment.schema()));
                    complete.extend(self.close(&stream, Some(segment)));
                    waiting.push((parts, failures));
                }
                Ok(Added::Parts(segment, parts)) => {
                    if parts.iter().any(|(_, sealed)| !sealed) {
                        // This may take long: other streams go on meanwhile.
                        drop(turn.take());
                        self.set_all_aside(&stream, &parts).await;
                        turn = self.lots.acquire().await.ok();
                    }
                    self.backlog.grown(key, &parts, segment.memory_bytes());
                    growing = Some(segment);
                }
                // Nothing is wrong with the rows: they go on once what their key seals can be counted again.
                Err(error) if error.is_of_count() => {
                    warn!(table = %key.table, error = %Chain(&error), "no segment can be begun now, trying again; the log keeps its records");
                    waiting.push((parts, failures));
                    drop(turn.take());
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    turn = self.lots.acquire().await.ok();
                }
                // Nothing is wrong with the rows: whoever ended the lease breaks this off.
                Err(error) if error.is_of_lease() => pending().await,
                Err(error) => {
                    // Not the encoder's failure, which leaves the segment as it was: this one is lost.
                    warn!(table = %key.table, frames = parts.len(), error = %Chain(&error), "a growing segment is made again from the log");
                    complete.extend(self.close(&stream, None));
                    sleep(PAUSE.0).await;
                    if failures + 1 < ATTEMPTS {
                        waiting.push((parts, failures + 1));
                    } else if parts.len() > 1 {
                        let second = parts.split_off(parts.len() / 2);
                        waiting.extend([(second, 0), (parts, 0)]);
                    } else {
                        let parts: Vec<_> = parts.into_iter().map(|part| (part, false)).collect();
                        self.set_all_aside(&stream, &parts).await;
                        self.backlog.grown(key, &parts, 0);
                    }
                }
            }
        }
        let full = |segment: &GrowingSegment| segment.is_full(self.rule.target_file_bytes);
        if lot.close || growing.as_ref().is_some_and(full) {
            complete.extend(self.close(&stream, growing.take()));
        }
        if let Some(segment) = growing {
            let mut all = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(key, segment);
            if self.is_shredded(&stream) {
                all.remove(&key);
            }
        }
        drop(turn);
        self.backlog.release(key, Instant::now());
        for (closed, segment) in complete {
            self.complete(closed, segment).await;
        }
    }

    /// Begins a segment, for which the stream's account key wraps a new one.
    async fn begin(
        &self,
        stream: &Stream,
        parts: &[Arc<Part>],
        schema: Option<SchemaRef>,
    ) -> Result<GrowingSegment, CommitError> {
        self.frames.keyring.reserve_wraps(&stream.aek, 1).await?;
        self.committer.begin(stream, parts, schema).await
    }

    /// Closes the stream's growing segment; without `segment` it is lost. Nothing if it has no rows.
    fn close(&self, stream: &Stream, segment: Option<GrowingSegment>) -> Option<(Closed, Option<GrowingSegment>)> {
        self.backlog.close_segment(stream.key()).map(|closed| (closed, segment))
    }

    /// Adds `parts` to `segment`, without those that break the encoder.
    async fn add(&self, segment: GrowingSegment, parts: Vec<Arc<Part>>) -> Result<Added, CommitError> {
        let (mut segment, mut added) = (segment, Vec::with_capacity(parts.len()));
        let mut waiting = vec![(parts, 0)];
        while let Some((mut parts, failures)) = waiting.pop() {
            let (left, outcome) = self.committer.add(segment, &parts).await;
            match (left, outcome) {
                (Some(left), outcome) => {
                    segment = left;
                    match outcome {
                        Ok(()) => added.extend(parts.into_iter().map(|part| (part, true))),
                        Err(CommitError::NotTaken) if !segment.is_empty() => return Ok(Added::Not(segment)),
                        Err(error) if error.is_of_lease() => return Err(error),
                        Err(_) if failures + 1 < ATTEMPTS => waiting.push((parts, failures + 1)),
                        Err(error) if parts.len() > 1 => {
                            warn!(frames = parts.len(), error = %Chain(&error), "rows cannot be encoded together and are halved");
                            let second = parts.split_off(parts.len() / 2);
                            waiting.extend([(second, 0), (parts, 0)]);
                        }
                        Err(error) => {
                            let sequences: Vec<_> = parts.iter().map(|part| part.position.sequence).collect();
                            error!(?sequences, error = %Chain(&error), "a frame cannot become rows of a segment");
                            added.extend(parts.into_iter().map(|part| (part, false)));
                        }
                    }
                }
                (None, outcome) => return Err(outcome.err().unwrap_or(CommitError::Panic(CpuPanic))),
            }
        }
        Ok(Added::Parts(segment, added))
    }

    /// Puts those of `parts` with false into quarantine.
    async fn set_all_aside(&self, stream: &Stream, parts: &[(Arc<Part>, bool)]) {
        for (part, _) in parts.iter().filter(|(_, sealed)| !sealed) {
            self.set_aside(stream, part.position, part.rows).await;
        }
    }

    /// Puts a frame into quarantine, as often as it takes.
    async fn set_aside(&self, stream: &Stream, position: Position, rows: u64) {
        let report = |file: &str, trouble: &str| {
            let Position { file: log, sequence } = position;
            error!(table = %stream.key().table, %log, sequence, rows, file, trouble, "a frame is in quarantine");
        };
        let mut pause = PAUSE.0;
        while !self.is_shredded(stream) {
            let error = match self.backlog.path_of(stream.cluster, position.file) {
                None => "its file of the log is not there".to_owned(),
                Some(source) => match self.quarantine.frame(&source, position, &[stream.key()]).await {
                    Ok(aside) => return report(&aside.display().to_string(), ""),
                    // Neither passes by itself; waiting for it would only hold up the stream's other records.
                    Err(error) if error.is_final() => return report("", &Chain(&error).to_string()),
                    Err(error) => Chain(&error).to_string(),
                },
            };
            warn!(error, "a frame cannot be put into quarantine now, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Brings the frames of `closed` to their end.
    async fn complete(&self, closed: Closed, segment: Option<GrowingSegment>) {
        let Some(_slot) = self.slot(&closed.stream).await else {
            drop(segment);
            return self.backlog.settled(&closed);
        };
        let started = Instant::now();
        let sealed = match segment {
            Some(segment) => self.committer.finish(segment, &closed.stream, &closed.runs).await.map(Some),
            None => Ok(None),
        };
        let stored = match sealed {
            Ok(Some(sealed)) => self.store(&closed.stream, &sealed, started).await.map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        match stored {
            Ok(true) => {}
            Ok(false) => self.remake(&closed).await,
            Err(CommitError::Shredded) => {}
            Err(error) if error.is_of_lease() => pending().await,
            Err(error) => {
                error!(table = %closed.stream.key().table, error = %Chain(&error), "a segment is made again from the log");
                self.remake(&closed).await;
            }
        }
        self.backlog.settled(&closed);
    }

    /// A slot to store in; `None` when the key of `stream` was destroyed: while the store is away others keep the slots, and nobody may
    /// hold that key for so long.
    async fn slot(&self, stream: &Stream) -> Option<SemaphorePermit<'_>> {
        loop {
            // Made before the look, so that what is destroyed in between wakes it.
            let told = self.keys_gone.notified();
            if self.is_shredded(stream) {
                return None;
            }
            tokio::select! {
                slot = self.puts.acquire() => return slot.ok(),
                () = told => {}
            }
        }
    }

    /// Repeats a commit until it succeeds or fails for another reason than the storage's: [`CommitError::Shredded`] when its key was
    /// destroyed meanwhile.
    async fn store(&self, stream: &Stream, sealed: &Sealed, started: Instant) -> Result<(), CommitError> {
        let (table, file_bytes, mut pause) = (stream.key().table, sealed.file_bytes(), PAUSE.0);
        loop {
            let stored = match self.is_shredded(stream) {
                false => self.committer.store(sealed).await,
                true => Err(CommitError::Shredded),
            };
            match stored {
                Ok(()) => {
                    self.backlog.store_failed(false);
                    counter!(meter::SEGMENTS, "outcome" => "stored").increment(1);
                    counter!(meter::SEGMENT_BYTES).increment(file_bytes as u64);
                    histogram!(meter::SEGMENT_SECONDS).record(started.elapsed().as_secs_f64());
                    debug!(%table, file_bytes, "segment stored");
                    return Ok(());
                }
                Err(error) if self.tells_of_shredding(&error, stream).await => {
                    counter!(meter::SEGMENTS, "outcome" => "shredded").increment(1);
                    if let Err(error) = self.committer.discard(sealed).await {
                        info!(%table, error = %Chain(&error), "the file of a segment whose key was destroyed may be left in the store");
                    }
                    return Err(CommitError::Shredded);
                }
                Err(error) => {
                    let outcome = if error.is_covered() { "covered" } else { "failed" };
                    counter!(meter::SEGMENTS, "outcome" => outcome).increment(1);
                    if !error.is_storage() {
                        return Err(error);
                    }
                    self.backlog.store_failed(true);
                    warn!(%table, error = %Chain(&error), "segment not stored, trying again; the log keeps its records");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Whether a commit failed because the key of `stream` was destroyed. The catalog may know that before anybody here is told.
    async fn tells_of_shredding(&self, error: &CommitError, stream: &Stream) -> bool {
        match error {
            CommitError::Shredded => true,
            CommitError::Catalog(CatalogError::Unknown { .. }) => {
                self.catalog().is_shredded(stream.aek.id()).await.unwrap_or(false)
            }
            _ => false,
        }
    }

    /// Makes segments of those frames of `closed` that are in none, from the log, as often as it takes.
    async fn remake(&self, closed: &Closed) {
        let mut pause = PAUSE.0;
        while let Err(error) = self.try_remake(closed).await {
            if self.is_shredded(&closed.stream) || matches!(error, RemakeError::Commit(CommitError::Shredded)) {
                return;
            }
            warn!(table = %closed.stream.key().table, error = %Chain(&error), "a segment cannot be made again from the log now, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn try_remake(&self, closed: &Closed) -> Result<(), RemakeError> {
        let coverage = Coverage::new(&self.catalog().coverage().await.map_err(CommitError::from)?);
        for run in closed.runs.iter() {
            self.remake_run(&closed.stream, run, &coverage).await?;
        }
        Ok(())
    }

    async fn remake_run(&self, stream: &Stream, run: &Run, coverage: &Coverage) -> Result<(), RemakeError> {
        let (file, key) = (run.file, stream.key());
        let path = self.backlog.path_of(stream.cluster, file).ok_or(RemakeError::NoFile)?;
        let range = Range { file, path: path.clone(), first: run.first, last: run.last };
        let mut reader = FrameReader::open(&self.frames, &range).await?;
        let wanted = |position, _, stream| stream == key && !coverage.covers(position, stream);
        let (mut parts, mut bytes, mut apart) = (Vec::new(), 0, false);
        while let Some(lot) = reader.next(wanted).await? {
            for Frame { sequence, received, streams, unwanted, rows } in lot {
                let position = Position { file, sequence };
                if streams.is_empty() {
                    apart |= unwanted.contains(&key);
                    continue;
                }
                let rows = match rows {
                    Ok(rows) => rows,
                    // Nothing is wrong with the frame: it has to wait.
                    Err(BadFrame::Unavailable) => return Err(RemakeError::Unavailable),
                    Err(_) => {
                        self.quarantine.frame(&path, position, &streams).await?;
                        apart = true;
                        continue;
                    }
                };
                for rows in rows {
                    let permit = self.committer.budget.overdraw(rows.bytes());
                    let rows = Rows { stream: rows.stream, chunks: rows.chunks, permit };
                    let part = Part::new(rows, position, received, take(&mut apart));
                    bytes += part.bytes;
                    parts.push(Arc::new(part));
                }
            }
            if bytes >= self.rule.row_group_bytes {
                bytes = 0;
                self.seal_and_store(stream, take(&mut parts)).await?;
            }
        }
        self.seal_and_store(stream, parts).await
    }

    /// A segment of its own for `parts`.
    async fn seal_and_store(&self, stream: &Stream, parts: Vec<Arc<Part>>) -> Result<(), RemakeError> {
        if parts.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let segment = self.begin(stream, &parts, None).await?;
        let Added::Parts(segment, parts) = self.add(segment, parts).await? else {
            return Err(CommitError::NotTaken.into());
        };
        self.set_all_aside(stream, &parts).await;
        let (mut runs, mut apart) = (Runs::default(), false);
        for (part, sealed) in &parts {
            if *sealed {
                runs.push(part, take(&mut apart) || part.starts_run);
            } else {
                apart = true;
            }
        }
        if !runs.is_empty() {
            let sealed = self.committer.finish(segment, stream, &runs).await?;
            self.store(stream, &sealed, started).await?;
        }
        Ok(())
    }
}

impl Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("rule", &self.rule).finish_non_exhaustive()
    }
}
