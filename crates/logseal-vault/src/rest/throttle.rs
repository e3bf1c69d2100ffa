//! Throttling: as many requests in ten seconds as Azure Key Vault takes of software keys, by the key's size.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logseal_core::{Bucket, SteadyClock};

const WINDOW: Duration = Duration::from_secs(10);

/// Reports of refusals that may come at once, and how long one of them takes to be given back.
const REPORTS: u32 = 10;

/// What a request does, as far as its costs go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Work {
    /// Makes an RSA key.
    Create,
    /// Everything else.
    Other,
}

/// A bucket for each size and kind of work, and one for reports.
#[derive(Debug)]
pub(super) struct Throttle {
    clock: Arc<dyn SteadyClock>,
    buckets: Mutex<Vec<(u32, Work, Bucket)>>,
    reports: Mutex<(Bucket, u64)>,
}

impl Throttle {
    pub(super) fn new(clock: Arc<dyn SteadyClock>) -> Self {
        let now = clock.now();
        let bucket = |bits, work, limit| (bits, work, Bucket::full(limit, WINDOW, now));
        let buckets = vec![
            bucket(2048, Work::Create, 20),
            bucket(2048, Work::Other, 4_000),
            bucket(3072, Work::Create, 20),
            bucket(3072, Work::Other, 1_000),
            bucket(4096, Work::Create, 20),
            bucket(4096, Work::Other, 500),
        ];
        Self { clock, buckets: Mutex::new(buckets), reports: Mutex::new((Bucket::full(REPORTS, WINDOW, now), 0)) }
    }

    /// Takes one request's share, or says when to come back.
    pub(super) fn take(&self, bits: u32, work: Work) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.iter_mut().find(|(of, kind, _)| (*of, *kind) == (bits, work));
        bucket.map_or(Ok(()), |(_, _, bucket)| bucket.take(now))
    }

    /// Whether a refusal may be reported, and how many were not since the last one that was: who has no token must not be able to make the
    /// trail grow as fast as requests come.
    pub(super) fn report(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, passed_over) = &mut *reports;
        if bucket.take(now).is_ok() {
            return Some(std::mem::take(passed_over));
        }
        *passed_over = passed_over.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[derive(Debug, Default)]
    struct Hands(AtomicU64);

    impl SteadyClock for Hands {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Relaxed))
        }
    }

    #[test]
    fn a_window_holds_as_many_requests_as_its_size_allows_and_fills_again() {
        let hands = Arc::new(Hands::default());
        let throttle = Throttle::new(Arc::clone(&hands) as _);
        let taken = |bits, work| (0..10_000).take_while(|_| throttle.take(bits, work).is_ok()).count();
        assert_eq!((taken(2048, Work::Other), taken(4096, Work::Other)), (4_000, 500));
        assert_eq!((taken(3072, Work::Create), taken(3072, Work::Other)), (20, 1_000), "each has its own");
        assert_eq!(throttle.take(4096, Work::Other), Err(Duration::from_millis(20)));
        hands.0.fetch_add(1_000, Relaxed);
        assert_eq!((taken(4096, Work::Other), taken(2048, Work::Create)), (50, 20));
        hands.0.fetch_add(3_600_000, Relaxed);
        assert_eq!(taken(4096, Work::Other), 500, "never more than the window holds");
    }

    #[test]
    fn reports_are_few_and_count_what_they_pass_over() {
        let hands = Arc::new(Hands::default());
        let throttle = Throttle::new(Arc::clone(&hands) as _);
        let reported = (0..100).filter(|_| throttle.report().is_some()).count();
        assert_eq!(reported, 10);
        hands.0.fetch_add(1_000, Relaxed);
        assert_eq!(throttle.report(), Some(90));
    }
}
