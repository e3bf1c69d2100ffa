//! The steps that make rows a segment: seal on the compute threads, put into the store, one catalog transaction.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use logseal_catalog::{Catalog, CatalogError, Change, CoverageRow, SegmentCommit, SegmentRow};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, SegmentId, UnixNanos};
use logseal_crypto::OsRandom;
use logseal_keys::KeyError;
use logseal_segment::encode::{SealedRows, SegmentWriter};
use logseal_segment::footer::{FooterColumn, FooterCoverage, SegmentFooter};
use logseal_segment::unify::union_schema;
use logseal_segment::{SealedSegment, SegmentError, SegmentIdentity, SegmentSettings, SegmentStore};
use thiserror::Error;

use super::stream::{Part, Runs, Stream};
use crate::admission::{Budget, BudgetPermit};
use crate::cpu::{self, CpuPanic};

/// Rows to sealed row groups. A port, so that a test can have an encoder that breaks.
pub trait Encoder: Debug + Send + Sync {
    /// Encodes and seals `chunks` for `segment`, which has their columns; runs on a compute thread and may panic.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] when the rows cannot be encoded.
    fn encode(&self, segment: &SegmentWriter, chunks: &[RecordBatch]) -> Result<SealedRows, SegmentError>;
}

/// Encodes as encrypted Parquet.
#[derive(Clone, Copy, Debug)]
pub struct ParquetEncoder;

impl Encoder for ParquetEncoder {
    fn encode(&self, segment: &SegmentWriter, chunks: &[RecordBatch]) -> Result<SealedRows, SegmentError> {
        segment.encode(chunks)
    }
}

/// Why rows are in no segment yet.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The segment lacks a column of the rows: they need another one.
    #[error("the segment does not take the rows")]
    NotTaken,
    /// The rows could not be encoded, or the store failed.
    #[error("cannot seal or store the segment")]
    Segment(#[from] SegmentError),
    /// The encoder panicked.
    #[error("cannot seal the segment: the encoder panicked")]
    Panic(#[from] CpuPanic),
    /// The key that it is under was destroyed, and so its rows are.
    #[error("the account key of the segment was destroyed")]
    Shredded,
    /// What the account key of the segment seals cannot be counted.
    #[error("the account key of the segment may not seal now")]
    Count(#[from] KeyError),
    /// The catalog did not take the segment.
    #[error("cannot add the segment to the catalog")]
    Catalog(#[from] CatalogError),
}

impl CommitError {
    /// Whether the storage is to blame, so that the same attempt is worth repeating for as long as it takes.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        match self {
            Self::Segment(error) => error.is_storage(),
            Self::Panic(_) | Self::NotTaken | Self::Shredded | Self::Count(_) => false,
            // Whatever else the catalog says, such as that a row was altered, is no fault of the records: they wait in the log.
            Self::Catalog(error) => !matches!(error, CatalogError::Covered { .. }),
        }
    }

    /// Whether nothing is wrong but that the key may not be used any more.
    #[must_use]
    pub fn is_of_lease(&self) -> bool {
        matches!(self, Self::Segment(SegmentError::LeaseOver(_)))
    }

    /// Whether nothing is wrong but that the account key may not seal before its count is stored.
    #[must_use]
    pub fn is_of_count(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Segment(SegmentError::Wraps(_)))
    }

    /// Whether the catalog says that another segment has these frames already.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Covered { .. }))
    }
}

/// A segment that grows.
#[derive(Debug)]
pub struct GrowingSegment {
    writer: SegmentWriter,
    /// Of all rows in it.
    time: Option<(UnixNanos, UnixNanos)>,
    /// Covers its memory.
    permit: BudgetPermit,
}

impl GrowingSegment {
    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        self.writer.schema()
    }

    /// Whose it is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.writer.identity().cluster
    }

    /// The account key that wraps its key.
    #[must_use]
    pub fn aek(&self) -> AekId {
        self.writer.aek()
    }

    /// Whether it has no rows yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.time.is_none()
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.permit.bytes()
    }

    /// Whether it is complete: its file has `target_bytes`, or the format takes no more.
    #[must_use]
    pub fn is_full(&self, target_bytes: usize) -> bool {
        self.writer.file_bytes() >= target_bytes || self.writer.is_full()
    }

    fn added(&mut self, parts: &[Arc<Part>]) {
        let chunks = || parts.iter().flat_map(|part| &part.chunks);
        let (min, max) = self.time.unzip();
        let min = chunks().map(|chunk| chunk.min_time).chain(min).min();
        self.time = min.zip(chunks().map(|chunk| chunk.max_time).chain(max).max());
        self.permit.overdraw_to(self.writer.memory_bytes());
    }
}

