//! One key of the embedded vault as a value: its versions, what may be done with them, and who may do it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use logseal_core::UnixNanos;

use super::rotation::RotationPolicy;
use super::rsa::RsaKey;
use crate::{KeyId, KeyName, KeyProperties, KeyVersion, Permission, PrincipalId, VaultError};

/// How long a deleted key can be recovered, in days: the longest time that Azure Key Vault knows, and its default.
pub(crate) const RETENTION_DAYS: u32 = 90;

const DAY: i64 = 86_400_000_000_000;

/// Most versions of a key: its file is written as a whole, so that it must not grow without bound.
const VERSIONS: usize = 500;

/// Most tags of a version, and the longest name or value in characters; both are Azure Key Vault's.
const TAGS: usize = 15;
const TAG_CHARS: usize = 256;

/// A key, whole: what is shown and what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: KeyName,
    /// Oldest first, never empty.
    pub(crate) versions: Vec<Version>,
    pub(crate) grants: Grants,
    /// Whether clusters that are made later are granted everything.
    pub(crate) welcoming: bool,
    /// Whether a deleted key can be purged before its retention has ended.
    pub(crate) purgeable: bool,
    pub(crate) deletion: Option<Deletion>,
    pub(crate) rotation: Option<RotationPolicy>,
}

/// What each principal may do.
pub(crate) type Grants = BTreeMap<PrincipalId, BTreeSet<Permission>>;

/// When a key was deleted, and when it is purged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Deletion {
    pub(crate) at: UnixNanos,
    pub(crate) purge_at: UnixNanos,
}

/// One version of a key.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) version: KeyVersion,
    pub(crate) attributes: Attributes,
    pub(crate) operations: BTreeSet<KeyOperation>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) created: UnixNanos,
    pub(crate) updated: UnixNanos,
    pub(super) private_key_sealed: Vec<u8>,
    pub(crate) rsa: Arc<RsaKey>,
}

/// What the owner says of a version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Attributes {
    /// Whether it may be used at all.
    pub(crate) enabled: bool,
    /// Before this time it makes nothing new.
    pub(crate) not_before: Option<UnixNanos>,
    /// From this time on it makes nothing new.
    pub(crate) expires: Option<UnixNanos>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { enabled: true, not_before: None, expires: None }
    }
}

/// What can be done with a key (RFC 7517, section 4.3).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum KeyOperation {
    /// Encrypt a value.
    Encrypt,
    /// Decrypt it.
    Decrypt,
    /// Sign a digest.
    Sign,
    /// Verify a signature.
    Verify,
    /// Wrap a key.
    WrapKey,
    /// Unwrap it.
    UnwrapKey,
}

impl KeyOperation {
    /// All that an RSA key can do.
    pub(crate) const ALL: [Self; 6] =
        [Self::Encrypt, Self::Decrypt, Self::Sign, Self::Verify, Self::WrapKey, Self::UnwrapKey];

    /// Its name.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::WrapKey => "wrapKey",
            Self::UnwrapKey => "unwrapKey",
        }
    }

    /// Reads a name, without regard to case.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(text))
    }

    /// Whether it makes something new: what was made before can be read outside of the validity time too, or an expired key would lose it.
    fn makes(self) -> bool {
        matches!(self, Self::Encrypt | Self::Sign | Self::WrapKey)
    }
}

/// A change of one version; what is `None` stays.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct VersionChange {
    /// Whether it may be used at all.
    pub(crate) enabled: Option<bool>,
    /// Before this time it makes nothing new.
    pub(crate) not_before: Option<UnixNanos>,
    /// From this time on it makes nothing new.
    pub(crate) expires: Option<UnixNanos>,
    /// What can be done with it.
    pub(crate) operations: Option<BTreeSet<KeyOperation>>,
    /// Names and values of its owner's.
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

impl Key {
    pub(crate) fn newest(&self) -> &Version {
        self.versions.last().expect("a key is made with a version, and loses none")
    }

    /// The version, or the newest one. A deleted key has none.
    pub(crate) fn version(&self, version: Option<&KeyVersion>) -> Result<&Version, VaultError> {
        self.alive()?;
        match version {
            None => Ok(self.newest()),
            Some(version) => self.find(version),
        }
    }

    fn find(&self, version: &KeyVersion) -> Result<&Version, VaultError> {
        let found = self.versions.iter().find(|known| known.version == *version);
        found.ok_or_else(|| VaultError::NotFound(format!("{}/{version}", self.name)))
    }

    pub(crate) fn alive(&self) -> Result<(), VaultError> {
        if self.deletion.is_some() { Err(VaultError::NotFound(self.name.to_string())) } else { Ok(()) }
    }

    /// Whether `principal` may do `what` with the key.
    pub(crate) fn grants(&self, principal: &PrincipalId, what: Permission) -> bool {
        self.grants.get(principal).is_some_and(|granted| granted.contains(&what))
    }

