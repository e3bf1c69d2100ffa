//! Workspaces are linked to clusters, and unlinked.

use std::sync::Arc;

use http::StatusCode;
use logseal_catalog::{ResourceKind, ResourceRow};
use logseal_core::{AekId, ClusterId};
use serde_json::Value;

use super::{Caller, Place, existing, refuse_busy, submission};
use crate::Problem;
use crate::json::Object;
use crate::operation::document::MoveWorkspace;
use crate::operation::runner::Operations;
use crate::operation::world::SERVICE_CLUSTER;
use crate::operation::{Intent, Operation, kinds};
use crate::resource::view::path;
use crate::resource::workspace::{Link, WorkspaceDocument};
use crate::resource::{ProvisioningState, cluster};

/// Most workspaces that are linked to one cluster: Azure Monitor's limit.
const WORKSPACES_PER_CLUSTER: usize = 1_000;

/// PUT of a workspace's link to a cluster; `None` when it is linked to it already.
pub(crate) async fn link(
    operations: &Arc<Operations>,
    place: Place<'_>,
    body: &Value,
    caller: &Caller,
) -> Result<Option<Operation>, Problem> {
    let world = operations.world();
    let row = existing(operations, ResourceKind::Workspace, place).await?;
    let mut root = Object::root(body)?;
    root.skip(&["id", "name", "type", "tags"]);
    let mut properties = root
        .object("properties")?
        .ok_or_else(|| Problem::invalid("properties", "give `properties.writeAccessResourceId`, the cluster's id"))?;
    let write = properties.string("writeaccessresourceid")?;
    let read = properties.string("resourceid")?;
    properties.skip(&["provisioningstate"]);
    properties.finish()?;
    root.finish()?;
    if read.is_some_and(|read| write.is_none_or(|write| !write.eq_ignore_ascii_case(read))) {
        let message = "`resourceId` links for reading only, which does not exist here: give `writeAccessResourceId`";
        return Err(Problem::invalid("properties.resourceId", message));
    }
    let given = write.ok_or_else(|| {
        Problem::invalid(
            "properties.writeAccessResourceId",
            "`properties.writeAccessResourceId` is missing: the cluster's id",
        )
    })?;
    let cluster = find_cluster(operations, given).await?;
    let document: WorkspaceDocument = kinds::document(&row)?;
    refuse_busy(operations, &row).await?;
    match &document.link {
        Some(link) if !link.cluster.eq_ignore_ascii_case(&path(&cluster)) => {
            let message = format!("the workspace is linked to `{}`: unlink it first", link.cluster);
            return Err(Problem::conflict("AlreadyLinked", message));
        }
        Some(link) if link.state == ProvisioningState::Succeeded => return Ok(None),
        // None, or one that came about only in part and is taken up again.
        _ => {}
    }
    let linked = world.catalog.workspaces_of(cluster.id.cluster()).await?.len();
    if linked >= WORKSPACES_PER_CLUSTER {
        let message = format!("the cluster has {linked} workspaces, as many as a cluster can have");
        return Err(Problem::conflict("WorkspaceLimitReached", message));
    }
    move_to(operations, row, document, Some(&cluster), &caller.actor).await.map(Some)
}

/// DELETE of a workspace's link.
pub(crate) async fn unlink(
    operations: &Arc<Operations>,
    row: ResourceRow,
    document: WorkspaceDocument,
    actor: &str,
) -> Result<Operation, Problem> {
    move_to(operations, row, document, None, actor).await
}

async fn move_to(
    operations: &Arc<Operations>,
    row: ResourceRow,
    mut document: WorkspaceDocument,
    cluster: Option<&ResourceRow>,
    actor: &str,
) -> Result<Operation, Problem> {
    let now = operations.world().clock.now();
    let to: ClusterId = cluster.map_or(SERVICE_CLUSTER, |row| row.id.cluster());
    match (cluster, &mut document.link) {
        (Some(cluster), link) => {
            let (state, cluster) = (ProvisioningState::Creating, path(cluster));
            // One that is taken up again may have moved already, and is linked since then.
            let since = link.as_ref().map_or(now.0, |link| link.since);
            *link = Some(Link { state, cluster, since });
        }
        (None, Some(link)) => link.state = ProvisioningState::Deleting,
        (None, None) => {}
    }
    // The names of columns are sealed anew: that takes the keys of both.
    refuse_suspended(operations, &[owner_of(operations, &row).await?, Some(to)])?;
    document.provisioning_state = ProvisioningState::Updating;
    let aek = AekId::from(operations.world().ids.next());
    let intent = Intent::MoveWorkspace(MoveWorkspace { cluster: cluster.map(path), to, aek });
    let location = document.settings.location.clone();
    let caller = Caller::unconditional(actor);
    operations.start(submission(&row, &document, intent, &location, &caller, now)).await
}

/// The cluster that the workspace of `row` is linked to in the catalog, if it is there.
pub(super) async fn owner_of(operations: &Operations, row: &ResourceRow) -> Result<Option<ClusterId>, Problem> {
    Ok(operations.world().catalog.workspace(row.id.workspace()).await?.map(|workspace| workspace.cluster))
}

/// Refuses what takes the keys of clusters whose keys cannot be used now.
pub(super) fn refuse_suspended(operations: &Operations, clusters: &[Option<ClusterId>]) -> Result<(), Problem> {
    let keyring = &operations.world().keyring;
    match clusters.iter().flatten().find_map(|cluster| keyring.suspension(*cluster)) {
        None => Ok(()),
        Some(why) => Err(Problem::suspended(&why)),
    }
}

async fn find_cluster(operations: &Operations, id: &str) -> Result<ResourceRow, Problem> {
    let malformed = || {
        let message =
            format!("`{id}` is not a cluster's id: /subscriptions/S/resourceGroups/G/providers/{}/NAME", cluster::TYPE);
        Problem::invalid("properties.writeAccessResourceId", message)
    };
    let segments: Vec<_> = id.trim_matches('/').split('/').collect();
    let [s, subscription, g, group, p, provider, kind, name] = segments[..] else { return Err(malformed()) };
    let fixed = format!("{s}/{g}/{p}/{provider}/{kind}");
    if !fixed.eq_ignore_ascii_case("subscriptions/resourceGroups/providers/Microsoft.OperationalInsights/clusters") {
        return Err(malformed());
    }
    existing(operations, ResourceKind::Cluster, Place { subscription, group, name }).await.map_err(|problem| {
        // What the path of the request names is there: this is about its body.
        if problem.status() == StatusCode::NOT_FOUND {
            return Problem::bad("ClusterNotFound", "properties.writeAccessResourceId", problem.message());
        }
        problem
    })
}
