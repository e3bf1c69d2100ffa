//! The load driver: keeps requests in flight and measures until the last acknowledgement.
//!
//! Without a rate it is a closed loop: a worker sends its next request when the previous one was answered, so a slow
//! server is offered less, and latencies hold only for the configured number in flight.
//!
//! With a rate the pace is open: each request has a time at which it is due, and a worker that is free waits for the
//! next one's. When none is free in time, the request starts late, and its latency counts from when it was due: were it
//! counted from the start, a server that stalls would be measured only by the few requests that it let begin
//! (*coordinated omission*).
//!
//! Each worker counts by itself; the counts are added up at the end, so that workers share nothing but the next
//! request's number.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tokio::task::{JoinSet, spawn_blocking};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::codec::RawCodec;
use crate::latency::Histogram;
use crate::plan::{Order, Plan};
use crate::retry::{told_wait, wait_before_resend};
use crate::{BenchError, BenchSettings, LatencyMs, Report, ServerProbe};

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A request that starts this much after its time is late. Well above what timers and a busy machine take.
const LATE: Duration = Duration::from_millis(10);

/// Sends the records that `settings` describe and reports what became of them.
///
/// Failing requests do not end the run: they are counted. With `server`, its CPU time is read before the first request
/// and again when the probe says that it is drained.
///
/// # Errors
///
/// When the settings make no sense or no connection can be made.
pub async fn run(settings: BenchSettings, server: Option<ServerProbe>) -> Result<Report, BenchError> {
    settings.validate()?;
    let settings = Arc::new(settings);
    let plan = {
        let settings = Arc::clone(&settings);
        Arc::new(spawn_blocking(move || Plan::encode(&settings)).await?)
    };
    let channels = connect(&settings).await?;

    let cpu_before = server.as_ref().and_then(ServerProbe::cpu_seconds);
    let started = Instant::now();
    let mut workers = JoinSet::new();
    // Idle workers would only cost memory.
    let wanted = usize::try_from(plan.requests()).unwrap_or(usize::MAX);
    for _ in 0..settings.in_flight {
        for channel in &channels {
            if workers.len() < wanted {
                let mut grpc = Grpc::new(channel.clone());
                if let Some(compression) = settings.compression {
                    grpc = grpc.send_compressed(compression);
                }
                let worker = Worker {
                    grpc,
                    plan: Arc::clone(&plan),
                    settings: Arc::clone(&settings),
                    started,
                    tally: Tally::default(),
                };
                workers.spawn(worker.work());
            }
        }
    }
    let mut total = Tally::default();
    while let Some(tally) = workers.join_next().await {
        total.add(tally?);
    }
    let ended = total.last_acknowledgement.unwrap_or_else(Instant::now);
    let mut report = total.report(&settings, ended.duration_since(started));
    if let Some(server) = server {
        look_at(server, cpu_before, &mut report).await;
    }
    Ok(report)
}

async fn connect(settings: &BenchSettings) -> Result<Vec<Channel>, BenchError> {
    let endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .map_err(|source| BenchError::InvalidEndpoint { endpoint: settings.endpoint.clone(), source })?
        .connect_timeout(Duration::from_secs(10))
        .timeout(settings.call_timeout)
        .tcp_nodelay(true);
    let mut channels = Vec::with_capacity(settings.connections);
    for _ in 0..settings.connections {
        let channel = match &settings.connector {
            Some(connector) => endpoint.connect_with_connector(connector.clone()).await,
            None => endpoint.connect().await,
        };
        let endpoint = || settings.endpoint.clone();
        channels.push(channel.map_err(|source| BenchError::Connect { endpoint: endpoint(), source })?);
    }
    Ok(channels)
}

/// Fills in the report's fields about the server.
async fn look_at(mut server: ServerProbe, cpu_before: Option<f64>, report: &mut Report) {
    if let Err(error) = server.drained().await {
        // Without that the CPU time would leave out work of the run: better no number than a flattering one.
        report.server_note = Some(format!("no CPU time, the server was not seen drained: {error}"));
    } else if let (Some(before), Some(after)) = (cpu_before, server.cpu_seconds()) {
        let cpu = after - before;
        report.server_cpu_s = Some(cpu);
        report.records_per_cpu_s = (cpu > 0.0).then(|| report.records_acked as f64 / cpu);
    } else {
        report.server_note = Some("no CPU time, the server's process cannot be read".to_owned());
    }
    report.server_peak_rss_bytes = server.peak_rss_bytes();
}

/// One request in flight.
struct Worker {
    grpc: Grpc<Channel>,
    plan: Arc<Plan>,
    settings: Arc<BenchSettings>,
    /// When the run began.
    started: Instant,
    tally: Tally,
}

impl Worker {
    async fn work(mut self) -> Tally {
        let may_begin =
            |worker: &Self| worker.settings.stop_after.is_none_or(|stop_after| worker.started.elapsed() < stop_after);
        while may_begin(&self)
            && let Some(order) = self.plan.take()
        {
            let start = self.wait_until(order.due).await;
            self.deliver(order, start).await;
        }
        self.tally
    }

