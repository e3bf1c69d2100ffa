//! The task that cuts batches, drives their commits to an end, and retires files of the log.
//!
//! A commit that fails for the storage's sake is repeated for as long as it takes, and the log takes the load meanwhile. One that
//! fails twice for another reason is halved until the frame is found that cannot become rows of a segment: that frame goes, still
//! sealed, into quarantine, and the others go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logseal_catalog::{Catalog, CatalogError, Change, CoverageRow, WalFileState};
use logseal_core::WalFileId;
use logseal_wal::{Disk, Evidence, WalError};
use metrics::{counter, histogram};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::backlog::Backlog;
use super::batch::{CutBatch, CutRule};
use super::commit::{CommitError, Committer};
use crate::error::Chain;
use crate::meter;

/// Commits at the same time: enough to keep both the cores and the store's syncs busy, few enough to bound the sealed files that wait
/// in memory.
const COMMITS: usize = 2;

/// First and longest pause after a failure of the storage; resuming must take less than 10 s once there is space again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(4));

/// How often the task looks around when nothing is due.
const TICK: Duration = Duration::from_secs(1);

/// Rows of retired files stay this long: a query that pinned loaded rows before a commit drops them by the coverage rows, and a query
/// runs for a minute at the most.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Attempts after which a batch that fails for its own sake is halved.
const ATTEMPTS: u32 = 2;

/// What the task works with.
#[derive(Debug)]
pub struct CutterParts {
    /// When batches are cut.
    pub rule: CutRule,
    /// Makes segments.
    pub committer: Committer,
    /// Whose batches are cut.
    pub backlog: Arc<Backlog>,
    /// The log's disk.
    pub disk: Arc<dyn Disk>,
    /// Where frames go that cannot become rows of a segment.
    pub quarantine: PathBuf,
}

/// Talks to the task.
#[derive(Clone, Debug)]
pub struct Cutter {
    flushes: mpsc::Sender<oneshot::Sender<()>>,
}

impl Cutter {
    /// Starts the task.
    #[must_use]
    pub fn start(parts: CutterParts) -> Self {
        let (flushes, inbox) = mpsc::channel(4);
        let work = Arc::new(Work { parts, slots: Semaphore::new(COMMITS), undeleted: AtomicUsize::new(0) });
        tokio::spawn(run(work, inbox));
        Self { flushes }
    }

    /// Cuts all batches, waits until they are segments, and retires what the log no longer needs. Batches that are opened later are cut
    /// at once.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

async fn run(work: Arc<Work>, mut flushes: mpsc::Receiver<oneshot::Sender<()>>) {
    let backlog = Arc::clone(&work.parts.backlog);
    let rule = work.parts.rule;
    let (mut commits, mut draining) = (JoinSet::new(), false);
    let mut forget_at = Instant::now() + FORGET_AFTER;
    loop {
        for batch in backlog.cut(&rule, Instant::now(), draining) {
            commits.spawn(Arc::clone(&work).drive(batch));
        }
        work.retire().await;
        let wake = backlog.next_due(&rule).unwrap_or_else(|| Instant::now() + TICK).min(Instant::now() + TICK);
        tokio::select! {
            () = backlog.cut_due.notified() => {}
            () = sleep_until(wake) => {}
            Some(_) = commits.join_next(), if !commits.is_empty() => {}
            flush = flushes.recv() => match flush {
                None => break,
                Some(done) => {
                    draining = true;
                    for batch in backlog.cut(&rule, Instant::now(), true) {
                        commits.spawn(Arc::clone(&work).drive(batch));
                    }
                    while commits.join_next().await.is_some() {}
                    work.retire().await;
                    let _ = done.send(());
                }
            },
        }
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_AFTER;
            work.forget().await;
        }
    }
    // Commits under way are dropped with the set: the log still has what they hold.
}

struct Work {
    parts: CutterParts,
    slots: Semaphore,
    /// Files that the last attempt could not delete.
    undeleted: AtomicUsize,
}

impl Work {
    fn catalog(&self) -> &Catalog {
        &self.parts.committer.catalog
    }

