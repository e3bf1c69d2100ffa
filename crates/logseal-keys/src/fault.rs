//! The catalogue of what can be wrong with a cluster's key: one entry for each failure, with the numbers and names that the products use
//! whose clients people know.
//!
#![doc = include_str!("../FAULTS.md")]

use std::fmt::{self, Display, Write as _};

use logseal_vault::VaultError;

/// What is wrong with a cluster's key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyFault {
    /// The key version is disabled.
    KeyDisabled,
    /// The identity lacks a permission on the key.
    AccessDenied,
    /// The key or its version is not in the vault, or deleted.
    KeyNotFound,
    /// The cluster has no identity.
    IdentityMissing,
    /// No access token for the identity, or the vault does not take it.
    TokenUnavailable,
    /// The vault does not unwrap what it wrapped, or gives another key back.
    UnwrapFailed,
    /// The vault's host name does not resolve.
    VaultUnresolved,
    /// There is no such vault.
    VaultNotFound,
    /// The vault's network rules keep this server out.
    NetworkRules,
    /// The vault cannot be reached, or its certificate is not accepted.
    VaultUnreachable,
    /// The vault did not answer in time.
    VaultTimedOut,
    /// The vault throttles requests.
    VaultThrottled,
    /// The vault failed.
    VaultFailed,
    /// The vault's answer is none.
    VaultMalformed,
    /// The vault's URI is not one, or not one that this deployment allows.
    InvalidKeyVaultUri,
    /// The key is not valid yet, or expired: it wraps nothing.
    KeyOutsideValidity,
    /// The key is not of a type that protects clusters.
    KeyTypeNotSupported,
    /// The key is too small.
    KeyTooSmall,
    /// The key could be destroyed before its time.
    KeyNotRecoverable,
    /// The version in use does not unwrap any more, so that no other one can take over.
    OldKeyVersionUnusable,
    /// The keys were not unwrapped yet since the start.
    NotYetUnwrapped,
}

/// An entry of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Our code.
    pub code: &'static str,
    /// The number that Azure Cosmos DB's `customerManagedKeyStatus` ends with; `None` where it has none.
    pub cosmos: Option<u16>,
    /// The code of Azure Data Box; `None` where it has none.
    pub data_box: Option<&'static str>,
    /// What it means, as the end of a sentence.
    pub cause: &'static str,
    /// What to do.
    pub action: &'static str,
    /// Until when it can be mended.
    pub recoverable: &'static str,
    /// When to ask for help, after it was done.
    pub escalate: &'static str,
}

const SOON: &str = "when it lasts longer than an hour";

impl KeyFault {
    /// All of them, in the order of the catalogue.
    pub const ALL: [Self; 21] = [
        Self::KeyDisabled,
        Self::AccessDenied,
        Self::KeyNotFound,
        Self::IdentityMissing,
        Self::TokenUnavailable,
        Self::UnwrapFailed,
        Self::VaultUnresolved,
        Self::VaultNotFound,
        Self::NetworkRules,
        Self::VaultUnreachable,
        Self::VaultTimedOut,
        Self::VaultThrottled,
        Self::VaultFailed,
        Self::VaultMalformed,
        Self::InvalidKeyVaultUri,
        Self::KeyOutsideValidity,
        Self::KeyTypeNotSupported,
        Self::KeyTooSmall,
        Self::KeyNotRecoverable,
        Self::OldKeyVersionUnusable,
        Self::NotYetUnwrapped,
    ];

