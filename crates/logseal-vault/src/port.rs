//! What the rest of the program asks of a key vault.

use std::fmt::Debug;

use async_trait::async_trait;
use logseal_core::UnixNanos;
use logseal_crypto::Key256;
use thiserror::Error;

use crate::{KeyId, KeyName, KeyVersion};

/// The public properties of one key version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyProperties {
    /// Vault, name and version.
    pub id: KeyId,
    /// RSA modulus size in bits.
    pub rsa_bits: u32,
    /// Whether the version may be used.
    pub enabled: bool,
    /// When the version was made.
    pub created: UnixNanos,
    /// Whether a deleted key can be recovered until its retention ends.
    pub recoverable: bool,
}

/// A vault that holds RSA keys and wraps 256-bit keys with RSA-OAEP-256 (RFC 8017, section 7.1, SHA-256 for both hashes).
///
/// A vault authenticates no context beside the wrapped key; callers compare a commitment after each unwrap.
#[async_trait]
pub trait KeyVault: Debug + Send + Sync {
    /// The properties of `name`, of its newest version when `version` is `None`.
    ///
    /// # Errors
    ///
    /// [`VaultError::NotFound`] when there is no such key or version.
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError>;

    /// Wraps `key` with the version that `kek` names.
    ///
    /// # Errors
    ///
    /// [`VaultError::KeyDisabled`] or [`VaultError::NotFound`] when the version cannot be used.
    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError>;

    /// Unwraps what [`KeyVault::wrap`] made with the same version.
    ///
    /// # Errors
    ///
    /// [`VaultError::KeyDisabled`] or [`VaultError::NotFound`] when the version cannot be used, [`VaultError::BadWrap`] when
    /// `wrapped` was not made with it or was altered.
    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError>;
}

/// A vault's refusal or failure.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The key or version does not exist.
    #[error("key `{0}` does not exist in the vault")]
    NotFound(String),
    /// The key version is disabled.
    #[error("key `{0}` is disabled: enable it in the vault")]
    KeyDisabled(KeyId),
    /// The name is taken.
    #[error("key `{0}` exists already")]
    Exists(KeyName),
    /// The wrapped key does not open.
    #[error("wrapped key does not open with `{0}`: it was altered or wrapped by another key")]
    BadWrap(KeyId),
    /// A key file was altered, or was written under another root key.
    #[error(
        "key `{name}` in the embedded vault fails its integrity check: restore `{file}` or the root key it was written under"
    )]
    Integrity {
        /// The key's name as the file's name states it.
        name: String,
        /// The file.
        file: String,
    },
    /// The RSA implementation refused.
    #[error("the RSA operation `{0}` failed")]
    Rsa(&'static str),
    /// A file could not be read or written.
    #[error("cannot access the embedded vault's file `{file}`")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The worker that computes went away.
    #[error("the vault is shutting down")]
    Stopped,
}
