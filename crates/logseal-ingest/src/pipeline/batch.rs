//! One stream's rows on their way into a segment, and the rule of cutting. No I/O, no clock: the caller says what time it is.

use std::sync::Arc;
use std::time::Duration;

use logseal_core::{AekId, TableId, UnixNanos, WorkspaceId};
use logseal_crypto::Aek;
use logseal_otlp::TableChunk;
use logseal_wal::Position;
use tokio::time::Instant;

use super::tables::Table;
use crate::admission::BudgetPermit;

/// What identifies a stream: a batch and a segment never mix two.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StreamKey {
    /// The table, and through it the workspace.
    pub table: TableId,
    /// The generation of the workspace's key.
    pub aek: AekId,
}

/// A stream: one table's records under one AEK.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The table.
    pub table: Arc<Table>,
    /// The key that wraps its segments' keys.
    pub aek: Arc<Aek>,
}

impl Stream {
    /// What identifies it.
    #[must_use]
    pub fn key(&self) -> StreamKey {
        StreamKey { table: self.table.row.id, aek: self.aek.id() }
    }

    /// The workspace that owns it.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.table.row.workspace
    }
}

/// The rows that one request gives to one stream, before they have a place in the log.
#[derive(Debug)]
pub struct Rows {
    /// Where they go.
    pub stream: Stream,
    /// Usually one; two when a table had very many columns.
    pub chunks: Vec<TableChunk>,
    /// Covers the chunks' memory.
    pub permit: BudgetPermit,
}

impl Rows {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.batch.num_rows() as u64).sum()
    }
}

/// The rows of one frame of the log for one stream. Frees its part of the budget when the last user drops it.
#[derive(Debug)]
pub struct Part {
    /// The frame.
    pub position: Position,
    /// When the request was received.
    pub received: UnixNanos,
    /// The rows.
    pub chunks: Vec<TableChunk>,
    /// How many rows there are.
    pub rows: u64,
    /// Their size in memory.
    pub bytes: usize,
    /// Frames of the stream right before this one are settled elsewhere: no segment's range may reach over them.
    pub starts_run: bool,
    _permit: BudgetPermit,
}

impl Part {
    /// `rows` of the frame at `position`; `starts_run` as in [`Part::starts_run`].
    #[must_use]
    pub fn new(rows: Rows, position: Position, received: UnixNanos, starts_run: bool) -> Self {
        let count = rows.count();
        let bytes = rows.chunks.iter().map(|chunk| chunk.batch.get_array_memory_size()).sum();
        Self { position, received, chunks: rows.chunks, rows: count, bytes, starts_run, _permit: rows.permit }
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

/// Parts that wait to be one segment, in the order of the log.
#[derive(Debug)]
pub struct OpenBatch {
    /// The parts.
    pub parts: Vec<Arc<Part>>,
    /// Their size in memory.
    pub bytes: usize,
    /// When the first of them joined.
    pub opened: Instant,
}

impl OpenBatch {
    /// An empty batch that is as old as its first part.
    #[must_use]
    pub fn new(opened: Instant) -> Self {
        Self { parts: Vec::new(), bytes: 0, opened }
    }

    /// Adds a part.
    pub fn add(&mut self, part: Arc<Part>) {
        self.bytes += part.bytes;
        self.parts.push(part);
    }

    /// When the batch is old enough.
    #[must_use]
    pub fn due(&self, rule: &CutRule) -> Instant {
        self.opened + rule.max_age
    }

    /// Whether the batch is big enough; `file_bytes_per_arrow_byte` is what the stream's last segment had.
    #[must_use]
    pub fn is_full(&self, rule: &CutRule, file_bytes_per_arrow_byte: f64) -> bool {
        let expected_file_bytes = self.bytes as f64 * file_bytes_per_arrow_byte;
        self.bytes >= rule.max_arrow_bytes || expected_file_bytes >= rule.target_file_bytes as f64
    }
}

/// A batch that takes no more parts: it becomes one segment, or, where it cannot, two smaller batches.
#[derive(Debug)]
pub struct CutBatch {
    /// Where its rows belong.
    pub stream: Stream,
    /// Its parts, in the order of the log; never empty.
    pub parts: Vec<Arc<Part>>,
    /// Their size in memory.
    pub bytes: usize,
}

impl CutBatch {
    /// A batch of `parts`.
    #[must_use]
    pub fn new(stream: Stream, parts: Vec<Arc<Part>>) -> Arc<Self> {
        let bytes = parts.iter().map(|part| part.bytes).sum();
        Arc::new(Self { stream, parts, bytes })
    }

    /// Its rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The first and the last frame of each run of its stream's frames that it covers, in order; a run lies in one file of the log.
    #[must_use]
    pub fn ranges(&self) -> Vec<(Position, Position)> {
        let mut ranges: Vec<(Position, Position)> = Vec::new();
        for part in &self.parts {
            match ranges.last_mut() {
                Some((_, last)) if last.file == part.position.file && !part.starts_run => *last = part.position,
                _ => ranges.push((part.position, part.position)),
            }
        }
        ranges
    }

    /// Its two halves; `None` when it is a single frame.
    #[must_use]
    pub fn halves(&self) -> Option<(Arc<Self>, Arc<Self>)> {
        let middle = self.parts.len() / 2;
        if middle == 0 {
            return None;
        }
        let (first, second) = self.parts.split_at(middle);
        Some((Self::new(self.stream.clone(), first.to_vec()), Self::new(self.stream.clone(), second.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::backlog::tests::{Fixture, position};

    fn parts(fixture: &Fixture, frames: &[(u8, u64, bool)]) -> Vec<Arc<Part>> {
        let part = |(file, sequence, starts_run): &(u8, u64, bool)| {
            Arc::new(Part::new(fixture.rows("a", 1), position(*file, *sequence), UnixNanos(0), *starts_run))
        };
        frames.iter().map(part).collect()
    }

    /// Scenario: parts of two files, with a frame between two of them that is settled elsewhere. Guarantee: a range for each run, none
    /// over the settled frame, none over a file's end.
    #[test]
    fn ranges_are_runs_within_files() {
        let fixture = Fixture::new(usize::MAX >> 4);
        let stream = fixture.rows("a", 1).stream;
        let frames = [(1, 3, false), (1, 5, false), (1, 9, true), (1, 12, false), (2, 1, false), (2, 2, false)];
        let batch = CutBatch::new(stream, parts(&fixture, &frames));
        let expected = [((1, 3), (1, 5)), ((1, 9), (1, 12)), ((2, 1), (2, 2))];
        let expected = expected.map(|((file, first), (same, last))| (position(file, first), position(same, last)));
        assert_eq!(batch.ranges(), expected);
    }

    /// Scenario: a batch is halved until single frames are left. Guarantee: each part is in exactly one of them, in order.
    #[test]
    fn halves_have_each_part_once_and_in_order() {
        let fixture = Fixture::new(usize::MAX >> 4);
        let frames: Vec<_> = (1..=7).map(|sequence| (1, sequence, false)).collect();
        let batch = CutBatch::new(fixture.rows("a", 1).stream, parts(&fixture, &frames));
        let (mut waiting, mut singles) = (vec![batch], Vec::new());
        while let Some(batch) = waiting.pop() {
            match batch.halves() {
                Some((first, second)) => {
                    assert_eq!((first.rows() + second.rows(), first.bytes + second.bytes), (batch.rows(), batch.bytes));
                    waiting.extend([second, first]);
                }
                None => singles.push(batch.parts[0].position.sequence),
            }
        }
        assert_eq!(singles, (1..=7).collect::<Vec<_>>());
    }
}
