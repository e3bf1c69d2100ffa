//! All changes go through one task and one connection.
//!
//! The task takes what is waiting, applies it in one `BEGIN IMMEDIATE` transaction, each change in a savepoint of its own,
//! and answers after the commit: one fsync serves many changes, and a change that is refused takes no other one with it.
//! When the storage fails (full, I/O error, busy), the whole group is rolled back and each of its changes is told so; the
//! next group begins afresh.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logseal_core::ClusterId;
use logseal_crypto::MacKey;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use crate::change::Concerned;
use crate::{CatalogError, Change, changes, scrub};

/// Changes that wait for the task; senders beyond it wait in turn, so memory stays bounded.
const QUEUE: usize = 256;

/// Most changes of one transaction.
const GROUP: usize = 64;

type Reply = oneshot::Sender<Result<(), CatalogError>>;

/// What the task is sent, and where the outcome goes.
#[derive(Debug)]
enum Job {
    Apply(Box<Change>, Reply),
    /// Something for which no transaction may be open; done after the changes that came with it.
    Maintain(Maintenance, Reply),
    /// Ends the task.
    Close(Reply),
}

/// What the connection does beside changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Maintenance {
    /// Writes the keys' pages anew.
    Rewrite,
    /// Folds the journal into the file and empties it.
    Fold,
}

/// Sends changes to the writer task, which ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    clusters: Arc<ClusterVersions>,
}

/// What each cluster's version is: [`crate::Catalog::cluster_version`].
#[derive(Debug, Default)]
struct ClusterVersions {
    /// Counts the changes that may concern any cluster.
    all: AtomicU64,
    /// Counts those of one cluster. It keeps a number for each cluster that ever was within this life.
    each: Mutex<HashMap<ClusterId, u64>>,
}

impl ClusterVersions {
    fn each(&self) -> MutexGuard<'_, HashMap<ClusterId, u64>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, cluster: ClusterId) -> u64 {
        // Both only rise, so their sum changes when one of them does.
        let each = self.each().get(&cluster).copied().unwrap_or(0);
        each + self.all.load(Ordering::SeqCst)
    }

    fn raise(&self, concerned: Concerned) {
        match concerned {
            Concerned::All => {
                self.all.fetch_add(1, Ordering::SeqCst);
            }
            Concerned::Only(clusters) => {
                let mut each = self.each();
                clusters.into_iter().for_each(|cluster| *each.entry(cluster).or_default() += 1);
            }
        }
    }
}

impl Writer {
    pub(crate) fn start(connection: SqliteConnection, mac_key: Arc<MacKey>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let clusters = Arc::<ClusterVersions>::default();
        tokio::spawn(run(connection, mac_key, waiting, Arc::clone(&clusters)));
        Self { queue, clusters }
    }

    /// Rises with every change that may concern the cluster, after it is to be seen and before it is answered.
    pub(crate) fn cluster_version(&self, cluster: ClusterId) -> u64 {
        self.clusters.of(cluster)
    }

    pub(crate) async fn apply(&self, change: Change) -> Result<(), CatalogError> {
        self.send(|reply| Job::Apply(Box::new(change), reply)).await
    }

    pub(crate) async fn maintain(&self, what: Maintenance) -> Result<(), CatalogError> {
        self.send(|reply| Job::Maintain(what, reply)).await
    }

    /// Ends the task after the changes that wait, and closes the connection: SQLite then folds its journal into the file.
    pub(crate) async fn close(&self) -> Result<(), CatalogError> {
        self.send(Job::Close).await
    }

    async fn send(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), CatalogError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(job(reply)).await.map_err(|_| CatalogError::Stopped)?;
        answer.await.map_err(|_| CatalogError::Stopped)?
    }
}

async fn run(
    mut connection: SqliteConnection,
    mac_key: Arc<MacKey>,
    mut waiting: mpsc::Receiver<Job>,
    clusters: Arc<ClusterVersions>,
) {
    let (mut jobs, mut closing) = (Vec::with_capacity(GROUP), None);
    while closing.is_none() && waiting.recv_many(&mut jobs, GROUP).await > 0 {
        let (mut group, mut maintenance) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs.drain(..) {
            match job {
                Job::Apply(change, reply) => group.push((*change, reply)),
                Job::Maintain(what, reply) => maintenance.push((what, reply)),
                Job::Close(reply) => closing = Some(reply),
            }
        }
        if !group.is_empty() {
            let mut outcomes = Vec::with_capacity(group.len());
            let mut concerned = Concerned::default();
            let committed = commit_group(&mut connection, &mac_key, &group, &mut outcomes, &mut concerned).await;
            // Also when the commit failed: whether it did nothing is not certain.
            clusters.raise(concerned);
            for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
                // A caller that went away no longer wants the answer; the change stands.
                let _ = reply.send(committed.clone().and(outcome));
            }
        }
        for (what, reply) in maintenance {
            let done = match what {
                Maintenance::Rewrite => scrub::rewrite(&mut connection).await,
                Maintenance::Fold => scrub::fold(&mut connection).await,
            };
            let _ = reply.send(done);
        }
    }
    let closed = connection.close().await.map_err(CatalogError::sql("close"));
    if let Some(reply) = closing {
        let _ = reply.send(closed);
    }
}

/// Applies `group` in one transaction; `outcomes` gets one entry per change, also when the transaction fails.
async fn commit_group(
    connection: &mut SqliteConnection,
    mac_key: &MacKey,
    group: &[(Change, Reply)],
    outcomes: &mut Vec<Result<(), CatalogError>>,
    concerned: &mut Concerned,
) -> Result<(), CatalogError> {
    outcomes.resize(group.len(), Ok(()));
    let result = transact(connection, mac_key, group, outcomes, concerned).await;
    if result.is_err() {
        // Fails when SQLite has rolled back by itself, as it does for a full disk. If it fails for any other reason, the next
        // `BEGIN` says so.
        let _ = connection.execute(sqlx::query("ROLLBACK")).await;
    }
    result
}

/// The statements are written out because sqlx counts open transactions itself, and its count stays wrong for ever once
/// SQLite has rolled back on its own.
async fn transact(
    connection: &mut SqliteConnection,
    mac_key: &MacKey,
    group: &[(Change, Reply)],
    outcomes: &mut [Result<(), CatalogError>],
    concerned: &mut Concerned,
) -> Result<(), CatalogError> {
    run_sql(connection, "begin", "BEGIN IMMEDIATE").await?;
    for ((change, _), outcome) in group.iter().zip(outcomes) {
        run_sql(connection, "savepoint", "SAVEPOINT one_change").await?;
        *outcome = changes::apply(connection, mac_key, change, concerned).await;
        match outcome {
            Err(error) if error.is_storage() => return Err(error.clone()),
            Err(_) => run_sql(connection, "roll back to savepoint", "ROLLBACK TO one_change").await?,
            Ok(()) => {}
        }
        run_sql(connection, "release savepoint", "RELEASE one_change").await?;
    }
    run_sql(connection, "commit", "COMMIT").await
}

pub(crate) async fn run_sql(
    connection: &mut SqliteConnection,
    operation: &'static str,
    sql: &'static str,
) -> Result<(), CatalogError> {
    connection.execute(sqlx::query(sql)).await.map(drop).map_err(CatalogError::sql(operation))
}

#[cfg(test)]
mod tests;
