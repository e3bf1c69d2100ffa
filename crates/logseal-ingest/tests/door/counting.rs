//! The door's metrics, counted by a recorder that belongs to the test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use logseal_core::SystemClock;
use logseal_ingest::{Accepted, DailyCaps, IntakeError, meter};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder,
};

use crate::harness::{OTHER, OTHER_KEY, Script, Server, framed};
use crate::http::{HttpClient, Version};

/// Counters and gauges by name and labels; a histogram is the number of its values.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Tally {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().expect("not poisoned").entry(name).or_default())
    }

    fn count(&self, name: &str) -> u64 {
        self.0.lock().expect("not poisoned").get(name).expect("a known metric").load(Ordering::SeqCst)
    }

    fn level(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

struct Values(Arc<AtomicU64>);

impl HistogramFn for Values {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Tally {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Values(self.cell(key))))
    }
}

/// Scenario: one call of each outcome, and some over HTTP. Guarantee: each is counted once, gauges return to zero, and only acknowledged
/// calls are in the histogram.
#[tokio::test]
async fn every_call_is_counted_once() {
    let intake = Script::new(|request| async move {
        match &request.body[..] {
            b"partial" => Ok(Accepted { accepted: 3, rejected: 2, message: None }),
            b"undecodable" => Err(IntakeError::Undecodable("no".to_owned())),
            b"unavailable" => Err(IntakeError::Unavailable { reason: "no".to_owned(), retry_after: None }),
            b"stay" => std::future::pending().await,
            _ => Ok(Accepted { accepted: 10, ..Accepted::default() }),
        }
    });
    let tally = Tally::default();
    // Handles are made with the door, on this thread, before anything is awaited.
    let server = {
        let caps = Arc::new(DailyCaps::new(Arc::new(SystemClock)));
        caps.set_cap(OTHER, Some(0), 1);
        let change = |s: &mut logseal_ingest::DoorSettings| s.max_request_bytes = 1_000;
        let mut start = Box::pin(Server::start_with(intake, change, |door| door.with_daily_caps(caps)));
        futures::future::poll_fn(|cx| with_local_recorder(&tally, || start.as_mut().poll(cx))).await
    };
    let mut client = server.client().await;
    for body in [&b"whole"[..], b"partial", b"undecodable", b"unavailable", &[b'x'; 1_001]] {
        client.export(&[], framed(false, body)).await;
    }
    client.export(&[("authorization", "")], framed(false, b"whole")).await;
    client.export(&[("authorization", &format!("Bearer {OTHER_KEY}"))], framed(false, b"whole")).await;
    client.export(&[("grpc-encoding", "br")], framed(false, b"whole")).await;
    client.export(&[("grpc-timeout", "20m")], framed(false, b"stay")).await;
    let mut http = HttpClient::connect(&server, Version::One).await;
    assert!(http.post(&[], b"whole".to_vec()).await.is_whole());
    assert_eq!(http.post(&[("content-type", "text/plain")], "").await.status, 415);
    server.idle().await;

    let outcomes = ["accepted", "partial", "invalid", "unavailable", "too_large", "unauthenticated", "unsupported"];
    for outcome in outcomes.into_iter().chain(["daily_cap", "deadline"]) {
        assert_eq!(tally.count(&format!("{}{{protocol=grpc,outcome={outcome}}}", meter::REQUESTS)), 1, "{outcome}");
        let http = u64::from(["accepted", "unsupported"].contains(&outcome));
        assert_eq!(tally.count(&format!("{}{{protocol=http,outcome={outcome}}}", meter::REQUESTS)), http, "{outcome}");
    }
    assert_eq!(tally.count(&format!("{}{{protocol=grpc,outcome=aborted}}", meter::REQUESTS)), 0);
    assert_eq!(tally.count(&format!("{}{{outcome=accepted}}", meter::RECORDS)), 23);
    assert_eq!(tally.count(&format!("{}{{outcome=rejected}}", meter::RECORDS)), 2);
    assert_eq!(tally.count(&format!("{}{{reason=daily_cap}}", meter::REFUSALS)), 1);
    let bytes =
        (2 * b"whole".len() + b"partial".len() + b"undecodable".len() + b"unavailable".len() + b"stay".len()) as u64;
    for state in ["wire", "decompressed"] {
        assert_eq!(tally.count(&format!("{}{{state={state}}}", meter::BYTES)), bytes, "{state}");
    }
    assert_eq!(tally.count(&format!("{}{{}}", meter::ACKNOWLEDGEMENT)), 3);
    assert!(tally.level(&format!("{}{{}}", meter::IN_FLIGHT_BYTES)).abs() < f64::EPSILON);
    assert!(tally.level(&format!("{}{{}}", meter::HELD_CALLS)).abs() < f64::EPSILON);
    assert!(tally.level(&format!("{}{{}}", meter::CONNECTIONS)) > 0.0);
}
