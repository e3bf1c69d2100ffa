//! What outlives a crash: disk, store, catalog, vault, and the ledger of what was sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use logseal_catalog::{Catalog, Change, ClusterRow, KekRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, ClusterId, NodeId, SegmentId, SystemClock, TableId, TableName, UnixNanos, WorkspaceId};
use logseal_crypto::{Key256, MacKey, RootKey};
use logseal_ingest::{AuthError, Authenticator};
use logseal_keys::{AekOwner, Keyring, OneVault, WrappedKeyStore};
use logseal_testkit::SimulatedDisk;
use logseal_testkit::store::{FaultyStore, StoreScript};
use logseal_tls::ClientNames;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyName};
use logseal_wal::Disk as _;
use object_store::ObjectStore as _;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::counters;
use crate::life::{Life, Parts};
use crate::records::{Id, Poisoned};
use crate::settings::Settings;

/// Workspaces 0 and 1 are of cluster 0, workspace 2 is of cluster 1.
pub(crate) const WORKSPACES: [u8; 3] = [0, 1, 2];

/// Where frames go that cannot become rows.
pub(crate) const QUARANTINE: &str = "quarantine";

pub(crate) const NODE: NodeId = NodeId::from_bytes([0xA0; 16]);

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), event)
        .await
        .unwrap_or_else(|_| panic!("{what}: this takes a moment, not a minute"))
}

/// Looks again and again until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn workspace(n: u8) -> WorkspaceId {
    WorkspaceId::from_bytes([n + 1; 16])
}

pub(crate) fn cluster(n: u8) -> ClusterId {
    ClusterId::from_bytes([0xC0 + n; 16])
}

pub(crate) fn cluster_of(workspace: u8) -> ClusterId {
    cluster(workspace / 2)
}

/// The folder of all logs.
pub(crate) fn node_folder() -> PathBuf {
    Path::new("wal").join(NODE.to_string())
}

/// The folder of a cluster's log.
pub(crate) fn folder(cluster: ClusterId) -> PathBuf {
    node_folder().join(cluster.to_string())
}

#[derive(Debug)]
struct NoCopies;

#[async_trait]
impl WrappedKeyStore for NoCopies {
    async fn put_new(&self, _: &object_store::path::Path, _: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    async fn get(&self, _: &object_store::path::Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }
}

/// The key of workspace `n` is `n`.
#[derive(Debug)]
pub(crate) struct Keys;

impl Authenticator for Keys {
    fn workspace_of(&self, key: &str) -> Result<WorkspaceId, AuthError> {
        key.parse().map(workspace).map_err(|_| AuthError::Unknown)
    }

    fn workspace_of_client(&self, _: &ClientNames) -> Result<Option<WorkspaceId>, AuthError> {
        Ok(None)
    }
}

/// What outlives a crash.
#[derive(Debug)]
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) disk: SimulatedDisk,
    pub(crate) objects: Arc<InMemory>,
    pub(crate) store: FaultyStore,
    pub(crate) script: StoreScript,
    pub(crate) encoder: Arc<Poisoned>,
    /// What was acknowledged; what was refused may be there or not, but not twice.
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) read: Mutex<HashMap<SegmentId, Vec<Id>>>,
}

/// What became of the records that were sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) next: u32,
    pub(crate) acknowledged: BTreeSet<Id>,
    pub(crate) refused: BTreeSet<Id>,
}

/// What a query saw, by where.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sealed: Vec<Id>,
    pub(crate) loaded: Vec<Id>,
    pub(crate) parked: Vec<Id>,
}

impl Seen {
    /// How often each record was seen.
    pub(crate) fn counts(&self) -> BTreeMap<Id, usize> {
        let mut counts = BTreeMap::new();
        for id in self.sealed.iter().chain(&self.loaded).chain(&self.parked) {
            *counts.entry(*id).or_default() += 1;
        }
        counts
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.sealed.extend(other.sealed);
        self.loaded.extend(other.loaded);
        self.parked.extend(other.parked);
    }
}

