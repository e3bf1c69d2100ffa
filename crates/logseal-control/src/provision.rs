//! The resources that exist from the first start: cluster `local`, workspace `default` linked to it, table `logs`; and the resources of
//! what a catalog has without them.

use logseal_catalog::{
    AekWrapsRow, Catalog, CatalogError, Change, ClusterRow, ResourceKind, ResourceRow, TableRow, WorkspaceRow,
};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, ResourceId, TableId, TableName, WorkspaceId};
use logseal_keys::{AccessKeys, AekOwner, KeyError, Keyring, Slot, kek_row};
use logseal_vault::KeyId;
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::operation::world::SERVICE_CLUSTER;
use crate::resource::ProvisioningState;
use crate::resource::cluster::{ClusterDocument, ClusterSettings};
use crate::resource::identity::Identity;
use crate::resource::key::KeyReference;
use crate::resource::view::path;
use crate::resource::workspace::{Link, WorkspaceDocument, WorkspaceSettings};

/// The name of the first cluster.
pub const DEFAULT_CLUSTER: &str = "local";

/// The name of the first workspace.
pub const DEFAULT_WORKSPACE: &str = "default";

/// The subscription of the first resources; it need not exist.
pub const DEFAULT_SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

/// The resource group of the first resources; it need not exist.
pub const DEFAULT_RESOURCE_GROUP: &str = "default";

const DEFAULT_LOCATION: &str = "local";

const SERVICE_CLUSTER_NAME: &str = "service-managed";

/// The default resources could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The catalog refused.
    #[error("cannot add the default resources to the catalog")]
    Catalog(#[from] CatalogError),
    /// The first account key could not be made.
    #[error("cannot make the first account key")]
    Key(#[from] KeyError),
}

/// What the default resources are made with.
#[derive(Debug)]
pub struct Provision<'p> {
    /// Where they go.
    pub catalog: &'p Catalog,
    /// Makes the first account key.
    pub keyring: &'p Keyring,
    /// Makes the first access keys.
    pub access: &'p AccessKeys,
    /// The service-managed key.
    pub kek: &'p KeyId,
    /// Makes ids.
    pub ids: &'p IdGenerator,
    /// Tells the time.
    pub clock: &'p dyn Clock,
}