    /// Its entry.
    #[must_use]
    pub fn entry(self) -> Entry {
        let entry = |code, cosmos, data_box, cause, action| Entry {
            code,
            cosmos,
            data_box,
            cause,
            action,
            recoverable: "always",
            escalate: SOON,
        };
        match self {
            Self::KeyDisabled => entry(
                "KeyDisabled",
                Some(4002),
                Some("SsemUserErrorEncryptionKeyDisabled"),
                "the key version is disabled",
                "enable the version in the key vault",
            ),
            Self::AccessDenied => entry(
                "KeyAccessDenied",
                Some(4002),
                Some("SsemUserErrorKeyVaultBadRequestException"),
                "the cluster's identity may not use the key",
                "grant the identity get, wrapKey and unwrapKey on the key, or give the cluster an identity that has them",
            ),
            Self::KeyNotFound => Entry {
                recoverable: "until the key is purged",
                escalate: "when the key was purged: what it protects cannot be read by anybody any more",
                ..entry(
                    "KeyNotFound",
                    Some(4003),
                    Some("SsemUserErrorKeyDetailsNotFound"),
                    "the key or its version is not in the key vault",
                    "recover the deleted key, or name one that is there",
                )
            },
            Self::IdentityMissing => entry(
                "IdentityMissing",
                Some(4015),
                Some("SsemUserErrorSystemAssignedIdentityAbsent"),
                "the cluster has no identity to ask the key vault as",
                "give the cluster an identity, and grant it the key",
            ),
            Self::TokenUnavailable => entry(
                "TokenUnavailable",
                Some(4000),
                Some("SsemUserErrorKekUserIdentityNotFound"),
                "there is no access token for the cluster's identity",
                "point the cluster at an identity that exists and has permissions on the key",
            ),
            Self::UnwrapFailed => entry(
                "UnwrapFailed",
                Some(4005),
                None,
                "the key vault does not unwrap the keys that the key wrapped",
                "restore the key as it was when it was adopted",
            ),
            Self::VaultUnresolved => entry(
                "KeyVaultUnresolved",
                Some(4009),
                None,
                "the key vault's host name does not resolve",
                "restore the vault or its name; a recovered vault may take two hours to be found",
            ),
            Self::VaultNotFound => Entry {
                recoverable: "until the vault is purged",
                escalate: "when the vault was purged: what its keys protect cannot be read by anybody any more",
                ..entry(
                    "KeyVaultNotFound",
                    Some(4017),
                    Some("SsemUserErrorKeyVaultDetailsNotFound"),
                    "there is no such key vault",
                    "recover the deleted vault, and its role assignments with it",
                )
            },
            Self::NetworkRules => entry(
                "KeyVaultNetworkRules",
                Some(4016),
                Some("SsemUserErrorKeyVaultBadRequestException"),
                "the key vault's network rules refuse this server",
                "let this server's address through the vault's firewall",
            ),
            Self::VaultUnreachable => entry(
                "KeyVaultUnreachable",
                None,
                None,
                "the key vault cannot be reached",
                "look at the network and at the vault's certificate",
            ),
            Self::VaultTimedOut => entry(
                "KeyVaultTimedOut",
                None,
                None,
                "the key vault does not answer in time",
                "wait; look at the vault's health",
            ),
            Self::VaultThrottled => entry(
                "KeyVaultThrottled",
                None,
                None,
                "the key vault throttles requests",
                "wait; find out who else asks it so often",
            ),
            Self::VaultFailed => {
                entry("KeyVaultFailed", None, None, "the key vault fails", "wait; look at the vault's health")
            }
            Self::VaultMalformed => entry(
                "KeyVaultMalformed",
                None,
                None,
                "what answers at the key vault's address is no key vault",
                "look at the address, and at proxies on the way",
            ),
            Self::InvalidKeyVaultUri => entry(
                "InvalidKeyVaultUri",
                Some(4006),
                Some("SsemUserErrorInvalidKeyVaultUrl"),
                "the key vault's URI is not one that this deployment allows",
                "give the vault's URI, like `https://NAME.vault.azure.net`, without the key's name and version",
            ),
            Self::KeyOutsideValidity => entry(
                "KeyOutsideValidity",
                Some(4002),
                Some("SsemUserErrorEncryptionKeyExpired"),
                "the key version is not valid yet, or expired",
                "extend its validity in the key vault, or use another version",
            ),
            Self::KeyTypeNotSupported => entry(
                "KeyTypeNotSupported",
                None,
                Some("SsemUserErrorEncryptionKeyTypeNotSupported"),
                "the key is not an RSA key",
                "use a key of the type RSA or RSA-HSM",
            ),
            Self::KeyTooSmall => entry(
                "KeyTooSmall",
                None,
                Some("SsemUserErrorEncryptionKeyTypeNotSupported"),
                "the key has fewer bits than are asked for",
                "use an RSA key of 2048, 3072 or 4096 bits, at least as large as `keyRsaSize`",
            ),
            Self::KeyNotRecoverable => entry(
                "KeyNotRecoverable",
                None,
                Some("SsemUserErrorSoftDeleteAndPurgeProtectionNotEnabled"),
                "the key could be destroyed before its retention ends",
                "turn on soft delete and purge protection in its vault",
            ),
            Self::OldKeyVersionUnusable => entry(
                "OldKeyVersionUnusable",
                None,
                None,
                "the version in use does not unwrap any more",
                "enable it until the operation has ended, then try again",
            ),
            Self::NotYetUnwrapped => entry(
                "NotYetUnwrapped",
                None,
                None,
                "the cluster's keys were not unwrapped yet since the start",
                "wait some seconds; when it lasts, the state of the cluster says why",
            ),
        }
    }

