//! Properties: nothing is lost, nothing panics, and prost agrees about what can be decoded.

use logseal_core::UnixNanos;
use logseal_otlp::{ScanLimits, SchemaLimits, WorkspaceSchema, merge, scan};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::wire_edges::field;
use crate::{RECEIVED, canonical, decode, generate, scan_with_defaults, workspace};

/// Limits that are reached, so that `overflow` and second chunks are exercised.
fn tight() -> (WorkspaceSchema, ScanLimits) {
    let schema = WorkspaceSchema::new(SchemaLimits { tables: 9, attribute_columns: 5, key_bytes: 16 });
    (schema, ScanLimits { null_cells: 12, ..ScanLimits::default() })
}

/// A change of some bytes: where, how many go, and what comes instead.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    (any::<prop::sample::Index>(), 0..3_usize, proptest::collection::vec(any::<u8>(), 0..3))
}

fn agree(bytes: &[u8]) {
    let schema = workspace();
    let scanned = scan_with_defaults(bytes, &schema);
    match (ExportLogsServiceRequest::decode(bytes), scanned) {
        (Ok(request), Ok(scanned)) => {
            assert_eq!(scanned.rejected, 0, "{:?}", scanned.rejection);
            assert_eq!(decode::records(&scanned), canonical::records(&request));
        }
        (Err(_), Err(_)) => {
            let columns: usize = schema.tables().iter().map(|table| table.columns().len()).sum();
            assert_eq!((schema.tables().len(), columns), (1, 0), "an undecodable request left a trace");
        }
        (Ok(_), Err(error)) => panic!("prost decodes it, the scan does not: {error}"),
        (Err(error), Ok(_)) => {
            let error = error.to_string();
            let allowed = error.contains("UTF-8") || error.contains("recursion limit");
            assert!(allowed, "the scan decodes it, prost does not: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_scanned_can_be_read_back(requests in proptest::collection::vec(generate::request(), 1..3)) {
        let (tight_schema, tight_limits) = tight();
        let schema = workspace();
        for request in requests {
            let bytes = request.encode_to_vec();
            let expected = canonical::records(&request);
            for (schema, limits) in [(&schema, ScanLimits::default()), (&tight_schema, tight_limits)] {
                let scanned = scan(&bytes, schema, RECEIVED, &limits).unwrap();
                prop_assert_eq!((scanned.rejected, scanned.rejection.as_ref()), (0, None));
                let count: usize = expected.values().map(Vec::len).sum();
                prop_assert_eq!(scanned.accepted, count as u64);
                prop_assert_eq!(&decode::records(&scanned), &expected);
            }
            for table in tight_schema.tables() {
                prop_assert!(table.columns().len() <= 5);
            }
        }
    }

    #[test]
    fn a_text_that_is_not_utf8_changes_nothing_for_others(request in generate::request()) {
        let bad = field(1, b"\xFF");
        let table = [field(1, b"logseal.table"), field(2, &field(1, b"bad"))].concat();
        let resource = field(1, &field(1, &table));
        let record = [field(5, &bad), field(6, &[field(1, b"k"), field(2, &bad)].concat())].concat();
        let with_bad = field(1, &[resource, field(2, &field(2, &record))].concat());
        let scanned = scan_with_defaults(&[request.encode_to_vec(), with_bad].concat(), &workspace()).unwrap();
        prop_assert_eq!(scanned.replaced_utf8, 2);
        let mut records = decode::records(&scanned);
        let bad = records.remove("bad").unwrap_or_default();
        prop_assert_eq!(bad.len(), 1);
        prop_assert_eq!(&records, &canonical::records(&request));
    }

    #[test]
    fn merged_chunks_hold_the_same_records(requests in proptest::collection::vec(generate::request(), 1..4)) {
        let schema = workspace();
        let mut batches = Vec::new();
        let mut expected = Vec::new();
        for request in requests {
            let scanned = scan_with_defaults(&request.encode_to_vec(), &schema).unwrap();
            for chunk in scanned.chunks.into_iter().filter(|chunk| chunk.schema.name().as_str() == "logs") {
                expected.extend(decode::batch_records(&chunk.batch));
                batches.push(chunk.batch);
            }
        }
        prop_assert_eq!(decode::batch_records(&merge(&batches).unwrap()), expected);
    }

    #[test]
    fn damaged_requests_are_judged_like_prost_judges_them(
        request in generate::request(),
        changes in proptest::collection::vec(change(), 1..4),
        cut in proptest::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut bytes = request.encode_to_vec();
        for (at, gone, new) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, new);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        agree(&bytes);
    }

    #[test]
    fn single_changed_bits_are_judged_like_prost_judges_them(
        request in generate::request(),
        bits in proptest::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let bytes = request.encode_to_vec();
        for bit in bits.into_iter().filter(|_| !bytes.is_empty()) {
            let bit = bit.index(bytes.len() * 8);
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            agree(&bytes);
        }
    }

    #[test]
    fn any_bytes_are_judged_like_prost_judges_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        agree(&bytes);
    }

    #[test]
    fn any_record_bytes_are_judged_like_prost_judges_them(
        bytes in proptest::collection::vec(
            prop_oneof![
                // Keys of known fields and small lengths: random bytes alone nearly always end at once.
                4 => prop_oneof![Just(0x0A), Just(0x12), Just(0x1A), Just(0x2A), Just(0x32), Just(0x3A), Just(0x18)],
                4 => 0..6_u8,
                1 => any::<u8>(),
            ],
            0..24,
        ),
        field in prop_oneof![Just(0x2A_u8), Just(0x32)],
    ) {
        let wrap = |key: u8, inner: &[u8]| [&[key, inner.len() as u8], inner].concat();
        // In a record's body or attribute, twice, so that merging is tried too.
        let value = wrap(field, &bytes);
        agree(&wrap(0x0A, &wrap(0x12, &wrap(0x12, &[value.clone(), value].concat()))));
    }
}

#[test]
fn the_received_time_may_be_anything() {
    for nanos in [i64::MIN, -1, 0, i64::MAX] {
        let scanned =
            scan(&[0x0A, 4, 0x12, 2, 0x12, 0], &workspace(), UnixNanos(nanos), &ScanLimits::default()).unwrap();
        assert_eq!((scanned.chunks[0].min_time, scanned.chunks[0].max_time), (UnixNanos(nanos), UnixNanos(nanos)));
    }
}
