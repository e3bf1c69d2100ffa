//! The embedded vault: RSA keys in `DIR/vault/keys`, private keys sealed under the root key.
//!
//! It gives the product a key vault without a second server. Whoever holds both its files and the root key holds the keys;
//! the root key therefore comes from outside the data directory in any serious deployment.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `key` | a key as a value: versions, attributes, grants, deletion |
//! | `rotation` | policies, and which keys are due |
//! | `rsa` | encryption and signatures |
//! | `file` | the files' format |
//! | `state` | all keys, and how they change |
//! | `client` | the vault as one caller sees it |
//! | `upkeep` | what the vault does by itself |

mod client;
mod file;
pub(crate) mod key;
pub(crate) mod rotation;
pub(crate) mod rsa;
pub(crate) mod state;
mod upkeep;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use logseal_core::{Clock, stack};
use logseal_crypto::RootKey;
use serde_json::json;
use tokio::sync::Semaphore;

pub use self::client::EmbeddedClient;
pub(crate) use self::key::Key;
use self::key::VersionChange;
use self::rotation::RotationPolicy;
pub use self::rsa::RSA_BITS;
use self::rsa::{PrivateComponents, RsaKey};
use self::state::{NewKey, State};
use crate::events::{SUCCEEDED, VaultEvent, VaultEvents, action};
use crate::{KeyId, KeyName, KeyProperties, KeyVersion, Permission, PrincipalId, VaultError};

/// The vault inside the server's own process.
#[derive(Debug)]
pub struct EmbeddedVault {
    pub(crate) state: Arc<State>,
    events: OnceLock<Arc<dyn VaultEvents>>,
    /// Making an RSA key takes a core for up to seconds: one at a time, or a few requests would take all of them.
    making: Arc<Semaphore>,
    /// Refusals that were reported already.
    refused: Mutex<BTreeSet<(KeyName, PrincipalId, Permission)>>,
}

impl EmbeddedVault {
    /// Opens the vault in `dir` (made if it is missing) and checks each key it holds.
    ///
    /// `uri` is what key identifiers carry, for example `https://127.0.0.1:8420`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Integrity`] when a key was altered or belongs to another root key, [`VaultError::NewerFormat`], [`VaultError::Io`].
    pub fn open(dir: PathBuf, uri: &str, root: &RootKey, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        Ok(Self {
            state: Arc::new(State::open(dir, uri, root, clock)?),
            events: OnceLock::new(),
            making: Arc::new(Semaphore::new(1)),
            refused: Mutex::default(),
        })
    }

    /// Keeps the key `name` from whoever administers the vault: it belongs to the deployment, and nobody is granted anything on it.
    #[must_use]
    pub fn reserving(self, name: KeyName) -> Self {
        let _ = self.state.reserved.set(name);
        self
    }

    /// Reports changes and refusals to `events` from now on; only the first call counts.
    pub fn report_to(&self, events: Arc<dyn VaultEvents>) {
        let _ = self.events.set(events);
    }

    /// Makes the key `name` with a first version.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] when there is a key of that name, [`VaultError::Deleted`] when it can be recovered, [`VaultError::Invalid`] for
    /// a size not in [`RSA_BITS`].
    pub async fn create_key(&self, name: &KeyName, rsa_bits: u32) -> Result<KeyProperties, VaultError> {
        let key = self.create(name, rsa_bits, NewKey::default()).await?;
        Ok(self.state.properties(&key, key.newest()))
    }

    /// Adds a new version to `name`, of the size of its newest one.
    ///
    /// # Errors
    ///
    /// [`VaultError::NotFound`] when there is no such key.
    pub async fn rotate_key(&self, name: &KeyName) -> Result<KeyProperties, VaultError> {
        let key = self.rotate(name).await?;
        Ok(self.state.properties(&key, key.newest()))
    }

    /// Enables or disables one version.
    ///
    /// # Errors
    ///
    /// [`VaultError::NotFound`] when there is no such key or version.
    pub fn set_enabled(
        &self,
        name: &KeyName,
        version: &KeyVersion,
        enabled: bool,
    ) -> Result<KeyProperties, VaultError> {
        let change = VersionChange { enabled: Some(enabled), ..VersionChange::default() };
        let now = self.state.now();
        let key = self.state.change(name, |key| key.update(version, change, now))?;
        Ok(self.state.properties(&key, key.version(Some(version))?))
    }

