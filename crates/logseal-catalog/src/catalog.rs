//! Opening and reading the catalog.

use std::path::Path;
use std::sync::Arc;

use logseal_core::SegmentId;
use logseal_crypto::MacKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, SqliteConnection};

use crate::codec::{Decode, read};
use crate::writer::Writer;
use crate::{
    AekRow, CatalogError, Change, ClusterRow, CoverageRow, SegmentRow, WalFileRow, WorkspaceKeyRow, WorkspaceRow,
    schema,
};

/// Read-only connections; a read takes milliseconds, so a few serve many callers.
const READERS: u32 = 4;

/// The catalog of one deployment.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) readers: SqlitePool,
    writer: Writer,
    mac_key: Arc<MacKey>,
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

    async fn all<R: Decode>(&self, query: Query<'_>) -> Result<Vec<R>, CatalogError> {
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
