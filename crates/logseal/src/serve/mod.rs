//! `logseal serve`: opens everything, serves, and stops cleanly.
//!
//! Order of the start: data directory and its lock, root key, vault, catalog, store, keyring, default resources, tables, the
//! write-ahead log (its newest file; the rest is replayed in the background), daily caps, listeners, `credentials.json`, the ready line. Order of
//! the stop: readiness off, receivers finish the calls under way, the log closes its file, batches are cut and committed, then the
//! management API ends.

mod adapters;
mod control;
mod credentials;
mod data_plane;
mod holder;
mod ingest;
mod stop;
mod usage;
mod vault;
mod workspaces;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::{Catalog, ClusterRow};
use logseal_control::provision::Provision;
use logseal_control::{
    AuditTrail, ClusterCallers, Management, ManagementToken, NoFaults, Operations, RotationCoordinator, Upkeep,
    UpkeepSettings, World,
};
use logseal_core::{Clock, ClusterId, IdGenerator, SystemClock, SystemSteadyClock};
use logseal_crypto::{OsRandom, RootKey};
use logseal_ingest::pipeline::tables::Tables;
use logseal_ingest::{DailyCaps, grpc};
use logseal_keys::availability::KeyState;
use logseal_keys::{AccessKeys, Keyring, Monitor, MonitorParts};
use logseal_otlp::SchemaLimits;
use logseal_query::QueryEngine;
use logseal_segment::SegmentStore;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyVault as _, VaultError};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tracing::info;

pub(crate) use self::adapters::KeyCopies;
use self::adapters::{Engine, Prometheus, Readable};
use self::control::{AnchorFile, Embedded, Plane, Removals};
use self::data_plane::{DataPlane, Suspended};
use self::holder::RunningClusters;
use self::ingest::Ingest;
pub(crate) use self::ingest::scan_limits;
use self::stop::{Reason, Signals};
use self::usage::UsageKeeper;
use crate::cli::ServeOptions;
use crate::config::Config;
use crate::credentials::{Credentials, Endpoints};
use crate::data_dir::DataDir;
use crate::error::CommandError;
use crate::root_key;

/// Suspensions of clusters that a query may be slow to look at; when it misses one, it is broken off.
const SUSPENSIONS: usize = 256;

/// The vault key that protects clusters without a customer's key.
const SERVICE_KEY: &str = "logseal-service-managed";

/// 3072 bits give the 128 bits of security that NIST SP 800-57 asks for beyond 2030.
const SERVICE_KEY_BITS: u32 = 3072;

/// What key identifiers of the embedded vault carry in the catalog, wherever it is served: one vault, one URI.
pub(crate) const VAULT_URI: &str = "https://127.0.0.1:8420";

