//! Reading what the control plane keeps.

use logseal_core::{ClusterId, OperationId, ResourceId};
use sqlx::AssertSqlSafe;

use crate::codec::key_of;
use crate::{Catalog, CatalogError, OperationRow, OperationState, ResourceKind, ResourceRow};

/// Which resources are listed.
#[derive(Clone, Copy, Debug)]
pub struct ResourceFilter<'a> {
    /// Of this kind.
    pub kind: ResourceKind,
    /// Of this subscription only.
    pub subscription: Option<&'a str>,
    /// Of this resource group only.
    pub group: Option<&'a str>,
    /// Those that are deleted, or those that are not.
    pub deleted: bool,
}

/// Which operations are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperationFilter<'a> {
    /// Of this subscription only.
    pub subscription: Option<&'a str>,
    /// Of this resource only.
    pub resource: Option<ResourceId>,
    /// In this state only.
    pub state: Option<OperationState>,
}

const RESOURCE: &str = "SELECT * FROM resources WHERE kind = ?1 AND subscription_key = ?2 \
    AND resource_group_key = ?3 AND name_key = ?4";

const RESOURCES_OF: &str = "SELECT resources.* FROM workspaces JOIN resources ON resources.id = workspaces.id \
    WHERE workspaces.cluster_id = ?1";

/// `running_operations` is an index of those only.
const RUNNING: &str = "SELECT * FROM operations INDEXED BY running_operations WHERE state = 1 ORDER BY id";

impl ResourceFilter<'_> {
    /// What finds a page, by the kind (`?1`), the filter (`?2`, `?3`), the last row of the page before (`?4` to `?6`), and the limit
    /// (`?7`). The order is the index's own; a page begins where the one before ended, compared by no more than the filter leaves open.
    fn sql(&self, continued: bool) -> String {
        let (index, deleted) =
            if self.deleted { ("deleted_resources", "NOT NULL") } else { ("live_resources", "NULL") };
        let subscription = if self.subscription.is_some() { " AND subscription_key = ?2" } else { "" };
        let group = if self.group.is_some() { " AND resource_group_key = ?3" } else { "" };
        let after = match (continued, self.subscription, self.group) {
            (false, ..) => "",
            (true, Some(_), Some(_)) => " AND name_key > ?6",
            (true, Some(_), None) => " AND (resource_group_key, name_key) > (?5, ?6)",
            (true, None, _) => " AND (subscription_key, resource_group_key, name_key) > (?4, ?5, ?6)",
        };
        format!(
            "SELECT * FROM resources INDEXED BY {index} WHERE kind = ?1 AND deleted IS {deleted}{subscription}{group}\
             {after} ORDER BY subscription_key, resource_group_key, name_key LIMIT ?7"
        )
    }
}

impl OperationFilter<'_> {
    /// What finds a page, by the filter (`?1` to `?3`), the last id of the page before (`?4`), and the limit (`?5`).
    fn sql(&self, continued: bool) -> String {
        let index = match (self.subscription, self.resource, self.state) {
            (_, Some(_), _) => "INDEXED BY operations_by_resource",
            (Some(_), None, Some(_)) => "INDEXED BY operations_by_subscription_and_state",
            (Some(_), None, None) => "INDEXED BY operations_by_subscription",
            (None, None, Some(_)) => "INDEXED BY operations_by_state",
            (None, None, None) => "",
        };
        let subscription = if self.subscription.is_some() { " AND subscription_key = ?1" } else { "" };
        let resource = if self.resource.is_some() { " AND resource_id = ?2" } else { "" };
        let state = if self.state.is_some() { " AND state = ?3" } else { "" };
        let before = if continued { " AND id < ?4" } else { "" };
        format!(
            "SELECT * FROM operations {index} WHERE TRUE{subscription}{resource}{state}{before} ORDER BY id DESC LIMIT ?5"
        )
    }
}

