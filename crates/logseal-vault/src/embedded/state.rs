//! What the embedded vault holds, and how it changes: each change is in its key's file, durably, before anybody sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use logseal_core::{Clock, UnixNanos};
use logseal_crypto::{Key256, OsRandom, RootKey, aad, seal};

use super::file::{KeyFiles, StoredKey};
use super::key::{Attributes, Key, KeyOperation, Version};
use super::rsa::RsaKey;
use crate::{KeyId, KeyName, KeyProperties, KeyVersion, Permission, PrincipalId, VaultError};

/// Most keys of a vault: all of them are in memory.
const KEYS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct State {
    uri: Box<str>,
    files: KeyFiles,
    seal_key: Key256,
    clock: Arc<dyn Clock>,
    /// One change at a time. The identities that were welcomed since the start: a key that is being made meanwhile grants to them too.
    writer: Mutex<BTreeSet<PrincipalId>>,
    /// By name in lower case, as Key Vault compares names. Locked for moments only, never while a file is written.
    keys: RwLock<BTreeMap<String, Arc<Key>>>,
    pub(super) reserved: OnceLock<KeyName>,
}

/// What a key is made with.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    /// The first version's attributes.
    pub(crate) attributes: Attributes,
    /// What can be done with the first version.
    pub(crate) operations: BTreeSet<KeyOperation>,
    /// Names and values of its owner's.
    pub(crate) tags: BTreeMap<String, String>,
    /// Who is granted everything.
    pub(crate) grants: Vec<PrincipalId>,
    /// Whether clusters that are made later are granted everything too.
    pub(crate) welcoming: bool,
    /// Whether a deleted key can be purged before its retention has ended.
    pub(crate) purgeable: bool,
}

impl Default for NewKey {
    fn default() -> Self {
        Self {
            attributes: Attributes::default(),
            operations: KeyOperation::ALL.into_iter().collect(),
            tags: BTreeMap::new(),
            grants: Vec::new(),
            welcoming: true,
            purgeable: false,
        }
    }
}

impl State {
    pub(super) fn open(dir: PathBuf, uri: &str, root: &RootKey, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        let files = KeyFiles::open(dir, root.vault_mac())?;
        let seal_key = root.vault_seal();
        let mut keys = BTreeMap::new();
        for stored in files.read_all()? {
            let key = unseal(&files, &seal_key, stored)?;
            if let Some(twin) = keys.insert(slot(&key.name), Arc::new(key)) {
                // Two names that differ in case only: this program never wrote both.
                return Err(files.integrity(twin.name.as_str()));
            }
        }
        Ok(Self {
            uri: uri.trim_end_matches('/').into(),
            files,
            seal_key,
            clock,
            writer: Mutex::default(),
            keys: RwLock::new(keys),
            reserved: OnceLock::new(),
        })
    }

    pub(crate) fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    pub(crate) fn is_reserved(&self, name: &KeyName) -> bool {
        self.reserved.get().is_some_and(|reserved| slot(reserved) == slot(name))
    }

    pub(crate) fn id(&self, name: &KeyName, version: &KeyVersion) -> KeyId {
        KeyId { vault_uri: self.uri.clone(), name: name.clone(), version: version.clone() }
    }

