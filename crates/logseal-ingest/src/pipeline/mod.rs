//! What happens to a request behind the door: scan, batch, seal, store, catalog, acknowledge.
//!
//! A request is acknowledged after each segment that holds one of its records is durable in the store and visible in the
//! catalog. Chunks wait in the batch of their stream until it is big or old enough to be sealed; everything that waits is
//! covered by the budget permit of its request.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`tables`] | the tables and columns of each workspace, shared by scans and commits |
//! | [`batch`] | one stream's open batch and the rule of cutting it; pure |
//! | [`batcher`] | the task that owns all open batches |
//! | [`commit`] | a cut batch becomes a segment |

pub mod batch;
pub mod batcher;
pub mod commit;
pub mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use logseal_core::Clock;
use logseal_otlp::{ScanError, ScanLimits, Scanned};
use metrics::counter;
use tracing::debug;

use self::batch::Submission;
use self::batcher::Batcher;
use self::tables::Tables;
use crate::door::{Accepted, Intake, IntakeError, IntakeRequest};
use crate::{cpu, meter};

/// Bodies up to this size are scanned on the async thread: usual ones take some 10 microseconds, about as much as the detour
/// over another thread, and one made to expand as far as it can stays below a few milliseconds.
const INLINE_SCAN_BYTES: usize = 8 * 1024;

/// The intake that makes segments.
#[derive(Debug)]
pub struct Pipeline {
    tables: Arc<Tables>,
    batcher: Batcher,
    limits: Arc<ScanLimits>,
    clock: Arc<dyn Clock>,
}

impl Pipeline {
    /// A pipeline that scans into `tables` and hands chunks to `batcher`.
    #[must_use]
    pub fn new(tables: Arc<Tables>, batcher: Batcher, limits: ScanLimits, clock: Arc<dyn Clock>) -> Self {
        Self { tables, batcher, limits: Arc::new(limits), clock }
    }
}

#[async_trait]
impl Intake for Pipeline {
    async fn take(&self, request: IntakeRequest) -> Result<Accepted, IntakeError> {
        let IntakeRequest { workspace, body, permit, .. } = request;
        let tables = self.tables.workspace(workspace).ok_or_else(|| IntakeError::Unavailable {
            reason: "the workspace is not ready yet".to_owned(),
            retry_after: None,
        })?;
        let received = self.clock.now();
        // The body goes as soon as it is scanned, and its permit never goes before it: also when the client goes away.
        let (scanned, mut permit) = if body.len() <= INLINE_SCAN_BYTES {
            let scanned = logseal_otlp::scan(&body, tables.schema(), received, &self.limits);
            drop(body);
            (scanned, permit)
        } else {
            let (tables, limits) = (Arc::clone(&tables), Arc::clone(&self.limits));
            let scan = move |_: &cpu::Awaited<'_>| {
                let scanned = logseal_otlp::scan(&body, tables.schema(), received, &limits);
                drop(body);
                (scanned, permit)
            };
            cpu::run(scan).await.map_err(|_| unavailable("the request could not be scanned"))?
        };
        let Scanned { chunks, accepted, rejected, rejection, replaced_utf8, ignored_string_references } = scanned
            .map_err(|error| match error {
                ScanError::Undecodable { .. } => IntakeError::Undecodable(error.to_string()),
                ScanError::TooLarge { .. } => IntakeError::TooLarge(error.to_string()),
                ScanError::Columns(_) => unavailable("the records could not be brought into columns"),
            })?;
        counter!(meter::REPLACED_UTF8).increment(replaced_utf8);
        counter!(meter::IGNORED_REFERENCES).increment(ignored_string_references);

        let bytes: usize = chunks.iter().map(|chunk| chunk.batch.get_array_memory_size()).sum();
        if bytes > permit.budget_total() {
            // Coming back would never help: also an idle server has no more.
            return Err(IntakeError::TooLarge(format!(
                "the decoded records take {bytes} bytes, more than `ingest.memory_budget_bytes`; send fewer at a time"
            )));
        }
        if !permit.try_cover(bytes) {
            return Err(unavailable("memory for the decoded records is not free"));
        }
        permit.shrink_to(bytes);
        let mut waiting = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let permit = permit.split(chunk.batch.get_array_memory_size());
            let table = tables.table(&chunk.schema);
            let (submission, outcome) = Submission::new(table, chunk, permit, received);
            self.batcher.submit(submission).await.map_err(|_| unavailable("the server is shutting down"))?;
            waiting.push(outcome);
        }
        for outcome in waiting {
            match outcome.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(unavailable("the records could not be stored")),
            }
        }
        Ok(Accepted { accepted, rejected, message: rejection })
    }
}

fn unavailable(reason: &str) -> IntakeError {
    debug!(reason, "a request is refused for a passing trouble");
    IntakeError::Unavailable { reason: reason.to_owned(), retry_after: None }
}
