//! The revocation monitor: one task for each cluster that asks the vault, drives the cluster's [`Availability`], and has the running server
//! follow it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use logseal_catalog::{AuditEntry, Catalog, Change, ClusterRow};
use logseal_core::{Chain, Clock, ClusterId, RandomSource, SteadyClock, UnixNanos};
use logseal_crypto::Lease;
use logseal_vault::VaultErrorClass;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::availability::{Availability, Cause, Command, KeyState, Outcome, Policy};
use crate::fault::KeyFault;
use crate::past::Past;
use crate::probe::Probe;
use crate::{Keyring, Suspension, account_keys, past};

/// Who audit records of states are by.
const ACTOR: &str = "revocation-monitor";

/// Names of metrics.
const STATE: &str = "logseal_key_state";
const STATE_SINCE: &str = "logseal_key_state_since_seconds";
const REVOKED_IN: &str = "logseal_key_revoked_in_seconds";
const PROBES: &str = "logseal_key_probes_total";
const PROBE_SECONDS: &str = "logseal_key_probe_seconds";

/// Says what the metrics of keys mean.
pub fn describe_metrics() {
    describe_gauge!(
        STATE,
        "1 for the state that the key of a cluster is in, 0 for the others, and for all of a cluster that was deleted"
    );
    describe_gauge!(
        STATE_SINCE,
        Unit::Seconds,
        "when the state began, in seconds since 1970; NaN for a cluster that was deleted"
    );
    describe_gauge!(REVOKED_IN, Unit::Seconds, "time until a Degraded cluster is revoked; NaN for others");
    describe_counter!(PROBES, "probes of clusters' keys, by outcome: good, or the code of the fault");
    describe_histogram!(PROBE_SECONDS, Unit::Seconds, "time that the key vault took to answer a probe");
    account_keys::describe();
}

/// How long the vault may take to answer.
const CALL: Duration = Duration::from_secs(5);

/// The part of the server that holds what a cluster's keys opened. Every call may be repeated.
#[async_trait]
pub trait Holder: Debug + Send + Sync {
    /// Brings everything of `cluster` out of memory: nothing uses its keys any more, and no records of it are held.
    async fn suspend(&self, cluster: ClusterId);

    /// Brings it back as a start does. Keys are given again.
    ///
    /// # Errors
    ///
    /// Why that is not possible now; it is tried again.
    async fn resume(&self, cluster: ClusterId) -> Result<(), String>;
}

/// The state of a cluster's keys, for people and programs.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// The state.
    pub state: KeyState,
    /// Since when.
    pub since: UnixNanos,
    /// When a Degraded cluster is revoked, or a Resuming one resumes at the earliest, if nothing changes.
    pub until: Option<UnixNanos>,
    /// Why it is not Active.
    pub cause: Option<Cause>,
}

/// What the monitor works with.
#[derive(Debug)]
pub struct MonitorParts {
    /// Which KEK version a cluster uses.
    pub catalog: Catalog,
    /// Asks the vault; gives keys or not.
    pub keyring: Arc<Keyring>,
    /// What follows.
    pub holder: Arc<dyn Holder>,
    /// Times.
    pub policy: Policy,
    /// For durations.
    pub steady: Arc<dyn SteadyClock>,
    /// For people.
    pub clock: Arc<dyn Clock>,
    /// Spreads probes.
    pub random: Arc<dyn RandomSource>,
}

/// Watches clusters.
#[derive(Debug)]
pub struct Monitor {
    parts: MonitorParts,
    watched: Mutex<HashMap<ClusterId, Watched>>,
    /// Of clusters that were Revoked before, and are not watched yet.
    past: Mutex<HashMap<ClusterId, Past>>,
    /// Counts changes of what [`Monitor::status`] says.
    version: AtomicU64,
}

#[derive(Debug)]
struct Watched {
    status: watch::Receiver<KeyStatus>,
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// A monitor that watches nothing yet.
    #[must_use]
    pub fn new(parts: MonitorParts) -> Arc<Self> {
        Arc::new(Self { parts, watched: Mutex::default(), past: Mutex::default(), version: AtomicU64::new(0) })
    }

