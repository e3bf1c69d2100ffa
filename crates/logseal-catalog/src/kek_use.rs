//! Which key versions wrap how many account keys of a cluster: what shows that a rotation has ended.

use logseal_core::ClusterId;
use sqlx::Row as _;

use crate::{Catalog, CatalogError};

/// How many account keys of a cluster one version of a key wraps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KekUse {
    /// The key's version.
    pub version: String,
    /// How many account keys it wraps.
    pub wrapped_keys: u64,
}

impl Catalog {
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
