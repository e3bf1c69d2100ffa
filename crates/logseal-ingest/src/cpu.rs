//! The one bridge from async tasks to compute threads.
//!
//! Async threads are for waiting: work of more than about half a millisecond runs on rayon's global pool, so that it
//! neither delays other calls nor exceeds the number of cores. A panic is contained and becomes an error. A job whose
//! caller is gone is skipped if it has not begun, and can ask [`Awaited`] while it runs.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};

use metrics::gauge;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::Span;

use crate::meter::CPU_JOBS;

/// The job panicked. The panic's text is not here, since it may quote the data that caused it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a compute job panicked")]
pub struct CpuPanic;

/// Tells a running job whether somebody still waits for its result.
pub struct Awaited<'a>(&'a dyn Fn() -> bool);

impl Awaited<'_> {
    /// For work that runs in its caller's own frame and so is always waited for.
    pub const ALWAYS: Awaited<'static> = Awaited(&|| true);

    /// False once the caller dropped its future.
    #[must_use]
    pub fn get(&self) -> bool {
        (self.0)()
    }
}

impl Debug for Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Awaited").field(&self.get()).finish()
    }
}

/// Runs `work` on a compute thread, in the caller's tracing span.
///
/// Dropping the future cancels work that has not begun; everything that `work` owns is then dropped on a compute thread.
///
/// # Errors
///
/// [`CpuPanic`] when `work` panicked.
pub async fn run<T, F>(work: F) -> Result<T, CpuPanic>
where
    T: Send + 'static,
    F: FnOnce(&Awaited<'_>) -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let span = Span::current();
    let job = Job::begin();
    rayon::spawn(move || {
        let _job = job;
        if sender.is_closed() {
            return;
        }
        let awaited = || !sender.is_closed();
        // Whatever a panic leaves half-done belongs to `work` and is dropped with it.
        let result = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| work(&Awaited(&awaited)))));
        // The caller may have gone meanwhile: then nobody wants the result.
        drop(sender.send(result));
    });
    match receiver.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(CpuPanic),
    }
}

/// One job in the gauge, for as long as it exists.
struct Job;

impl Job {
    fn begin() -> Self {
        gauge!(CPU_JOBS).increment(1.0);
        Self
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        gauge!(CPU_JOBS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_result_comes_back() {
        assert_eq!(run(|awaited| (awaited.get(), 6 * 7)).await, Ok((true, 42)));
    }

    /// Scenario: work panics. Guarantee: the caller gets an error and the pool goes on.
    #[tokio::test]
    async fn a_panic_is_an_error() {
        assert_eq!(run(|_| -> u8 { panic!("expected by this test") }).await, Err(CpuPanic));
        assert_eq!(run(|_| 1).await, Ok(1));
    }

    /// Scenario: the caller goes away while its job runs. Guarantee: the job can tell.
    #[tokio::test]
    async fn a_running_job_learns_that_nobody_waits() {
        let (started, is_started) = oneshot::channel();
        let (leave, left) = mpsc::channel::<()>();
        let (report, seen) = oneshot::channel();
        let caller = tokio::spawn(run(move |awaited| {
            started.send(()).expect("the test waits");
            left.recv().expect("the test sends");
            report.send(awaited.get()).expect("the test waits");
        }));
        is_started.await.expect("the job starts");
        caller.abort();
        assert!(caller.await.expect_err("aborted").is_cancelled());
        leave.send(()).expect("the job waits");
        assert_eq!(seen.await, Ok(false));
    }
}
