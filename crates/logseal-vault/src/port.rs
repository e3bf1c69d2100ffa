//! What the rest of the program asks of a key vault.

use std::fmt::{self, Debug, Display};
use std::time::Duration;

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
    /// The key's type as a JSON Web Key names it (RFC 7518, section 6.1): `RSA` or `RSA-HSM` for those that can protect a cluster.
    pub key_type: Box<str>,
    /// RSA modulus size in bits; 0 for a key of another type.
    pub rsa_bits: u32,
    /// Whether the version may be used.
    pub enabled: bool,
    /// When the version was made.
    pub created: UnixNanos,
    /// Before this time the version wraps nothing.
    pub not_before: Option<UnixNanos>,
    /// From this time on the version wraps nothing; it unwraps all the same.
    pub expires: Option<UnixNanos>,
    /// Whether a deleted key can be recovered until its retention ends, and nobody can purge it before.
    pub recoverable: bool,
}

impl KeyProperties {
    /// Whether the type is one of RSA's.
    #[must_use]
    pub fn is_rsa(&self) -> bool {
        ["RSA", "RSA-HSM"].iter().any(|kind| self.key_type.eq_ignore_ascii_case(kind))
    }
}

/// A vault that holds RSA keys and wraps 256-bit keys with RSA-OAEP-256 (RFC 8017, section 7.1, SHA-256 for both hashes), asked as one
/// principal.
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
    /// [`VaultError`]; in particular [`VaultError::OutsideValidity`], which an unwrap never answers.
    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError>;

    /// Unwraps what [`KeyVault::wrap`] made with the same version.
    ///
    /// # Errors
    ///
    /// [`VaultError`]; in particular [`VaultError::BadWrap`] when `wrapped` was not made with it or was altered.
    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError>;
}

/// What a principal may do with a key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Permission {
    /// Read its public part and its attributes.
    Get,
    /// Wrap another key.
    WrapKey,
    /// Unwrap another key.
    UnwrapKey,
}

impl Permission {
    /// All that a cluster needs.
    pub const ALL: [Self; 3] = [Self::Get, Self::WrapKey, Self::UnwrapKey];

    /// Key Vault's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::WrapKey => "wrapKey",
            Self::UnwrapKey => "unwrapKey",
        }
    }

    /// Reads a name, without regard to case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(text))
    }
}

impl Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a failure says about the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VaultErrorClass {
    /// The vault itself says that the key may not be used: access denied, key disabled, key not found; or there is no identity to ask as.
    Refusal,
    /// Nothing: the vault could not be asked, or did not answer what it was asked.
    Trouble,
}

/// A vault's refusal or failure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The key or version does not exist, or is deleted.
    #[error("key `{0}` does not exist in the vault")]
    NotFound(String),
    /// The key version is disabled.
    #[error("key `{0}` is disabled: enable it in the vault")]
    KeyDisabled(KeyId),
    /// The caller has no permission.
    #[error("`{caller}` has no permission `{permission}` on key `{key}`: grant it in the vault")]
    AccessDenied {
        /// As whom the vault was asked.
        caller: String,
        /// What is missing.
        permission: Permission,
        /// The key's identifier, or its name when no version was named.
        key: String,
    },
    /// The cluster has no identity that the vault could be asked as.
    #[error("there is no identity to ask the key vault as: give the cluster one")]
    NoIdentity,
    /// The version wraps nothing now: it is not valid yet, or expired. It unwraps all the same.
    #[error("key `{key}` is outside of its validity time ({why}): extend it in the vault, or use another version")]
    OutsideValidity {
        /// The version.
        key: KeyId,
        /// `not yet valid` or `expired`.
        why: &'static str,
    },
    /// The key's own list of operations (`key_ops`) lacks this one.
    #[error("key `{key}` does not allow the operation `{operation}` (its `key_ops`)")]
    OperationNotAllowed {
        /// The version.
        key: KeyId,
        /// The operation.
        operation: &'static str,
    },
    /// The name is taken.
    #[error("key `{0}` exists already")]
    Exists(KeyName),
    /// The name belongs to a deleted key that can be recovered.
    #[error("key `{0}` is deleted but recoverable, and keeps its name: recover it, or purge it")]
    Deleted(KeyName),
    /// The deleted key cannot be purged.
    #[error("key `{0}` is protected from purging until its retention ends")]
    PurgeProtected(KeyName),
    /// The wrapped key does not open.
    #[error("wrapped key does not open with `{0}`: it was altered or wrapped by another key")]
    BadWrap(KeyId),
    /// What was asked for is not possible.
    #[error("{0}")]
    Invalid(String),
    /// No access token could be had for the identity.
    #[error("no access token for the key vault: {0}")]
    Token(String),
    /// The vault does not take the access token.
    #[error("the key vault does not take the access token")]
    Unauthorized,
    /// The vault's firewall or network rules keep us out.
    #[error("the key vault's network rules refuse this address")]
    Firewall,
    /// There is no vault of this name.
    #[error("there is no key vault at `{0}`")]
    VaultNotFound(String),
    /// The vault's name has no address.
    #[error("the key vault's host name `{0}` does not resolve")]
    Unresolved(String),
    /// The vault cannot be reached, or its TLS certificate is not accepted.
    #[error("the key vault cannot be reached: {0}")]
    Unreachable(String),
    /// The vault did not answer in time.
    #[error("the key vault did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The vault has too much to do.
    #[error("the key vault is throttling requests")]
    Throttled {
        /// When to come back, if the vault said so.
        retry_after: Option<Duration>,
    },
    /// The vault failed.
    #[error("the key vault failed with status {0}")]
    Server(u16),
    /// The vault answered something that is no answer.
    #[error("the key vault's answer is malformed: {0}")]
    Malformed(&'static str),
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
    /// A key file was written by a later version of this program.
    #[error(
        "`{file}` has format {format}, this version of logseal knows formats 1 to {known}: start the version that wrote it"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Its format.
        format: u32,
        /// The newest format that this version knows.
        known: u32,
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

impl VaultError {
    /// What the failure says about the key.
    ///
    /// Only a refusal ends the use of keys soon; a trouble is waited out with the keys that are in memory, for a bounded time. A wrapped key
    /// that does not open is a trouble: a vault that answers wrong bytes has not refused.
    #[must_use]
    pub fn class(&self) -> VaultErrorClass {
        match self {
            Self::NotFound(_) | Self::KeyDisabled(_) | Self::AccessDenied { .. } | Self::NoIdentity => {
                VaultErrorClass::Refusal
            }
            _ => VaultErrorClass::Trouble,
        }
    }
}
