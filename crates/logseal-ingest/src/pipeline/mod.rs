//! What happens to a request behind the door: scan, log, seal, store, catalog.
//!
//! A request is acknowledged once its bytes are compressed, sealed and durable in the write-ahead log; its rows have then joined
//! the backlog, where queries see them. They become segments later; only then does the log lose them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`gather`] | small requests that wait for the log together |
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
pub mod gather;
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
use bytes::Bytes;
use futures::future::join_all;
use logseal_catalog::Catalog;
use logseal_core::{Clock, ClusterId, WorkspaceId};
use logseal_keys::{KeyError, Keyring, Link};
use logseal_otlp::ScanLimits;
use logseal_wal::{CompressedBody, Entry, Part as FramePart};
use metrics::counter;
use tokio::sync::oneshot;
use tracing::debug;

use self::gather::{GATHERED_BYTES, Gatherer, Lot, Waiting};
use self::journal::{Journal, Submission, Trouble};
use self::request::{ScannedRequest, scan};
use self::stream::{Rows, Stream, memory_bytes};
use self::tables::{Tables, WorkspaceTables};
use crate::admission::BudgetPermit;
use crate::door::{Accepted, Intake, IntakeError, IntakeRequest};
use crate::expansion::Expansion;
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
#[derive(Clone, Debug)]
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
    /// Where small requests wait for each other.
    pub gatherer: Arc<Gatherer>,
}

/// Where a workspace's requests go at this time. Found once for a request: when the workspace is linked to another cluster meanwhile, it ends where
/// it began.
#[derive(Debug)]
struct Place {
    link: Link,
    tables: Arc<WorkspaceTables>,
    journal: Journal,
}

#[async_trait]
impl Intake for Pipeline {
    fn expansion(&self, workspace: WorkspaceId) -> Expansion {
        self.tables.workspace(workspace).map_or_else(Expansion::default, |tables| tables.learned().expansion())
    }

    async fn take(&self, request: IntakeRequest) -> Result<Accepted, IntakeError> {
        let IntakeRequest { workspace, body, compressed, mut permit, hold } = request;
        let mut place = self.place(workspace).await?;
        if let Some(trouble) = place.journal.trouble() {
            // Refused before anything is spent on it, unless the trouble passes while the call may be held.
            hold.wait(place.journal.taking()).await.map_err(|_| refused(trouble))?;
            // The workspace may have been linked to another cluster meanwhile.
            place = self.place(workspace).await?;
        }
        if body.len() > GATHERED_BYTES {
            let scanned = self.scan(&place, body, compressed, permit).await?;
            return self.log(place, scanned).await;
        }
        drop(place);
        // What is joined is compressed anew.
        drop(compressed);
        permit.shrink_to(body.len() + Expansion::default().chunk_bytes(body.len()));
        let (outcome, result) = oneshot::channel();
        if let Some(lot) = self.gatherer.add(workspace, Waiting { body, permit, outcome }) {
            // On its own: others wait behind it, also when this client goes away.
            tokio::spawn(self.clone().take_lots(lot));
        }
        result.await.unwrap_or_else(|_| Err(unavailable("defect", "the request could not be taken in now")))
    }
}

impl Pipeline {
    async fn place(&self, workspace: WorkspaceId) -> Result<Place, IntakeError> {
        let link = self.keyring.current(workspace).await.map_err(|error| match error {
            // Whose key it is may read why.
            KeyError::Suspended(why) => unavailable("key", &format!("the workspace's {why}")),
            error => {
                debug!(%error, "no key for a request");
                unavailable("key", "the workspace's key is not available now")
            }
        })?;
        let not_ready = || unavailable("not_ready", "the workspace is not ready yet");
        let tables = self.tables.workspace(workspace).ok_or_else(not_ready)?;
        let journal = self.journals.of(link.cluster).ok_or_else(not_ready)?;
        Ok(Place { link, tables, journal })
    }

    /// Brings `lot`, and what comes behind it, to its end.
    async fn take_lots(self, lot: Lot) {
        let mut next = Some(lot);
        while let Some(mut lot) = next {
            self.take_together(lot.workspace(), lot.requests()).await;
            next = lot.next();
        }
    }

    /// Takes in requests that go on together: as one, if nothing is wrong with any of them.
    async fn take_together(&self, workspace: WorkspaceId, mut requests: Vec<Waiting>) {
        if requests.len() > 1 {
            requests = self.take_as_one(workspace, requests).await;
        }
        let each = requests.into_iter().map(|Waiting { body, permit, outcome }| async move {
            // A client that went away no longer wants to know.
            let _ = outcome.send(self.take_one(workspace, body, permit).await);
        });
        join_all(each).await;
    }

    async fn take_one(
        &self,
        workspace: WorkspaceId,
        body: Bytes,
        permit: BudgetPermit,
    ) -> Result<Accepted, IntakeError> {
        let place = self.place(workspace).await?;
        let scanned = self.scan(&place, body, None, permit).await?;
        self.log(place, scanned).await
    }

    /// Takes in `requests` as one and answers them. Returns those that must be taken one by one, so that each is told what is wrong with it.
    async fn take_as_one(&self, workspace: WorkspaceId, mut requests: Vec<Waiting>) -> Vec<Waiting> {
        let counts: Option<Vec<u64>> =
            requests.iter().map(|request| logseal_otlp::framed_records(&request.body)).collect();
        let Some(counts) = counts else { return requests };
        let Ok(place) = self.place(workspace).await else { return requests };
        let (body, permit) = gather::join(&mut requests);
        let scanned = match self.scan(&place, body, None, permit).await {
            Ok(scanned) if scanned.rejected == 0 && scanned.accepted == counts.iter().sum::<u64>() => scanned,
            _ => {
                gather::part(&mut requests);
                return requests;
            }
        };
        let outcomes: Vec<_> = requests.into_iter().map(|request| request.outcome).collect();
        let taken = self.log(place, scanned).await;
        for (outcome, accepted) in outcomes.into_iter().zip(counts) {
            let _ = outcome.send(taken.clone().map(|_| Accepted { accepted, ..Accepted::default() }));
        }
        Vec::new()
    }

    async fn scan(
        &self,
        place: &Place,
        body: Bytes,
        compressed: Option<CompressedBody>,
        permit: BudgetPermit,
    ) -> Result<ScannedRequest, IntakeError> {
        scan(Arc::clone(&place.tables), body, compressed, permit, self.clock.now(), Arc::clone(&self.limits)).await
    }

    /// Writes what was scanned to the log; when this returns it is durable there, and its rows are in the backlog.
    async fn log(&self, place: Place, scanned: ScannedRequest) -> Result<Accepted, IntakeError> {
        let Place { link: Link { cluster, aek }, tables, journal } = place;
        let ScannedRequest { chunks, body, mut permit, received, accepted, rejected, rejection, .. } = scanned;
        counter!(meter::REPLACED_UTF8).increment(scanned.replaced_utf8);
        counter!(meter::IGNORED_REFERENCES).increment(scanned.ignored_string_references);
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
