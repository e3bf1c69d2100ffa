//! A cut batch becomes a segment: seal on the compute threads, put into the store, one catalog transaction, answers.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use logseal_catalog::{Catalog, CatalogError, Change, SegmentCommit, SegmentRow};
use logseal_core::{Clock, IdGenerator, SegmentId, UnixNanos};
use logseal_crypto::OsRandom;
use logseal_keys::{KeyError, Keyring};
use logseal_segment::{SealedSegment, SegmentError, SegmentIdentity, SegmentSettings, SegmentStore, encode};
use metrics::{counter, gauge, histogram};
use thiserror::Error;
use tracing::{debug, error};

use super::batch::{NotStored, OpenBatch, Submission};
use super::tables::Table;
use crate::cpu::{self, CpuPanic};
use crate::meter;

/// What a commit tells about its stream.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The batch's size in memory.
    pub arrow_bytes: usize,
    /// The segment's size.
    pub file_bytes: usize,
}

/// Turns batches into segments.
#[derive(Debug)]
pub struct Committer {
    /// Where wrapped keys and segment rows go.
    pub catalog: Catalog,
    /// Where AEKs come from.
    pub keyring: Arc<Keyring>,
    /// Where files go.
    pub store: SegmentStore,
    /// How files are written.
    pub settings: SegmentSettings,
    /// Makes segment ids.
    pub ids: IdGenerator,
    /// Tells when a segment was made.
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug, Error)]
enum CommitError {
    #[error("no key for the segment")]
    Key(#[from] KeyError),
    #[error("cannot seal the segment")]
    Seal(#[from] SegmentError),
    #[error("cannot seal the segment: the encoder panicked")]
    Panic(#[from] CpuPanic),
    #[error("cannot add the segment to the catalog")]
    Catalog(#[from] CatalogError),
}

impl Committer {
    /// Makes `batch` a segment and answers its requests; `None` when that failed.
    pub async fn commit(&self, batch: OpenBatch) -> Option<Committed> {
        let (rows, started) = (batch.rows(), Instant::now());
        let (submissions, arrow_bytes) = batch.into_parts();
        let table = Arc::clone(&submissions.first()?.table);
        let outcome = self.store(&table, &submissions).await;
        gauge!(meter::UNSEALED_RECORDS).decrement(rows as f64);
        let result = match &outcome {
            Ok(file_bytes) => {
                counter!(meter::SEGMENTS, "outcome" => "stored").increment(1);
                counter!(meter::SEGMENT_BYTES).increment(*file_bytes as u64);
                histogram!(meter::SEGMENT_SECONDS).record(started.elapsed().as_secs_f64());
                debug!(table = %table.row.id, rows, file_bytes, "segment stored");
                Ok(())
            }
            Err(error) => {
                counter!(meter::SEGMENTS, "outcome" => "failed").increment(1);
                error!(table = %table.row.id, rows, error = %Chain(error), "segment not stored, its requests are refused");
                Err(NotStored)
            }
        };
        for submission in submissions {
            submission.finish(result);
        }
        outcome.ok().map(|file_bytes| Committed { arrow_bytes, file_bytes })
    }

    async fn store(&self, table: &Arc<Table>, submissions: &[Submission]) -> Result<usize, CommitError> {
        let workspace = table.row.workspace;
        let aek = self.keyring.current(workspace).await?;
        let received = submissions.iter().map(|s| s.received).min().unwrap_or(UnixNanos(0));
        let segment = SegmentId::from(self.ids.next());
        let identity = SegmentIdentity { cluster: table.cluster, workspace, table: table.row.id, segment, received };
        let chunks: Vec<_> = submissions.iter().map(|s| s.chunk.batch.clone()).collect();
        let (settings, sealing_key) = (self.settings, Arc::clone(&aek));
        let sealed: SealedSegment =
            cpu::run(move |_| encode::seal(&identity, &sealing_key, &chunks, &settings, OsRandom)).await??;
        let file_bytes = sealed.file.len();
        self.store.put_new(sealed.path.as_path(), sealed.file).await?;
        let columns = table.new_columns(&aek);
        let row = SegmentRow {
            id: segment,
            workspace,
            table: table.row.id,
            aek: aek.id(),
            path: sealed.path.as_path().to_string(),
            bytes: file_bytes as u64,
            rows: sealed.rows,
            min_time: submissions.iter().map(|s| s.chunk.min_time).min().unwrap_or(received),
            max_time: submissions.iter().map(|s| s.chunk.max_time).max().unwrap_or(received),
            created: self.clock.now(),
            wrapped_dek: sealed.wrapped.to_bytes(),
            dek_commitment: sealed.commitment.as_bytes().to_vec(),
        };
        let commit = SegmentCommit { segment: row, table: table.row.clone(), columns };
        let columns = commit.columns.clone();
        self.catalog.apply(Change::CommitSegment(Box::new(commit))).await?;
        table.columns_are_durable(&columns);
        Ok(file_bytes)
    }
}

/// An error with its causes on one line.
struct Chain<'e>(&'e dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
