//! One schema for the chunks of a segment.
//!
//! Chunks of one table share its fixed columns; their struct columns hold only the attributes that occur in them. The
//! segment's schema is the union: struct children sorted by name, all children nullable. A struct column without children is
//! left out, since Parquet has no empty group.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The union of chunks' schemas; fixed columns in the order in which they first appear.
///
/// # Errors
///
/// [`ArrowError::SchemaError`] when a column or a struct's child has two types.
pub fn union_schema<'s>(schemas: impl IntoIterator<Item = &'s SchemaRef>) -> Result<SchemaRef, ArrowError> {
    let mut columns: Vec<(FieldRef, BTreeMap<String, FieldRef>)> = Vec::new();
    for field in distinct(schemas).flat_map(|schema| schema.fields().iter().cloned()) {
        let index = columns.iter().position(|(known, _)| known.name() == field.name());
        let index = index.unwrap_or_else(|| {
            columns.push((Arc::clone(&field), BTreeMap::new()));
            columns.len() - 1
        });
        let (known, children) = &mut columns[index];
        if let (DataType::Struct(_), DataType::Struct(fields)) = (known.data_type(), field.data_type()) {
            for child in fields {
                let seen = children.entry(child.name().clone()).or_insert_with(|| Arc::clone(child));
                same_type(seen, child)?;
            }
        } else {
            same_type(known, &field)?;
        }
    }
    let fields = columns.into_iter().map(|(field, children)| match field.data_type() {
        DataType::Struct(_) => Arc::new(Field::new(
            field.name(),
            DataType::Struct(children.into_values().collect()),
            true, // a chunk without the column has it as null
        )),
        _ => field,
    });
    let has_content =
        |field: &FieldRef| !matches!(field.data_type(), DataType::Struct(children) if children.is_empty());
    Ok(Arc::new(Schema::new(fields.filter(has_content).collect::<Fields>())))
}

/// `schemas` without those that are as the one before: most chunks of a table have the same columns.
pub(crate) fn distinct<'s>(schemas: impl IntoIterator<Item = &'s SchemaRef>) -> impl Iterator<Item = &'s SchemaRef> {
    let mut before: Option<&SchemaRef> = None;
    schemas.into_iter().filter(move |schema| before.replace(schema).is_none_or(|before| before != *schema))
}

/// Whether `schema` has every column and every struct's child of `part`, with its type.
#[must_use]
pub fn includes(schema: &SchemaRef, part: &SchemaRef) -> bool {
    let has = |fields: &Fields, wanted: &FieldRef| {
        let found = fields.find(wanted.name());
        found.is_some_and(|(_, field)| field.data_type() == wanted.data_type())
    };
    part.fields().iter().all(|field| match field.data_type() {
        DataType::Struct(wanted) => match schema.fields().find(field.name()).map(|(_, field)| field.data_type()) {
            Some(DataType::Struct(children)) => wanted.iter().all(|child| has(children, child)),
            // A struct column without children is in no union.
            _ => wanted.is_empty(),
        },
        _ => has(schema.fields(), field),
    })
}

fn same_type(left: &FieldRef, right: &FieldRef) -> Result<(), ArrowError> {
    if left.data_type() == right.data_type() {
        return Ok(());
    }
    // The name is a client's text and stays out of the message.
    Err(ArrowError::SchemaError(format!("a column has the types {} and {}", left.data_type(), right.data_type())))
}

