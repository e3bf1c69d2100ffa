//! What the server keeps open, and the parts that are made of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logseal_catalog::{Catalog, ClusterRow};
use logseal_control::provision::Provision;
use logseal_control::{AuditTrail, ClusterCallers, Gate, GateParts, Management, NoFaults, Operations, World};
use logseal_core::{Clock, ClusterId, IdGenerator, SystemClock, SystemSteadyClock};
use logseal_crypto::{BearerToken, OsRandom, RootKey};
use logseal_ingest::DailyCaps;
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::{AccessKeys, Keyring, Monitor, MonitorParts};
use logseal_query::QueryEngine;
use logseal_segment::SegmentStore;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyVault as _, VaultError};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{broadcast, watch};
use zeroize::Zeroizing;

use super::adapters::{Engine, KeyCopies, Prometheus, Readable};
use super::control::{AnchorFile, Plane, Removals};
use super::credentials::CredentialsFile;
use super::data_plane::{DataPlane, Suspended};
use super::holder::{self, RunningClusters};
use super::ingest::Ingest;
use super::key_vaults::KeyVaults;
use super::{VAULT_URI, schema_limits, text_variables, vault, workspaces};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::CommandError;
use crate::root_key;

/// Suspensions of clusters that a query may be slow to look at; when it misses one, it is broken off.
const SUSPENSIONS: usize = 256;

/// The vault key that protects clusters without a customer's key.
const SERVICE_KEY: &str = "logseal-service-managed";

/// 3072 bits give the 128 bits of security that NIST SP 800-57 asks for beyond 2030.
const SERVICE_KEY_BITS: u32 = 3072;

/// Changes of resources, and the trail that they leave.
pub(super) struct Changes {
    pub(super) operations: Arc<Operations>,
    pub(super) audit: AuditTrail,
}

/// What the server keeps open.
pub(super) struct State {
    pub(super) catalog: Catalog,
    pub(super) vault: Arc<EmbeddedVault>,
    pub(super) vaults: Arc<KeyVaults>,
    pub(super) store: SegmentStore,
    pub(super) keyring: Arc<Keyring>,
    pub(super) access: Arc<AccessKeys>,
    pub(super) tables: Arc<Tables>,
    pub(super) suspended: Arc<Suspended>,
    pub(super) suspensions: broadcast::Sender<ClusterId>,
    pub(super) caps: Arc<DailyCaps>,
    pub(super) ids: IdGenerator,
    pub(super) clock: Arc<dyn Clock>,
}

impl State {
    pub(super) async fn open(data_dir: &DataDir, config: &Config, root: &RootKey) -> Result<Self, CommandError> {
        refuse_lost_catalog(data_dir)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids = IdGenerator::new(Arc::clone(&clock), Arc::new(OsRandom));
        let vault = EmbeddedVault::open(data_dir.join("vault"), VAULT_URI, root, Arc::clone(&clock))
            .map_err(CommandError::start("open the embedded vault"))?;
        let reserved = KeyName::parse(SERVICE_KEY).map_err(CommandError::start("name the service-managed key"))?;
        let vault = Arc::new(vault.reserving(reserved));
        let service_key = service_key(&vault).await.map_err(CommandError::start("find the service-managed key"))?;
        let catalog = Catalog::open(&data_dir.join("catalog.sqlite"), root.catalog_mac())
            .await
            .map_err(CommandError::start("open the catalog"))?;
        vault.report_to(Arc::new(vault::Audited { catalog: catalog.clone(), clock: Arc::clone(&clock) }));
        let store = SegmentStore::local(store_root(data_dir, &config.store.url))
            .map_err(CommandError::start("open the object store"))?;
        let vaults = KeyVaults::new(Arc::clone(&vault), service_key.clone(), config, Arc::clone(&clock))?;
        let vaults = Arc::new(vaults);
        let callers = Arc::new(ClusterCallers::new(catalog.clone(), Arc::clone(&vaults) as _));
        let copies = Arc::new(KeyCopies(store.clone()));
        let keyring = Keyring::new(callers, catalog.clone(), copies, root.catalog_mac(), Arc::clone(&clock)).watched();
        let keyring = Arc::new(keyring);
        let access = Arc::new(AccessKeys::new(root));
        let provision = Provision {
            catalog: &catalog,
            keyring: &keyring,
            access: &access,
            kek: &service_key,
            ids: &ids,
            clock: &*clock,
        };
        provision.run().await.map_err(CommandError::start("make the default resources"))?;
        let tables = Tables::new(schema_limits(config), ids.clone(), Arc::clone(&clock));
        let suspended = Arc::default();
        workspaces::accept_all(&catalog, &keyring, &access, &suspended).await?;
        let suspensions = broadcast::Sender::new(SUSPENSIONS);
        let caps = Arc::new(DailyCaps::new(Arc::clone(&clock)));
        let tables = Arc::new(tables);
        Ok(Self { catalog, vault, vaults, store, keyring, access, tables, suspended, suspensions, caps, ids, clock })
    }