    /// Waits until a request is due, and returns the time from which on its latency counts.
    async fn wait_until(&mut self, due: Option<Duration>) -> Instant {
        let Some(due) = due else { return Instant::now() };
        let due = self.started + due;
        tokio::time::sleep_until(due.into()).await;
        if due.elapsed() > LATE {
            self.tally.late += 1;
        }
        due
    }

    /// Sends one request until it is acknowledged or given up.
    async fn deliver(&mut self, order: Order, start: Instant) {
        let Order { index, body, records, .. } = order;
        let first_attempt = Instant::now();
        let mut first_refusal = None;
        for attempt in 0.. {
            let status = match self.call(index, body.clone()).await {
                Ok(answer) => {
                    self.tally.acknowledged(&answer, body.len(), records, start, first_refusal);
                    return;
                }
                Err(status) => status,
            };
            if is_refusal(&status) {
                first_refusal.get_or_insert_with(Instant::now);
                self.tally.refused_without_retry_info += u64::from(told_wait(&status).is_none());
            }
            let wait = wait_before_resend(&status, attempt, self.settings.longest_wait)
                .filter(|wait| first_attempt.elapsed() + *wait <= self.settings.retry_for);
            let Some(wait) = wait else {
                self.tally.failed(&status);
                return;
            };
            self.tally.retried += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn call(&mut self, index: u64, body: Bytes) -> Result<Bytes, Status> {
        // The channel is not ready while it reconnects: as good as an unreachable server.
        self.grpc.ready().await.map_err(|error| {
            let mut status = Status::unavailable(error.to_string());
            status.set_source(Arc::new(error));
            status
        })?;
        let mut request = Request::new(body);
        request.metadata_mut().insert("authorization", self.settings.authorization(index).clone());
        let answer = self.grpc.unary(request, PathAndQuery::from_static(EXPORT), RawCodec).await?;
        Ok(answer.into_inner())
    }
}

/// Whether the server refused the request for now. A status that this process made up, of a broken connection for
/// instance, has its cause as a source; one that came over the wire has none.
fn is_refusal(status: &Status) -> bool {
    status.source().is_none() && matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
}

/// What became of a worker's requests.
#[derive(Debug, Default)]
struct Tally {
    records: u64,
    bytes: u64,
    rejected: u64,
    retried: u64,
    late: u64,
    refused_without_retry_info: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram,
    /// From the first refusal on; made when there is one.
    resent: Option<Histogram>,
    last_acknowledgement: Option<Instant>,
}

impl Tally {
    fn acknowledged(
        &mut self,
        answer: &Bytes,
        bytes: usize,
        records: u64,
        start: Instant,
        first_refusal: Option<Instant>,
    ) {
        let now = Instant::now();
        self.latency.record(now.duration_since(start));
        if let Some(refusal) = first_refusal {
            self.resent.get_or_insert_default().record(now.duration_since(refusal));
        }
        self.last_acknowledgement = Some(now);
        let rejected = rejected_in(answer).min(records);
        self.rejected += rejected;
        self.records += records - rejected;
        self.bytes += bytes as u64;
    }

    fn failed(&mut self, status: &Status) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(format!("{:?}: {}", status.code(), status.message()));
        }
    }

    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.rejected += other.rejected;
        self.retried += other.retried;
        self.late += other.late;
        self.refused_without_retry_info += other.refused_without_retry_info;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.merge(&other.latency);
        if let Some(resent) = &other.resent {
            self.resent.get_or_insert_default().merge(resent);
        }
        self.last_acknowledgement = self.last_acknowledgement.max(other.last_acknowledgement);
    }

    fn report(self, settings: &BenchSettings, elapsed: Duration) -> Report {
        let seconds = elapsed.as_secs_f64();
        let rate = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        Report {
            payload: settings.payload.as_str(),
            batch: settings.batch,
            connections: settings.connections,
            in_flight: settings.in_flight,
            rate: settings.rate,
            late: settings.rate.map(|_| self.late),
            records_acked: self.records,
            seconds,
            records_per_s: rate(self.records),
            bytes_per_s: rate(self.bytes),
            latency_ms: LatencyMs::from(&self.latency),
            rejected: self.rejected,
            retried: self.retried,
            resent_accepted_p99_ms: self.resent.map(|resent| resent.percentile(99.0) as f64 / 1e3),
            refused_without_retry_info: self.refused_without_retry_info,
            errors: self.errors,
            first_error: self.first_error,
            server_cpu_s: None,
            records_per_cpu_s: None,
            server_peak_rss_bytes: None,
            server_note: None,
        }
    }
}

/// Records refused by partial success. An answer that is no `ExportLogsServiceResponse` was an acknowledgement all the
/// same: its status was OK.
fn rejected_in(answer: &Bytes) -> u64 {
    if answer.is_empty() {
        return 0;
    }
    let response = ExportLogsServiceResponse::decode(answer.as_ref()).unwrap_or_default();
    response.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_log_records).unwrap_or(0))
}

#[cfg(test)]
mod tests;
