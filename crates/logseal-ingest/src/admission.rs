//! Who may come in: the byte budget, held calls and the pace of a workspace.
//!
//! Deadlock is excluded by order: a call waits for budget once, for all that its announced length calls for, while it
//! holds none. From then on it only tries; what it cannot get at once makes it give back everything.
//!
//! The wait is fair between workspaces: of each one call at a time is in the budget's queue, and a call whose body comes slowly loses its budget
//! while another workspace waits (`passage::receive`).

mod budget;
mod turns;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_core::WorkspaceId;
use metrics::{Gauge, gauge};
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::door::Refusal;
use crate::meter::HELD_CALLS;
use crate::settings::DoorLimits;

pub use self::budget::{Budget, BudgetPermit};
use self::turns::Turns;

/// Time that is left to the client of a held call, so that it hears our answer instead of its own deadline.
const HOLD_MARGIN: Duration = Duration::from_millis(500);

/// Bytes that a held call takes at the most: its stream's window.
const HELD_BYTES: usize = crate::connection::STREAM_WINDOW as usize;

/// Why a wait ended without its event.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum HoldEnded {
    /// The time that the call may be held is over.
    #[error("held as long as the settings and the deadline allow")]
    TimeOver,
    /// `ingest.max_held_calls` are held already.
    #[error("too many calls are held")]
    TooMany,
}

/// A call's right to wait for short trouble to pass.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Nothing for one that may not wait.
    calls: Option<Arc<HeldCalls>>,
    workspace: WorkspaceId,
    until: Instant,
}

impl Hold {
    /// That of a request which no call waits for: its time is over at once.
    #[must_use]
    pub fn over(workspace: WorkspaceId) -> Self {
        Self { calls: None, workspace, until: Instant::now() }
    }

    /// When the call must be answered, if it is still held.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Waits for `event`.
    ///
    /// # Errors
    ///
    /// [`HoldEnded`] when it does not come in time, or when too many calls wait already.
    pub async fn wait<T>(&self, event: impl Future<Output = T>) -> Result<T, HoldEnded> {
        let Some(calls) = self.calls.as_ref().filter(|_| self.until > Instant::now()) else {
            return Err(HoldEnded::TimeOver);
        };
        let _place = Place::take(calls, self.workspace, Instant::now()).ok_or(HoldEnded::TooMany)?;
        timeout_at(self.until, event).await.map_err(|_| HoldEnded::TimeOver)
    }
}

#[derive(Debug)]
struct HeldCalls {
    most: usize,
    /// Of each workspace of which a call is held, or of which it counts that one was.
    held: Mutex<HashMap<WorkspaceId, Held>>,
    /// Covers what a client may send before its call is read.
    budget: Arc<Budget>,
    /// As much for each call: its stream's window, but for all of them at most a quarter of the budget that they wait for.
    bytes_each: usize,
    gauge: Gauge,
}

/// The held calls of one workspace.
#[derive(Clone, Copy, Debug)]
struct Held {
    calls: usize,
    /// When the last of them was taken.
    last: Instant,
}

/// The last quarter of the places is for workspaces that had none for so long: the shortest time after which a refused one is told to
/// come back.
const TURN: Duration = Duration::from_secs(1);

impl HeldCalls {
    fn held(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one held call.
struct Place<'c> {
    calls: &'c HeldCalls,
    workspace: WorkspaceId,
    _counted: Counted,
    _window: BudgetPermit,
}

impl<'c> Place<'c> {
    /// A workspace may have all places while nobody else waits. Beside others it gets no second one unless at least as many as it has
    /// are free, and none of the last ones before its turn: one that sends from many clients, or is always quick to come again, cannot
    /// keep others out.
    fn take(calls: &'c HeldCalls, workspace: WorkspaceId, now: Instant) -> Option<Self> {
        let mut held = calls.held();
        held.retain(|_, held| held.calls > 0 || now.saturating_duration_since(held.last) < TURN);
        let all: usize = held.values().map(|held| held.calls).sum();
        let free = calls.most.saturating_sub(all);
        let before = held.get(&workspace).copied();
        let own = before.map_or(0, |held| held.calls);
        let had_its_turn = before.is_some_and(|held| now.saturating_duration_since(held.last) < TURN);
        let alone = own == all;
        if free == 0 || (!alone && (own > free || (had_its_turn && free <= calls.most / 4))) {
            return None;
        }
        held.insert(workspace, Held { calls: own + 1, last: now });
        let window = calls.budget.overdraw(calls.bytes_each);
        Some(Self { calls, workspace, _counted: Counted::new(&calls.gauge), _window: window })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut held = self.calls.held();
        if let Some(own) = held.get_mut(&self.workspace) {
            own.calls -= 1;
        }
    }
}

/// One in a gauge, for as long as it exists.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The rules of admission of one process.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: DoorLimits,
    budget: Arc<Budget>,
    held: Arc<HeldCalls>,
    pace: Option<Pace>,
    turns: Turns,
}

