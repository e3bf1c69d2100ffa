//! A log-linear histogram of microseconds: fixed memory, whatever the run's length, and an error below 1.6 %.
//!
//! Each power of two is split into 64 buckets. One histogram belongs to one worker, so that recording needs no lock;
//! they are merged at the end.

use std::fmt::{self, Debug};
use std::time::Duration;

/// log2 of the buckets a power of two.
const PRECISION: u32 = 6;
/// Longer latencies count as this: an hour and eleven minutes.
const LONGEST: u64 = u32::MAX as u64;
const BUCKETS: usize = ((32 - PRECISION as usize) << PRECISION) + (1 << PRECISION);

/// Counts of latencies by their size.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

impl Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count).field("max", &self.max).finish_non_exhaustive()
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
        self.counts[bucket_of(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many latencies were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency in microseconds that `percent` of all do not exceed, rounded up to its bucket's end; 0 when empty.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return end_of(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The longest latency in microseconds, exact.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }
}

fn bucket_of(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(PRECISION + 1);
    ((u64::from(shift) << PRECISION) + (micros >> shift)) as usize
}

/// The largest value that falls into `bucket`.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> PRECISION).saturating_sub(1);
    let mantissa = bucket - (shift << PRECISION);
    ((mantissa + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_the_bucket_that_ends_at_or_just_after_it() {
        for micros in (0..2_000).chain((11..32).flat_map(|b| [(1 << b) - 1, 1 << b, (1 << b) + (1 << (b - 1))])) {
            let end = end_of(bucket_of(micros));
            assert!(end >= micros && end - micros <= micros / 64, "{micros} -> {end}");
            assert_eq!(bucket_of(end), bucket_of(micros));
        }
        assert_eq!(bucket_of(LONGEST), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let (mut odd, mut all) = (Histogram::default(), Histogram::default());
        for micros in 1..=10_000_u64 {
            let into = if micros % 2 == 1 { &mut odd } else { &mut all };
            into.record(Duration::from_micros(micros));
        }
        all.merge(&odd);
        assert_eq!((all.count(), all.max()), (10_000, 10_000));
        for (percent, exact) in [(50.0, 5_000), (95.0, 9_500), (99.0, 9_900), (100.0, 10_000)] {
            let found = all.percentile(percent);
            assert!((exact..=exact + exact / 64).contains(&found), "p{percent} = {found}");
        }
    }

    #[test]
    fn empty_and_huge() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile(99.0), histogram.max()), (0, 0));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.percentile(50.0), LONGEST);
    }
}
