//! Clients that behave, beside hostile ones: a shipper that keeps its connection, and newcomers that make one for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use logseal_bench::Payload;
use tokio::task::JoinHandle;

use crate::bed::Bed;
use crate::client::{Client, Message, messages};
use crate::report;

/// Time between two requests of one client.
const PACE: Duration = Duration::from_millis(4);

/// Largest 99th percentile: the time for which the server itself may hold a call. Measured are milliseconds, and printed; a machine that is
/// busy must not fail a test.
const P99: Duration = Duration::from_secs(5);

/// Failures that are told.
const TOLD: usize = 5;

/// What one client has seen.
#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl Seen {
    async fn request(&mut self, client: &Client, authorization: &HeaderValue, message: &Message, began: Instant) {
        match client.export(authorization, message).await {
            Ok(0) => self.took.push(began.elapsed()),
            other => self.failed.push(format!("{other:?}")),
        }
    }

    fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }
}

/// Well-behaved clients of one workspace.
pub(super) struct Others {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, JoinHandle<Seen>)>,
}

impl Others {
    pub(super) async fn start(bed: &Bed) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let endpoint = bed.server.otlp_grpc().to_owned();
        let key = format!("Bearer {}", bed.server.workspace_key());
        let authorization = HeaderValue::try_from(key).expect("a header value");
        let message = messages(Payload::A, 10, 1).remove(0);
        let kept = Client::connect(&endpoint, 1).await;
        let shipper = {
            let (stop, authorization, message) = (Arc::clone(&stop), authorization.clone(), message.clone());
            tokio::spawn(async move {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    seen.request(&kept, &authorization, &message, Instant::now()).await;
                    tokio::time::sleep(PACE).await;
                }
                seen
            })
        };
        let newcomers = {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let client = Client::connect(&endpoint, 1).await;
                    seen.request(&client, &authorization, &message, began).await;
                    tokio::time::sleep(PACE).await;
                }
                seen
            })
        };
        Self { stop, clients: vec![("shipper", shipper), ("newcomers", newcomers)] }
    }

    /// Ends them, and says what must have held for them. `phase` is what they were beside.
    pub(super) async fn end(self, bed: &Bed, phase: &str) {
        self.stop.store(true, Ordering::Relaxed);
        for (who, client) in self.clients {
            let seen = client.await.expect("a client does not panic");
            let (p50, p99) = (seen.percentile(0.5), seen.percentile(0.99));
            report(&format!("{phase}: {who}: {} requests, p50 {p50:?}, p99 {p99:?}", seen.took.len()));
            let told = &seen.failed[..seen.failed.len().min(TOLD)];
            bed.require(told.is_empty(), || format!("{phase}: {who}: {} requests failed: {told:?}", seen.failed.len()));
            bed.require(!seen.took.is_empty(), || format!("{phase}: {who}: no request, so nothing was tested"));
            bed.require(p99 <= P99, || format!("{phase}: {who}: a p99 of {p99:?}"));
        }
    }
}
