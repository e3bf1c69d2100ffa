//! What workspaces have sent on a day, which their daily caps are held against.

use crate::{Catalog, CatalogError, UsageRow};

impl Catalog {
    /// What each workspace has sent on the last day that is noted of it, and why each row that was altered is refused.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn usage(&self) -> Result<(Vec<UsageRow>, Vec<CatalogError>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.sift(&mut connection, "SELECT * FROM usage").await
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::{UnixNanos, WorkspaceId};

    use crate::catalog::tests::{WORKSPACE, filled, run_sql};
    use crate::{CatalogError, Change, UsageRow};

    fn row(workspace: WorkspaceId, day: i64, bytes: u64) -> UsageRow {
        UsageRow { workspace, day, bytes, reached: bytes > 100 }
    }

    /// Scenario: usage is noted twice a day, on the next day, and of a workspace that is not there; then the workspace is shredded.
    /// Guarantee: what was noted last is read back, also when it was noted twice; the row of a workspace that is gone is passed over
    /// and takes no other with it; nothing is left of past days and of a shredded workspace.
    #[tokio::test]
    async fn the_last_noted_usage_of_each_workspace_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let gone = WorkspaceId::from_bytes([0xEE; 16]);
        for (day, bytes) in [(20_000, 90), (20_000, 110), (20_001, 5)] {
            let change = Change::PutUsage(vec![row(gone, day, 7), row(WORKSPACE, day, bytes)]);
            catalog.apply(change.clone()).await.unwrap();
            catalog.apply(change).await.unwrap();
            let (genuine, refused) = catalog.usage().await.unwrap();
            assert_eq!(genuine, [row(WORKSPACE, day, bytes)]);
            assert!(refused.is_empty());
        }
        catalog.apply(Change::PutUsage(vec![row(gone, 20_002, 7)])).await.unwrap();
        assert_eq!(catalog.usage().await.unwrap().0, [], "its day is over");
        catalog.apply(Change::PutUsage(vec![row(WORKSPACE, 20_002, 7)])).await.unwrap();
        catalog.apply(Change::ShredWorkspace { workspace: WORKSPACE, at: UnixNanos(1) }).await.unwrap();
        assert_eq!(catalog.usage().await.unwrap().0, []);
    }

    /// Scenario: a row of usage is altered. Guarantee: it is refused by name, and what is noted next takes its place.
    #[tokio::test]
    async fn altered_usage_is_refused_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        catalog.apply(Change::PutUsage(vec![row(WORKSPACE, 20_000, 110)])).await.unwrap();
        run_sql(&dir.path().join("catalog.sqlite"), "UPDATE usage SET bytes = 1").await;
        let (genuine, refused) = catalog.usage().await.unwrap();
        assert!(genuine.is_empty());
        assert!(matches!(&refused[..], [CatalogError::Integrity { kind: "usage", .. }]), "{refused:?}");
        catalog.apply(Change::PutUsage(vec![row(WORKSPACE, 20_000, 5)])).await.unwrap();
        assert_eq!(catalog.usage().await.unwrap().0, [row(WORKSPACE, 20_000, 5)]);
    }
}
