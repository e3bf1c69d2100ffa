//! No trace of what was deleted.
//!
//! A destroyed key is destroyed when its wrapped form is nowhere any more. Three places keep what was deleted: the journal, until it is
//! folded into the file and emptied; free pages, which `secure_delete` fills with zeros; and pages in use, where it zeroes what is
//! deleted, but not the copies that are left behind when rows move between pages. So the tables that hold keys are written anew first:
//! all of their pages become free, and only rows that are there now get into new ones.

use std::time::Duration;

use sqlx::{Executor as _, Row as _, SqliteConnection};

use crate::writer::{Maintenance, run_sql};
use crate::{Catalog, CatalogError};

/// How long [`Catalog::scrub`] waits for readers; a read takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts, in which changes go on.
const PAUSE: Duration = Duration::from_millis(50);

impl Catalog {
    /// Leaves nothing of keys that were deleted or replaced before this call, neither in the catalog's file nor in its journal. Other
    /// rows that were deleted may leave traces, all of them sealed under such keys or in clear anyway.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unscrubbed`] when something goes on reading for ten seconds, [`CatalogError::Sql`]; call again then.
    pub async fn scrub(&self) -> Result<(), CatalogError> {
        self.scrub_within(PATIENCE).await
    }

    async fn scrub_within(&self, patience: Duration) -> Result<(), CatalogError> {
        self.writer.maintain(Maintenance::Rewrite).await?;
        let folded = async {
            loop {
                match self.writer.maintain(Maintenance::Fold).await {
                    Err(CatalogError::Unscrubbed) => tokio::time::sleep(PAUSE).await,
                    done => return done,
                }
            }
        };
        tokio::time::timeout(patience, folded).await.unwrap_or(Err(CatalogError::Unscrubbed))
    }
}

/// Without foreign keys, which heed each deleted row, SQLite frees a table's pages instead of walking through its rows.
pub(crate) async fn rewrite(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    run_sql(connection, "suspend foreign keys", "PRAGMA foreign_keys = OFF").await?;
    let rewritten = rewrite_keys(connection).await;
    if rewritten.is_err() {
        // As in the writer: when this fails, there is nothing to roll back.
        let _ = connection.execute(sqlx::query("ROLLBACK")).await;
    }
    run_sql(connection, "resume foreign keys", "PRAGMA foreign_keys = ON").await?;
    rewritten
}

async fn rewrite_keys(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    run_sql(connection, "begin", "BEGIN IMMEDIATE").await?;
    for sql in [
        "CREATE TEMP TABLE kept_aeks AS SELECT * FROM aeks",
        "DELETE FROM aeks",
        "INSERT INTO aeks SELECT * FROM kept_aeks ORDER BY id",
        "DROP TABLE kept_aeks",
        "CREATE TEMP TABLE kept_keys AS SELECT * FROM workspace_keys",
        "DELETE FROM workspace_keys",
        "INSERT INTO workspace_keys SELECT * FROM kept_keys ORDER BY workspace_id, slot",
        "DROP TABLE kept_keys",
    ] {
        run_sql(connection, "rewrite keys", sql).await?;
    }
    run_sql(connection, "commit", "COMMIT").await
}

/// Folds the whole journal into the file and empties it; [`CatalogError::Unscrubbed`] when a reader still needs it. Does not wait for
/// that reader, since changes wait for this.
pub(crate) async fn fold(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    run_sql(connection, "set patience", "PRAGMA busy_timeout = 0").await?;
    let folded = connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)").await.map_err(CatalogError::sql("checkpoint"));
    // As sqlx sets it when it connects.
    run_sql(connection, "set patience", "PRAGMA busy_timeout = 5000").await?;
    let is_busy = folded?.first().is_none_or(|row| row.try_get::<i64, _>(0).ok() != Some(0));
    if is_busy { Err(CatalogError::Unscrubbed) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
