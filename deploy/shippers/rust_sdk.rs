// [dependencies]                                                                                                (tried with 0.33)
// opentelemetry = "0.33"
// opentelemetry_sdk = { version = "0.33", features = ["logs"] }
// opentelemetry-otlp = { version = "0.33", default-features = false, features = ["logs", "grpc-tonic", "gzip-tonic", "tls-ring", "tls-roots"] }
// tonic = { version = "0.14", default-features = false }
//
// In a stall the exporter tries again as the policy says, and never longer than `with_timeout`; the defaults are three more tries and 10 s.
// Meanwhile records wait in the processor's queue, in memory, and new ones are dropped when it is full. What must outlast more, or the
// end of this process, goes to a local collector: collector.yaml listens on 127.0.0.1:14317 and needs no key.
use std::time::Duration;

use opentelemetry_otlp::{Compression, LogExporter, RetryPolicy, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
use tonic::metadata::MetadataMap;

/// The exporter, made within a Tokio runtime.
pub fn exporter(endpoint: &str, workspace_key: &str) -> Result<LogExporter, Box<dyn std::error::Error>> {
    let mut headers = MetadataMap::new();
    headers.insert("authorization", format!("Bearer {workspace_key}").parse()?);
    Ok(LogExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint) // https://logseal.example.org:4317, or http://127.0.0.1:4317
        .with_metadata(headers)
        .with_compression(Compression::Gzip)
        .with_timeout(Duration::from_secs(600))
        .with_retry_policy(
            RetryPolicy::recommended()
                .with_max_retries(10_000)
                .with_initial_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_secs(10)),
        )
        .build()?)
}

/// A provider for `opentelemetry-appender-tracing` or `opentelemetry-appender-log`. Its `shutdown` sends what waits, for five seconds at most:
/// `shutdown_with_timeout` may take longer.
pub fn provider(exporter: impl opentelemetry_sdk::logs::LogExporter + 'static) -> SdkLoggerProvider {
    let batches = BatchConfigBuilder::default().with_max_queue_size(100_000).with_max_export_batch_size(1_000).build();
    SdkLoggerProvider::builder()
        .with_resource(Resource::builder().with_service_name("payments").build())
        .with_log_processor(BatchLogProcessor::builder(exporter).with_batch_config(batches).build())
        .build()
}