    pub(super) fn audit(&self, data_dir: &DataDir) -> AuditTrail {
        let anchor = Arc::new(AnchorFile::of(data_dir));
        AuditTrail::new(self.catalog.clone(), anchor, Arc::clone(&self.clock))
    }

    /// Who is let into the management API.
    pub(super) async fn gate(
        &self,
        root: &RootKey,
        management_token: Zeroizing<String>,
        audit: &AuditTrail,
    ) -> Result<Arc<Gate>, CommandError> {
        let parts = GateParts {
            management_token: BearerToken::new(management_token),
            lookup_key: root.token_mac(),
            catalog: self.catalog.clone(),
            audit: audit.clone(),
            ids: self.ids.clone(),
            clock: Arc::clone(&self.clock),
            steady: Arc::new(SystemSteadyClock),
        };
        Gate::open(parts).await.map_err(CommandError::start("read the tokens of the management API"))
    }

    pub(super) fn running_clusters(&self, ingest: &Ingest) -> RunningClusters {
        RunningClusters {
            catalog: self.catalog.clone(),
            keyring: Arc::clone(&self.keyring),
            tables: Arc::clone(&self.tables),
            logs: Arc::clone(&ingest.logs),
            cutter: ingest.cutter.clone(),
            suspensions: self.suspensions.clone(),
        }
    }

    pub(super) fn monitor(
        &self,
        config: &Config,
        clusters: &Arc<RunningClusters>,
    ) -> Result<Arc<Monitor>, CommandError> {
        Ok(Monitor::new(MonitorParts {
            catalog: self.catalog.clone(),
            keyring: Arc::clone(&self.keyring),
            holder: Arc::clone(clusters) as _,
            policy: config.keys.policy()?,
            steady: Arc::new(SystemSteadyClock),
            clock: Arc::clone(&self.clock),
            random: Arc::new(OsRandom),
        }))
    }

    /// Watches the keys of all clusters, and waits for the first answers about them: those that can be used serve then.
    pub(super) async fn watch(&self, monitor: &Arc<Monitor>) -> Result<Vec<ClusterRow>, CommandError> {
        let clusters = self.catalog.clusters().await.map_err(CommandError::start("read the clusters"))?;
        monitor.recall().await;
        let mut answers: Vec<_> = clusters.iter().map(|row| monitor.watch(row.id, &row.name)).collect();
        futures::future::join_all(answers.iter_mut().map(holder::first_answer)).await;
        Ok(clusters)
    }

    pub(super) fn operations(
        &self,
        data_dir: &DataDir,
        config: &Config,
        ingest: &Ingest,
        monitor: &Arc<Monitor>,
    ) -> Result<Arc<Operations>, CommandError> {
        Ok(Operations::new(World {
            catalog: self.catalog.clone(),
            keyring: Arc::clone(&self.keyring),
            access: Arc::clone(&self.access),
            recent_use: config.keys.recent_use()?,
            vaults: Arc::clone(&self.vaults) as _,
            data: Arc::new(Plane {
                data: DataPlane {
                    catalog: self.catalog.clone(),
                    keyring: Arc::clone(&self.keyring),
                    access: Arc::clone(&self.access),
                    tables: Arc::clone(&self.tables),
                    logs: Arc::clone(&ingest.logs),
                    cutter: ingest.cutter.clone(),
                    backlog: Arc::clone(&ingest.backlog),
                    suspended: Arc::clone(&self.suspended),
                    monitor: Arc::clone(monitor),
                },
                caps: Arc::clone(&self.caps),
                credentials: CredentialsFile {
                    data_dir: data_dir.path().to_owned(),
                    catalog: self.catalog.clone(),
                    access: Arc::clone(&self.access),
                },
            }),
            objects: Arc::new(Removals(self.store.clone())),
            ids: self.ids.clone(),
            clock: Arc::clone(&self.clock),
            faults: Arc::new(NoFaults),
        }))
    }

