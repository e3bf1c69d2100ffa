//! Scans that race for the same columns: every chunk fits its table, and no value is lost.

use std::sync::Barrier;

use arrow::array::AsArray;
use logseal_otlp::{SchemaLimits, WorkspaceSchema};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use crate::wire_edges::{field, request};
use crate::{canonical, decode, scan_with_defaults};

#[test]
fn racing_scans_agree_on_kinds_and_limits() {
    let attribute = |key: &str, value: &[u8]| field(6, &[field(1, key.as_bytes()), field(2, value)].concat());
    let values = [field(1, b"text"), vec![0x18, 1], vec![0x10, 1], field(7, b"b")];
    for _ in 0..50 {
        let schema = WorkspaceSchema::new(SchemaLimits { tables: 2, attribute_columns: 20, key_bytes: 256 });
        let barrier = Barrier::new(values.len());
        std::thread::scope(|scope| {
            for value in &values {
                let (schema, barrier) = (&schema, &barrier);
                scope.spawn(move || {
                    let record: Vec<u8> = (0..30).flat_map(|n| attribute(&format!("k{n}"), value)).collect();
                    let bytes = request(&[record]);
                    barrier.wait();
                    let scanned = scan_with_defaults(&bytes, schema).unwrap();
                    let expected = ExportLogsServiceRequest::decode(&*bytes).unwrap();
                    assert_eq!(decode::records(&scanned), canonical::records(&expected));
                    let chunk = &scanned.chunks[0];
                    let Some(attributes) = chunk.batch.column_by_name("attributes") else { return };
                    for child in attributes.as_struct().fields() {
                        let columns = chunk.schema.columns();
                        let column = columns.iter().find(|column| *column.key == **child.name()).unwrap();
                        assert_eq!(column.kind.arrow_type(), *child.data_type());
                    }
                });
            }
        });
        assert_eq!(schema.table_or_logs("logs").columns().len(), 20);
    }
}

#[test]
fn a_later_request_keeps_the_first_kind() {
    let schema = WorkspaceSchema::new(SchemaLimits::default());
    let record = |value: &[u8]| field(6, &[field(1, b"k"), field(2, value)].concat());
    scan_with_defaults(&request(&[record(&[0x18, 1]), record(&field(1, b"x"))]), &schema).unwrap();
    let scanned = scan_with_defaults(&request(&[record(&field(1, b"y"))]), &schema).unwrap();
    assert!(scanned.chunks[0].batch.column_by_name("attributes").is_none());
    let overflow = scanned.chunks[0].batch["overflow"].as_string::<i32>().value(0).to_owned();
    assert_eq!(overflow, r#"{"attributes":[{"key":"k","value":{"stringValue":"y"}}],"timeUnixNano":"0"}"#);
    assert_eq!(schema.table_or_logs("logs").columns().len(), 1);
}
