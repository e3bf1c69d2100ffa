//! The byte budget: taken, waited for, overdrawn.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Gauge, gauge};
use tokio::sync::Semaphore;

use crate::meter::IN_FLIGHT_BYTES;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
