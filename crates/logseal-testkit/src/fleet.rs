//! Shippers that keep ledgers: threads that send numbered records, one request in flight each, and never give one up.
//!
//! Without an OK a shipper sends the same records again, as another attempt: to the server's next life, or to the same
//! one after the pause that it asked for. That is what OTLP asks of clients, and what the promise to lose nothing rests
//! on.

use std::error::Error as _;
use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use prost::Message;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::Server;
use crate::ledger::{Attempt, Ledger};
use crate::record::{self, AttemptId, Record, SeededRandom};

/// Pause before a broken connection is tried again, unless the server's next life is announced before.
const RECONNECT: Duration = Duration::from_millis(200);

/// Longest wait for an answer. Longer than the server may hold a call.
const ANSWER: Duration = Duration::from_secs(30);

/// How long after [`Fleet::finish`] the requests under way may take to be acknowledged.
const FINISH: Duration = Duration::from_secs(60);

/// Records of one shipper in one life of the server, after which it sends small requests only: it keeps the server
/// busy, and the final comparison affordable.
const RECORDS_A_LIFE: u32 = 2_000;

/// Violations that are told; more would only repeat them.
const VIOLATIONS: usize = 20;

/// Running shippers.
#[derive(Debug)]
pub struct Fleet {
    seed: u64,
    folder: PathBuf,
    orders: watch::Sender<Orders>,
    progress: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all shippers together have seen so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Records sent, each time counted.
    pub sent_records: u64,
    /// Records acknowledged, and in the ledgers.
    pub acknowledged_records: u64,
    /// Requests acknowledged, and in the ledgers.
    pub acknowledged_requests: u64,
    /// Requests that the server refused for the moment.
    pub refusals: u64,
    /// Sendings whose connection broke.
    pub broken: u64,
    /// Answers that a server must not give: stock clients would drop the records, or come back without a pause.
    pub violations: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn violation(&self, what: String) {
        self.update(|progress| {
            if progress.violations.len() < VIOLATIONS {
                progress.violations.push(what);
            }
        });
    }
}

/// Where to send, and whether to end.
#[derive(Clone, Debug, Default)]
struct Orders {
    target: Option<Target>,
    /// When to give up, once no new request is to be begun.
    finish_by: Option<Instant>,
}

#[derive(Clone)]
struct Target {
    /// Which life of the server this is.
    life: u64,
    endpoint: String,
    authorization: tonic::metadata::AsciiMetadataValue,
}

impl Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("life", &self.life).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Starts `shippers` threads that keep their ledgers in `folder`, which exists. They wait until there is a server.
    ///
    /// # Panics
    ///
    /// When a ledger cannot be made.
    #[must_use]
    pub fn start(seed: u64, shippers: u32, folder: &Path) -> Self {
        let (orders, receiver) = watch::channel(Orders::default());
        let progress = Arc::new(Shared::default());
        let start = |shipper| {
            let mut shipper = Shipper {
                seed,
                number: shipper,
                ledger: Ledger::create(folder, shipper).expect("the test's folder is writable"),
                orders: receiver.clone(),
                progress: Arc::clone(&progress),
                connection: None,
                sent_in_this_life: 0,
            };
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(shipper.run()).expect("the ledger is writable");
            })
        };
        let threads = (0..shippers).map(start).collect();
        Self { seed, folder: folder.into(), orders, progress, threads }
    }

    /// Sends the shippers to `server`, which is ready: its first life or the next.
    ///
    /// # Panics
    ///
    /// When the server's key is not printable.
    pub fn aim(&self, server: &Server) {
        let authorization = format!("Bearer {}", server.workspace_key()).parse().expect("a header value");
        self.orders.send_modify(|orders| {
            let life = orders.target.as_ref().map_or(0, |target| target.life) + 1;
            orders.target = Some(Target { life, endpoint: server.otlp_grpc().to_owned(), authorization });
        });
    }

    /// What the shippers have seen so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Waits until `reached` is true, at most for `limit`. Returns whether it is.
    pub fn wait_until(&self, limit: Duration, mut reached: impl FnMut(&Progress) -> bool) -> bool {
        let waiting = self.progress.changed.wait_timeout_while(self.progress.lock(), limit, |seen| !reached(seen));
        !waiting.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lets each shipper bring its request in, ends them, and reads their ledgers.
    ///
    /// # Panics
    ///
    /// When a shipper could not write its ledger, or a ledger cannot be read.
    #[must_use]
    pub fn finish(self) -> (Progress, Vec<Attempt>) {
        self.orders.send_modify(|orders| orders.finish_by = Some(Instant::now() + FINISH));
        let shippers = self.threads.len() as u32;
        for thread in self.threads {
            thread.join().expect("the shipper's own panic says what is wrong");
        }
        let read = |shipper| Ledger::read(&self.folder, shipper).expect("a ledger as it was written");
        let ledger: Vec<_> = (0..shippers).flat_map(read).collect();
        let progress = self.progress.lock().clone();
        let noted: usize = ledger.iter().filter_map(|attempt| attempt.acknowledged.as_ref().map(Vec::len)).sum();
        assert_eq!(
            noted as u64, progress.acknowledged_records,
            "seed {}: the ledgers have all that was counted",
            self.seed
        );
        (progress, ledger)
    }
}

