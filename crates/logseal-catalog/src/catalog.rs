//! Opening and reading the catalog.

use std::path::Path;
use std::sync::Arc;

use logseal_core::{AekId, ClusterId, SegmentId, WorkspaceId};
use logseal_crypto::MacKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, SqliteConnection};

use crate::codec::{Decode, read};
use crate::writer::{Writer, run_sql};
use crate::{
    AekRow, CatalogError, Change, ClusterRow, ColumnRow, CoverageRow, SegmentRow, TableRow, WalFileRow,
    WorkspaceKeyRow, WorkspaceRow, schema,
};

/// Read-only connections; a read takes milliseconds, so a few serve many callers.
const READERS: u32 = 4;

pub(crate) const WORKSPACE: &str = "SELECT * FROM workspaces WHERE id = ?1";

const WORKSPACES_OF: &str = "SELECT * FROM workspaces WHERE cluster_id = ?1 ORDER BY name, id";

const WORKSPACE_KEYS_OF: &str = "SELECT * FROM workspace_keys WHERE workspace_id = ?1 ORDER BY slot";

const WORKSPACE_KEYS: &str = "SELECT * FROM workspace_keys ORDER BY workspace_id, slot";

const AEK: &str = "SELECT * FROM aeks WHERE id = ?1";

const AEKS_OF: &str = "SELECT * FROM aeks WHERE workspace_id = ?1 ORDER BY generation";

const AEKS_OF_CLUSTER: &str = "SELECT * FROM aeks WHERE cluster_id = ?1 ORDER BY workspace_id, generation";

const ORPHAN_TABLES: &str = "SELECT * FROM tables WHERE workspace_id NOT IN (SELECT id FROM workspaces) LIMIT 100";

const ORPHAN_COLUMNS: &str = "SELECT * FROM columns WHERE table_id NOT IN (SELECT id FROM tables) \
    OR aek_id NOT IN (SELECT id FROM aeks) LIMIT 100";

const ORPHAN_AEKS: &str = "SELECT * FROM aeks WHERE workspace_id NOT IN (SELECT id FROM workspaces) LIMIT 100";

/// The catalog of one deployment.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) readers: SqlitePool,
    pub(crate) writer: Writer,
    pub(crate) mac_key: Arc<MacKey>,
}

impl Catalog {
    /// Opens the catalog in `file`, made when it is missing. Rows are authenticated under `mac_key`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Format`] when a newer version wrote it, [`CatalogError::Sql`].
    pub async fn open(file: &Path, mac_key: MacKey) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging();
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(CatalogError::sql("open"))?;
        prepare(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // A ping finds connections that a network has cut: there is none here, and it doubles the time of a small read.
            .test_before_acquire(false)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        let mac_key = Arc::new(mac_key);
        Ok(Self { readers, writer: Writer::start(connection, Arc::clone(&mac_key)), mac_key })
    }

    /// Applies `change`; durable when this returns.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Conflict`] when another row of that name or id exists, [`CatalogError::Covered`] when frames are settled
    /// already, [`CatalogError::Stale`] when rows changed since they were read, [`CatalogError::Busy`] when another operation goes
    /// on, [`CatalogError::Unknown`], [`CatalogError::Invalid`], [`CatalogError::Integrity`] when a row that the change
    /// builds on was altered, [`CatalogError::Sql`]; nothing is changed then. [`CatalogError::is_storage`] tells what may succeed
    /// later. A change whose answer was lost may be applied again.
    pub async fn apply(&self, change: Change) -> Result<(), CatalogError> {
        self.writer.apply(change).await
    }

    /// A number that rises when the cluster, its keys, or which workspaces are linked to it may have changed: what was read while it stayed
    /// the same is still so. Of what workspaces' resources say only counts whether they are deleted.
    #[must_use]
    pub fn cluster_version(&self, cluster: ClusterId) -> u64 {
        self.writer.cluster_version(cluster)
    }

    /// Closes all connections; later calls fail.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`] when the journal could not be folded into the file. Nothing is lost then: the next start does it.
    pub async fn close(&self) -> Result<(), CatalogError> {
        self.readers.close().await;
        self.writer.close().await
    }

