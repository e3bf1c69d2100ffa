//! Clusters as they are shown, kept in memory: a cluster shows all workspaces that are linked to it, and clients that wait for something
//! ask for it again and again.
//!
//! What is kept holds until the catalog says that the cluster, its keys or its links may have changed ([`Catalog::cluster_version`]).
//! The cluster's own row is read each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use logseal_catalog::{Catalog, ResourceRow};
use logseal_core::{ClusterId, ResourceId, UnixNanos};
use logseal_vault::Caller;

use crate::Problem;
use crate::callers::caller;
use crate::operation::kinds;
use crate::operation::runner::Operations;
use crate::resource::cluster::ClusterDocument;
use crate::resource::view::{self, ClusterFacts, LiveKey};
use crate::resource::workspace::WorkspaceDocument;

/// Views that are kept: more than there may be clusters. Those of clusters that are gone are dropped when there are so many.
const KEPT: usize = 200;

/// The views of all clusters that were asked for.
#[derive(Debug, Default)]
pub(crate) struct ClusterViews {
    kept: Mutex<HashMap<ClusterId, Kept>>,
    /// Held while a view is made, so that many who ask at once have it made once.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Kept {
    /// What the catalog said before anything was read.
    as_of: u64,
    facts: Arc<ClusterFacts>,
    /// The cluster as JSON, with the version of its row and that of the states of keys.
    shown: Option<((u64, u64), Bytes)>,
}

impl ClusterViews {
    fn kept(&self) -> MutexGuard<'_, HashMap<ClusterId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: ClusterId, as_of: u64) -> Option<Kept> {
        self.kept().get(&id).filter(|kept| kept.as_of == as_of).cloned()
    }

    fn keep(&self, id: ClusterId, made: Kept) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(id, made);
    }

    async fn facts(&self, catalog: &Catalog, id: ClusterId) -> Result<Kept, Problem> {
        if let Some(kept) = self.find(id, catalog.cluster_version(id)) {
            return Ok(kept);
        }
        let _making = self.making.lock().await;
        let as_of = catalog.cluster_version(id);
        if let Some(kept) = self.find(id, as_of) {
            return Ok(kept);
        }
        let made = Kept { as_of, facts: Arc::new(read(catalog, id).await?), shown: None };
        self.keep(id, made.clone());
        Ok(made)
    }
}

impl Operations {
    /// What the cluster of `row` shows beside its document.
    pub(crate) async fn cluster_facts(&self, row: &ResourceRow) -> Result<Arc<ClusterFacts>, Problem> {
        Ok(self.cluster_views().facts(&self.world().catalog, row.id.cluster()).await?.facts)
    }

    /// What is known of the key of the cluster `id` with this document, and is not in the catalog.
    pub(crate) fn live_key(&self, id: ClusterId, document: &ClusterDocument) -> LiveKey {
        let principal = match caller(&*self.world().vaults, document) {
            Ok(Caller::Principal(principal)) => Some(principal.to_string()),
            _ => None,
        };
        LiveKey { status: self.world().data.key_status(id), newest: self.newest().of(id), principal }
    }

    /// The cluster of `row` as JSON.
    pub(crate) async fn cluster_body(&self, row: &ResourceRow) -> Result<Bytes, Problem> {
        let (views, id) = (self.cluster_views(), row.id.cluster());
        let data = &self.world().data;
        // Before the state is read: what changes in between is shown the next time.
        let versions = (row.version, data.key_states_version().wrapping_add(self.newest().version()));
        let kept = views.facts(&self.world().catalog, id).await?;
        if let Some((_, body)) = kept.shown.filter(|(of, _)| *of == versions) {
            return Ok(body);
        }
        let document: ClusterDocument = kinds::document(row)?;
        let body = Bytes::from(view::cluster(row, &document, &kept.facts, &self.live_key(id, &document)).to_string());
        let shown = Some((versions, body.clone()));
        views.keep(id, Kept { as_of: kept.as_of, facts: kept.facts, shown });
        Ok(body)
    }
}

