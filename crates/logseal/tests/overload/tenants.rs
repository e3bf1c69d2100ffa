//! Workspaces, each with its own account key and access keys, made while the server is stopped.
//!
//! This is what the first start does for the workspace `default`, through the same crates: an account key that the
//! embedded vault wraps, its copy in the store, and one change of the catalog.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use logseal_catalog::{Catalog, Change, ClusterRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, Clock, IdGenerator, SystemClock, TableId, TableName, WorkspaceId};
use logseal_crypto::{Key256, OsRandom, RootKey};
use logseal_keys::{AccessKeys, AekOwner, Keyring, OneVault, Slot, WrappedKeyStore};
use logseal_segment::SegmentStore;
use logseal_vault::{EmbeddedVault, KeyId, KeyName, KeyVersion};

/// A workspace and the key that its shippers present.
pub(crate) struct Workspace {
    pub(crate) name: String,
    pub(crate) key: String,
}

/// Makes `count` workspaces in the cluster of `data_dir`, which a server has used and no server uses now.
pub(crate) async fn make(data_dir: &Path, count: usize) -> Vec<Workspace> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = IdGenerator::new(Arc::clone(&clock), Arc::new(OsRandom));
    let text = std::fs::read_to_string(data_dir.join("vault/root.key")).expect("a generated root key");
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).expect("hexadecimal digits");
    let root = RootKey::new(Key256::copy_from_slice(&bytes).expect("256 bits"));
    let file = data_dir.join("catalog.sqlite");
    let catalog = Catalog::open(&file, root.catalog_mac()).await.expect("the server's catalog");
    let clusters = catalog.clusters().await.expect("clusters");
    let cluster = clusters.into_iter().find(|row| row.name == "local").expect("the first start made it");
    let kek = KeyId {
        vault_uri: cluster.kek.vault_uri.as_str().into(),
        name: KeyName::parse(&cluster.kek.name).expect("a key's name"),
        version: KeyVersion::parse(&cluster.kek.version).expect("a key's version"),
    };
    let vault = EmbeddedVault::open(data_dir.join("vault"), &cluster.kek.vault_uri, &root, Arc::clone(&clock));
    let copies = Arc::new(Copies(SegmentStore::local(data_dir.join("store")).expect("the server's store")));
    let vault = Arc::new(vault.expect("the server's vault"));
    let maker = Maker {
        keyring: Keyring::new(
            Arc::new(OneVault::embedded(&vault)),
            catalog.clone(),
            copies,
            root.catalog_mac(),
            Arc::clone(&clock),
        ),
        access: AccessKeys::new(&root),
        catalog,
        cluster,
        kek,
        ids,
        clock,
    };
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        made.push(maker.workspace(format!("tenant-{number}")).await);
    }
    maker.catalog.close().await.expect("the last change is durable");
    made
}

struct Maker {
    catalog: Catalog,
    keyring: Keyring,
    access: AccessKeys,
    cluster: ClusterRow,
    kek: KeyId,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
}

impl Maker {
    async fn workspace(&self, name: String) -> Workspace {
        let (id, created) = (WorkspaceId::from(self.ids.next()), self.clock.now());
        let keys = Slot::ALL.map(|slot| self.access.generate(id, slot, created).row).to_vec();
        let key = self.access.reveal(&keys[0]).expect("sealed a moment ago").to_string();
        let table = TableRow { id: TableId::from(self.ids.next()), workspace: id, name: TableName::logs(), created };
        let workspace = WorkspaceRow { id, name: name.clone(), cluster: self.cluster.id, created };
        let tables = vec![table];
        let owner = AekOwner { cluster: &self.cluster, workspace: &workspace, tables: &tables };
        let aek =
            self.keyring.new_aek(AekId::from(self.ids.next()), owner, 1, &self.kek).await.expect("an account key");
        let change = Change::AddWorkspace { workspace, keys, aek, tables };
        self.catalog.apply(change).await.expect("a name that is not taken");
        Workspace { name, key }
    }
}

/// The store for copies of wrapped keys.
#[derive(Debug)]
struct Copies(SegmentStore);

#[async_trait]
impl WrappedKeyStore for Copies {
    async fn put_new(
        &self,
        path: &object_store::path::Path,
        content: Vec<u8>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.0.put_new(path, content).await?)
    }

    async fn get(&self, path: &object_store::path::Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        match self.0.get(path, logseal_keys::wrapped_key_copy::COPY_BYTES).await {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(logseal_segment::SegmentError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
