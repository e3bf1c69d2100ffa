//! One stream's open batch and the rule of cutting it. No I/O, no clock: the caller says what time it is.

use std::sync::Arc;
use std::time::Duration;

use logseal_core::UnixNanos;
use logseal_otlp::TableChunk;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::tables::Table;
use crate::admission::BudgetPermit;

/// The records could not be stored; the reason was logged where it happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotStored;

/// One chunk of a request on its way into a batch.
#[derive(Debug)]
pub struct Submission {
    /// The table.
    pub table: Arc<Table>,
    /// The rows.
    pub chunk: TableChunk,
    /// When the request was received.
    pub received: UnixNanos,
    /// Covers the chunk's memory until it is in a segment.
    permit: BudgetPermit,
    outcome: oneshot::Sender<Result<(), NotStored>>,
}

impl Submission {
    /// A submission, and where its outcome will arrive.
    #[must_use]
    pub fn new(
        table: Arc<Table>,
        chunk: TableChunk,
        permit: BudgetPermit,
        received: UnixNanos,
    ) -> (Self, oneshot::Receiver<Result<(), NotStored>>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { table, chunk, received, permit, outcome }, receiver)
    }

    /// Tells the request what became of its chunk, and frees the chunk's memory.
    pub fn finish(self, result: Result<(), NotStored>) {
        let Self { outcome, permit, chunk, .. } = self;
        // A client that went away no longer wants to know.
        let _ = outcome.send(result);
        drop(chunk);
        drop(permit);
    }
}

/// When a batch is cut.
#[derive(Clone, Copy, Debug)]
pub struct CutRule {
    /// A batch is cut at this age.
    pub max_age: Duration,
    /// A batch is cut when its segment's file is expected to reach this size.
    pub target_file_bytes: usize,
    /// A batch is cut at this size in memory, whatever its file's size.
    pub max_arrow_bytes: usize,
}

/// The chunks that wait to be one segment.
#[derive(Debug)]
pub struct OpenBatch {
    submissions: Vec<Submission>,
    arrow_bytes: usize,
    rows: usize,
    opened: Instant,
}

impl OpenBatch {
    /// An empty batch that is as old as its first chunk.
    #[must_use]
    pub fn new(opened: Instant) -> Self {
        Self { submissions: Vec::new(), arrow_bytes: 0, rows: 0, opened }
    }

    /// Adds a chunk.
    pub fn add(&mut self, submission: Submission) {
        self.arrow_bytes += submission.chunk.batch.get_array_memory_size();
        self.rows += submission.chunk.batch.num_rows();
        self.submissions.push(submission);
    }

    /// Rows in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// When the batch is old enough.
    #[must_use]
    pub fn due(&self, rule: &CutRule) -> Instant {
        self.opened + rule.max_age
    }

    /// Whether the batch is big enough; `file_bytes_per_arrow_byte` is what the stream's last segment had.
    #[must_use]
    pub fn is_full(&self, rule: &CutRule, file_bytes_per_arrow_byte: f64) -> bool {
        let expected_file_bytes = self.arrow_bytes as f64 * file_bytes_per_arrow_byte;
        self.arrow_bytes >= rule.max_arrow_bytes || expected_file_bytes >= rule.target_file_bytes as f64
    }

    /// The batch's chunks and their size in memory.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Submission>, usize) {
        (self.submissions, self.arrow_bytes)
    }
}
