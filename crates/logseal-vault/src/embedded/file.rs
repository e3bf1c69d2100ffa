//! The files of the embedded vault: one JSON file a key, `keys/<name>.json`, replaced as a whole.
//!
//! ```json
//! {"format": 2, "mac": "<hex>", "key": {
//!   "name": "<name>", "welcoming": true, "purgeable": false,
//!   "versions": [{"version": "<32 hex digits>", "enabled": true, "notBefore": null, "expires": null, "operations": ["wrapKey"],
//!     "tags": {}, "created": <Unix time in ns>, "updated": <the same>, "privateKeySealed": "<base64>"}],
//!   "grants": {"<principal>": ["get"]}, "deletion": {"at": <ns>, "purgeAt": <ns>}, "rotation": {...}}}
//! ```
//!
//! `privateKeySealed` is the PKCS #8 private key under AES-256-GCM (see `logseal_crypto::seal`), bound to name and version.
//! `mac` is HMAC-SHA-256 over the file's name and the value of `key` as this program writes it, so that nobody can enable a disabled
//! version or grant a permission by editing the file. Going back to an older file as a whole is not noticed.
//!
//! Format 1 had versions only, without attributes but `enabled`. It is read, and becomes format 2 with the key's next change. Whoever adds a
//! property makes format 3, since the MAC covers all of them. A reader refuses a `format` that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use logseal_core::UnixNanos;
use logseal_crypto::MacKey;
use serde::{Deserialize, Serialize};

use super::key::{Attributes, Deletion, Grants, Key, KeyOperation};
use super::rotation::RotationPolicy;
use crate::{KeyName, KeyVersion, Permission, PrincipalId, VaultError};

const FORMAT: u32 = 2;

const DOMAIN: &str = "embedded vault key v2";
const DOMAIN_1: &str = "embedded vault key v1";

#[derive(Debug)]
pub(super) struct KeyFiles {
    dir: PathBuf,
    mac: MacKey,
}

/// A key as its file states it; private keys are still sealed.
pub(super) struct StoredKey {
    pub(super) name: KeyName,
    pub(super) versions: Vec<StoredVersion>,
    pub(super) grants: Grants,
    pub(super) welcoming: bool,
    pub(super) purgeable: bool,
    pub(super) deletion: Option<Deletion>,
    pub(super) rotation: Option<RotationPolicy>,
}

pub(super) struct StoredVersion {
    pub(super) version: KeyVersion,
    pub(super) attributes: Attributes,
    pub(super) operations: BTreeSet<KeyOperation>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) created: UnixNanos,
    pub(super) updated: UnixNanos,
    pub(super) private_key_sealed: Vec<u8>,
}

/// What all formats have in common.
#[derive(Deserialize)]
struct AnyFile {
    format: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: u32,
    mac: String,
    key: Body,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    name: String,
    welcoming: bool,
    purgeable: bool,
    versions: Vec<VersionEntry>,
    grants: BTreeMap<String, Vec<String>>,
    deletion: Option<DeletionEntry>,
    rotation: Option<RotationPolicy>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VersionEntry {
    version: String,
    enabled: bool,
    not_before: Option<i64>,
    expires: Option<i64>,
    operations: Vec<String>,
    tags: BTreeMap<String, String>,
    created: i64,
    updated: i64,
    private_key_sealed: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DeletionEntry {
    at: i64,
    purge_at: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile1 {
    #[expect(dead_code, reason = "read before, and not to be refused as unknown")]
    format: u32,
    mac: String,
    versions: Vec<VersionEntry1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VersionEntry1 {
    version: String,
    enabled: bool,
    created: i64,
    private_key_sealed: String,
}

impl KeyFiles {
    pub(super) fn open(dir: PathBuf, mac: MacKey) -> Result<Self, VaultError> {
        let keys = dir.join("keys");
        fs::create_dir_all(&keys).map_err(|source| io_error(&keys, source))?;
        // A folder is durable once the one above it is synced; losing it would lose the keys in it.
        for folder in
            [Some(dir.as_path()), dir.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty())
        {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io_error(folder, source))?;
        }
        let dir = keys;
        Ok(Self { dir, mac })
    }

    pub(super) fn read_all(&self) -> Result<Vec<StoredKey>, VaultError> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|source| io_error(&self.dir, source))? {
            let path = entry.map_err(|source| io_error(&self.dir, source))?.path();
            // Leftovers of an interrupted replacement have another ending.
            if path.extension().is_some_and(|e| e == "json") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let name = KeyName::parse(&stem).map_err(|_| self.integrity(&stem))?;
                let bytes = fs::read(&path).map_err(|source| io_error(&path, source))?;
                keys.push(self.parse(name, &bytes)?);
            }
        }
        Ok(keys)
    }

    /// Replaces the key's file; durable when this returns.
    pub(super) fn write(&self, key: &Key) -> Result<(), VaultError> {
        let body = body(key);
        let path = self.path(key.name.as_str());
        let write = || {
            let mac = self.mac.mac(DOMAIN, &[key.name.as_str().as_bytes(), &serde_json::to_vec(&body)?]);
            let file = KeyFile { format: FORMAT, mac: HEXLOWER.encode(mac.as_bytes()), key: body };
            replace(&path, &serde_json::to_vec_pretty(&file)?)
        };
        write().map_err(|source| io_error(&path, source))
    }

