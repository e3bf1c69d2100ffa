//! Which encoding each column of a segment gets, by its type and by a sample of its values.
//!
//! | type | values | encoding | statistics |
//! | --- | --- | --- | --- |
//! | time | any | delta, bit-packed | pages |
//! | 32-bit number, boolean | any | plain | pages |
//! | 64-bit integer | that repeat | dictionary | pages |
//! | | others | delta, bit-packed | pages |
//! | 64-bit float | that repeat | dictionary | pages |
//! | | others | split by byte | pages |
//! | text, bytes | that repeat | dictionary | pages |
//! | | others | lengths apart, delta | none |
//!
//! A dictionary of values that do not repeat costs a look-up for each and then takes more room than the values alone; least and greatest
//! of such texts cost two comparisons for each and keep hardly any page from being read. How fast and how small each choice is:
//! `benches/RESULTS.md`, "Encodings". A dictionary of one value, and a column without any, are not compressed: there is nothing to gain, and a compressor
//! costs as much for each column of each row group as some hundred values. All of them may be in pages of version 1 (Parquet's `Encodings.md`), so that every reader has them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use parquet::basic::Encoding;
use parquet::schema::types::ColumnPath;

/// Values of a column that are looked at, at the most.
const SAMPLED: usize = 512;

/// With fewer values nothing can be said, and little is at stake.
const SAMPLED_AT_LEAST: usize = 64;

/// How a column is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ColumnEncoding {
    /// Which column.
    pub(crate) path: ColumnPath,
    /// The encoding; with a dictionary what follows it once it is full.
    pub(crate) encoding: Encoding,
    /// Whether it begins with a dictionary.
    pub(crate) dictionary: bool,
    /// Whether pages say their least and greatest value.
    pub(crate) statistics: bool,
    /// Whether pages are compressed.
    pub(crate) compressed: bool,
}

/// The encoding of each leaf column of `schema`, given rows that are like those to come. The columns of `sample` may be any of those of
/// the schema.
pub(crate) fn choose(schema: &SchemaRef, sample: &[RecordBatch]) -> Vec<ColumnEncoding> {
    let mut chosen = Vec::new();
    for field in schema.fields() {
        let columns: Vec<&ArrayRef> = sample.iter().filter_map(|batch| batch.column_by_name(field.name())).collect();
        match field.data_type() {
            DataType::Struct(children) => {
                for child in children {
                    let of_child = |column: &&ArrayRef| column.as_struct_opt()?.column_by_name(child.name()).cloned();
                    let values: Vec<ArrayRef> = columns.iter().filter_map(of_child).collect();
                    let path = ColumnPath::new(vec![field.name().clone(), child.name().clone()]);
                    chosen.push(encoding(path, child.data_type(), &values));
                }
            }
            data_type => {
                let values: Vec<ArrayRef> = columns.into_iter().map(Arc::clone).collect();
                chosen.push(encoding(ColumnPath::from(field.name().as_str()), data_type, &values));
            }
        }
    }
    chosen
}

fn encoding(path: ColumnPath, data_type: &DataType, values: &[ArrayRef]) -> ColumnEncoding {
    let variety = variety(values);
    let (encoding, dictionary, statistics) = match data_type {
        DataType::Timestamp(..) => (Encoding::DELTA_BINARY_PACKED, false, true),
        DataType::Int64 | DataType::Float64 | DataType::Utf8 | DataType::Binary if variety != Variety::Many => {
            // What follows a full dictionary is made ready before it is known whether it is needed: for delta encodings that is a
            // mebibyte for each column of each row group.
            (Encoding::PLAIN, true, true)
        }
        DataType::Int64 => (Encoding::DELTA_BINARY_PACKED, false, true),
        DataType::Float64 => (Encoding::BYTE_STREAM_SPLIT, false, true),
        DataType::Utf8 | DataType::Binary => (Encoding::DELTA_LENGTH_BYTE_ARRAY, false, false),
        _ => (Encoding::PLAIN, false, true),
    };
    ColumnEncoding { path, encoding, dictionary, statistics, compressed: variety != Variety::One }
}