    pub(super) fn management(
        &self,
        config: &Config,
        ingest: &Ingest,
        changes: Changes,
        gate: Arc<Gate>,
        metrics: PrometheusHandle,
        ready: watch::Receiver<bool>,
    ) -> Result<Arc<Management>, CommandError> {
        let readable = Arc::new(Readable {
            catalog: self.catalog.clone(),
            backlog: Arc::clone(&ingest.backlog),
            frames: ingest.frames.clone(),
            suspended: Arc::clone(&self.suspended),
            clock: Arc::clone(&self.clock),
        });
        let engine =
            QueryEngine::new(config.query.clone(), self.store.objects(), Arc::<Readable>::clone(&readable), readable)
                .map_err(CommandError::start("start the query engine"))?;
        Ok(Arc::new(Management {
            gate,
            catalog: self.catalog.clone(),
            access: Arc::clone(&self.access),
            operations: changes.operations,
            audit: changes.audit,
            queries: Arc::new(Engine {
                engine,
                catalog: self.catalog.clone(),
                keyring: Arc::clone(&self.keyring),
                suspensions: self.suspensions.clone(),
            }),
            metrics: Arc::new(Prometheus {
                handle: metrics,
                backlog: Arc::clone(&ingest.backlog),
                clock: Arc::clone(&self.clock),
            }),
            ready,
            public_url: Some(config.listen.public_url.clone()).filter(|url| !url.is_empty()),
            is_tls: !config.tls.certificate.is_empty(),
        }))
    }
}

/// The keyring of a data directory, for a command that reads its files; a server may be running.
pub(crate) async fn offline_keyring(data_dir: &Path) -> Result<Arc<Keyring>, CommandError> {
    let config = Config::load(None, text_variables(), &[])?;
    let root = root_key::existing(data_dir, &config.vault.root_key_file)?;
    let file = data_dir.join("catalog.sqlite");
    if !file.try_exists().unwrap_or(false) {
        return Err(CommandError::Refused(format!("`{}` is not there", file.display())));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let vault = EmbeddedVault::open(data_dir.join("vault"), VAULT_URI, &root, Arc::clone(&clock))
        .map_err(CommandError::start("open the embedded vault"))?;
    let vault = Arc::new(vault);
    let service_key = service_key(&vault).await.map_err(CommandError::start("find the service-managed key"))?;
    let catalog = Catalog::open(&file, root.catalog_mac()).await.map_err(CommandError::start("open the catalog"))?;
    let root_folder = config.store.url.strip_prefix("file://").map_or_else(|| data_dir.join("store"), PathBuf::from);
    let store = SegmentStore::local(root_folder).map_err(CommandError::start("open the object store"))?;
    let copies = Arc::new(KeyCopies(store));
    // Whoever has the root key gets no further by it than the clusters themselves: a key that is revoked stays so.
    let vaults = KeyVaults::new(vault, service_key, &config, Arc::clone(&clock))?;
    let callers = ClusterCallers::new(catalog.clone(), Arc::new(vaults));
    Ok(Arc::new(Keyring::new(Arc::new(callers), catalog, copies, root.catalog_mac(), clock)))
}

/// Refuses to begin anew in a directory that has been in use: a new catalog would hide everything that was acknowledged, and its
/// new keys would turn shippers away for good.
fn refuse_lost_catalog(data_dir: &DataDir) -> Result<(), CommandError> {
    let there = |name: &str| data_dir.join(name).try_exists().unwrap_or(true);
    let lost = ["catalog.sqlite", "vault/keys"].into_iter().find(|name| !there(name));
    match lost {
        Some(lost) if there("credentials.json") => Err(CommandError::Refused(format!(
            "`{}` is gone although this data directory has been in use: restore it{}, or give an empty directory with --data-dir",
            data_dir.join(lost).display(),
            // Of the vault's keys there is no other copy.
            if lost == "vault/keys" {
                ""
            } else {
                " (`logseal catalog restore FILE`; without a copy: `logseal catalog rebuild`)"
            },
        ))),
        _ => Ok(()),
    }
}

/// The newest version of the service-managed key, made at the first start.
async fn service_key(vault: &Arc<EmbeddedVault>) -> Result<KeyId, VaultError> {
    let name = KeyName::parse(SERVICE_KEY).map_err(|_| VaultError::NotFound(SERVICE_KEY.to_owned()))?;
    match EmbeddedClient::new(Arc::clone(vault), Caller::Deployment).key(&name, None).await {
        Ok(key) => Ok(key.id),
        Err(VaultError::NotFound(_)) => Ok(vault.create_key(&name, SERVICE_KEY_BITS).await?.id),
        Err(error) => Err(error),
    }
}

pub(crate) fn store_root(data_dir: &DataDir, url: &str) -> PathBuf {
    match url.strip_prefix("file://") {
        Some(path) => PathBuf::from(path),
        None => data_dir.join("store"),
    }
}
