//! `logseal bench`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use logseal_bench::{BenchError, BenchSettings, Payload, ServerProbe};
use logseal_core::{Clock as _, SystemClock, UnixNanos};
use logseal_ingest::grpc;
use tokio::time::sleep;

use crate::cli::{BenchCommand, BenchIngestOptions, PayloadName, ServerOptions};
use crate::client::{Management, Target, connector};
use crate::commands::print;
use crate::credentials::Credentials;
use crate::error::CommandError;

/// Generated records lie up to a few seconds after the base time: none shall be in the future.
const BASE_TIME_AGO_NS: i64 = 10_000_000_000;

/// How often the server is asked whether every record is in a segment: up to `segment.max_age_ms` long, so each question must be too rare
/// to count in the server's CPU time.
const DRAIN_POLL: Duration = Duration::from_millis(500);

pub(crate) async fn run(data_dir: &Path, command: &BenchCommand) -> Result<(), CommandError> {
    let BenchCommand::Ingest(options) = command;
    let credentials = Credentials::read(data_dir)?;
    let failed = |error: BenchError| CommandError::Bench(Box::new(error));
    let mut settings = settings(&credentials, options).map_err(failed)?;
    let connector = match &options.endpoint {
        Some(endpoint) => connector(endpoint, None, options.ca_file.as_ref())?,
        None => credentials.connector(&settings.endpoint, options.ca_file.as_ref())?,
    };
    settings.connector = Some(connector.offering(grpc::PROTOCOLS));
    // Without an endpoint of its own the benchmark drives the server of the data directory, whose process we can watch.
    let probe = match (&options.endpoint, server_process(data_dir)) {
        (None, Some(pid)) => {
            let target = Target::of_data_dir(data_dir, &credentials, &ServerOptions::default())?;
            Some(ServerProbe::new(pid).when_drained(drained(Management::new(target))))
        }
        _ => None,
    };
    let report = logseal_bench::run(settings, probe).await.map_err(failed)?;
    let text = if options.json {
        serde_json::to_string(&report).map_err(|error| CommandError::Show(error.into()))?
    } else {
        report.to_string()
    };
    print(text.trim_end().as_bytes())?;
    print(b"\n")?;
    if report.errors > 0 {
        let first = report.first_error.unwrap_or_default();
        return Err(CommandError::Refused(format!(
            "{} requests were given up, the first with: {first}",
            report.errors
        )));
    }
    Ok(())
}

fn settings(credentials: &Credentials, options: &BenchIngestOptions) -> Result<BenchSettings, BenchError> {
    let payload = match options.payload {
        PayloadName::A => Payload::A,
        PayloadName::B => Payload::B,
        PayloadName::C => Payload::C,
    };
    let endpoint = options.endpoint.as_deref().unwrap_or(&credentials.endpoints.otlp_grpc);
    let base_time = UnixNanos(SystemClock.now().0 - BASE_TIME_AGO_NS);
    let mut settings = BenchSettings::new(endpoint, &credentials.workspace_key, payload, base_time)?;
    settings.records = options.records;
    settings.rate = options.rate;
    settings.connections = options.connections;
    settings.batch = options.batch.unwrap_or(settings.batch);
    // While an acknowledgement waits for its segment, many calls have to be under way to keep the server busy.
    settings.in_flight = options.in_flight.unwrap_or(if settings.batch >= 100 { 64 } else { 200 });
    Ok(settings)
}

/// The process that holds the lock of `data_dir`.
fn server_process(data_dir: &Path) -> Option<u32> {
    let holder = std::fs::read_to_string(data_dir.join("lock")).ok()?;
    holder.trim().strip_prefix("process ")?.parse().ok()
}

/// Waits until the server reports no record outside a segment.
///
/// # Errors
///
/// The server cannot be asked, or accepts records of others meanwhile: then there may always be some outside a segment, and the CPU time would
/// be theirs too.
async fn drained(management: Management) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut accepted_before = None;
    loop {
        let metrics = management.get("/metrics").await?;
        let text = String::from_utf8_lossy(&metrics.body);
        if metric(&text, "logseal_ingest_unsealed_records") <= 0.0 {
            return Ok(());
        }
        let accepted = metric(&text, "logseal_ingest_records_total{outcome=\"accepted\"}");
        if accepted_before.is_some_and(|before| accepted > before) {
            return Err("others send records to it as well".into());
        }
        accepted_before = Some(accepted);
        sleep(DRAIN_POLL).await;
    }
}

/// The value of `sample` in a Prometheus exposition; 0 while it is not there, which it is not before the first record.
fn metric(exposition: &str, sample: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok();
    exposition.lines().find_map(value).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name_and_labels() {
        let exposition = "# TYPE n counter\nn_total{a=\"b\"} 3\nn{a=\"c\"} 4\nn{a=\"b\"} 5.5\nn 6\n";
        let values = ["n", "n{a=\"b\"}", "n{a=\"d\"}"].map(|sample| metric(exposition, sample));
        assert_eq!(values, [6.0, 5.5, 0.0]);
    }
}
