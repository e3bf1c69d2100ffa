//! How often one account key may seal, and how often it did.
//!
//! AES-256-GCM with random nonces allows 2^32 invocations of one key (NIST SP 800-38D, section 8.3). So what an account key seals is counted,
//! across restarts: whoever keeps the count durably *reserves* some wraps ahead, and the key seals only what is reserved. After a crash all
//! that was reserved counts as used; so the count may be too high, and never too low.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// The key has sealed all that is reserved for it: more has to be reserved first.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the account key may not seal more before its count is stored")]
pub struct WrapsExhausted;

/// The count of one account key; all handles of the key share it.
#[derive(Debug)]
pub struct WrapCount {
    used: AtomicU64,
    /// Never less than `used`.
    reserved: AtomicU64,
}

impl WrapCount {
    /// The count of a key for which nothing is reserved yet: it seals nothing.
    #[must_use]
    pub fn unreserved() -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), reserved: AtomicU64::new(0) })
    }

    /// A count without a limit: for keys that seal what is counted elsewhere, for tools, and for tests.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), reserved: AtomicU64::new(u64::MAX) })
    }

    /// How often the key sealed, with all that was reserved in earlier lives.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// How often it may still seal before more is reserved.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.reserved.load(Ordering::Acquire).saturating_sub(self.used())
    }

    /// It is stored durably that the key may have sealed `reserved` times, and at least `used` of them count as done. Neither number falls.
    pub fn reserve(&self, used: u64, reserved: u64) {
        self.used.fetch_max(used, Ordering::AcqRel);
        self.reserved.fetch_max(reserved, Ordering::AcqRel);
    }

    /// Counts one more.
    ///
    /// # Errors
    ///
    /// [`WrapsExhausted`]; then nothing may be sealed.
    pub fn take(&self) -> Result<(), WrapsExhausted> {
        let reserved = self.reserved.load(Ordering::Acquire);
        let next = |used| (used < reserved).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).map(drop).map_err(|_| WrapsExhausted)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Scenario: a key seals all that is reserved, gets more, and an older reservation comes late. Guarantee: it never seals more than is
    /// reserved, what came before counts, and no number falls.
    #[test]
    fn a_key_seals_what_is_reserved_and_no_more() {
        let count = WrapCount::unreserved();
        assert_eq!(count.take(), Err(WrapsExhausted));
        count.reserve(10, 12);
        assert_eq!((count.used(), count.left()), (10, 2));
        assert_eq!((count.take(), count.take(), count.take()), (Ok(()), Ok(()), Err(WrapsExhausted)));
        count.reserve(0, 11);
        assert_eq!((count.used(), count.left()), (12, 0));
        count.reserve(10, 13);
        assert_eq!((count.used(), count.left()), (12, 1));
    }

    /// Scenario: four threads seal at once. Guarantee: together they seal exactly as often as is reserved.
    #[test]
    fn no_wrap_is_taken_twice() {
        let count = WrapCount::unreserved();
        count.reserve(0, 1_000);
        let taken = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..500).filter(|_| count.take().is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((taken, count.used()), (1_000, 1_000));
    }
}