struct Shipper {
    seed: u64,
    number: u32,
    ledger: Ledger,
    orders: watch::Receiver<Orders>,
    progress: Arc<Shared>,
    connection: Option<(Target, LogsServiceClient<Channel>)>,
    sent_in_this_life: u32,
}

/// What became of one sending.
enum Outcome {
    Acknowledged,
    /// Sent in vain; worth another try after the pause.
    Again(Duration),
}

impl Shipper {
    async fn run(&mut self) -> io::Result<()> {
        for number in 0_u32.. {
            if self.orders.borrow().finish_by.is_some() {
                break;
            }
            let size = self.size(number);
            for attempt in 0.. {
                let id = AttemptId { shipper: self.number, request: number, attempt };
                match self.send(id, size).await? {
                    None => return Ok(()),
                    Some(Outcome::Acknowledged) => break,
                    Some(Outcome::Again(pause)) => self.pause(pause).await,
                }
            }
        }
        Ok(())
    }

    /// How many records a request has. Requests of one to ten are the most frequent, as in practice.
    fn size(&self, request: u32) -> u32 {
        let mut random = SeededRandom::new(self.seed, &[self.number.into(), request.into(), u64::MAX]);
        let most = match random.between(0, 99) {
            _ if self.sent_in_this_life > RECORDS_A_LIFE => 3,
            0..60 => 10,
            60..90 => 100,
            _ => 500,
        };
        random.between(1, most) as u32
    }

    /// Sends one request, once there is a connection. Nothing when the fleet is to end and that takes too long.
    async fn send(&mut self, id: AttemptId, size: u32) -> io::Result<Option<Outcome>> {
        let Some((authorization, mut client)) = self.connect(id).await else { return Ok(None) };
        let records = record::records(self.seed, id, size);
        let mut request = Request::new(record::request(id, &records));
        request.metadata_mut().insert("authorization", authorization);
        self.ledger.sent(id, size)?;
        self.sent_in_this_life += size;
        self.progress.update(|progress| progress.sent_records += u64::from(size));
        let answer = export(&mut client, request).await;
        let outcome = match answer {
            Ok(response) => {
                if let Some(partial) = response.partial_success.as_ref().filter(|some| some.rejected_log_records != 0) {
                    self.progress.violation(format!("{id:?}: good records were rejected: {partial:?}"));
                }
                let hashes: Vec<_> = records.iter().map(Record::hash).collect();
                self.ledger.acknowledged(id, &hashes)?;
                self.progress.update(|progress| {
                    progress.acknowledged_records += u64::from(size);
                    progress.acknowledged_requests += 1;
                });
                Outcome::Acknowledged
            }
            Err(Unanswered::Broken) => {
                self.connection = None;
                self.progress.update(|progress| progress.broken += 1);
                Outcome::Again(RECONNECT)
            }
            Err(Unanswered::Late) => {
                self.connection = None;
                self.progress.violation(format!("{id:?}: no answer within {ANSWER:?}"));
                Outcome::Again(RECONNECT)
            }
            Err(Unanswered::Refused(status)) => Outcome::Again(self.refused(id, &status)),
        };
        Ok(Some(outcome))
    }

