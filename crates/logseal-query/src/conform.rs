//! Unsealed batches joined and brought under a table's schema.
//!
//! A batch has the attributes that occur in it, in a table that may have thousands of them; and it may have ten rows. So
//! joining copies only what batches have, and all columns of nulls share their memory.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, MutableArrayData, NullArray, NullBufferBuilder, RecordBatch, RecordBatchOptions,
    StructArray, make_array, new_null_array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

/// Some rows of a batch: the columns of one schema, as far as the batch has them.
#[derive(Clone)]
pub(crate) struct Piece {
    columns: Vec<Option<ArrayRef>>,
    rows: usize,
    bytes: usize,
    /// Whether the rows are only a part of what the columns' buffers hold.
    part: bool,
}

impl Piece {
    /// The columns of `batch` that `schema` has.
    pub(crate) fn select(batch: &RecordBatch, schema: &Schema) -> Self {
        let column = |name: &str| batch.column_by_name(name).filter(|column| column.data_type() != &DataType::Null);
        let columns: Vec<_> = schema.fields().iter().map(|field| column(field.name()).map(Arc::clone)).collect();
        let bytes = columns.iter().flatten().map(|column| column.get_array_memory_size()).sum();
        Self { columns, rows: batch.num_rows(), bytes, part: false }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that the rows take, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same rows in pieces of at most `rows` rows, which must not be 0.
    pub(crate) fn cut(self, rows: usize) -> impl Iterator<Item = Self> {
        (0..self.rows).step_by(rows).map(move |start| {
            let rows = rows.min(self.rows - start);
            if rows == self.rows {
                return self.clone();
            }
            let columns = self.columns.iter().map(|column| column.as_ref().map(|column| column.slice(start, rows)));
            let bytes = self.bytes.div_ceil(self.rows.div_ceil(rows));
            Self { columns: columns.collect(), rows, bytes, part: true }
        })
    }

    /// The same rows in buffers of their own.
    fn copied(&self) -> Result<Self, ArrowError> {
        let copy = |column: &ArrayRef| {
            let data = column.to_data();
            let mut copy = MutableArrayData::new(vec![&data], false, data.len());
            copy.try_extend(0, 0, data.len())?;
            Ok::<_, ArrowError>(make_array(copy.freeze()))
        };
        let columns = self.columns.iter().map(|column| column.as_ref().map(copy).transpose());
        Ok(Self { columns: columns.collect::<Result<_, _>>()?, part: false, ..*self })
    }
}

/// Brings pieces under one schema.
pub(crate) struct Conformer {
    schema: SchemaRef,
    nulls: Nulls,
}

impl Conformer {
    /// A conformer to `schema`, whose struct columns have their children sorted by name, for batches that usually have
    /// `rows` rows.
    pub(crate) fn new(schema: SchemaRef, rows: usize) -> Self {
        Self { schema, nulls: Nulls { rows, arrays: Vec::new() } }
    }

