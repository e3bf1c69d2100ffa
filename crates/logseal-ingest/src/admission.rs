//! Who may come in: the byte budget, held calls and the pace of a workspace.
//!
//! Deadlock is excluded by order: a call waits for budget once, for all that its announced length calls for, while it
//! holds none. From then on it only tries; what it cannot get at once makes it give back everything.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_core::WorkspaceId;
use metrics::{Gauge, gauge};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::door::Refusal;
use crate::meter::{HELD_CALLS, IN_FLIGHT_BYTES};
use crate::settings::DoorLimits;

/// Time that is left to the client of a held call, so that it hears our answer instead of its own deadline.
const HOLD_MARGIN: Duration = Duration::from_millis(500);

/// Bytes that a held call takes at the most: its stream's window.
const HELD_BYTES: usize = crate::connection::STREAM_WINDOW as usize;

/// Bytes of memory that requests and what grows out of them may take together.
///
/// Fair: a large request is not starved by small ones that come later. A part may be reserved for what is overdrawn: the more rows wait to be
/// sealed, the more of them are in no cache any more when their turn comes.
#[derive(Debug)]
pub struct Budget {
    free: Semaphore,
    /// Bytes that were overdrawn beyond all there are; what is given back goes here first.
    debt: Mutex<usize>,
    /// Bytes that are left to be overdrawn without taking from others.
    reserve: Mutex<usize>,
    total: usize,
    all: usize,
    taken: Gauge,
}

impl Budget {
    /// A budget of `total` bytes, without a reserve.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Self::with_reserve(total, 0)
    }

    /// A budget of `total` bytes to be taken, and `reserve` more to be overdrawn.
    #[must_use]
    pub fn with_reserve(total: usize, reserve: usize) -> Arc<Self> {
        let total = total.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Semaphore::new(total),
            debt: Mutex::new(0),
            reserve: Mutex::new(reserve),
            total,
            all: total.saturating_add(reserve),
            taken: gauge!(IN_FLIGHT_BYTES),
        })
    }

    /// The bytes that can be taken, free or not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// All bytes, with the reserve.
    #[must_use]
    pub fn all(&self) -> usize {
        self.all
    }

    /// Bytes that nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<BudgetPermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.free.try_acquire_many(permits).ok()?.forget();
        Some(BudgetPermit::new(self, bytes, 0))
    }

    /// Takes `bytes` if they are free now, here or in the reserve: a single request may need more than all requests together usually get.
    fn try_take_more(self: &Arc<Self>, bytes: usize) -> Option<BudgetPermit> {
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.free.forget_permits(bytes);
        let reserved = bytes - free;
        if reserved > *reserve {
            self.free.add_permits(free);
            return None;
        }
        *reserve -= reserved;
        Some(BudgetPermit::new(self, bytes, reserved))
    }

    /// Waits for `bytes`, first come, first served; a need beyond the whole budget takes the whole budget.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> BudgetPermit {
        let permits = u32::try_from(bytes.min(self.total)).unwrap_or(u32::MAX);
        self.free.acquire_many(permits).await.expect("the semaphore is never closed").forget();
        BudgetPermit::new(self, permits as usize, 0)
    }

    /// Takes `bytes` at once, from the reserve as far as it goes, and also beyond what is free: for memory that frees more than it takes. Nobody
    /// else gets any until the debt is paid by what is given back.
    pub fn overdraw(self: &Arc<Self>, bytes: usize) -> BudgetPermit {
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = bytes.min(*reserve);
        *reserve -= reserved;
        drop(reserve);
        let rest = bytes - reserved;
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        *debt += rest - self.free.forget_permits(rest);
        BudgetPermit::new(self, bytes, reserved)
    }

    /// Gives back `bytes`, of which `reserved` go to the reserve.
    fn give_back(&self, bytes: usize, reserved: usize) {
        *self.reserve.lock().unwrap_or_else(PoisonError::into_inner) += reserved;
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = (bytes - reserved).min(*debt);
        *debt -= paid;
        self.free.add_permits(bytes - reserved - paid);
        self.taken.decrement(bytes as f64);
    }
}

/// Bytes taken from a [`Budget`]; dropping it gives them back.
#[derive(Debug)]
#[must_use = "dropping it gives the bytes back"]
pub struct BudgetPermit {
    budget: Arc<Budget>,
    bytes: usize,
    /// How many of them are the reserve's.
    reserved: usize,
}

impl BudgetPermit {
    fn new(budget: &Arc<Budget>, bytes: usize, reserved: usize) -> Self {
        budget.taken.increment(bytes as f64);
        Self { budget: Arc::clone(budget), bytes, reserved }
    }

    /// Bytes that this permit holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All bytes of the budget that this permit draws on, with its reserve.
    #[must_use]
    pub fn budget_bytes(&self) -> usize {
        self.budget.all()
    }

