//! A control plane over a real catalog and a real vault, with a store and a server that only remember.

pub(crate) mod management;
pub(crate) mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logseal_catalog::{Catalog, Change, OperationState, ResourceFilter, ResourceKind, WorkspaceKeyRow};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, OperationId, ResourceId, UnixNanos, WorkspaceId};
use logseal_crypto::{Key256, OsRandom, RootKey};
use logseal_keys::availability::KeyState;
use logseal_keys::wrapped_key_copy::path_of;
use logseal_keys::{AccessKeys, KeyStatus, Keyring, WrappedKeyStore};
use logseal_vault::{
    Caller as VaultCaller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyVault, KeyVersion, PrincipalId, VaultError,
};
use object_store::path::Path;
use serde_json::{Value, json};

use crate::callers::{ClusterCallers, cluster_principals};
use crate::operation::runner::Operations;
use crate::operation::world::{Faults, NoFaults, SERVICE_CLUSTER, World};
use crate::operation::{Operation, kinds};
use crate::port::{DataPlane, DataPlaneError, Objects, QuotaStatus, UserAssignedIdentity, Vaults};
use crate::provision::{DEFAULT_RESOURCE_GROUP, DEFAULT_SUBSCRIPTION, Provision};
use crate::request::{Caller, Place};
use crate::testing::vault::{TroubledVault, VaultTrouble};

pub(crate) const VAULT: &str = "https://vault.test";

/// The one user-assigned identity, whose principal is `user-assigned`.
pub(crate) const USER_ASSIGNED: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logs";

/// For how long keys of shippers count as in use after they were.
pub(crate) const RECENT_USE: Duration = Duration::from_secs(12 * 3_600);

/// Long enough for any operation of a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What outlives a crash, and the control plane of the present life.
pub(crate) struct Deployment {
    _dir: tempfile::TempDir,
    file: PathBuf,
    root: RootKey,
    pub(crate) vault: Arc<EmbeddedVault>,
    /// What the vault does to the control plane; not to the test.
    pub(crate) trouble: Arc<VaultTrouble>,
    service_key: KeyId,
    pub(crate) store: Arc<Store>,
    pub(crate) server: Arc<Server>,
    pub(crate) clock: Arc<Hands>,
    pub(crate) catalog: Catalog,
    pub(crate) access: Arc<AccessKeys>,
    pub(crate) operations: Arc<Operations>,
}

/// Objects in memory.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<BTreeMap<String, Vec<u8>>>);

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct Hands(std::sync::atomic::AtomicI64);

impl Clock for Hands {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst))
    }
}