    /// All clusters, by name.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Integrity`] or [`CatalogError::Sql`].
    pub async fn clusters(&self) -> Result<Vec<ClusterRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM clusters ORDER BY name, id")).await
    }

    /// The cluster `id`; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn cluster(&self, id: ClusterId) -> Result<Option<ClusterRow>, CatalogError> {
        let query = sqlx::query("SELECT * FROM clusters WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(self.all(query).await?.pop())
    }

    /// All workspaces, by name.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM workspaces ORDER BY name, id")).await
    }

    /// The workspace `id`; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<WorkspaceRow>, CatalogError> {
        Ok(self.all(sqlx::query(WORKSPACE).bind(id.as_bytes().as_slice())).await?.pop())
    }

    /// The workspaces that are linked to `cluster`, by name.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; other clusters' rows do not matter.
    pub async fn workspaces_of(&self, cluster: ClusterId) -> Result<Vec<WorkspaceRow>, CatalogError> {
        self.all(sqlx::query(WORKSPACES_OF).bind(cluster.as_bytes().as_slice())).await
    }

    /// The access keys of all workspaces.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn workspace_keys(&self) -> Result<Vec<WorkspaceKeyRow>, CatalogError> {
        self.all(sqlx::query(WORKSPACE_KEYS)).await
    }

    /// The access keys of `workspace`, by slot.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; rows of other workspaces do not matter.
    pub async fn workspace_keys_of(&self, workspace: WorkspaceId) -> Result<Vec<WorkspaceKeyRow>, CatalogError> {
        self.all(sqlx::query(WORKSPACE_KEYS_OF).bind(workspace.as_bytes().as_slice())).await
    }

    /// The access keys of `workspace` that are genuine, by slot.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn genuine_workspace_keys_of(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Vec<WorkspaceKeyRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        let query = sqlx::query(WORKSPACE_KEYS_OF).bind(workspace.as_bytes().as_slice());
        let rows = connection.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
        Ok(rows.iter().filter_map(|row| read(&self.mac_key, row).ok()).collect())
    }

    /// The access keys of all workspaces that are genuine, and why each other one is refused.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn genuine_workspace_keys(&self) -> Result<(Vec<WorkspaceKeyRow>, Vec<CatalogError>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.sift(&mut connection, WORKSPACE_KEYS).await
    }

    /// What is wrong with tables, columns and AEKs that belong to nobody: the first hundred of each. The catalog never lets one come
    /// about, so their rows or those of their owners were altered. Reading what belongs to some workspace does not come across them.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn orphans(&self) -> Result<Vec<CatalogError>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        let mut orphans = self.orphans_of::<TableRow>(&mut connection, ORPHAN_TABLES).await?;
        orphans.extend(self.orphans_of::<ColumnRow>(&mut connection, ORPHAN_COLUMNS).await?);
        orphans.extend(self.orphans_of::<AekRow>(&mut connection, ORPHAN_AEKS).await?);
        Ok(orphans)
    }

    async fn orphans_of<R: Decode>(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<Vec<CatalogError>, CatalogError> {
        let (genuine, mut refused) = self.sift::<R>(connection, sql).await?;
        refused.extend(genuine.iter().map(|row| CatalogError::Integrity { kind: R::KIND, id: row.label() }));
        Ok(refused)
    }

    /// The AEKs of all workspaces, oldest generation first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn aeks(&self) -> Result<Vec<AekRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM aeks ORDER BY workspace_id, generation")).await
    }

    /// The AEKs of `workspace`, oldest generation first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; rows of other workspaces do not matter.
    pub async fn aeks_of(&self, workspace: WorkspaceId) -> Result<Vec<AekRow>, CatalogError> {
        self.all(sqlx::query(AEKS_OF).bind(workspace.as_bytes().as_slice())).await
    }

    /// The AEKs of all generations and workspaces that `cluster`'s KEK wraps.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; other clusters' rows do not matter.
    pub async fn aeks_of_cluster(&self, cluster: ClusterId) -> Result<Vec<AekRow>, CatalogError> {
        self.all(sqlx::query(AEKS_OF_CLUSTER).bind(cluster.as_bytes().as_slice())).await
    }

    /// The AEK `id`; `None` when it is not there, or its row's id was altered: [`Catalog::aeks`] refuses that.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; other rows do not matter.
    pub async fn aek(&self, id: AekId) -> Result<Option<AekRow>, CatalogError> {
        Ok(self.all(sqlx::query(AEK).bind(id.as_bytes().as_slice())).await?.pop())
    }

    /// One segment; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn segment(&self, id: SegmentId) -> Result<Option<SegmentRow>, CatalogError> {
        let query = sqlx::query("SELECT * FROM segments WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(self.all(query).await?.pop())
    }

    /// All files of the write-ahead log, by cluster and ordinal.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn wal_files(&self) -> Result<Vec<WalFileRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM wal_files ORDER BY cluster_id, ordinal, id")).await
    }

    /// All settled frames of the write-ahead log, by stream, file and first sequence number.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn coverage(&self) -> Result<Vec<CoverageRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM coverage ORDER BY table_id, aek_id, file_id, first")).await
    }

    pub(crate) async fn all<R: Decode>(&self, query: Query<'_>) -> Result<Vec<R>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.read_all(&mut connection, query).await
    }

    /// The rows that `query` finds, each checked against its MAC.
    pub(crate) async fn read_all<R: Decode>(
        &self,
        connection: &mut SqliteConnection,
        query: Query<'_>,
    ) -> Result<Vec<R>, CatalogError> {
        let rows = connection.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
        rows.iter().map(|row| read(&self.mac_key, row)).collect()
    }

    /// The genuine ones of the rows that `sql` finds, and why each other one is refused.
    pub(crate) async fn sift<R: Decode>(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
    ) -> Result<(Vec<R>, Vec<CatalogError>), CatalogError> {
        let rows = connection.fetch_all(sqlx::query(sql)).await.map_err(CatalogError::sql("read"))?;
        let (mut genuine, mut refused) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            match read(&self.mac_key, row) {
                Ok(row) => genuine.push(row),
                Err(error) => refused.push(error),
            }
        }
        Ok((genuine, refused))
    }
}