impl Provision<'_> {
    /// Makes the default resources at the first start, and at every one what is missing: the cluster of workspaces that are linked to
    /// none, and the resources of clusters and workspaces that came into the catalog without them, from an earlier version or from
    /// `catalog rebuild`. Of such a workspace nothing is removed until a retention is set.
    ///
    /// # Errors
    ///
    /// [`ProvisionError`]; what was made stays, and the next start goes on from there.
    pub async fn run(&self) -> Result<(), ProvisionError> {
        let clusters = self.catalog.clusters().await?;
        if clusters.is_empty() {
            return self.first_start().await;
        }
        if !clusters.iter().any(|row| row.id == SERVICE_CLUSTER) {
            self.catalog.apply(Change::AddCluster(self.service_cluster())).await?;
        }
        for cluster in clusters.iter().filter(|row| row.id != SERVICE_CLUSTER) {
            self.adopt_cluster(cluster).await?;
        }
        for workspace in self.catalog.workspaces().await? {
            self.adopt_workspace(&workspace).await?;
        }
        Ok(())
    }

    fn service_cluster(&self) -> ClusterRow {
        ClusterRow {
            id: SERVICE_CLUSTER,
            name: SERVICE_CLUSTER_NAME.to_owned(),
            created: self.clock.now(),
            kek: kek_row(self.kek),
        }
    }

    async fn first_start(&self) -> Result<(), ProvisionError> {
        let created = self.clock.now();
        let cluster = ClusterRow {
            id: ClusterId::from(self.ids.next()),
            name: DEFAULT_CLUSTER.to_owned(),
            created,
            kek: kek_row(self.kek),
        };
        let id = WorkspaceId::from(self.ids.next());
        let workspace = WorkspaceRow { id, name: DEFAULT_WORKSPACE.to_owned(), cluster: cluster.id, created };
        let tables =
            vec![TableRow { id: TableId::from(self.ids.next()), workspace: id, name: TableName::logs(), created }];
        let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
        let aek = self.keyring.new_aek(AekId::from(self.ids.next()), owner, 1, self.kek).await?;
        let counted = Change::ReserveAekWraps(AekWrapsRow { aek: aek.id, wraps: 0 });
        let keys = Slot::ALL.map(|slot| self.access.generate(id, slot, created).row).to_vec();

        let cluster_resource = self.cluster_resource(&cluster, DEFAULT_CLUSTER);
        let mut settings = WorkspaceSettings::new(DEFAULT_LOCATION.to_owned(), created.0);
        settings.retention_in_days = Some(crate::resource::workspace::DEFAULT_RETENTION);
        let link = Link { state: ProvisioningState::Succeeded, cluster: path(&cluster_resource), since: created.0 };
        let workspace_resource = self.workspace_resource(&workspace, DEFAULT_WORKSPACE, settings, Some(link));
        let changes = vec![
            Change::AddCluster(self.service_cluster()),
            Change::AddCluster(cluster.clone()),
            Change::PutResource { row: cluster_resource, expected: None },
            Change::AddWorkspace { workspace, keys, aek, tables },
            counted,
            Change::PutResource { row: workspace_resource, expected: None },
        ];
        self.catalog.apply(Change::All(changes)).await?;
        info!(cluster = %cluster.id, kek = %self.kek, workspace = %id, "cluster `local` and workspace `default` made");
        Ok(())
    }

    async fn adopt_cluster(&self, cluster: &ClusterRow) -> Result<(), ProvisionError> {
        if self.catalog.resource_by_id(ResourceId::from(cluster.id)).await?.is_some() {
            return Ok(());
        }
        let name = self.free_name(ResourceKind::Cluster, &cluster.name, &cluster.id.to_string()).await?;
        let resource = self.cluster_resource(cluster, &name);
        self.catalog.apply(Change::PutResource { row: resource, expected: None }).await?;
        warn!(cluster = %cluster.id, name, "a cluster came without its settings and has those of a new one");
        Ok(())
    }

    async fn adopt_workspace(&self, workspace: &WorkspaceRow) -> Result<(), ProvisionError> {
        if self.catalog.resource_by_id(ResourceId::from(workspace.id)).await?.is_some() {
            return Ok(());
        }
        let name = self.free_name(ResourceKind::Workspace, &workspace.name, &workspace.id.to_string()).await?;
        let cluster = self.catalog.resource_by_id(ResourceId::from(workspace.cluster)).await?;
        let since = workspace.created.0;
        let state = ProvisioningState::Succeeded;
        let link = cluster.map(|cluster| Link { state, cluster: path(&cluster), since });
        let mut settings = WorkspaceSettings::new(DEFAULT_LOCATION.to_owned(), since);
        settings.retention_in_days = None;
        let resource = self.workspace_resource(workspace, &name, settings, link);
        self.catalog.apply(Change::PutResource { row: resource, expected: None }).await?;
        warn!(workspace = %workspace.id, name, "a workspace came without its settings: nothing of it is removed until a retention is set");
        Ok(())
    }

    /// `name`, with a part of the id behind it when another resource has it.
    async fn free_name(&self, kind: ResourceKind, name: &str, id: &str) -> Result<String, CatalogError> {
        let taken = self.catalog.resource(kind, DEFAULT_SUBSCRIPTION, DEFAULT_RESOURCE_GROUP, name).await?;
        Ok(if taken.is_none() { name.to_owned() } else { format!("{name:.26}-{id}") })
    }

    fn cluster_resource(&self, cluster: &ClusterRow, name: &str) -> ResourceRow {
        let kek = &cluster.kek;
        let document = ClusterDocument {
            provisioning_state: ProvisioningState::Succeeded,
            settings: ClusterSettings::new(DEFAULT_LOCATION.to_owned(), cluster.created.0),
            identity: Identity::system_assigned(self.ids.next().to_string()),
            default_identity: None,
            key: (*self.kek.name.as_str() != *kek.name).then(|| KeyReference {
                key_vault_uri: kek.vault_uri.clone(),
                key_name: kek.name.clone(),
                key_version: kek.version.clone(),
                key_rsa_size: None,
            }),
            key_since: cluster.created.0,
        };
        resource(ResourceId::from(cluster.id), ResourceKind::Cluster, name, &document, cluster.created)
    }

    fn workspace_resource(
        &self,
        workspace: &WorkspaceRow,
        name: &str,
        settings: WorkspaceSettings,
        link: Option<Link>,
    ) -> ResourceRow {
        let document = WorkspaceDocument { provisioning_state: ProvisioningState::Succeeded, settings, link };
        resource(ResourceId::from(workspace.id), ResourceKind::Workspace, name, &document, workspace.created)
    }
}

fn resource(
    id: ResourceId,
    kind: ResourceKind,
    name: &str,
    document: &impl Serialize,
    created: logseal_core::UnixNanos,
) -> ResourceRow {
    ResourceRow {
        id,
        kind,
        subscription: DEFAULT_SUBSCRIPTION.to_owned(),
        group: DEFAULT_RESOURCE_GROUP.to_owned(),
        name: name.to_owned(),
        document: serde_json::to_string(document).expect("a document has string keys only"),
        version: 1,
        created,
        changed: created,
        deleted: None,
    }
}