    /// Takes what is missing to `bytes` if it is free now, also of the reserve; never gives anything back.
    #[must_use = "without the bytes the work must not go on"]
    pub fn try_cover(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return true;
        }
        let Some(more) = self.budget.try_take_more(missing) else { return false };
        self.merge(more);
        true
    }

    /// Covers `bytes`, also beyond what is free; gives back what it holds beyond them.
    pub fn overdraw_to(&mut self, bytes: usize) {
        let more = self.budget.overdraw(bytes.saturating_sub(self.bytes));
        self.merge(more);
        self.shrink_to(bytes);
    }

    /// Gives back all but `bytes`; does nothing if it holds less.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes.saturating_sub(bytes)));
    }

    /// Moves `bytes`, or all that there are, into a permit of their own; those of the reserve last, since others wait for the rest.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        let reserved = bytes.saturating_sub(self.bytes - self.reserved);
        self.bytes -= bytes;
        self.reserved -= reserved;
        Self { budget: Arc::clone(&self.budget), bytes, reserved }
    }

    /// Adds the bytes of `other`, a permit of the same budget.
    ///
    /// # Panics
    ///
    /// When `other` belongs to another budget.
    pub fn merge(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.budget, &other.budget), "permits of two budgets do not mix");
        self.bytes += other.bytes;
        self.reserved += other.reserved;
        (other.bytes, other.reserved) = (0, 0);
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes, self.reserved);
        }
    }
}

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
    /// Of each workspace that has proved a key; their number is bounded by the catalog.
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
        Self { limits, budget, held: Arc::new(held), pace: limits.workspace_rate.map(Pace::new) }
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
        hold.wait(self.budget.take(bytes)).await.map_err(|_| over_budget())
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

    #[test]
    fn permits_split_merge_shrink_and_return() {
        let budget = Budget::new(100);
        let mut permit = budget.try_take(60).expect("free");
        assert!(budget.try_take(41).is_none(), "only 40 are free");
        assert!(permit.try_cover(100) && !permit.try_cover(101));
        assert_eq!((permit.bytes(), budget.free()), (100, 0));
        let part = permit.split(30);
        permit.shrink_to(50);
        assert_eq!((permit.bytes(), part.bytes(), budget.free()), (50, 30, 20));
        permit.merge(part);
        assert_eq!((permit.bytes(), budget.free()), (80, 20));
        drop(permit);
        assert_eq!(budget.free(), 100);
    }

    /// Scenario: more is taken than there is. Guarantee: nothing is free until as much has come back.
    #[test]
    fn a_debt_is_paid_first() {
        let budget = Budget::new(100);
        let rows = budget.try_take(70).expect("free");
        let mut pages = budget.overdraw(50);
        assert_eq!((pages.bytes(), budget.free()), (50, 0));
        pages.overdraw_to(60);
        assert!(budget.try_take(1).is_none());
        drop(rows);
        assert_eq!(budget.free(), 40, "70 came back, 30 of them were owed");
        pages.overdraw_to(20);
        assert_eq!(budget.free(), 80);
        drop(pages);
        assert_eq!(budget.free(), 100);
    }

    /// Scenario: a budget with a reserve, of which more is overdrawn than it has. Guarantee: what can be taken is only touched by what goes
    /// beyond it, and everything goes back to where it came from, whatever comes back first.
    #[test]
    fn the_reserve_is_overdrawn_first() {
        let budget = Budget::with_reserve(100, 50);
        assert_eq!((budget.total(), budget.all()), (100, 150));
        let rows = budget.try_take(60).expect("free");
        let mut pages = budget.overdraw(40);
        assert_eq!(budget.free(), 40);
        pages.overdraw_to(70);
        assert_eq!(budget.free(), 20);
        drop(rows);
        assert_eq!(budget.free(), 80);
        pages.overdraw_to(55);
        assert_eq!(budget.free(), 95, "what others can take comes back first");
        let part = pages.split(10);
        drop(pages);
        assert_eq!(budget.free(), 95, "the reserve's");
        drop(part);
        assert_eq!((budget.free(), budget.overdraw(50).bytes()), (100, 50));
        assert_eq!(budget.free(), 100);

        // One that is there may take all of it, and no more.
        let mut request = budget.try_take(100).expect("free");
        assert!(!request.try_cover(151) && request.try_cover(150));
        assert_eq!((request.bytes(), budget.free()), (150, 0));
        drop(request);
        assert_eq!((budget.free(), budget.overdraw(50).bytes(), budget.free()), (100, 50, 100));
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

    /// Scenario: one workspace takes all places, then others come. Guarantee: as places get free the others get them, one each, before
    /// it gets another; alone again it gets all.
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
        assert!(at(3, 0).is_some(), "a first place is not refused");
        greedy.truncate(3);
        greedy.extend(at(1, 0));
        assert_eq!(greedy.len(), 4, "as many as it has are free");
        assert!(at(1, 9).is_none(), "three are free, and it has four");

        let mut others: Vec<_> = (4..=5).map(|n| at(n, 0).expect("it had none")).collect();
        assert!(at(3, 0).is_none(), "one is free, and it had its turn");
        others.extend(at(3, 1));
        assert_eq!(others.len(), 3);

        drop((second, others));
        greedy.extend((0..8).filter_map(|_| at(1, 9)));
        assert_eq!(greedy.len(), 8);
        drop(greedy);
        assert!(calls.held().values().all(|held| held.calls == 0));
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