    /// Takes note of a refusal, and returns the pause that it asks for.
    fn refused(&self, id: AttemptId, status: &Status) -> Duration {
        let pause = retry_pause(status);
        // What the OTLP specification (v1.11.0) lets a client send again. Refusals of ours have to say when.
        let passing = matches!(
            status.code(),
            Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::DataLoss
        );
        match (status.code(), pause) {
            (Code::Unavailable, Some(_)) => self.progress.update(|progress| progress.refusals += 1),
            _ if passing => self.progress.update(|progress| progress.refusals += 1),
            _ => self.progress.violation(format!("{id:?}: refused without a way back: {status:?}")),
        }
        pause.unwrap_or(RECONNECT)
    }

    /// A connection to the present life of the server. Nothing when the fleet is to end and there is none for too long.
    async fn connect(
        &mut self,
        id: AttemptId,
    ) -> Option<(tonic::metadata::AsciiMetadataValue, LogsServiceClient<Channel>)> {
        loop {
            let Orders { target, finish_by } = self.orders.borrow_and_update().clone();
            if finish_by.is_some_and(|end| end < Instant::now()) {
                self.progress.violation(format!("{id:?}: not acknowledged within {FINISH:?} after the last kill"));
                return None;
            }
            match (target, &self.connection) {
                (Some(target), Some((connected, client))) if connected.life == target.life => {
                    return Some((target.authorization, client.clone()));
                }
                (Some(target), _) => {
                    let endpoint = Channel::from_shared(target.endpoint.clone()).expect("the server's own URL");
                    if let Ok(channel) = endpoint.connect().await {
                        let is_new =
                            self.connection.as_ref().is_none_or(|(connected, _)| connected.life != target.life);
                        if is_new {
                            self.sent_in_this_life = 0;
                        }
                        self.connection = Some((target, LogsServiceClient::new(channel)));
                    } else {
                        self.pause(RECONNECT).await;
                    }
                }
                (None, _) => self.orders.changed().await.ok()?,
            }
        }
    }

    /// Waits for `pause` or for new orders.
    async fn pause(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.orders.changed()).await;
    }
}

/// Why there is no acknowledgement.
enum Unanswered {
    /// The server said so.
    Refused(Status),
    Broken,
    Late,
}

async fn export(
    client: &mut LogsServiceClient<Channel>,
    request: Request<ExportLogsServiceRequest>,
) -> Result<ExportLogsServiceResponse, Unanswered> {
    match tokio::time::timeout(ANSWER, client.export(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        // A status that the client made up has the connection's error as its source; one from the wire has none.
        Ok(Err(status)) if status.source().is_some() => Err(Unanswered::Broken),
        Ok(Err(status)) => Err(Unanswered::Refused(status)),
        Err(_) => Err(Unanswered::Late),
    }
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The pause that a refusal asks for, if it says so in both places where clients look.
#[must_use]
pub fn retry_pause(status: &Status) -> Option<Duration> {
    let needle = b"google.rpc.RetryInfo";
    let in_details = status.details().windows(needle.len()).any(|window| window == needle);
    let trailer = status.metadata().get_bin("google.rpc.retryinfo-bin")?.to_bytes().ok()?;
    let delay = RetryInfo::decode(trailer).ok()?.delay.filter(|_| in_details)?;
    Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use tonic::metadata::{MetadataMap, MetadataValue};

    use super::*;

    /// Scenario: refusals that say when to come back in both places, in one, in none. Guarantee: only both count, since
    /// stock clients look in one or the other.
    #[test]
    fn a_pause_counts_only_if_every_client_finds_it() {
        let info = RetryInfo { delay: Some(RetryDelay { seconds: 1, nanos: 500_000_000 }) }.encode_to_vec();
        let check = |details: &'static [u8], trailer: Option<&[u8]>, expect: Option<Duration>| {
            let mut metadata = MetadataMap::new();
            if let Some(trailer) = trailer {
                metadata.insert_bin("google.rpc.retryinfo-bin", MetadataValue::from_bytes(trailer));
            }
            let status = Status::with_details_and_metadata(Code::Unavailable, "busy", details.into(), metadata);
            assert_eq!(retry_pause(&status), expect, "{status:?}");
        };
        let details = b"type.googleapis.com/google.rpc.RetryInfo";
        check(details, Some(&info), Some(Duration::from_millis(1_500)));
        check(details, None, None);
        check(b"", Some(&info), None);
        check(details, Some(b""), None);
        check(b"", None, None);
    }
}
