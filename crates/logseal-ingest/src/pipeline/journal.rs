//! The thread that writes one cluster's log: it takes what waits, seals and appends it, syncs once, and answers.
//!
//! A group is committed as soon as the sync before it has returned, never after a fixed wait: an idle log answers in the time of
//! one sync, a busy one shares each sync among all that came meanwhile. Only after the sync do a request's rows join the backlog,
//! where queries and cuts see them, and only then is it acknowledged; when write or sync fails, the group's rows are dropped and
//! its requests refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use logseal_core::{AekId, ClusterId, WalFileId};
use logseal_wal::{Disk, Entry, WalError, Writer};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::backlog::{Backlog, Durable, Head, LogFile};
use super::stream::Rows;
use crate::admission::BudgetPermit;
use crate::meter;

/// Requests that wait for the thread; senders beyond it wait, and their permits bound their memory.
const QUEUE: usize = 4096;

/// Most requests of one group: what waits longer than one sync of it is better served by the next.
const GROUP: usize = 1024;

/// Compressed bytes after which a group takes no further request: a sync of so much takes longer than its fixed cost, and the sealed copy
/// of the group is memory that no permit covers.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// After so long without a request the log attests what is durable, so that damage to it can be told from a torn end.
const IDLE: Duration = Duration::from_millis(200);

/// A request on its way into the log.
#[derive(Debug)]
pub struct Submission {
    /// What is written.
    pub entry: Entry,
    /// Covers the entry's memory.
    pub permit: BudgetPermit,
    /// The same request's rows for its streams.
    pub rows: Vec<Rows>,
    /// Where the outcome goes.
    pub outcome: oneshot::Sender<Result<(), Trouble>>,
}

/// Why the log takes nothing now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// `wal.max_bytes` are waiting to become segments.
    LogFull,
    /// What is free on the disk is reserved for segments and catalog.
    DiskReserved,
    /// The disk has no space left.
    DiskFull,
    /// Writing or syncing failed.
    Disk,
    /// The request's key was destroyed while it was under way.
    Shredded,
    /// The request's key may not be used any more.
    Key,
    /// The server is stopping, or the log is closed for good.
    Stopping,
}

impl Trouble {
    /// What the client is told.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::LogFull => {
                "the write-ahead log is full (setting `wal.max_bytes`): segments cannot be stored as fast as records come"
            }
            Self::DiskReserved => {
                "the disk is nearly full (setting `wal.reserve_bytes`): no records are taken until there is space"
            }
            Self::DiskFull => "the disk is full: no records are taken until there is space",
            Self::Disk => "the write-ahead log cannot be written now",
            Self::Shredded => "the workspace is being deleted, or was linked to another cluster",
            Self::Key => "the workspace's key is not available now",
            Self::Stopping => {
                "the write-ahead log is closed: the server is stopping, or the workspace was linked to another cluster"
            }
        }
    }

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LogFull => "wal_full",
            Self::DiskReserved => "disk_reserved",
            Self::DiskFull => "disk_full",
            Self::Disk => "disk",
            Self::Shredded => "shredded",
            Self::Key => "key",
            Self::Stopping => "stopping",
        }
    }
}

/// How much of the disk a log may take.
#[derive(Clone, Copy, Debug)]
pub struct SpaceLimits {
    /// Most bytes of one cluster's log.
    pub max_bytes: u64,
    /// Free bytes that are left to segments and catalog; `None` for the larger of 1 GiB and 5 % of the disk.
    pub reserve_bytes: Option<u64>,
}

impl SpaceLimits {
    fn reserve(&self, total: u64) -> u64 {
        self.reserve_bytes.unwrap_or_else(|| (1 << 30).max(total / 20))
    }
}

/// What the thread is asked for.
#[derive(Debug)]
enum Job {
    Log(Submission),
    /// See [`Journal::roll`].
    Roll(Vec<AekId>, oneshot::Sender<()>),
}

/// Hands requests to the thread.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: mpsc::Sender<Job>,
    trouble: watch::Receiver<Option<Trouble>>,
}

/// Tells when a log's thread has ended and its file is closed.
#[derive(Clone, Debug)]
pub struct Ended(watch::Receiver<()>);

impl Ended {
    /// Waits for it.
    pub async fn wait(&mut self) {
        // Nothing is ever sent: the channel closes when the thread drops its end.
        while self.0.changed().await.is_ok() {}
    }
}

/// The thread's parts.
#[derive(Debug)]
pub struct JournalThread {
    /// Writes the files.
    pub writer: Writer,
    /// Whose log it is.
    pub cluster: ClusterId,
    /// The log's folder.
    pub folder: PathBuf,
    /// The disk that it is on.
    pub disk: Arc<dyn Disk>,
    /// How much it may take.
    pub limits: SpaceLimits,
    /// Where rows join.
    pub backlog: Arc<Backlog>,
}