    /// Recalls from the audit trail which clusters were Revoked when the last life of this process ended. To be called once, before any is
    /// watched. A trail that cannot be read, or was altered, keeps nobody from being served: what is lost is only since when.
    pub async fn recall(&self) {
        match Past::of_all(&self.parts.catalog).await {
            Ok(past) => *self.past.lock().unwrap_or_else(PoisonError::into_inner) = past,
            Err(error) => {
                error!(error = %Chain(&error), "the audit trail does not tell since when clusters are revoked");
            }
        }
    }

    /// Watches `cluster` from now on: it is resumed after the first good answer. Nothing is done when it is watched already. Returns what says
    /// how it goes.
    pub fn watch(self: &Arc<Self>, cluster: ClusterId, name: &str) -> watch::Receiver<KeyStatus> {
        let mut watched = self.watched();
        if let Some(known) = watched.get(&cluster) {
            return known.status.clone();
        }
        let now = self.parts.steady.now();
        let mut machine = Availability::new(self.parts.policy, now);
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner).remove(&cluster);
        if let Some(past) = &past {
            let ago = |at: UnixNanos| Duration::from_nanos(self.parts.clock.now().0.abs_diff(at.0));
            machine.was_revoked(past.resumed.map(|at| now.saturating_sub(ago(at))));
        }
        let (status, is_status) = watch::channel(self.status_of(&machine));
        let nudge = Arc::<Notify>::default();
        let task = Task {
            monitor: Arc::downgrade(self),
            cluster,
            name: name.into(),
            machine,
            status,
            nudge: Arc::clone(&nudge),
            probe: Probe::default(),
            lease: None,
            audited: past.as_ref().map(|_| KeyState::Revoked),
            revoked_since: past.map(|past| past.revoked),
        };
        let task = tokio::spawn(task.run());
        watched.insert(cluster, Watched { status: is_status.clone(), nudge, task });
        is_status
    }

    /// `cluster` is gone.
    pub fn forget(&self, cluster: ClusterId) {
        self.watched().remove(&cluster);
        self.parts.keyring.forget_cluster(cluster);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Something that the vault's answer depends on was changed: it is asked at once.
    pub fn nudge(&self, cluster: ClusterId) {
        if let Some(watched) = self.watched().get(&cluster) {
            watched.nudge.notify_one();
        }
    }

    /// The state of the keys of `cluster`; `None` when it is not watched.
    #[must_use]
    pub fn status(&self, cluster: ClusterId) -> Option<KeyStatus> {
        self.watched().get(&cluster).map(|watched| watched.status.borrow().clone())
    }

    /// A number that is another one whenever [`Monitor::status`] says something else of some cluster.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// All clusters that are watched, with their states.
    #[must_use]
    pub fn all(&self) -> Vec<(ClusterId, KeyStatus)> {
        self.watched().iter().map(|(id, watched)| (*id, watched.status.borrow().clone())).collect()
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<ClusterId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status_of(&self, machine: &Availability) -> KeyStatus {
        let (now, wall) = (self.parts.steady.now(), self.parts.clock.now());
        // A moment of the steady clock on the wall.
        let at = |moment: Duration| {
            let ago = i64::try_from(now.saturating_sub(moment).as_nanos()).unwrap_or(i64::MAX);
            let ahead = i64::try_from(moment.saturating_sub(now).as_nanos()).unwrap_or(i64::MAX);
            UnixNanos(wall.0.saturating_sub(ago).saturating_add(ahead))
        };
        KeyStatus {
            state: machine.state(),
            since: at(machine.since()),
            until: machine.until().map(at),
            cause: machine.cause(),
        }
    }

    /// A number between -1 and 1.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.parts.random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

/// Watches one cluster.
struct Task {
    monitor: Weak<Monitor>,
    cluster: ClusterId,
    name: Arc<str>,
    machine: Availability,
    status: watch::Sender<KeyStatus>,
    nudge: Arc<Notify>,
    probe: Probe,
    /// Of the keys that serve.
    lease: Option<Arc<Lease>>,
    /// The state that the audit trail has: Revoked, or nothing worth a record.
    audited: Option<KeyState>,
    /// Since when the cluster is Revoked, when that was so before the start already.
    revoked_since: Option<UnixNanos>,
}

impl Task {
    async fn run(mut self) {
        self.suspend_keys();
        loop {
            let Some(monitor) = self.monitor.upgrade() else { return };
            let now = monitor.parts.steady.now();
            let due = self.machine.next_probe(monitor.jitter());
            let wake = self.machine.until().filter(|_| self.machine.state().serves()).map_or(due, |end| end.min(due));
            if wake > now {
                drop(monitor);
                tokio::select! {
                    () = sleep(wake - now) => {}
                    () = self.nudge.notified() => {
                        let Some(monitor) = self.monitor.upgrade() else { return };
                        self.machine.probe_now(monitor.parts.steady.now());
                    }
                }
                continue;
            }
            let command = if due <= now { self.ask(&monitor).await } else { self.machine.passed(now) };
            self.follow(&monitor, command).await;
        }
    }

    /// Asks the vault.
    async fn ask(&mut self, monitor: &Monitor) -> Option<Command> {
        let parts = &monitor.parts;
        let asked = parts.steady.now();
        let outcome = match timeout(CALL, probe(parts, self.cluster, &mut self.probe)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(KeyFault::VaultTimedOut, VaultErrorClass::Trouble),
        };
        let answered = parts.steady.now();
        let label = match outcome {
            Outcome::Good => "good",
            Outcome::Failed(fault, _) => fault.code(),
        };
        counter!(PROBES, "cluster" => self.name.to_string(), "outcome" => label).increment(1);
        histogram!(PROBE_SECONDS).record(answered.saturating_sub(asked).as_secs_f64());
        let command = self.machine.probed(asked, answered, outcome);
        if let (None, Some(lease), Some(end)) = (command, &self.lease, self.machine.lease_end()) {
            // When it is over already, the machine says so as well.
            let _ = lease.extend(end);
        }
        command
    }

    async fn follow(&mut self, monitor: &Monitor, command: Option<Command>) {
        let holder = &monitor.parts.holder;
        match command {
            None => {}
            Some(Command::Suspend) => {
                self.lease = None;
                self.suspend_keys();
                self.publish(monitor);
                holder.suspend(self.cluster).await;
            }
            Some(Command::Resume) => self.resume(monitor).await,
        }
        if !self.machine.state().serves() && self.has_news() {
            self.suspend_keys();
        }
        self.publish(monitor);
        self.audit(monitor).await;
    }

    /// Records that the cluster was revoked, and that it serves again. What cannot be recorded now is tried at the next look.
    async fn audit(&mut self, monitor: &Monitor) {
        let (state, before) = (self.machine.state(), self.audited);
        let is_news = match state {
            KeyState::Revoked => before != Some(KeyState::Revoked),
            KeyState::Active => before == Some(KeyState::Revoked),
            KeyState::Degraded | KeyState::Resuming => false,
        };
        if !is_news {
            return;
        }
        let shown = |state: KeyState, cause: Option<Cause>| {
            let (state, code) = (state.as_str(), cause.map(|cause| cause.fault.code()));
            json!({"clusterId": self.cluster.to_string(), "state": state, "code": code}).to_string()
        };
        let entry = AuditEntry {
            at: monitor.parts.clock.now(),
            actor: ACTOR.to_owned(),
            action: past::ACTION.to_owned(),
            resource: format!("clusters/{}", self.name),
            operation: None,
            outcome: state.as_str().to_owned(),
            before: before.map_or_else(|| "null".to_owned(), |before| shown(before, None)),
            after: shown(state, self.machine.cause()),
        };
        match monitor.parts.catalog.apply(Change::Audit(entry)).await {
            Ok(()) => self.audited = Some(state),
            Err(error) => {
                warn!(cluster = %self.name, error = %Chain(&error), "the state of a cluster's key cannot be recorded now");
            }
        }
    }

    async fn resume(&mut self, monitor: &Monitor) {
        let parts = &monitor.parts;
        let Some(end) = self.machine.lease_end() else { return };
        let lease = Lease::new(Arc::clone(&parts.steady), end);
        parts.keyring.resume(self.cluster, Arc::clone(&lease));
        match parts.holder.resume(self.cluster).await {
            Ok(()) => {
                self.lease = Some(lease);
                self.machine.resumed(parts.steady.now());
            }
            Err(why) => {
                warn!(cluster = %self.name, why, "a cluster cannot resume now, trying again");
                self.machine.not_resumed(KeyFault::NotYetUnwrapped);
                self.suspend_keys();
                parts.holder.suspend(self.cluster).await;
            }
        }
    }

    /// Whether what people are told differs from what they were told.
    fn has_news(&self) -> bool {
        let told = self.status.borrow();
        (told.state, told.cause) != (self.machine.state(), self.machine.cause())
    }

    fn suspend_keys(&self) {
        let Some(monitor) = self.monitor.upgrade() else { return };
        let unknown = Cause { fault: KeyFault::NotYetUnwrapped, definitive: false };
        let cause = self.machine.cause().unwrap_or(unknown);
        let why = Suspension { cluster: self.cluster, name: Arc::clone(&self.name), cause };
        monitor.parts.keyring.suspend(Arc::new(why));
    }

    fn publish(&mut self, monitor: &Monitor) {
        let news = self.has_news();
        if news {
            let (name, state) = (&*self.name, self.machine.state().as_str());
            match self.machine.cause() {
                None => info!(cluster = name, state, "the state of a cluster's key"),
                Some(Cause { fault, definitive }) if self.machine.state() == KeyState::Revoked => {
                    error!(cluster = name, state, definitive, %fault, "the state of a cluster's key");
                }
                Some(Cause { fault, .. }) => warn!(cluster = name, state, %fault, "the state of a cluster's key"),
            }
        }
        let mut status = monitor.status_of(&self.machine);
        match status.state {
            KeyState::Active => self.revoked_since = None,
            KeyState::Revoked => status.since = self.revoked_since.unwrap_or(status.since),
            KeyState::Degraded | KeyState::Resuming => {}
        }
        self.measure(monitor, &status);
        self.status.send_replace(status);
        if news || self.machine.state() == KeyState::Degraded {
            monitor.version.fetch_add(1, Ordering::Release);
        }
    }
}

impl Task {
    fn measure(&self, monitor: &Monitor, status: &KeyStatus) {
        let until = self.machine.until().filter(|_| status.state == KeyState::Degraded);
        let left = until.map(|until| until.saturating_sub(monitor.parts.steady.now()).as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        self.show(Some(status.state), status.since.seconds() as f64, left.unwrap_or(f64::NAN));
    }

    fn show(&self, is_in: Option<KeyState>, since: f64, revoked_in: f64) {
        let name = self.name.to_string();
        for state in [KeyState::Active, KeyState::Degraded, KeyState::Revoked, KeyState::Resuming] {
            let is = if is_in == Some(state) { 1.0 } else { 0.0 };
            gauge!(STATE, "cluster" => name.clone(), "state" => state.as_str()).set(is);
        }
        gauge!(STATE_SINCE, "cluster" => name.clone()).set(since);
        gauge!(REVOKED_IN, "cluster" => name).set(revoked_in);
    }
}

/// The exporter cannot take a series back: it drops those that were not set for a while, which loses gauges that are held or set once. So what is shown
/// of a cluster that is gone says that it is in no state. Here, where the task can show nothing any more.
impl Drop for Task {
    fn drop(&mut self) {
        self.show(None, f64::NAN, f64::NAN);
    }
}

async fn probe(parts: &MonitorParts, cluster: ClusterId, probe: &mut Probe) -> Outcome {
    let row: Result<Option<ClusterRow>, _> = parts.catalog.cluster(cluster).await;
    let outcome = match row {
        Ok(Some(row)) => parts.keyring.probe_cluster(&row, probe, parts.clock.now()).await,
        // It is gone, and its watcher soon.
        Ok(None) => return Outcome::Failed(KeyFault::NotYetUnwrapped, VaultErrorClass::Trouble),
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        warn!(%cluster, error = %Chain(&error), "the catalog cannot say which key a cluster uses");
        Outcome::Failed(KeyFault::NotYetUnwrapped, VaultErrorClass::Trouble)
    })
}

#[cfg(test)]
mod tests;
