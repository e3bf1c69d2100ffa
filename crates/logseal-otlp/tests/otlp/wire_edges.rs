//! Protobuf's edge cases by hand: each table entry is the bytes of a record or a request and what must become of it.

use arrow::array::{Array, AsArray};
use logseal_otlp::{AttributeKind, ScanError, Scanned};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;

use crate::{canonical, decode, scan_with_defaults, workspace};

/// A length-delimited field.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(number << 3) | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).expect("a vector grows");
    bytes.extend_from_slice(content);
    bytes
}

/// A request of one scope of one resource with these records.
pub(crate) fn request(records: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(|record| field(2, record)).collect();
    field(1, &field(2, &records))
}

pub(crate) fn scanned(request: &[u8]) -> Scanned {
    scan_with_defaults(request, &workspace()).expect("decodable")
}

fn key_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    [field(1, key), field(2, value)].concat()
}

/// `AnyValue` with an int of one byte.
fn int(value: u8) -> Vec<u8> {
    vec![0x18, value]
}

fn text_of(scanned: &Scanned, column: &str, row: usize) -> Option<String> {
    let column = scanned.chunks[0].batch[column].as_string::<i32>().clone();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

#[test]
fn repeated_fields_merge_like_prost_merges_them() {
    let array = |elements: &[Vec<u8>]| field(5, &elements.iter().flat_map(|e| field(1, e)).collect::<Vec<_>>());
    let kvlist = |elements: &[Vec<u8>]| field(6, &elements.iter().flat_map(|e| field(1, e)).collect::<Vec<_>>());
    let one = array(&[int(1)]);
    let two = array(&[int(2), kvlist(&[])]);
    let pair = kvlist(&[key_value(b"k", &[one.clone(), two.clone()].concat())]);
    let values: &[Vec<u8>] = &[
        [one.clone(), two.clone()].concat(),
        [one.clone(), int(9), two.clone()].concat(),
        [one.clone(), two.clone(), pair.clone()].concat(),
        [pair.clone(), pair.clone(), one.clone(), two.clone(), one.clone()].concat(),
        [field(1, b"a"), field(1, b"b")].concat(),
        [field(1, b"a"), vec![0x40, 0x05]].concat(),
        [vec![0x40, 0x05], field(1, b"a")].concat(),
        array(&[[one.clone(), two.clone()].concat(), pair.clone()]),
        vec![],
    ];
    for first in values {
        for second in values {
            // Split within one AnyValue, over two bodies, over two values of one attribute, nested in a list.
            let records: &[Vec<u8>] = &[
                field(5, &[first.clone(), second.clone()].concat()),
                [field(5, first), vec![0x38, 1], field(5, second)].concat(),
                field(6, &[field(2, first), field(1, b"key"), field(2, second), field(1, b"other")].concat()),
                field(5, &kvlist(&[[field(2, first), field(2, second)].concat()])),
                field(
                    5,
                    &[one.clone(), array(std::slice::from_ref(first)), array(std::slice::from_ref(second))].concat(),
                ),
            ];
            for record in records {
                let request = request(std::slice::from_ref(record));
                let expected = ExportLogsServiceRequest::decode(&*request).unwrap();
                assert_eq!(decode::records(&scanned(&request)), canonical::records(&expected), "{record:x?}");
            }
        }
    }
}

#[test]
fn resource_scope_and_scalars_may_repeat_and_come_in_any_order() {
    let record = [field(3, b"first"), vec![0x10, 1], field(3, b"last"), vec![0x10, 17]].concat();
    let scope = |name: &[u8], key: &[u8]| [field(1, name), field(3, &key_value(key, &int(1)))].concat();
    let scope_logs = [field(3, b"url"), field(2, &record), field(1, &scope(b"a", b"x")), field(1, &scope(b"b", b"y"))];
    let resource = |key: &[u8]| field(1, &key_value(key, &field(1, b"v")));
    let resource_logs = [
        field(2, &scope_logs.concat()),
        field(1, &resource(b"service.name")),
        field(3, b"first"),
        field(1, &resource(b"host")),
        field(3, b"last"),
    ];
    let request = field(1, &resource_logs.concat());
    let expected = ExportLogsServiceRequest::decode(&*request).unwrap();
    let scanned = scanned(&request);
    assert_eq!(decode::records(&scanned), canonical::records(&expected));
    assert_eq!(text_of(&scanned, "service_name", 0).as_deref(), Some("v"));
    assert_eq!(text_of(&scanned, "resource_schema_url", 0).as_deref(), Some("last"));
    assert_eq!(text_of(&scanned, "severity_text", 0).as_deref(), Some("last"));
}

#[test]
fn unknown_fields_are_skipped_and_known_ones_need_their_wire_type() {
    let group = [0x9B, 0x06, 0x08, 0x01, 0x9C, 0x06]; // field 99
    let good: &[&[u8]] =
        &[&[], &group, &[0x22, 1, 0], &[0x20, 5], &[0xF8, 0x06, 1], &[0xFA, 0x06, 0], &[0x10, 0x80, 0]];
    for record in good {
        assert_eq!(scanned(&request(&[record.to_vec()])).accepted, 1, "{record:x?}");
    }
    let bad: &[&[u8]] = &[
        &[0x08, 1],                   // time as a varint
        &[0x0D, 0, 0, 0, 0],          // time as a fixed32
        &[0x12, 0],                   // severity number as bytes
        &[0x2B, 0x2C],                // body as a group
        &[0x30, 1],                   // attributes as a varint
        &[0x4D, 0, 0, 0, 0],          // trace id as a fixed32
        &[0x09, 0, 0, 0, 0, 0, 0, 0], // seven bytes of time
        &[0x2A, 2, 0x0A, 1],          // a string longer than its value
        &[0x2A, 2, 0x28, 1],          // an array as a varint
        &[0x32, 2, 0x10, 1],          // an attribute's value as a varint
        &[0x9B, 0x06],                // a group without end
        &[0x04],                      // an end without a group
        &[0x00],
        &[0x06],
        &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
        &[0x2A, 8, 0x2A, 4, 0x0A, 2, 0x28, 1, 0x10, 1], // a fault in a value that a later one replaces
    ];
    for record in bad {
        let schema = workspace();
        // The good record before it would add a column.
        let good = field(6, &key_value(b"k", &int(1)));
        let request = request(&[good, record.to_vec()]);
        assert!(ExportLogsServiceRequest::decode(&*request).is_err(), "prost takes it: {record:x?}");
        match scan_with_defaults(&request, &schema) {
            Err(ScanError::Undecodable { offset, .. }) => {
                assert!(
                    (17..=request.len()).contains(&offset),
                    "offset {offset} is not in the bad record: {record:x?}"
                );
            }
            other => panic!("{record:x?}: {other:?}"),
        }
        assert_eq!(schema.table_or_logs("logs").columns(), []);
    }
    assert!(matches!(scan_with_defaults(&[0x0A, 0x05], &workspace()), Err(ScanError::Undecodable { offset: 2, .. })));
}

#[test]
fn an_empty_request_gives_no_chunk() {
    for empty in [&[][..], &field(1, &[]), &field(1, &field(2, &[]))] {
        let scanned = scanned(empty);
        assert_eq!((scanned.chunks.len(), scanned.accepted, scanned.rejected), (0, 0, 0));
    }
}

#[test]
fn text_that_is_not_utf8_is_kept_as_bytes() {
    let bad = b"\xFFx";
    let record = [
        field(3, bad),
        field(12, bad),
        field(5, &field(1, bad)),
        field(6, &key_value(b"k", &field(1, bad))),
        field(6, &key_value(b"l", &field(5, &field(1, &field(1, bad))))),
    ]
    .concat();
    let resource = field(3, &[field(2, bad), field(3, bad)].concat());
    let scope = [field(1, bad), field(2, b"1")].concat();
    let scope_logs = [field(1, &scope), field(2, &record), field(3, bad)].concat();
    let request = field(1, &[field(1, &resource), field(2, &scope_logs), field(3, bad)].concat());
    let scanned = scanned(&request);
    assert_eq!((scanned.accepted, scanned.rejected, scanned.replaced_utf8), (1, 0, 3));
    assert_eq!(text_of(&scanned, "body", 0).as_deref(), Some(r#"{"bytesValue":"/3g="}"#));
    assert_eq!(text_of(&scanned, "body_kind", 0).as_deref(), Some("bytes"));
    for null in ["severity_text", "event_name", "scope_name", "scope_schema_url", "resource_schema_url"] {
        assert_eq!(text_of(&scanned, null, 0), None, "{null}");
    }
    let expected = serde_json::json!({
        "timeUnixNano": "0",
        "severityText": {"bytesValue": "/3g="},
        "eventName": {"bytesValue": "/3g="},
        "resource": {"entityRefs": [{"type": {"bytesValue": "/3g="}, "idKeys": [{"bytesValue": "/3g="}]}]},
        "resourceSchemaUrl": {"bytesValue": "/3g="},
        "scope": {"name": {"bytesValue": "/3g="}},
        "scopeSchemaUrl": {"bytesValue": "/3g="},
    });
    let overflow = text_of(&scanned, "overflow", 0).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&overflow).unwrap(), expected);
    let attributes = scanned.chunks[0].batch["attributes"].as_struct().clone();
    assert_eq!(attributes.column(0).as_binary::<i32>().value(0), bad);
    assert_eq!(
        attributes.column(1).as_string::<i32>().value(0),
        r#"{"arrayValue":{"values":[{"bytesValue":"/3g="}]}}"#
    );
}

#[test]
fn text_that_is_not_utf8_is_kept_as_bytes_where_no_column_takes_it() {
    // A key that is too long for a column.
    let key = [b'k'; 300];
    let record = |text: &[u8]| field(6, &key_value(&key, &field(1, text)));
    let scanned = scanned(&request(&[record(b"a"), record(b"\xFF")]));
    assert_eq!((scanned.accepted, scanned.replaced_utf8), (2, 1));
    for (row, value) in [r#"{"stringValue":"a"}"#, r#"{"bytesValue":"/w=="}"#].into_iter().enumerate() {
        assert!(text_of(&scanned, "overflow", row).unwrap().contains(value), "{row}");
    }
}

#[test]
fn the_kind_of_a_column_is_that_of_the_first_value_also_when_texts_are_not_utf8() {
    let record = |text: &[u8]| field(6, &key_value(b"k", &field(1, text)));
    for (first, second, kind) in
        [(&b"\xFF"[..], &b"a"[..], AttributeKind::Bytes), (b"a", b"\xFF", AttributeKind::String)]
    {
        let schema = workspace();
        let request = request(&[record(first), record(second)]);
        let scanned = scan_with_defaults(&request, &schema).expect("decodable");
        let columns = schema.tables()[0].columns();
        assert_eq!(columns.iter().map(|column| column.kind).collect::<Vec<_>>(), [kind]);
        // The other one is of another kind.
        let attributes = scanned.chunks[0].batch["attributes"].as_struct().clone();
        assert_eq!([0, 1].map(|row| attributes.column(0).is_valid(row)), [true, false]);
        let overflow = text_of(&scanned, "overflow", 1).unwrap_or_default();
        assert!(overflow.contains(r#""key":"k""#), "{overflow}");
    }
}

#[test]
fn keys_that_are_not_utf8_reject_their_records_alone() {
    let bad_key = key_value(b"\xFF", &int(1));
    let good = field(6, &key_value(b"k", &int(1)));
    let nested = field(5, &field(6, &field(1, &bad_key)));
    let scanned_records = scanned(&request(&[good.clone(), field(6, &bad_key), nested, good.clone()]));
    assert_eq!((scanned_records.accepted, scanned_records.rejected), (2, 2));
    let reason = scanned_records.rejection.clone().unwrap();
    assert!(reason.starts_with("log record 1 of the request"), "{reason}");
    assert!(reason.contains("log record 2") && reason.contains("UTF-8"), "{reason}");

    // In a resource or a scope it rejects all records under it, and only those.
    let scope_logs = |scope: &[u8]| field(2, &[field(1, scope), field(2, &good), field(2, &good)].concat());
    let resource_logs = |resource: &[u8], scopes: &[Vec<u8>]| field(1, &[field(1, resource), scopes.concat()].concat());
    let request = [
        resource_logs(&field(1, &bad_key), &[scope_logs(&[]), scope_logs(&[])]),
        resource_logs(&[], &[scope_logs(&field(3, &bad_key)), scope_logs(&[])]),
    ];
    let scanned = scanned(&request.concat());
    assert_eq!((scanned.accepted, scanned.rejected), (2, 6));
    assert!(scanned.rejection.unwrap().ends_with("3 more were rejected"));
}

#[test]
fn a_rejected_record_leaves_no_column_and_no_table() {
    let record = [field(6, &key_value(b"k", &int(1))), field(6, &key_value(b"\xFF", &int(1)))].concat();
    let resource = field(1, &key_value(b"logseal.table", &field(1, b"other")));
    let request = field(1, &[field(1, &resource), field(2, &field(2, &record))].concat());
    let schema = workspace();
    let scanned = scan_with_defaults(&request, &schema).unwrap();
    assert_eq!((scanned.chunks.len(), scanned.rejected), (0, 1));
    assert_eq!(schema.tables().len(), 1);
    assert_eq!(schema.table_or_logs("logs").columns(), []);
}

#[test]
fn string_references_are_absent_and_counted() {
    let record = [
        field(5, &[0x40, 5]),
        field(6, &[field(1, b"k"), field(2, &[0x40, 5])].concat()),
        field(6, &[vec![0x18, 7], field(2, &int(1))].concat()),
    ];
    let scanned = scanned(&request(&[record.concat()]));
    assert_eq!((scanned.accepted, scanned.ignored_string_references), (1, 3));
    assert_eq!(text_of(&scanned, "body_kind", 0).as_deref(), Some("empty"));
    let overflow = text_of(&scanned, "overflow", 0).unwrap();
    assert_eq!(overflow, r#"{"attributes":[{"key":"k"},{"key":"","value":{"intValue":"1"}}],"timeUnixNano":"0"}"#);
}
