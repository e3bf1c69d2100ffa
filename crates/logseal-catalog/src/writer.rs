//! All changes go through one task and one connection.
//!
//! The task takes what is waiting, applies it in one `BEGIN IMMEDIATE` transaction, each change in a savepoint of its own,
//! and answers after the commit: one fsync serves many changes, and a change that is refused takes no other one with it.

use std::sync::Arc;

use logseal_core::WorkspaceId;
use logseal_crypto::MacKey;
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AekRow, CatalogError, ClusterRow, ColumnRow, SegmentRow, TableRow, WorkspaceKeyRow, WorkspaceRow};

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
    /// Makes a segment visible.
    CommitSegment(Box<SegmentCommit>),
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
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::sql("begin"))?;
    for ((change, _), outcome) in group.iter().zip(outcomes) {
        let mut savepoint = transaction.begin().await.map_err(CatalogError::sql("savepoint"))?;
        *outcome = apply(&mut savepoint, mac_key, change).await;
        let ended = if outcome.is_ok() { savepoint.commit().await } else { savepoint.rollback().await };
        ended.map_err(CatalogError::sql("savepoint"))?;
    }
    transaction.commit().await.map_err(CatalogError::sql("commit"))
}

async fn apply(connection: &mut SqliteConnection, mac_key: &MacKey, change: &Change) -> Result<(), CatalogError> {
    let mut rows = Rows { connection, mac_key };
    match change {
        Change::AddCluster(cluster) => rows.add_cluster(cluster).await,
        Change::AddWorkspace { workspace, keys, aek, tables } => {
            rows.add_workspace(workspace).await?;
            rows.add_aek(aek).await?;
            for key in keys {
                rows.add_workspace_key(key).await?;
            }
            for table in tables {
                rows.add_table(table).await?;
            }
            Ok(())
        }
        Change::CommitSegment(commit) => {
            rows.add_table_once(&commit.table).await?;
            for column in &commit.columns {
                rows.add_column_once(column).await?;
            }
            rows.add_segment(&commit.segment).await
        }
    }
}

struct Rows<'c> {
    connection: &'c mut SqliteConnection,
    mac_key: &'c MacKey,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl Rows<'_> {
    async fn insert(
        &mut self,
        kind: &'static str,
        id: String,
        query: Query<'_>,
    ) -> Result<SqliteQueryResult, CatalogError> {
        self.connection.execute(query).await.map_err(|error| match error.as_database_error() {
            Some(e) if e.is_unique_violation() => CatalogError::Conflict { kind, id },
            _ => CatalogError::sql("insert")(error),
        })
    }

    async fn add_cluster(&mut self, r: &ClusterRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO clusters VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(&r.name)
            .bind(r.created.0)
            .bind(&r.kek.vault_uri)
            .bind(&r.kek.name)
            .bind(&r.kek.version)
            .bind(mac(self.mac_key, r));
        self.insert(ClusterRow::KIND, r.label(), query).await.map(drop)
    }

    async fn add_workspace(&mut self, r: &WorkspaceRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO workspaces VALUES (?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(&r.name)
            .bind(r.cluster.as_bytes().as_slice())
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.insert(WorkspaceRow::KIND, r.label(), query).await.map(drop)
    }

    async fn add_workspace_key(&mut self, r: &WorkspaceKeyRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO workspace_keys VALUES (?, ?, ?, ?, ?, ?)")
            .bind(r.workspace.as_bytes().as_slice())
            .bind(&r.slot)
            .bind(&r.lookup)
            .bind(&r.sealed)
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.insert(WorkspaceKeyRow::KIND, r.label(), query).await.map(drop)
    }

    async fn add_aek(&mut self, r: &AekRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO aeks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.cluster.as_bytes().as_slice())
            .bind(i64::from(r.generation))
            .bind(&r.kek.vault_uri)
            .bind(&r.kek.name)
            .bind(&r.kek.version)
            .bind(&r.wrapped)
            .bind(&r.commitment)
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.insert("AEK", r.id.to_string(), query).await.map(drop)
    }

    async fn add_table(&mut self, r: &TableRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO tables VALUES (?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.name.as_str())
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.insert("table", r.label(), query).await.map(drop)
    }

    /// Adds the table unless this very table is there; another one of the same name is a conflict.
    async fn add_table_once(&mut self, r: &TableRow) -> Result<(), CatalogError> {
        if self.exists("SELECT 1 FROM tables WHERE id = ? AND workspace_id = ?", r.id.as_bytes(), r.workspace).await? {
            return Ok(());
        }
        self.add_table(r).await
    }

    async fn exists(&mut self, sql: &'static str, id: &[u8; 16], workspace: WorkspaceId) -> Result<bool, CatalogError> {
        let query = sqlx::query(sql).bind(id.as_slice()).bind(workspace.as_bytes().as_slice());
        let row = self.connection.fetch_optional(query).await.map_err(CatalogError::sql("look up"))?;
        Ok(row.is_some())
    }

    /// Adds the column unless the table has it at this position already.
    async fn add_column_once(&mut self, r: &ColumnRow) -> Result<(), CatalogError> {
        let query = sqlx::query(
            "INSERT INTO columns VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (table_id, ordinal) DO NOTHING",
        )
        .bind(r.table.as_bytes().as_slice())
        .bind(i64::from(r.ordinal))
        .bind(i64::from(r.container))
        .bind(i64::from(r.kind))
        .bind(r.aek.as_bytes().as_slice())
        .bind(&r.name_sealed)
        .bind(&r.name_fingerprint)
        .bind(mac(self.mac_key, r));
        self.insert("column", r.label(), query).await.map(drop)
    }

    async fn add_segment(&mut self, r: &SegmentRow) -> Result<(), CatalogError> {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let query = sqlx::query("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.table.as_bytes().as_slice())
            .bind(r.aek.as_bytes().as_slice())
            .bind(&r.path)
            .bind(signed(r.bytes))
            .bind(signed(r.rows))
            .bind(r.min_time.0)
            .bind(r.max_time.0)
            .bind(r.created.0)
            .bind(&r.wrapped_dek)
            .bind(&r.dek_commitment)
            .bind(mac(self.mac_key, r));
        self.insert("segment", r.id.to_string(), query).await.map(drop)
    }
}