    /// Brings every frame of `batch` to its end: into a segment or into quarantine.
    async fn drive(self: Arc<Self>, batch: Arc<CutBatch>) {
        let Ok(_slot) = self.slots.acquire().await else { return };
        let backlog = &self.parts.backlog;
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            match self.commit(&batch).await {
                Ok(file_bytes) => backlog.settled(&batch, file_bytes),
                Err(error) => match batch.halves() {
                    Some((first, second)) => {
                        warn!(table = %batch.stream.table.row.id, frames = batch.parts.len(), error = %Chain(&error), "a batch is halved");
                        backlog.halved(&batch, [Arc::clone(&first), Arc::clone(&second)]);
                        waiting.extend([second, first]);
                    }
                    None => {
                        self.quarantine(&batch, &error).await;
                        backlog.settled(&batch, None);
                    }
                },
            }
        }
    }

    /// Repeats a commit until it succeeds or fails [`ATTEMPTS`] times for the batch's own sake. The size of the segment's file; `None`
    /// when another segment has the frames already.
    async fn commit(&self, batch: &Arc<CutBatch>) -> Result<Option<usize>, CommitError> {
        let (started, mut sealed, mut own_failures, mut pause) = (Instant::now(), None, 0, PAUSE.0);
        let (table, rows) = (batch.stream.table.row.id, batch.rows());
        loop {
            let attempt = async {
                let ready = match sealed.take() {
                    Some(ready) => ready,
                    None => self.parts.committer.seal(batch).await?,
                };
                let ready = sealed.insert(ready);
                self.parts.committer.store(ready).await.map(|()| ready.file_bytes())
            };
            match attempt.await {
                Ok(file_bytes) => {
                    self.parts.backlog.store_failed(false);
                    counter!(meter::SEGMENTS, "outcome" => "stored").increment(1);
                    counter!(meter::SEGMENT_BYTES).increment(file_bytes as u64);
                    histogram!(meter::SEGMENT_SECONDS).record(started.elapsed().as_secs_f64());
                    debug!(%table, rows, file_bytes, "segment stored");
                    return Ok(Some(file_bytes));
                }
                // Of several frames some may be covered and others not: halves find out which.
                Err(error) if error.is_covered() && batch.parts.len() > 1 => return Err(error),
                Err(error) if error.is_covered() => {
                    counter!(meter::SEGMENTS, "outcome" => "covered").increment(1);
                    error!(%table, rows, error = %Chain(&error), "another segment has these records; the new file is left unused");
                    return Ok(None);
                }
                Err(error) if error.is_storage() => {
                    counter!(meter::SEGMENTS, "outcome" => "failed").increment(1);
                    self.parts.backlog.store_failed(true);
                    warn!(%table, rows, error = %Chain(&error), "segment not stored, trying again; the log keeps its records");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                Err(error) => {
                    counter!(meter::SEGMENTS, "outcome" => "failed").increment(1);
                    (own_failures, sealed) = (own_failures + 1, None);
                    if own_failures >= ATTEMPTS {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Puts the one frame of `batch` aside, sealed as it is, and says so in the catalog.
    async fn quarantine(&self, batch: &Arc<CutBatch>, reason: &CommitError) {
        let (Some(part), key) = (batch.parts.first(), batch.stream.key()) else { return };
        let position = part.position;
        let cluster = batch.stream.table.cluster;
        let row = CoverageRow {
            file: position.file,
            table: key.table,
            aek: key.aek,
            first: position.sequence,
            last: position.sequence,
            segment: None,
        };
        let mut pause = PAUSE.0;
        loop {
            let source = self.parts.backlog.path_of(cluster, position.file);
            let aside = match source {
                Some(source) => self.put_aside(source, position.sequence).await,
                None => Ok(None),
            };
            let outcome = match aside {
                Ok(file) => match self.catalog().apply(Change::Quarantine(vec![row.clone()])).await {
                    Err(error) if !matches!(error, CatalogError::Covered { .. }) => Err(error.to_string()),
                    _ => Ok(file),
                },
                Err(error) => Err(error.to_string()),
            };
            match outcome {
                Ok(file) => {
                    counter!(meter::QUARANTINED).increment(1);
                    let file = file.map(|path| path.display().to_string()).unwrap_or_default();
                    let (rows, table, sequence) = (part.rows, key.table, position.sequence);
                    error!(%table, log = %position.file, sequence, rows, file, error = %Chain(reason), "a frame cannot become rows of a segment and is in quarantine");
                    return;
                }
                Err(error) => {
                    warn!(error, "a frame cannot be put into quarantine now, trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn put_aside(&self, source: PathBuf, sequence: u64) -> Result<Option<PathBuf>, WalError> {
        let (disk, folder) = (Arc::clone(&self.parts.disk), self.parts.quarantine.clone());
        let evidence = Evidence::Frames { first: sequence, last: sequence };
        let work = move || logseal_wal::quarantine(&*disk, &source, &evidence, &folder).map(Some);
        tokio::task::spawn_blocking(work).await.unwrap_or(Ok(None))
    }

    /// Deletes files of the log that are wholly covered: first the catalog knows, then the file goes.
    async fn retire(&self) {
        let mut undeleted = 0;
        for (cluster, id, path) in self.parts.backlog.retirable() {
            match self.retire_file(id, path).await {
                Ok(()) => {
                    debug!(%cluster, file = %id, "a file of the log is no longer needed");
                    self.parts.backlog.retired(cluster, id);
                }
                Err(error) => {
                    warn!(%cluster, file = %id, error, "a file of the log cannot be deleted now");
                    self.parts.backlog.not_retired(cluster, id);
                    undeleted += 1;
                }
            }
        }
        self.undeleted.store(undeleted, Ordering::Relaxed);
    }

    async fn retire_file(&self, file: WalFileId, path: PathBuf) -> Result<(), String> {
        let at = self.parts.committer.clock.now();
        let change = Change::SetWalFileState { file, state: WalFileState::Retired, at };
        self.catalog().apply(change).await.map_err(|error| Chain(&error).to_string())?;
        let disk = Arc::clone(&self.parts.disk);
        let removed = tokio::task::spawn_blocking(move || match disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => disk.sync_dir(path.parent().unwrap_or(&path)),
        });
        removed.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn forget(&self) {
        if self.undeleted.load(Ordering::Relaxed) > 0 {
            // Without its rows a file that is still there would be taken for an unknown one at the next start, and replayed.
            return;
        }
        let age = i64::try_from(FORGET_AFTER.as_nanos()).unwrap_or(i64::MAX);
        let retired_before = logseal_core::UnixNanos(self.parts.committer.clock.now().0.saturating_sub(age));
        if let Err(error) = self.catalog().apply(Change::ForgetWalFiles { retired_before }).await {
            info!(error = %Chain(&error), "rows of retired files of the log stay a while longer");
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("parts", &self.parts).finish_non_exhaustive()
    }
}
