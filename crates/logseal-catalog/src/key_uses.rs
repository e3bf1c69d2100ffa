//! When access keys were last presented.

use crate::{Catalog, CatalogError, WorkspaceKeyUseRow};

impl Catalog {
    /// When each access key was last presented, as far as it ever was, and why each row that was altered is refused.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn workspace_key_uses(&self) -> Result<(Vec<WorkspaceKeyUseRow>, Vec<CatalogError>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.sift(&mut connection, "SELECT * FROM workspace_key_uses ORDER BY workspace_id, slot").await
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::UnixNanos;

    use crate::catalog::tests::{WORKSPACE, filled, run_sql};
    use crate::{Catalog, CatalogError, Change, WorkspaceKeyRow, WorkspaceKeyUseRow};

    /// The key that the workspace has from the beginning is 1.
    fn used(lookup: u8, used: i64) -> WorkspaceKeyUseRow {
        WorkspaceKeyUseRow {
            workspace: WORKSPACE,
            slot: "primary".into(),
            lookup: vec![lookup; 32],
            used: UnixNanos(used),
        }
    }

    fn key(slot: &str, lookup: u8) -> WorkspaceKeyRow {
        WorkspaceKeyRow {
            workspace: WORKSPACE,
            slot: slot.into(),
            lookup: vec![lookup; 32],
            sealed: vec![4; 60],
            created: UnixNanos(70),
        }
    }

    async fn known(catalog: &Catalog) -> Vec<WorkspaceKeyUseRow> {
        let (rows, refused) = catalog.workspace_key_uses().await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        rows
    }

    /// Scenario: the use of a key is noted several times, and of one that is not there; the key is replaced; the use of the old one is noted
    /// once more; then the workspace is shredded. Guarantee: the last use is read back; nothing is known of the new key's use, whatever
    /// is told late of the old one; nothing is left of a shredded workspace.
    #[tokio::test]
    async fn the_last_use_of_a_key_is_kept_and_goes_with_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        for (lookup, at, expected) in
            [(1, 10, vec![used(1, 10)]), (9, 15, vec![used(1, 10)]), (1, 20, vec![used(1, 20)])]
        {
            catalog.apply(Change::PutWorkspaceKeyUses(vec![used(lookup, at)])).await.unwrap();
            assert_eq!(known(&catalog).await, expected);
        }
        catalog.apply(Change::ReplaceWorkspaceKey(key("primary", 2))).await.unwrap();
        assert_eq!(known(&catalog).await, []);
        catalog.apply(Change::PutWorkspaceKeyUses(vec![used(1, 30), used(2, 40)])).await.unwrap();
        assert_eq!(known(&catalog).await, [used(2, 40)]);
        catalog.apply(Change::ReplaceWorkspaceKey(key("primary", 2))).await.unwrap();
        assert_eq!(known(&catalog).await, [used(2, 40)], "a change whose answer was lost may be repeated");
        catalog.apply(Change::ShredWorkspace { workspace: WORKSPACE, at: UnixNanos(1) }).await.unwrap();
        assert_eq!(known(&catalog).await, []);
    }

    /// Scenario: the row of a use and that of a key are altered. Guarantee: the use is refused by name, and what is noted next takes its
    /// place; the other key is found, and the altered one can be replaced.
    #[tokio::test]
    async fn what_was_altered_is_refused_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        catalog.apply(Change::ReplaceWorkspaceKey(key("secondary", 5))).await.unwrap();
        catalog.apply(Change::PutWorkspaceKeyUses(vec![used(1, 10)])).await.unwrap();
        let altered =
            "UPDATE workspace_key_uses SET used = 1; UPDATE workspace_keys SET created = 1 WHERE slot = 'primary'";
        run_sql(&dir.path().join("catalog.sqlite"), altered).await;
        let (genuine, refused) = catalog.workspace_key_uses().await.unwrap();
        assert!(genuine.is_empty());
        assert!(matches!(&refused[..], [CatalogError::Integrity { kind: "workspace key use", .. }]), "{refused:?}");
        catalog.apply(Change::PutWorkspaceKeyUses(vec![used(1, 20)])).await.unwrap();
        assert_eq!(known(&catalog).await, [used(1, 20)]);
        assert!(catalog.workspace_keys_of(WORKSPACE).await.is_err());
        assert_eq!(catalog.genuine_workspace_keys_of(WORKSPACE).await.unwrap(), [key("secondary", 5)]);
        catalog.apply(Change::ReplaceWorkspaceKey(key("primary", 6))).await.unwrap();
        let keys = [key("primary", 6), key("secondary", 5)];
        assert_eq!(catalog.workspace_keys_of(WORKSPACE).await.unwrap(), keys);
        assert_eq!(known(&catalog).await, [], "the use was the altered key's");
    }
}
