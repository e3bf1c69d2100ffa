//! The copy of a wrapped AEK in the object store: what a lost catalog is rebuilt from.
//!
//! `clusters/<cluster id>/keys/<AEK id>/<KEK version>.json`, put before the key is used for the first time. It holds what the
//! catalog's row holds, in JSON, with a MAC under the root key.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use logseal_catalog::AekRow;
use logseal_crypto::MacKey;
use object_store::path::Path;
use serde::Serialize;

/// A durable, create-only put: what the keyring needs of the object store.
#[async_trait]
pub trait WrappedKeyStore: Debug + Send + Sync {
    /// Puts a new object; durable when this returns; an equal object at the path counts as put.
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>>;
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrappedKey {
    format: u32,
    aek_id: String,
    workspace_id: String,
    cluster_id: String,
    generation: u32,
    key_vault_uri: String,
    key_name: String,
    key_version: String,
    algorithm: &'static str,
    wrapped: String,
    commitment: String,
    created: i64,
    mac: String,
}

/// Path and content of the copy of `row`.
pub(crate) fn object(row: &AekRow, mac_key: &MacKey) -> (Path, Vec<u8>) {
    let path = Path::from(format!("clusters/{}/keys/{}/{}.json", row.cluster, row.id, row.kek.version));
    let mut key = WrappedKey {
        format: 1,
        aek_id: row.id.to_string(),
        workspace_id: row.workspace.to_string(),
        cluster_id: row.cluster.to_string(),
        generation: row.generation,
        key_vault_uri: row.kek.vault_uri.clone(),
        key_name: row.kek.name.clone(),
        key_version: row.kek.version.clone(),
        algorithm: "RSA-OAEP-256",
        wrapped: BASE64.encode(&row.wrapped),
        commitment: HEXLOWER.encode(&row.commitment),
        created: row.created.0,
        mac: String::new(),
    };
    // The MAC covers the document as it stands without it: fields in this order, `mac` empty.
    let unsigned = serde_json::to_vec(&key).expect("strings and numbers always serialize");
    key.mac = HEXLOWER.encode(mac_key.mac("wrapped key copy v1", &[&unsigned]).as_bytes());
    (path, serde_json::to_vec(&key).expect("strings and numbers always serialize"))
}
