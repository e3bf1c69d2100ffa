//! For how long keys may be used after the key vault last unwrapped one of them.
//!
//! All keys of a cluster that are in memory share one [`Lease`]. Each good unwrap extends it; a revocation ends it for good. What opens or
//! seals looks at it first and fails closed when it is over, whether or not anybody watches the vault meanwhile: the clock counts time in
//! which the process or the machine was suspended. A lease that is over stays so: service resumes with keys that are unwrapped anew, under
//! another lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logseal_core::SteadyClock;
use thiserror::Error;

/// Keys under this lease must not be used any more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the key may not be used: it was revoked, or the key vault has not been reached for too long")]
pub struct LeaseOver;

/// The end of a lease, shared by all keys under it.
#[derive(Debug)]
pub struct Lease {
    clock: Arc<dyn SteadyClock>,
    /// In nanoseconds of the clock; 0 once it is over for good.
    until: AtomicU64,
}

impl Lease {
    /// A lease until `until` of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn SteadyClock>, until: Duration) -> Arc<Self> {
        Arc::new(Self { clock, until: AtomicU64::new(nanos(until)) })
    }

    /// A lease that ends only when it is told to: for tools that hold keys for one run, and for tests.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new(Arc::new(Standstill), Duration::MAX)
    }

    /// Moves the end to `until`, if that is later; false when the lease is over already and stays so.
    #[must_use]
    pub fn extend(&self, until: Duration) -> bool {
        let now = nanos(self.clock.now());
        let extended = self
            .until
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| (end > now).then_some(end.max(nanos(until))));
        extended.is_ok()
    }

    /// Ends the lease now, for good.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Says whether keys under the lease may be used.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`] when they may not.
    pub fn check(&self) -> Result<(), LeaseOver> {
        if nanos(self.clock.now()) < self.until.load(Ordering::Acquire) { Ok(()) } else { Err(LeaseOver) }
    }
}

/// For leases without a time limit.
#[derive(Debug)]
struct Standstill;

impl SteadyClock for Standstill {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    impl SteadyClock for Hand {
        fn now(&self) -> Duration {
            Duration::from_nanos(self.0.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_lease_ends_by_the_clock_and_never_comes_back() {
        let hand = Arc::new(Hand::default());
        let lease = Lease::new(Arc::<Hand>::clone(&hand), Duration::from_nanos(10));
        hand.0.store(9, Ordering::SeqCst);
        assert_eq!(lease.check(), Ok(()));
        assert!(lease.extend(Duration::from_nanos(20)));
        assert!(lease.extend(Duration::from_nanos(15)), "an answer that is older than another one does not shorten it");
        hand.0.store(19, Ordering::SeqCst);
        assert_eq!(lease.check(), Ok(()));
        hand.0.store(20, Ordering::SeqCst);
        assert_eq!(lease.check(), Err(LeaseOver));
        assert!(!lease.extend(Duration::from_nanos(90)), "what was held too long is unwrapped anew");
        assert_eq!(lease.check(), Err(LeaseOver));
    }

    #[test]
    fn a_lease_that_was_ended_stays_over() {
        let lease = Lease::unlimited();
        assert_eq!(lease.check(), Ok(()));
        lease.end();
        assert!(!lease.extend(Duration::MAX));
        assert_eq!(lease.check(), Err(LeaseOver));
    }
}
