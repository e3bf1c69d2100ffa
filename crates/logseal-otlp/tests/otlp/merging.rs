//! Chunks with different attribute columns become one batch.

use arrow::array::{Array, AsArray, RecordBatch};
use logseal_otlp::{arrow_schema, merge};

use crate::wire_edges::{field, request};
use crate::{scan_with_defaults, workspace};

fn chunk(schema: &logseal_otlp::WorkspaceSchema, keys: &[&str]) -> RecordBatch {
    let attribute = |key: &&str| field(6, &[field(1, key.as_bytes()), field(2, &[0x18, 1])].concat());
    let scanned =
        scan_with_defaults(&request(&[keys.iter().flat_map(attribute).collect()]), schema).expect("decodable");
    scanned.chunks[0].batch.clone()
}

#[test]
fn the_children_are_the_sorted_union() {
    let schema = workspace();
    let batches = [chunk(&schema, &["b", "a"]), chunk(&schema, &[]), chunk(&schema, &["c", "b"])];
    let merged = merge(&batches).unwrap();
    let attributes = merged["attributes"].as_struct();
    let names: Vec<&str> = attributes.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let nulls: Vec<Vec<bool>> =
        attributes.columns().iter().map(|child| (0..3).map(|row| child.is_null(row)).collect()).collect();
    assert_eq!(nulls, [[false, true, true], [false, true, false], [true, true, false]]);
}

#[test]
fn a_merge_of_every_column_has_the_table_schema() {
    let schema = workspace();
    let resource = field(1, &[field(1, b"r"), field(2, &[0x10, 1])].concat());
    let scope = field(3, &[field(1, b"s"), field(2, &field(1, b"v"))].concat());
    let record = field(6, &[field(1, b"k"), field(2, &field(5, &[]))].concat());
    let scope_logs = [field(1, &scope), field(2, &record)].concat();
    let bytes = field(1, &[field(1, &resource), field(2, &scope_logs)].concat());
    let scanned = scan_with_defaults(&bytes, &schema).unwrap();
    let merged = merge(&[scanned.chunks[0].batch.clone(), chunk(&schema, &[])]).unwrap();
    assert_eq!(*merged.schema(), arrow_schema(&schema.table_or_logs("logs").columns()));
}

#[test]
fn no_chunks_give_an_empty_batch_and_wrong_ones_an_error() {
    let merged = merge(&[]).unwrap();
    assert_eq!((merged.num_rows(), merged.num_columns()), (0, 20));
    let (one, other) = (workspace(), workspace());
    let schema = other.table_or_logs("logs");
    schema.assign(logseal_otlp::AttributeContainer::Record, "a", logseal_otlp::AttributeKind::String);
    let text = field(6, &[field(1, b"a"), field(2, &field(1, b"x"))].concat());
    let text = scan_with_defaults(&request(&[text]), &other).unwrap().chunks[0].batch.clone();
    assert!(merge(&[chunk(&one, &["a"]), text]).is_err(), "two kinds");
    let narrow = chunk(&one, &[]).project(&[0]).unwrap();
    assert!(merge(&[narrow]).is_err(), "a column is missing");
}
