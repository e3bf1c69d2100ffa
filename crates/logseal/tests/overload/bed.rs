//! A server with its workspaces, and what must hold after each scenario.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_testkit::Server;
use logseal_testkit::server::Memory;

use crate::client::Client;
use crate::load::{Load, Phase, Tenant};
use crate::tenants::{self, Workspace};
use crate::{WINDOW, report};

/// What an overloaded server takes in, at least, of what a saturated one does.
const KEPT_THROUGHPUT: f64 = 0.8;

/// Largest resident memory of the server.
const MEMORY: u64 = 512 * 1024 * 1024;

/// What is refused is accepted within this time (99 of 100 requests).
const RESENT: Duration = Duration::from_secs(60);

/// One scenario at a time: they share the machine's cores.
static TURN: Mutex<()> = Mutex::new(());

/// How long, and with how many workspaces.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) load: Duration,
    pub(crate) tenants: usize,
    connections: usize,
    pub(crate) is_long: bool,
}

impl Form {
    pub(crate) fn of_run() -> Self {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u32>().expect("a number"));
        let seconds = number("LOGSEAL_OVERLOAD_SECONDS").unwrap_or(2);
        let is_long = seconds >= 30;
        let tenants = number("LOGSEAL_OVERLOAD_TENANTS").unwrap_or(if is_long { 1_000 } else { 50 });
        let connections = number("LOGSEAL_OVERLOAD_CONNECTIONS").unwrap_or(8).max(1);
        let load = Duration::from_secs(seconds.into());
        Self { load, tenants: tenants as usize, connections: connections as usize, is_long }
    }

    /// Time between two lines of the series.
    pub(crate) fn line(&self) -> Duration {
        Duration::from_secs(if self.is_long { 5 } else { 1 })
    }

    /// The window in which no workspace may starve: at most as long as a load, so that there is a whole one in it.
    pub(crate) fn window(&self) -> Duration {
        WINDOW.min(self.load.mul_f64(0.95))
    }
}

/// A server with its workspaces.
pub(crate) struct Bed {
    pub(crate) form: Form,
    pub(crate) server: Server,
    runtime: tokio::runtime::Runtime,
    workspaces: Mutex<Vec<Workspace>>,
    /// What did not hold. Told together at the end: each finding of a long run is worth having.
    broken: Mutex<Vec<String>>,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Bed {
    /// A server with the workspace `default` and `tenants` more.
    pub(crate) fn new(scenario: &str, tenants: usize, settings: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let form = Form::of_run();
        report(&format!(
            "\n{scenario}, LOGSEAL_OVERLOAD_SECONDS={} LOGSEAL_OVERLOAD_TENANTS={} LOGSEAL_OVERLOAD_CONNECTIONS={}",
            form.load.as_secs(),
            form.tenants,
            form.connections
        ));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data_dir: PathBuf = dir.path().join("data");
        let arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let start = || Server::start(env!("CARGO_BIN_EXE_logseal"), &data_dir, &arguments);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut server = start();
        let mut workspaces = vec![Workspace { name: "default".to_owned(), key: server.workspace_key().to_owned() }];
        if tenants > 0 {
            assert!(server.stop().success(), "SIGTERM ends with exit code 0");
            workspaces.extend(runtime.block_on(tenants::make(&data_dir, tenants)));
            server = start();
        }
        let workspaces = Mutex::new(workspaces);
        Self { form, server, runtime, workspaces, broken: Mutex::default(), _dir: dir, _turn: turn }
    }

    pub(crate) fn block_on(&self, scenario: impl Future<Output = ()>) {
        self.runtime.block_on(scenario);
    }

    /// Connects the shippers of all workspaces; once.
    pub(crate) async fn load(&self) -> Arc<Load> {
        let workspaces = std::mem::take(&mut *self.workspaces.lock().unwrap_or_else(PoisonError::into_inner));
        let client = Client::connect(self.server.otlp_grpc(), self.form.connections).await;
        Arc::new(Load::new(client, workspaces.into_iter().map(Tenant::new).collect()))
    }

    pub(crate) fn require(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(otherwise());
        }
    }

    /// What must hold in every scenario. `throughput`: saturated and overloaded, in records a second.
    pub(crate) fn check(&self, load: &Load, phases: &[&Phase], throughput: Option<(f64, f64)>) {
        // Before the queries, which take memory of their own.
        let memory = Memory::of(self.server.process_id()).expect("Linux, and a running server");
        let mut resent: Vec<_> = phases.iter().flat_map(|phase| phase.notes().resent.clone()).collect();
        resent.sort_unstable();
        let p99 = resent.get((resent.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        let mut stored = 0;
        for tenant in &load.tenants {
            let ((must, may), counted) = (tenant.must_and_may(), self.count(tenant));
            let explained = (must..=must + may).contains(&counted);
            self.require(explained, || format!("{}: {must} acknowledged, {counted} there", tenant.name));
            stored += counted;
        }
        let seen = load.seen();
        report(&format!(
            "{seen:?}, {stored} stored; {} requests refused at first, accepted within {p99:?} (p99); peak memory {} MiB",
            resent.len(),
            memory.peak >> 20,
        ));
        for phase in phases {
            let notes = phase.notes();
            self.require(notes.violations.is_empty(), || format!("no way back, or no answer: {:?}", notes.violations));
        }
        self.require(seen.accepted + seen.dropped == seen.offered, || format!("requests were given up: {seen:?}"));
        self.require(p99 <= RESENT, || format!("refused requests were accepted after {p99:?}"));
        if let Some((saturated, overloaded)) = throughput {
            let kept = overloaded / saturated;
            let text =
                format!("saturated {saturated:.0} records a second, overloaded {overloaded:.0}: {:.0} %", kept * 100.0);
            report(&text);
            self.require(!self.form.is_long || kept >= KEPT_THROUGHPUT, || text);
        }
        self.require(!self.form.is_long || memory.peak <= MEMORY, || format!("it took {} MiB", memory.peak >> 20));
    }

    fn count(&self, tenant: &Tenant) -> u64 {
        let rows = self.server.query_in(&tenant.name, "SELECT count(*) AS records FROM logs").expect("a count");
        rows.first().and_then(|row| row["records"].as_u64()).expect("a number")
    }

    /// Ends the server, and tells what did not hold.
    pub(crate) fn end(self) {
        let log = self.server.log();
        let stopped = self.server.stop();
        let broken = self.broken.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        assert!(stopped.success(), "SIGTERM ends with exit code 0");
        assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{log}");
    }
}
