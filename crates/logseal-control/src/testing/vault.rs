//! The embedded vault, which fails from a call on that a test names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logseal_crypto::{Key256, OsRandom};
use logseal_vault::{EmbeddedClient, KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, VaultError};

/// What a vault that fails does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// It says that the key may not be used.
    Refusal,
    /// It cannot be reached.
    Outage,
    /// It unwraps to another key, and answers everything else.
    WrongBytes,
}

/// When the vault fails, and how often it was asked.
#[derive(Debug, Default)]
pub(crate) struct VaultTrouble {
    calls: AtomicU64,
    planted: Mutex<Option<(u64, Trouble)>>,
}

impl VaultTrouble {
    /// Calls are counted from 0 again; from the call `from` on there is `trouble`.
    pub(crate) fn plant(&self, from: u64, trouble: Trouble) {
        *self.planted.lock().unwrap() = Some((from, trouble));
        self.calls.store(0, Ordering::SeqCst);
    }

    /// Calls are counted from 0 again, and none fails.
    pub(crate) fn end(&self) {
        *self.planted.lock().unwrap() = None;
        self.calls.store(0, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn next(&self) -> Option<Trouble> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.planted.lock().unwrap().filter(|(from, _)| call >= *from).map(|(_, trouble)| trouble)
    }
}

/// One caller's view of it.
#[derive(Debug)]
pub(crate) struct TroubledVault {
    pub(crate) vault: EmbeddedClient,
    pub(crate) trouble: Arc<VaultTrouble>,
}

impl TroubledVault {
    /// Whether an answer is to be a wrong one.
    fn answer(&self, key: &str) -> Result<bool, VaultError> {
        match self.trouble.next() {
            None => Ok(false),
            Some(Trouble::WrongBytes) => Ok(true),
            Some(Trouble::Refusal) => Err(VaultError::NotFound(key.to_owned())),
            Some(Trouble::Outage) => Err(VaultError::Unreachable("planted".into())),
        }
    }
}

#[async_trait]
impl KeyVault for TroubledVault {
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        self.answer(name.as_str())?;
        self.vault.key(name, version).await
    }

    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        self.answer(kek.name.as_str())?;
        self.vault.wrap(kek, key).await
    }

    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError> {
        let wrong = self.answer(kek.name.as_str())?;
        let key = self.vault.unwrap(kek, wrapped).await?;
        Ok(if wrong { Key256::generate(OsRandom) } else { key })
    }
}
