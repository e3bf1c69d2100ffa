//! The driver against a scripted server: every counter of the report, one scenario at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use logseal_core::UnixNanos;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest};
use tokio::sync::Barrier;
use tonic::Response;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::Payload;
use crate::retry::tests::with_retry_info;

type Answer = Result<Bytes, Status>;

const HOLD: Duration = Duration::from_millis(30);

/// Answers from a script, then OK; keeps what it received.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<State>);

#[derive(Debug, Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    received: Mutex<Vec<Bytes>>,
    arrivals: Mutex<Vec<Instant>>,
    authorizations: Mutex<Vec<String>>,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    /// Answers leave only in groups of this many.
    group: Option<Barrier>,
    /// How long each answer takes.
    hold: Duration,
}

impl NamedService for Scripted {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<http::Request<Body>> for Scripted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(RawCodec).unary(handler, request).await) })
    }
}

impl UnaryService<Bytes> for Scripted {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let waiting = state.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            state.most_waiting.fetch_max(waiting, Ordering::SeqCst);
            state.arrivals.lock().expect("no panic").push(Instant::now());
            let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
            state.authorizations.lock().expect("no panic").push(header.to_owned());
            let answer = state.script.lock().expect("no panic").pop_front().unwrap_or(Ok(Bytes::new()));
            if answer.is_ok() {
                state.received.lock().expect("no panic").push(request.into_inner());
            }
            if let Some(group) = &state.group {
                group.wait().await;
            }
            tokio::time::sleep(state.hold).await;
            state.waiting.fetch_sub(1, Ordering::SeqCst);
            answer.map(Response::new)
        })
    }
}

/// A server that answers from `script`, and settings for 100 records in 10 requests, one at a time.
async fn scripted(script: Vec<Answer>) -> (Scripted, BenchSettings) {
    serving(State { script: Mutex::new(script.into()), hold: HOLD, ..State::default() }).await
}

async fn serving(state: State) -> (Scripted, BenchSettings) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = Scripted(Arc::new(state));
    tokio::spawn(Server::builder().add_service(server.clone()).serve_with_incoming(TcpIncoming::from(listener)));
    let mut settings =
        BenchSettings::new(&format!("http://{address}"), "key", Payload::C, UnixNanos(1)).expect("valid");
    settings.records = 100;
    settings.connections = 1;
    settings.in_flight = 1;
    (server, settings)
}

fn counters(report: &Report) -> (u64, u64, u64, u64) {
    (report.records_acked, report.rejected, report.retried, report.errors)
}

#[tokio::test]
async fn every_record_is_sent_once_with_the_key() {
    let (server, mut settings) = scripted(Vec::new()).await;
    settings.records = 105;
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (105, 0, 0, 0));
    let received = server.0.received.lock().expect("no panic").clone();
    let mut records: Vec<_> = received
        .iter()
        .flat_map(|body| ExportLogsServiceRequest::decode(body.clone()).expect("is OTLP").resource_logs)
        .flat_map(|r| r.scope_logs)
        .flat_map(|s| s.log_records)
        .map(|r| r.body.expect("a body").encode_to_vec())
        .collect();
    records.sort();
    records.dedup();
    assert_eq!((received.len(), records.len()), (11, 105));
    assert!(server.0.authorizations.lock().expect("no panic").iter().all(|a| a == "Bearer key"));
    let bytes: usize = received.iter().map(Bytes::len).sum();
    assert!((report.bytes_per_s * report.seconds - bytes as f64).abs() < 1.0);
    assert!((report.records_per_s * report.seconds - 105.0).abs() < 0.01);
    let latency = report.latency_ms;
    assert!(latency.p50 >= 30.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{latency:?}");
    assert!(report.seconds >= 11.0 * 0.030, "{}", report.seconds);
}

/// Scenario: three workspaces, and a request that has to be sent again. Guarantee: they take turns, and a request stays with its workspace.
#[tokio::test]
async fn workspaces_take_turns() {
    let (server, settings) = scripted(vec![Ok(Bytes::new()), Err(Status::unavailable("later"))]).await;
    let keys = ["x", "y", "z"].map(str::to_owned);
    let report = run(settings.with_workspace_keys(&keys).expect("keys"), None).await.expect("runs");
    assert_eq!(counters(&report), (100, 0, 1, 0));
    let expected = ["x", "y", "y", "z", "x", "y", "z", "x", "y", "z", "x"].map(|key| format!("Bearer {key}"));
    assert_eq!(*server.0.authorizations.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn connections_times_in_flight_requests_wait_at_once() {
    let (server, mut settings) = serving(State { group: Some(Barrier::new(15)), ..State::default() }).await;
    settings.records = 600;
    settings.connections = 3;
    settings.in_flight = 5;
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (600, 0, 0, 0));
    assert_eq!(server.0.most_waiting.load(Ordering::SeqCst), 15);
}

#[tokio::test]
async fn a_busy_server_gets_the_same_request_again_after_the_wait_it_asked_for() {
    let busy = || Err(with_retry_info(Code::Unavailable, prost_types::Duration { seconds: 0, nanos: 80_000_000 }));
    let (server, settings) = scripted(vec![busy(), busy()]).await;
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (100, 0, 2, 0));
    assert_eq!(server.0.received.lock().expect("no panic").len(), 10);
    // The waits belong to the latency that a shipper sees.
    assert!(report.latency_ms.max >= 160.0, "{:?}", report.latency_ms);
    // Two waits and two answers after the first refusal.
    assert!(report.resent_accepted_p99_ms.is_some_and(|millis| millis >= 2.0 * (80.0 + 30.0)), "{report}");
    assert_eq!(report.refused_without_retry_info, 0);
}