impl Hands {
    pub(crate) fn advance(&self, by: Duration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap();
        self.0.fetch_add(nanos, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Store {
    /// An object that is none of the control plane's.
    pub(crate) fn plant(&self, path: &str) {
        self.0.lock().unwrap().insert(path.to_owned(), Vec::new());
    }

    pub(crate) fn paths(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

#[async_trait]
impl WrappedKeyStore for Store {
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut objects = self.0.lock().unwrap();
        match objects.get(path.as_ref()) {
            Some(stored) if *stored != content => Err(format!("`{path}` has other content").into()),
            _ => {
                objects.insert(path.to_string(), content);
                Ok(())
            }
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        Ok(self.0.lock().unwrap().get(path.as_ref()).cloned())
    }
}

#[async_trait]
impl Objects for Store {
    async fn delete(&self, path: &str) -> Result<(), String> {
        self.0.lock().unwrap().remove(path);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let folder = format!("{prefix}/");
        Ok(self.0.lock().unwrap().keys().filter(|path| path.starts_with(&folder)).cloned().collect())
    }
}

/// Remembers what a server would have open.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) clusters: Mutex<BTreeSet<ClusterId>>,
    pub(crate) workspaces: Mutex<BTreeSet<WorkspaceId>>,
    pub(crate) shredded: Mutex<BTreeSet<AekId>>,
    pub(crate) unsealed: Mutex<u64>,
    /// Caps, with the versions of the settings that they are from.
    pub(crate) caps: Mutex<BTreeMap<WorkspaceId, (Option<u64>, u64)>>,
    pub(crate) quota: Mutex<QuotaStatus>,
    /// Workspaces that have other access keys, one after the other.
    pub(crate) regenerated: Mutex<Vec<WorkspaceId>>,
    /// Who holds it keeps the server from taking other access keys.
    pub(crate) taking: tokio::sync::Mutex<()>,
    /// States of keys; those of other clusters are Active.
    pub(crate) states: Mutex<BTreeMap<ClusterId, KeyStatus>>,
    /// Whether the configuration lets clusters go back to the service-managed key.
    pub(crate) may_return: Mutex<bool>,
}

#[async_trait]
impl DataPlane for Server {
    async fn open_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError> {
        self.clusters.lock().unwrap().insert(cluster);
        Ok(())
    }

    async fn close_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError> {
        self.clusters.lock().unwrap().remove(&cluster);
        Ok(())
    }

    async fn open_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError> {
        self.workspaces.lock().unwrap().insert(workspace);
        Ok(())
    }

    async fn suspend_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError> {
        self.workspaces.lock().unwrap().remove(&workspace);
        Ok(())
    }

    async fn shred(&self, keys: &[AekId], workspace: Option<WorkspaceId>) -> Result<(), DataPlaneError> {
        self.shredded.lock().unwrap().extend(keys);
        if let Some(workspace) = workspace {
            self.workspaces.lock().unwrap().remove(&workspace);
        }
        Ok(())
    }

    fn unsealed_of(&self, _: &[AekId]) -> u64 {
        *self.unsealed.lock().unwrap()
    }

    fn set_daily_cap(&self, workspace: WorkspaceId, bytes: Option<u64>, version: u64) {
        self.caps.lock().unwrap().insert(workspace, (bytes, version));
    }

    async fn access_keys_changed(&self, workspace: WorkspaceId) {
        let _taking = self.taking.lock().await;
        self.regenerated.lock().unwrap().push(workspace);
    }

    fn key_status(&self, cluster: ClusterId) -> Option<KeyStatus> {
        let active = KeyStatus { state: KeyState::Active, since: UnixNanos(0), until: None, cause: None };
        Some(self.states.lock().unwrap().get(&cluster).cloned().unwrap_or(active))
    }

    fn key_states_version(&self) -> u64 {
        0
    }

    fn key_changed(&self, _: ClusterId) {}

    fn quota_status(&self, _: WorkspaceId) -> QuotaStatus {
        *self.quota.lock().unwrap()
    }
}

#[derive(Debug)]
struct TheVault {
    vault: Arc<EmbeddedVault>,
    trouble: Arc<VaultTrouble>,
    server: Arc<Server>,
    service_key: KeyId,
}

#[async_trait]
impl Vaults for TheVault {
    fn vault(&self, uri: &str, caller: &VaultCaller) -> Result<(Box<str>, Arc<dyn KeyVault>), VaultError> {
        if uri.trim_end_matches('/') != VAULT {
            return Err(VaultError::Invalid(format!("there is no `{uri}`")));
        }
        let vault = EmbeddedClient::new(Arc::clone(&self.vault), caller.clone());
        Ok((VAULT.into(), Arc::new(TroubledVault { vault, trouble: Arc::clone(&self.trouble) })))
    }

    fn user_assigned(&self, id: &str) -> Option<UserAssignedIdentity> {
        let principal = PrincipalId::parse("user-assigned").unwrap();
        id.eq_ignore_ascii_case(USER_ASSIGNED).then(|| UserAssignedIdentity {
            id: USER_ASSIGNED.to_owned(),
            principal,
            client_id: "client".to_owned(),
        })
    }

    fn service_key(&self) -> KeyId {
        self.service_key.clone()
    }

    fn may_return_to_service_key(&self) -> bool {
        *self.server.may_return.lock().unwrap()
    }

    async fn welcome(&self, principal: &PrincipalId) -> Result<(), VaultError> {
        self.vault.welcome(principal).await
    }
}

fn deployment(vault: &Arc<EmbeddedVault>) -> EmbeddedClient {
    EmbeddedClient::new(Arc::clone(vault), VaultCaller::Deployment)
}

pub(crate) fn place(name: &str) -> Place<'_> {
    Place { subscription: DEFAULT_SUBSCRIPTION, group: DEFAULT_RESOURCE_GROUP, name }
}

pub(crate) fn caller() -> Caller {
    Caller::new(&crate::gate::Principal::unrestricted("test"), &http::HeaderMap::new())
}

impl Deployment {
    /// After its first start.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
        let hands = Arc::new(Hands(1_700_000_000_000_000_000.into()));
        let clock: Arc<dyn Clock> = Arc::clone(&hands) as _;
        let vault = vault_with_keys(&dir.path().join("vault"), &root, &clock).await;
        let service_key = deployment(&vault).key(&KeyName::parse("service").unwrap(), None).await.unwrap().id;
        let file = dir.path().join("catalog.sqlite");
        let (store, server) = (Arc::<Store>::default(), Arc::<Server>::default());
        let trouble = Arc::<VaultTrouble>::default();
        let catalog = Catalog::open(&file, root.catalog_mac()).await.unwrap();
        let world =
            world(&catalog, &root, (&vault, &trouble), &service_key, &store, &server, &clock, Arc::new(NoFaults));
        let provision = Provision {
            catalog: &catalog,
            keyring: &world.keyring,
            access: &world.access,
            kek: &service_key,
            ids: &world.ids,
            clock: &*clock,
        };
        provision.run().await.unwrap();
        for principal in cluster_principals(&catalog, &*world.vaults).await.unwrap() {
            vault.welcome(&principal).await.unwrap();
        }
        let access = Arc::clone(&world.access);
        accept_all(&catalog, &access).await;
        let operations = Operations::new(world);
        Self {
            _dir: dir,
            file,
            root,
            vault,
            trouble,
            service_key,
            store,
            server,
            clock: hands,
            catalog,
            access,
            operations,
        }
    }

    /// The same deployment in another life, in which `faults` happen; operations that were under way go on.
    pub(crate) async fn restart(&mut self, faults: Arc<dyn Faults>) {
        self.restart_later(faults).await;
        self.operations.resume().await.unwrap();
    }

    /// As [`Deployment::restart`], but for the operations: they wait to be resumed.
    pub(crate) async fn restart_later(&mut self, faults: Arc<dyn Faults>) {
        self.catalog.close().await.unwrap();
        self.catalog = Catalog::open(&self.file, self.root.catalog_mac()).await.unwrap();
        let Self { catalog, root, vault, trouble, service_key, store, server, clock, .. } = self;
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        let world = world(catalog, root, (vault, trouble), service_key, store, server, &clock, faults);
        accept_all(catalog, &world.access).await;
        self.access = Arc::clone(&world.access);
        self.operations = Operations::new(world);
    }

    /// Has the row of an access key written by somebody who lacks the root key.
    pub(crate) async fn spoil(&self, row: &WorkspaceKeyRow) {
        let root = RootKey::new(Key256::copy_from_slice(&[9; 32]).unwrap());
        let catalog = Catalog::open(&self.file, root.catalog_mac()).await.unwrap();
        catalog.apply(Change::ReplaceWorkspaceKey(row.clone())).await.unwrap();
        catalog.close().await.unwrap();
    }

    /// Makes the HMACs of tokens.
    pub(crate) fn token_mac(&self) -> logseal_crypto::MacKey {
        self.root.token_mac()
    }

    /// The catalog for who can write its file and has not the root key.
    pub(crate) async fn foreign_catalog(&self) -> Catalog {
        let other = RootKey::new(Key256::copy_from_slice(&[2; 32]).unwrap());
        Catalog::open(&self.file, other.catalog_mac()).await.unwrap()
    }

    /// The newest version of a key of the vault.
    pub(crate) async fn version_of(&self, name: &str) -> String {
        deployment(&self.vault).key(&KeyName::parse(name).unwrap(), None).await.unwrap().id.version.to_string()
    }

    /// How the operation ended.
    pub(crate) async fn end(&self, id: OperationId) -> Operation {
        self.operations.wait(id, PATIENCE).await.unwrap().unwrap()
    }

    /// As [`Deployment::end`], for one that has to succeed.
    pub(crate) async fn succeed(&self, operation: &Operation) {
        let ended = self.end(operation.row.id).await;
        assert_eq!(ended.row.state, OperationState::Succeeded, "{:?}", ended.document.failure);
    }

    /// Every account key opens with the key version that its row names.
    pub(crate) async fn unwrap_all(&self) -> Result<(), String> {
        for key in self.catalog.aeks().await.unwrap() {
            let kek = KeyId {
                vault_uri: key.kek.vault_uri.as_str().into(),
                name: KeyName::parse(&key.kek.name).unwrap(),
                version: KeyVersion::parse(&key.kek.version).unwrap(),
            };
            let opened = deployment(&self.vault).unwrap(&kek, &key.wrapped).await;
            opened.map_err(|error| format!("{} by {kek}: {error}", key.id))?;
        }
        Ok(())
    }

    /// What there is, without ids and times: equal for two deployments to which the same was done.
    pub(crate) async fn state(&self) -> Value {
        let mut resources = Vec::new();
        let mut names: BTreeMap<ResourceId, String> =
            BTreeMap::from([(ResourceId::from(SERVICE_CLUSTER), "service-managed".to_owned())]);
        for (kind, deleted) in [
            (ResourceKind::Cluster, false),
            (ResourceKind::Cluster, true),
            (ResourceKind::Workspace, false),
            (ResourceKind::Workspace, true),
        ] {
            let filter = ResourceFilter { kind, subscription: None, group: None, deleted };
            for row in self.catalog.resources(filter, None, 1_000).await.unwrap() {
                names.insert(row.id, row.name.clone());
                let document: Value = kinds::document(&row).unwrap();
                let key = &document["key"]["keyName"];
                let link = &document["link"]["cluster"];
                let state = &document["provisioningState"];
                resources.push(json!([row.name, deleted, state, key, link, document["settings"]["tags"]]));
            }
        }
        let name = |id: ResourceId| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let clusters = self.catalog.clusters().await.unwrap();
        let clusters: Vec<_> = clusters.iter().map(|row| json!([name(row.id.into()), row.kek.name])).collect();
        let mut copies: BTreeSet<String> = BTreeSet::new();
        let mut keys = Vec::new();
        for key in self.catalog.aeks().await.unwrap() {
            copies.insert(path_of(&key).to_string());
            keys.push(json!([name(key.workspace.into()), key.generation, name(key.cluster.into()), key.kek.name]));
        }
        keys.sort_by_key(Value::to_string);
        let workspaces = self.catalog.workspaces().await.unwrap();
        let mut workspaces: Vec<_> =
            workspaces.iter().map(|row| json!([name(row.id.into()), name(row.cluster.into())])).collect();
        workspaces.sort_by_key(Value::to_string);
        assert_eq!(self.store.paths(), copies, "every account key has its copy, and there is no other");
        let mut access = Vec::new();
        for key in self.catalog.workspace_keys().await.unwrap() {
            let made = self.catalog.workspace(key.workspace).await.unwrap().unwrap().created;
            access.push(json!([name(key.workspace.into()), key.slot, key.created == made]));
        }
        access.sort_by_key(Value::to_string);
        let running = self.catalog.running_operations().await.unwrap().len();
        json!({"resources": resources, "clusters": clusters, "keys": keys, "workspaces": workspaces, "access": access,
            "running": running})
    }
}

/// As a server does at its start.
async fn accept_all(catalog: &Catalog, access: &AccessKeys) {
    catalog.workspace_keys().await.unwrap().iter().for_each(|row| access.accept(row));
}

/// A vault with the keys `service` and `kek`. They are made once: that takes longer than everything else in a test.
async fn vault_with_keys(folder: &std::path::Path, root: &RootKey, clock: &Arc<dyn Clock>) -> Arc<EmbeddedVault> {
    static MADE: tokio::sync::OnceCell<tempfile::TempDir> = tokio::sync::OnceCell::const_new();
    let made = MADE.get_or_init(|| async {
        let dir = tempfile::tempdir().unwrap();
        let vault = EmbeddedVault::open(dir.path().join("vault"), VAULT, root, Arc::clone(clock)).unwrap();
        for name in ["service", "kek"] {
            vault.create_key(&KeyName::parse(name).unwrap(), 2048).await.unwrap();
        }
        dir
    });
    let from = made.await.path().join("vault/keys");
    std::fs::create_dir_all(folder.join("keys")).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join("keys").join(file.file_name())).unwrap();
    }
    Arc::new(EmbeddedVault::open(folder.to_owned(), VAULT, root, Arc::clone(clock)).unwrap())
}

