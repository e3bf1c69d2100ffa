//! Rows for queries that are acknowledged and in no segment yet.
//!
//! A query pins first, then takes its snapshot of the catalog, then drops what the snapshot covers: what became a segment in
//! between is read once, from the segment.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt as _};
use logseal_core::{TableId, UnixNanos};
use logseal_wal::Position;

use super::backlog::{Parked, Pinned};
use super::frames::{Coverage, FrameReader, Frames, FramesError, Range};
use super::stream::{Part, Stream, StreamKey};

/// What a query reads beside the segments of its snapshot.
#[derive(Debug)]
pub struct UnsealedRows {
    parts: Vec<(Stream, Arc<Part>)>,
    parked: Vec<Parked>,
    coverage: Arc<Coverage>,
    frames: Frames,
}

impl UnsealedRows {
    /// What of `pinned` the snapshot's `coverage` does not have.
    #[must_use]
    pub fn new(pinned: Pinned, coverage: Coverage, frames: Frames) -> Self {
        let Pinned { mut parts, mut parked } = pinned;
        parts.retain(|(stream, part)| !coverage.covers(part.position, stream.key()));
        // A run of one stream is covered as a whole or not at all: it belongs to one segment.
        parked.retain(|parked| {
            let first = Position { file: parked.file, sequence: parked.first };
            parked.of.is_none_or(|run| !coverage.covers(first, run.stream))
        });
        Self { parts, parked, coverage: Arc::new(coverage), frames }
    }

    /// Rows of `table` that are in memory, shared with the backlog.
    #[must_use]
    pub fn batches(&self, table: TableId) -> Vec<RecordBatch> {
        let parts = self.parts.iter().filter(|(stream, _)| stream.key().table == table);
        parts.flat_map(|(_, part)| &part.chunks).map(|chunk| chunk.batch.clone()).collect()
    }

    /// Rows of `table` that are only in the log; `None` when nothing is parked.
    #[must_use]
    pub fn parked(&self, table: TableId) -> Option<ParkedTable> {
        let of_table = |parked: &&Parked| parked.of.is_none_or(|run| run.stream.table == table);
        let ranges: Arc<[Parked]> = self.parked.iter().filter(of_table).cloned().collect();
        let coverage = Arc::clone(&self.coverage);
        (!ranges.is_empty()).then(|| ParkedTable { table, ranges, coverage, frames: self.frames.clone() })
    }

    /// Records that were loaded; nobody has counted those that are parked.
    #[must_use]
    pub fn records(&self) -> u64 {
        let evicted = self.parked.iter().filter_map(|parked| parked.of).map(|run| run.records);
        self.parts.iter().map(|(_, part)| part.rows).chain(evicted).sum()
    }

    /// How long ago, at `now`, the oldest of them was received.
    #[must_use]
    pub fn age(&self, now: UnixNanos) -> Duration {
        let evicted = self.parked.iter().filter_map(|parked| parked.of).map(|run| run.received);
        let oldest = self.parts.iter().map(|(_, part)| part.received).chain(evicted).min().unwrap_or(now);
        Duration::from_nanos(u64::try_from(now.0.saturating_sub(oldest.0)).unwrap_or(0))
    }
}

/// One table's rows that are only in the log.
#[derive(Clone, Debug)]
pub struct ParkedTable {
    table: TableId,
    ranges: Arc<[Parked]>,
    coverage: Arc<Coverage>,
    frames: Frames,
}

/// Where a read of parked rows is.
struct Reading {
    source: ParkedTable,
    next_range: usize,
    reader: Option<(FrameReader, Option<StreamKey>)>,
}

impl ParkedTable {
    /// The rows, lot by lot. A frame that gives no rows is passed over: the replay reports it and puts it into quarantine.
    #[must_use]
    pub fn read(&self) -> BoxStream<'static, Result<RecordBatch, FramesError>> {
        let start = Reading { source: self.clone(), next_range: 0, reader: None };
        let lots = stream::try_unfold(start, |mut reading| async move {
            let lot = reading.lot().await?;
            Ok::<_, FramesError>(lot.map(|lot| (stream::iter(lot.into_iter().map(Ok)), reading)))
        });
        lots.map(|lot| match lot {
            Ok(rows) => rows.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
        .flatten()
        .boxed()
    }
}

impl Reading {
    async fn lot(&mut self) -> Result<Option<Vec<RecordBatch>>, FramesError> {
        loop {
            let (mut reader, only) = match self.reader.take() {
                Some(reading) => reading,
                None => {
                    let Some(parked) = self.source.ranges.get(self.next_range) else { return Ok(None) };
                    self.next_range += 1;
                    let Parked { file, path, first, last, of, .. } = parked.clone();
                    let range = Range { file, path, first, last };
                    (FrameReader::open(&self.source.frames, &range).await?, of.map(|run| run.stream))
                }
            };
            let (table, coverage) = (self.source.table, &self.source.coverage);
            let wanted = |position: Position, _, stream: StreamKey| {
                stream.table == table && only.is_none_or(|only| only == stream) && !coverage.covers(position, stream)
            };
            if let Some(frames) = reader.next(wanted).await? {
                self.reader = Some((reader, only));
                let rows = frames.into_iter().filter_map(|frame| frame.rows.ok()).flatten();
                return Ok(Some(rows.flat_map(|rows| rows.chunks).map(|chunk| chunk.batch).collect()));
            }
        }
    }
}
