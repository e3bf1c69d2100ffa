//! CPU time and peak memory of a server on the same machine, read from Linux' `/proc`.

use std::fmt::{self, Debug};
use std::fs;
use std::future::Future;
use std::pin::Pin;

type DrainError = Box<dyn std::error::Error + Send + Sync>;
type Drained = Pin<Box<dyn Future<Output = Result<(), DrainError>> + Send>>;

/// Clock ticks a second in `/proc`: `USER_HZ`, which is 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A local server process that a run looks at.
pub struct ServerProbe {
    pid: u32,
    drained: Option<Drained>,
}

impl Debug for ServerProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerProbe").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl ServerProbe {
    /// A probe of the process `pid`; its CPU time is read right after the last acknowledgement.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid, drained: None }
    }

    /// Reads the CPU time only after `drained` is done: when the server reports no record outside a segment, so that
    /// the work it still owes for the run is counted.
    #[must_use]
    pub fn when_drained(mut self, drained: impl Future<Output = Result<(), DrainError>> + Send + 'static) -> Self {
        self.drained = Some(Box::pin(drained));
        self
    }

    /// User and system time of the process so far, in seconds; `None` when the process or `/proc` is not there.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        parse_stat(&fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)
    }

    /// The largest resident memory of the process over its whole life, in bytes.
    #[must_use]
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        parse_status(&fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?)
    }

    /// Waits for the server to be drained, at once when no such future was given.
    pub(crate) async fn drained(&mut self) -> Result<(), DrainError> {
        match self.drained.take() {
            Some(drained) => drained.await,
            None => Ok(()),
        }
    }
}

/// `utime` and `stime`, fields 14 and 15 of proc(5). The second field is the program's name in parentheses and may hold
/// spaces and parentheses itself, so counting starts behind the last one.
fn parse_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn parse_status(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses() {
        let stat =
            "42 (log) seal 1)) S 1 42 42 0 -1 4194560 1 0 0 0 1234 66 0 0 20 0 9 0 100 5000 10 18446744073709551615";
        assert_eq!(parse_stat(stat), Some(13.0));
        assert_eq!(parse_stat("42 (cut off) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn status_gives_the_high_water_mark() {
        assert_eq!(parse_status("VmPeak:\t  9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 7 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(parse_status("VmHWM:\t lots\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_both_and_a_missing_one_has_none() {
        let own = ServerProbe::new(std::process::id());
        assert!(own.cpu_seconds().is_some() && own.peak_rss_bytes() > Some(100_000));
        let missing = ServerProbe::new(u32::MAX);
        assert!(missing.cpu_seconds().is_none() && missing.peak_rss_bytes().is_none());
    }
}