    /// Grants everything to the identity of a new cluster, on every key that welcomes new clusters. It may be repeated.
    ///
    /// # Errors
    ///
    /// [`VaultError::Io`]; what was granted before it stays.
    pub async fn welcome(&self, principal: &PrincipalId) -> Result<(), VaultError> {
        let (state, newcomer) = (Arc::clone(&self.state), principal.clone());
        for name in blocking(move || state.welcome(&newcomer)).await? {
            let detail =
                json!({"principal": principal.as_str(), "permissions": Permission::ALL.map(Permission::as_str)});
            let (actor, outcome) = ("logseal".to_owned(), SUCCEEDED.to_owned());
            self.report(VaultEvent { actor, action: action::GRANT, key: name.to_string(), outcome, detail }).await;
        }
        Ok(())
    }

    /// The key identifier of a version of this vault.
    #[must_use]
    pub fn key_id(&self, name: &KeyName, version: &KeyVersion) -> KeyId {
        self.state.id(name, version)
    }

    pub(crate) async fn create(&self, name: &KeyName, rsa_bits: u32, new: NewKey) -> Result<Arc<Key>, VaultError> {
        self.state.may_be_made(name)?;
        let rsa = self.generate(rsa_bits).await?;
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || state.create(&name, rsa, new)).await
    }

    pub(crate) async fn add_version(&self, name: &KeyName, rsa_bits: u32, new: NewKey) -> Result<Arc<Key>, VaultError> {
        self.state.key(name)?.alive()?;
        let rsa = self.generate(rsa_bits).await?;
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || state.add_version(&name, rsa, new)).await
    }

    /// Takes a key that was made elsewhere, as a new key or as a new version.
    pub(crate) async fn import(
        &self,
        name: &KeyName,
        components: PrivateComponents,
        new: NewKey,
    ) -> Result<Arc<Key>, VaultError> {
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || {
            let rsa = RsaKey::import(&components)?;
            match state.key(&name) {
                Ok(key) if key.deletion.is_none() => state.add_version(&name, rsa, new),
                _ => state.create(&name, rsa, new),
            }
        })
        .await
    }

    pub(crate) async fn rotate(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        let rsa_bits = self.state.key(name)?.version(None)?.rsa.bits();
        let rsa = self.generate(rsa_bits).await?;
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || state.rotate(&name, rsa)).await
    }

    pub(crate) async fn update(
        &self,
        name: &KeyName,
        version: KeyVersion,
        change: VersionChange,
    ) -> Result<Arc<Key>, VaultError> {
        let now = self.state.now();
        self.change(name, move |key| key.update(&version, change, now)).await
    }

    pub(crate) async fn delete(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        let now = self.state.now();
        self.change(name, move |key| key.delete(now)).await
    }

    pub(crate) async fn recover(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        self.change(name, Key::recover).await
    }

    pub(crate) async fn purge(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || state.purge(&name)).await
    }

    pub(crate) async fn set_policy(&self, name: &KeyName, mut policy: RotationPolicy) -> Result<Arc<Key>, VaultError> {
        let now = self.state.now();
        policy.check(now)?;
        self.change(name, move |key| {
            key.alive()?;
            let created = key.rotation.as_ref().map_or(now.0, |before| before.created);
            (policy.created, policy.updated) = (created, now.0);
            key.rotation = Some(policy);
            Ok(())
        })
        .await
    }

    pub(crate) async fn grant(
        &self,
        name: &KeyName,
        principal: PrincipalId,
        permissions: BTreeSet<Permission>,
    ) -> Result<Arc<Key>, VaultError> {
        self.change(name, move |key| key.grant(&principal, permissions)).await
    }

    pub(crate) async fn report(&self, event: VaultEvent) {
        if let Some(events) = self.events.get() {
            events.report(event).await;
        }
    }

    /// Whether a refusal has not been reported yet. Being admitted makes the next refusal news again.
    fn is_news(&self, name: &KeyName, principal: &PrincipalId, permission: Permission, granted: bool) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = (name.clone(), principal.clone(), permission);
        if granted {
            refused.remove(&refusal);
            false
        } else {
            refused.insert(refusal)
        }
    }

    async fn change(
        &self,
        name: &KeyName,
        edit: impl FnOnce(&mut Key) -> Result<(), VaultError> + Send + 'static,
    ) -> Result<Arc<Key>, VaultError> {
        let (state, name) = (Arc::clone(&self.state), name.clone());
        blocking(move || state.change(&name, edit)).await
    }

    async fn generate(&self, rsa_bits: u32) -> Result<RsaKey, VaultError> {
        let turn = Arc::clone(&self.making).acquire_owned().await.map_err(|_| VaultError::Stopped)?;
        blocking(move || {
            // The work goes on when nobody waits for it any more, and so does its turn.
            let _turn = turn;
            RsaKey::generate(rsa_bits)
        })
        .await
    }
}

/// RSA private operations take milliseconds, key generation up to seconds, and files have to be synced: off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(|| stack::wiped(work)).await.map_err(|_| VaultError::Stopped)?
}

#[cfg(test)]
pub(crate) mod tests;
