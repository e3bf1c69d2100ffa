//! `logseal serve`: opens everything, serves, and stops cleanly.
//!
//! Order of the start: data directory and its lock, certificates, root key, vault, catalog, store, keyring, default resources, tables, the
//! write-ahead log (its newest file; the rest is replayed in the background), daily caps, listeners, `credentials.json`, the ready line. Order of
//! the stop: readiness off, receivers finish the calls under way, the log closes its file, batches are cut and committed, then the
//! management API ends.

mod adapters;
mod control;
mod credentials;
mod data_plane;
mod holder;
mod ingest;
mod key_vaults;
mod notify;
mod readiness;
mod state;
mod stop;
mod tls;
mod usage;
mod vault;
mod workspaces;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::ClusterRow;
use logseal_control::{Management, RotationCoordinator, Upkeep, UpkeepSettings};
use logseal_core::{Chain, Clock as _, SystemClock};
use logseal_ingest::{grpc, http};
use logseal_keys::Monitor;
use logseal_keys::availability::KeyState;
use logseal_otlp::SchemaLimits;
use logseal_segment::SegmentStore;
use logseal_tls::{Limits, Listener};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use self::adapters::KeyCopies;
pub(crate) use self::control::AnchorFile;
use self::ingest::Ingest;
pub(crate) use self::ingest::scan_limits;
use self::state::{Changes, State};
pub(crate) use self::state::{offline_keyring, store_root};
use self::stop::{Reason, Signals};
use self::usage::UsageKeeper;
use crate::cli::ServeOptions;
use crate::config::Config;
use crate::credentials::{Credentials, Endpoints};
use crate::data_dir::DataDir;
use crate::error::CommandError;
use crate::root_key;

/// What key identifiers of the embedded vault carry in the catalog, wherever it is served: one vault, one URI.
pub(crate) const VAULT_URI: &str = "https://127.0.0.1:8420";