async fn read(catalog: &Catalog, id: ClusterId) -> Result<ClusterFacts, Problem> {
    let linked = catalog.workspaces_of(id).await?;
    let resources = catalog.resources_of(id).await?;
    let mut resources: HashMap<ResourceId, ResourceRow> = resources.into_iter().map(|row| (row.id, row)).collect();
    let mut workspaces = Vec::with_capacity(linked.len());
    for workspace in linked {
        let resource = resources.remove(&ResourceId::from(workspace.id));
        let Some(resource) = resource.filter(|row| row.deleted.is_none()) else { continue };
        let document: WorkspaceDocument = kinds::document(&resource)?;
        let since = UnixNanos(document.link.map_or(resource.created.0, |link| link.since));
        workspaces.push(view::linked_workspace(workspace.id, &resource, since));
    }
    let (row, keys, versions) =
        (catalog.cluster(id).await?, catalog.kek_uses(id).await?, catalog.kek_versions(id).await?);
    Ok(ClusterFacts { row, keys, versions, workspaces })
}

#[cfg(test)]
mod tests {
    use logseal_catalog::ResourceKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::request;
    use crate::resource::Method;
    use crate::testing::{Deployment, caller, place};

    async fn shown(deployment: &Deployment) -> Value {
        let row = request::existing(&deployment.operations, ResourceKind::Cluster, place("local")).await.unwrap();
        serde_json::from_slice(&deployment.operations.cluster_body(&row).await.unwrap()).unwrap()
    }

    fn names(shown: &Value) -> Vec<&str> {
        let linked = shown["properties"]["associatedWorkspaces"].as_array().unwrap();
        linked.iter().map(|workspace| workspace["workspaceName"].as_str().unwrap()).collect()
    }

    /// Scenario: a cluster is shown before and after each of: a workspace is made, linked, deleted, recovered, purged; its tags and its key change.
    /// Guarantee: it always shows what is so now, and what is kept is used while nothing changes.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_kept_view_shows_every_change() {
        let deployment = Deployment::new().await;
        let (operations, caller) = (&deployment.operations, caller());
        assert_eq!(names(&shown(&deployment).await), ["default"]);
        let row = request::existing(operations, ResourceKind::Cluster, place("local")).await.unwrap();
        let (one, other) = (operations.cluster_body(&row).await.unwrap(), operations.cluster_body(&row).await.unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr(), "it is kept");

        let body = json!({"location": "local"});
        let made = request::write_workspace(operations, place("work-1"), &body, Method::Put, &caller).await.unwrap();
        let request::Written::Started { operation, .. } = made else { panic!("{made:?}") };
        deployment.succeed(&operation).await;
        assert_eq!(names(&shown(&deployment).await), ["default"]);

        let link = json!({"properties": {"writeAccessResourceId": view::path(&row)}});
        let linking = request::link(operations, place("work-1"), &link, &caller).await.unwrap().unwrap();
        deployment.succeed(&linking).await;
        let both = shown(&deployment).await;
        assert_eq!(names(&both), ["default", "work-1"]);
        assert_eq!(both["properties"]["keyState"]["versions"][0]["wrappedKeys"], 3, "work-1 has two generations");

        let tags = json!({"tags": {"a": "b"}});
        let tagged = request::write_cluster(operations, place("local"), &tags, Method::Patch, &caller).await.unwrap();
        deployment.succeed(&tagged).await;
        assert_eq!(shown(&deployment).await["tags"], json!({"a": "b"}));
        assert_eq!(names(&shown(&deployment).await), ["default", "work-1"]);

        let gone = request::delete_workspace(operations, place("work-1"), false, &caller).await.unwrap().unwrap();
        deployment.succeed(&gone).await;
        assert_eq!(names(&shown(&deployment).await), ["default"], "a deleted one is not shown");
        let back = request::write_workspace(operations, place("work-1"), &body, Method::Put, &caller).await.unwrap();
        let request::Written::Started { operation, .. } = back else { panic!("{back:?}") };
        deployment.succeed(&operation).await;
        assert_eq!(names(&shown(&deployment).await), ["default", "work-1"]);

        let gone = request::delete_workspace(operations, place("work-1"), true, &caller).await.unwrap().unwrap();
        deployment.succeed(&gone).await;
        assert_eq!(names(&shown(&deployment).await), ["default"]);
    }
}
