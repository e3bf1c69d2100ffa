//! Daily caps of workspaces: how much each may send between two midnights (UTC).
//!
//! What counts are the bytes of OTLP bodies, after decompression, of requests that were acknowledged. A request that begins below the cap
//! is taken whole, and requests that are under way together all begin below it: a workspace can exceed its cap by what the memory budget
//! holds. [`Quotas`] decides and knows no clock; [`DailyCaps`] is what door and owner share. The owner stores what [`DailyCaps::unsaved`]
//! gives from time to time, and at once when [`DailyCaps::reached`] says so: a crash loses what was counted since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_catalog::UsageRow;
use logseal_core::{Clock, UnixNanos, WorkspaceId};
use tokio::sync::Notify;

const DAY: i64 = 86_400_000_000_000;

/// The cap is near from this share on, in percent.
const NEAR: u128 = 80;

/// How much of its daily cap a workspace has used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaStatus {
    /// Less than 80 %, or there is no cap.
    RespectQuota,
    /// 80 % or more.
    ApproachingQuota,
    /// All of it: requests are refused.
    OverQuota,
}

/// A workspace may send nothing more today.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reached {
    /// The cap in bytes.
    pub cap: u64,
    /// What was taken today, in bytes.
    pub used: u64,
    /// The time until the next day begins.
    pub resets_in: Duration,
}

/// The moment in which a workspace reached its cap, once a day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CapReached {
    /// When.
    pub at: UnixNanos,
    /// The cap in bytes.
    pub cap: u64,
    /// What had been taken on that day, in bytes.
    pub used: u64,
}

/// What is to be stored of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsaved {
    /// What it has sent today.
    pub row: UsageRow,
    /// That it has reached its cap, until that is stored.
    pub reached: Option<CapReached>,
}

/// Caps and usage of all workspaces that have a cap or have sent something; their number is bounded by the catalog.
#[derive(Debug, Default)]
pub struct Quotas(HashMap<WorkspaceId, Quota>);

#[derive(Debug, Default)]
struct Quota {
    cap: Option<u64>,
    /// The version of the settings that `cap` is from.
    version: u64,
    /// The day that `used` and `reached` are about.
    day: i64,
    used: u64,
    reached: bool,
    /// Outlives its day until it is stored.
    event: Option<CapReached>,
    saved: Option<UsageRow>,
}

impl Quota {
    fn begin(&mut self, now: UnixNanos) {
        let today = day(now);
        // A clock that was put back begins a new day as well: better counted anew than refused until the clock is there again.
        if self.day != today {
            (self.day, self.used, self.reached) = (today, 0, false);
        }
    }

    /// The cap, when it is reached.
    fn reached(&self) -> Option<u64> {
        self.cap.filter(|cap| self.used >= *cap)
    }

    /// Notes that the cap is reached, once a day; returns whether it was noted now.
    fn note(&mut self, now: UnixNanos) -> bool {
        let Some(cap) = self.reached().filter(|_| !self.reached) else { return false };
        self.reached = true;
        self.event = Some(CapReached { at: now, cap, used: self.used });
        true
    }

    fn row(&self, workspace: WorkspaceId) -> UsageRow {
        UsageRow { workspace, day: self.day, bytes: self.used, reached: self.reached }
    }
}

impl Quotas {
    /// Whether a request of `workspace` may begin.
    ///
    /// # Errors
    ///
    /// [`Reached`] when the cap is used up.
    pub fn admit(&mut self, workspace: WorkspaceId, now: UnixNanos) -> Result<(), Reached> {
        let Some(quota) = self.0.get_mut(&workspace) else { return Ok(()) };
        quota.begin(now);
        match quota.reached() {
            None => Ok(()),
            Some(cap) => Err(Reached { cap, used: quota.used, resets_in: until_reset(now) }),
        }
    }

    /// Counts `bytes` of a request of `workspace` that is acknowledged `now`; returns whether that reached the cap, for the first time
    /// today.
    pub fn count(&mut self, workspace: WorkspaceId, bytes: u64, now: UnixNanos) -> bool {
        let quota = self.0.entry(workspace).or_default();
        quota.begin(now);
        // The catalog's numbers go no further.
        quota.used = quota.used.saturating_add(bytes).min(i64::MAX.unsigned_abs());
        quota.note(now)
    }

