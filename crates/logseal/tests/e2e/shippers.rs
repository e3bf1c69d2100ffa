//! The stock exporter of Rust, with the configuration that `deploy/shippers` has for it, and without retries.
//!
//! Other shippers, which need programs that are no crates, go through the same by the command of `deploy/shippers/trial/README.md`.

#[expect(unreachable_pub, reason = "as its users copy it")]
#[path = "../../../../deploy/shippers/rust_sdk.rs"]
mod rust_sdk;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use logseal_testkit::{Server, ship};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _};
use opentelemetry_otlp::{LogExporter, RetryPolicy, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
use tonic::metadata::MetadataMap;

use crate::Deployment;
use crate::cli::done;
use crate::lifecycle::{metrics, request};
use crate::revocation::until;

/// Records of each part of a test.
const RECORDS: usize = 100;

/// An address for a server that comes back to it. Ports from here on are below those that the system gives to whoever asks for any, so
/// nobody gets it meanwhile.
fn address() -> String {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("it is below 10,000");
    let mut addresses = (first..first + 1_000).map(|port| format!("127.0.0.1:{port}"));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("one of a thousand ports is free")
}

fn emit(provider: &SdkLoggerProvider, part: &str) {
    let logger = provider.logger("shippers");
    for number in 0..RECORDS {
        let mut record = logger.create_log_record();
        record.set_body(AnyValue::from(format!("{part} {number}")));
        logger.emit(record);
    }
}

async fn shut_down(provider: SdkLoggerProvider) {
    tokio::task::spawn_blocking(move || provider.shutdown()).await.expect("it does not panic").expect("in its time");
}

/// Different records of the server.
fn there(server: &Server) -> u64 {
    server.value("SELECT count(DISTINCT body) FROM logs").as_u64().expect("a number")
}

/// Waits until a metric with `words` in its name and labels is more than zero, half a minute at most.
fn until_counted(server: &Server, words: [&str; 2]) {
    let started = Instant::now();
    loop {
        let text = metrics(server);
        let mut lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        if lines.any(|line| !line.starts_with('#') && !line.ends_with(" 0")) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "none of {words:?}: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Scenario: the stored configuration ships while the server is away, which stops and comes back, is killed and comes back, and while its
/// cluster has no key. Guarantee: each record is there in the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_configuration_loses_no_record() {
    let deployment = Deployment::new();
    let listener = format!("listen.otlp_grpc={}", address());
    let settings = [listener.as_str(), "keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"];
    let server = deployment.start_with(&settings);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    let exporter = rust_sdk::exporter(server.otlp_grpc(), server.workspace_key()).expect("its configuration is good");
    let provider = rust_sdk::provider(exporter);

    emit(&provider, "before");
    assert!(server.stop().success());
    emit(&provider, "while it is stopped");
    deployment.start_with(&settings).kill();
    emit(&provider, "while it is dead");
    let server = deployment.start_with(&settings);

    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    emit(&provider, "without the key");
    // So that they are not only sent when the key is back.
    until_counted(&server, ["logseal_ingest_requests_total", "\"unavailable\""]);
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");

    let expected = 4 * RECORDS as u64;
    let started = Instant::now();
    while there(&server) < expected {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {expected}", there(&server));
        std::thread::sleep(Duration::from_millis(200));
    }
    shut_down(provider).await;
    assert_eq!(there(&server), expected);
    assert!(server.stop().success());
}

/// Scenario: a workspace is ahead of its rate by less than the time of a hold; an exporter that never tries again ships. Guarantee: its records are
/// there, and they come when the debt is paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_shorter_than_a_hold_costs_nobody_a_record() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["ingest.workspace_bytes_per_second=100000"]);
    let mut headers = MetadataMap::new();
    headers.insert("authorization", format!("Bearer {}", server.workspace_key()).parse().expect("a header"));
    let exporter = LogExporter::builder()
        .with_tonic()
        .with_endpoint(server.otlp_grpc())
        .with_metadata(headers)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .expect("its configuration is good");
    let soon = BatchConfigBuilder::default().with_scheduled_delay(Duration::from_millis(10)).build();
    let processor = BatchLogProcessor::builder(exporter).with_batch_config(soon).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();

    // A second's worth is free, three are not paid yet.
    ship::export(&server, &request(&["x".repeat(400_000).as_str()])).await.expect("nobody was before it");
    let started = Instant::now();
    emit(&provider, "held");
    until_counted(&server, ["logseal_ingest_held_calls", ""]);
    shut_down(provider).await;
    assert!(started.elapsed() > Duration::from_secs(1), "held for {:?} only", started.elapsed());
    assert_eq!(there(&server), 1 + RECORDS as u64);
    assert!(server.stop().success());
}