#[tokio::test]
async fn refusals_that_do_not_say_when_to_come_back_are_counted_final_or_not() {
    let told = with_retry_info(Code::ResourceExhausted, prost_types::Duration { seconds: 0, nanos: 1 });
    let script = [Status::unavailable("busy"), told, Status::aborted("lost"), Status::resource_exhausted("too large")];
    let (_server, settings) = scripted(script.into_iter().map(Err).collect()).await;
    let report = run(settings, None).await.expect("runs");
    assert_eq!((report.refused_without_retry_info, report.errors), (2, 1), "{report}");
    assert!(report.resent_accepted_p99_ms.is_none(), "the one request that was refused was given up: {report}");
}

#[tokio::test]
async fn at_an_open_pace_no_request_starts_before_it_is_due() {
    let (server, mut settings) = serving(State::default()).await;
    settings.rate = Some(500);
    settings.in_flight = 4;
    let began = Instant::now();
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (100, 0, 0, 0));
    assert_eq!(report.rate, Some(500));
    let arrivals = server.0.arrivals.lock().expect("no panic").clone();
    assert_eq!(arrivals.len(), 10);
    for (number, arrival) in (0..).zip(arrivals) {
        let due = Duration::from_millis(20) * number;
        assert!(arrival - began >= due, "request {number} came after {:?}", arrival - began);
    }
    assert!(report.seconds >= 0.18, "{}", report.seconds);
    // Not all: the test's machine may well be busy for more than 10 ms.
    assert!(report.late.is_some_and(|late| late < 10), "{report}");
}

#[tokio::test]
async fn a_slow_server_cannot_hide_behind_requests_that_it_kept_from_starting() {
    // One call in flight, each takes 30 ms, and every 5 ms one is due: number n waits for 25 n ms before it starts.
    let (server, mut settings) = scripted(Vec::new()).await;
    settings.rate = Some(2_000);
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (100, 0, 0, 0));
    assert!(report.late.is_some_and(|late| late >= 9), "{report}");
    let latency = report.latency_ms;
    assert!(latency.p50 >= 130.0 && latency.max >= 255.0, "{latency:?}");
    assert_eq!(server.0.most_waiting.load(Ordering::SeqCst), 1, "no more calls than allowed");
}

#[tokio::test]
async fn a_request_resent_for_too_long_is_an_error() {
    let (_server, mut settings) = scripted(vec![Err(Status::unavailable("down")); 50]).await;
    settings.records = 10;
    settings.retry_for = Duration::from_millis(400);
    let report = run(settings, None).await.expect("runs");
    let (acked, _, retried, errors) = counters(&report);
    assert!((acked, errors) == (0, 1) && retried >= 1, "{report}");
    assert_eq!(report.first_error.as_deref(), Some("Unavailable: down"));
}

#[tokio::test]
async fn partial_success_counts_the_rejected_records() {
    let partial = ExportLogsPartialSuccess { rejected_log_records: 3, error_message: "too deep".to_owned() };
    let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
    let (_server, settings) = scripted(vec![Ok(answer.encode_to_vec().into())]).await;
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (97, 3, 0, 0));
}

#[tokio::test]
async fn a_final_refusal_is_an_error_and_the_run_goes_on() {
    let script = vec![Err(Status::unauthenticated("wrong key")), Err(Status::resource_exhausted("too large"))];
    let (_server, settings) = scripted(script).await;
    let report = run(settings, None).await.expect("runs");
    assert_eq!(counters(&report), (80, 0, 0, 2));
    assert_eq!(report.first_error.as_deref(), Some("Unauthenticated: wrong key"));
}

#[tokio::test]
async fn a_call_without_an_answer_is_lost_after_the_timeout() {
    let (_server, mut settings) = serving(State { hold: Duration::from_secs(60), ..State::default() }).await;
    settings.records = 10;
    settings.call_timeout = Duration::from_millis(5);
    settings.retry_for = Duration::from_millis(400);
    let report = run(settings, None).await.expect("runs");
    assert_eq!((report.records_acked, report.errors), (0, 1), "{report}");
    assert!(report.retried >= 1);
    assert_eq!(report.refused_without_retry_info, 0, "nobody refused anything");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_servers_cpu_time_is_read_after_it_is_drained() {
    let (_server, settings) = scripted(Vec::new()).await;
    let drained = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&drained);
    let probe = ServerProbe::new(std::process::id()).when_drained(async move {
        flag.store(true, Ordering::SeqCst);
        Ok(())
    });
    let report = run(settings, Some(probe)).await.expect("runs");
    assert!(drained.load(Ordering::SeqCst));
    assert!(report.server_cpu_s.is_some() && report.server_peak_rss_bytes > Some(0), "{report}");
}

#[tokio::test]
async fn a_server_not_seen_drained_has_no_cpu_time() {
    let (_server, settings) = scripted(Vec::new()).await;
    let probe = ServerProbe::new(std::process::id()).when_drained(async { Err("no answer".into()) });
    let report = run(settings, Some(probe)).await.expect("runs");
    assert_eq!((report.records_acked, report.server_cpu_s), (100, None));
    assert!(report.server_note.is_some_and(|note| note.ends_with("no answer")));
}

#[tokio::test]
async fn no_server_and_no_url_are_errors_of_the_run() {
    let settings =
        |endpoint: &str| BenchSettings::new(endpoint, "key", Payload::C, UnixNanos(1)).expect("valid settings");
    let mut nobody = settings("http://127.0.0.1:1");
    nobody.records = 10;
    assert!(matches!(run(nobody, None).await, Err(BenchError::Connect { .. })));
    let mut nonsense = settings("not a url");
    nonsense.records = 10;
    assert!(matches!(run(nonsense, None).await, Err(BenchError::InvalidEndpoint { .. })));
}