    /// The key, deleted or not.
    pub(crate) fn key(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&slot(name)).cloned().ok_or_else(|| VaultError::NotFound(name.to_string()))
    }

    /// All keys, by name.
    pub(crate) fn keys(&self) -> Vec<Arc<Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn properties(&self, key: &Key, version: &Version) -> KeyProperties {
        version.properties(key, self.id(&key.name, &version.version))
    }

    /// Refuses what can be known to fail before the work of making RSA keys.
    pub(super) fn may_be_made(&self, name: &KeyName) -> Result<(), VaultError> {
        match self.key(name) {
            Ok(key) if key.deletion.is_some() => Err(VaultError::Deleted(key.name.clone())),
            Ok(key) => Err(VaultError::Exists(key.name.clone())),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn create(&self, name: &KeyName, rsa: RsaKey, new: NewKey) -> Result<Arc<Key>, VaultError> {
        let welcomed = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.may_be_made(name)?;
        if self.keys().len() >= KEYS {
            return Err(VaultError::Invalid(format!("the vault has {KEYS} keys, the most that it can have")));
        }
        let NewKey { attributes, operations, tags, grants, welcoming, purgeable } = new;
        let also = if welcoming { welcomed.iter().cloned().collect() } else { Vec::new() };
        let grants = grants.into_iter().chain(also).map(|principal| (principal, Permission::ALL.into())).collect();
        let version = self.seal_version(name, rsa, attributes, operations, tags)?;
        let mut key = Key {
            name: name.clone(),
            versions: Vec::new(),
            grants,
            welcoming,
            purgeable,
            deletion: None,
            rotation: None,
        };
        key.add(version)?;
        self.store(key)
    }

    /// Adds a version. What `new` says of the key as a whole is left as it is.
    pub(super) fn add_version(&self, name: &KeyName, rsa: RsaKey, new: NewKey) -> Result<Arc<Key>, VaultError> {
        let NewKey { attributes, operations, tags, .. } = new;
        self.change(name, |key| {
            key.alive()?;
            let mut version = self.seal_version(&key.name, rsa, attributes, operations, tags)?;
            if version.attributes.expires.is_none() {
                version.attributes.expires = key.rotation.as_ref().and_then(|policy| policy.expires(version.created));
            }
            key.add(version)
        })
    }

    /// A further version like the newest one, which outlives it as the policy says.
    pub(super) fn rotate(&self, name: &KeyName, rsa: RsaKey) -> Result<Arc<Key>, VaultError> {
        let key = self.key(name)?;
        let Version { operations, tags, .. } = key.version(None)?.clone();
        self.add_version(name, rsa, NewKey { operations, tags, ..NewKey::default() })
    }

    /// Grants everything on every key that welcomes new clusters. Keys that are made later grant to `principal` when they are made.
    pub(super) fn welcome(&self, principal: &PrincipalId) -> Result<Vec<KeyName>, VaultError> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).insert(principal.clone());
        let all: BTreeSet<_> = Permission::ALL.into();
        let mut granted = Vec::new();
        for key in self.keys() {
            let has_all = key.grants.get(principal) == Some(&all);
            if key.welcoming && !has_all && !self.is_reserved(&key.name) {
                self.change(&key.name, |key| {
                    key.grants.insert(principal.clone(), all.clone());
                    Ok(())
                })?;
                granted.push(key.name.clone());
            }
        }
        Ok(granted)
    }

    /// Removes a deleted key for good.
    pub(super) fn purge(&self, name: &KeyName) -> Result<Arc<Key>, VaultError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key(name)?;
        key.may_be_purged(self.now())?;
        self.files.remove(&key.name)?;
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&slot(name));
        Ok(key)
    }

    /// Applies `edit` to a copy of the key, stores it, and only then shows it: what callers see is on disk.
    pub(super) fn change(
        &self,
        name: &KeyName,
        edit: impl FnOnce(&mut Key) -> Result<(), VaultError>,
    ) -> Result<Arc<Key>, VaultError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Key::clone(&*self.key(name)?);
        edit(&mut key)?;
        self.store(key)
    }

    fn store(&self, key: Key) -> Result<Arc<Key>, VaultError> {
        self.files.write(&key)?;
        let key = Arc::new(key);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(slot(&key.name), Arc::clone(&key));
        Ok(key)
    }

    fn seal_version(
        &self,
        name: &KeyName,
        rsa: RsaKey,
        attributes: Attributes,
        operations: BTreeSet<KeyOperation>,
        tags: BTreeMap<String, String>,
    ) -> Result<Version, VaultError> {
        let version = KeyVersion::from_bytes(OsRandom.array());
        let aad = aad::vault_private_key(name.as_str(), version.as_str());
        let private_key_sealed = seal::seal(&self.seal_key, &aad, rsa.to_pkcs8()?.as_ref(), OsRandom);
        let created = self.now();
        let rsa = Arc::new(rsa);
        Ok(Version { version, attributes, operations, tags, created, updated: created, private_key_sealed, rsa })
    }
}

fn slot(name: &KeyName) -> String {
    name.as_str().to_ascii_lowercase()
}

fn unseal(files: &KeyFiles, seal_key: &Key256, stored: StoredKey) -> Result<Key, VaultError> {
    let StoredKey { name, versions, grants, welcoming, purgeable, deletion, rotation } = stored;
    let mut opened = Vec::with_capacity(versions.len());
    for version in versions {
        let aad = aad::vault_private_key(name.as_str(), version.version.as_str());
        let rsa = seal::open(seal_key, &aad, &version.private_key_sealed)
            .ok()
            .and_then(|pkcs8| RsaKey::from_pkcs8(&pkcs8))
            .ok_or_else(|| files.integrity(name.as_str()))?;
        opened.push(Version {
            version: version.version,
            attributes: version.attributes,
            operations: version.operations,
            tags: version.tags,
            created: version.created,
            updated: version.updated,
            private_key_sealed: version.private_key_sealed,
            rsa: Arc::new(rsa),
        });
    }
    Ok(Key { name, versions: opened, grants, welcoming, purgeable, deletion, rotation })
}
