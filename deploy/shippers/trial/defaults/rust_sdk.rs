//! The exporter of Rust as it is with nothing set but address, key and compression.

use opentelemetry_otlp::{Compression, LogExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tonic::metadata::MetadataMap;

pub fn exporter(endpoint: &str, workspace_key: &str) -> Result<LogExporter, Box<dyn std::error::Error>> {
    let mut headers = MetadataMap::new();
    headers.insert("authorization", format!("Bearer {workspace_key}").parse()?);
    let builder = LogExporter::builder().with_tonic().with_endpoint(endpoint).with_metadata(headers);
    Ok(builder.with_compression(Compression::Gzip).build()?)
}

pub fn provider(exporter: impl opentelemetry_sdk::logs::LogExporter + 'static) -> SdkLoggerProvider {
    let resource = Resource::builder().with_service_name("payments").build();
    SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()
}
