//! The embedded vault: RSA keys in `DIR/vault/keys`, private keys sealed under the root key.
//!
//! It gives the product a key vault without a second server. Whoever holds both its files and the root key holds the keys;
//! the root key therefore comes from outside the data directory in any serious deployment.

mod file;
mod rsa;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use logseal_core::{Clock, UnixNanos};
use logseal_crypto::{Key256, OsRandom, RootKey, aad, seal};

use self::file::KeyFiles;
use self::rsa::RsaKey;
use crate::{Caller, KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, VaultError};

/// RSA modulus sizes in bits that a KEK may have.
pub const RSA_BITS: [u32; 3] = [2048, 3072, 4096];

/// The vault inside the server's own process.
#[derive(Debug)]
pub struct EmbeddedVault {
    uri: Box<str>,
    files: KeyFiles,
    seal_key: Key256,
    clock: Arc<dyn Clock>,
    keys: Mutex<BTreeMap<KeyName, Vec<Version>>>,
}

/// One version of a key, oldest first in its key's list.
#[derive(Clone, Debug)]
struct Version {
    version: KeyVersion,
    rsa_bits: u32,
    enabled: bool,
    created: UnixNanos,
    private_key_sealed: Vec<u8>,
    key: Arc<RsaKey>,
}

impl EmbeddedVault {
    /// Opens the vault in `dir` (made if it is missing) and checks each key it holds.
    ///
    /// `uri` is what key identifiers carry, for example `https://127.0.0.1:8420`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Integrity`] when a key was altered or belongs to another root key, [`VaultError::Io`].
    pub fn open(dir: PathBuf, uri: &str, root: &RootKey, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        let files = KeyFiles::open(dir, root.vault_mac())?;
        let seal_key = root.vault_seal();
        let mut keys = BTreeMap::new();
        for (name, stored) in files.read_all()? {
            let versions = stored
                .into_iter()
                .map(|version| unseal(&files, &seal_key, &name, version))
                .collect::<Result<_, _>>()?;
            keys.insert(name, versions);
        }
        Ok(Self { uri: uri.trim_end_matches('/').into(), files, seal_key, clock, keys: Mutex::new(keys) })
    }

    /// Makes the key `name` with a first version.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] when there is a key of that name, [`VaultError::Rsa`] for a size not in [`RSA_BITS`].
    pub async fn create_key(&self, name: &KeyName, rsa_bits: u32) -> Result<KeyProperties, VaultError> {
        if self.keys().contains_key(name) {
            return Err(VaultError::Exists(name.clone()));
        }
        let key = blocking(move || RsaKey::generate(rsa_bits)).await?;
        let version = self.new_version(name, key)?;
        let mut keys = self.keys();
        if keys.contains_key(name) {
            return Err(VaultError::Exists(name.clone()));
        }
        let versions = vec![version];
        self.files.write(name, &versions)?;
        let properties = self.properties(name, &versions[0]);
        keys.insert(name.clone(), versions);
        Ok(properties)
    }

    /// Adds a new version to `name`, of the size of its newest one.
    ///
    /// # Errors
    ///
    /// [`VaultError::NotFound`] when there is no such key.
    pub async fn rotate_key(&self, name: &KeyName) -> Result<KeyProperties, VaultError> {
        let bits = self.find(name, None)?.rsa_bits;
        let key = blocking(move || RsaKey::generate(bits)).await?;
        let version = self.new_version(name, key)?;
        self.change(name, |versions| {
            versions.push(version);
            Ok(versions.len() - 1)
        })
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
        self.change(name, |versions| {
            let index = versions.iter().position(|v| v.version == *version);
            let index = index.ok_or_else(|| VaultError::NotFound(format!("{name}/{version}")))?;
            versions[index].enabled = enabled;
            Ok(index)
        })
    }

    /// The key identifier of a version of this vault.
    #[must_use]
    pub fn key_id(&self, name: &KeyName, version: &KeyVersion) -> KeyId {
        KeyId { vault_uri: self.uri.clone(), name: name.clone(), version: version.clone() }
    }

