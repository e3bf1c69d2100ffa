//! Own threads for DataFusion: planning, decoding and sorting never run on the server's async threads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use logseal_core::stack;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

/// Stack of a query thread in bytes. Planners recurse over expressions, and not all of their recursion grows the stack by
/// itself; the text limit bounds the depth, and untouched pages cost nothing.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// What of its stack a query thread wipes before it waits: rows and keys went through it.
const WIPED_BYTES: usize = 256 * 1024;

/// A tokio runtime that may be dropped anywhere.
#[derive(Debug)]
pub(crate) struct QueryRuntime {
    /// Only `None` while being dropped.
    runtime: Option<Runtime>,
}

impl QueryRuntime {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("logseal-query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_park(stack::wipe::<WIPED_BYTES>)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs `future` on the query threads; dropping the returned task cancels it.
    pub(crate) fn spawn<F>(&self, future: F) -> QueryTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("only `drop` takes the runtime");
        QueryTask { handle: runtime.spawn(future) }
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        // A plain drop waits for the threads, which tokio forbids inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
pub(crate) struct QueryTask<T> {
    handle: JoinHandle<T>,
}

impl<T> Future for QueryTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(cx)
    }
}

impl<T> Drop for QueryTask<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
