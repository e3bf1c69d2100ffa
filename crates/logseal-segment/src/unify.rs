//! One schema for the chunks of a segment.
//!
//! Chunks of one table share its fixed columns; their struct columns hold only the attributes that occur in them. The
//! segment's schema is the union: struct children sorted by name, all children nullable. A struct column without children is
//! left out, since Parquet has no empty group.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, new_null_array};
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
    let all = |fields: &Fields, wanted: &Fields| {
        let types: HashMap<&str, &DataType> =
            fields.iter().map(|field| (field.name().as_str(), field.data_type())).collect();
        wanted.iter().all(|field| types.get(field.name().as_str()) == Some(&field.data_type()))
    };
    part.fields().iter().all(|field| match (field.data_type(), schema.fields().find(field.name())) {
        (DataType::Struct(wanted), Some((_, known))) => match known.data_type() {
            DataType::Struct(children) => all(children, wanted),
            _ => false,
        },
        // A struct column without children is in no union.
        (DataType::Struct(wanted), None) => wanted.is_empty(),
        (data_type, found) => found.is_some_and(|(_, known)| known.data_type() == data_type),
    })
}

fn same_type(left: &FieldRef, right: &FieldRef) -> Result<(), ArrowError> {
    if left.data_type() == right.data_type() {
        return Ok(());
    }
    Err(types_differ(left.data_type(), right.data_type()))
}

/// The column's name is a client's text and stays out of the message.
fn types_differ(left: &DataType, right: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("a column has the types {left} and {right}"))
}

/// Where a batch has a leaf column of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Neither the column nor the struct that it is in.
    Nowhere,
    /// A column of its own.
    Column(usize),
    /// A struct, and its child if it has it.
    Child(usize, Option<usize>),
}

/// Where `batch` has each leaf column of `schema`, in their order.
pub(crate) fn places(batch: &RecordBatch, schema: &Schema) -> Vec<Place> {
    let mut places = Vec::new();
    for field in schema.fields() {
        let found = batch.schema_ref().fields().find(field.name()).map(|(column, _)| column);
        let DataType::Struct(children) = field.data_type() else {
            places.push(found.map_or(Place::Nowhere, Place::Column));
            continue;
        };
        let Some(column) = found else {
            places.extend(children.iter().map(|_| Place::Nowhere));
            continue;
        };
        let Some(structure) = batch.column(column).as_struct_opt() else {
            // Of another type: refused when it is read.
            places.extend(children.iter().map(|_| Place::Column(column)));
            continue;
        };
        let numbers: HashMap<&str, usize> =
            structure.fields().iter().enumerate().map(|(number, child)| (child.name().as_str(), number)).collect();
        places.extend(children.iter().map(|child| Place::Child(column, numbers.get(child.name().as_str()).copied())));
    }
    places
}

/// The leaf columns of `schema`: a struct's child is the only child of a struct of its own.
pub(crate) fn leaves(schema: &Schema) -> Vec<FieldRef> {
    let alone = |field: &FieldRef, child: &FieldRef| {
        let structure = DataType::Struct(Fields::from(vec![Arc::clone(child)]));
        Arc::new(Field::new(field.name(), structure, field.is_nullable()))
    };
    let of_field = |field: &FieldRef| match field.data_type() {
        DataType::Struct(children) => children.iter().map(|child| alone(field, child)).collect(),
        _ => vec![Arc::clone(field)],
    };
    schema.fields().iter().flat_map(of_field).collect()
}

/// The values of one of the [`leaves`] in `batch`, which has them at `place`; nulls for what it lacks.
///
/// # Errors
///
/// [`ArrowError`] when the batch has a column of another type there, or lacks one that must not be null.
pub(crate) fn leaf_values(batch: &RecordBatch, leaf: &Field, place: Place) -> Result<ArrayRef, ArrowError> {
    let values = match (place, leaf.data_type()) {
        (Place::Nowhere, data_type) => new_null_array(data_type, batch.num_rows()),
        (Place::Column(column), _) => Arc::clone(batch.column(column)),
        (Place::Child(column, number), DataType::Struct(fields)) => {
            let structure = batch.column(column).as_struct();
            let values = match number {
                Some(number) => Arc::clone(structure.column(number)),
                None => new_null_array(fields[0].data_type(), structure.len()),
            };
            Arc::new(StructArray::try_new(fields.clone(), vec![values], structure.nulls().cloned())?)
        }
        (Place::Child(..), data_type) => return Err(ArrowError::SchemaError(format!("{data_type} has no children"))),
    };
    if values.data_type() != leaf.data_type() {
        return Err(types_differ(leaf.data_type(), values.data_type()));
    }
    if !leaf.is_nullable() && values.null_count() > 0 {
        let what = "a column that each row must have lacks values".to_owned();
        return Err(ArrowError::InvalidArgumentError(what));
    }
    Ok(values)
}

/// What the values of `batch` take in memory and in pages before they are encoded, in bytes: nulls count nothing.
#[must_use]
pub fn value_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let values = array.len() - array.null_count();
    let text = |offsets: &[i32]| offsets.last().zip(offsets.first()).map_or(0, |(end, start)| end.abs_diff(*start));
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::Utf8 => values * size_of::<i32>() + text(array.as_string::<i32>().value_offsets()) as usize,
        DataType::Binary => values * size_of::<i32>() + text(array.as_binary::<i32>().value_offsets()) as usize,
        other => values * other.primitive_width().unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

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
        let leaves = leaves(&schema);
        assert_eq!(
            leaves.iter().map(|leaf| leaf.name().as_str()).collect::<Vec<_>>(),
            ["id", "attributes", "attributes"]
        );
        for (index, input) in batches.iter().enumerate() {
            let values: Vec<ArrayRef> = leaves
                .iter()
                .zip(places(input, &schema))
                .map(|(leaf, place)| leaf_values(input, leaf, place).unwrap())
                .collect();
            assert_eq!(&values[0], input.column(0));
            let is_null = |values: &ArrayRef| values.is_null(0) || values.as_struct().column(0).is_null(0);
            assert_eq!((is_null(&values[1]), is_null(&values[2])), (index != 2, index == 1));
        }
    }

    /// Scenario: batches that do not fit the schema. Guarantee: an error, whatever was looked at before.
    #[test]
    fn a_leaf_of_another_type_or_without_needed_values_is_refused() {
        let row = batch(1, &[("a", text("x"))]);
        let number = Field::new("a", DataType::Int64, true);
        let structure = Field::new("attributes", DataType::Struct(vec![number].into()), true);
        assert!(leaf_values(&row, &structure, Place::Child(1, Some(0))).is_err());
        assert!(leaf_values(&row, &Field::new("id", DataType::Utf8, true), Place::Column(0)).is_err());
        assert!(leaf_values(&row, &Field::new("other", DataType::Int64, false), Place::Nowhere).is_err());
        assert!(leaf_values(&row, &Field::new("other", DataType::Int64, true), Place::Nowhere).is_ok());
    }

    #[test]
    fn nulls_count_nothing() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, None, Some("de")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), None, None]));
        let fields =
            [("a", &texts), ("b", &numbers)].map(|(name, array)| Field::new(name, array.data_type().clone(), true));
        let structure: ArrayRef = Arc::new(StructArray::new(fields.to_vec().into(), vec![texts, numbers], None));
        let rows = RecordBatch::try_from_iter([("attributes", structure)]).unwrap();
        assert_eq!(value_bytes(&rows), 5 + 2 * 4 + 8);
        assert_eq!(value_bytes(&rows.slice(3, 1)), 2 + 4);
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
