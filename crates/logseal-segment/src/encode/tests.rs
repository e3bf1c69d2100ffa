//! Sealing: what goes in comes out with the key, nothing comes out without it, and no byte is in clear.

use std::io::Cursor;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field};
use logseal_core::{AekId, TableName, WalFileId};
use logseal_crypto::{Dek, Key256, Lease};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::*;
use crate::inspect::inspect;
use crate::properties::decryption_properties;
use crate::{FooterColumn, FooterCoverage};

const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);
pub(crate) const CANARY: &str = "CANARY-7f3b9c";

pub(crate) fn aek() -> Aek {
    Aek::new(AekId::from_bytes([5; 16]), WORKSPACE, 1, Key256::copy_from_slice(&[9; 32]).unwrap(), Lease::unlimited())
}

pub(crate) fn identity() -> SegmentIdentity {
    SegmentIdentity {
        cluster: ClusterId::from_bytes([1; 16]),
        workspace: WORKSPACE,
        table: TableId::from_bytes([3; 16]),
        segment: SegmentId::from_bytes([4; 16]),
        received: UnixNanos(0),
    }
}

pub(crate) fn prefix() -> aad::Aad {
    aad::segment_file(identity().workspace, identity().table, identity().segment)
}

/// Rows `from..to` with an attribute named after the canary and `key`.
pub(crate) fn chunk(from: i64, to: i64, key: &str) -> RecordBatch {
    let text: ArrayRef = Arc::new((from..to).map(|i| Some(format!("{CANARY} value {i}"))).collect::<StringArray>());
    let child = Field::new(format!("{CANARY}.{key}"), DataType::Utf8, true);
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef),
        ("body", Arc::clone(&text)),
        ("attributes", Arc::new(StructArray::from(vec![(Arc::new(child), text)])) as ArrayRef),
    ])
    .unwrap()
}

/// A footer for `chunks` with names made of the canary.
pub(crate) fn footer(chunks: &[RecordBatch]) -> SegmentFooter {
    let SegmentIdentity { cluster, workspace, table, segment, .. } = identity();
    let column = |ordinal| FooterColumn { ordinal, container: 2, kind: 1, key: format!("{CANARY}.column.{ordinal}") };
    SegmentFooter {
        cluster,
        workspace,
        workspace_name: format!("{CANARY}-workspace"),
        table,
        table_name: TableName::parse("CANARY_7f3b9c_table").unwrap(),
        aek: aek().id(),
        aek_generation: 1,
        segment,
        rows: chunks.iter().map(|chunk| chunk.num_rows() as u64).sum(),
        min_time: UnixNanos(i64::MIN),
        max_time: UnixNanos(i64::MAX),
        created: UnixNanos(7),
        columns: (0..40).map(column).collect(),
        coverage: vec![FooterCoverage { file: WalFileId::from_bytes([6; 16]), first: 1, last: u64::MAX }],
    }
}

/// A sealed segment in one piece.
pub(crate) struct Sealed {
    pub(crate) file: Bytes,
    pub(crate) rows: u64,
    pub(crate) wrapped: WrappedDek,
}

impl From<SealedSegment> for Sealed {
    fn from(segment: SealedSegment) -> Self {
        Self { file: segment.file.into(), rows: segment.rows, wrapped: segment.wrapped }
    }
}

pub(crate) fn sealed(chunks: &[RecordBatch], row_group_bytes: usize) -> (Sealed, Dek) {
    let aek = aek();
    let settings = SegmentSettings { row_group_bytes, ..SegmentSettings::default() };
    let sealed = seal(&identity(), &aek, chunks, &footer(chunks), &settings, OsRandom).unwrap();
    let dek = aek.unwrap_dek(identity().segment, &sealed.wrapped, sealed.commitment).unwrap();
    (sealed.into(), dek)
}

fn read(file: Bytes, dek: &Dek, wrapped: &WrappedDek, aad: &aad::Aad) -> Result<(RecordBatch, usize), String> {
    let properties = decryption_properties(dek, wrapped, aad).unwrap();
    let options = ArrowReaderOptions::new().with_file_decryption_properties(properties);
    // The reader of parquet 59 may panic on damaged bytes; callers contain it, and so does this test.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|e| e.to_string())?;
        let groups = builder.metadata().num_row_groups();
        let schema = Arc::clone(builder.schema());
        let batches = builder.build().map_err(|e| e.to_string())?.collect::<Result<Vec<_>, _>>();
        Ok((concat_batches(&schema, &batches.map_err(|e| e.to_string())?).unwrap(), groups))
    }))
    .unwrap_or_else(|_| Err("panicked".to_owned()))
}

/// Guarantee: what is measured against sealing is the same but for the seals: 28 bytes a module, and the key's metadata.
#[test]
fn as_many_bytes_are_made_without_sealing() {
    let chunks = [chunk(0, 50_000, "a")];
    let unsealed =
        count_unsealed_bytes(&identity(), &aek(), &chunks, &footer(&chunks), &SegmentSettings::default(), OsRandom);
    let (unsealed, sealed) = (unsealed.unwrap(), sealed(&chunks, SegmentSettings::default().row_group_bytes).0);
    assert!(unsealed < sealed.file.len() && sealed.file.len() < unsealed + 10_000, "{unsealed}");
}