/// Runs the server until SIGTERM or SIGINT.
pub(crate) async fn serve(data_dir: &Path, options: &ServeOptions) -> Result<(), CommandError> {
    let mut config = Config::load(options.config.as_deref(), text_variables(), &options.set)?;
    config.listen.otlp_grpc = options.otlp_grpc.unwrap_or(config.listen.otlp_grpc);
    config.listen.management = options.management.unwrap_or(config.listen.management);
    config.listen.vault = options.vault.unwrap_or(config.listen.vault);
    start_log(&config);
    refuse_public(&[("listen.otlp_grpc", config.listen.otlp_grpc), ("listen.management", config.listen.management)])?;
    vault::refuse_public(config.listen.vault)?;

    let data_dir = DataDir::lock(data_dir)?;
    let root = root_key::find(&data_dir, &config.vault.root_key_file)?;
    if root.generated {
        info!("a generated root key is in use: only loopback addresses are served");
    }
    let metrics = start_metrics()?;
    let state = State::open(&data_dir, &config, &root.key).await?;
    let ingest = Ingest::start(&state, &data_dir, &config)?;
    let clusters = Arc::new(state.running_clusters(&ingest));
    let monitor = state.monitor(&config, &clusters)?;
    let tokens = Credentials::keep_or_make_tokens(data_dir.path());

    let grpc_listener = bind("OTLP/gRPC", config.listen.otlp_grpc).await?;
    let management_listener = bind("the management API", config.listen.management).await?;
    let grpc_addr = local_addr(&grpc_listener)?;
    let management_url = format!("http://{}", local_addr(&management_listener)?);
    let vault_door = vault::Door::open(&data_dir, &root.key, config.listen.vault, &*state.clock).await?;
    let vault_url = vault_door.url.clone();
    let endpoints = Endpoints {
        otlp_grpc: format!("http://{grpc_addr}"),
        management: management_url.clone(),
        vault: vault_url.clone(),
    };
    state.credentials(&data_dir, tokens.clone(), &vault_door, endpoints).await?.write(data_dir.path())?;

    let watched = state.watch(&monitor).await?;
    state.vaults.serve_at(Arc::clone(&vault_door.addresses));
    let operations = state.operations(&ingest, &monitor);
    let usage = Arc::new(UsageKeeper::begin(&state, &operations).await?);
    tokio::spawn(Arc::clone(&usage).run());

    let (ready, is_ready) = watch::channel(true);
    let (shutdown, is_shutdown) = watch::channel(false);
    let door = ingest.door(&state, &config)?;
    let lifecycle = grpc::Lifecycle { ready: is_ready.clone(), shutdown: is_shutdown.clone() };
    operations.resume().await.map_err(CommandError::start("go on with operations"))?;
    let audit = state.audit(&data_dir);
    audit.begin().await.map_err(CommandError::start("read the audit trail"))?;
    let upkeep =
        Upkeep { operations: Arc::clone(&operations), audit: audit.clone(), settings: upkeep_settings(&config) };
    tokio::spawn(upkeep.run());
    let period = config.keys.autorotation()?;
    let aek_max_age = config.keys.aek_max_age();
    tokio::spawn(RotationCoordinator { operations: Arc::clone(&operations), period, aek_max_age }.run());
    let api = state.management(
        &config,
        &ingest,
        Changes { operations, audit: audit.clone() },
        tokens.management,
        metrics.clone(),
        is_ready,
    )?;
    let services = services(&api, grpc_addr, is_shutdown.clone());
    let mut grpc_server = tokio::spawn(grpc::serve(grpc_listener, door, services, lifecycle));
    let mut vault_server = vault_door.serve(&state.vault, tokens.vault, &state.catalog, is_shutdown.clone());
    tokio::spawn(Arc::clone(&state.vault).keep());
    let management_server = stop::serve_management(management_listener, logseal_control::router(api), is_shutdown);
    let mut management_server = tokio::spawn(management_server);
    tokio::spawn(metrics_upkeep(metrics));

    let signals = Signals::catch().map_err(CommandError::io("catch signals"))?;
    let mut ready_line = format!("logseal ready otlp_grpc={grpc_addr} management={management_url} vault={vault_url}");
    for (name, word) in not_all_well(&watched, &monitor, &ingest).await {
        ready_line.push_str(&format!(" cluster={name}:{word}"));
    }
    announce(&ready_line);
    let reason = signals.reason(&mut grpc_server, &mut management_server, &mut vault_server).await;
    let _ = ready.send(false);
    match reason {
        Reason::Asked(signal) => info!(signal, "stopping"),
        // What was acknowledged is durable; the rest is for the next start.
        Reason::Broken(what) => return Err(CommandError::Refused(what.to_owned())),
    }
    audit.keep().await;
    let administration = [("the management API", management_server), ("the key vault", vault_server)];
    stop::in_order(shutdown, ingest, grpc_server, administration, &usage, &state.catalog).await;
    Ok(())
}

/// Clusters that do not serve, or are still replayed, in a word each.
async fn not_all_well(clusters: &[ClusterRow], monitor: &Monitor, ingest: &Ingest) -> Vec<(String, &'static str)> {
    let mut words = Vec::new();
    for ClusterRow { id, name, .. } in clusters {
        let state = monitor.status(*id).map_or(KeyState::Resuming, |status| status.state);
        let replaying = ingest.logs.replaying(*id).await.is_some_and(|replaying| *replaying.borrow());
        match state {
            KeyState::Active if replaying => words.push((name.clone(), "Replaying")),
            KeyState::Active => {}
            state => words.push((name.clone(), state.as_str())),
        }
    }
    words
}

/// Changes of resources, and the trail that they leave.
struct Changes {
    operations: Arc<Operations>,
    audit: AuditTrail,
}

fn upkeep_settings(config: &Config) -> UpkeepSettings {
    let hours = u64::from(config.operations.retention_hours.max(24));
    UpkeepSettings {
        operations: Duration::from_secs(hours * 3_600),
        // A query that took its snapshot a moment before may run for as long as it is allowed to.
        objects: Duration::from_millis(config.query.timeout_ms) + Duration::from_secs(60),
    }
}

/// What the server keeps open.
struct State {
    catalog: Catalog,
    vault: Arc<EmbeddedVault>,
    vaults: Arc<Embedded>,
    store: SegmentStore,
    keyring: Arc<Keyring>,
    access: Arc<AccessKeys>,
    tables: Arc<Tables>,
    suspended: Arc<Suspended>,
    suspensions: broadcast::Sender<ClusterId>,
    caps: Arc<DailyCaps>,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
}

