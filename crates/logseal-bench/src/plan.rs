//! The requests of a run: encoded before the clock starts, handed out once each.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::{BenchSettings, request};

/// A pool of encoded requests and the count of those handed out.
#[derive(Debug)]
pub(crate) struct Plan {
    pool: Vec<Bytes>,
    /// The last request, when the records do not fill it.
    tail: Option<(Bytes, u64)>,
    batch: u64,
    full: u64,
    next: AtomicU64,
}

impl Plan {
    /// Encodes as many distinct requests as the run needs or as `pool_bytes` hold. This takes CPU time: milliseconds to
    /// a second.
    pub(crate) fn encode(settings: &BenchSettings) -> Self {
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
            pool.push(body);
            if used >= settings.pool_bytes {
                break;
            }
        }
        let rest = settings.records % batch;
        // An index that no request of the pool has; `rest` is smaller than `batch`, which is a `usize`.
        let tail = (rest > 0).then(|| (encode(full, rest as usize), rest));
        Self { pool, tail, batch, full, next: AtomicU64::new(0) }
    }

    /// The next request and its number of records, until all were handed out.
    pub(crate) fn take(&self) -> Option<(Bytes, u64)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index < self.full {
            return Some((self.pool[(index % self.pool.len() as u64) as usize].clone(), self.batch));
        }
        if index == self.full { self.tail.clone() } else { None }
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
            assert_eq!(taken.iter().map(|(_, n)| n).sum::<u64>(), records);
            assert_eq!((taken.len() as u64, plan.requests()), (requests, requests));
            assert!(plan.take().is_none());
        }
    }

    #[test]
    fn a_small_pool_repeats() {
        let plan = plan(100, 10_000);
        let distinct = plan.pool.len();
        assert!((1..10).contains(&distinct));
        let taken: Vec<_> = std::iter::from_fn(|| plan.take()).map(|(body, _)| body).collect();
        assert_eq!(taken.len(), 10);
        assert_eq!(taken[0], taken[distinct]);
    }
}