#[test]
fn rows_come_back_in_order_over_several_chunks_and_row_groups() {
    let chunks = [chunk(0, 5000, "a"), chunk(5000, 5010, "b"), chunk(5010, 9000, "a")];
    let (sealed, dek) = sealed(&chunks, 200_000);
    assert_eq!(sealed.rows, 9000);
    let (batch, groups) = read(sealed.file, &dek, &sealed.wrapped, &prefix()).unwrap();
    assert!(groups > 3, "{groups} row groups");
    let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
    assert_eq!(ids, (0..9000).collect::<Vec<_>>());
    let attributes = batch.column_by_name("attributes").unwrap().as_struct();
    assert_eq!(attributes.num_columns(), 2);
    assert_eq!(attributes.column(1).as_string::<i32>().value(5005), format!("{CANARY} value 5005"));
    assert!(attributes.column(0).is_null(5005) && attributes.column(1).is_null(0));
}

#[test]
fn no_text_of_the_rows_is_in_the_file() {
    let (sealed, _) = sealed(&[chunk(0, 3000, "a")], 1 << 24);
    let found = |needle: &[u8]| sealed.file.windows(needle.len()).any(|window| window == needle);
    assert!(!found(CANARY.as_bytes()), "values and attribute names");
    assert!(!found(b"attributes") && !found(b"body"), "names of columns");
    assert!(!found(b"CANARY_7f3b9c_table") && !found(b"logseal.segment"), "what the segment says about itself");
    assert!(!found(b"workspace_name") && !found(b"coverage"), "and the words in which it does");
    let names_in_clear = [identity().table.to_string(), WalFileId::from_bytes([6; 16]).to_string()];
    assert!(names_in_clear.iter().all(|id| !found(id.as_bytes())), "and the ids in it");
    assert!(found(b"PKMT1"), "the search itself works");
}

#[test]
fn wrong_key_wrong_prefix_and_any_flipped_bit_are_refused() {
    let (sealed, dek) = sealed(&[chunk(0, 300, "a")], 1 << 24);
    let (other, _) = aek().new_dek(identity().segment, OsRandom).unwrap();
    assert!(read(sealed.file.clone(), &other, &sealed.wrapped, &prefix()).is_err(), "another key");
    let elsewhere = aad::segment_file(WORKSPACE, identity().table, SegmentId::from_bytes([99; 16]));
    assert!(
        read(sealed.file.clone(), &dek, &sealed.wrapped, &elsewhere).is_err(),
        "another segment's prefix, although the file states its own"
    );

    let (pristine, _) = read(sealed.file.clone(), &dek, &sealed.wrapped, &prefix()).unwrap();
    for index in (0..sealed.file.len()).step_by(7) {
        let mut altered = sealed.file.to_vec();
        altered[index] ^= 0x20;
        let outcome = read(altered.into(), &dek, &sealed.wrapped, &prefix());
        // A flipped bit may also hit bytes that no reader needs (the stored prefix); then the rows are untouched.
        if let Ok((batch, _)) = outcome {
            assert_eq!(batch, pristine, "byte {index} changed the rows");
        }
    }
}

#[test]
fn a_flipped_bit_in_any_page_or_its_header_is_refused() {
    let (sealed, dek) = sealed(&[chunk(0, 300, "a")], 1 << 24);
    let layout = inspect(&mut Cursor::new(sealed.file.to_vec())).unwrap();
    // The ciphertext of each module: data pages and their headers. Indexes at the end are not needed for a full read.
    let mut position = 4_usize;
    let mut refused = 0;
    for _ in 0..layout.modules {
        let length = u32::from_le_bytes(sealed.file[position..position + 4].try_into().unwrap()) as usize;
        let mut altered = sealed.file.to_vec();
        altered[position + 4 + length / 2] ^= 1;
        refused += u64::from(read(altered.into(), &dek, &sealed.wrapped, &prefix()).is_err());
        position += 4 + length;
    }
    let leaves = 3;
    assert!(
        refused >= leaves * 2,
        "{refused} of {} modules: at least a header and a page of each column",
        layout.modules
    );
}

#[test]
fn altered_key_metadata_are_refused_although_they_are_outside_the_encryption() {
    let (sealed, dek) = sealed(&[chunk(0, 30, "a")], 1 << 24);
    let layout = inspect(&mut Cursor::new(sealed.file.to_vec())).unwrap();
    let clear = serde_json::to_vec(&layout.key_metadata).unwrap();
    let at = sealed.file.windows(clear.len()).position(|window| window == clear).unwrap();
    for index in at..at + clear.len() {
        let mut altered = sealed.file.to_vec();
        altered[index] ^= 1;
        assert!(read(altered.into(), &dek, &sealed.wrapped, &prefix()).is_err(), "byte {index}");
    }
}

