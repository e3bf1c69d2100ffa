//! The copy of a wrapped AEK in the object store: what a lost catalog is rebuilt from.
//!
//! `clusters/<cluster id>/keys/<AEK id>/<KEK version>.json`, put before the key is used for the first time. It holds what the
//! catalog's rows hold of the key and of who owns it, in JSON, with a MAC under the root key. Fields may be added; the MAC covers
//! the bytes of the document with an empty `mac`, its last field, so that a reader checks also what it does not know.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use logseal_catalog::{AekRow, ClusterRow, KekRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, ClusterId, TableId, TableName, UnixNanos, WorkspaceId};
use logseal_crypto::MacKey;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::KeyError;

/// The most bytes that a copy can have; a larger object is none.
pub const COPY_BYTES: u64 = 64 * 1024;

const FORMAT: u32 = 1;
const ALGORITHM: &str = "RSA-OAEP-256";
const MAC_DOMAIN: &str = "wrapped key copy v1";
const MAC_DIGITS: usize = 64;

/// A durable, create-only put: what the keyring needs of the object store.
#[async_trait]
pub trait WrappedKeyStore: Debug + Send + Sync {
    /// Puts a new object; durable when this returns; an equal object at the path counts as put.
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// The object at `path`; `None` when there is none.
    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>>;
}

/// Whose key an AEK is: what its copy says beside the key.
#[derive(Clone, Copy, Debug)]
pub struct AekOwner<'r> {
    /// The cluster whose KEK wraps it.
    pub cluster: &'r ClusterRow,
    /// The workspace.
    pub workspace: &'r WorkspaceRow,
    /// The tables that the workspace is made with: no segment may ever name them.
    pub tables: &'r [TableRow],
}

/// A copy that was read back and is genuine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyCopy {
    /// The key's row as it stood in the catalog.
    pub aek: AekRow,
    /// The workspace's name; `None` in copies from before names were in them.
    pub workspace_name: Option<String>,
    /// The cluster's name; `None` as above.
    pub cluster_name: Option<String>,
    /// The tables that the workspace was made with.
    pub tables: Vec<TableRow>,
}

/// The folder of the copies of a key of `cluster`, one for each KEK version that wrapped it.
#[must_use]
pub fn copies_of(cluster: ClusterId, aek: AekId) -> Path {
    Path::from(format!("clusters/{cluster}/keys/{aek}"))
}

impl KeyCopy {
    /// Where the copy is in the store.
    #[must_use]
    pub fn path(&self) -> Path {
        path_of(&self.aek)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrappedKey {
    format: u32,
    aek_id: AekId,
    workspace_id: WorkspaceId,
    #[serde(default)]
    workspace_name: Option<String>,
    cluster_id: ClusterId,
    #[serde(default)]
    cluster_name: Option<String>,
    generation: u32,
    key_vault_uri: String,
    key_name: String,
    key_version: String,
    algorithm: String,
    wrapped: String,
    commitment: String,
    created: i64,
    #[serde(default)]
    tables: Vec<CopiedTable>,
    /// The last field, see [`split_mac`].
    mac: String,
}

#[derive(Deserialize, Serialize)]
struct CopiedTable {
    id: TableId,
    name: String,
}

/// Path and content of the copy of `row`.
pub(crate) fn object(row: &AekRow, owner: AekOwner<'_>, mac_key: &MacKey) -> (Path, Vec<u8>) {
    let mut key = WrappedKey {
        format: FORMAT,
        aek_id: row.id,
        workspace_id: row.workspace,
        workspace_name: Some(owner.workspace.name.clone()),
        cluster_id: row.cluster,
        cluster_name: Some(owner.cluster.name.clone()),
        generation: row.generation,
        key_vault_uri: row.kek.vault_uri.clone(),
        key_name: row.kek.name.clone(),
        key_version: row.kek.version.clone(),
        algorithm: ALGORITHM.to_owned(),
        wrapped: BASE64.encode(&row.wrapped),
        commitment: HEXLOWER.encode(&row.commitment),
        created: row.created.0,
        tables: owner.tables.iter().map(|row| CopiedTable { id: row.id, name: row.name.to_string() }).collect(),
        mac: String::new(),
    };
    let unsigned = serde_json::to_vec(&key).expect("strings and numbers always serialize");
    key.mac = HEXLOWER.encode(mac_key.mac(MAC_DOMAIN, &[&unsigned]).as_bytes());
    (path_of(row), serde_json::to_vec(&key).expect("strings and numbers always serialize"))
}

/// Where the copy of the key `row` is in the store.
#[must_use]
pub fn path_of(row: &AekRow) -> Path {
    Path::from(format!("clusters/{}/keys/{}/{}.json", row.cluster, row.id, row.kek.version))
}

/// Reads the copy at `path` back.
///
/// # Errors
///
/// [`KeyError::BadCopy`] when the content was not written under the root key of `mac_key`, was altered, or belongs to another
/// path; [`KeyError::NewerCopy`].
pub fn parse(path: &Path, content: &[u8], mac_key: &MacKey) -> Result<KeyCopy, KeyError> {
    let bad = |why| KeyError::BadCopy { path: path.to_string(), why };
    let (unsigned, mac) = split_mac(content).ok_or_else(|| bad("it is not a document with a MAC at its end"))?;
    if !mac_key.verify(MAC_DOMAIN, &[&unsigned], &mac) {
        return Err(bad("it was altered, or written under another root key"));
    }
    let key: WrappedKey = serde_json::from_slice(content).map_err(|_| bad("a field is missing or of another type"))?;
    if key.format != FORMAT {
        return Err(KeyError::NewerCopy { path: path.to_string(), format: key.format, known: FORMAT });
    }
    if key.algorithm != ALGORITHM {
        return Err(bad("this version of logseal does not know its algorithm"));
    }
    let undecodable = || bad("its wrapped key, commitment or table names cannot be decoded");
    let created = UnixNanos(key.created);
    let table = |table: CopiedTable| {
        let name = TableName::parse(&table.name).ok()?;
        Some(TableRow { id: table.id, workspace: key.workspace_id, name, created })
    };
    let tables = key.tables.into_iter().map(table).collect::<Option<Vec<_>>>().ok_or_else(undecodable)?;
    let aek = AekRow {
        id: key.aek_id,
        workspace: key.workspace_id,
        cluster: key.cluster_id,
        generation: key.generation,
        kek: KekRow { vault_uri: key.key_vault_uri, name: key.key_name, version: key.key_version },
        wrapped: BASE64.decode(key.wrapped.as_bytes()).map_err(|_| undecodable())?,
        commitment: HEXLOWER.decode(key.commitment.as_bytes()).map_err(|_| undecodable())?,
        created,
    };
    if path_of(&aek) != *path {
        return Err(bad("it is the copy of another key"));
    }
    Ok(KeyCopy { aek, workspace_name: key.workspace_name, cluster_name: key.cluster_name, tables })
}

/// The document with an empty `mac`, and the MAC.
fn split_mac(content: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (end, before) = (b"\"}", b"\"mac\":\"");
    let open = content.strip_suffix(end)?;
    let (unsigned, digits) = open.split_at_checked(open.len().checked_sub(MAC_DIGITS)?)?;
    let mac = HEXLOWER.decode(digits).ok()?;
    unsigned.ends_with(before).then(|| ([unsigned, end].concat(), mac))
}

#[cfg(test)]
mod tests;
