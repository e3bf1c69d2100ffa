//! The crate against prost: what is scanned into columns and read back must be what prost decodes.

mod canonical;
mod concurrency;
mod decode;
mod generate;
mod golden;
mod json_request;
mod limits;
mod merging;
mod round_trip;
mod wire_edges;

use logseal_core::UnixNanos;
use logseal_otlp::{ScanError, ScanLimits, Scanned, SchemaLimits, WorkspaceSchema, scan};

/// When the tests' requests are received.
const RECEIVED: UnixNanos = UnixNanos(1_700_000_000_000_000_001);

fn workspace() -> WorkspaceSchema {
    WorkspaceSchema::new(SchemaLimits::default())
}

fn scan_with_defaults(request: &[u8], schema: &WorkspaceSchema) -> Result<Scanned, ScanError> {
    scan(request, schema, RECEIVED, &ScanLimits::default())
}