/// Runs the server until SIGTERM or SIGINT.
pub(crate) async fn serve(data_dir: &Path, options: &ServeOptions) -> Result<(), CommandError> {
    let mut config = Config::load(options.config.as_deref(), text_variables(), &options.set)?;
    config.listen.otlp_grpc = options.otlp_grpc.unwrap_or(config.listen.otlp_grpc);
    config.listen.otlp_http = options.otlp_http.unwrap_or(config.listen.otlp_http);
    config.listen.management = options.management.unwrap_or(config.listen.management);
    config.listen.vault = options.vault.unwrap_or(config.listen.vault);
    start_log(&config);
    tls::refuse_public(&config, data_dir)?;
    vault::refuse_public(config.listen.vault)?;

    let data_dir = DataDir::lock(data_dir)?;
    let acceptors = tls::Acceptors::open(&config, &data_dir, SystemClock.now())?;
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

    let grpc_listener = bind("OTLP/gRPC", config.listen.otlp_grpc)?;
    let http_listener = bind("OTLP/HTTP", config.listen.otlp_http)?;
    let management_listener = bind("the management API", config.listen.management)?;
    let grpc_addr = local_addr(&grpc_listener)?;
    let http_addr = local_addr(&http_listener)?;
    let management_url = tls::url(&acceptors.management, local_addr(&management_listener)?);
    let vault_door = vault::Door::open(&data_dir, &root.key, config.listen.vault, &*state.clock).await?;
    let vault_url = vault_door.url.clone();
    let endpoints = Endpoints {
        otlp_grpc: tls::url(&acceptors.grpc, grpc_addr),
        otlp_http: tls::url(&acceptors.http, http_addr),
        management: management_url.clone(),
        vault: vault_url.clone(),
    };
    let certificate_files = (vault_door.ca_file.clone(), acceptors.certificate_file);
    state.credentials(&data_dir, tokens.clone(), certificate_files, endpoints).await?.write(data_dir.path())?;
    if let Some(certificates) = acceptors.certificates {
        tokio::spawn(certificates.keep(Arc::clone(&state.clock)));
    }

    let watched = state.watch(&monitor).await?;
    state.vaults.serve_at(Arc::clone(&vault_door.addresses));
    let operations = state.operations(&data_dir, &config, &ingest, &monitor)?;
    let usage = Arc::new(UsageKeeper::begin(&state, &operations).await?);
    tokio::spawn(Arc::clone(&usage).run());

    let (ready, is_ready) = watch::channel(true);
    let ready = Arc::new(ready);
    let readiness = tokio::spawn(readiness::follow(Arc::clone(&monitor), Arc::clone(&ready)));
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
    let gate = state.gate(&root.key, tokens.management, &audit).await?;
    tokio::spawn(Arc::clone(&gate).keep());
    let api = state.management(
        &config,
        &ingest,
        Changes { operations, audit: audit.clone() },
        gate,
        metrics.clone(),
        is_ready,
    )?;
    let services = services(&api, grpc_addr, is_shutdown.clone());
    let http_listener = Listener { tcp: http_listener, acceptor: acceptors.http };
    let grpc_listener = Listener { tcp: grpc_listener, acceptor: acceptors.grpc };
    let management_listener = Listener { tcp: management_listener, acceptor: acceptors.management };
    let mut http_server = tokio::spawn(http::serve(http_listener, door.clone(), is_shutdown.clone()));
    let mut grpc_server = tokio::spawn(grpc::serve(grpc_listener, door, services, lifecycle));
    let principals = vault::Principals { catalog: state.catalog.clone(), vaults: Arc::clone(&state.vaults) };
    let mut vault_server = vault_door.serve(&state.vault, tokens.vault, principals, is_shutdown.clone());
    tokio::spawn(Arc::clone(&state.vault).keep());
    let router = logseal_control::router(api);
    // How long requests get to finish `stop::in_order` says.
    let limits = Limits { drain: stop::LONGEST, ..Limits::default() };
    let mut management_server = tokio::spawn(logseal_tls::serve(management_listener, router, limits, is_shutdown));
    tokio::spawn(metrics_upkeep(metrics));
    tokio::spawn(tidy(state.store.clone()));

    let signals = Signals::catch().map_err(CommandError::io("catch signals"))?;
    let mut ready_line = format!(
        "logseal ready otlp_grpc={grpc_addr} otlp_http={http_addr} management={management_url} vault={vault_url}"
    );
    for (name, word) in not_all_well(&watched, &monitor, &ingest).await {
        ready_line.push_str(&format!(" cluster={name}:{word}"));
    }
    announce(&ready_line);
    notify::notify("READY=1");
    let reason = signals.reason(&mut grpc_server, &mut http_server, &mut management_server, &mut vault_server).await;
    readiness.abort();
    let _ = readiness.await;
    ready.send_replace(false);
    match reason {
        Reason::Asked(signal) => {
            info!(signal, "stopping");
            notify::notify("STOPPING=1");
        }
        // What was acknowledged is durable; the rest is for the next start.
        Reason::Broken(what) => return Err(CommandError::Refused(what.to_owned())),
    }
    audit.keep().await;
    let administration = [("the management API", management_server), ("the key vault", vault_server)];
    stop::in_order(shutdown, ingest, (grpc_server, http_server), administration, &usage, &state.catalog).await;
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

fn upkeep_settings(config: &Config) -> UpkeepSettings {
    let hours = u64::from(config.operations.retention_hours.max(24));
    UpkeepSettings {
        operations: Duration::from_secs(hours * 3_600),
        // A query that took its snapshot a moment before may run for as long as it is allowed to.
        objects: Duration::from_millis(config.query.timeout_ms) + Duration::from_secs(60),
    }
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

/// What the OTLP listener serves beside OTLP: operations, for clients on this machine.
fn services(api: &Arc<Management>, address: SocketAddr, shutdown: watch::Receiver<bool>) -> grpc::Services {
    if !address.ip().is_loopback() {
        return grpc::Services::default();
    }
    let routes = logseal_control::grpc::routes(api, shutdown);
    grpc::Services { routes, descriptors: vec![logseal_control::grpc::FILE_DESCRIPTOR_SET] }
}

fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, CommandError> {
    logseal_tls::listen(address).map_err(CommandError::io(format!("listen on {address} for {what}")))
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, CommandError> {
    listener.local_addr().map_err(CommandError::io("read the address of a listener"))
}

fn start_log(config: &Config) {
    let level: tracing::Level = config.log.level.parse().unwrap_or(tracing::Level::INFO);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A failed write would be reported by eprintln!, which panics when stderr is a file on a full disk.
        .log_internal_errors(false);
    // They warn of single frames that a client sends, so that who sends a few bytes would write a line, and who sends many fill the disk.
    let of_http = if level > tracing::Level::INFO { level } else { tracing::Level::ERROR };
    let wanted = Targets::new().with_default(level).with_target("h2", of_http).with_target("hyper", of_http);
    tracing_subscriber::registry().with(wanted).with(lines).init();
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
    logseal_control::describe_metrics();
    logseal_query::describe_metrics();
    logseal_keys::monitor::describe_metrics();
    logseal_tls::describe_metrics();
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

/// Frees the room of what a life before this one left in the store when it was killed. A large store takes its time, and nothing waits for it.
async fn tidy(store: SegmentStore) {
    match store.remove_broken_off().await {
        Ok(0) => {}
        Ok(files) => info!(files, "what broken-off puts left in the store is removed"),
        Err(error) => warn!(error = %Chain(&error), "the store cannot be looked through for what broken-off puts left"),
    }
}

/// The one line on stdout.
#[expect(clippy::print_stdout, reason = "the ready line is an interface for programs that start the server")]
fn announce(line: &str) {
    println!("{line}");
}