impl Catalog {
    /// The resource of this name, be it deleted or not; `None` when the name is free.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn resource(
        &self,
        kind: ResourceKind,
        subscription: &str,
        group: &str,
        name: &str,
    ) -> Result<Option<ResourceRow>, CatalogError> {
        let query = sqlx::query(RESOURCE)
            .bind(i64::from(kind.code()))
            .bind(key_of(subscription))
            .bind(key_of(group))
            .bind(key_of(name));
        Ok(self.all(query).await?.pop())
    }

    /// The resource `id`, be it deleted or not; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn resource_by_id(&self, id: ResourceId) -> Result<Option<ResourceRow>, CatalogError> {
        let query = sqlx::query("SELECT * FROM resources WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(self.all(query).await?.pop())
    }

    /// At most `limit` resources by subscription, group and name, without case; `after` the last one of the page before of the same
    /// filter.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn resources(
        &self,
        filter: ResourceFilter<'_>,
        after: Option<&ResourceRow>,
        limit: u32,
    ) -> Result<Vec<ResourceRow>, CatalogError> {
        let query = sqlx::query(AssertSqlSafe(filter.sql(after.is_some())))
            .bind(i64::from(filter.kind.code()))
            .bind(filter.subscription.map(key_of))
            .bind(filter.group.map(key_of))
            .bind(after.map(|row| key_of(&row.subscription)))
            .bind(after.map(|row| key_of(&row.group)))
            .bind(after.map(|row| key_of(&row.name)))
            .bind(limit);
        self.all(query).await
    }

    /// The resources of the workspaces that are linked to `cluster`, in any order. Which workspaces those are is
    /// [`Catalog::workspaces_of`]'s to say: here it is not authenticated.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn resources_of(&self, cluster: ClusterId) -> Result<Vec<ResourceRow>, CatalogError> {
        self.all(sqlx::query(RESOURCES_OF).bind(cluster.as_bytes().as_slice())).await
    }

    /// The operation `id`; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn operation(&self, id: OperationId) -> Result<Option<OperationRow>, CatalogError> {
        let query = sqlx::query("SELECT * FROM operations WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(self.all(query).await?.pop())
    }

    /// All operations that have not ended, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn running_operations(&self) -> Result<Vec<OperationRow>, CatalogError> {
        self.all(sqlx::query(RUNNING)).await
    }

    /// At most `limit` operations, newest first; `before` the last one of the page before.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn operations(
        &self,
        filter: OperationFilter<'_>,
        before: Option<OperationId>,
        limit: u32,
    ) -> Result<Vec<OperationRow>, CatalogError> {
        let query = sqlx::query(AssertSqlSafe(filter.sql(before.is_some())))
            .bind(filter.subscription.map(key_of))
            .bind(filter.resource.map(|id| id.as_bytes().to_vec()))
            .bind(filter.state.map(|state| i64::from(state.code())))
            .bind(before.map(|id| id.as_bytes().to_vec()))
            .bind(limit);
        self.all(query).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Executor as _, Row as _};

    use super::*;
    use crate::catalog::tests::filled;

    /// Scenario: every filter, for a first and a further page. Guarantee: each is answered in the order of an index that begins with
    /// what the filter fixes; rows that it does not let through are passed over only among the operations of one resource.
    #[tokio::test]
    async fn pages_are_read_in_the_order_of_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let mut connection = catalog.readers.acquire().await.unwrap();
        let mut plan = async |sql: &str| -> String {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = connection.fetch_all(sqlx::query(explain)).await.unwrap();
            rows.iter().map(|row| row.get("detail")).collect::<Vec<String>>().join("; ")
        };
        let kind = ResourceKind::Cluster;
        for (subscription, group, fixed) in [
            (None, None, "(kind=?"),
            (Some("s"), None, "(kind=? AND subscription_key=?"),
            (Some("s"), Some("g"), "(kind=? AND subscription_key=? AND resource_group_key=?"),
        ] {
            for (deleted, continued) in [(false, false), (false, true), (true, false), (true, true)] {
                let found = plan(&ResourceFilter { kind, subscription, group, deleted }.sql(continued)).await;
                let index = if deleted { "deleted_resources" } else { "live_resources" };
                let begins = format!("SEARCH resources USING INDEX {index} {fixed}");
                assert!(found.starts_with(&begins) && !found.contains("TEMP B-TREE"), "{found}");
                assert_eq!(found.contains(">("), continued && group.is_none(), "{found}");
                assert_eq!(found.contains("name_key>?"), continued && group.is_some(), "{found}");
            }
        }
        let (resource, state) = (Some(ResourceId::from_bytes([1; 16])), Some(OperationState::Failed));
        for (subscription, resource, state, fixed) in [
            (None, None, None, ""),
            (None, None, state, "state=?"),
            (Some("s"), None, None, "subscription_key=?"),
            (Some("s"), None, state, "subscription_key=? AND state=?"),
            (Some("s"), resource, state, "resource_id=?"),
            (None, resource, None, "resource_id=?"),
        ] {
            for continued in [false, true] {
                let found = plan(&OperationFilter { subscription, resource, state }.sql(continued)).await;
                let range = if continued { "id<?" } else { "" };
                let and = if fixed.is_empty() || range.is_empty() { "" } else { " AND " };
                let expected =
                    if fixed.is_empty() && !continued { String::new() } else { format!("({fixed}{and}{range})") };
                assert!(found.ends_with(&expected) && found.contains("USING INDEX"), "{found}");
                assert!(!found.contains("TEMP B-TREE"), "{found}");
            }
        }
        let found = plan(RUNNING).await;
        assert!(found.contains("USING INDEX running_operations"), "{found}");
        let found = plan(RESOURCE).await;
        let expected = "(kind=? AND subscription_key=? AND resource_group_key=? AND name_key=?)";
        assert!(found.contains(expected), "{found}");
    }
}
