//! The whole server under load: starts a fresh one for each row, drives it, and writes a table and a plot.
//!
//! ```text
//! cargo build --release --locked && cargo bench --locked --workspace --bench end_to_end [-- [SECONDS] [PAYLOAD]...]
//! ```
//!
//! Each row is a new server with default settings but `segment.max_age_ms`, which is 5 s here so that its last segment comes soon after the load ends;
//! the load lasts 30 s unless told otherwise. Both share the machine. The results go to `target/end-to-end/`: `results.md` and `results.svg`.

#![expect(clippy::print_stderr, reason = "it says what it does meanwhile")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logseal_bench::{BenchSettings, Payload, Report, ServerProbe};
use logseal_benches::{SOURCES, Source, plot};
use logseal_core::UnixNanos;
use logseal_testkit::server::Server;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;

/// How long a row's load lasts.
const SECONDS: u64 = 30;

/// Requests that are sent in turn: far more than a row group holds, so that repeats do not flatter the compression.
const POOL_RECORDS: usize = 250_000;

/// How often the server is asked whether everything is in segments.
const DRAIN_POLL: Duration = Duration::from_millis(500);

type Failed = Box<dyn Error + Send + Sync>;

/// One row: what is sent and how.
struct Row {
    source: Source,
    connections: usize,
    compression: Option<CompressionEncoding>,
}

impl Row {
    fn wire(&self) -> &'static str {
        match self.compression {
            None => "none",
            Some(CompressionEncoding::Gzip) => "gzip",
            Some(_) => "zstd",
        }
    }
}

/// What a row gave.
struct Measured {
    row: Row,
    report: Report,
    /// Bytes in the store for each record.
    kept: f64,
    /// OTLP bytes for each record.
    sent: f64,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for source in SOURCES {
        rows.extend([1, 2, 4].map(|connections| Row { source, connections, compression: None }));
        let compressed = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
        rows.extend(compressed.map(|compression| Row { source, connections: 2, compression: Some(compression) }));
    }
    rows
}

fn main() -> Result<(), Failed> {
    let seconds = env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let binary = env::var_os("LOGSEAL_BIN").map_or_else(|| target.join("release/logseal"), PathBuf::from);
    if !binary.exists() {
        return Err(format!("{} is not there: `cargo build --release --locked` makes it", binary.display()).into());
    }
    let out = target.join("end-to-end");
    fs::create_dir_all(&out)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut measured = Vec::new();
    let wanted: Vec<String> =
        env::args().skip(1).filter(|text| SOURCES.iter().any(|source| source.name == *text)).collect();
    for row in rows().into_iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.source.name)) {
        eprintln!("{}, {} connections, wire {}", row.source.name, row.connections, row.wire());
        measured.push(measure(&runtime, &binary, row, Duration::from_secs(seconds))?);
    }
    let table = table(&measured, seconds);
    fs::write(out.join("results.md"), &table)?;
    let bars: Vec<(String, f64)> = measured
        .iter()
        .map(|m| {
            let label = format!("{}, {} conn., wire {}", m.row.source.name, m.row.connections, m.row.wire());
            (label, m.report.records_per_cpu_s.unwrap_or_default())
        })
        .collect();
    fs::write(out.join("results.svg"), plot::bars("Records per second of server CPU time", &bars))?;
    eprintln!("{table}\nwritten to {}", out.display());
    Ok(())
}

fn measure(runtime: &Runtime, binary: &Path, row: Row, time: Duration) -> Result<Measured, Failed> {
    let folder = tempfile::tempdir()?;
    let binary = binary.to_str().ok_or("a path that is no UTF-8")?;
    let server = Server::start(binary, &folder.path().join("data"), &["--set", "segment.max_age_ms=5000"]);
    let requests: Arc<[(Bytes, u64)]> = row
        .source
        .requests(POOL_RECORDS)
        .into_iter()
        .map(|request| {
            let records = logseal_otlp::framed_records(&request).unwrap_or_default();
            (Bytes::from(request), records)
        })
        .collect();
    let (bytes, records): (usize, u64) =
        requests.iter().fold((0, 0), |(bytes, records), (body, n)| (bytes + body.len(), records + n));
    // The payload is but a label here.
    let mut settings = BenchSettings::new(server.otlp_grpc(), server.workspace_key(), Payload::A, UnixNanos(0))?;
    settings.requests = Some(requests);
    settings.compression = row.compression;
    settings.connections = row.connections;
    settings.in_flight = if row.source.name == "c" { 200 } else { 64 };
    settings.records = u64::MAX / 2;
    settings.stop_after = Some(time);
    let metrics =
        (server.credential("/endpoints/management").to_owned(), server.credential("/managementToken").to_owned());
    let probe = ServerProbe::new(server.process_id()).when_drained(drained(metrics));
    let report = runtime.block_on(logseal_bench::run(settings, Some(probe)))?;
    if report.errors > 0 || report.rejected > 0 {
        return Err(format!("{} requests failed: {:?}", report.errors, report.first_error).into());
    }
    let listed = server.run(&["segment", "list", "--json"]);
    let segments: Vec<Value> = serde_json::from_slice(&listed.stdout)?;
    let sum = |name: &str| segments.iter().filter_map(|segment| segment[name].as_u64()).sum::<u64>() as f64;
    let kept = sum("bytes") / sum("rows");
    if !server.stop().success() {
        return Err("the server did not stop cleanly".into());
    }
    Ok(Measured { row, report, kept, sent: bytes as f64 / records as f64 })
}

/// Waits until the server reports no record outside a segment.
async fn drained((management, token): (String, String)) -> Result<(), Failed> {
    let authority = management.trim_start_matches("http://").trim_end_matches('/').to_owned();
    loop {
        tokio::time::sleep(DRAIN_POLL).await;
        let stream = tokio::net::TcpStream::connect(&authority).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::get("/metrics")
            .header("host", &authority)
            .header("authorization", format!("Bearer {token}"))
            .body(String::new())?;
        let answer = sender.send_request(request).await?;
        let text = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        let text = String::from_utf8_lossy(&text);
        let left = text.lines().find_map(|line| line.strip_prefix("logseal_ingest_unsealed_records "));
        if left.is_some_and(|left| left.trim().parse::<f64>().is_ok_and(|left| left <= 0.0)) {
            return Ok(());
        }
    }
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn table(measured: &[Measured], seconds: u64) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
    let mut out = format!(
        "{} cores of {}, commit {commit}, {seconds} s a row, load on the same machine.\n\n",
        cores,
        model.trim_start_matches(['\t', ' ', ':'])
    );
    out.push_str(
        "| payload | connections | wire | records/s | MB/s | server CPU s | records per CPU s | MB per CPU s | peak MiB | p50 ms | p95 ms | p99 ms | resent | kept B a record | OTLP : kept |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Measured { row, report, kept, sent } in measured {
        let cpu = report.server_cpu_s.unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.0} | {:.1} | {cpu:.1} | {:.0} | {:.1} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {kept:.1} | {:.2} |",
            row.source.name,
            row.connections,
            row.wire(),
            report.records_per_s,
            report.bytes_per_s / 1e6,
            report.records_acked as f64 / cpu,
            report.bytes_per_s * report.seconds / cpu / 1e6,
            report.server_peak_rss_bytes.unwrap_or_default() as f64 / f64::from(1 << 20),
            report.latency_ms.p50,
            report.latency_ms.p95,
            report.latency_ms.p99,
            report.retried,
            sent / kept,
        );
    }
    out
}
