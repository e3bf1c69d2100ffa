//! What a hostile request can make the scan do: deep nesting, very many keys, very many rows, and combinations.

use arrow::array::{Array, AsArray};
use logseal_otlp::{ScanError, ScanLimits, SchemaLimits, WorkspaceSchema, scan};

use crate::wire_edges::{field, request, scanned};
use crate::{RECEIVED, decode, scan_with_defaults, workspace};

fn attribute(key: &str, value: &str) -> Vec<u8> {
    field(6, &[field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat())
}

/// `depth` arrays around an int.
fn nested(depth: usize, number: u8) -> Vec<u8> {
    let mut value = vec![0x18, 1];
    for _ in 1..depth {
        let element = if number == 5 { field(1, &value) } else { field(1, &field(2, &value)) };
        value = field(number, &element);
    }
    value
}

#[test]
fn values_are_nested_up_to_the_limit_and_no_deeper() {
    for number in [5, 6] {
        for (depth, accepted) in [(64, 1), (65, 0), (10_000, 0)] {
            for record in [field(5, &nested(depth, number)), field(6, &field(2, &nested(depth, number)))] {
                let scanned = scanned(&request(&[record]));
                assert_eq!((scanned.accepted, scanned.rejected), (accepted, 1 - accepted), "depth {depth}");
                assert_eq!(decode::records(&scanned).values().flatten().count(), usize::try_from(accepted).unwrap());
            }
        }
    }
    let limits = ScanLimits { value_nesting: usize::MAX, ..ScanLimits::default() };
    let deep = request(&[field(5, &nested(10_000, 5))]);
    assert_eq!(scan(&deep, &workspace(), RECEIVED, &limits).unwrap().rejected, 1, "the hard limit holds");
    let limits = ScanLimits { value_nesting: 1, ..ScanLimits::default() };
    let flat = [field(5, &nested(1, 5)), field(5, &nested(2, 5))];
    assert_eq!(scan(&request(&flat), &workspace(), RECEIVED, &limits).unwrap().accepted, 1);
}

#[test]
fn groups_ten_thousand_deep_are_refused() {
    let groups = [vec![0x7B; 10_000], vec![0x7C; 10_000]].concat();
    assert!(matches!(scan_with_defaults(&request(&[groups]), &workspace()), Err(ScanError::Undecodable { .. })));
}

#[test]
fn a_record_may_have_100_000_attributes_but_not_any_number() {
    let distinct: Vec<u8> = (0..100_000).flat_map(|n| attribute(&format!("k{n}"), "v")).collect();
    let same: Vec<u8> = (0..100_000).flat_map(|n| attribute("k", &n.to_string())).collect();
    let schema = workspace();
    let scanned = scan_with_defaults(&request(&[distinct, same]), &schema).unwrap();
    assert_eq!(scanned.accepted, 2);
    assert_eq!(schema.table_or_logs("logs").columns().len(), 4096);
    let records = &decode::records(&scanned)["logs"];
    assert_eq!(records[0].attributes.len(), 100_000);
    assert_eq!(records[1].attributes["k"].len(), 100_000);

    let empty = [0x32, 0].repeat((1 << 17) + 1);
    let scanned = crate::wire_edges::scanned(&request(&[empty]));
    assert_eq!((scanned.accepted, scanned.rejected), (0, 1));
    assert!(scanned.rejection.unwrap().contains("131072 attributes"));
}

#[test]
fn a_million_keys_do_not_make_a_million_columns() {
    let records: Vec<Vec<u8>> =
        (0..10_000).map(|r| (0..100).flat_map(|n| attribute(&format!("{r}.{n}"), "v")).collect()).collect();
    let schema = workspace();
    let scanned = scan_with_defaults(&request(&records), &schema).unwrap();
    assert_eq!(scanned.accepted, 10_000);
    assert_eq!(schema.table_or_logs("logs").columns().len(), 4096);
    let cells: usize = scanned.chunks.iter().map(|chunk| chunk.batch.get_array_memory_size()).sum();
    assert!(cells < 700 << 20, "{cells} bytes");
}

#[test]
fn sparse_columns_times_rows_are_bounded_and_nothing_is_lost() {
    let limits = ScanLimits { null_cells: 1 << 20, ..ScanLimits::default() };
    let wide: Vec<u8> = (0..4096).flat_map(|n| attribute(&format!("k{n}"), "v")).collect();
    let mut records = vec![wide];
    records.extend(vec![Vec::new(); 200_000]);
    records.push(attribute("k7", "last"));
    let scanned = scan(&request(&records), &workspace(), RECEIVED, &limits).unwrap();
    assert_eq!(scanned.accepted, 200_002);
    let rows: Vec<usize> = scanned.chunks.iter().map(|chunk| chunk.batch.num_rows()).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0] * 4096 <= (1 << 20) + 2 * 4096, "{rows:?}");
    assert!(scanned.chunks[1].batch.column_by_name("attributes").is_none());
    let overflow = scanned.chunks[1].batch["overflow"].as_string::<i32>().clone();
    assert!(overflow.value(overflow.len() - 1).contains(r#"{"key":"k7","value":{"stringValue":"last"}}"#));

    // The other way round: the rows first, then a record with many new columns.
    let mut records = vec![Vec::new(); 200_000];
    records.push((0..4096).flat_map(|n| attribute(&format!("k{n}"), "v")).collect());
    let scanned = scan(&request(&records), &workspace(), RECEIVED, &limits).unwrap();
    let children = scanned.chunks[0].batch["attributes"].as_struct().num_columns();
    assert_eq!((scanned.chunks.len(), children), (1, 5));
    assert_eq!(decode::batch_records(&scanned.chunks[0].batch.slice(200_000, 1))[0].attributes.len(), 4096);
}

#[test]
fn repeated_resources_are_bounded() {
    let resource = field(1, &[field(1, b"k"), field(2, &field(1, &[b'x'; 1000]))].concat());
    let records = field(2, &[0x12, 0].repeat(100));
    let request = field(1, &[field(1, &resource), records.clone(), records].concat());
    let limits = ScanLimits { repeated_bytes: 99 * 1008, ..ScanLimits::default() };
    let scanned = scan(&request, &workspace(), RECEIVED, &limits).unwrap();
    assert_eq!((scanned.accepted, scanned.rejected), (100, 100));
    assert!(scanned.rejection.unwrap().contains("smaller"));
}

#[test]
fn records_over_the_count_are_rejected() {
    let limits = ScanLimits { records_per_request: 3, ..ScanLimits::default() };
    let scanned = scan(&request(&vec![Vec::new(); 5]), &workspace(), RECEIVED, &limits).unwrap();
    assert_eq!((scanned.accepted, scanned.rejected), (3, 2));
    // Millions of them end at the default limit.
    let scanned = scan_with_defaults(&request(&vec![Vec::new(); 1_000_100]), &workspace()).unwrap();
    assert_eq!((scanned.accepted, scanned.rejected), (1_000_000, 100));
}

#[test]
fn requests_over_the_size_are_refused() {
    let bytes = vec![0; 64 * 1024 * 1024 + 1];
    assert!(matches!(scan_with_defaults(&bytes, &workspace()), Err(ScanError::TooLarge { .. })));
}

#[test]
fn tables_over_the_limit_are_logs() {
    let schema = WorkspaceSchema::new(SchemaLimits { tables: 3, ..SchemaLimits::default() });
    let resource_logs = |table: usize| {
        let name = format!("t{table}");
        let resource = field(1, &[field(1, b"logseal.table"), field(2, &field(1, name.as_bytes()))].concat());
        field(1, &[field(1, &resource), field(2, &field(2, &[]))].concat())
    };
    let request: Vec<u8> = (0..50).chain(0..50).flat_map(resource_logs).collect();
    let scanned = scan_with_defaults(&request, &schema).unwrap();
    let rows = |name: &str| {
        let chunks = scanned.chunks.iter().filter(|chunk| chunk.schema.name().as_str() == name);
        chunks.map(|chunk| chunk.batch.num_rows()).sum::<usize>()
    };
    assert_eq!((rows("t0"), rows("t1"), rows("logs"), scanned.chunks.len()), (2, 2, 96, 3));
    assert_eq!(schema.tables().len(), 3);
}
