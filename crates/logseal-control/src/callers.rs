//! As whom clusters ask their key vaults.

use std::sync::Arc;

use async_trait::async_trait;
use logseal_catalog::{Catalog, CatalogError, ResourceFilter, ResourceKind};
use logseal_core::{Chain, ClusterId, ResourceId};
use logseal_keys::ClusterVaults;
use logseal_vault::{Caller, KeyId, KeyVault, PrincipalId, VaultError};

use crate::operation::kinds;
use crate::port::Vaults;
use crate::resource::cluster::ClusterDocument;

/// Clusters that are read at once.
const PAGE: u32 = 500;

/// The vaults, asked as the identities that clusters have at that moment.
#[derive(Debug)]
pub struct ClusterCallers {
    catalog: Catalog,
    vaults: Arc<dyn Vaults>,
}

impl ClusterCallers {
    /// The clusters of `catalog` at `vaults`.
    #[must_use]
    pub fn new(catalog: Catalog, vaults: Arc<dyn Vaults>) -> Self {
        Self { catalog, vaults }
    }
}

/// As whom `cluster` asks for its own key. It is read anew each time: the vault is asked seldom, and an identity that was taken away must not be
/// used once more.
pub(crate) async fn caller_of(catalog: &Catalog, cluster: ClusterId) -> Result<Caller, VaultError> {
    let trouble = |why: String| VaultError::Token(format!("the cluster's identity cannot be read: {why}"));
    let row = catalog.resource_by_id(ResourceId::from(cluster)).await;
    let Some(row) = row.map_err(|error| trouble(Chain(&error).to_string()))? else { return Ok(Caller::Nobody) };
    let document: ClusterDocument = kinds::document(&row).map_err(|problem| trouble(problem.message().to_owned()))?;
    Ok(document.identity.caller())
}

/// The principals of all clusters that have an identity, also of those that are being made. A cluster whose document cannot be read has none.
///
/// # Errors
///
/// [`CatalogError`] when the clusters cannot be read.
pub async fn cluster_principals(catalog: &Catalog) -> Result<Vec<PrincipalId>, CatalogError> {
    let filter = ResourceFilter { kind: ResourceKind::Cluster, subscription: None, group: None, deleted: false };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut page = catalog.resources(filter, after.as_ref(), PAGE).await?;
        found.extend(page.iter().filter_map(|row| {
            match serde_json::from_str::<ClusterDocument>(&row.document).ok()?.identity.caller() {
                Caller::Principal(principal) => Some(principal),
                Caller::Deployment | Caller::Nobody => None,
            }
        }));
        match page.pop() {
            Some(last) => after = Some(last),
            None => return Ok(found),
        }
    }
}

#[async_trait]
impl ClusterVaults for ClusterCallers {
    async fn vault_of(&self, cluster: ClusterId, kek: &KeyId) -> Result<Arc<dyn KeyVault>, VaultError> {
        let service = self.vaults.service_key();
        // The service-managed key is the deployment's own, whoever it protects.
        let caller = if (&kek.vault_uri, &kek.name) == (&service.vault_uri, &service.name) {
            Caller::Deployment
        } else {
            caller_of(&self.catalog, cluster).await?
        };
        let found = self.vaults.vault(&kek.vault_uri, &caller);
        found.map(|(_, vault)| vault).ok_or_else(|| VaultError::VaultNotFound(kek.vault_uri.to_string()))
    }
}
