//! Daily caps of workspaces: what is counted against them, and what is audited when they are reached.

use logseal_catalog::{AuditEntry, CatalogError, ResourceKind};
use logseal_core::{ResourceId, UnixNanos, WorkspaceId};
use serde_json::json;

use crate::operation::runner::Operations;
use crate::resource::view::{date, next_midnight, path};
use crate::resource::workspace::WorkspaceSettings;

/// What the audit trail calls it.
const REACHED: &str = "logseal/workspaces/dailyCapReached";

/// Bytes in a GB, as networks and Azure's prices count.
const GB: f64 = 1e9;

impl WorkspaceSettings {
    /// The daily cap in bytes.
    pub(crate) fn daily_cap(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, at what nobody sends"
        )]
        self.daily_quota_gb.map(|gb| (gb * GB).round() as u64)
    }
}

impl Operations {
    /// What the audit trail is to say of `workspace`, which had used `used` bytes of its daily cap of `cap` bytes at `at`.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when the resource cannot be read.
    pub async fn daily_cap_reached(
        &self,
        workspace: WorkspaceId,
        at: UnixNanos,
        cap: u64,
        used: u64,
    ) -> Result<AuditEntry, CatalogError> {
        let row = self.world().resource(ResourceKind::Workspace, ResourceId::from(workspace)).await?;
        Ok(AuditEntry {
            at,
            actor: "logseal".to_owned(),
            action: REACHED.to_owned(),
            resource: row.as_ref().map_or_else(|| workspace.to_string(), path),
            operation: None,
            outcome: "Refusing".to_owned(),
            before: "null".to_owned(),
            after: json!({"capBytes": cap, "usedBytes": used, "resetTime": date(next_midnight(at))}).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use logseal_catalog::Change;
    use serde_json::Value;

    use super::*;
    use crate::request::{self, Written};
    use crate::resource::Method;
    use crate::testing::{Deployment, caller, place};

    async fn write(deployment: &Deployment, name: &str, method: Method, gb: f64) -> WorkspaceId {
        let body = json!({"location": "local", "properties": {"workspaceCapping": {"dailyQuotaGb": gb}}});
        match request::write_workspace(&deployment.operations, place(name), &body, method, &caller()).await.unwrap() {
            Written::Started { operation, .. } => {
                deployment.succeed(&operation).await;
                operation.row.resource.workspace()
            }
            Written::Changed(row) => row.id.workspace(),
        }
    }

    /// Scenario: a workspace is made with a cap, gets others and none, is deleted and recovered with another one; a start. Guarantee: the
    /// server has the cap in bytes that the settings say, each time, and a start tells it all caps.
    #[tokio::test]
    async fn the_server_follows_the_caps_that_are_set() {
        let mut deployment = Deployment::new().await;
        let cap = |deployment: &Deployment, id| deployment.server.caps.lock().unwrap().get(&id).map(|(cap, _)| *cap);
        let id = write(&deployment, "another", Method::Put, 0.023).await;
        assert_eq!(cap(&deployment, id), Some(Some(23_000_000)));
        for (gb, bytes) in [(1.5, Some(1_500_000_000)), (-1.0, None), (1e300, Some(u64::MAX)), (0.1, Some(100_000_000))]
        {
            assert_eq!(write(&deployment, "another", Method::Patch, gb).await, id);
            assert_eq!(cap(&deployment, id), Some(bytes), "{gb}");
        }
        let gone = request::delete_workspace(&deployment.operations, place("another"), false, &caller()).await;
        deployment.succeed(&gone.unwrap().unwrap()).await;
        assert_eq!(write(&deployment, "another", Method::Put, 2.0).await, id);
        assert_eq!(cap(&deployment, id), Some(Some(2_000_000_000)));

        deployment.server.caps.lock().unwrap().clear();
        deployment.restart(std::sync::Arc::new(crate::NoFaults)).await;
        deployment.operations.tell_settings().await.unwrap();
        assert_eq!(cap(&deployment, id), Some(Some(2_000_000_000)));
        assert_eq!(deployment.server.caps.lock().unwrap().len(), 2, "those without a cap as well");
    }

    /// Scenario: two changes of one workspace are told in the wrong order. Guarantee: each comes with the version of the resource that it
    /// is from, so that the server can tell which is newer.
    #[tokio::test]
    async fn caps_come_with_the_version_of_their_resource() {
        let deployment = Deployment::new().await;
        let mut last = 0;
        for gb in [1.0, 2.0, 3.0] {
            let id = write(&deployment, "default", Method::Patch, gb).await;
            let (_, version) = deployment.server.caps.lock().unwrap()[&id];
            assert!(version > last, "{version} after {last}");
            assert_eq!(version, deployment.catalog.resource_by_id(id.into()).await.unwrap().unwrap().version);
            last = version;
        }
    }

    /// Scenario: a workspace has reached its cap, one that has a resource and one that has none any more. Guarantee: the record names the
    /// workspace, the cap, what was used and when it is reset.
    #[tokio::test]
    async fn the_record_of_a_reached_cap_says_what_was_reached() {
        let deployment = Deployment::new().await;
        let id = deployment.catalog.workspaces().await.unwrap()[0].id;
        let at = UnixNanos(1_700_000_000_000_000_000);
        let entry = deployment.operations.daily_cap_reached(id, at, 100, 130).await.unwrap();
        assert!(entry.resource.ends_with("/workspaces/default"), "{entry:?}");
        assert_eq!(entry.action, "logseal/workspaces/dailyCapReached");
        let after: Value = serde_json::from_str(&entry.after).unwrap();
        assert_eq!(after, json!({"capBytes": 100, "usedBytes": 130, "resetTime": "2023-11-15T00:00:00.000Z"}));
        deployment.catalog.apply(Change::Audit(entry)).await.unwrap();
        let gone = WorkspaceId::from_bytes([9; 16]);
        let entry = deployment.operations.daily_cap_reached(gone, at, 100, 130).await.unwrap();
        assert_eq!(entry.resource, gone.to_string());
    }
}
