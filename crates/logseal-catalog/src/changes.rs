//! Changes as SQL, by what they are about. Each runs inside the writer's transaction.

mod accounts;
mod aek_wraps;
mod audit;
mod control;
mod kek_versions;
mod links;
mod segments;
mod shred;
mod tokens;
mod usage;
mod wal_files;
mod workspace_keys;

use std::fmt::Display;

use logseal_crypto::MacKey;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor as _, Sqlite};

use crate::change::Concerned;
use crate::codec::{Decode, read};
use crate::{CatalogError, Change};

/// Applies `change`, and adds to `concerned` the clusters that it may be about, as [`crate::Catalog::cluster_version`] means it. When this
/// fails, what it did so far is the caller's to roll back.
pub(crate) async fn apply(
    connection: &mut SqliteConnection,
    mac_key: &MacKey,
    change: &Change,
    concerned: &mut Concerned,
) -> Result<(), CatalogError> {
    concerned.add(change.concerned());
    let mut rows = Rows { connection, mac_key, concerned };
    match change {
        Change::All(changes) => {
            for change in changes {
                rows.apply(change).await?;
            }
            Ok(())
        }
        change => rows.apply(change).await,
    }
}

/// The rows as the transaction sees them.
struct Rows<'c> {
    connection: &'c mut SqliteConnection,
    mac_key: &'c MacKey,
    /// Clusters of which a change turns out to be.
    concerned: &'c mut Concerned,
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

impl Rows<'_> {
    async fn apply(&mut self, change: &Change) -> Result<(), CatalogError> {
        match change {
            Change::All(_) => {
                let why = "it is part of another one of its kind";
                Err(CatalogError::Invalid { kind: "change", id: "All".to_owned(), why })
            }
            Change::AddCluster(cluster) => self.add_cluster(cluster).await,
            Change::AddWorkspace { workspace, keys, aek, tables } => {
                self.add_workspace(workspace).await?;
                self.add_aek(aek).await?;
                for key in keys {
                    self.add_workspace_key(key).await?;
                }
                for table in tables {
                    self.add_table(table).await?;
                }
                Ok(())
            }
            Change::AddAek(aek) => self.add_aek(aek).await,
            Change::AddTable { table, columns } => {
                self.add_table_once(table).await?;
                for column in columns {
                    self.refuse_older_seal(table, column).await?;
                    self.add_column_once(column).await?;
                }
                Ok(())
            }
            Change::CommitSegment(commit) => self.commit_segment(commit).await,
            Change::RegisterWalFile(file) => self.register_wal_file(file).await,
            Change::SetWalFileState { file, state, at } => self.set_wal_file_state(*file, *state, *at).await,
            Change::Quarantine(coverage) => self.quarantine(coverage).await,
            Change::ForgetWalFiles { retired_before } => self.forget_wal_files(*retired_before).await,
            Change::PutResource { row, expected } => self.put_resource(row, *expected).await,
            Change::RemoveResource { id, expected } => self.remove_resource(*id, *expected).await,
            Change::PutOperation { row, expected } => self.put_operation(row, *expected).await,
            Change::ForgetOperations { ended_before } => self.forget_operations(*ended_before).await,
            Change::SwitchKek { cluster, kek, aeks } => self.switch_kek(*cluster, kek, aeks).await,
            Change::MoveWorkspace { workspace, from, to, aek, rewrapped, columns } => {
                let link = links::Link { workspace: *workspace, from: *from, to: *to };
                self.move_workspace(&link, aek, rewrapped, columns).await
            }
            Change::ReplaceWorkspaceKey(key) => self.replace_workspace_key(key).await,
            Change::RemoveCluster { cluster } => self.remove_cluster(*cluster).await,
            Change::ShredAeks { aeks, at } => self.shred_aeks(aeks, *at).await,
            Change::ShredWorkspace { workspace, at } => self.shred_workspace(*workspace, *at).await,
            Change::RemoveSegments { segments, at } => self.remove_segments(segments, *at).await,
            Change::AddGarbage { paths, at } => self.add_garbage(paths, *at).await,
            Change::ForgetGarbage { paths } => self.forget_garbage(paths).await,
            Change::PutUsage(rows) => self.put_usage(rows).await,
            Change::PutWorkspaceKeyUses(rows) => self.put_workspace_key_uses(rows).await,
            Change::PutKekVersion(row) => self.put_kek_version(row).await,
            Change::ReserveAekWraps(row) => self.reserve_aek_wraps(row).await,
            Change::AddToken(row) => self.add_token(row).await,
            Change::RemoveToken { name } => self.remove_token(name).await,
            Change::Audit(entry) => self.audit(entry).await,
        }
    }

    /// Adds or replaces a row; what must be its own and is another row's already is a conflict.
    async fn store(&mut self, kind: &'static str, id: String, query: Query<'_>) -> Result<(), CatalogError> {
        self.connection.execute(query).await.map(drop).map_err(|error| match error.as_database_error() {
            Some(e) if e.is_unique_violation() => CatalogError::Conflict { kind, id },
            _ => CatalogError::sql("store")(error),
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

    /// The one row that `sql` finds for `id`.
    async fn find_one<R: Decode>(&mut self, sql: &'static str, id: &[u8; 16]) -> Result<Option<R>, CatalogError> {
        Ok(self.find(with_id(sql, id)).await?.pop())
    }

    /// Whether `query` finds anything.
    async fn any(&mut self, query: Query<'_>) -> Result<bool, CatalogError> {
        let row = self.connection.fetch_optional(query).await.map_err(CatalogError::sql("look up"))?;
        Ok(row.is_some())
    }
}

fn with_id<'q>(sql: &'static str, id: &[u8; 16]) -> Query<'q> {
    sqlx::query(sql).bind(id.to_vec())
}

/// What it means when SQLite does not add a row that refers to `kind` `id`, and to nothing else that may be missing.
fn lacking(kind: &'static str, id: impl Display) -> impl FnOnce(CatalogError) -> CatalogError {
    move |error| if breaks_reference(&error) { CatalogError::Unknown { kind, id: id.to_string() } } else { error }
}

/// Whether SQLite refused because one row would refer to another one that is not there.
fn breaks_reference(error: &CatalogError) -> bool {
    let CatalogError::Sql { source, .. } = error else { return false };
    source.as_database_error().is_some_and(|error| error.is_foreign_key_violation())
}

/// A number as SQLite holds it. One that does not fit is refused: stored as anything else it would fail its MAC for ever.
fn signed(kind: &'static str, id: impl FnOnce() -> String, value: u64) -> Result<i64, CatalogError> {
    i64::try_from(value).map_err(|_| CatalogError::Invalid { kind, id: id(), why: "a number is larger than 2^63 - 1" })
}
