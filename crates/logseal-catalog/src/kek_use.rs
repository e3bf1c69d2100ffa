//! Which key versions wrap how many account keys of a cluster, and when each was last used: what shows that a rotation has ended.

use logseal_core::ClusterId;
use sqlx::Row as _;

use crate::{Catalog, CatalogError, KekVersionRow};

/// How many account keys of a cluster one version of a key wraps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KekUse {
    /// The key's version.
    pub version: String,
    /// How many account keys it wraps.
    pub wrapped_keys: u64,
}

impl Catalog {
    /// The KEK versions that `cluster` uses or used, and that were probed.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn kek_versions(&self, cluster: ClusterId) -> Result<Vec<KekVersionRow>, CatalogError> {
        let query = sqlx::query("SELECT * FROM kek_versions WHERE cluster_id = ? ORDER BY used DESC, kek_version");
        self.all(query.bind(cluster.as_bytes().to_vec())).await
    }

    /// The key versions that wrap account keys of `cluster`. Counted, not authenticated: it is for people to look at.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn kek_uses(&self, cluster: ClusterId) -> Result<Vec<KekUse>, CatalogError> {
        let query = sqlx::query(
            "SELECT kek_version, count(*) AS keys FROM aeks WHERE cluster_id = ? GROUP BY kek_version ORDER BY kek_version",
        );
        let failed = CatalogError::sql("count keys");
        let rows = query.bind(cluster.as_bytes().as_slice()).fetch_all(&self.readers).await.map_err(failed)?;
        let count = |row: &sqlx::sqlite::SqliteRow| u64::try_from(row.get::<i64, _>("keys")).unwrap_or(0);
        Ok(rows.iter().map(|row| KekUse { version: row.get("kek_version"), wrapped_keys: count(row) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::tests::{filled, kek_version, run_sql};
    use crate::{CatalogError, Change, KekRow, KekVersionRow};

    fn row(version: &str, used: i64) -> KekVersionRow {
        let noted = kek_version(used);
        KekVersionRow { kek: KekRow { version: version.to_owned(), ..noted.kek }, ..noted }
    }

    /// Scenario: versions are noted, one of them twice, and one of a cluster that is not there. Guarantee: each is kept as it was noted
    /// last, the one used last comes first, and an altered one is refused.
    #[tokio::test]
    async fn versions_are_kept_as_they_were_noted_last() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let gone = KekVersionRow { cluster: logseal_core::ClusterId::from_bytes([0xEE; 16]), ..row("a", 1) };
        for noted in [row("a", 5), row("b", 6), row("a", 9), gone.clone()] {
            catalog.apply(Change::PutKekVersion(noted)).await.unwrap();
        }
        assert_eq!(catalog.kek_versions(row("a", 0).cluster).await.unwrap(), [row("a", 9), row("b", 6)]);
        assert_eq!(catalog.kek_versions(gone.cluster).await.unwrap(), []);
        run_sql(&dir.path().join("catalog.sqlite"), "UPDATE kek_versions SET used = 7 WHERE kek_version = 'b'").await;
        let refused = catalog.kek_versions(row("a", 0).cluster).await;
        assert!(matches!(refused, Err(CatalogError::Integrity { kind: "KEK version", .. })), "{refused:?}");
    }
}
