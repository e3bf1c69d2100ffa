//! Which frames of some files are settled, for who only looks: nothing is changed, and a server may be running.

use std::path::Path;

use logseal_core::WalFileId;
use logseal_crypto::MacKey;
use sqlx::{Connection as _, Executor as _};

use crate::codec::read;
use crate::{CatalogError, CoverageRow, backup};

/// The rows for `files` in the catalog `file`, by file, stream and first sequence number, all of one moment.
///
/// Unlike [`Catalog::open`](crate::Catalog::open) this neither makes a catalog nor brings an older one to the present format; a
/// catalog from before there was a log has none of these rows. As with [`backup()`](crate::backup()), SQLite leaves the files of its
/// journal, empty, beside a catalog that nobody else has open.
///
/// # Errors
///
/// [`CatalogError::Format`] when `file` is of a newer format or no catalog, [`CatalogError::Integrity`], [`CatalogError::Sql`].
pub async fn coverage_of(file: &Path, mac_key: &MacKey, files: &[WalFileId]) -> Result<Vec<CoverageRow>, CatalogError> {
    let mut connection = backup::open(file).await?;
    let mut found = Vec::new();
    // Format 1 was written before there was a log.
    if backup::check_format(&mut connection).await? > 1 {
        let mut moment = connection.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        for id in files {
            let query = sqlx::query("SELECT * FROM coverage WHERE file_id = ? ORDER BY table_id, aek_id, first")
                .bind(id.as_bytes().as_slice());
            let rows = moment.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
            for row in &rows {
                found.push(read(mac_key, row)?);
            }
        }
        moment.rollback().await.map_err(CatalogError::sql("end snapshot"))?;
    }
    connection.close().await.map_err(CatalogError::sql("close"))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::{coverage, filled, mac_key, run_sql};
    use crate::{Catalog, Change};

    /// Scenario: a server has the catalog open; then it is closed; then a row is altered. Guarantee: the rows of the files that were
    /// asked for, and no others; a row that was altered is refused.
    #[tokio::test]
    async fn the_rows_of_some_files_are_read_while_a_server_runs_and_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        let catalog = filled(&dir).await;
        let rows = [coverage(1, 3, 4, None), coverage(1, 8, 9, None), coverage(2, 1, 7, None)];
        catalog.apply(Change::Quarantine(rows.to_vec())).await.unwrap();
        let ask = async |files: &[u8]| {
            let files: Vec<_> = files.iter().map(|id| WalFileId::from_bytes([*id; 16])).collect();
            coverage_of(&file, &mac_key(1), &files).await
        };
        for when in ["running", "stopped"] {
            if when == "stopped" {
                catalog.close().await.unwrap();
            }
            let before = std::fs::read(&file).unwrap();
            assert_eq!(ask(&[1]).await.unwrap(), rows[..2], "{when}");
            assert_eq!(ask(&[2, 1]).await.unwrap(), [rows[2].clone(), rows[0].clone(), rows[1].clone()], "{when}");
            assert_eq!(ask(&[5]).await.unwrap(), [], "{when}");
            assert!(std::fs::read(&file).unwrap() == before, "{when}: nothing is changed");
        }
        run_sql(&file, "UPDATE coverage SET last = 100 WHERE first = 8").await;
        assert!(matches!(ask(&[1]).await, Err(CatalogError::Integrity { .. })));
        assert_eq!(ask(&[2]).await.unwrap(), rows[2..]);
        let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
        catalog.apply(Change::Quarantine(vec![coverage(3, 1, 1, None)])).await.expect("what only looks holds nothing");
        catalog.close().await.unwrap();
    }

    /// Scenario: there is no catalog; one of format 1; one of a newer format. Guarantee: nothing is made or changed.
    #[tokio::test]
    async fn who_looks_neither_makes_nor_changes_a_catalog() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("catalog.sqlite");
        assert!(coverage_of(&file, &mac_key(1), &[]).await.is_err());
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "none was made");
        std::fs::File::create_new(&file).unwrap();
        for (format, known) in [(1, true), (99, false)] {
            run_sql(&file, &format!("PRAGMA user_version = {format}")).await;
            let before = std::fs::read(&file).unwrap();
            let answer = coverage_of(&file, &mac_key(1), &[WalFileId::from_bytes([1; 16])]).await;
            assert_eq!(answer.is_ok_and(|rows| rows.is_empty()), known, "{format}");
            assert_eq!(std::fs::read(&file).unwrap(), before, "{format}");
        }
    }
}