#[expect(clippy::too_many_arguments, reason = "the parts of a deployment, in the one place that joins them")]
fn world(
    catalog: &Catalog,
    root: &RootKey,
    (vault, trouble): (&Arc<EmbeddedVault>, &Arc<VaultTrouble>),
    service_key: &KeyId,
    store: &Arc<Store>,
    server: &Arc<Server>,
    clock: &Arc<dyn Clock>,
    faults: Arc<dyn Faults>,
) -> World {
    let vaults: Arc<dyn Vaults> = Arc::new(TheVault {
        vault: Arc::clone(vault),
        trouble: Arc::clone(trouble),
        server: Arc::clone(server),
        service_key: service_key.clone(),
    });
    let callers = Arc::new(ClusterCallers::new(catalog.clone(), Arc::clone(&vaults)));
    let copies = Arc::clone(store) as _;
    let keyring = Keyring::new(callers, catalog.clone(), copies, root.catalog_mac(), Arc::clone(clock));
    World {
        catalog: catalog.clone(),
        keyring: Arc::new(keyring),
        access: Arc::new(AccessKeys::new(root)),
        recent_use: RECENT_USE,
        vaults,
        data: Arc::clone(server) as _,
        objects: Arc::clone(store) as _,
        ids: IdGenerator::new(Arc::clone(clock), Arc::new(OsRandom)),
        clock: Arc::clone(clock),
        faults,
    }
}