impl Admission {
    pub(crate) fn new(limits: DoorLimits, budget: Arc<Budget>) -> Self {
        let held = HeldCalls {
            most: limits.held_calls,
            held: Mutex::default(),
            budget: Arc::clone(&budget),
            bytes_each: HELD_BYTES.min(budget.total() / 4 / limits.held_calls.max(1)),
            gauge: gauge!(HELD_CALLS),
        };
        let pace = limits.workspace_rate.map(Pace::new);
        Self { limits, budget, held: Arc::new(held), pace, turns: Turns::default() }
    }

    pub(crate) fn limits(&self) -> &DoorLimits {
        &self.limits
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The hold of a call of `workspace` that came at `start` and whose client waits for `timeout`.
    pub(crate) fn hold(&self, workspace: WorkspaceId, start: Instant, timeout: Option<Duration>) -> Hold {
        let patience = timeout.map_or(self.limits.hold, |t| self.limits.hold.min(t.saturating_sub(HOLD_MARGIN)));
        Hold { calls: Some(Arc::clone(&self.held)), workspace, until: start + patience }
    }

    /// Waits until `workspace` is no longer ahead of its rate.
    pub(crate) async fn pace(&self, workspace: WorkspaceId, hold: &Hold) -> Result<(), Refusal> {
        let Some(pace) = &self.pace else { return Ok(()) };
        let now = Instant::now();
        let Some(free_at) = pace.free_at(workspace, now) else { return Ok(()) };
        // No recheck after the wait: whoever overtook is charged too, so the rate holds on average.
        if free_at <= hold.until() && hold.wait(sleep_until(free_at)).await.is_ok() {
            return Ok(());
        }
        Err(Refusal::Unavailable {
            reason: "the workspace sends faster than `ingest.workspace_bytes_per_second`".into(),
            retry_after: Some(free_at.saturating_duration_since(now)),
        })
    }

    /// Charges `bytes` to the rate of `workspace`.
    pub(crate) fn charge(&self, workspace: WorkspaceId, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.charge(workspace, bytes, Instant::now());
        }
    }

    /// Takes `bytes` of the budget, held if they are not free.
    pub(crate) async fn take(&self, bytes: usize, hold: &Hold) -> Result<BudgetPermit, Refusal> {
        if let Some(permit) = self.budget.try_take(bytes) {
            return Ok(permit);
        }
        let in_turn = async {
            let waiting = self.turns.begin(hold.workspace);
            let _turn = waiting.turn().await;
            self.budget.take(bytes).await
        };
        hold.wait(in_turn).await.map_err(|_| over_budget())
    }

    /// Whether calls of another workspace than `workspace` wait for budget.
    pub(crate) fn others_wait(&self, workspace: WorkspaceId) -> bool {
        self.turns.others_wait(workspace)
    }
}

/// The refusal of a request for which there is no memory now.
pub(crate) fn over_budget() -> Refusal {
    Refusal::unavailable("overloaded: no memory left for the request (setting `ingest.memory_budget_bytes`)")
}