    /// Sets the cap of `workspace` as `version` of its settings has it, unless a later version is known; returns whether what it has
    /// used today reaches the cap, for the first time today.
    pub fn set_cap(&mut self, workspace: WorkspaceId, cap: Option<u64>, version: u64, now: UnixNanos) -> bool {
        let quota = self.0.entry(workspace).or_default();
        if version < quota.version {
            return false;
        }
        (quota.cap, quota.version) = (cap, version);
        quota.begin(now);
        quota.note(now)
    }

    /// How much of its cap `workspace` has used today.
    pub fn status(&mut self, workspace: WorkspaceId, now: UnixNanos) -> QuotaStatus {
        let used = self.used(workspace, now);
        match self.0.get(&workspace).and_then(|quota| quota.cap) {
            Some(cap) if used >= cap => QuotaStatus::OverQuota,
            Some(cap) if u128::from(used) * 100 >= u128::from(cap) * NEAR => QuotaStatus::ApproachingQuota,
            _ => QuotaStatus::RespectQuota,
        }
    }

    /// What `workspace` has used today, in bytes.
    pub fn used(&mut self, workspace: WorkspaceId, now: UnixNanos) -> u64 {
        self.0.get_mut(&workspace).map_or(0, |quota| {
            quota.begin(now);
            quota.used
        })
    }

    /// Goes on from what was stored; rows of other days than today do not matter.
    pub fn load(&mut self, rows: &[UsageRow], now: UnixNanos) {
        for row in rows.iter().filter(|row| row.day == day(now)) {
            let quota = self.0.entry(row.workspace).or_default();
            (quota.day, quota.used, quota.reached) = (row.day, row.bytes, row.reached);
            quota.saved = Some(row.clone());
        }
    }

    /// What has changed since it was stored.
    pub fn unsaved(&mut self, now: UnixNanos) -> Vec<Unsaved> {
        let mut unsaved = Vec::new();
        for (workspace, quota) in &mut self.0 {
            quota.begin(now);
            let row = quota.row(*workspace);
            let is_unsaved = row.bytes > 0 && quota.saved.as_ref() != Some(&row);
            if is_unsaved || quota.event.is_some() {
                unsaved.push(Unsaved { row, reached: quota.event });
            }
        }
        unsaved
    }

    /// `stored` is durable.
    pub fn saved(&mut self, stored: &[Unsaved]) {
        for Unsaved { row, reached } in stored {
            let Some(quota) = self.0.get_mut(&row.workspace) else { continue };
            quota.saved = Some(row.clone());
            if quota.event == *reached {
                quota.event = None;
            }
        }
    }

    /// Forgets a workspace that is gone.
    pub fn forget(&mut self, workspace: WorkspaceId) {
        self.0.remove(&workspace);
    }
}

/// The quotas as the door, the control plane and who stores them share them.
#[derive(Debug)]
pub struct DailyCaps {
    quotas: Mutex<Quotas>,
    clock: Arc<dyn Clock>,
    reached: Notify,
}