impl World {
    pub(crate) fn new() -> Self {
        counters::install();
        let objects = Arc::new(InMemory::new());
        let (store, script) = FaultyStore::new(Arc::<InMemory>::clone(&objects));
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            disk: SimulatedDisk::new(),
            objects,
            store,
            script,
            encoder: Arc::default(),
            ledger: Mutex::default(),
            read: Mutex::default(),
        };
        Runtime::new().unwrap().block_on(world.provision());
        world
    }

    fn root() -> RootKey {
        RootKey::new(Key256::copy_from_slice(&[7; 32]).unwrap())
    }

    pub(crate) fn vault(&self) -> EmbeddedVault {
        EmbeddedVault::open(self.dir.path().join("vault"), "https://v", &Self::root(), Arc::new(SystemClock)).unwrap()
    }

    pub(crate) fn client(&self) -> EmbeddedClient {
        EmbeddedClient::new(Arc::new(self.vault()), Caller::Deployment)
    }

    /// The catalog's file.
    pub(crate) fn catalog_file(&self) -> PathBuf {
        self.dir.path().join("catalog.sqlite")
    }

    pub(crate) async fn catalog(&self) -> Catalog {
        Catalog::open(&self.catalog_file(), Self::root().catalog_mac()).await.unwrap()
    }

    pub(crate) fn keyring(vault: EmbeddedVault, catalog: &Catalog) -> Keyring {
        let mac_key = MacKey::new(Key256::copy_from_slice(&[8; 32]).unwrap());
        Keyring::new(
            Arc::new(OneVault::embedded(&Arc::new(vault))),
            catalog.clone(),
            Arc::new(NoCopies),
            mac_key,
            Arc::new(SystemClock),
        )
    }

    async fn provision(&self) {
        let vault = self.vault();
        let kek = vault.create_key(&KeyName::parse("kek").unwrap(), 2048).await.unwrap().id;
        let catalog = self.catalog().await;
        let keyring = Self::keyring(vault, &catalog);
        let created = UnixNanos(0);
        for n in WORKSPACES {
            let (workspace, cluster) = (workspace(n), cluster_of(n));
            let kek_row = KekRow {
                vault_uri: kek.vault_uri.to_string(),
                name: kek.name.to_string(),
                version: kek.version.to_string(),
            };
            let cluster_row = ClusterRow { id: cluster, name: format!("c{}", n / 2), created, kek: kek_row };
            let row = WorkspaceRow { id: workspace, name: format!("w{n}"), cluster, created };
            let id = TableId::from_bytes([n + 0x80; 16]);
            let tables = vec![TableRow { id, workspace, name: TableName::logs(), created }];
            let owner = AekOwner { cluster: &cluster_row, workspace: &row, tables: &tables };
            let aek = keyring.new_aek(AekId::from_bytes([n + 0x40; 16]), owner, 1, &kek).await.unwrap();
            if n != 1 {
                catalog.apply(Change::AddCluster(cluster_row)).await.unwrap();
            }
            catalog.apply(Change::AddWorkspace { workspace: row, keys: Vec::new(), aek, tables }).await.unwrap();
        }
        catalog.close().await.unwrap();
    }

    /// The files of the log of `cluster` that are on the disk.
    pub(crate) fn log_files(&self, cluster: ClusterId) -> Vec<PathBuf> {
        self.disk.list(&folder(cluster)).unwrap_or_default()
    }

    /// The files in quarantine.
    pub(crate) fn quarantined(&self) -> Vec<PathBuf> {
        self.disk.list(Path::new(QUARANTINE)).unwrap_or_default()
    }

    /// The paths of all objects in the store.
    pub(crate) async fn paths(&self) -> Vec<String> {
        self.objects.list(None).map(|object| object.unwrap().location.to_string()).collect().await
    }

    /// How many segments the store has.
    pub(crate) async fn stored_objects(&self) -> usize {
        self.objects.list(None).count().await
    }

    /// Starts the pipeline on what there is.
    pub(crate) fn start(self: &Arc<Self>, settings: &Settings) -> Life {
        let runtime = Runtime::new().unwrap();
        let parts = runtime.block_on(soon("a start", Parts::start(Arc::clone(self), settings.clone())));
        Life::new(runtime, parts)
    }
}
