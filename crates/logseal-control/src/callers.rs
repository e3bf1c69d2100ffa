//! As whom clusters ask their key vaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use logseal_catalog::{Catalog, CatalogError, ResourceFilter, ResourceKind};
use logseal_core::{Chain, ClusterId, ResourceId};
use logseal_keys::ClusterVaults;
use logseal_vault::{Caller, KeyId, KeyVault, PrincipalId, VaultError};

use crate::operation::kinds;
use crate::port::Vaults;
use crate::resource::cluster::ClusterDocument;
use crate::resource::identity::{DefaultIdentity, Identity, IdentityType};

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
pub(crate) async fn caller_of(
    catalog: &Catalog,
    vaults: &dyn Vaults,
    cluster: ClusterId,
) -> Result<Caller, VaultError> {
    let trouble = |why: String| VaultError::Token(format!("the cluster's identity cannot be read: {why}"));
    let row = catalog.resource_by_id(ResourceId::from(cluster)).await;
    let Some(row) = row.map_err(|error| trouble(Chain(&error).to_string()))? else { return Ok(Caller::Nobody) };
    let document: ClusterDocument = kinds::document(&row).map_err(|problem| trouble(problem.message().to_owned()))?;
    caller(vaults, &document)
}

/// As whom a cluster with this document asks.
///
/// # Errors
///
/// [`VaultError::Token`] when its user-assigned identity is not configured any more.
pub(crate) fn caller(vaults: &dyn Vaults, document: &ClusterDocument) -> Result<Caller, VaultError> {
    let Identity { kind, principal_id, user_assigned } = &document.identity;
    match (kind, &document.default_identity, user_assigned) {
        (IdentityType::None, ..) | (IdentityType::UserAssigned, _, None) => Ok(Caller::Nobody),
        (_, Some(DefaultIdentity::FirstParty), _) => Ok(Caller::Principal(PrincipalId::first_party())),
        (IdentityType::SystemAssigned, ..) => {
            Ok(PrincipalId::parse(principal_id).map_or(Caller::Nobody, Caller::Principal))
        }
        // The configuration may have changed since the cluster was given it.
        (IdentityType::UserAssigned, _, Some(assigned)) => match vaults.user_assigned(&assigned.id) {
            Some(found) => Ok(Caller::Principal(found.principal)),
            None => Err(VaultError::Token(format!("the configuration has no identity `{}` any more", assigned.id))),
        },
    }
}

/// The principals that clusters ask as, also those that are being made; each once. A cluster whose document cannot be read has none.
///
/// # Errors
///
/// [`CatalogError`] when the clusters cannot be read.
pub async fn cluster_principals(catalog: &Catalog, vaults: &dyn Vaults) -> Result<BTreeSet<PrincipalId>, CatalogError> {
    let filter = ResourceFilter { kind: ResourceKind::Cluster, subscription: None, group: None, deleted: false };
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let mut page = catalog.resources(filter, after.as_ref(), PAGE).await?;
        found.extend(page.iter().filter_map(|row| {
            let document = serde_json::from_str::<ClusterDocument>(&row.document).ok()?;
            match caller(vaults, &document).ok()? {
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
            caller_of(&self.catalog, &*self.vaults, cluster).await?
        };
        self.vaults.vault(&kek.vault_uri, &caller).map(|(_, vault)| vault)
    }
}
