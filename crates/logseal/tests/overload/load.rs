//! Load: clients that resend what is refused until it is accepted, in closed loops or at an open pace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use logseal_testkit::fleet::retry_pause;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::client::{Client, Message, Unanswered};
use crate::tenants::Workspace;

/// How long a request is sent again. Twice what is asserted, so that a failure is measured, and none hangs.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Pause after an answer that names none.
const PAUSE: Duration = Duration::from_millis(200);

/// Violations that are told; more would only repeat them.
const VIOLATIONS: usize = 10;

/// A workspace with what its shippers know.
pub(crate) struct Tenant {
    pub(crate) name: String,
    authorization: HeaderValue,
    /// Records.
    acknowledged: AtomicU64,
    /// Records sent without an answer: the server may have them or not.
    unanswered: AtomicU64,
    /// Requests that were acknowledged.
    answers: AtomicU64,
}

impl Tenant {
    pub(crate) fn new(workspace: Workspace) -> Self {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", workspace.key)).expect("a header value");
        authorization.set_sensitive(true);
        Self {
            name: workspace.name,
            authorization,
            acknowledged: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        }
    }

    /// Records that must be there, and records that may be there beside them.
    pub(crate) fn must_and_may(&self) -> (u64, u64) {
        (self.acknowledged.load(Ordering::Relaxed), self.unanswered.load(Ordering::Relaxed))
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

/// What one phase of load has seen so far; all in records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// What shippers wanted to send, each record once.
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    /// Each time that it was refused.
    pub(crate) refused: u64,
    /// Offered, and dropped by the shipper because its queue was full.
    pub(crate) dropped: u64,
}

/// What does not happen often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) violations: Vec<String>,
    /// From the first refusal to the acknowledgement, or until the request was given up.
    pub(crate) resent: Vec<Duration>,
    pub(crate) last_refusal: Option<Instant>,
    pub(crate) first_acknowledgement: Option<Instant>,
}

/// Counters of one phase.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    offered: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    notes: Mutex<Notes>,
}

impl Phase {
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            offered: self.offered.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violation(&self, what: String) {
        let mut notes = self.notes();
        if notes.violations.len() < VIOLATIONS {
            notes.violations.push(what);
        }
    }
}

/// How a phase ended.
pub(crate) struct Ran {
    pub(crate) phase: Arc<Phase>,
    pub(crate) began: Instant,
    /// Records accepted a second, until no new request was begun.
    pub(crate) accepted_per_s: f64,
    /// Requests that are still being resent.
    under_way: JoinSet<()>,
}

impl Ran {
    /// Waits until every request was accepted or given up.
    pub(crate) async fn finished(mut self) -> Arc<Phase> {
        while let Some(ended) = self.under_way.join_next().await {
            ended.expect("a client does not panic");
        }
        self.phase
    }
}

/// Everybody who ships.
pub(crate) struct Load {
    client: Client,
    pub(crate) tenants: Vec<Tenant>,
    phases: Mutex<Vec<Arc<Phase>>>,
}

/// Clients of one tenant that wait for each answer before they send the next request.
#[derive(Clone, Copy)]
pub(crate) struct Closed<'m> {
    /// Indices of the tenants, each with `clients` clients.
    pub(crate) first_tenant: usize,
    pub(crate) tenants: usize,
    pub(crate) clients: usize,
    pub(crate) messages: &'m [Message],
}

impl Load {
    pub(crate) fn new(client: Client, tenants: Vec<Tenant>) -> Self {
        Self { client, tenants, phases: Mutex::default() }
    }

    /// The sums over all phases.
    pub(crate) fn seen(&self) -> Seen {
        let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.iter().map(|phase| phase.seen()).fold(Seen::default(), |sum, seen| Seen {
            offered: sum.offered + seen.offered,
            accepted: sum.accepted + seen.accepted,
            refused: sum.refused + seen.refused,
            dropped: sum.dropped + seen.dropped,
        })
    }

