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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::request;
    use crate::resource::Method;
    use crate::testing::{Deployment, USER_ASSIGNED, VAULT, place};

    async fn patch(deployment: &Deployment, body: Value) -> Result<(), crate::Problem> {
        let caller = crate::testing::caller();
        let begun =
            request::write_cluster(&deployment.operations, place("local"), &body, Method::Patch, &caller).await?;
        deployment.succeed(&begun).await;
        Ok(())
    }

    /// As whom the cluster `local` asks.
    async fn asks(deployment: &Deployment) -> Caller {
        let row = request::existing(&deployment.operations, ResourceKind::Cluster, place("local")).await.unwrap();
        let vaults = &*deployment.operations.world().vaults;
        caller_of(&deployment.catalog, vaults, row.id.cluster()).await.unwrap()
    }

    fn principal(id: &str) -> Caller {
        Caller::Principal(PrincipalId::parse(id).unwrap())
    }

    /// Scenario: a cluster is given each type of identity and of default identity. Guarantee: it asks as that one; without identity as nobody,
    /// whatever the default; a default that it does not have is refused, and a new system-assigned identity is another one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_asks_as_its_default_identity() {
        let deployment = Deployment::new().await;
        let first = asks(&deployment).await;
        assert!(matches!(&first, Caller::Principal(id) if *id != PrincipalId::first_party()), "{first:?}");
        let user = json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": {USER_ASSIGNED: {}}}});
        patch(&deployment, user.clone()).await.unwrap();
        assert_eq!(asks(&deployment).await, principal("user-assigned"));
        let default = |form: &str| json!({"properties": {"defaultIdentity": form}});
        patch(&deployment, default("FirstPartyIdentity")).await.unwrap();
        assert_eq!(asks(&deployment).await, Caller::Principal(PrincipalId::first_party()));
        let refused = patch(&deployment, default("SystemAssignedIdentity")).await.unwrap_err();
        assert_eq!(refused.code(), "InvalidDefaultIdentity");
        patch(&deployment, default(&format!("DelegatedUserAssignedIdentity={USER_ASSIGNED}"))).await.unwrap();
        assert_eq!(asks(&deployment).await, principal("user-assigned"));
        let alone = json!({"identity": {"type": "SystemAssigned"}});
        assert_eq!(patch(&deployment, alone).await.unwrap_err().code(), "InvalidDefaultIdentity");
        patch(&deployment, json!({"identity": {"type": "None"}})).await.unwrap();
        assert_eq!(asks(&deployment).await, Caller::Nobody);
        let mut back = json!({"identity": {"type": "SystemAssigned"}});
        back["properties"] = default("SystemAssignedIdentity")["properties"].clone();
        patch(&deployment, back).await.unwrap();
        let second = asks(&deployment).await;
        assert!(second != first && matches!(second, Caller::Principal(_)), "{second:?}");
        let unknown = json!({
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/none": {}}},
            "properties": {"defaultIdentity": "FirstPartyIdentity"},
        });
        assert_eq!(patch(&deployment, unknown).await.unwrap_err().code(), "UserAssignedIdentityNotFound");
    }

    /// Scenario: a cluster with a customer's key is to go back to the service-managed one, before and after the configuration permits it.
    /// Guarantee: refused with the key that permits it; then every account key is under the service-managed key.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_way_back_to_the_service_managed_key_needs_the_operators_word() {
        let deployment = Deployment::new().await;
        let key = |uri: &str, name: &str| json!({"properties": {"keyVaultProperties": {"keyVaultUri": uri, "keyName": name, "keyVersion": ""}}});
        patch(&deployment, key(VAULT, "kek")).await.unwrap();
        let refused = patch(&deployment, key("", "")).await.unwrap_err();
        assert!(refused.message().contains("keys.allow_service_managed"), "{refused:?}");
        *deployment.server.may_return.lock().unwrap() = true;
        patch(&deployment, key("", "")).await.unwrap();
        let service = logseal_keys::kek_row(&deployment.operations.world().vaults.service_key());
        let row = request::existing(&deployment.operations, ResourceKind::Cluster, place("local")).await.unwrap();
        let keys = deployment.catalog.aeks_of_cluster(row.id.cluster()).await.unwrap();
        assert!(!keys.is_empty() && keys.iter().all(|key| key.kek == service));
        assert_eq!(deployment.catalog.cluster(row.id.cluster()).await.unwrap().unwrap().kek, service);
        let document: ClusterDocument = kinds::document(&row).unwrap();
        assert_eq!(document.key, None);
    }
}
