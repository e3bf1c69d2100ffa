//! The embedded vault as one caller sees it.

use std::sync::Arc;

use async_trait::async_trait;
use logseal_crypto::Key256;
use serde_json::json;

use super::key::KeyOperation;
use super::rsa::{Encryption, RsaKey};
use super::{EmbeddedVault, blocking};
use crate::events::{VaultEvent, action};
use crate::{Caller, KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, Permission, VaultError};

/// The embedded vault as one caller sees it.
#[derive(Clone, Debug)]
pub struct EmbeddedClient {
    vault: Arc<EmbeddedVault>,
    caller: Caller,
}

impl EmbeddedClient {
    /// `vault`, asked as `caller`.
    #[must_use]
    pub fn new(vault: Arc<EmbeddedVault>, caller: Caller) -> Self {
        Self { vault, caller }
    }

    /// Whether the caller has `permission` on the key. A refusal is reported once, until the caller is admitted again: whoever watches a
    /// key asks every few seconds.
    async fn admit(&self, name: &KeyName, permission: Permission, shown: &str) -> Result<(), VaultError> {
        let principal = match &self.caller {
            Caller::Deployment => return Ok(()),
            Caller::Nobody => return Err(VaultError::NoIdentity),
            Caller::Principal(principal) => principal,
        };
        let key = self.vault.state.key(name)?;
        key.alive()?;
        let granted = key.grants(principal, permission);
        if self.vault.is_news(&key.name, principal, permission, granted) {
            let action = match permission {
                Permission::Get => action::READ,
                Permission::WrapKey => action::WRAP,
                Permission::UnwrapKey => action::UNWRAP,
            };
            let event = VaultEvent {
                actor: principal.to_string(),
                action,
                key: shown.to_owned(),
                outcome: "AccessDenied".to_owned(),
                detail: json!({"missing": permission.as_str()}),
            };
            self.vault.report(event).await;
        }
        if granted {
            return Ok(());
        }
        Err(VaultError::AccessDenied { caller: self.caller.to_string(), permission, key: shown.to_owned() })
    }

    /// The version to compute with, if it may be used for `operation` now.
    fn usable(&self, kek: &KeyId, operation: KeyOperation) -> Result<Arc<RsaKey>, VaultError> {
        let state = &self.vault.state;
        let key = state.key(&kek.name)?;
        let version = key.version(Some(&kek.version))?;
        version.may(operation, kek, state.now())?;
        Ok(Arc::clone(&version.rsa))
    }
}

#[async_trait]
impl KeyVault for EmbeddedClient {
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        self.admit(name, Permission::Get, name.as_str()).await?;
        let key = self.vault.state.key(name)?;
        Ok(self.vault.state.properties(&key, key.version(version)?))
    }

    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        self.admit(&kek.name, Permission::WrapKey, &kek.to_string()).await?;
        // Wrapping costs tens of microseconds: no detour over another thread.
        self.usable(kek, KeyOperation::WrapKey)?.encrypt(Encryption::Oaep256, key.expose())
    }

    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError> {
        self.admit(&kek.name, Permission::UnwrapKey, &kek.to_string()).await?;
        let (rsa, wrapped, kek) = (self.usable(kek, KeyOperation::UnwrapKey)?, wrapped.to_vec(), kek.clone());
        blocking(move || {
            let opened = rsa.decrypt(Encryption::Oaep256, &wrapped);
            opened.and_then(|key| Key256::copy_from_slice(&key)).ok_or(VaultError::BadWrap(kek))
        })
        .await
    }
}
