//! The clock as a value: nothing below the binary reads the system's time by itself.

use std::fmt::{self, Debug};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01T00:00:00Z, the resolution of OTLP and of Arrow's `Timestamp(Nanosecond)`.
///
/// Covers the years 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// Whole milliseconds since the epoch, rounded down.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }
}

impl Debug for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// Source of the current time.
pub trait Clock: Debug + Send + Sync {
    /// Wall-clock time; it may jump when the system's clock is set.
    fn now(&self) -> UnixNanos;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    fn now(&self) -> UnixNanos {
        // A clock set before 1970 or beyond 2262 is a broken machine: saturate instead of failing every request.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UnixNanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Source of time that only goes on, and counts what the process or the machine was suspended for.
pub trait SteadyClock: Debug + Send + Sync {
    /// Time since some moment before the process began, the same for all clocks of a machine's run.
    fn now(&self) -> Duration;
}

/// The system's clock of this kind: `CLOCK_BOOTTIME` on Linux. Elsewhere `CLOCK_MONOTONIC`, which may stand still while the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSteadyClock;

impl SteadyClock for SystemSteadyClock {
    fn now(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_goes_on() {
        let before = SystemSteadyClock.now();
        assert!(before > Duration::ZERO && SystemSteadyClock.now() >= before);
    }

    #[test]
    fn rounds_down_before_and_after_the_epoch() {
        assert_eq!(UnixNanos(1_999_999).millis(), 1);
        assert_eq!(UnixNanos(-1).millis(), -1);
        assert_eq!(UnixNanos(-1).seconds(), -1);
    }

    #[test]
    fn the_system_clock_is_in_this_century() {
        assert!(SystemClock.now().seconds() > 1_700_000_000);
    }
}