/// `batch` under `schema`: columns and struct children that it lacks become null.
///
/// # Errors
///
/// [`ArrowError`] when `schema` is not a union that includes the batch's own.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| conform_column(batch, field));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// `batches` one after the other as one batch under `schema`, as [`conform`] gives each.
///
/// # Errors
///
/// [`ArrowError`] when `schema` is not a union that includes the batches' own, or a column gets too large for its offsets.
pub fn join(batches: &[RecordBatch], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // Column by column: what the batches lack takes memory for one column at a time.
    let columns = schema.fields().iter().map(|field| {
        let parts: Vec<_> =
            batches.iter().map(|batch| conform_column(batch, field)).collect::<Result<_, ArrowError>>()?;
        concat(&parts.iter().map(|part| &**part).collect::<Vec<_>>())
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

fn conform_column(batch: &RecordBatch, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    match (batch.column_by_name(field.name()), field.data_type()) {
        (Some(column), DataType::Struct(children)) => conform_struct(column, children),
        (Some(column), _) => Ok(Arc::clone(column)),
        (None, data_type) => Ok(new_null_array(data_type, batch.num_rows())),
    }
}

fn conform_struct(column: &ArrayRef, children: &Fields) -> Result<ArrayRef, ArrowError> {
    let column = column.as_struct();
    let child = |field: &FieldRef| match column.column_by_name(field.name()) {
        Some(child) => Arc::clone(child),
        None => new_null_array(field.data_type(), column.len()),
    };
    let arrays = children.iter().map(child).collect();
    Ok(Arc::new(StructArray::try_new(children.clone(), arrays, column.nulls().cloned())?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::compute::concat_batches;

    use super::*;

    fn batch(id: i64, attributes: &[(&str, ArrayRef)]) -> RecordBatch {
        let mut columns: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(Int64Array::from(vec![id])))];
        if !attributes.is_empty() {
            let fields: Vec<_> = attributes
                .iter()
                .map(|(name, array)| (Arc::new(Field::new(*name, array.data_type().clone(), true)), Arc::clone(array)))
                .collect();
            columns.push(("attributes", Arc::new(StructArray::from(fields))));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn union(batches: &[RecordBatch]) -> Result<SchemaRef, ArrowError> {
        union_schema(batches.iter().map(RecordBatch::schema_ref))
    }

    fn text(value: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![value]))
    }

    #[test]
    fn the_union_has_every_child_once_and_missing_ones_are_null() {
        let batches = [
            batch(1, &[("b", text("x"))]),
            batch(2, &[]),
            batch(3, &[("a", Arc::new(Int64Array::from(vec![7]))), ("b", text("y"))]),
        ];
        let schema = union(&batches).unwrap();
        let DataType::Struct(children) = schema.field_with_name("attributes").unwrap().data_type() else {
            panic!("a struct")
        };
        assert_eq!(children.iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "b"]);
        for (index, input) in batches.iter().enumerate() {
            let conformed = conform(input, &schema).unwrap();
            assert_eq!(conformed.schema(), schema);
            let attributes = conformed.column_by_name("attributes").unwrap().as_struct();
            assert_eq!(attributes.column(0).is_null(0), index != 2);
            assert_eq!(attributes.column(1).is_null(0), index == 1);
        }
        let conformed: Vec<_> = batches.iter().map(|batch| conform(batch, &schema).unwrap()).collect();
        assert_eq!(join(&batches, &schema).unwrap(), concat_batches(&schema, &conformed).unwrap());
    }

    #[test]
    fn a_struct_without_children_is_left_out_and_two_types_are_refused() {
        let empty = StructArray::new_empty_fields(1, None);
        let batch_with_empty = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("attributes", Arc::new(empty) as ArrayRef),
        ]);
        let empty = batch_with_empty.unwrap();
        let schema = union(std::slice::from_ref(&empty)).unwrap();
        assert_eq!(schema.fields().len(), 1);
        assert!(includes(&schema, empty.schema_ref()));

        let clash = [batch(1, &[("a", text("x"))]), batch(2, &[("a", Arc::new(Int64Array::from(vec![7])))])];
        let message = union(&clash).unwrap_err().to_string();
        assert!(message.contains("Utf8") && message.contains("Int64"), "{message}");
    }

    #[test]
    fn a_union_includes_its_parts_and_nothing_else() {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let parts = [batch(1, &[("a", text("x"))]), batch(2, &[]), batch(3, &[("b", text("y"))])];
        let schema = union(&parts).unwrap();
        assert!(parts.iter().all(|part| includes(&schema, part.schema_ref())));
        for other in [batch(1, &[("c", text("x"))]), batch(1, &[("a", number)])] {
            assert!(!includes(&schema, other.schema_ref()));
        }
        assert!(!includes(&union(&parts[1..2]).unwrap(), parts[0].schema_ref()), "a whole column is missing");
    }
}
