//! The key vaults that clusters may name: the embedded one, and those that the network reaches.

mod identities;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use logseal_control::{UserAssignedIdentity, Vaults};
use logseal_core::Clock;
use logseal_crypto::OsRandom;
use logseal_vault::azure::{AzureParts, AzureSettings, AzureVaults, SystemNetwork};
use logseal_vault::{
    Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, PrincipalId, VaultError,
};

use self::identities::Identities;
use super::VAULT_URI;
use super::vault::Addresses;
use crate::config::Config;
use crate::error::CommandError;

/// All of them.
#[derive(Debug)]
pub(super) struct KeyVaults {
    embedded: Arc<EmbeddedVault>,
    /// Where the embedded one is served; not known before its listener is bound.
    addresses: OnceLock<Arc<Addresses>>,
    service_key: KeyId,
    azure: AzureVaults,
    user_assigned: Vec<UserAssignedIdentity>,
    may_return: bool,
}

impl KeyVaults {
    /// The vaults that `config` allows; the embedded one is not served yet.
    pub(super) fn new(
        embedded: Arc<EmbeddedVault>,
        service_key: KeyId,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CommandError> {
        let parts = AzureParts {
            network: Arc::new(SystemNetwork::default()),
            trust: config.azure.trust()?,
            clock,
            random: Arc::new(OsRandom),
            settings: AzureSettings::default(),
        };
        let Identities { user_assigned, credentials, system_assigned } =
            Identities::read(&config.azure.identities_file, &parts)?;
        let may_return = config.keys.allow_service_managed;
        let azure = AzureVaults::new(config.azure.policy()?, parts, credentials, system_assigned);
        Ok(Self { embedded, addresses: OnceLock::new(), service_key, azure, user_assigned, may_return })
    }

    /// The embedded one is served, and was served before, at `addresses`.
    pub(super) fn serve_at(&self, addresses: Arc<Addresses>) {
        // Set once a start.
        let _ = self.addresses.set(addresses);
    }

    fn is_embedded(&self, uri: &str) -> bool {
        uri.trim_end_matches('/').eq_ignore_ascii_case(VAULT_URI)
            || self.addresses.get().is_some_and(|addresses| addresses.is_ours(uri))
    }
}

#[async_trait]
impl Vaults for KeyVaults {
    fn vault(&self, uri: &str, caller: &Caller) -> Result<(Box<str>, Arc<dyn KeyVault>), VaultError> {
        if self.is_embedded(uri) {
            let client = EmbeddedClient::new(Arc::clone(&self.embedded), caller.clone());
            return Ok((VAULT_URI.into(), Arc::new(client)));
        }
        match caller {
            Caller::Principal(principal) => self.azure.vault(uri, principal),
            // The deployment asks for its own key only, which the embedded vault has.
            Caller::Deployment | Caller::Nobody => Ok((uri.into(), Arc::new(AskedByNobody))),
        }
    }

    fn user_assigned(&self, id: &str) -> Option<UserAssignedIdentity> {
        self.user_assigned.iter().find(|one| one.id.eq_ignore_ascii_case(id)).cloned()
    }

    fn service_key(&self) -> KeyId {
        self.service_key.clone()
    }

    fn may_return_to_service_key(&self) -> bool {
        self.may_return
    }

    async fn welcome(&self, principal: &PrincipalId) -> Result<(), VaultError> {
        self.embedded.welcome(principal).await
    }
}

/// Any vault, to a cluster without identity.
#[derive(Debug)]
struct AskedByNobody;

#[async_trait]
impl KeyVault for AskedByNobody {
    async fn key(&self, _: &KeyName, _: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        Err(VaultError::NoIdentity)
    }

    async fn wrap(&self, _: &KeyId, _: &logseal_crypto::Key256) -> Result<Vec<u8>, VaultError> {
        Err(VaultError::NoIdentity)
    }

    async fn unwrap(&self, _: &KeyId, _: &[u8]) -> Result<logseal_crypto::Key256, VaultError> {
        Err(VaultError::NoIdentity)
    }
}
