//! The task that sees to it that rows are sealed in time, and that retires files of the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logseal_catalog::{Change, WalFileState};
use logseal_core::{AekId, ClusterId, WalFileId};
use logseal_wal::Disk;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::backlog::Backlog;
use super::commit::Committer;
use super::frames::Frames;
use super::quarantine::Quarantine;
use super::sealer::Sealer;
use super::stream::CutRule;
use crate::error::Chain;

/// How often the task looks around when nothing is due.
const TICK: Duration = Duration::from_secs(1);

/// Rows of retired files stay this long: a query that pinned loaded rows before a commit drops them by the coverage rows, and a query
/// runs for a minute at the most.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What the task works with.
#[derive(Debug)]
pub struct CutterParts {
    /// When rows are sealed and segments complete.
    pub rule: CutRule,
    /// Makes segments.
    pub committer: Committer,
    /// Whose rows are sealed.
    pub backlog: Arc<Backlog>,
    /// Reads frames again whose rows are no longer in memory.
    pub frames: Frames,
    /// Where frames go that cannot become rows of a segment.
    pub quarantine: Quarantine,
}

/// Talks to the task.
#[derive(Clone, Debug)]
pub struct Cutter {
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    sealer: Arc<Sealer>,
}

impl Cutter {
    /// Starts the task.
    #[must_use]
    pub fn start(parts: CutterParts) -> Self {
        let (flushes, inbox) = mpsc::channel(4);
        let CutterParts { rule, committer, backlog, frames, quarantine } = parts;
        let disk = Arc::clone(&frames.disk);
        let sealer = Arc::new(Sealer::new(rule, committer, backlog, frames, quarantine));
        let work = Work { sealer: Arc::clone(&sealer), disk, undeleted: AtomicUsize::new(0) };
        tokio::spawn(run(work, inbox));
        Self { flushes, sealer }
    }

    /// The keys `aeks` were destroyed: their rows leave the backlog, and the segments that grow or are stored go with them.
    pub fn shred(&self, aeks: &[AekId]) {
        self.sealer.shred(aeks);
    }

    /// Nothing more is done for `cluster`, the lease of whose keys is over; what was under way has ended when this returns.
    pub async fn suspend(&self, cluster: ClusterId) {
        self.sealer.suspend(cluster).await;
    }

    /// Seals everything, waits until it is in segments, and retires what the log no longer needs. What comes later is sealed at once.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

async fn run(work: Work, mut flushes: mpsc::Receiver<oneshot::Sender<()>>) {
    let (sealer, mut lots, mut flushing) = (&work.sealer, JoinSet::new(), Vec::<oneshot::Sender<()>>::new());
    let (mut draining, mut forget_at) = (false, Instant::now() + FORGET_AFTER);
    loop {
        for lot in sealer.backlog.lots(&sealer.rule, Instant::now(), draining) {
            lots.spawn(Arc::clone(sealer).grow_while_leased(lot));
        }
        work.retire().await;
        if lots.is_empty() {
            for done in flushing.drain(..) {
                let _ = done.send(());
            }
        }
        let tick = Instant::now() + TICK;
        let wake = sealer.backlog.next_due(&sealer.rule).map_or(tick, |due| due.min(tick));
        tokio::select! {
            () = sealer.backlog.cut_due.notified() => {}
            () = sleep_until(wake) => {}
            Some(_) = lots.join_next(), if !lots.is_empty() => {}
            flush = flushes.recv() => match flush {
                None => break,
                Some(done) => {
                    draining = true;
                    flushing.push(done);
                }
            },
        }
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_AFTER;
            work.forget().await;
        }
    }
    // Lots under way are dropped with the set: the log still has what they hold.
}

struct Work {
    sealer: Arc<Sealer>,
    disk: Arc<dyn Disk>,
    /// Files that the last attempt could not delete.
    undeleted: AtomicUsize,
}

impl Work {
    /// Deletes files of the log that are wholly covered: first the catalog knows, then the file goes.
    async fn retire(&self) {
        let mut undeleted = 0;
        for (cluster, id, path) in self.sealer.backlog.retirable() {
            match self.retire_file(id, path).await {
                Ok(()) => {
                    debug!(%cluster, file = %id, "a file of the log is no longer needed");
                    self.sealer.backlog.retired(cluster, id);
                }
                Err(error) => {
                    warn!(%cluster, file = %id, error, "a file of the log cannot be deleted now");
                    self.sealer.backlog.not_retired(cluster, id);
                    undeleted += 1;
                }
            }
        }
        self.undeleted.store(undeleted, Ordering::Relaxed);
    }

    async fn retire_file(&self, file: WalFileId, path: PathBuf) -> Result<(), String> {
        let at = self.sealer.committer.clock.now();
        let change = Change::SetWalFileState { file, state: WalFileState::Retired, at };
        self.sealer.catalog().apply(change).await.map_err(|error| Chain(&error).to_string())?;
        let disk = Arc::clone(&self.disk);
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
        let retired_before = logseal_core::UnixNanos(self.sealer.committer.clock.now().0.saturating_sub(age));
        if let Err(error) = self.sealer.catalog().apply(Change::ForgetWalFiles { retired_before }).await {
            info!(error = %Chain(&error), "rows of retired files of the log stay a while longer");
        }
    }
}
