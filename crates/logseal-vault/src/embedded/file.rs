//! The files of the embedded vault: one JSON file a key, `keys/<name>.json`, replaced as a whole.
//!
//! ```json
//! {"format": 1, "mac": "<hex>", "versions": [
//!   {"version": "<32 hex digits>", "enabled": true, "created": <Unix time in ns>, "privateKeySealed": "<base64>"}]}
//! ```
//!
//! `privateKeySealed` is the PKCS #8 private key under AES-256-GCM (see `logseal_crypto::seal`), bound to name and version.
//! `mac` is HMAC-SHA-256 over name and versions, so that nobody can enable a disabled version by editing the file. Going
//! back to an older file as a whole is not noticed. A reader refuses a `format` that it does not know.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use logseal_core::UnixNanos;
use logseal_crypto::MacKey;
use serde::{Deserialize, Serialize};

use super::Version;
use crate::{KeyName, KeyVersion, VaultError};

const FORMAT: u32 = 1;

#[derive(Debug)]
pub(super) struct KeyFiles {
    dir: PathBuf,
    mac: MacKey,
}

/// A version as its file states it; the private key is still sealed.
pub(super) struct StoredVersion {
    pub(super) version: KeyVersion,
    pub(super) enabled: bool,
    pub(super) created: UnixNanos,
    pub(super) private_key_sealed: Vec<u8>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: u32,
    mac: String,
    versions: Vec<VersionEntry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VersionEntry {
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

    pub(super) fn read_all(&self) -> Result<Vec<(KeyName, Vec<StoredVersion>)>, VaultError> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|source| io_error(&self.dir, source))? {
            let path = entry.map_err(|source| io_error(&self.dir, source))?.path();
            // Leftovers of an interrupted replacement have another ending.
            if path.extension().is_some_and(|e| e == "json") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let name = KeyName::parse(&stem).map_err(|_| self.integrity(&stem))?;
                let bytes = fs::read(&path).map_err(|source| io_error(&path, source))?;
                let versions = self.parse(&name, &bytes).ok_or_else(|| self.integrity(&stem))?;
                keys.push((name, versions));
            }
        }
        Ok(keys)
    }

    pub(super) fn write(&self, name: &KeyName, versions: &[Version]) -> Result<(), VaultError> {
        let versions: Vec<_> = versions
            .iter()
            .map(|v| VersionEntry {
                version: v.version.to_string(),
                enabled: v.enabled,
                created: v.created.0,
                private_key_sealed: data_encoding::BASE64.encode(&v.private_key_sealed),
            })
            .collect();
        let mac = data_encoding::HEXLOWER.encode(self.mac.mac(DOMAIN, &fields(name, &versions).each()).as_bytes());
        let path = self.path(name.as_str());
        let json = serde_json::to_vec_pretty(&KeyFile { format: FORMAT, mac, versions })
            .map_err(|error| io_error(&path, io::Error::other(error)))?;
        replace(&path, &json).map_err(|source| io_error(&path, source))
    }

    pub(super) fn integrity(&self, name: &str) -> VaultError {
        VaultError::Integrity { name: name.to_owned(), file: self.path(name).display().to_string() }
    }

    fn parse(&self, name: &KeyName, bytes: &[u8]) -> Option<Vec<StoredVersion>> {
        let file: KeyFile = serde_json::from_slice(bytes).ok()?;
        let mac = data_encoding::HEXLOWER.decode(file.mac.as_bytes()).ok()?;
        let genuine = file.format == FORMAT && self.mac.verify(DOMAIN, &fields(name, &file.versions).each(), &mac);
        if !genuine || file.versions.is_empty() {
            return None;
        }
        let version = |entry: &VersionEntry| {
            Some(StoredVersion {
                version: KeyVersion::parse(&entry.version).ok()?,
                enabled: entry.enabled,
                created: UnixNanos(entry.created),
                private_key_sealed: data_encoding::BASE64.decode(entry.private_key_sealed.as_bytes()).ok()?,
            })
        };
        file.versions.iter().map(version).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

const DOMAIN: &str = "embedded vault key v1";

/// The bytes that the MAC covers, in order.
struct Fields(Vec<Vec<u8>>);

impl Fields {
    fn each(&self) -> Vec<&[u8]> {
        self.0.iter().map(Vec::as_slice).collect()
    }
}

fn fields(name: &KeyName, versions: &[VersionEntry]) -> Fields {
    let mut fields = vec![name.as_str().as_bytes().to_vec()];
    for v in versions {
        fields.push(v.version.as_bytes().to_vec());
        fields.push(vec![u8::from(v.enabled)]);
        fields.push(v.created.to_le_bytes().to_vec());
        fields.push(v.private_key_sealed.as_bytes().to_vec());
    }
    Fields(fields)
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