    /// Removes the key's file; durable when this returns.
    pub(super) fn remove(&self, name: &KeyName) -> Result<(), VaultError> {
        let path = self.path(name.as_str());
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.dir).and_then(|dir| dir.sync_all()),
        };
        removed.map_err(|source| io_error(&path, source))
    }

    pub(super) fn integrity(&self, name: &str) -> VaultError {
        VaultError::Integrity { name: name.to_owned(), file: self.path(name).display().to_string() }
    }

    fn parse(&self, name: KeyName, bytes: &[u8]) -> Result<StoredKey, VaultError> {
        let altered = || self.integrity(name.as_str());
        let AnyFile { format } = serde_json::from_slice(bytes).map_err(|_| altered())?;
        let parsed = match format {
            1 => self.parse_1(&name, bytes),
            FORMAT => self.parse_2(&name, bytes),
            _ => {
                let file = self.path(name.as_str()).display().to_string();
                return Err(VaultError::NewerFormat { file, format, known: FORMAT });
            }
        };
        parsed.filter(|key| !key.versions.is_empty()).ok_or_else(altered)
    }

    fn parse_2(&self, name: &KeyName, bytes: &[u8]) -> Option<StoredKey> {
        let KeyFile { mac, key, .. } = serde_json::from_slice(bytes).ok()?;
        let mac = HEXLOWER.decode(mac.as_bytes()).ok()?;
        // What the MAC covers is what this program would write for the value that it read: no two values are written alike.
        let covered = serde_json::to_vec(&key).ok()?;
        if !self.mac.verify(DOMAIN, &[name.as_str().as_bytes(), &covered], &mac) || key.name != name.as_str() {
            return None;
        }
        let Body { name: _, welcoming, purgeable, versions, grants, deletion, rotation } = key;
        let permissions = |names: Vec<String>| names.iter().map(|name| Permission::parse(name)).collect::<Option<_>>();
        Some(StoredKey {
            name: name.clone(),
            versions: versions.into_iter().map(VersionEntry::stored).collect::<Option<_>>()?,
            grants: grants
                .into_iter()
                .map(|(principal, names)| Some((PrincipalId::parse(&principal).ok()?, permissions(names)?)))
                .collect::<Option<_>>()?,
            welcoming,
            purgeable,
            deletion: deletion
                .map(|deletion| Deletion { at: UnixNanos(deletion.at), purge_at: UnixNanos(deletion.purge_at) }),
            rotation,
        })
    }

    fn parse_1(&self, name: &KeyName, bytes: &[u8]) -> Option<StoredKey> {
        let KeyFile1 { mac, versions, .. } = serde_json::from_slice(bytes).ok()?;
        let mac = HEXLOWER.decode(mac.as_bytes()).ok()?;
        let mut fields = vec![name.as_str().as_bytes().to_vec()];
        for version in &versions {
            fields.push(version.version.as_bytes().to_vec());
            fields.push(vec![u8::from(version.enabled)]);
            fields.push(version.created.to_le_bytes().to_vec());
            fields.push(version.private_key_sealed.as_bytes().to_vec());
        }
        let covered: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        if !self.mac.verify(DOMAIN_1, &covered, &mac) {
            return None;
        }
        let version = |entry: VersionEntry1| {
            Some(StoredVersion {
                version: KeyVersion::parse(&entry.version).ok()?,
                attributes: Attributes { enabled: entry.enabled, ..Attributes::default() },
                operations: KeyOperation::ALL.into_iter().collect(),
                tags: BTreeMap::new(),
                created: UnixNanos(entry.created),
                updated: UnixNanos(entry.created),
                private_key_sealed: BASE64.decode(entry.private_key_sealed.as_bytes()).ok()?,
            })
        };
        Some(StoredKey {
            name: name.clone(),
            versions: versions.into_iter().map(version).collect::<Option<_>>()?,
            grants: Grants::new(),
            welcoming: true,
            purgeable: false,
            deletion: None,
            rotation: None,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

impl VersionEntry {
    fn stored(self) -> Option<StoredVersion> {
        Some(StoredVersion {
            version: KeyVersion::parse(&self.version).ok()?,
            attributes: Attributes {
                enabled: self.enabled,
                not_before: self.not_before.map(UnixNanos),
                expires: self.expires.map(UnixNanos),
            },
            operations: self.operations.iter().map(|name| KeyOperation::parse(name)).collect::<Option<_>>()?,
            tags: self.tags,
            created: UnixNanos(self.created),
            updated: UnixNanos(self.updated),
            private_key_sealed: BASE64.decode(self.private_key_sealed.as_bytes()).ok()?,
        })
    }
}

fn body(key: &Key) -> Body {
    let Key { name, versions, grants, welcoming, purgeable, deletion, rotation } = key;
    let entry = |version: &super::key::Version| VersionEntry {
        version: version.version.to_string(),
        enabled: version.attributes.enabled,
        not_before: version.attributes.not_before.map(|time| time.0),
        expires: version.attributes.expires.map(|time| time.0),
        operations: version.operations.iter().map(|operation| operation.as_str().to_owned()).collect(),
        tags: version.tags.clone(),
        created: version.created.0,
        updated: version.updated.0,
        private_key_sealed: BASE64.encode(&version.private_key_sealed),
    };
    let names = |granted: &BTreeSet<Permission>| granted.iter().map(ToString::to_string).collect();
    Body {
        name: name.to_string(),
        welcoming: *welcoming,
        purgeable: *purgeable,
        versions: versions.iter().map(entry).collect(),
        grants: grants.iter().map(|(principal, granted)| (principal.to_string(), names(granted))).collect(),
        deletion: deletion.map(|deletion| DeletionEntry { at: deletion.at.0, purge_at: deletion.purge_at.0 }),
        rotation: rotation.clone(),
    }
}

/// Replaces `path` so that a crash leaves either the old or the new content, durable when this returns.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a key file has a folder"))?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?; // mode 0600
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

fn io_error(path: &Path, source: io::Error) -> VaultError {
    VaultError::Io { file: path.display().to_string(), source }
}
