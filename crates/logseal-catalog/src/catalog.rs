//! Opening and reading the catalog.

use std::path::Path;
use std::sync::Arc;

use logseal_core::{SegmentId, TableId, WorkspaceId};
use logseal_crypto::MacKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, SqliteConnection};

use crate::codec::{Decode, read};
use crate::rows::Authenticated as _;
use crate::writer::Writer;
use crate::{
    AekRow, CatalogError, Change, ClusterRow, ColumnRow, CoverageRow, SegmentRow, TableRow, WalFileRow,
    WorkspaceKeyRow, WorkspaceRow, schema,
};

/// Read-only connections; a read takes milliseconds, so a few serve many callers.
const READERS: u32 = 4;

/// The catalog of one deployment.
#[derive(Clone, Debug)]
pub struct Catalog {
    readers: SqlitePool,
    writer: Writer,
    mac_key: Arc<MacKey>,
}

/// One workspace's tables, columns, segments and coverage at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its tables.
    pub tables: Vec<TableRow>,
    /// The attribute columns of all its tables, by table and order of assignment.
    pub columns: Vec<ColumnRow>,
    /// The segments of all its tables, oldest first.
    pub segments: Vec<SegmentRow>,
    /// The settled frames of the streams of all its tables, by stream, file and first sequence number.
    pub coverage: Vec<CoverageRow>,
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
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        let mac_key = Arc::new(mac_key);
        Ok(Self { readers, writer: Writer::start(connection, Arc::clone(&mac_key)), mac_key })
    }

    /// Applies `change`; durable when this returns.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Conflict`] when another row of that name or id exists, [`CatalogError::Covered`] when frames are settled
    /// already, [`CatalogError::Unknown`], [`CatalogError::Invalid`], [`CatalogError::Integrity`] when a row that the change
    /// builds on was altered, [`CatalogError::Sql`]; nothing is changed then. [`CatalogError::is_storage`] tells what may succeed
    /// later. A change whose answer was lost may be applied again.
    pub async fn apply(&self, change: Change) -> Result<(), CatalogError> {
        self.writer.apply(change).await
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
        self.all(sqlx::query("SELECT * FROM clusters ORDER BY name")).await
    }

    /// All workspaces, by name.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM workspaces ORDER BY name")).await
    }

    /// The access keys of all workspaces.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn workspace_keys(&self) -> Result<Vec<WorkspaceKeyRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM workspace_keys ORDER BY workspace_id, slot")).await
    }

    /// The AEKs of all workspaces, oldest generation first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn aeks(&self) -> Result<Vec<AekRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM aeks ORDER BY workspace_id, generation")).await
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

    /// The tables and columns of `workspace`, without its segments and coverage.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn schema(&self, workspace: WorkspaceId) -> Result<Snapshot, CatalogError> {
        let mut transaction = self.readers.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        self.read_schema(&mut transaction, workspace).await
    }

    /// The tables, columns, segments and coverage of `workspace`, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn snapshot(&self, workspace: WorkspaceId) -> Result<Snapshot, CatalogError> {
        let mut transaction = self.readers.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        let schema = self.read_schema(&mut transaction, workspace).await?;
        // A row whose owner was altered is still found by the other one of its two owners, and then fails its MAC.
        let segments = sqlx::query(
            "SELECT * FROM segments WHERE workspace_id = ?1 \
             OR table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) ORDER BY table_id, min_time, id",
        )
        .bind(workspace.as_bytes().as_slice());
        let segments: Vec<SegmentRow> = self.read_all(&mut transaction, segments).await?;
        let coverage = sqlx::query(
            "SELECT * FROM coverage WHERE table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) \
             OR segment_id IN (SELECT id FROM segments WHERE workspace_id = ?1) \
             ORDER BY table_id, aek_id, file_id, first",
        )
        .bind(workspace.as_bytes().as_slice());
        let coverage: Vec<CoverageRow> = self.read_all(&mut transaction, coverage).await?;
        let known = |id: TableId| schema.tables.iter().any(|table| table.id == id);
        if let Some(row) = segments.iter().find(|row| row.workspace != workspace || !known(row.table)) {
            return Err(CatalogError::Integrity { kind: SegmentRow::KIND, id: row.label() });
        }
        if let Some(row) = coverage.iter().find(|row| !known(row.table)) {
            return Err(CatalogError::Integrity { kind: CoverageRow::KIND, id: row.label() });
        }
        Ok(Snapshot { segments, coverage, ..schema })
    }

    /// All tables and columns are read and authenticated before those of `workspace` are picked: selecting by an owner that
    /// is not authenticated yet would hide an altered row instead of refusing it.
    async fn read_schema(
        &self,
        connection: &mut SqliteConnection,
        workspace: WorkspaceId,
    ) -> Result<Snapshot, CatalogError> {
        let mut tables: Vec<TableRow> =
            self.read_all(connection, sqlx::query("SELECT * FROM tables ORDER BY workspace_id, name")).await?;
        let columns = sqlx::query("SELECT * FROM columns ORDER BY table_id, ordinal");
        let mut columns: Vec<ColumnRow> = self.read_all(connection, columns).await?;
        if let Some(row) = columns.iter().find(|row| !tables.iter().any(|table| table.id == row.table)) {
            return Err(CatalogError::Integrity { kind: "column", id: format!("{}/{}", row.table, row.ordinal) });
        }
        tables.retain(|table| table.workspace == workspace);
        columns.retain(|column| tables.iter().any(|table| table.id == column.table));
        Ok(Snapshot { tables, columns, ..Snapshot::default() })
    }

    async fn all<R: Decode>(&self, query: Query<'_>) -> Result<Vec<R>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.read_all(&mut connection, query).await
    }

    async fn read_all<R: Decode>(
        &self,
        connection: &mut SqliteConnection,
        query: Query<'_>,
    ) -> Result<Vec<R>, CatalogError> {
        let rows = connection.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
        rows.iter().map(|row| read(&self.mac_key, row)).collect()
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Makes the tables of a new file and brings an older one to this format; refuses a file of a newer one.
async fn prepare(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    if format(connection).await? == schema::FORMAT {
        return Ok(());
    }
    // All steps in one transaction: a crash leaves the old format, whole.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(CatalogError::sql("begin"))?;
    let found = format(&mut transaction).await?;
    let steps = usize::try_from(found).ok().and_then(|found| schema::STEPS.get(found..));
    for step in steps.ok_or(CatalogError::Format { found, known: schema::FORMAT })? {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(CatalogError::sql("create tables"))?;
    }
    let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", schema::FORMAT));
    sqlx::raw_sql(version).execute(&mut *transaction).await.map_err(CatalogError::sql("set format"))?;
    transaction.commit().await.map_err(CatalogError::sql("commit"))
}

/// The file's format; 0 when it is new.
pub(crate) async fn format(connection: &mut SqliteConnection) -> Result<i64, CatalogError> {
    let row = connection.fetch_one("PRAGMA user_version").await.map_err(CatalogError::sql("read format"))?;
    Ok(row.get(0))
}

#[cfg(test)]
pub(crate) mod tests;