    /// Our code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.entry().code
    }

    /// What Azure Cosmos DB's `customerManagedKeyStatus` would say, in our words with its number.
    #[must_use]
    pub fn customer_managed_key_status(self) -> String {
        let Entry { code, cosmos, cause, action, .. } = self.entry();
        let mut status = format!("Access to the customer-managed key is revoked because {cause}: {action} ({code}");
        if let Some(number) = cosmos {
            let _ = write!(status, ", {number}");
        }
        status + ")."
    }
}

/// What `customerManagedKeyStatus` says while the key can be used.
pub const KEY_STATUS_GOOD: &str = "Access to the configured customer-managed key is confirmed.";

impl From<&VaultError> for KeyFault {
    fn from(error: &VaultError) -> Self {
        match error {
            VaultError::NotFound(_) | VaultError::Deleted(_) => Self::KeyNotFound,
            VaultError::KeyDisabled(_) => Self::KeyDisabled,
            VaultError::AccessDenied { .. } | VaultError::OperationNotAllowed { .. } => Self::AccessDenied,
            VaultError::NoIdentity => Self::IdentityMissing,
            VaultError::OutsideValidity { .. } => Self::KeyOutsideValidity,
            VaultError::BadWrap(_) | VaultError::Integrity { .. } | VaultError::Rsa(_) => Self::UnwrapFailed,
            VaultError::Token(_) | VaultError::Unauthorized => Self::TokenUnavailable,
            VaultError::Firewall => Self::NetworkRules,
            VaultError::VaultNotFound(_) => Self::VaultNotFound,
            VaultError::Unresolved(_) => Self::VaultUnresolved,
            VaultError::TimedOut(_) => Self::VaultTimedOut,
            VaultError::Throttled { .. } => Self::VaultThrottled,
            VaultError::Server(_) => Self::VaultFailed,
            VaultError::Malformed(_) => Self::VaultMalformed,
            VaultError::Invalid(_) => Self::InvalidKeyVaultUri,
            _ => Self::VaultUnreachable,
        }
    }
}

impl Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { code, cause, action, .. } = self.entry();
        write!(f, "{cause}: {action} ({code})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The page that people read is the table in this file.
    fn page() -> String {
        let mut page = String::from(
            "| code | Cosmos DB | Data Box | what it means | what to do | can be mended | ask for help |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for fault in KeyFault::ALL {
            let Entry { code, cosmos, data_box, cause, action, recoverable, escalate } = fault.entry();
            let cosmos = cosmos.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let data_box = data_box.map_or_else(|| "-".to_owned(), |name| format!("`{name}`"));
            let _ = writeln!(
                page,
                "| `{code}` | {cosmos} | {data_box} | {cause} | {action} | {recoverable} | {escalate} |"
            );
        }
        page
    }

    #[test]
    fn the_page_is_the_table() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("FAULTS.md");
        if std::env::var_os("LOGSEAL_BLESS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), page(), "LOGSEAL_BLESS=1 writes it anew");
    }

    #[test]
    fn codes_are_unique_and_statuses_end_with_their_number() {
        let codes: HashSet<_> = KeyFault::ALL.iter().map(|fault| fault.code()).collect();
        assert_eq!(codes.len(), KeyFault::ALL.len());
        assert!(KeyFault::KeyDisabled.customer_managed_key_status().ends_with("(KeyDisabled, 4002)."));
    }
}