/// How different the values of a column are, as far as a sample shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variety {
    /// There is one, or none.
    One,
    /// At least every other one is equal to another one, or nothing can be said, as of types that have no dictionary.
    Few,
    /// Most are found once only.
    Many,
}

fn variety(arrays: &[ArrayRef]) -> Variety {
    let rows: usize = arrays.iter().map(|array| array.len()).sum();
    let values: usize = arrays.iter().map(valid).sum();
    match values {
        0 if rows >= SAMPLED_AT_LEAST => return Variety::One,
        ..SAMPLED_AT_LEAST => return Variety::Few,
        _ => {}
    }
    // At regular distances over all rows: what follows each other is alike more often than the whole. Of few rows a part: they are to cost less as well.
    let step = values.div_ceil((values / 4).clamp(2 * SAMPLED_AT_LEAST, SAMPLED));
    let seen = values.div_ceil(step);
    let (state, mut distinct, mut passed, mut last) = (RandomState::new(), HashSet::new(), 0_usize, None);
    let sampled = arrays.iter().flat_map(|array| {
        // How many of this array lie before its first one at such a distance.
        let before = passed.next_multiple_of(step) - passed;
        passed += valid(array);
        valid_rows(array).skip(before).step_by(step).map(move |row| (array, row))
    });
    for (array, row) in sampled {
        let Some(value) = value(array, row) else { return Variety::Few };
        if last.replace(value) == Some(value) {
            continue;
        }
        // A collision would count two values as one: one in 2^54 for so few.
        distinct.insert(state.hash_one(value));
        if distinct.len() > seen / 2 {
            return Variety::Many;
        }
    }
    if distinct.len() == 1 { Variety::One } else { Variety::Few }
}

/// A value of a column that may have a dictionary.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// The value of a row that is not null; `None` for types that have no dictionary.
fn value(array: &ArrayRef, row: usize) -> Option<Value<'_>> {
    Some(match array.data_type() {
        DataType::Utf8 => Value::Bytes(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row)),
        DataType::Int64 => Value::Number(array.as_primitive::<Int64Type>().value(row).cast_unsigned()),
        DataType::Float64 => Value::Number(array.as_primitive::<Float64Type>().value(row).to_bits()),
        _ => return None,
    })
}

fn valid(array: &ArrayRef) -> usize {
    array.len() - array.null_count()
}

