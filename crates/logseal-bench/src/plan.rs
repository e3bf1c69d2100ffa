//! The requests of a run: encoded before the clock starts, handed out once each, with the times of their starts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::{BenchSettings, request};

/// A pool of encoded requests and the count of those handed out.
#[derive(Debug)]
pub(crate) struct Plan {
    /// With the number of their records.
    pool: Vec<(Bytes, u64)>,
    /// The last request, when the records do not fill it.
    tail: Option<(Bytes, u64)>,
    /// Records a request, on average.
    batch: u64,
    /// Records a second, at an open pace.
    rate: Option<u64>,
    full: u64,
    next: AtomicU64,
}

/// A request that was handed out.
#[derive(Debug)]
pub(crate) struct Order {
    /// How many were handed out before it.
    pub(crate) index: u64,
    pub(crate) body: Bytes,
    pub(crate) records: u64,
    /// When it is to start, from the start of the run on; nothing in a closed loop.
    pub(crate) due: Option<Duration>,
}

impl Plan {
    /// Encodes as many distinct requests as the run needs or as `pool_bytes` hold. This takes CPU time: milliseconds to
    /// a second.
    pub(crate) fn encode(settings: &BenchSettings) -> Self {
        if let Some(requests) = settings.requests.as_ref().filter(|requests| !requests.is_empty()) {
            let in_pool: u64 = requests.iter().map(|(_, records)| *records).sum();
            let batch = (in_pool / requests.len() as u64).max(1);
            let (pool, rate, full) = (requests.to_vec(), settings.rate, settings.records / batch);
            return Self { pool, tail: None, batch, rate, full, next: AtomicU64::new(0) };
        }
        let encode =
            |index, records| Bytes::from(request(settings.payload, settings.seed, index, records, settings.base_time));
        let batch = settings.batch as u64;
        let full = settings.records / batch;
        let mut pool = Vec::new();
        let mut used = 0;
        for index in 0..full {
            let body = encode(index, settings.batch);
            used += body.len();
            // At least one, also when it alone is larger than the pool.
            pool.push((body, batch));
            if used >= settings.pool_bytes {
                break;
            }
        }
        let rest = settings.records % batch;
        // An index that no request of the pool has; `rest` is smaller than `batch`, which is a `usize`.
        let tail = (rest > 0).then(|| (encode(full, rest as usize), rest));
        Self { pool, tail, batch, rate: settings.rate, full, next: AtomicU64::new(0) }
    }

    /// The next request, until all were handed out; in the order of their starts.
    pub(crate) fn take(&self) -> Option<Order> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let (body, records) = if index < self.full {
            self.pool[(index % self.pool.len() as u64) as usize].clone()
        } else {
            self.tail.clone().filter(|_| index == self.full)?
        };
        Some(Order { index, body, records, due: self.rate.map(|rate| self.due(index, rate)) })
    }

    /// A request is due when the records of those before it have taken their time.
    fn due(&self, index: u64, rate: u64) -> Duration {
        let nanos = u128::from(index) * u128::from(self.batch) * 1_000_000_000 / u128::from(rate.max(1));
        // At most 584 years: nobody waits for the difference.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Requests in all.
    pub(crate) fn requests(&self) -> u64 {
        self.full + u64::from(self.tail.is_some())
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::UnixNanos;

    use super::*;
    use crate::Payload;

    fn plan(records: u64, pool_bytes: usize) -> Plan {
        let mut settings = BenchSettings::new("http://x", "k", Payload::C, UnixNanos(1)).expect("valid");
        settings.records = records;
        settings.pool_bytes = pool_bytes;
        Plan::encode(&settings)
    }

    #[test]
    fn every_record_is_handed_out_once() {
        for (records, requests) in [(1, 1), (9, 1), (10, 1), (11, 2), (100, 10), (105, 11)] {
            let plan = plan(records, 1 << 20);
            let taken: Vec<_> = std::iter::from_fn(|| plan.take()).collect();
            assert_eq!(taken.iter().map(|order| order.records).sum::<u64>(), records);
            assert_eq!((taken.len() as u64, plan.requests()), (requests, requests));
            assert!(plan.take().is_none());
        }
    }

    #[test]
    fn a_small_pool_repeats() {
        let plan = plan(100, 10_000);
        let distinct = plan.pool.len();
        assert!((1..10).contains(&distinct));
        let taken: Vec<_> = std::iter::from_fn(|| plan.take()).map(|order| order.body).collect();
        assert_eq!(taken.len(), 10);
        assert_eq!(taken[0], taken[distinct]);
    }

    #[test]
    fn starts_are_spread_evenly_over_the_time_that_the_rate_gives() {
        let due = |records, rate| {
            let mut settings = BenchSettings::new("http://x", "k", Payload::C, UnixNanos(1)).expect("valid");
            settings.records = records;
            settings.rate = rate;
            let plan = Plan::encode(&settings);
            std::iter::from_fn(|| plan.take()).map(|order| order.due).collect::<Vec<_>>()
        };
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(due(35, Some(100)), [millis(0), millis(100), millis(200), millis(300)]);
        assert_eq!(due(30, Some(3)), [0, 3_333_333_333, 6_666_666_666].map(|nanos| Some(Duration::from_nanos(nanos))));
        assert_eq!(due(20, None), [None, None]);
    }

    #[test]
    fn a_start_at_the_end_of_time_is_no_panic() {
        let plan = plan(10, 1);
        assert_eq!(plan.due(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