impl Journal {
    /// Starts the thread. It ends, and closes its file, when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// When the system starts no thread.
    pub fn start(thread: JournalThread) -> std::io::Result<(Self, Ended)> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (trouble, is_in_trouble) = watch::channel(None);
        let (running, ended) = watch::channel(());
        let runtime = Handle::current();
        let work = Work {
            parts: thread,
            trouble,
            syncs: histogram!(meter::WAL_SYNC_SECONDS),
            groups: histogram!(meter::WAL_GROUP_REQUESTS),
            bytes: counter!(meter::WAL_APPENDED_BYTES),
        };
        std::thread::Builder::new().name("logseal-wal".to_owned()).spawn(move || {
            work.run(&runtime, waiting);
            drop(running);
        })?;
        Ok((Self { queue, trouble: is_in_trouble }, Ended(ended)))
    }

    /// Why nothing is taken now, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        *self.trouble.borrow()
    }

    /// Waits until the log takes records again.
    pub async fn taking(&self) {
        let mut trouble = self.trouble.clone();
        // An ended thread takes nothing any more; what is submitted then is refused as stopping.
        let _ = trouble.wait_for(Option::is_none).await;
    }

    /// Queues a request; its outcome tells when it is durable.
    ///
    /// # Errors
    ///
    /// [`Trouble::Stopping`] after the thread has ended.
    pub async fn submit(&self, submission: Submission) -> Result<(), Trouble> {
        self.queue.send(Job::Log(submission)).await.map_err(|_| Trouble::Stopping)
    }

    /// Closes the present file after what waits if it has a data key under one of `aeks`, and so wipes it. The next request begins another
    /// file.
    pub async fn roll(&self, aeks: &[AekId]) {
        let (done, rolled) = oneshot::channel();
        if self.queue.send(Job::Roll(aeks.to_vec(), done)).await.is_ok() {
            // An ended thread has closed its file.
            let _ = rolled.await;
        }
    }
}

struct Work {
    parts: JournalThread,
    trouble: watch::Sender<Option<Trouble>>,
    syncs: Histogram,
    groups: Histogram,
    bytes: Counter,
}

impl Work {
    fn run(mut self, runtime: &Handle, mut waiting: mpsc::Receiver<Job>) {
        let mut came = Vec::with_capacity(GROUP);
        loop {
            let received = runtime.block_on(async { timeout(IDLE, waiting.recv_many(&mut came, GROUP)).await });
            match received {
                Ok(0) => break,
                Ok(_) => {
                    while !came.is_empty() {
                        match next_step(&mut came) {
                            Step::Group(mut group) => self.take(&mut group),
                            Step::Roll(aeks, done) => {
                                if aeks.iter().any(|aek| self.parts.writer.has_key_under(*aek)) {
                                    self.close_file();
                                }
                                let _ = done.send(());
                            }
                        }
                    }
                }
                Err(_) => self.idle(),
            }
        }
        self.close_file();
    }

    fn close_file(&mut self) {
        if let Err(error) = self.parts.writer.close() {
            warn!(cluster = %self.parts.cluster, %error, "a file of the log was not closed cleanly; nothing acknowledged is lost");
        }
        self.report_ended_files();
    }

    fn take(&mut self, group: &mut Vec<Submission>) {
        self.refuse_shredded(group);
        if group.is_empty() {
            return;
        }
        let trouble = self.check_space().and_then(|()| self.write(group)).err();
        // Known before the refused come back.
        self.set_trouble(trouble);
        if let Some(trouble) = trouble {
            for submission in group.drain(..) {
                let _ = submission.outcome.send(Err(trouble));
            }
        }
    }

    /// What is refused here would be dropped when it joins, but bring the key back into the file's data keys.
    fn refuse_shredded(&self, group: &mut Vec<Submission>) {
        let backlog = &self.parts.backlog;
        if backlog.has_shredded(group.iter().map(|submission| submission.entry.aek.id())) {
            for refused in group.extract_if(.., |submission| backlog.has_shredded([submission.entry.aek.id()])) {
                let _ = refused.outcome.send(Err(Trouble::Shredded));
            }
        }
    }