fn chunks(parts: &[Arc<Part>]) -> Vec<RecordBatch> {
    parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.batch.clone()).collect()
}

/// A file with its row, to be stored as often as it takes.
#[derive(Debug)]
pub struct Sealed {
    segment: SealedSegment,
    commit: SegmentCommit,
    _permit: BudgetPermit,
}

impl Sealed {
    /// Size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.segment.file.content_length()
    }
}

/// Turns rows into segments.
#[derive(Debug)]
pub struct Committer {
    /// Where segment rows go.
    pub catalog: Catalog,
    /// Where files go.
    pub store: SegmentStore,
    /// How rows are sealed.
    pub encoder: Arc<dyn Encoder>,
    /// How files are made.
    pub settings: SegmentSettings,
    /// Covers sealed pages.
    pub budget: Arc<Budget>,
    /// Makes segment ids.
    pub ids: IdGenerator,
    /// Tells when a segment was made.
    pub clock: Arc<dyn Clock>,
}

impl Committer {
    /// Begins a segment of `stream` under a new id and a new key, with the columns of `parts` and those of `schema`.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; never the storage's.
    pub async fn begin(
        &self,
        stream: &Stream,
        parts: &[Arc<Part>],
        schema: Option<SchemaRef>,
    ) -> Result<GrowingSegment, CommitError> {
        let identity = SegmentIdentity {
            cluster: stream.cluster,
            workspace: stream.workspace(),
            table: stream.table.row.id,
            segment: SegmentId::from(self.ids.next()),
            received: parts.iter().map(|part| part.received).min().unwrap_or_else(|| self.clock.now()),
        };
        let (aek, parts, settings) = (Arc::clone(&stream.aek), parts.to_vec(), self.settings);
        let job = move |_: &cpu::Awaited<'_>| {
            let chunks = parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.batch.schema_ref());
            let schema = union_schema(chunks.chain(&schema)).map_err(SegmentError::Schema)?;
            SegmentWriter::begin(identity, &aek, schema, &self::chunks(&parts), &settings, OsRandom)
        };
        let writer = cpu::run_in_background(job).await??;
        let permit = self.budget.overdraw(writer.memory_bytes());
        Ok(GrowingSegment { writer, time: None, permit })
    }

    /// Seals the rows of `parts` into `segment`, which has their columns. After an error the segment is as it was before; it is `None`
    /// when that cannot be said of it, and then lost.
    pub async fn add(
        &self,
        segment: GrowingSegment,
        parts: &[Arc<Part>],
    ) -> (Option<GrowingSegment>, Result<(), CommitError>) {
        // What the encoder takes beside the rows: pages before they are sealed, and once more on their way into the file.
        let bytes = parts.iter().map(|part| part.bytes).sum::<usize>();
        let working = self.budget.overdraw(2 * bytes.min(self.settings.row_group_bytes));
        let (encoder, parts) = (Arc::clone(&self.encoder), parts.to_vec());
        let job = move |_: &cpu::Awaited<'_>| {
            let (_working, mut segment) = (working, segment);
            let chunks = chunks(&parts);
            if !segment.writer.takes(&chunks) {
                return (Some(segment), Err(CommitError::NotTaken));
            }
            // The encoder has the segment for reading only: nothing in it is half done after a panic.
            let sealed = catch_unwind(AssertUnwindSafe(|| encoder.encode(&segment.writer, &chunks)));
            let rows = match sealed {
                Ok(Ok(rows)) => rows,
                Ok(Err(error)) => return (Some(segment), Err(error.into())),
                Err(_) => return (Some(segment), Err(CpuPanic.into())),
            };
            match segment.writer.append(rows) {
                Ok(()) => {
                    segment.added(&parts);
                    (Some(segment), Ok(()))
                }
                Err(error) => (None, Err(error.into())),
            }
        };
        cpu::run_in_background(job).await.unwrap_or_else(|panic| (None, Err(panic.into())))
    }

    /// Completes `segment`, which has the rows of the frames `runs` of `stream`.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; never the storage's.
    pub async fn finish(&self, segment: GrowingSegment, stream: &Stream, runs: &Runs) -> Result<Sealed, CommitError> {
        let GrowingSegment { writer, time, permit } = segment;
        let Stream { table, aek, .. } = stream;
        let (identity, created) = (*writer.identity(), self.clock.now());
        let SegmentIdentity { cluster, workspace, segment, .. } = identity;
        let (min_time, max_time) = time.unwrap_or((created, created));
        let coverage: Vec<_> = runs
            .iter()
            .map(|run| CoverageRow {
                file: run.file,
                table: table.row.id,
                aek: aek.id(),
                first: run.first,
                last: run.last,
                segment: Some(segment),
            })
            .collect();
        let columns = (0..).zip(table.schema().columns()).map(|(ordinal, column)| FooterColumn {
            ordinal,
            container: column.container.code(),
            kind: column.kind.code(),
            key: column.key.into(),
        });
        let footer = SegmentFooter {
            cluster,
            workspace,
            workspace_name: table.workspace_name.to_string(),
            table: table.row.id,
            table_name: table.row.name.clone(),
            aek: aek.id(),
            aek_generation: aek.generation(),
            segment,
            rows: runs.records(),
            min_time,
            max_time,
            created,
            columns: columns.collect(),
            coverage: coverage
                .iter()
                .map(|range| FooterCoverage { file: range.file, first: range.first, last: range.last })
                .collect(),
        };
        let sealed = cpu::run_in_background(move |_| writer.finish(&footer)).await??;
        let row = SegmentRow {
            id: segment,
            workspace,
            table: table.row.id,
            aek: aek.id(),
            path: sealed.path.as_path().to_string(),
            bytes: sealed.file.content_length() as u64,
            rows: sealed.rows,
            min_time,
            max_time,
            created,
            wrapped_dek: sealed.wrapped.to_bytes(),
            dek_commitment: sealed.commitment.as_bytes().to_vec(),
        };
        // What a segment covers was durable in the log: an older copy of the file is noticed by it.
        let attested = coverage.iter().map(|range| (range.file, range.last)).collect();
        let commit = SegmentCommit { segment: row, table: table.row.clone(), columns: Vec::new(), coverage, attested };
        Ok(Sealed { segment: sealed, commit, _permit: permit })
    }

    /// Puts the file and adds its row; durable and visible to queries when this returns. Repeating it is harmless: a file or a row
    /// that is there already is recognized as its own.
    ///
    /// # Errors
    ///
    /// [`CommitError`].
    pub async fn store(&self, sealed: &Sealed) -> Result<(), CommitError> {
        let path = sealed.segment.path.as_path();
        self.store.put_new(path, sealed.segment.file.clone()).await?;
        self.catalog.apply(Change::CommitSegment(Box::new(sealed.commit.clone()))).await?;
        Ok(())
    }
}

impl Committer {
    /// Removes the file of a segment that will never be in the catalog.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the file is an orphan then, which nobody can open.
    pub async fn discard(&self, sealed: &Sealed) -> Result<(), CommitError> {
        Ok(self.store.delete(sealed.segment.path.as_path()).await?)
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::WalFileId;

    use super::*;

    #[test]
    fn what_says_nothing_of_the_batch_is_the_storages() {
        let covered = CatalogError::Covered { file: WalFileId::from_bytes([1; 16]), first: 1, last: 2 };
        let cases = [
            (CommitError::Catalog(CatalogError::Stopped), true, false),
            (CommitError::Catalog(CatalogError::Integrity { kind: "table", id: "1".to_owned() }), true, false),
            (CommitError::Catalog(covered), false, true),
            (CommitError::Panic(CpuPanic), false, false),
            (CommitError::Segment(SegmentError::UnsafeSettings("a rule")), false, false),
        ];
        for (error, is_storage, is_covered) in cases {
            assert_eq!((error.is_storage(), error.is_covered()), (is_storage, is_covered), "{error:?}");
        }
    }
}