/// The rows that are not null.
fn valid_rows(array: &ArrayRef) -> impl Iterator<Item = usize> {
    let (all, some) = match array.nulls() {
        None => (Some(0..array.len()), None),
        Some(nulls) => (None, Some(nulls.valid_indices())),
    };
    all.into_iter().flatten().chain(some.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, StructArray, TimestampNanosecondArray};
    use arrow::datatypes::Field;

    use super::*;

    /// A column of each kind, once with values that repeat and once without.
    fn sample(rows: usize) -> RecordBatch {
        let text = |count: usize| -> ArrayRef {
            Arc::new((0..rows).map(|row| Some(format!("value {}", row % count))).collect::<StringArray>())
        };
        let int = |count: usize| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (row % count) as i64)))
        };
        let float = |count: usize| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values((0..rows).map(|row| (row % count) as f64)))
        };
        let attributes = [("few", text(3)), ("many", text(rows)), ("few numbers", int(5)), ("many numbers", int(rows))];
        let attributes: Vec<_> = attributes
            .into_iter()
            .map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array))
            .collect();
        RecordBatch::try_from_iter([
            ("time", Arc::new(TimestampNanosecondArray::from_iter_values(0..rows as i64)) as ArrayRef),
            ("severity_number", Arc::new(Int32Array::from(vec![9; rows]))),
            ("few floats", float(2)),
            ("many floats", float(rows)),
            ("attributes", Arc::new(StructArray::from(attributes))),
        ])
        .unwrap()
    }

    fn shown(schema: &SchemaRef, sample: &[RecordBatch]) -> Vec<(String, Encoding, bool, bool)> {
        let chosen = choose(schema, sample).into_iter();
        chosen.map(|column| (column.path.string(), column.encoding, column.dictionary, column.statistics)).collect()
    }

    fn uncompressed(rows: &RecordBatch) -> Vec<String> {
        let chosen = choose(&rows.schema(), std::slice::from_ref(rows)).into_iter();
        chosen.filter(|column| !column.compressed).map(|column| column.path.string()).collect()
    }

    /// Scenario: columns with one value, with none, with one that is mostly missing, with two, with many, and numbers that have no dictionary; then too few rows
    /// of all. Guarantee: where a dictionary has one value, or a column none, nothing is compressed; everything else is.
    #[test]
    fn what_has_one_value_or_none_is_not_compressed() {
        let rows = |rows: usize| {
            let text = |value: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
                Arc::new((0..rows).map(value).collect::<StringArray>())
            };
            let columns: [(&str, ArrayRef); 8] = [
                ("one", text(&|_| Some("equal".to_owned()))),
                ("none", text(&|_| None)),
                ("no time", Arc::new(TimestampNanosecondArray::from(vec![None; rows]))),
                ("seldom", text(&|row| (row % 100 == 7).then(|| "equal".to_owned()))),
                ("two", text(&|row| Some(format!("{}", row / (rows / 2))))),
                ("many", text(&|row| Some(format!("{row}")))),
                ("one number", Arc::new(Int64Array::from(vec![9; rows]))),
                ("short number", Arc::new(Int32Array::from(vec![9; rows]))),
            ];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
        };
        assert_eq!(uncompressed(&rows(3000)), ["one", "none", "no time", "one number"]);
        assert!(uncompressed(&rows(SAMPLED_AT_LEAST - 1)).is_empty());
    }

    #[test]
    fn values_that_repeat_get_a_dictionary_and_others_the_encoding_of_their_type() {
        let rows = sample(3000);
        let schema = rows.schema();
        // In several chunks, as rows come.
        let chunks: Vec<RecordBatch> = (0..3).map(|chunk| rows.slice(chunk * 1000, 1000)).collect();
        let expected = [
            ("time", Encoding::DELTA_BINARY_PACKED, false, true),
            ("severity_number", Encoding::PLAIN, false, true),
            ("few floats", Encoding::PLAIN, true, true),
            ("many floats", Encoding::BYTE_STREAM_SPLIT, false, true),
            ("attributes.few", Encoding::PLAIN, true, true),
            ("attributes.many", Encoding::DELTA_LENGTH_BYTE_ARRAY, false, false),
            ("attributes.few numbers", Encoding::PLAIN, true, true),
            ("attributes.many numbers", Encoding::DELTA_BINARY_PACKED, false, true),
        ];
        let chosen = shown(&schema, &chunks);
        let chosen: Vec<_> = chosen
            .iter()
            .map(|(path, encoding, of_values, pages)| (path.as_str(), *encoding, *of_values, *pages))
            .collect();
        assert_eq!(chosen, expected);
    }

    /// Scenario: too few values, or none of a column. Guarantee: a dictionary, which Parquet leaves by itself when it grows.
    #[test]
    fn what_is_not_known_begins_with_a_dictionary() {
        let rows = sample(SAMPLED_AT_LEAST - 1);
        for sample in [&[rows.clone()][..], &[]] {
            let chosen = shown(&rows.schema(), sample);
            let many = chosen.iter().find(|(path, ..)| path == "attributes.many").expect("a column");
            assert!(many.2 && many.3, "{many:?}");
        }
    }
}