    fn begin(&self) -> Arc<Phase> {
        let phase = Arc::new(Phase::default());
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&phase));
        phase
    }

    /// Closed loops that begin requests for `length`.
    pub(crate) async fn closed(self: &Arc<Self>, groups: &[Closed<'_>], length: Duration) -> Ran {
        let phase = self.begin();
        let began = Instant::now();
        let end = began + length;
        let mut under_way = JoinSet::new();
        for group in groups {
            for number in 0..group.tenants * group.clients {
                let tenant = group.first_tenant + number % group.tenants;
                let (load, phase) = (Arc::clone(self), Arc::clone(&phase));
                // Bytes are shared; a client's own list only says where it begins.
                let mut messages = group.messages.to_vec();
                messages.rotate_left(number % group.messages.len());
                under_way.spawn(async move {
                    for message in messages.iter().cycle() {
                        if Instant::now() >= end {
                            break;
                        }
                        load.deliver(&phase, tenant, message).await;
                    }
                });
            }
        }
        tokio::time::sleep_until(end.into()).await;
        Self::ran(phase, began, under_way)
    }

    /// An open pace of `rate` records a second for the first tenant, with at most `in_flight` requests under way: what
    /// finds no place is dropped.
    pub(crate) async fn open(
        self: &Arc<Self>,
        messages: &[Message],
        rate: f64,
        in_flight: usize,
        length: Duration,
    ) -> Ran {
        let phase = self.begin();
        let began = Instant::now();
        let places = Arc::new(Semaphore::new(in_flight));
        let mut under_way = JoinSet::new();
        let mut due = Duration::ZERO;
        for message in messages.iter().cycle() {
            if due >= length {
                break;
            }
            if began.elapsed() < due {
                tokio::time::sleep_until((began + due).into()).await;
            }
            due += Duration::from_secs_f64(message.records as f64 / rate);
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                phase.offered.fetch_add(message.records, Ordering::Relaxed);
                phase.dropped.fetch_add(message.records, Ordering::Relaxed);
                continue;
            };
            let (load, phase, message) = (Arc::clone(self), Arc::clone(&phase), message.clone());
            under_way.spawn(async move {
                load.deliver(&phase, 0, &message).await;
                drop(place);
            });
            while under_way.try_join_next().is_some() {}
        }
        tokio::time::sleep_until((began + length).into()).await;
        Self::ran(phase, began, under_way)
    }

    fn ran(phase: Arc<Phase>, began: Instant, under_way: JoinSet<()>) -> Ran {
        let accepted_per_s = phase.seen().accepted as f64 / began.elapsed().as_secs_f64();
        Ran { phase, began, accepted_per_s, under_way }
    }

    /// Sends a request until it is accepted.
    async fn deliver(&self, phase: &Phase, tenant: usize, message: &Message) {
        let tenant = &self.tenants[tenant];
        phase.offered.fetch_add(message.records, Ordering::Relaxed);
        let (began, mut first_refusal) = (Instant::now(), None::<Instant>);
        while began.elapsed() < GIVE_UP {
            let pause = match self.client.export(&tenant.authorization, message).await {
                Ok(rejected) => {
                    if rejected > 0 {
                        phase.violation(format!("{rejected} good records were rejected"));
                    }
                    phase.accepted.fetch_add(message.records, Ordering::Relaxed);
                    tenant.acknowledged.fetch_add(message.records - rejected, Ordering::Relaxed);
                    tenant.answers.fetch_add(1, Ordering::Relaxed);
                    let mut notes = phase.notes();
                    notes.first_acknowledgement.get_or_insert_with(Instant::now);
                    notes.resent.extend(first_refusal.map(|refusal| refusal.elapsed()));
                    return;
                }
                Err(Unanswered::Refused(status)) => {
                    phase.refused.fetch_add(message.records, Ordering::Relaxed);
                    phase.notes().last_refusal = Some(Instant::now());
                    first_refusal.get_or_insert_with(Instant::now);
                    pause_of(&status).unwrap_or_else(|| {
                        phase.violation(format!("refused without a way back: {status:?}"));
                        PAUSE
                    })
                }
                Err(Unanswered::Lost(why)) => {
                    tenant.unanswered.fetch_add(message.records, Ordering::Relaxed);
                    phase.violation(format!("no answer: {why}"));
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
        phase.notes().resent.push(began.elapsed());
    }
}

/// When to come back, if the refusal is one on which every client does.
fn pause_of(status: &Status) -> Option<Duration> {
    retry_pause(status).filter(|_| status.code() == Code::Unavailable)
}
