//! A cluster that is revoked while its log is full, beside a busy one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use logseal_bench::Payload;
use logseal_core::{Clock as _, SystemClock};
use logseal_testkit::{Server, ship};
use tokio::runtime::Runtime;
use tonic::Code;

use crate::cli::{done, json};
use crate::revocation::until;
use crate::{Deployment, report};

/// The log of a cluster is full soon, but not of what the busy one gets in all windows, however slowly a machine that does other things seals it.
const SETTINGS: [&str; 5] = [
    "wal.file_bytes=8388608",
    "wal.max_bytes=201326592",
    "keys.probe_interval_ms=1000",
    "keys.min_state_interval_ms=0",
    "ingest.hold_ms=200",
];

/// Requests under way at a time.
const CALLS: u64 = 4;
const RECORDS: usize = 1_000;

/// How long a throughput is measured, and how often.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOWS: usize = 2;

/// After this time a log that was full takes records again.
const RESUMED_WITHIN: Duration = Duration::from_secs(30);

fn message(number: u64) -> Bytes {
    logseal_bench::request(Payload::A, 1, number, RECORDS, SystemClock.now()).into()
}

/// Ships with `key` as fast as it goes for the time of `WINDOW`; records a second. Each request must be taken.
fn throughput(runtime: &Runtime, server: &Server, key: &str, shipped: &AtomicU64) -> f64 {
    let started = Instant::now();
    let before = shipped.load(Ordering::SeqCst);
    runtime.block_on(async {
        let callers = (0..CALLS).map(|_| async {
            while started.elapsed() < WINDOW {
                let number = shipped.fetch_add(1, Ordering::SeqCst);
                ship::export_bytes_with_key(server, key, message(number))
                    .await
                    .expect("a busy cluster takes what comes");
            }
        });
        futures::future::join_all(callers).await;
    });
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let records = ((shipped.load(Ordering::SeqCst) - before) * RECORDS as u64) as f64;
    records / started.elapsed().as_secs_f64()
}

fn best(runtime: &Runtime, server: &Server, key: &str, shipped: &AtomicU64) -> f64 {
    (0..WINDOWS).map(|_| throughput(runtime, server, key, shipped)).fold(0.0, f64::max)
}

/// Scenario: the store is away until the log of a cluster is full; then its key is disabled and the store comes back; another cluster's
/// workspace is shipped to as fast as it goes, before and after. Guarantee: not one of the other one's requests is refused; its throughput is
/// reported, for runs of this test alone. When the key is back, every acknowledged record of the first one is there, and it takes more.
#[test]
fn a_revoked_cluster_with_a_full_log_costs_another_one_nothing() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&SETTINGS);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    done(&server, &["workspace", "create", "busy"]);
    let keys = json(&server, &["workspace", "keys", "busy"]);
    let busy = keys["primarySharedKey"].as_str().expect("a key").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shipped = AtomicU64::new(0);
    let control = best(&runtime, &server, &busy, &shipped);

    let (store, away) = (deployment.data_dir().join("store"), deployment.dir.path().join("away"));
    std::fs::rename(&store, &away).expect("one file system");
    // A file where the folder was: nothing can be put below it.
    std::fs::write(&store, "").expect("a folder of our own");
    let mut acknowledged = 0;
    let refused = loop {
        match runtime.block_on(ship::export_bytes(&server, message(acknowledged))) {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
        assert!(acknowledged < 5_000, "its log is never full");
    };
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("wal.max_bytes"), "{refused}");
    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    std::fs::remove_file(&store).expect("our own file");
    std::fs::rename(&away, &store).expect("one file system");

    let beside = best(&runtime, &server, &busy, &shipped);
    report(&format!("beside an idle cluster {control:.0} records/s, beside a revoked one with a full log {beside:.0}"));
    let count =
        |workspace: &str| server.query_in(workspace, "SELECT count(*) AS n FROM logs").expect("rows")[0]["n"].clone();
    assert_eq!(count("busy"), shipped.load(Ordering::SeqCst) * RECORDS as u64);
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    assert_eq!(count("default"), acknowledged * RECORDS as u64);
    let active = Instant::now();
    while let Err(refused) = runtime.block_on(ship::export_bytes(&server, message(0))) {
        assert!(active.elapsed() < RESUMED_WITHIN, "still after {RESUMED_WITHIN:?}: {refused}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.stop().success());
}
