//! The key vaults, as clusters ask them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use logseal_core::ClusterId;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyVault, VaultError};

/// Finds the vault of a key, asked as the identity of a cluster.
#[async_trait]
pub trait ClusterVaults: Debug + Send + Sync {
    /// The vault that holds `kek`, asked as `cluster`.
    ///
    /// # Errors
    ///
    /// [`VaultError`] when this deployment reaches no such vault, or the cluster's identity is not known now. A cluster without identity
    /// gets a vault that refuses every call.
    async fn vault_of(&self, cluster: ClusterId, kek: &KeyId) -> Result<Arc<dyn KeyVault>, VaultError>;
}

/// One vault for all clusters, asked as whoever it was made for: for tools that work on a data directory with its root key.
#[derive(Clone, Debug)]
pub struct OneVault(pub Arc<dyn KeyVault>);

impl OneVault {
    /// The embedded vault, asked as the deployment that owns it.
    #[must_use]
    pub fn embedded(vault: &Arc<EmbeddedVault>) -> Self {
        Self(Arc::new(EmbeddedClient::new(Arc::clone(vault), Caller::Deployment)))
    }
}

#[async_trait]
impl ClusterVaults for OneVault {
    async fn vault_of(&self, _: ClusterId, _: &KeyId) -> Result<Arc<dyn KeyVault>, VaultError> {
        Ok(Arc::clone(&self.0))
    }
}
