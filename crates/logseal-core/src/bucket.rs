//! A bucket of tokens: so much at once, and so much in a while.

use std::time::Duration;

/// What may be taken within a window: all of it at once when nothing was taken for so long, else as it comes back.
#[derive(Clone, Debug)]
pub struct Bucket {
    limit: f64,
    window: Duration,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket of `limit` tokens, at least one of which it is, that an empty one is again after `window`. `at` and what later calls give as
    /// their time are of one [`SteadyClock`](crate::SteadyClock).
    #[must_use]
    pub fn full(limit: u32, window: Duration, at: Duration) -> Self {
        let limit = f64::from(limit.max(1));
        Self { limit, window: window.max(Duration::from_millis(1)), tokens: limit, at }
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// The time after which there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate()));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// Whether it is as if nothing had ever been taken.
    #[must_use]
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= self.limit
    }

    fn rate(&self) -> f64 {
        self.limit / self.window.as_secs_f64()
    }

    fn refill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.rate();
        (self.tokens, self.at) = ((self.tokens + gained).min(self.limit), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_back_within_the_window_and_never_more() {
        let at = Duration::from_millis;
        let mut bucket = Bucket::full(10, Duration::from_secs(10), at(0));
        assert!(bucket.is_full(at(0)));
        assert_eq!((0..100).filter(|_| bucket.take(at(0)).is_ok()).count(), 10);
        assert_eq!(bucket.take(at(0)), Err(at(1_000)));
        assert!(bucket.take(at(1_000)).is_ok() && bucket.take(at(1_000)).is_err() && !bucket.is_full(at(10_900)));
        assert!(bucket.is_full(at(11_000)));
        assert_eq!((0..100).filter(|_| bucket.take(at(3_600_000)).is_ok()).count(), 10);
    }
}
