//! Changes as SQL, by what they are about. Each runs inside the writer's transaction.

mod accounts;
mod segments;
mod wal_files;

use logseal_crypto::MacKey;
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};
use sqlx::{Executor as _, Sqlite};

use crate::codec::{Decode, read};
use crate::{CatalogError, Change};

/// Applies `change`; when this fails, what it did so far is the caller's to roll back.
pub(crate) async fn apply(
    connection: &mut SqliteConnection,
    mac_key: &MacKey,
    change: &Change,
) -> Result<(), CatalogError> {
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
        Change::AddAek(aek) => rows.add_aek(aek).await,
        Change::AddTable { table, columns } => {
            rows.add_table_once(table).await?;
            for column in columns {
                rows.add_column_once(column).await?;
            }
            Ok(())
        }
        Change::CommitSegment(commit) => rows.commit_segment(commit).await,
        Change::RegisterWalFile(file) => rows.register_wal_file(file).await,
        Change::SetWalFileState { file, state, at } => rows.set_wal_file_state(*file, *state, *at).await,
        Change::Quarantine(coverage) => rows.quarantine(coverage).await,
        Change::ForgetWalFiles { retired_before } => rows.forget_wal_files(*retired_before).await,
    }
}

/// The rows as the transaction sees them.
struct Rows<'c> {
    connection: &'c mut SqliteConnection,
    mac_key: &'c MacKey,
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

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

    async fn execute(&mut self, operation: &'static str, query: Query<'_>) -> Result<(), CatalogError> {
        self.connection.execute(query).await.map(drop).map_err(CatalogError::sql(operation))
    }

    /// The rows that `query` finds, each checked against its MAC.
    async fn find<R: Decode>(&mut self, query: Query<'_>) -> Result<Vec<R>, CatalogError> {
        let rows = self.connection.fetch_all(query).await.map_err(CatalogError::sql("look up"))?;
        rows.iter().map(|row| read(self.mac_key, row)).collect()
    }
}

/// A number as SQLite holds it. One that does not fit is refused: stored as anything else it would fail its MAC for ever.
fn signed(kind: &'static str, id: impl FnOnce() -> String, value: u64) -> Result<i64, CatalogError> {
    i64::try_from(value).map_err(|_| CatalogError::Invalid { kind, id: id(), why: "a number is larger than 2^63 - 1" })
}
