//! Clients of one cluster that ship and ask, and never give a record up.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_testkit::Server;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::PAUSE;
use crate::lifecycle::request;

/// Shippers of each cluster, and the records of a request.
const SHIPPERS: usize = 2;
const RECORDS: usize = 10;

/// Between two requests of a shipper, two questions, and a refusal and the next attempt.
pub(super) const TURN: Duration = Duration::from_millis(100);

/// What clients have seen.
#[derive(Default)]
pub(super) struct Seen {
    /// When requests were acknowledged.
    pub(super) acknowledged: Vec<Instant>,
    /// When queries were answered.
    pub(super) answered: Vec<Instant>,
    /// Requests that were refused, and sent again.
    pub(super) refused: u64,
}

/// The first of the moments after `from`.
pub(super) fn first_after(moments: &[Instant], from: Instant) -> Option<Instant> {
    moments.iter().copied().find(|moment| *moment > from)
}

/// The longest time without any of the moments from `from` to `to`.
pub(super) fn longest_pause(moments: &[Instant], from: Instant, to: Instant) -> Duration {
    let inner = moments.iter().copied().filter(|moment| (from..to).contains(moment));
    let (longest, last) = inner.fold((Duration::ZERO, from), |(longest, last), moment| {
        (longest.max(moment.saturating_duration_since(last)), moment)
    });
    longest.max(to.saturating_duration_since(last))
}

/// Clients that ship and ask until they are told to stop.
pub(super) struct Clients {
    runtime: Runtime,
    pub(super) seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn of(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let (stop, stopped) = watch::channel(false);
        let seen = Arc::<Mutex<Seen>>::default();
        let key: tonic::metadata::MetadataValue<_> =
            format!("Bearer {}", server.workspace_key()).parse().expect("a header value");
        let mut tasks = Vec::new();
        for shipper in 0..SHIPPERS {
            let endpoint = Channel::from_shared(server.otlp_grpc().to_owned()).expect("a URL");
            let (seen, stopped, key) = (Arc::clone(&seen), stopped.clone(), key.clone());
            tasks.push(runtime.spawn(async move {
                let mut client = LogsServiceClient::new(endpoint.connect_lazy());
                for number in 0_u64.. {
                    let bodies: Vec<_> = (0..RECORDS).map(|record| format!("{shipper} {number} {record}")).collect();
                    let message = request(&bodies.iter().map(String::as_str).collect::<Vec<_>>());
                    // What is refused is sent again until it is taken, also after the stop.
                    loop {
                        let mut call = tonic::Request::new(message.clone());
                        call.metadata_mut().insert("authorization", key.clone());
                        match client.export(call).await {
                            Ok(_) => break,
                            Err(status) => {
                                assert_eq!(
                                    status.code(),
                                    Code::Unavailable,
                                    "a stock client drops its records: {status}"
                                );
                                lock(&seen).refused += 1;
                                sleep(TURN).await;
                            }
                        }
                    }
                    lock(&seen).acknowledged.push(Instant::now());
                    if *stopped.borrow() {
                        return;
                    }
                    sleep(TURN).await;
                }
            }));
        }
        let (url, token) = (query_url(server), server.credential("/managementToken").to_owned());
        let in_task = Arc::clone(&seen);
        tasks.push(runtime.spawn(async move {
            let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
            while !*stopped.borrow() {
                let body = json!({"query": "SELECT count(*) FROM logs"}).to_string();
                let question = Request::post(&url).header("authorization", format!("Bearer {token}"));
                let question = question.body(Full::new(Bytes::from(body))).expect("a request");
                let asked = timeout(PAUSE, async {
                    let answer = http.request(question).await.expect("the management API listens");
                    let status = answer.status();
                    answer.into_body().collect().await.expect("a whole body");
                    status
                });
                if asked.await.is_ok_and(|status| status.is_success()) {
                    lock(&in_task).answered.push(Instant::now());
                }
                sleep(TURN).await;
            }
        }));
        Self { runtime, seen, stop, tasks }
    }

    /// Waits until `holds` of what was seen, as long as `limit`.
    pub(super) fn until(&self, what: &str, limit: Duration, holds: impl Fn(&Seen) -> bool) {
        let started = Instant::now();
        while !holds(&lock(&self.seen)) {
            assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client gave up");
            thread::sleep(TURN);
        }
    }

    /// What was seen at the end, and how many records were acknowledged.
    pub(super) fn end(self) -> (Seen, usize) {
        self.stop.send(true).expect("clients listen");
        for task in self.tasks {
            self.runtime.block_on(task).expect("no client gave up");
        }
        let seen = std::mem::take(&mut *lock(&self.seen));
        let records = seen.acknowledged.len() * RECORDS;
        (seen, records)
    }
}

pub(super) fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no client panicked in it")
}

fn query_url(server: &Server) -> String {
    let (endpoint, workspace) = (server.credential("/endpoints/management"), server.credential("/workspaceId"));
    format!("{endpoint}/v1/workspaces/{workspace}/query")
}