    /// Seals, appends and syncs the group. On success its rows have joined the backlog and its requests are answered; on failure
    /// nothing of it is durable and `group` holds all that wait for an answer.
    fn write(&mut self, group: &mut Vec<Submission>) -> Result<(), Trouble> {
        let started = std::time::Instant::now();
        let mut positions = Vec::with_capacity(group.len());
        let appended = group.iter().try_for_each(|submission| {
            let appended = self.parts.writer.append(&submission.entry);
            // An entry that no file can take, or none under its key, harms no other one.
            positions.push(match appended {
                Ok(position) => Ok(position),
                Err(WalError::KeyLease(_) | WalError::KeyWraps(_)) => Err(Trouble::Key),
                Err(error) if error.is_entry() => Err(Trouble::Disk),
                Err(error) => return Err(error),
            });
            Ok(())
        });
        let written = appended.and_then(|()| self.parts.writer.sync());
        self.report_ended_files();
        written.map_err(|error: WalError| self.failed(&error))?;
        self.syncs.record(started.elapsed().as_secs_f64());
        self.groups.record(group.len() as f64);
        let mut durable = Vec::with_capacity(group.len());
        let mut outcomes = Vec::with_capacity(group.len());
        for (Submission { entry, rows, outcome, .. }, position) in group.drain(..).zip(positions) {
            let received = entry.received;
            outcomes.push((outcome, position.map(drop)));
            durable.extend(position.ok().map(|position| Durable { position, received, rows, settled: Vec::new() }));
        }
        if let Some(head) = self.head() {
            self.parts.backlog.join(self.parts.cluster, durable, head, Instant::now());
        }
        for (outcome, result) in outcomes {
            // A client that went away no longer wants to know.
            let _ = outcome.send(result);
        }
        Ok(())
    }

    fn head(&mut self) -> Option<Head> {
        let position = self.parts.writer.position()?;
        let bytes = self.parts.writer.durable_bytes();
        Some(Head { position, path: self.path_of(position.file), bytes })
    }

    fn path_of(&self, file: WalFileId) -> PathBuf {
        self.parts.folder.join(format!("{file}.wal"))
    }

    fn report_ended_files(&mut self) {
        for file in self.parts.writer.take_closed() {
            self.bytes.increment(file.bytes);
            let ended = LogFile::new(file.file, self.path_of(file.file), file.bytes, Some(file.end));
            self.parts.backlog.file_ended(self.parts.cluster, ended);
        }
    }

    /// Nobody waits: attest what is durable, or look whether the trouble is over.
    fn idle(&mut self) {
        let before = *self.trouble.borrow();
        if matches!(before, Some(Trouble::LogFull | Trouble::DiskReserved))
            && self.parts.writer.file().is_some()
            && let Err(error) = self.parts.writer.close()
        {
            // Only a file that has ended can be deleted, and it may be the very one that takes the room.
            self.failed(&error);
        }
        let trouble = match before {
            None => self.parts.writer.attest().err().map(|error| self.failed(&error)),
            // Only a new file that is made, synced and registered proves that the disk works again.
            Some(_) => self
                .check_space()
                .and_then(|()| self.parts.writer.ensure_file().map_err(|error| self.failed(&error)))
                .err(),
        };
        self.report_ended_files();
        self.set_trouble(trouble);
    }

    fn check_space(&self) -> Result<(), Trouble> {
        let limits = &self.parts.limits;
        if self.parts.backlog.log_bytes(self.parts.cluster) >= limits.max_bytes {
            return Err(Trouble::LogFull);
        }
        match self.parts.disk.space(&self.parts.folder) {
            Ok(space) if space.available < limits.reserve(space.total) => Err(Trouble::DiskReserved),
            // A disk that cannot say how full it is will say so when it is written.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn failed(&self, error: &WalError) -> Trouble {
        counter!(meter::WAL_FAILURES).increment(1);
        error!(cluster = %self.parts.cluster, error = %crate::error::Chain(error), "the log could not be written; it goes on in a new file");
        if error.is_out_of_space() { Trouble::DiskFull } else { Trouble::Disk }
    }

    fn set_trouble(&self, now: Option<Trouble>) {
        let changed = self.trouble.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        match now {
            Some(trouble) if changed => {
                warn!(cluster = %self.parts.cluster, reason = trouble.reason(), "records are refused");
            }
            None if changed => info!(cluster = %self.parts.cluster, "records are taken again"),
            _ => {}
        }
    }
}

/// What the thread does at a time.
enum Step {
    Group(Vec<Submission>),
    Roll(Vec<AekId>, oneshot::Sender<()>),
}

/// Takes the next step out of what came, which is not empty.
fn next_step(came: &mut Vec<Job>) -> Step {
    let (mut bytes, mut requests) = (0, 0);
    while let Some(Job::Log(submission)) = came.get(requests)
        && bytes < GROUP_BYTES
    {
        bytes += submission.entry.body.compressed_bytes();
        requests += 1;
    }
    let mut group = Vec::with_capacity(requests);
    for job in came.drain(..requests.max(1)) {
        match job {
            Job::Log(submission) => group.push(submission),
            Job::Roll(aeks, done) => return Step::Roll(aeks, done),
        }
    }
    Step::Group(group)
}