    pub(super) fn add(&mut self, version: Version) -> Result<(), VaultError> {
        if self.versions.len() >= VERSIONS {
            let name = &self.name;
            return Err(VaultError::Invalid(format!(
                "key `{name}` has {VERSIONS} versions, the most that a key can have"
            )));
        }
        version.check()?;
        self.versions.push(version);
        Ok(())
    }

    pub(super) fn update(
        &mut self,
        version: &KeyVersion,
        change: VersionChange,
        now: UnixNanos,
    ) -> Result<(), VaultError> {
        self.alive()?;
        let index = self.versions.iter().position(|known| known.version == *version);
        let index = index.ok_or_else(|| VaultError::NotFound(format!("{}/{version}", self.name)))?;
        let VersionChange { enabled, not_before, expires, operations, tags } = change;
        let version = &mut self.versions[index];
        let Attributes { enabled: is_enabled, not_before: begins, expires: ends } = version.attributes;
        version.attributes = Attributes {
            enabled: enabled.unwrap_or(is_enabled),
            not_before: not_before.or(begins),
            expires: expires.or(ends),
        };
        version.operations = operations.unwrap_or(std::mem::take(&mut version.operations));
        version.tags = tags.unwrap_or(std::mem::take(&mut version.tags));
        version.updated = now;
        version.check()
    }

    pub(super) fn delete(&mut self, now: UnixNanos) -> Result<(), VaultError> {
        self.alive()?;
        let purge_at = UnixNanos(now.0.saturating_add(i64::from(RETENTION_DAYS) * DAY));
        self.deletion = Some(Deletion { at: now, purge_at });
        Ok(())
    }

    pub(super) fn recover(&mut self) -> Result<(), VaultError> {
        self.deleted()?;
        self.deletion = None;
        Ok(())
    }

    /// When the key was deleted; a key that is not deleted is none that a caller may ask for as one.
    pub(crate) fn deleted(&self) -> Result<Deletion, VaultError> {
        self.deletion.ok_or_else(|| VaultError::NotFound(self.name.to_string()))
    }

    /// Whether the deleted key may go for good now.
    pub(super) fn may_be_purged(&self, now: UnixNanos) -> Result<(), VaultError> {
        let deletion = self.deleted()?;
        if self.purgeable || deletion.purge_at <= now {
            return Ok(());
        }
        Err(VaultError::PurgeProtected(self.name.clone()))
    }

    /// Grants `permissions` in the place of those that `principal` had; none takes all away.
    pub(super) fn grant(
        &mut self,
        principal: &PrincipalId,
        permissions: BTreeSet<Permission>,
    ) -> Result<(), VaultError> {
        self.alive()?;
        if permissions.is_empty() {
            self.grants.remove(principal);
        } else {
            self.grants.insert(principal.clone(), permissions);
        }
        Ok(())
    }
}

impl Version {
    /// Whether the version may be used for `operation` now. `id` is for the message.
    pub(crate) fn may(&self, operation: KeyOperation, id: &KeyId, now: UnixNanos) -> Result<(), VaultError> {
        if !self.attributes.enabled {
            return Err(VaultError::KeyDisabled(id.clone()));
        }
        if !self.operations.contains(&operation) {
            return Err(VaultError::OperationNotAllowed { key: id.clone(), operation: operation.as_str() });
        }
        let outside = |why| Err(VaultError::OutsideValidity { key: id.clone(), why });
        match self.attributes {
            Attributes { not_before: Some(begin), .. } if operation.makes() && now < begin => outside("not yet valid"),
            Attributes { expires: Some(end), .. } if operation.makes() && now >= end => outside("expired"),
            _ => Ok(()),
        }
    }

    pub(super) fn properties(&self, key: &Key, id: KeyId) -> KeyProperties {
        KeyProperties {
            id,
            key_type: "RSA".into(),
            rsa_bits: self.rsa.bits(),
            enabled: self.attributes.enabled,
            created: self.created,
            not_before: self.attributes.not_before,
            expires: self.attributes.expires,
            recoverable: !key.purgeable,
        }
    }

    fn check(&self) -> Result<(), VaultError> {
        let invalid = |message: String| Err(VaultError::Invalid(message));
        if let Attributes { not_before: Some(begin), expires: Some(end), .. } = self.attributes
            && end <= begin
        {
            return invalid("`exp` must be later than `nbf`".to_owned());
        }
        if self.tags.len() > TAGS {
            return invalid(format!("a key has at most {TAGS} tags"));
        }
        if self.tags.iter().any(|(name, value)| name.chars().count().max(value.chars().count()) > TAG_CHARS) {
            return invalid(format!("the name and the value of a tag have at most {TAG_CHARS} characters each"));
        }
        Ok(())
    }
}
