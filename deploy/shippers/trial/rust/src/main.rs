//! Ships numbered records with the Rust exporter, as the stored configuration or the defaults have it, and tells how each export ended.
//!
//! Like its siblings `drive.py` and `drive.mjs`: records `PREFIX 000001`, `PREFIX 000002` and so on at a steady rate until a line comes on
//! stdin; a line of JSON on stdout for each export, with the numbers that were in it; `shutdown` and the end when stdin is closed.

#[path = "../../defaults/rust_sdk.rs"]
mod defaults;
#[path = "../../../rust_sdk.rs"]
mod stored;

use std::time::Duration;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLoggerProvider};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// The exporter of a configuration, with a ledger of its exports.
#[derive(Debug)]
struct Recorded<E>(E);

impl<E: LogExporter> LogExporter for Recorded<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let number = |body: &AnyValue| match body {
            AnyValue::String(text) => text.as_str().rsplit(' ').next().and_then(|digits| digits.parse::<u64>().ok()),
            _ => None,
        };
        let numbers: Vec<u64> = batch.iter().filter_map(|(record, _)| record.body().and_then(number)).collect();
        let result = self.0.export(batch).await;
        if let Err(error) = &result {
            eprintln!("{} records given up: {error}", numbers.len());
        }
        println!("{{\"ok\": {}, \"numbers\": {numbers:?}}}", result.is_ok());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [configuration, prefix, rate] = arguments.as_slice() else { return Err("defaults|stored PREFIX RATE".into()) };
    let (endpoint, key) = (std::env::var("LOGSEAL_ENDPOINT")?, std::env::var("LOGSEAL_WORKSPACE_KEY")?);
    let provider: SdkLoggerProvider = match configuration.as_str() {
        "defaults" => defaults::provider(Recorded(defaults::exporter(&endpoint, &key)?)),
        _ => stored::provider(Recorded(stored::exporter(&endpoint, &key)?)),
    };
    let logger = provider.logger("trial");
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.parse::<f64>()?));
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut emitted = 0_u64;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                emitted += 1;
                let mut record = logger.create_log_record();
                record.set_body(AnyValue::from(format!("{prefix} {emitted:06}")));
                record.set_severity_number(Severity::Info);
                logger.emit(record);
            }
            _ = commands.next_line() => break,
        }
    }
    println!("{{\"emitted\": {emitted}}}");
    while commands.next_line().await?.is_some() {}
    if let Err(error) = tokio::task::spawn_blocking(move || provider.shutdown()).await? {
        eprintln!("shutdown: {error}");
    }
    Ok(())
}