#[test]
fn inspection_shows_ids_and_layout_and_refuses_everything_else() {
    let (sealed, _) = sealed(&[chunk(0, 300, "a")], 1 << 24);
    let shown = inspect(&mut Cursor::new(sealed.file.to_vec())).unwrap();
    assert_eq!(shown.bytes, sealed.file.len() as u64);
    assert_eq!(shown.aek_id, AekId::from_bytes([5; 16]).to_string());
    assert_eq!(shown.segment_id, identity().segment.to_string());
    assert_eq!(shown.aad_prefix, data_encoding::HEXLOWER.encode(prefix().as_bytes()));
    assert!(shown.modules >= 6 && shown.encrypted_footer_bytes > 100, "{shown:?}");

    let refused = |bytes: Vec<u8>| inspect(&mut Cursor::new(bytes)).is_err();
    for length in [0, 4, 11, 12, sealed.file.len() - 1] {
        assert!(refused(sealed.file[..length].to_vec()), "cut at {length}");
    }
    let mut long_footer = sealed.file.to_vec();
    let at = long_footer.len() - 8;
    long_footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(long_footer), "a footer longer than the file");
    let mut long_module = sealed.file.to_vec();
    long_module[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(long_module), "a module longer than the file");
    assert!(refused(b"PAR1 not encrypted PAR1".to_vec()));
}

#[test]
fn every_segment_has_a_key_of_its_own() {
    let chunk = [chunk(0, 10, "a")];
    let (first, first_dek) = sealed(&chunk, 1 << 24);
    let (second, second_dek) = sealed(&chunk, 1 << 24);
    assert!(!first_dek.key().unwrap().ct_eq(second_dek.key().unwrap()));
    assert_ne!(first.file, second.file);
}

/// Scenario: a segment grows by three calls; between them rows with an unknown column are refused, and rows are encoded that are never
/// added. Guarantee: the file has what was added, in order, and nothing else.
#[test]
fn a_segment_has_what_was_added_and_nothing_else() {
    let aek = aek();
    let parts = [chunk(0, 100, "a"), chunk(100, 150, "b"), chunk(150, 400, "a")];
    let schema = union_schema(parts.iter().map(RecordBatch::schema_ref)).unwrap();
    let mut writer =
        SegmentWriter::begin(identity(), &aek, schema, &[], &SegmentSettings::default(), OsRandom).unwrap();
    let mut bytes = writer.memory_bytes();
    for part in &parts {
        let unknown = [part.clone(), chunk(0, 10, "c")];
        assert!(!writer.takes(&unknown));
        assert!(matches!(writer.encode(&unknown), Err(SegmentError::Schema(_))));
        drop(writer.encode(&[chunk(7000, 9000, "a")]).unwrap());
        let rows = writer.encode(std::slice::from_ref(part)).unwrap();
        writer.append(rows).unwrap();
        assert!(writer.memory_bytes() > bytes);
        bytes = writer.memory_bytes();
    }
    assert!(!format!("{writer:?}").contains(&format!("{:?}", writer.dek.key().unwrap().expose())));
    let sealed = writer.finish(&footer(&parts)).unwrap();
    let dek = aek.unwrap_dek(identity().segment, &sealed.wrapped, sealed.commitment).unwrap();
    let (batch, groups) = read(sealed.file.into(), &dek, &sealed.wrapped, &prefix()).unwrap();
    let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
    assert_eq!((ids, groups), ((0..400).collect::<Vec<_>>(), 3));
}

#[test]
fn a_footer_that_counts_other_rows_is_refused() {
    let parts = [chunk(0, 100, "a")];
    let mut writer = SegmentWriter::begin(
        identity(),
        &aek(),
        Arc::clone(parts[0].schema_ref()),
        &parts,
        &SegmentSettings::default(),
        OsRandom,
    )
    .unwrap();
    let rows = writer.encode(&parts).unwrap();
    writer.append(rows).unwrap();
    assert!(matches!(writer.finish(&footer(&[])), Err(SegmentError::Footer(_))));
}

/// Scenario: many chunks of a few rows, with columns that come and go. Guarantee: they come back like any others, in as few row groups as
/// their values need.
#[test]
fn small_chunks_are_joined() {
    let chunks: Vec<_> = (0..2000).map(|i| chunk(i * 3, i * 3 + 3, ["a", "b"][i as usize % 2])).collect();
    let bytes = chunks.iter().map(row_group_share).sum::<usize>();
    let (sealed, dek) = sealed(&chunks, bytes / 3);
    let (batch, groups) = read(sealed.file, &dek, &sealed.wrapped, &prefix()).unwrap();
    let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
    assert_eq!((ids, groups), ((0..6000).collect::<Vec<_>>(), 4));
    let attributes = batch.column_by_name("attributes").unwrap().as_struct();
    for row in [0, 3, 5996, 5999] {
        let [a, b] = [0, 1].map(|column| attributes.column(column).is_null(row));
        assert_eq!((a, b), (row / 3 % 2 == 1, row / 3 % 2 == 0), "row {row}");
    }
}