    /// The rows of all `pieces`, in their order. What a piece lacks is null; a struct column that it lacks is a struct of
    /// nulls, as in a segment that lacks it.
    ///
    /// # Errors
    ///
    /// When a piece has a column of another type, or lacks one that must not be null.
    pub(crate) fn join(&mut self, pieces: &[Piece]) -> Result<RecordBatch, ArrowError> {
        if let [piece] = pieces
            && piece.part
        {
            // Sorts count a slice as all that its buffers hold, so that the slices of one big batch would exceed any
            // limit. More than one piece is copied by being joined.
            return self.join(&[piece.copied()?]);
        }
        let rows = pieces.iter().map(Piece::rows).sum();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (index, field) in self.schema.fields().iter().enumerate() {
            let parts = pieces.iter().map(|piece| (piece.columns[index].as_ref(), piece.rows));
            columns.push(match field.data_type() {
                // A container without any attribute in the whole table.
                DataType::Null => Arc::new(NullArray::new(rows)),
                DataType::Struct(children) => join_structs(parts, children, &mut self.nulls)?,
                other => join_arrays(parts, other, &mut self.nulls)?,
            });
        }
        // Said explicitly for scans that need no column, only the number of rows.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

fn join_structs<'a>(
    parts: impl Iterator<Item = (Option<&'a ArrayRef>, usize)>,
    children: &Fields,
    nulls: &mut Nulls,
) -> Result<ArrayRef, ArrowError> {
    let mut masks = Vec::new();
    // The children of each part that are still to come, the next one at the end.
    let mut rest: Vec<(Vec<(&str, &ArrayRef)>, usize)> = Vec::new();
    for (part, rows) in parts {
        let part = part.map(|part| part.as_struct_opt().ok_or_else(|| unexpected(part.data_type()))).transpose()?;
        masks.push((part.and_then(Array::nulls), rows));
        let children = part.map(|part| part.fields().iter().map(|field| field.name().as_str()).zip(part.columns()));
        let mut children: Vec<_> = children.into_iter().flatten().collect();
        children.sort_unstable_by(|a, b| b.0.cmp(a.0));
        rest.push((children, rows));
    }
    let mut arrays = Vec::with_capacity(children.len());
    for child in children {
        let name = child.name().as_str();
        let parts = rest.iter_mut().map(|(rest, rows)| {
            while rest.last().is_some_and(|(next, _)| *next < name) {
                rest.pop();
            }
            (rest.pop_if(|(next, _)| *next == name).map(|(_, array)| array), *rows)
        });
        arrays.push(join_arrays(parts, child.data_type(), nulls)?);
    }
    let rows = masks.iter().map(|(_, rows)| rows).sum();
    let mut mask = NullBufferBuilder::new(rows);
    for (part, rows) in masks {
        match part {
            Some(part) => mask.append_buffer(part),
            None => mask.append_n_non_nulls(rows),
        }
    }
    Ok(Arc::new(StructArray::try_new_with_length(children.clone(), arrays, mask.finish(), rows)?))
}

fn join_arrays<'a>(
    parts: impl Iterator<Item = (Option<&'a ArrayRef>, usize)>,
    data_type: &DataType,
    nulls: &mut Nulls,
) -> Result<ArrayRef, ArrowError> {
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut absent = 0;
    for (part, rows) in parts {
        let Some(part) = part else {
            absent += rows;
            continue;
        };
        if part.data_type() != data_type {
            return Err(unexpected(part.data_type()));
        }
        if absent > 0 {
            arrays.push(nulls.array(data_type, absent));
            absent = 0;
        }
        arrays.push(Arc::clone(part));
    }
    if absent > 0 {
        arrays.push(nulls.array(data_type, absent));
    }
    match arrays.as_slice() {
        [array] => Ok(Arc::clone(array)),
        arrays => concat(&arrays.iter().map(|array| &**array).collect::<Vec<_>>()),
    }
}

/// The column's name may be a client's text and stays out of the message.
fn unexpected(found: &DataType) -> ArrowError {
    let found = if found.is_nested() { "a nested type".to_owned() } else { found.to_string() };
    ArrowError::SchemaError(format!("a column is of another type than the table's: {found}"))
}

/// Columns of nulls, one for each type.
struct Nulls {
    rows: usize,
    arrays: Vec<ArrayRef>,
}

impl Nulls {
    fn array(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        let known = self.arrays.iter().find(|array| array.data_type() == data_type && array.len() >= rows);
        let array = known.map(Arc::clone).unwrap_or_else(|| {
            self.arrays.retain(|array| array.data_type() != data_type);
            let array = new_null_array(data_type, rows.max(self.rows));
            self.arrays.push(Arc::clone(&array));
            array
        });
        if array.len() == rows { array } else { array.slice(0, rows) }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampNanosecondArray};
    use logseal_otlp::{AttributeColumn, AttributeContainer, AttributeKind, arrow_schema};

    use super::*;

    fn table(keys: &[&str]) -> SchemaRef {
        let column = |key: &&str| AttributeColumn {
            container: AttributeContainer::Record,
            key: (*key).into(),
            kind: AttributeKind::String,
        };
        let schema = arrow_schema(&keys.iter().map(column).collect::<Vec<_>>());
        let wanted = ["time", "body", "attributes"].map(|name| schema.index_of(name).expect("of every table"));
        Arc::new(schema.project(&wanted).expect("known columns"))
    }

    /// Rows with a time, a body, and attributes whose value is their key.
    fn rows(count: usize, keys: &[&str]) -> RecordBatch {
        let text = |text: &str| Arc::new(StringArray::from(vec![text; count])) as ArrayRef;
        let time = TimestampNanosecondArray::from(vec![7; count]).with_timezone("UTC");
        let mut columns = vec![("time", Arc::new(time) as ArrayRef), ("body", text("b"))];
        if !keys.is_empty() {
            let schema = table(keys);
            let DataType::Struct(children) = schema.field(2).data_type() else { panic!("a struct") };
            let arrays = children.iter().map(|child| text(child.name())).collect();
            columns.push(("attributes", Arc::new(StructArray::new(children.clone(), arrays, None))));
        }
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    fn select(schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<Piece> {
        batches.iter().map(|batch| Piece::select(batch, schema)).collect()
    }

    #[test]
    fn each_row_keeps_its_attributes_and_has_null_for_the_others() {
        let schema = table(&["a", "b", "c"]);
        let batches = [rows(2, &["c", "a"]), rows(1, &[]), rows(3, &["b"])];
        let joined = Conformer::new(Arc::clone(&schema), 8).join(&select(&schema, &batches)).expect("fits");
        assert_eq!((joined.schema(), joined.num_rows()), (schema, 6));
        let attributes = joined.column(2).as_struct();
        assert_eq!(attributes.null_count(), 0);
        let cells = |key| {
            let column = attributes.column_by_name(key).expect("of the table").as_string::<i32>();
            column.iter().map(|value| value.unwrap_or("-")).collect::<String>()
        };
        assert_eq!([cells("a"), cells("b"), cells("c")], ["aa----", "---bbb", "cc----"]);
    }

    /// A table may have thousands of attributes, and a batch few of them.
    #[test]
    fn columns_without_values_share_their_memory_and_others_are_not_copied() {
        let keys: Vec<String> = (0..1_000).map(|i| format!("k{i:03}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let schema = table(&keys);
        let batch = rows(100, &["k500"]);
        let mut conformer = Conformer::new(Arc::clone(&schema), 100);
        for _ in 0..2 {
            let joined = conformer.join(&select(&schema, std::slice::from_ref(&batch))).expect("fits");
            let attributes = joined.column(2).as_struct();
            assert!(Arc::ptr_eq(attributes.column(0), attributes.column(999)));
            assert!(Arc::ptr_eq(attributes.column(500), batch.column(2).as_struct().column(0)));
            assert!(Arc::ptr_eq(joined.column(1), batch.column(1)));
        }
    }

    #[test]
    fn pieces_are_cut_without_losing_a_row() {
        let schema = table(&["a"]);
        let piece = Piece::select(&rows(10, &["a"]), &schema);
        for (most, expected) in [(3, vec![3, 3, 3, 1]), (5, vec![5, 5]), (10, vec![10]), (11, vec![10])] {
            let pieces: Vec<Piece> = piece.clone().cut(most).collect();
            assert_eq!(pieces.iter().map(Piece::rows).collect::<Vec<_>>(), expected);
            let mut conformer = Conformer::new(Arc::clone(&schema), 8);
            let text = |batch: RecordBatch| batch.column(1).as_string::<i32>().iter().flatten().collect::<String>();
            let alone = pieces.iter().map(|piece| conformer.join(std::slice::from_ref(piece)).expect("fits"));
            assert_eq!(alone.map(text).collect::<String>(), "bbbbbbbbbb");
            assert_eq!(text(conformer.join(&pieces).expect("fits")), "bbbbbbbbbb");
        }
    }

    /// Operators count a slice as all that its buffers hold.
    #[test]
    fn a_part_of_a_big_batch_does_not_hold_all_of_it() {
        let schema = table(&["a"]);
        let whole = rows(10_000, &["a"]);
        for piece in Piece::select(&whole, &schema).cut(1_000) {
            let part = Conformer::new(Arc::clone(&schema), 1_000).join(&[piece]).expect("fits");
            assert_eq!(part.num_rows(), 1_000);
            let (part, whole) = (part.get_array_memory_size(), whole.get_array_memory_size());
            assert!(part < whole / 5, "{part} of {whole} bytes");
        }
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let schema = Arc::new(Schema::empty());
        let joined = Conformer::new(Arc::clone(&schema), 8).join(&select(&schema, &[rows(2, &[]), rows(3, &["a"])]));
        assert_eq!(joined.expect("fits").num_rows(), 5);
    }

    #[test]
    fn a_null_struct_stays_null() {
        let schema = table(&["a"]);
        let full = rows(2, &["a"]);
        let whole = full.column(2).as_struct();
        let halved = StructArray::new(whole.fields().clone(), whole.columns().to_vec(), Some(vec![true, false].into()));
        let columns = vec![Arc::clone(full.column(0)), Arc::clone(full.column(1)), Arc::new(halved) as ArrayRef];
        let halved = RecordBatch::try_new(Arc::clone(&schema), columns).expect("the same columns");
        let joined = Conformer::new(Arc::clone(&schema), 8).join(&select(&schema, &[full, halved])).expect("fits");
        let attributes = joined.column(2);
        assert_eq!((0..4).map(|row| attributes.is_null(row)).collect::<Vec<_>>(), [false, false, false, true]);
    }

    #[test]
    fn what_does_not_fit_the_table_is_refused() {
        let schema = table(&["a"]);
        let mut conformer = Conformer::new(Arc::clone(&schema), 8);
        let time = || -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![7]).with_timezone("UTC")) };
        let number = || Arc::new(Int64Array::from(vec![7])) as ArrayRef;
        let field = Arc::new(arrow::datatypes::Field::new("a", DataType::Int64, true));
        let other_child = Arc::new(StructArray::from(vec![(field, number())])) as ArrayRef;
        for (columns, expected) in [
            (vec![("time", time()), ("body", number())], "of another type"),
            (vec![("time", time()), ("attributes", number())], "of another type"),
            (vec![("time", time()), ("attributes", other_child)], "of another type"),
            (vec![("body", Arc::new(StringArray::from(vec!["b"])) as ArrayRef)], "time"),
        ] {
            let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
            let error = conformer.join(&select(&schema, &[batch])).expect_err("does not fit").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
