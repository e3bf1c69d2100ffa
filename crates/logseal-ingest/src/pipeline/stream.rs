//! One stream's rows on their way into a segment, and the rule by which they go. No I/O, no clock.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, FieldRef};
use logseal_core::{AekId, ClusterId, TableId, UnixNanos, WalFileId, WorkspaceId};
use logseal_crypto::Aek;
use logseal_otlp::TableChunk;
use logseal_segment::encode::row_group_share;
use logseal_wal::Position;

use super::tables::Table;
use crate::admission::BudgetPermit;

/// What identifies a stream: a segment never mixes two.
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
    /// The cluster whose log has its frames. It stays this one when the workspace is linked to another: a link begins another stream.
    pub cluster: ClusterId,
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

    /// Whether its key may not be used any more: its rows come back out of the log under another handle of the key.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.aek.lease().check().is_err()
    }

    /// The workspace that owns it.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.table.row.workspace
    }
}

/// What each array of a chunk takes beside its values: its own structures, and what the allocator rounds up.
const ARRAY_BYTES: usize = 320;

/// The memory that `chunk` takes, in bytes.
#[must_use]
pub fn memory_bytes(chunk: &TableChunk) -> usize {
    let arrays = |field: &FieldRef| match field.data_type() {
        DataType::Struct(children) => 1 + children.len(),
        _ => 1,
    };
    let arrays: usize = chunk.batch.schema_ref().fields().iter().map(arrays).sum();
    chunk.batch.get_array_memory_size() + arrays * ARRAY_BYTES
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
    /// What they count towards a row group, in bytes.
    pub row_group_share: usize,
    /// Frames of the stream right before this one are settled elsewhere: no segment's range may reach over them.
    pub starts_run: bool,
    _permit: BudgetPermit,
}

impl Part {
    /// `rows` of the frame at `position`; `starts_run` as in [`Part::starts_run`].
    #[must_use]
    pub fn new(rows: Rows, position: Position, received: UnixNanos, starts_run: bool) -> Self {
        let count = rows.count();
        let bytes = rows.chunks.iter().map(memory_bytes).sum();
        let row_group_share = rows.chunks.iter().map(|chunk| row_group_share(&chunk.batch)).sum();
        let Rows { chunks, permit, .. } = rows;
        Self { position, received, chunks, rows: count, bytes, row_group_share, starts_run, _permit: permit }
    }
}

/// When rows are sealed and when a segment is complete.
#[derive(Clone, Copy, Debug)]
pub struct CutRule {
    /// A segment is complete when its first record has waited so long.
    pub max_age: Duration,
    /// A segment is complete when its file has about this size.
    pub target_file_bytes: usize,
    /// So many bytes of a stream's rows, as [`row_group_share`] counts them, are sealed as one row group.
    pub row_group_bytes: usize,
}

/// Frames of one stream that follow each other in one file of the log, with none of the stream's between them that is not of the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The file.
    pub file: WalFileId,
    /// The first frame.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many frames.
    pub frames: u64,
    /// Their records.
    pub records: u64,
    /// When the first of them was received.
    pub received: UnixNanos,
}

/// The frames of one stream that a segment covers, in the order of the log.
#[derive(Clone, Debug, Default)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// Adds the frame of `part`, which comes after all others; `apart` when frames of the stream right before it are settled elsewhere.
    pub fn push(&mut self, part: &Part, apart: bool) {
        let Position { file, sequence } = part.position;
        match self.0.last_mut() {
            Some(run) if run.file == file && !apart => {
                (run.last, run.frames, run.records) = (sequence, run.frames + 1, run.records + part.rows);
            }
            _ => self.0.push(Run {
                file,
                first: sequence,
                last: sequence,
                frames: 1,
                records: part.rows,
                received: part.received,
            }),
        }
    }

    /// The runs.
    pub fn iter(&self) -> std::slice::Iter<'_, Run> {
        self.0.iter()
    }

    /// Their records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.iter().map(|run| run.records).sum()
    }

    /// Whether there is no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first record was received.
    #[must_use]
    pub fn received(&self) -> Option<UnixNanos> {
        self.0.first().map(|run| run.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::backlog::tests::{Fixture, position};

    /// Scenario: parts of two files, with a frame between two of them that is settled elsewhere. Guarantee: a run for each, none over
    /// the settled frame, none over a file's end.
    #[test]
    fn runs_end_at_settled_frames_and_at_files_ends() {
        let fixture = Fixture::new(usize::MAX >> 4);
        let mut runs = Runs::default();
        for (file, sequence, apart) in
            [(1, 3, false), (1, 5, false), (1, 9, true), (1, 12, false), (2, 1, false), (2, 2, false)]
        {
            let received = UnixNanos(sequence as i64);
            runs.push(&Part::new(fixture.rows("a", 2), position(file, sequence), received, apart), apart);
        }
        let run = |file, first, last: u64| Run {
            file: position(file, 1).file,
            first,
            last,
            frames: 2,
            records: 4,
            received: UnixNanos(first as i64),
        };
        assert_eq!(runs.iter().copied().collect::<Vec<_>>(), [run(1, 3, 5), run(1, 9, 12), run(2, 1, 2)]);
        assert_eq!((runs.records(), runs.received()), (12, Some(UnixNanos(3))));
    }
}