impl DailyCaps {
    /// No caps and no usage.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { quotas: Mutex::default(), clock, reached: Notify::new() }
    }

    /// As [`Quotas::admit`].
    ///
    /// # Errors
    ///
    /// [`Reached`].
    pub fn admit(&self, workspace: WorkspaceId) -> Result<(), Reached> {
        self.quotas().admit(workspace, self.clock.now())
    }

    /// As [`Quotas::count`].
    pub fn count(&self, workspace: WorkspaceId, bytes: u64) {
        let reached = self.quotas().count(workspace, bytes, self.clock.now());
        self.tell(reached);
    }

    /// As [`Quotas::set_cap`].
    pub fn set_cap(&self, workspace: WorkspaceId, cap: Option<u64>, version: u64) {
        let reached = self.quotas().set_cap(workspace, cap, version, self.clock.now());
        self.tell(reached);
    }

    /// As [`Quotas::status`].
    #[must_use]
    pub fn status(&self, workspace: WorkspaceId) -> QuotaStatus {
        self.quotas().status(workspace, self.clock.now())
    }

    /// As [`Quotas::used`].
    #[must_use]
    pub fn used(&self, workspace: WorkspaceId) -> u64 {
        self.quotas().used(workspace, self.clock.now())
    }

    /// As [`Quotas::load`].
    pub fn load(&self, rows: &[UsageRow]) {
        self.quotas().load(rows, self.clock.now());
    }

    /// As [`Quotas::unsaved`].
    #[must_use]
    pub fn unsaved(&self) -> Vec<Unsaved> {
        self.quotas().unsaved(self.clock.now())
    }

    /// As [`Quotas::saved`].
    pub fn saved(&self, stored: &[Unsaved]) {
        self.quotas().saved(stored);
    }

    /// As [`Quotas::forget`].
    pub fn forget(&self, workspace: WorkspaceId) {
        self.quotas().forget(workspace);
    }

    /// Waits until a workspace has reached its cap; one that did since the last wait is not missed.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    fn tell(&self, reached: bool) {
        if reached {
            self.reached.notify_one();
        }
    }

    fn quotas(&self) -> MutexGuard<'_, Quotas> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The day of `at`, counted from 1970-01-01 (UTC).
fn day(at: UnixNanos) -> i64 {
    at.0.div_euclid(DAY)
}