pub(crate) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Makes the tables of a new file and brings an older one to this format; refuses a file of a newer one.
async fn prepare(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    if format(connection).await? != schema::FORMAT {
        bring_up(connection).await?;
    }
    sqlx::raw_sql(schema::INDEXES).execute(connection).await.map(drop).map_err(CatalogError::sql("create indexes"))
}

async fn bring_up(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    // Tables that others refer to are made anew, and SQLite heeds this outside of transactions only.
    run_sql(connection, "suspend foreign keys", "PRAGMA foreign_keys = OFF").await?;
    take_steps(connection).await?;
    run_sql(connection, "resume foreign keys", "PRAGMA foreign_keys = ON").await
}

async fn take_steps(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    // All steps in one transaction: a crash leaves the old format, whole.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::sql("begin"))?;
    let found = format(&mut transaction).await?;
    let steps = usize::try_from(found).ok().and_then(|found| schema::STEPS.get(found..));
    let steps = steps.ok_or(CatalogError::Format { found, known: schema::FORMAT })?;
    // Rows that were altered so that they belong to nobody are told of by whoever reads them, and are no reason to refuse all others.
    let before = loose_ends(&mut transaction).await?;
    for step in steps {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(CatalogError::sql("create tables"))?;
    }
    if loose_ends(&mut transaction).await? > before {
        return Err(CatalogError::Upgrade { to: schema::FORMAT });
    }
    let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", schema::FORMAT));
    sqlx::raw_sql(version).execute(&mut *transaction).await.map_err(CatalogError::sql("set format"))?;
    transaction.commit().await.map_err(CatalogError::sql("commit"))
}

/// The number of rows that refer to rows that are not there.
async fn loose_ends(connection: &mut SqliteConnection) -> Result<i64, CatalogError> {
    let query = "SELECT count(*) FROM pragma_foreign_key_check";
    let row = connection.fetch_one(query).await.map_err(CatalogError::sql("check foreign keys"))?;
    Ok(row.get(0))
}

/// The file's format; 0 when it is new.
pub(crate) async fn format(connection: &mut SqliteConnection) -> Result<i64, CatalogError> {
    let row = connection.fetch_one("PRAGMA user_version").await.map_err(CatalogError::sql("read format"))?;
    Ok(row.get(0))
}

#[cfg(test)]
pub(crate) mod tests;
