//! How much memory the columns of a request take, before they are there.
//!
//! A call waits for memory once, before its body is read. What is asked for then has to be about what its columns will take: a request that is scanned and
//! then finds no room was scanned in vain, and comes back.

use std::sync::atomic::{AtomicU32, Ordering};

/// Hundredths.
const ONE: u32 = 100;

/// What is asked for beforehand at the most: a workspace whose records expand further cannot keep others waiting for more.
const MOST: u32 = 16 * ONE;

/// A request that expands less than what was expected counts one part in so many.
const PATIENCE: u32 = 16;

/// Smaller bodies say nothing: their columns take some kilobytes however few records they have.
const TELLING_BYTES: usize = 32 * 1024;

/// Bytes of columns for each byte of OTLP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expansion(u32);

impl Default for Expansion {
    /// That of typical records, whose columns are about as large as their protobuf.
    fn default() -> Self {
        Self(ONE)
    }
}

impl Expansion {
    /// The columns of a body of `bytes`: an estimate, which who builds them corrects. They take some kilobytes however few records there are; many tiny
    /// records under one large resource, or of a table with hundreds of attributes, grow far beyond their bytes.
    #[must_use]
    pub fn chunk_bytes(self, bytes: usize) -> usize {
        let columns = (bytes as u64).saturating_mul(u64::from(self.0)) / u64::from(ONE);
        bytes.min(16 * 1024) + usize::try_from(columns).unwrap_or(usize::MAX)
    }
}

/// The expansion of a workspace's requests, learned from those that came.
#[derive(Debug)]
pub struct Learned(AtomicU32);

impl Default for Learned {
    fn default() -> Self {
        Self(AtomicU32::new(Expansion::default().0))
    }
}

impl Learned {
    /// What is to be expected of the next request.
    #[must_use]
    pub fn expansion(&self) -> Expansion {
        Expansion(self.0.load(Ordering::Relaxed))
    }

    /// A body of `bytes` became columns of `chunk_bytes`. Too little expected costs a scan in vain, too much only a moment's wait: so what is more is
    /// believed at once, what is less by and by.
    pub fn learn(&self, bytes: usize, chunk_bytes: usize) {
        if bytes < TELLING_BYTES {
            return;
        }
        let found = (chunk_bytes as u64).saturating_mul(u64::from(ONE)) / bytes as u64;
        let found = u32::try_from(found).unwrap_or(MOST).clamp(ONE, MOST);
        let expected = self.0.load(Ordering::Relaxed);
        // Of two that learn at the same time one is forgotten; another comes.
        self.0.store(found.max(expected - expected.saturating_sub(found).div_ceil(PATIENCE)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: usize = 100_000;

    /// Scenario: requests that expand as usual, one that expands eightfold, usual ones again. Guarantee: the next one is expected to expand eightfold too, and
    /// that is forgotten by and by, down to what is usual and no further.
    #[test]
    fn more_is_believed_at_once_and_less_by_and_by() {
        let learned = Learned::default();
        assert_eq!(learned.expansion(), Expansion::default());
        learned.learn(BODY, BODY / 2);
        assert_eq!(learned.expansion(), Expansion::default(), "never less than the usual");
        learned.learn(BODY, 8 * BODY);
        assert_eq!(learned.expansion().chunk_bytes(BODY), 8 * BODY + 16 * 1024);
        let mut before = learned.expansion().0;
        let mut requests = 0;
        while learned.expansion() != Expansion::default() {
            learned.learn(BODY, BODY);
            let after = learned.expansion().0;
            assert!(after < before && before - after <= before / 8, "{before} {after}");
            (before, requests) = (after, requests + 1);
        }
        assert!((20..500).contains(&requests), "{requests}");
    }

    #[test]
    fn small_bodies_tell_nothing_and_no_body_makes_others_wait_for_more_than_a_bound() {
        let learned = Learned::default();
        learned.learn(TELLING_BYTES - 1, 100 * TELLING_BYTES);
        assert_eq!(learned.expansion(), Expansion::default());
        learned.learn(TELLING_BYTES, usize::MAX);
        assert_eq!(learned.expansion(), Expansion(MOST));
        assert!(learned.expansion().chunk_bytes(usize::MAX) > BODY, "nothing overflows");
    }
}
