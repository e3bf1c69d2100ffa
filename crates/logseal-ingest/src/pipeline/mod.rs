//! What happens to a request behind the door: scan, log, seal, store, catalog.
//!
//! A request is acknowledged once its bytes are compressed, sealed and durable in the write-ahead log; its rows have then joined
//! the backlog, where queries see them. They become segments later; only then does the log lose them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`tables`] | the tables and columns of each workspace |
//! | [`request`] | one request's bytes to rows, and to what the log keeps of it |
//! | [`journal`] | the thread that writes a cluster's log |
//! | [`stream`] | rows of a stream, runs of its frames, and the rule of cutting; pure |
//! | [`backlog`] | everything that is acknowledged and in no segment yet; pure behind one lock |
//! | [`commit`] | the steps that make rows a segment |
//! | `sealer` | brings rows to their end by these steps: into a segment or into quarantine |
//! | [`cutter`] | the task that sees to it in time, and that retires files of the log |
//! | [`frames`] | frames of the log back to rows |
//! | [`quarantine`] | where parts of the log go that become rows of no segment |
//! | [`replay`] | the task that loads frames which are only in the log |
//! | [`recovery`] | what a start finds in the log's folder |
//! | [`logs`] | opens and closes logs while others run |
//! | [`registry`] | the catalog as the register of the log's files |
//! | [`unsealed`] | rows for queries that are in no segment yet |
//! | [`settings`] | the `[wal]` table |

pub mod backlog;
pub mod commit;
pub mod cutter;
pub mod frames;
pub mod journal;
pub mod logs;
pub mod quarantine;
pub mod recovery;
pub mod registry;
pub mod replay;
pub mod request;
mod sealer;
pub mod settings;
pub mod stream;
pub mod tables;
pub mod unsealed;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use logseal_catalog::Catalog;
use logseal_core::{Clock, ClusterId};
use logseal_keys::{KeyError, Keyring, Link};
use logseal_otlp::ScanLimits;
use logseal_wal::{Entry, Part as FramePart};
use metrics::counter;
use tokio::sync::oneshot;
use tracing::debug;

use self::journal::{Journal, Submission, Trouble};
use self::request::{ScannedRequest, scan};
use self::stream::{Rows, Stream, memory_bytes};
use self::tables::Tables;
use crate::door::{Accepted, Intake, IntakeError, IntakeRequest};
use crate::meter;

/// The rules by which requests become rows; written into each frame, so that a later version knows how it was read.
pub const SCAN_VERSION: u16 = 1;

/// The logs of all clusters.
#[derive(Debug, Default)]
pub struct Journals(RwLock<HashMap<ClusterId, Journal>>);

impl Journals {
    /// From now on requests find the log of `cluster`.
    pub fn add(&self, cluster: ClusterId, journal: Journal) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(cluster, journal);
    }

    /// No request finds the log of `cluster` any more. Its thread ends after the last that did.
    pub fn remove(&self, cluster: ClusterId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&cluster);
    }

    /// Lets go of all logs: their threads end after what waits.
    pub fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The log of `cluster`.
    #[must_use]
    pub fn of(&self, cluster: ClusterId) -> Option<Journal> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&cluster).cloned()
    }
}

/// The intake that logs requests and gives their rows to the backlog.
#[derive(Debug)]
pub struct Pipeline {
    /// The tables that scans assign.
    pub tables: Arc<Tables>,
    /// Where missing tables and columns are added.
    pub catalog: Catalog,
    /// Where AEKs come from.
    pub keyring: Arc<Keyring>,
    /// The logs.
    pub journals: Arc<Journals>,
    /// Bounds of a scan.
    pub limits: Arc<ScanLimits>,
    /// Tells when a request was received.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Intake for Pipeline {
    async fn take(&self, request: IntakeRequest) -> Result<Accepted, IntakeError> {
        let IntakeRequest { workspace, body, permit, hold } = request;
        // Taken once: when the workspace is linked to another cluster meanwhile, this request ends where it began.
        let Link { cluster, aek } = self.keyring.current(workspace).await.map_err(|error| match error {
            // Whose key it is may read why.
            KeyError::Suspended(why) => unavailable("key", &format!("the workspace's {why}")),
            error => {
                debug!(%error, "no key for a request");
                unavailable("key", "the workspace's key is not available now")
            }
        })?;
        let tables = self
            .tables
            .workspace(workspace)
            .ok_or_else(|| unavailable("not_ready", "the workspace is not ready yet"))?;
        let journal =
            self.journals.of(cluster).ok_or_else(|| unavailable("not_ready", "the workspace is not ready yet"))?;
        if let Some(trouble) = journal.trouble() {
            // Refused before anything is spent on it, unless the trouble passes while the call may be held.
            hold.wait(journal.taking()).await.map_err(|_| refused(trouble))?;
        }
        let received = self.clock.now();
        let scanned = scan(Arc::clone(&tables), body, permit, received, Arc::clone(&self.limits)).await?;
        let ScannedRequest { chunks, body, mut permit, accepted, rejected, rejection } = scanned;
        if accepted == 0 {
            return Ok(Accepted { accepted, rejected, message: rejection });
        }

        let mut rows: Vec<Rows> = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let permit = permit.split(memory_bytes(&chunk));
            let table = tables.table(&chunk.schema);
            match rows.iter_mut().find(|rows| rows.stream.table.row.id == table.row.id) {
                Some(rows) => {
                    rows.permit.merge(permit);
                    rows.chunks.push(chunk);
                }
                None => {
                    table.make_durable(&self.catalog, &self.keyring, &aek).await.map_err(|error| {
                        debug!(%error, "a table or column could not be added");
                        unavailable("catalog", "the catalog cannot take a new table or column now")
                    })?;
                    let stream = Stream { cluster, table, aek: Arc::clone(&aek) };
                    rows.push(Rows { stream, chunks: vec![chunk], permit });
                }
            }
        }
        let parts = rows
            .iter()
            .map(|rows| FramePart {
                table: rows.stream.table.row.id,
                records: u32::try_from(rows.count()).unwrap_or(u32::MAX),
            })
            .collect();
        let entry = Entry { aek, received, scan_version: SCAN_VERSION, parts, body };
        let (outcome, durable) = oneshot::channel();
        journal.submit(Submission { entry, permit, rows, outcome }).await.map_err(refused)?;
        durable.await.unwrap_or(Err(Trouble::Stopping)).map_err(refused)?;
        Ok(Accepted { accepted, rejected, message: rejection })
    }
}

fn refused(trouble: Trouble) -> IntakeError {
    unavailable(trouble.label(), trouble.reason())
}

/// A refusal for our own trouble, counted under `label`.
fn unavailable(label: &'static str, reason: &str) -> IntakeError {
    counter!(meter::REFUSALS, "reason" => label).increment(1);
    debug!(reason, "a request is refused for a passing trouble");
    IntakeError::Unavailable { reason: reason.to_owned(), retry_after: None }
}
