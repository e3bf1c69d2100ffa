//! The one bridge from async tasks to compute threads.
//!
//! Async threads are for waiting: work of more than about half a millisecond runs on rayon workers, so that it neither delays other
//! calls nor exceeds the number of cores. Work that a client waits for has rayon's global pool for itself: a row group takes each
//! core for ten milliseconds and more, and a worker never leaves one for a request. Sealing has a pool of low priority: it gets what
//! requests leave, and no less than it needs, since without sealed rows the memory budget lets no requests in. A panic is contained and becomes an error. A job whose caller is gone is skipped if it has not begun, and can ask
//! [`Awaited`] while it runs.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use logseal_core::stack;
use metrics::gauge;
use rayon::{ThreadPool, ThreadPoolBuilder};
use thiserror::Error;
use thread_priority::{ThreadPriority, ThreadPriorityValue};
use tokio::sync::oneshot;
use tracing::{Span, warn};

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

/// Priority of background threads, 0 to 99: on Linux a niceness of 5, a third of the time that a request gets while both want a core. With
/// much less, other programs of the machine could keep the rows from being sealed.
const BACKGROUND_PRIORITY: u8 = 35;

/// What of its stack a compute thread wipes when [`wipe_stacks`] asks for it.
const WIPED_BYTES: usize = 256 * 1024;

/// Workers for what nobody waits for; `None` if the system starts no threads for them.
static BACKGROUND: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let give_way = |_| {
        let priority = ThreadPriorityValue::try_from(BACKGROUND_PRIORITY).map(ThreadPriority::Crossplatform);
        if let Some(error) = priority.ok().and_then(|priority| priority.set_for_current().err()) {
            warn!(?error, "sealing competes with requests: its threads cannot get a lower priority");
        }
    };
    let named = ThreadPoolBuilder::new().thread_name(|index| format!("logseal-seal-{index}")).start_handler(give_way);
    named.build().inspect_err(|error| warn!(%error, "segments are sealed on the threads of requests")).ok()
});

/// Runs `work`, for which a client waits, on a compute thread, in the caller's tracing span.
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
    spawn(None, work).await
}

/// As [`run`], for work that no client waits for.
///
/// # Errors
///
/// [`CpuPanic`] when `work` panicked.
pub async fn run_in_background<T, F>(work: F) -> Result<T, CpuPanic>
where
    T: Send + 'static,
    F: FnOnce(&Awaited<'_>) -> T + Send + 'static,
{
    spawn(BACKGROUND.as_ref(), work).await
}

/// Drops `value` on a background thread: giving back a million small arrays takes long enough to delay calls.
pub fn discard(value: impl Send + 'static) {
    match BACKGROUND.as_ref() {
        Some(pool) => pool.spawn(move || drop(value)),
        None => drop(value),
    }
}

/// Has each compute thread wipe what earlier jobs left on its stack: rows and keys. A thread that works does it after that.
pub fn wipe_stacks() {
    rayon::spawn_broadcast(|_| stack::wipe::<WIPED_BYTES>());
    if let Some(pool) = BACKGROUND.as_ref() {
        pool.spawn_broadcast(|_| stack::wipe::<WIPED_BYTES>());
    }
}

async fn spawn<T, F>(pool: Option<&ThreadPool>, work: F) -> Result<T, CpuPanic>
where
    T: Send + 'static,
    F: FnOnce(&Awaited<'_>) -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let span = Span::current();
    let job = Job::begin();
    let task = move || {
        let _job = job;
        if sender.is_closed() {
            return;
        }
        let awaited = || !sender.is_closed();
        // Whatever a panic leaves half-done belongs to `work` and is dropped with it.
        let result = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| stack::wiped(|| work(&Awaited(&awaited))))));
        // The caller may have gone meanwhile: then nobody wants the result.
        drop(sender.send(result));
    };
    match pool {
        Some(pool) => pool.spawn(task),
        None => rayon::spawn(task),
    }
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
    use std::sync::{Arc, Mutex, mpsc};

    use tokio::task::JoinHandle;

    use super::*;

    #[tokio::test]
    async fn the_result_comes_back() {
        assert_eq!(run(|awaited| (awaited.get(), 6 * 7)).await, Ok((true, 42)));
    }

    /// Scenario: every thread for requests is busy, or every one for segments. Guarantee: the other work goes on.
    #[tokio::test]
    async fn neither_kind_of_work_waits_for_the_other() {
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let all = rayon::current_num_threads();
        let block = || {
            let released = Arc::clone(&released);
            move |_: &Awaited<'_>| released.lock().expect("no panic").recv().expect("the test sends")
        };
        let requests: Vec<_> = (0..all).map(|_| tokio::spawn(run(block()))).collect();
        assert_eq!(run_in_background(|_| 1).await, Ok(1));
        finish(requests, &release).await;
        let segments: Vec<_> = (0..all).map(|_| tokio::spawn(run_in_background(block()))).collect();
        assert_eq!(run(|_| 1).await, Ok(1));
        finish(segments, &release).await;
    }

    async fn finish(blocked: Vec<JoinHandle<Result<(), CpuPanic>>>, release: &mpsc::Sender<()>) {
        blocked.iter().for_each(|_| release.send(()).expect("the jobs wait"));
        for job in blocked {
            assert_eq!(job.await.expect("not aborted"), Ok(()));
        }
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
