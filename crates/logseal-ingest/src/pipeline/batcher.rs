//! The task that owns all open batches: it adds chunks, cuts batches, and starts their commits.

use std::collections::HashMap;
use std::sync::Arc;

use logseal_core::TableId;
use metrics::gauge;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::batch::{CutRule, OpenBatch, Submission};
use super::commit::{Committed, Committer};
use crate::meter;

/// Chunks on their way to the task; senders beyond it wait, and their permits bound their memory.
const QUEUE: usize = 1024;

/// What a stream's segments are assumed to shrink to before one was written: the low end of what logs do.
const FIRST_FILE_BYTES_PER_ARROW_BYTE: f64 = 0.25;

/// The batcher has ended.
#[derive(Clone, Copy, Debug, Error)]
#[error("the batcher has ended")]
pub struct Ended;

enum Message {
    Submit(Submission),
    /// Cut everything now, cut what comes from now on at once, and answer when all commits have ended.
    Flush(oneshot::Sender<()>),
}

/// Hands chunks to the task.
#[derive(Clone, Debug)]
pub struct Batcher {
    messages: mpsc::Sender<Message>,
}

impl Batcher {
    /// Starts the task.
    #[must_use]
    pub fn start(rule: CutRule, committer: Arc<Committer>) -> Self {
        let (messages, inbox) = mpsc::channel(QUEUE);
        let task = Task { rule, committer, streams: HashMap::new(), commits: JoinSet::new(), draining: false };
        tokio::spawn(task.run(inbox));
        Self { messages }
    }

    /// Adds a chunk to its stream's batch.
    ///
    /// # Errors
    ///
    /// [`Ended`] after the task has ended.
    pub async fn submit(&self, submission: Submission) -> Result<(), Ended> {
        self.messages.send(Message::Submit(submission)).await.map_err(|_| Ended)
    }

    /// Cuts all batches and waits until their commits have ended; chunks that come later are cut at once.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.messages.send(Message::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

struct Task {
    rule: CutRule,
    committer: Arc<Committer>,
    streams: HashMap<TableId, Stream>,
    commits: JoinSet<(TableId, Option<Committed>)>,
    draining: bool,
}

struct Stream {
    open: Option<OpenBatch>,
    file_bytes_per_arrow_byte: f64,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        loop {
            let due = self.next_due();
            tokio::select! {
                message = inbox.recv() => match message {
                    None => break,
                    Some(Message::Submit(submission)) => self.add(submission),
                    Some(Message::Flush(done)) => {
                        self.draining = true;
                        self.cut(|_| true);
                        while let Some(ended) = self.commits.join_next().await {
                            self.ended(ended);
                        }
                        let _ = done.send(());
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let (rule, now) = (self.rule, Instant::now());
                    self.cut(|batch| batch.due(&rule) <= now);
                }
                Some(ended) = self.commits.join_next(), if !self.commits.is_empty() => self.ended(ended),
            }
        }
        // Without a flush the remaining batches are dropped, and their requests are refused: nothing was acknowledged.
    }

    fn add(&mut self, submission: Submission) {
        let id = submission.table.row.id;
        let stream = self
            .streams
            .entry(id)
            .or_insert_with(|| Stream { open: None, file_bytes_per_arrow_byte: FIRST_FILE_BYTES_PER_ARROW_BYTE });
        gauge!(meter::UNSEALED_RECORDS).increment(submission.chunk.batch.num_rows() as f64);
        let batch = stream.open.get_or_insert_with(|| OpenBatch::new(Instant::now()));
        batch.add(submission);
        if self.draining || batch.is_full(&self.rule, stream.file_bytes_per_arrow_byte) {
            let batch = stream.open.take();
            self.start_commit(id, batch);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.open.as_ref()).map(|batch| batch.due(&self.rule)).min()
    }

    fn cut(&mut self, due: impl Fn(&OpenBatch) -> bool) {
        let mut cut = Vec::new();
        for (id, stream) in &mut self.streams {
            if stream.open.as_ref().is_some_and(&due) {
                cut.push((*id, stream.open.take()));
            }
        }
        for (id, batch) in cut {
            self.start_commit(id, batch);
        }
    }

    fn start_commit(&mut self, id: TableId, batch: Option<OpenBatch>) {
        if let Some(batch) = batch {
            let committer = Arc::clone(&self.committer);
            self.commits.spawn(async move { (id, committer.commit(batch).await) });
        }
    }

    fn ended(&mut self, ended: Result<(TableId, Option<Committed>), tokio::task::JoinError>) {
        if let Ok((id, Some(committed))) = ended
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.file_bytes_per_arrow_byte = committed.file_bytes as f64 / committed.arrow_bytes.max(1) as f64;
        }
    }
}