/// A token bucket for each workspace that goes into debt: a request's size is charged when it is known, and the next
/// one waits until the debt is paid.
///
/// Its entries are workspaces that have proved a key, so their number is bounded by the catalog.
#[derive(Debug)]
struct Pace {
    rate: u64,
    buckets: Mutex<HashMap<WorkspaceId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: i64,
    at: Instant,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, buckets: Mutex::new(HashMap::new()) }
    }

    /// When `workspace` may send again; `None` is now.
    fn free_at(&self, workspace: WorkspaceId, now: Instant) -> Option<Instant> {
        let debt = self.with(workspace, now, |bucket| bucket.tokens.min(0).unsigned_abs());
        if debt == 0 {
            return None;
        }
        // Rounded up, so that the debt is paid at that time.
        let nanos = (u128::from(debt) * 1_000_000_000).div_ceil(u128::from(self.rate));
        Some(now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 4)))
    }

    fn charge(&self, workspace: WorkspaceId, bytes: usize, now: Instant) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.with(workspace, now, |bucket| bucket.tokens = bucket.tokens.saturating_sub(bytes));
    }

    /// Runs `change` on the bucket as it is `now`. A full bucket is one second's worth.
    fn with<T>(&self, workspace: WorkspaceId, now: Instant, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let full = i64::try_from(self.rate).unwrap_or(i64::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(workspace).or_insert(Bucket { tokens: full, at: now });
        let elapsed = now.saturating_duration_since(bucket.at);
        let earned = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        // Time that has not earned a whole byte yet is left standing, or frequent calls would never earn one.
        if earned > 0 {
            bucket.tokens = bucket.tokens.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(full);
            bucket.at = now;
        }
        change(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DoorSettings;

    const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

    fn admission(change: impl FnOnce(&mut DoorSettings)) -> Admission {
        let mut settings = DoorSettings::default();
        change(&mut settings);
        Admission::new(settings.check().expect("valid"), Budget::new(1_000))
    }

    /// Scenario: a hold with and without a client's timeout. Guarantee: never past the timeout minus half a second.
    #[tokio::test]
    async fn the_hold_is_the_shorter_of_setting_and_deadline() {
        let admission = admission(|s| s.hold_ms = 5_000);
        let start = Instant::now();
        for (timeout, expected) in [(None, 5_000), (Some(10_000), 5_000), (Some(2_000), 1_500), (Some(400), 0)] {
            let hold = admission.hold(WORKSPACE, start, timeout.map(Duration::from_millis));
            assert_eq!((hold.until() - start).as_millis(), expected, "{timeout:?}");
        }
    }

    #[tokio::test]
    async fn a_held_call_gets_budget_when_it_is_freed_and_is_refused_when_not() {
        let admission = Arc::new(admission(|s| s.hold_ms = 200));
        let all = admission.budget().take(1_000).await;
        let hold = admission.hold(WORKSPACE, Instant::now(), None);
        let waiting = tokio::spawn({
            let (admission, hold) = (Arc::clone(&admission), hold.clone());
            async move { admission.take(10, &hold).await.map(|permit| permit.bytes()) }
        });
        tokio::task::yield_now().await;
        drop(all);
        assert_eq!(waiting.await.expect("no panic"), Ok(10));

        let all = admission.budget().take(1_000).await;
        let refused = admission.take(10, &hold).await.map(|permit| permit.bytes());
        assert_eq!(refused, Err(over_budget()));
        assert!(Instant::now() >= hold.until(), "held to the end");
        drop(all);
    }

    /// Scenario: all budget is taken; many calls of one workspace wait for all of it, then one of another workspace comes. Guarantee: that one is
    /// second in the queue.
    #[tokio::test]
    async fn calls_of_one_workspace_wait_for_each_other_and_not_others_for_them() {
        let admission = Arc::new(admission(|s| s.hold_ms = 60_000));
        let all = admission.budget().take(1_000).await;
        let (sender, mut served) = tokio::sync::mpsc::channel(10);
        for number in [1, 1, 1, 1, 1, 2] {
            let (workspace, admission, sender) =
                (WorkspaceId::from_bytes([number; 16]), Arc::clone(&admission), sender.clone());
            tokio::spawn(async move {
                let hold = admission.hold(workspace, Instant::now(), None);
                let permit = admission.take(1_000, &hold).await.expect("in time");
                sender.send(number).await.expect("the test listens");
                tokio::task::yield_now().await;
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        let [first, third] = [1, 3].map(|number| WorkspaceId::from_bytes([number; 16]));
        assert!(admission.others_wait(first) && admission.others_wait(third));
        drop(all);
        let mut order = Vec::new();
        for _ in 0..6 {
            order.extend(served.recv().await);
        }
        assert_eq!(order, [1, 2, 1, 1, 1, 1]);
        assert!(!admission.others_wait(third));
    }

    /// Scenario: one held call more than allowed. Guarantee: that one is refused at once, the first goes on.
    #[tokio::test]
    async fn held_calls_are_bounded() {
        let admission = admission(|s| s.max_held_calls = 1);
        let hold = admission.hold(WORKSPACE, Instant::now(), None);
        let (end, event) = tokio::sync::oneshot::channel();
        let first = hold.wait(event);
        let second = async {
            let refused = hold.wait(std::future::ready(())).await;
            end.send(()).expect("the first still waits");
            refused
        };
        assert_eq!(tokio::join!(first, second), (Ok(Ok(())), Err(HoldEnded::TooMany)));
        assert_eq!(hold.wait(std::future::ready(())).await, Ok(()), "the place is free again");
    }

    /// Scenario: one workspace takes all places, then others come, then nobody for a while. Guarantee: as places get free the others get them, one each,
    /// before it gets another; alone again it gets all; afterwards nothing is remembered of any of them.
    #[test]
    fn a_workspace_with_many_clients_does_not_keep_others_out() {
        let admission = admission(|s| s.max_held_calls = 8);
        let (calls, start) = (&*admission.held, Instant::now());
        let at =
            |n, seconds| Place::take(calls, WorkspaceId::from_bytes([n; 16]), start + Duration::from_secs(seconds));
        let mut greedy: Vec<_> = (0..8).filter_map(|_| at(1, 0)).collect();
        assert_eq!(greedy.len(), 8);
        assert!(at(2, 0).is_none(), "there is none");
        greedy.truncate(6);
        let second = at(2, 0);
        assert!(second.is_some() && at(1, 9).is_none());
        assert!(at(3, 9).is_some(), "a first place is not refused");
        greedy.truncate(3);
        greedy.extend(at(1, 9));
        assert_eq!(greedy.len(), 4, "as many as it has are free");
        assert!(at(1, 19).is_none(), "three are free, and it has four");

        assert!(at(3, 19).is_some());
        let mut others: Vec<_> = (4..=5).map(|n| at(n, 19).expect("it had none")).collect();
        assert!(at(3, 19).is_none(), "one is free, and it had its turn");
        others.extend(at(3, 20));
        assert_eq!(others.len(), 3);

        drop((second, others));
        greedy.extend((0..8).filter_map(|_| at(1, 29)));
        assert_eq!(greedy.len(), 8);
        drop(greedy);
        drop(at(6, 30));
        assert_eq!(calls.held().keys().collect::<Vec<_>>(), [&WorkspaceId::from_bytes([6; 16])]);
    }

    /// Scenario: 1,000 bytes a second, 1,100 sent at once. Guarantee: the debt of 100 is waited out, a debt beyond the hold
    /// is refused without waiting, and another workspace is not touched.
    #[tokio::test]
    async fn pace_is_kept_by_holding_and_then_by_refusing() {
        let admission = admission(|s| s.workspace_bytes_per_second = 1_000);
        let [a, b] = [1, 2].map(|n| WorkspaceId::from_bytes([n; 16]));
        let start = Instant::now();
        let hold = admission.hold(WORKSPACE, start, None);
        assert_eq!(admission.pace(a, &hold).await, Ok(()));
        admission.charge(a, 1_100);
        assert_eq!(admission.pace(b, &hold).await, Ok(()));
        assert_eq!(admission.pace(a, &hold).await, Ok(()));
        let held = start.elapsed();
        assert!(held >= Duration::from_millis(90) && held < hold.until() - start, "{held:?}");
        admission.charge(a, 10_000);
        match admission.pace(a, &hold).await {
            Err(Refusal::Unavailable { retry_after: Some(delay), .. }) => {
                assert!(delay > Duration::from_secs(9) && delay <= Duration::from_secs(10), "{delay:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < hold.until(), "refused without waiting in vain");
    }
}
