//! One request's bytes to rows, and to what the log keeps of it.

use std::sync::Arc;

use bytes::Bytes;
use logseal_core::UnixNanos;
use logseal_otlp::{ScanError, ScanLimits, Scanned, TableChunk};
use logseal_wal::CompressedBody;

use super::stream::memory_bytes;
use super::tables::WorkspaceTables;
use super::unavailable;
use crate::admission::BudgetPermit;
use crate::cpu;
use crate::door::IntakeError;

/// Bodies up to this size are scanned on the async thread: usual ones take some 10 microseconds, about as much as the detour
/// over another thread, and one made to expand as far as it can stays below a few milliseconds.
const INLINE_SCAN_BYTES: usize = 8 * 1024;

/// A request that can be logged.
#[derive(Debug)]
pub struct ScannedRequest {
    /// Its rows.
    pub chunks: Vec<TableChunk>,
    /// Its bytes for the log.
    pub body: CompressedBody,
    /// Covers both.
    pub permit: BudgetPermit,
    /// When the request was received.
    pub received: UnixNanos,
    /// Rows in the chunks.
    pub accepted: u64,
    /// Records that were rejected.
    pub rejected: u64,
    /// Why.
    pub rejection: Option<String>,
    /// Strings that are not UTF-8 and were kept as bytes.
    pub replaced_utf8: u64,
    /// References into a string table that were taken as absent.
    pub ignored_string_references: u64,
}

/// Scans `body`, whose bytes `permit` covers with what its columns are expected to take, and compresses it unless it came `compressed`.
///
/// # Errors
///
/// What the client is to be told.
pub async fn scan(
    tables: Arc<WorkspaceTables>,
    body: Bytes,
    compressed: Option<CompressedBody>,
    permit: BudgetPermit,
    received: UnixNanos,
    limits: Arc<ScanLimits>,
) -> Result<ScannedRequest, IntakeError> {
    let raw_bytes = body.len();
    // The body goes as soon as it is scanned, and its permit never goes before it: also when the client goes away.
    let (scanned, compressed, mut permit) = if body.len() <= INLINE_SCAN_BYTES {
        let (scanned, compressed) = work(&tables, &body, compressed, received, &limits);
        drop(body);
        (scanned, compressed, permit)
    } else {
        let tables = Arc::clone(&tables);
        let job = move |_: &cpu::Awaited<'_>| {
            let (scanned, compressed) = work(&tables, &body, compressed, received, &limits);
            drop(body);
            (scanned, compressed, permit)
        };
        cpu::run(job).await.map_err(|_| unavailable("defect", "the request could not be scanned"))?
    };
    let Scanned { chunks, accepted, rejected, rejection, replaced_utf8, ignored_string_references } =
        scanned.map_err(|error| match error {
            ScanError::Undecodable { .. } => IntakeError::Undecodable(error.to_string()),
            ScanError::TooLarge { .. } => IntakeError::TooLarge(error.to_string()),
            ScanError::Columns(_) => unavailable("defect", "the records could not be brought into columns"),
        })?;

    let rows: usize = chunks.iter().map(memory_bytes).sum();
    tables.learned().learn(raw_bytes, rows);
    let bytes = rows + compressed.compressed_bytes();
    if bytes > permit.budget_bytes() {
        // Coming back would never help: also an idle server has no more.
        return Err(IntakeError::TooLarge(format!(
            "the decoded records take {bytes} bytes, more than `ingest.memory_budget_bytes`; send fewer at a time"
        )));
    }
    // A little more than was expected is there already, and refusing it now would only waste the work. What expanded beyond that
    // must find room.
    if bytes <= permit.bytes().saturating_mul(2) {
        permit.overdraw_to(bytes);
    } else if !permit.try_cover(bytes) {
        return Err(unavailable("memory", "memory for the decoded records is not free"));
    }
    permit.shrink_to(bytes);
    Ok(ScannedRequest {
        chunks,
        body: compressed,
        permit,
        received,
        accepted,
        rejected,
        rejection,
        replaced_utf8,
        ignored_string_references,
    })
}

fn work(
    tables: &WorkspaceTables,
    body: &Bytes,
    compressed: Option<CompressedBody>,
    received: UnixNanos,
    limits: &ScanLimits,
) -> (Result<Scanned, ScanError>, CompressedBody) {
    let scanned = logseal_otlp::scan(body, tables.schema(), received, limits);
    // What is refused goes nowhere.
    let logged = if scanned.as_ref().is_ok_and(|scanned| scanned.accepted > 0) {
        compressed.unwrap_or_else(|| CompressedBody::compress(body))
    } else {
        CompressedBody::compress(&Bytes::new())
    };
    (scanned, logged)
}
