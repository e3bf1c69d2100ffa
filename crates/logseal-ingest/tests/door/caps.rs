//! Daily caps at the door: what is refused, in which words, and what is not.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use logseal_core::{Clock, UnixNanos};
use logseal_ingest::{Accepted, DailyCaps, IntakeError, QuotaStatus};

use crate::harness::{Answer, Client, EXPORT, OTHER_KEY, Script, Server, WORKSPACE, framed, open_body};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
const EVENING: i64 = 20_000 * DAY + 18 * 3_600 * SECOND;
const MIDNIGHT: i64 = 20_001 * DAY;

/// A clock that a test sets.
#[derive(Debug)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(Ordering::SeqCst))
    }
}

impl Hands {
    fn set(&self, at: i64) {
        self.0.store(at, Ordering::SeqCst);
    }
}

struct Capped {
    server: Server,
    caps: Arc<DailyCaps>,
    clock: Arc<Hands>,
    intake: Arc<Script>,
}

/// A server in the evening, whose workspace may send 1,000 bytes a day.
async fn capped(intake: Arc<Script>) -> Capped {
    let clock = Arc::new(Hands(EVENING.into()));
    let caps = Arc::new(DailyCaps::new(Arc::clone(&clock) as _));
    caps.set_cap(WORKSPACE, Some(1_000), 1);
    let server = Server::start_with(Arc::clone(&intake), |_| (), |door| door.with_daily_caps(Arc::clone(&caps))).await;
    Capped { server, caps, clock, intake }
}

/// What a call is answered whose body never comes: it can only be refused.
async fn without_body(client: &mut Client) -> Answer {
    let (_sender, body) = open_body();
    client.call(EXPORT, &[], body).await
}

/// Scenario: a workspace sends 1,001 bytes, compressed to a few, and then more, while another one sends too; midnight comes and passes.
/// Guarantee: the request that begins below the cap is taken whole and counts by its decompressed bytes; later ones are refused before
/// their bodies are read, for good while the reset is five minutes away or more and with a time to come back when it is nearer; after
/// midnight they are taken; the other workspace never notices.
#[tokio::test]
async fn what_comes_after_the_cap_is_refused_until_midnight() {
    let Capped { server, caps, clock, intake } = capped(Script::accept()).await;
    let mut client = server.client().await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&[b'x'; 1_001]).unwrap();
    let whole = framed(true, &gzip.finish().unwrap());
    assert!(client.export(&[("grpc-encoding", "gzip")], whole).await.is_whole());
    assert_eq!((caps.used(WORKSPACE), caps.status(WORKSPACE)), (1_001, QuotaStatus::OverQuota));

    let refused = without_body(&mut client).await;
    assert_eq!(refused.refusal(), (8, false));
    for part in ["cap of 1000 bytes", "1001 bytes were taken", "in 21600 s", "`workspaceCapping.dailyQuotaGb`"] {
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    let other = [("authorization", &*format!("Bearer {OTHER_KEY}"))];
    assert!(client.export(&other, framed(false, &[b'x'; 2_000])).await.is_whole());

    clock.set(MIDNIGHT - 300 * SECOND);
    assert_eq!(without_body(&mut client).await.refusal(), (8, false), "five minutes");
    clock.set(MIDNIGHT - 300 * SECOND + 1);
    let soon = without_body(&mut client).await;
    assert_eq!(soon.refusal(), (14, true), "less than five minutes");
    assert!((1..=5).contains(&soon.retry.expect("checked above").as_secs()), "{soon:?}");
    assert_eq!(intake.taken.load(Ordering::SeqCst), 2, "nothing of what was refused");

    clock.set(MIDNIGHT);
    assert!(client.export(&[], framed(false, b"x")).await.is_whole());
    assert_eq!(caps.used(WORKSPACE), 1);
    server.idle().await;
}

/// Scenario: the cap is reached, and raised. Guarantee: the next request is taken.
#[tokio::test]
async fn a_raised_cap_lets_records_in_at_once() {
    let Capped { server, caps, .. } = capped(Script::accept()).await;
    let mut client = server.client().await;
    assert!(client.export(&[], framed(false, &[b'x'; 1_000])).await.is_whole());
    assert_eq!(without_body(&mut client).await.code, 8);
    caps.set_cap(WORKSPACE, Some(1_001), 2);
    assert!(client.export(&[], framed(false, b"x")).await.is_whole());
    assert_eq!(without_body(&mut client).await.code, 8);
}

/// Scenario: requests are refused by the intake. Guarantee: they do not count, since the client sends them again.
#[tokio::test]
async fn only_acknowledged_requests_count() {
    let intake = Script::new(|request| async move {
        match &request.body[..] {
            b"yes" => Ok(Accepted { accepted: 1, ..Accepted::default() }),
            _ => Err(IntakeError::Unavailable { reason: "no".to_owned(), retry_after: None }),
        }
    });
    let Capped { server, caps, .. } = capped(intake).await;
    let mut client = server.client().await;
    assert_eq!(client.export(&[], framed(false, &[b'x'; 2_000])).await.code, 14);
    assert_eq!(caps.used(WORKSPACE), 0);
    assert!(client.export(&[], framed(false, b"yes")).await.is_whole());
    assert_eq!(caps.used(WORKSPACE), 3);
}
