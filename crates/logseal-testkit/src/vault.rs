//! A key vault that answers as it is told.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use logseal_core::UnixNanos;
use logseal_crypto::{Key256, OsRandom};
use logseal_vault::{KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, VaultError};

/// What the vault does when it is asked.
#[derive(Default)]
pub enum Script {
    /// It answers as a vault does.
    #[default]
    Good,
    /// It fails so.
    Fail(Box<dyn Fn() -> VaultError + Send>),
    /// It unwraps to another key.
    WrongBytes,
    /// It never answers.
    Silent,
}

/// Wraps by remembering, and answers by its script.
#[derive(Default)]
pub struct ScriptedVault(Mutex<State>);

#[derive(Default)]
struct State {
    script: Script,
    wrapped: HashMap<Vec<u8>, Key256>,
}

impl ScriptedVault {
    /// From now on it answers so.
    pub fn play(&self, script: Script) {
        self.state().script = script;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the vault answers at all, and not with a failure.
    async fn answer(&self) -> Result<(), VaultError> {
        let silent = match &self.state().script {
            Script::Good | Script::WrongBytes => false,
            Script::Fail(error) => return Err(error()),
            Script::Silent => true,
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl KeyVault for ScriptedVault {
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        self.answer().await?;
        let version = version.cloned().unwrap_or_else(|| KeyVersion::from_bytes([1; 16]));
        Ok(KeyProperties {
            id: KeyId { vault_uri: "https://v".into(), name: name.clone(), version },
            key_type: "RSA".into(),
            rsa_bits: 2048,
            enabled: true,
            created: UnixNanos(1),
            not_before: None,
            expires: None,
            recoverable: true,
        })
    }

    async fn wrap(&self, _: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        self.answer().await?;
        let wrapped = OsRandom.array::<32>().to_vec();
        let copy = Key256::copy_from_slice(key.expose()).expect("256 bits");
        self.state().wrapped.insert(wrapped.clone(), copy);
        Ok(wrapped)
    }

    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError> {
        self.answer().await?;
        let state = self.state();
        if matches!(state.script, Script::WrongBytes) {
            return Ok(Key256::generate(OsRandom));
        }
        let key = state.wrapped.get(wrapped).ok_or_else(|| VaultError::BadWrap(kek.clone()))?;
        Ok(Key256::copy_from_slice(key.expose()).expect("256 bits"))
    }
}

impl Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "Good",
            Self::Fail(_) => "Fail",
            Self::WrongBytes => "WrongBytes",
            Self::Silent => "Silent",
        })
    }
}

impl Debug for ScriptedVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedVault")
    }
}