    fn new_version(&self, name: &KeyName, key: RsaKey) -> Result<Version, VaultError> {
        let version = KeyVersion::from_bytes(OsRandom.array());
        let aad = aad::vault_private_key(name.as_str(), version.as_str());
        let private_key_sealed = seal::seal(&self.seal_key, &aad, key.to_pkcs8()?.as_ref(), OsRandom);
        let created = self.clock.now();
        Ok(Version { version, rsa_bits: key.bits(), enabled: true, created, private_key_sealed, key: Arc::new(key) })
    }

    /// Applies `edit` to a copy of the key's versions, stores it, and only then shows it: what callers see is on disk.
    fn change(
        &self,
        name: &KeyName,
        edit: impl FnOnce(&mut Vec<Version>) -> Result<usize, VaultError>,
    ) -> Result<KeyProperties, VaultError> {
        let mut keys = self.keys();
        let current = keys.get_mut(name).ok_or_else(|| VaultError::NotFound(name.to_string()))?;
        let mut versions = current.clone();
        let index = edit(&mut versions)?;
        self.files.write(name, &versions)?;
        *current = versions;
        Ok(self.properties(name, &current[index]))
    }

    fn find(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<Version, VaultError> {
        let keys = self.keys();
        let versions = keys.get(name).ok_or_else(|| VaultError::NotFound(name.to_string()))?;
        let found = match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|v| v.version == *version),
        };
        found.cloned().ok_or_else(|| VaultError::NotFound(format!("{name}/{}", version.map_or("", KeyVersion::as_str))))
    }

    /// The version to compute with: found by name and version, and enabled.
    fn usable(&self, kek: &KeyId) -> Result<Arc<RsaKey>, VaultError> {
        let version = self.find(&kek.name, Some(&kek.version))?;
        if version.enabled { Ok(version.key) } else { Err(VaultError::KeyDisabled(kek.clone())) }
    }

    fn properties(&self, name: &KeyName, version: &Version) -> KeyProperties {
        KeyProperties {
            id: self.key_id(name, &version.version),
            key_type: "RSA".into(),
            rsa_bits: version.rsa_bits,
            enabled: version.enabled,
            created: version.created,
            not_before: None,
            expires: None,
            recoverable: true,
        }
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyName, Vec<Version>>> {
        // A panic cannot leave the map half changed: it is replaced as a whole by `change` and `create_key`.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

    fn admit(&self) -> Result<&EmbeddedVault, VaultError> {
        match self.caller {
            Caller::Nobody => Err(VaultError::NoIdentity),
            Caller::Deployment | Caller::Principal(_) => Ok(&self.vault),
        }
    }
}

#[async_trait]
impl KeyVault for EmbeddedClient {
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        let vault = self.admit()?;
        Ok(vault.properties(name, &vault.find(name, version)?))
    }

    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        // Wrapping costs tens of microseconds: no detour over another thread.
        self.admit()?.usable(kek)?.wrap(key)
    }

    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError> {
        let (rsa, wrapped, kek) = (self.admit()?.usable(kek)?, wrapped.to_vec(), kek.clone());
        blocking(move || rsa.unwrap(&wrapped).ok_or(VaultError::BadWrap(kek))).await
    }
}

fn unseal(
    files: &KeyFiles,
    seal_key: &Key256,
    name: &KeyName,
    stored: file::StoredVersion,
) -> Result<Version, VaultError> {
    let aad = aad::vault_private_key(name.as_str(), stored.version.as_str());
    let key = seal::open(seal_key, &aad, &stored.private_key_sealed)
        .ok()
        .and_then(|pkcs8| RsaKey::from_pkcs8(&pkcs8))
        .ok_or_else(|| files.integrity(name.as_str()))?;
    Ok(Version {
        version: stored.version,
        rsa_bits: key.bits(),
        enabled: stored.enabled,
        created: stored.created,
        private_key_sealed: stored.private_key_sealed,
        key: Arc::new(key),
    })
}

/// RSA private operations take milliseconds and key generation up to seconds: off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VaultError::Stopped)?
}

#[cfg(test)]
mod tests;
