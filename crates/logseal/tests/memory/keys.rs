//! The keys of a running server's cluster, obtained as its owner can: from the catalog's wraps, through the vault.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Debug};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use logseal_catalog::{AekRow, Catalog};
use logseal_core::{AekId, SystemClock};
use logseal_crypto::{Aek, Commitment, Key256, Lease, RootKey, WrappedDek};
use logseal_segment::key_metadata::KeyMetadata;
use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, memory};
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyVault as _, KeyVersion};
use logseal_wal::{FileReader, Item, SystemDisk};

/// What names the embedded vault in the catalog.
const VAULT_URI: &str = "https://127.0.0.1:8420";

/// How the key metadata of a segment begin.
const METADATA: &[u8] = br#"{"keyMaterialType":"PKMT1""#;

/// Bytes in which key metadata have their end.
const METADATA_BYTES: usize = 512;

/// Keys, each with its name.
pub(crate) struct OwnersKeys {
    /// Those of the cluster `local`: AEKs, and DEKs of segments, of growing ones, and of files of the log.
    pub(crate) keys: Vec<(String, Vec<u8>)>,
    /// The AEK of the workspace `elsewhere`, which the service-managed key protects.
    pub(crate) elsewhere: (String, Vec<u8>),
    pub(crate) segments: usize,
    pub(crate) growing: usize,
    pub(crate) log_files: usize,
}

impl OwnersKeys {
    /// The keys of the cluster `local` of `server`, by copies of its catalog and vault in `folder`.
    pub(crate) async fn of(server: &Server, data_dir: &Path, folder: &Path) -> Self {
        let copies = folder.join("copies");
        copy_folder(&data_dir.join("vault"), &copies.join("vault"));
        let file = copies.join("catalog.sqlite");
        logseal_catalog::backup(&data_dir.join("catalog.sqlite"), &file).await.expect("a copy of the catalog");
        let root = fs::read_to_string(copies.join("vault/root.key")).expect("the generated root key");
        let root = HEXLOWER.decode(root.trim().as_bytes()).expect("hexadecimal");
        let root = RootKey::new(Key256::copy_from_slice(&root).expect("256 bits"));
        let catalog = Catalog::open(&file, root.catalog_mac()).await.expect("the same root key");
        let vault = EmbeddedVault::open(copies.join("vault"), VAULT_URI, &root, Arc::new(SystemClock));
        let vault = EmbeddedClient::new(Arc::new(vault.expect("a copy of the vault")), Caller::Deployment);

        let clusters = catalog.clusters().await.expect("clusters");
        let local = clusters.iter().find(|row| row.name == "local").expect("the default cluster").id;
        let (mut keys, mut aeks, mut elsewhere) = (Vec::new(), HashMap::new(), None);
        for row in catalog.aeks().await.expect("account keys") {
            let key = vault.unwrap(&kek(&row), &row.wrapped).await.expect("the vault unwraps while the key is enabled");
            let named = (format!("AEK {}", row.id), key.expose().to_vec());
            if row.cluster == local {
                keys.push(named);
                aeks.insert(row.id, Arc::new(Aek::new(row.id, row.workspace, row.generation, key, Lease::unlimited())));
            } else {
                elsewhere = Some(named);
            }
        }
        let mut known = BTreeSet::new();
        for workspace in catalog.workspaces_of(local).await.expect("workspaces") {
            for row in catalog.snapshot(workspace.id).await.expect("segments").segments {
                let wrapped = WrappedDek::from_bytes(&row.wrapped_dek).expect("a wrap");
                let commitment = Commitment::from_slice(&row.dek_commitment).expect("a commitment");
                let dek = aeks[&row.aek].unwrap_dek(row.id, &wrapped, commitment).expect("it opens");
                keys.push((format!("DEK of segment {}", row.id), dek.key().expect("no limit").expose().to_vec()));
                known.insert(row.id);
            }
        }
        let segments = known.len();
        for wrapped in wraps_in_memory(server) {
            let dek = aeks.get(&wrapped.aek).and_then(|aek| aek.danger_unwrap_dek_without_commitment(&wrapped).ok());
            if let Some(dek) = dek.filter(|_| known.insert(wrapped.segment)) {
                let name = format!("DEK of a growing segment {}", wrapped.segment);
                keys.push((name, dek.key().expect("no limit").expose().to_vec()));
            }
        }
        let growing = known.len() - segments;
        let log_keys = keys_of_the_log(&data_dir.join("wal"), &aeks);
        let log_files = log_keys.len();
        keys.extend(log_keys);
        let elsewhere = elsewhere.expect("the workspace of the service-managed key");
        Self { keys, elsewhere, segments, growing, log_files }
    }
}

impl Debug for OwnersKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

fn kek(row: &AekRow) -> KeyId {
    KeyId {
        vault_uri: row.kek.vault_uri.as_str().into(),
        name: KeyName::parse(&row.kek.name).expect("a name"),
        version: KeyVersion::parse(&row.kek.version).expect("a version"),
    }
}

/// The wraps of data keys of segments that are in the server's memory.
fn wraps_in_memory(server: &Server) -> Vec<WrappedDek> {
    let found =
        memory::occurrences(server.process_id(), METADATA, METADATA_BYTES).expect("the memory of our own child");
    let wrap = |bytes: &Vec<u8>| {
        let end = bytes.iter().position(|byte| *byte == b'}')?;
        KeyMetadata::parse(&bytes[..=end]).ok().map(|(_, wrapped)| wrapped)
    };
    found.iter().filter_map(wrap).collect()
}

/// The data keys of all files of the log below `folder`.
fn keys_of_the_log(folder: &Path, aeks: &HashMap<AekId, Arc<Aek>>) -> Vec<(String, Vec<u8>)> {
    let mut keys = Vec::new();
    for path in files_below(folder) {
        let mut reader = FileReader::open(&SystemDisk, &path).expect("a file of the log");
        let file = reader.header().file;
        let mut slots = BTreeSet::new();
        while let Some(item) = reader.next_item().expect("a readable file") {
            if let Item::Key(frame) = item
                && let Some(aek) = aeks.get(&frame.aek)
                && slots.insert(frame.slot)
            {
                let dek = aek.unwrap_wal_dek(file, &frame.sealed, frame.commitment).expect("it opens");
                keys.push((
                    format!("DEK of the log {file}.{}", frame.slot),
                    dek.key().expect("no limit").expose().to_vec(),
                ));
            }
        }
    }
    keys
}

fn copy_folder(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("the test's folder is writable");
        fs::copy(&file, &target).expect("a file");
    }
}
