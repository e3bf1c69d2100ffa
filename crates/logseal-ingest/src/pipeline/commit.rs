//! One attempt to make a cut batch a segment: seal on the compute threads, put into the store, one catalog transaction.

use std::fmt::Debug;
use std::sync::Arc;

use logseal_catalog::{Catalog, CatalogError, Change, CoverageRow, SegmentCommit, SegmentRow};
use logseal_core::{Clock, IdGenerator, SegmentId, UnixNanos};
use logseal_crypto::{Aek, OsRandom};
use logseal_segment::footer::{FooterColumn, FooterCoverage, SegmentFooter};
use logseal_segment::{SealedSegment, SegmentError, SegmentIdentity, SegmentSettings, SegmentStore, encode};
use thiserror::Error;

use super::batch::CutBatch;
use crate::cpu::{self, CpuPanic};

/// Rows to the bytes of a sealed segment. A port, so that a test can have an encoder that breaks.
pub trait Encoder: Debug + Send + Sync {
    /// Encodes and seals `batch` with `footer`; runs on a compute thread and may panic.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] when the rows cannot be encoded.
    fn encode(
        &self,
        identity: &SegmentIdentity,
        aek: &Aek,
        batch: &CutBatch,
        footer: &SegmentFooter,
    ) -> Result<SealedSegment, SegmentError>;
}

/// Encodes as encrypted Parquet.
#[derive(Clone, Copy, Debug)]
pub struct ParquetEncoder(pub SegmentSettings);

impl Encoder for ParquetEncoder {
    fn encode(
        &self,
        identity: &SegmentIdentity,
        aek: &Aek,
        batch: &CutBatch,
        footer: &SegmentFooter,
    ) -> Result<SealedSegment, SegmentError> {
        let chunks: Vec<_> =
            batch.parts.iter().flat_map(|part| &part.chunks).map(|chunk| chunk.batch.clone()).collect();
        encode::seal(identity, aek, &chunks, footer, &self.0, OsRandom)
    }
}

/// Why a batch is no segment yet.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The rows could not be encoded, or the store failed.
    #[error("cannot seal or store the segment")]
    Segment(#[from] SegmentError),
    /// The encoder panicked.
    #[error("cannot seal the segment: the encoder panicked")]
    Panic(#[from] CpuPanic),
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
            Self::Panic(_) => false,
            // Whatever else the catalog says, such as that a row was altered, is no fault of the records: they wait in the log.
            Self::Catalog(error) => !matches!(error, CatalogError::Covered { .. }),
        }
    }

    /// Whether the catalog says that another segment has these frames already.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Covered { .. }))
    }
}

/// A batch as a file with its row, to be stored as often as it takes.
#[derive(Debug)]
pub struct Sealed {
    segment: SealedSegment,
    commit: SegmentCommit,
}

impl Sealed {
    /// Size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.segment.file.len()
    }
}

/// Turns batches into segments.
#[derive(Debug)]
pub struct Committer {
    /// Where segment rows go.
    pub catalog: Catalog,
    /// Where files go.
    pub store: SegmentStore,
    /// How files are made.
    pub encoder: Arc<dyn Encoder>,
    /// Makes segment ids.
    pub ids: IdGenerator,
    /// Tells when a segment was made.
    pub clock: Arc<dyn Clock>,
}

impl Committer {
    /// Encodes and seals `batch` under a new id and a new key.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; never the storage's.
    pub async fn seal(&self, batch: &Arc<CutBatch>) -> Result<Sealed, CommitError> {
        let table = Arc::clone(&batch.stream.table);
        let aek = Arc::clone(&batch.stream.aek);
        let (workspace, created) = (batch.stream.workspace(), self.clock.now());
        let received = batch.parts.iter().map(|part| part.received).min().unwrap_or(created);
        let chunks = || batch.parts.iter().flat_map(|part| &part.chunks);
        let min_time = chunks().map(|chunk| chunk.min_time).min().unwrap_or(UnixNanos(0));
        let max_time = chunks().map(|chunk| chunk.max_time).max().unwrap_or(UnixNanos(0));
        let segment = SegmentId::from(self.ids.next());
        let identity = SegmentIdentity { cluster: table.cluster, workspace, table: table.row.id, segment, received };
        let coverage: Vec<_> = batch
            .ranges()
            .into_iter()
            .map(|(first, last)| CoverageRow {
                file: first.file,
                table: table.row.id,
                aek: aek.id(),
                first: first.sequence,
                last: last.sequence,
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
            cluster: table.cluster,
            workspace,
            workspace_name: table.workspace_name.to_string(),
            table: table.row.id,
            table_name: table.row.name.clone(),
            aek: aek.id(),
            aek_generation: aek.generation(),
            segment,
            rows: batch.rows(),
            min_time,
            max_time,
            created,
            columns: columns.collect(),
            coverage: coverage
                .iter()
                .map(|range| FooterCoverage { file: range.file, first: range.first, last: range.last })
                .collect(),
        };
        let (encoder, job) = (Arc::clone(&self.encoder), Arc::clone(batch));
        let sealed = cpu::run(move |_| encoder.encode(&identity, &job.stream.aek, &job, &footer)).await??;
        let row = SegmentRow {
            id: segment,
            workspace,
            table: table.row.id,
            aek: aek.id(),
            path: sealed.path.as_path().to_string(),
            bytes: sealed.file.len() as u64,
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
        Ok(Sealed { segment: sealed, commit })
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
