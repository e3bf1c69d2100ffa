//! Chunks of one table made into one batch, whatever attribute columns each of them has.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use crate::columns::assemble;
use crate::schema::{AttributeContainer, POSITIONS, Position};

/// One batch with the rows of all `chunks` in their order, and with the union of their attribute columns: children sorted
/// by key, null where a chunk has none. A struct column that no chunk has is left out; the fixed columns are always
/// there, also for no chunks at all.
///
/// # Errors
///
/// When the chunks are not of one table (a fixed column is missing or of another type, an attribute has two types), or
/// when a column would exceed the 2 GiB that its 32-bit offsets reach.
pub fn merge(chunks: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let mut fixed = Vec::with_capacity(POSITIONS.len());
    let mut structs = [None, None, None];
    for position in POSITIONS.iter() {
        match position {
            Position::Fixed(field) => fixed.push(merge_fixed(chunks, field)?),
            Position::Attributes(container) => structs[container.index()] = merge_attributes(chunks, *container)?,
        }
    }
    assemble(fixed, structs)
}

fn merge_fixed(chunks: &[RecordBatch], field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let mut parts: Vec<&dyn Array> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let part = chunk.column_by_name(field.name());
        let part = part.filter(|part| part.data_type() == field.data_type());
        parts.push(part.ok_or_else(|| {
            ArrowError::SchemaError(format!("a chunk has no column `{}` of the table's type", field.name()))
        })?);
    }
    join(&parts, field.data_type())
}

fn merge_attributes(chunks: &[RecordBatch], container: AttributeContainer) -> Result<Option<StructArray>, ArrowError> {
    let mut parts: Vec<Option<&StructArray>> = Vec::with_capacity(chunks.len());
    let mut children: BTreeMap<&str, &FieldRef> = BTreeMap::new();
    for chunk in chunks {
        let part = chunk.column_by_name(container.column_name());
        let part = part.map(|part| {
            part.as_struct_opt()
                .ok_or_else(|| ArrowError::SchemaError(format!("`{}` is not a struct", container.column_name())))
        });
        let part = part.transpose()?;
        for field in part.iter().flat_map(|part| part.fields()) {
            if children.insert(field.name(), field).is_some_and(|other| other != field) {
                return Err(ArrowError::SchemaError("an attribute has two types".to_owned()));
            }
        }
        parts.push(part);
    }
    if children.is_empty() {
        return Ok(None);
    }
    let mut arrays = Vec::with_capacity(children.len());
    for (key, field) in &children {
        let columns = chunks.iter().zip(&parts).map(|(chunk, part)| {
            let column = part.and_then(|part| part.column_by_name(key)).map(Arc::clone);
            column.unwrap_or_else(|| new_null_array(field.data_type(), chunk.num_rows()))
        });
        let columns: Vec<ArrayRef> = columns.collect();
        let columns: Vec<&dyn Array> = columns.iter().map(|column| &**column).collect();
        arrays.push(join(&columns, field.data_type())?);
    }
    let fields: Fields = children.into_values().map(Arc::clone).collect();
    StructArray::try_new(fields, arrays, None).map(Some)
}

fn join(parts: &[&dyn Array], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if parts.is_empty() { Ok(new_null_array(data_type, 0)) } else { concat(parts) }
}