impl State {
    async fn open(data_dir: &DataDir, config: &Config, root: &RootKey) -> Result<Self, CommandError> {
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
        let vaults = Arc::new(Embedded::new(Arc::clone(&vault), service_key.clone()));
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

    fn audit(&self, data_dir: &DataDir) -> AuditTrail {
        let anchor = Arc::new(AnchorFile(data_dir.join("audit.head")));
        AuditTrail::new(self.catalog.clone(), anchor, Arc::clone(&self.clock))
    }

    fn running_clusters(&self, ingest: &Ingest) -> RunningClusters {
        RunningClusters {
            catalog: self.catalog.clone(),
            keyring: Arc::clone(&self.keyring),
            tables: Arc::clone(&self.tables),
            logs: Arc::clone(&ingest.logs),
            cutter: ingest.cutter.clone(),
            suspensions: self.suspensions.clone(),
        }
    }

    fn monitor(&self, config: &Config, clusters: &Arc<RunningClusters>) -> Result<Arc<Monitor>, CommandError> {
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
    async fn watch(&self, monitor: &Arc<Monitor>) -> Result<Vec<ClusterRow>, CommandError> {
        let clusters = self.catalog.clusters().await.map_err(CommandError::start("read the clusters"))?;
        let mut answers: Vec<_> = clusters.iter().map(|row| monitor.watch(row.id, &row.name)).collect();
        futures::future::join_all(answers.iter_mut().map(holder::first_answer)).await;
        Ok(clusters)
    }

    fn operations(&self, ingest: &Ingest, monitor: &Arc<Monitor>) -> Arc<Operations> {
        Operations::new(World {
            catalog: self.catalog.clone(),
            keyring: Arc::clone(&self.keyring),
            access: Arc::clone(&self.access),
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
            }),
            objects: Arc::new(Removals(self.store.clone())),
            ids: self.ids.clone(),
            clock: Arc::clone(&self.clock),
            faults: Arc::new(NoFaults),
        })
    }

    fn management(
        &self,
        config: &Config,
        ingest: &Ingest,
        changes: Changes,
        token: zeroize::Zeroizing<String>,
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
            token: ManagementToken::new(token),
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
    let callers = ClusterCallers::new(catalog.clone(), Arc::new(Embedded::new(vault, service_key)));
    Ok(Arc::new(Keyring::new(Arc::new(callers), catalog, copies, root.catalog_mac(), clock)))
}

/// Bounds on tables and columns.
pub(crate) fn schema_limits(config: &Config) -> SchemaLimits {
    SchemaLimits {
        tables: logseal_core::limit::TABLES_PER_WORKSPACE,
        attribute_columns: config.schema.attribute_columns,
        key_bytes: logseal_core::limit::COLUMN_KEY_BYTES,
    }
}

/// The environment as text; a variable that is none cannot be ours.
pub(crate) fn text_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
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

/// Without TLS a listener would send keys and logs over the network in clear.
fn refuse_public(addresses: &[(&str, SocketAddr)]) -> Result<(), CommandError> {
    match addresses.iter().find(|(_, address)| !address.ip().is_loopback()) {
        None => Ok(()),
        Some((key, address)) => Err(CommandError::Config(format!(
            "`{key}` is {address}: without TLS only loopback addresses such as 127.0.0.1 are served"
        ))),
    }
}

/// What the OTLP listener serves beside OTLP: operations, for clients on this machine.
fn services(api: &Arc<Management>, address: SocketAddr, shutdown: watch::Receiver<bool>) -> grpc::Services {
    if !address.ip().is_loopback() {
        return grpc::Services::default();
    }
    let routes = logseal_control::grpc::routes(api, shutdown);
    grpc::Services { routes, descriptors: vec![logseal_control::grpc::FILE_DESCRIPTOR_SET] }
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, CommandError> {
    TcpListener::bind(address).await.map_err(CommandError::io(format!("listen on {address} for {what}")))
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, CommandError> {
    listener.local_addr().map_err(CommandError::io("read the address of a listener"))
}

fn start_log(config: &Config) {
    let level: tracing::Level = config.log.level.parse().unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A failed write would be reported by eprintln!, which panics when stderr is a file on a full disk.
        .log_internal_errors(false)
        .init();
}

/// Buckets from 1 ms to 60 s: an acknowledgement takes milliseconds, a query up to its time limit.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

fn start_metrics() -> Result<PrometheusHandle, CommandError> {
    let starting = "start the metrics";
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(CommandError::start(starting))?;
    logseal_ingest::meter::describe();
    logseal_query::describe_metrics();
    logseal_keys::monitor::describe_metrics();
    Ok(handle)
}

/// Histograms keep what was recorded until somebody folds it into buckets.
async fn metrics_upkeep(metrics: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        metrics.run_upkeep();
    }
}

/// The one line on stdout.
#[expect(clippy::print_stdout, reason = "the ready line is an interface for programs that start the server")]
fn announce(line: &str) {
    println!("{line}");
}
