//! All changes go through one task and one connection.
//!
//! The task takes what is waiting, applies it in one `BEGIN IMMEDIATE` transaction, each change in a savepoint of its own,
//! and answers after the commit: one fsync serves many changes, and a change that is refused takes no other one with it.
//! When the storage fails (full, I/O error, busy), the whole group is rolled back and each of its changes is told so; the
//! next group begins afresh.

use std::sync::Arc;

use logseal_core::{UnixNanos, WalFileId};
use logseal_crypto::MacKey;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use crate::{
    AekRow, CatalogError, ClusterRow, ColumnRow, CoverageRow, SegmentRow, TableRow, WalFileRow, WalFileState,
    WorkspaceKeyRow, WorkspaceRow, changes,
};

/// Changes that wait for the task; senders beyond it wait in turn, so memory stays bounded.
const QUEUE: usize = 256;

/// Most changes of one transaction.
const GROUP: usize = 64;

/// A change of the catalog.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a cluster.
    AddCluster(ClusterRow),
    /// Adds a workspace with its access keys, its first AEK and its tables.
    AddWorkspace {
        /// The workspace.
        workspace: WorkspaceRow,
        /// Its access keys.
        keys: Vec<WorkspaceKeyRow>,
        /// Its first AEK.
        aek: AekRow,
        /// Its tables.
        tables: Vec<TableRow>,
    },
    /// Adds a further AEK of a workspace.
    AddAek(AekRow),
    /// Adds a table and attribute columns of it; what is there already stays as it is.
    AddTable {
        /// The table.
        table: TableRow,
        /// Columns, from some position on.
        columns: Vec<ColumnRow>,
    },
    /// Makes a segment visible; nothing is changed when that very segment, with the same coverage, is there.
    CommitSegment(Box<SegmentCommit>),
    /// Adds a file of the write-ahead log; nothing is changed when the very row is there.
    RegisterWalFile(WalFileRow),
    /// Changes what is known of a file of the write-ahead log; nothing is changed when it is in that state already.
    SetWalFileState {
        /// The file.
        file: WalFileId,
        /// Its state from now on.
        state: WalFileState,
        /// When that was found.
        at: UnixNanos,
    },
    /// Settles damaged frames: rows without a segment.
    Quarantine(Vec<CoverageRow>),
    /// Removes the rows of retired files of the write-ahead log with their coverage.
    ForgetWalFiles {
        /// Files retired at this time or later stay.
        retired_before: UnixNanos,
    },
}

/// A segment with what must become visible with it.
#[derive(Clone, Debug)]
pub struct SegmentCommit {
    /// The segment.
    pub segment: SegmentRow,
    /// The table, added when it is not there yet.
    pub table: TableRow,
    /// Attribute columns, added when they are not there yet.
    pub columns: Vec<ColumnRow>,
    /// The frames of the write-ahead log that the segment holds: rows of its table and AEK that name the segment.
    pub coverage: Vec<CoverageRow>,
    /// Sequence numbers that are known to have been durable, by file; they raise [`WalFileRow::attested`] and never lower it.
    /// Files without a row are passed over.
    pub attested: Vec<(WalFileId, u64)>,
}

type Reply = oneshot::Sender<Result<(), CatalogError>>;

/// What the task is sent: a change, or `None` to close the connection; and where the outcome goes.
type Job = (Option<Change>, Reply);

/// Sends changes to the writer task, which ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    pub(crate) fn start(connection: SqliteConnection, mac_key: Arc<MacKey>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, mac_key, waiting));
        Self { queue }
    }

    pub(crate) async fn apply(&self, change: Change) -> Result<(), CatalogError> {
        self.send(Some(change)).await
    }

    /// Ends the task after the changes that wait, and closes the connection: SQLite then folds its journal into the file.
    pub(crate) async fn close(&self) -> Result<(), CatalogError> {
        self.send(None).await
    }

    async fn send(&self, change: Option<Change>) -> Result<(), CatalogError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send((change, reply)).await.map_err(|_| CatalogError::Stopped)?;
        answer.await.map_err(|_| CatalogError::Stopped)?
    }
}

async fn run(mut connection: SqliteConnection, mac_key: Arc<MacKey>, mut waiting: mpsc::Receiver<Job>) {
    let (mut jobs, mut closing) = (Vec::with_capacity(GROUP), None);
    while closing.is_none() && waiting.recv_many(&mut jobs, GROUP).await > 0 {
        let mut group = Vec::with_capacity(jobs.len());
        for (change, reply) in jobs.drain(..) {
            match change {
                Some(change) => group.push((change, reply)),
                None => closing = Some(reply),
            }
        }
        let mut outcomes = Vec::with_capacity(group.len());
        let committed = commit_group(&mut connection, &mac_key, &group, &mut outcomes).await;
        for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
            // A caller that went away no longer wants the answer; the change stands.
            let _ = reply.send(committed.clone().and(outcome));
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
) -> Result<(), CatalogError> {
    outcomes.resize(group.len(), Ok(()));
    let result = transact(connection, mac_key, group, outcomes).await;
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
) -> Result<(), CatalogError> {
    run_sql(connection, "begin", "BEGIN IMMEDIATE").await?;
    for ((change, _), outcome) in group.iter().zip(outcomes) {
        run_sql(connection, "savepoint", "SAVEPOINT one_change").await?;
        *outcome = changes::apply(connection, mac_key, change).await;
        match outcome {
            Err(error) if error.is_storage() => return Err(error.clone()),
            Err(_) => run_sql(connection, "roll back to savepoint", "ROLLBACK TO one_change").await?,
            Ok(()) => {}
        }
        run_sql(connection, "release savepoint", "RELEASE one_change").await?;
    }
    run_sql(connection, "commit", "COMMIT").await
}

async fn run_sql(
    connection: &mut SqliteConnection,
    operation: &'static str,
    sql: &'static str,
) -> Result<(), CatalogError> {
    connection.execute(sqlx::query(sql)).await.map(drop).map_err(CatalogError::sql(operation))
}

#[cfg(test)]
mod tests;
