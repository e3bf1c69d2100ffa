//! Arbitrary bytes through the scan, held against prost.
//!
//! Prost refuses text that is not UTF-8, the scan keeps it; so bytes that prost takes must be taken, and bytes that only the scan takes must have such
//! text. What both take has as many records by both. Requests that are put together give the rows of each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use logseal_core::UnixNanos;
use logseal_otlp::{ScanLimits, Scanned, SchemaLimits, WorkspaceSchema, framed_records, scan};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

fn schema() -> WorkspaceSchema {
    WorkspaceSchema::new(SchemaLimits { tables: 4, attribute_columns: 16, key_bytes: 32 })
}

fn rows(scanned: &Scanned) -> u64 {
    scanned.chunks.iter().map(|chunk| chunk.batch.num_rows() as u64).sum()
}

fn records(request: &ExportLogsServiceRequest) -> u64 {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len() as u64).sum()
}

fuzz_target!(|bytes: &[u8]| {
    let limits = ScanLimits { null_cells: 1 << 12, repeated_bytes: 1 << 16, ..ScanLimits::default() };
    let schema = schema();
    let scanned = scan(bytes, &schema, UnixNanos(1), &limits);
    let decoded = ExportLogsServiceRequest::decode(bytes);
    if let Ok(scanned) = &scanned {
        assert_eq!(rows(scanned), scanned.accepted);
        // The same again on the schema that it left.
        let again = scan(bytes, &schema, UnixNanos(1), &limits).expect("it was scanned before");
        assert_eq!((again.accepted, again.rejected), (scanned.accepted, scanned.rejected));
        // Framing alone tells the number of records.
        assert_eq!(framed_records(bytes), Some(scanned.accepted + scanned.rejected));
        let twice = scan(&[bytes, bytes].concat(), &schema, UnixNanos(1), &limits).expect("two whole requests are one");
        assert_eq!(twice.accepted + twice.rejected, 2 * (scanned.accepted + scanned.rejected));
    }
    match (&scanned, &decoded) {
        (Ok(scanned), Ok(decoded)) => assert_eq!(scanned.accepted + scanned.rejected, records(decoded)),
        (Err(error), Ok(_)) => panic!("prost takes what the scan refuses: {error}"),
        (Ok(_), Err(error)) => {
            // Prost stops at the first text that is not UTF-8, and at nesting deeper than a hundred messages.
            let told = error.to_string();
            assert!(told.contains("UTF-8") || told.contains("recursion"), "the scan takes what prost refuses: {told}");
        }
        (Err(_), Err(_)) => {}
    }
});
