//! Reads of the management API at a pace, on a deployment with many workspaces and operations, while operations run.
//!
//! Half of the reads ask for the status of an operation and half for the cluster to which all workspaces are linked; latencies count from
//! when a read was due. By default the deployment and the load are small, as continuous integration runs it, and the figures are printed
//! only. The long form has 1,000 workspaces, 100,000 operations and 2,000 reads a second, and asserts the goals; server and load share
//! the machine:
//!
//! ```text
//! LOGSEAL_READS_SECONDS=30 cargo test --release --workspace --test reads -- --nocapture
//! ```
//!
//! `LOGSEAL_READS_RATE` is the number of reads a second, 2,000 in the long form.

mod deployment;
mod rotation;
#[expect(dead_code, reason = "nothing is shipped here: the keys of shippers are not needed")]
#[path = "../overload/tenants.rs"]
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use logseal_bench::latency::Histogram;
use serde_json::json;

use crate::deployment::{Deployment, Size};

/// Connections that take turns.
const READERS: u64 = 32;

/// 99 of 100 reads are answered within this time.
const READ: Duration = Duration::from_millis(10);

/// A page of 100 resources or operations is answered within this time.
const PAGE: Duration = Duration::from_millis(50);

/// Pages of a kind.
const PAGES: usize = 50;

#[expect(clippy::print_stderr, reason = "who runs the long form wants to see the figures")]
fn report(text: &str) {
    eprintln!("{text}");
}

/// How much there is, and how much of it is read.
#[derive(Clone, Copy)]
struct Form {
    load: Duration,
    rate: u64,
    workspaces: usize,
    operations: usize,
    is_long: bool,
}

impl Form {
    fn of_run() -> Self {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seconds = number("LOGSEAL_READS_SECONDS").unwrap_or(2);
        let is_long = seconds >= 10;
        let (rate, workspaces, operations) = if is_long { (2_000, 1_000, 100_000) } else { (200, 20, 1_000) };
        let rate = number("LOGSEAL_READS_RATE").unwrap_or(rate).max(READERS);
        Self { load: Duration::from_secs(seconds), rate, workspaces, operations, is_long }
    }
}

/// Latencies of one kind of read.
struct Figures {
    what: &'static str,
    latencies: Histogram,
}

impl Figures {
    fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latencies.percentile(percent))
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most, worst] = [50.0, 99.0, 100.0].map(|percent| self.percentile(percent));
        let count = self.latencies.count();
        write!(f, "{}: {count} reads, median {half:.1?}, 99 % {most:.1?}, slowest {worst:.1?}", self.what)
    }
}

/// Scenario: statuses of ended operations and a cluster with all workspaces are read at a pace, while a cluster is changed and a workspace
/// is deleted and recovered all the time; then pages are read. Guarantee: every answer is whole; in the long form 99 of 100 reads are
/// answered within 10 ms and pages of 100 within 50 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_answered_at_once_whatever_there_is() {
    let form = Form::of_run();
    let Form { rate, workspaces, operations, .. } = form;
    let deployment = Deployment::new(Size { workspaces, operations, segments: 0 }).await;
    report(&format!("\n{rate} reads a second, {workspaces} workspaces in the cluster, {operations} ended operations"));

    let is_over = Arc::new(AtomicBool::new(false));
    let changes = tokio::spawn(changing(Arc::clone(&deployment), Arc::clone(&is_over)));
    let cpu = deployment.cpu_seconds();
    let [statuses, clusters] = read(&deployment, form).await;
    let cpu = (deployment.cpu_seconds() - cpu) / form.load.as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    let changed = changes.await.expect("every change succeeds");
    assert!(changed > 0, "operations ran");
    report(&format!("{statuses}\n{clusters}\n{changed} operations ended meanwhile; the server took {cpu:.2} cores"));

    let pages = [
        ("pages of 100 operations", "/v1/operations?top=100".to_owned(), 100),
        ("pages of 100 workspaces", deployment.path("workspaces", "&$top=100"), workspaces.min(100)),
    ];
    for (what, path, count) in pages {
        let mut pages = Figures { what, latencies: Histogram::default() };
        for _ in 0..PAGES {
            let start = Instant::now();
            let page = deployment.json(Method::GET, &path, None).await;
            pages.latencies.record(start.elapsed());
            assert_eq!(page["value"].as_array().map(Vec::len), Some(count), "{what}");
        }
        report(&pages.to_string());
        assert!(!form.is_long || pages.percentile(99.0) <= PAGE, "{pages}");
    }
    for figures in [statuses, clusters] {
        assert!(!form.is_long || figures.percentile(99.0) < READ, "{figures}");
    }
}

/// Reads at the pace of `form`, statuses and clusters in turn.
async fn read(deployment: &Arc<Deployment>, form: Form) -> [Figures; 2] {
    let cluster = deployment.path("clusters/local", "");
    let next = Arc::new(AtomicU64::new(0));
    let (start, reads) = (Instant::now(), form.rate * form.load.as_secs());
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (deployment, cluster, next) = (Arc::clone(deployment), cluster.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies = [Histogram::default(), Histogram::default()];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= reads {
                        return latencies;
                    }
                    let due = start + Duration::from_secs_f64(number as f64 / form.rate as f64);
                    tokio::time::sleep_until(due.into()).await;
                    let is_cluster = number % 2 == 1;
                    let path = if is_cluster { cluster.as_str() } else { deployment.status_of(number) };
                    let (status, body) = deployment.send(Method::GET, path, None).await;
                    latencies[usize::from(is_cluster)].record(due.elapsed());
                    assert_eq!(status, 200, "{path}");
                    // Parsing hundreds of kilobytes each time would take more of the machine than the server does.
                    let entries = form.workspaces * usize::from(is_cluster);
                    assert!(
                        body.ends_with(b"}") && body.len() >= 100 * (1 + entries),
                        "{} bytes of {path}",
                        body.len()
                    );
                }
            })
        })
        .collect();
    let mut figures =
        ["statuses of operations", "clusters"].map(|what| Figures { what, latencies: Histogram::default() });
    for reader in readers {
        let latencies = reader.await.expect("every read succeeds");
        figures.iter_mut().zip(&latencies).for_each(|(figures, latencies)| figures.latencies.merge(latencies));
    }
    figures
}

/// Changes the cluster that is read, and deletes and recovers a workspace, until it is over; returns the number of changes.
async fn changing(deployment: Arc<Deployment>, is_over: Arc<AtomicBool>) -> u64 {
    let (cluster, workspace) = (deployment.path("clusters/local", ""), deployment.path("workspaces/changing", ""));
    let mut changed = 0;
    while !is_over.load(Ordering::Relaxed) {
        let tags = json!({"tags": {"changed": changed.to_string()}});
        deployment.operation(Method::PATCH, &cluster, Some(tags)).await;
        deployment.operation(Method::PUT, &workspace, Some(json!({"location": "local"}))).await;
        deployment.operation(Method::DELETE, &workspace, None).await;
        changed += 3;
    }
    changed
}