fn until_reset(now: UnixNanos) -> Duration {
    Duration::from_nanos((DAY - now.0.rem_euclid(DAY)).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);
    const OTHER: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

    /// Six hours before a midnight.
    const EVENING: UnixNanos = UnixNanos(20_000 * DAY + 18 * DAY / 24);

    fn capped(cap: u64) -> Quotas {
        let mut quotas = Quotas::default();
        assert!(!quotas.set_cap(ONE, Some(cap), 1, EVENING));
        quotas
    }

    fn later(hours: i64) -> UnixNanos {
        UnixNanos(EVENING.0 + hours * DAY / 24)
    }

    /// Scenario: a workspace with a cap of 100 sends up to 79, 80, 99 and 130 bytes. Guarantee: it is taken until the cap is reached,
    /// a request that began below it is counted whole, the status says so from 80 % on, and reaching it is told once.
    #[test]
    fn a_workspace_is_taken_until_its_cap_is_reached() {
        let mut quotas = capped(100);
        let steps = [
            (79, QuotaStatus::RespectQuota, false),
            (1, QuotaStatus::ApproachingQuota, false),
            (19, QuotaStatus::ApproachingQuota, false),
            (31, QuotaStatus::OverQuota, true),
        ];
        for (bytes, status, reached) in steps {
            assert_eq!(quotas.admit(ONE, EVENING), Ok(()));
            assert_eq!(quotas.count(ONE, bytes, EVENING), reached);
            assert_eq!(quotas.status(ONE, EVENING), status, "{bytes}");
        }
        let refused = Reached { cap: 100, used: 130, resets_in: Duration::from_secs(6 * 3_600) };
        assert_eq!(quotas.admit(ONE, EVENING), Err(refused));
        assert!(!quotas.count(ONE, 5, EVENING), "of a request that was under way: told once");
        assert_eq!(quotas.used(ONE, EVENING), 135);
        assert_eq!(quotas.admit(OTHER, EVENING), Ok(()));
        assert_eq!(quotas.status(OTHER, EVENING), QuotaStatus::RespectQuota);
    }

    /// Scenario: midnight passes after the cap was reached; the clock is put back. Guarantee: a day begins with nothing used, and its cap
    /// is told anew; a clock that was put back refuses nothing.
    #[test]
    fn midnight_resets_what_was_used() {
        let mut quotas = capped(100);
        assert!(quotas.count(ONE, 100, EVENING));
        let last = UnixNanos(later(6).0 - 1);
        assert_eq!(quotas.admit(ONE, last).map_err(|reached| reached.resets_in), Err(Duration::from_nanos(1)));
        assert_eq!(quotas.admit(ONE, later(6)), Ok(()));
        assert_eq!((quotas.used(ONE, later(6)), quotas.status(ONE, later(6))), (0, QuotaStatus::RespectQuota));
        assert!(quotas.count(ONE, 100, later(6)));
        assert!(quotas.admit(ONE, later(6)).is_err());
        assert_eq!(quotas.admit(ONE, EVENING), Ok(()));
    }

    /// Scenario: the cap is raised, removed, and lowered below what was used, and settings of an older version come late. Guarantee: the
    /// newest version counts at once, with what was used before; that a cap was reached is told once a day.
    #[test]
    fn a_cap_counts_from_when_it_is_set() {
        let mut quotas = Quotas::default();
        assert!(!quotas.count(ONE, 150, EVENING), "without a cap");
        assert!(quotas.set_cap(ONE, Some(100), 2, EVENING));
        assert!(quotas.admit(ONE, EVENING).is_err());
        assert!(!quotas.set_cap(ONE, Some(200), 3, EVENING));
        assert_eq!(quotas.admit(ONE, EVENING), Ok(()));
        assert!(!quotas.set_cap(ONE, Some(100), 2, EVENING), "it is older");
        assert_eq!(quotas.admit(ONE, EVENING), Ok(()));
        assert!(!quotas.count(ONE, 50, EVENING), "told today already");
        assert!(quotas.admit(ONE, EVENING).is_err());
        quotas.set_cap(ONE, None, 4, EVENING);
        assert_eq!(quotas.admit(ONE, EVENING), Ok(()));
    }

    /// Scenario: usage is stored, also while it changes, and not stored for a day. Guarantee: what changed since is given until it is
    /// stored, and that a cap was reached also after its day.
    #[test]
    fn what_changed_is_given_until_it_is_stored() {
        let mut quotas = capped(100);
        assert_eq!(quotas.unsaved(EVENING), []);
        quotas.count(ONE, 60, EVENING);
        let row = |bytes, reached| UsageRow { workspace: ONE, day: 20_000, bytes, reached };
        let first = quotas.unsaved(EVENING);
        assert_eq!(first, [Unsaved { row: row(60, false), reached: None }]);
        quotas.count(ONE, 60, EVENING);
        quotas.saved(&first);
        let event = CapReached { at: EVENING, cap: 100, used: 120 };
        let second = quotas.unsaved(EVENING);
        assert_eq!(second, [Unsaved { row: row(120, true), reached: Some(event) }]);
        assert_eq!(quotas.unsaved(EVENING), second, "until it is stored");
        let next_day = UsageRow { day: 20_001, ..row(0, false) };
        let late = quotas.unsaved(later(6));
        assert_eq!(late, [Unsaved { row: next_day, reached: Some(event) }]);
        quotas.saved(&late);
        assert_eq!(quotas.unsaved(later(6)), []);
    }

    /// Scenario: a start after a stop, on the same day and on the next one. Guarantee: on the same day a used-up cap refuses and is not
    /// told again; on the next day nothing is used.
    #[test]
    fn usage_goes_on_after_a_restart() {
        let stored = UsageRow { workspace: ONE, day: 20_000, bytes: 100, reached: true };
        for (now, is_refused) in [(EVENING, true), (later(6), false)] {
            let mut quotas = Quotas::default();
            quotas.load(std::slice::from_ref(&stored), now);
            assert!(!quotas.set_cap(ONE, Some(100), 1, now));
            assert_eq!(quotas.admit(ONE, now).is_err(), is_refused);
            assert_eq!(quotas.unsaved(now), []);
        }
    }

    /// Scenario: usage near the largest number, and no time at all. Guarantee: nothing overflows.
    #[test]
    fn extreme_numbers_do_not_overflow() {
        let mut quotas = Quotas::default();
        quotas.set_cap(ONE, Some(u64::MAX), 1, UnixNanos(i64::MIN));
        for now in [UnixNanos(i64::MIN), UnixNanos(i64::MAX), UnixNanos(-1)] {
            quotas.count(ONE, u64::MAX, now);
            quotas.count(ONE, u64::MAX, now);
            assert_eq!(quotas.used(ONE, now), i64::MAX.unsigned_abs());
            assert!(quotas.admit(ONE, now).is_ok());
        }
        assert_eq!(until_reset(UnixNanos(-1)), Duration::from_nanos(1));
    }
}
