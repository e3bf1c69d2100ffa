//! Results as lines of text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::pretty::pretty_format_batches_with_schema;

use super::value;
use crate::engine::QueryResult;
use crate::error::QueryError;

/// A table with borders; NULL is an empty cell.
///
/// Log records come from outside and a terminal obeys escape sequences, so control characters are shown as `\u{1b}`.
///
/// # Errors
///
/// When a value cannot be rendered, which is a defect.
pub fn table(result: &QueryResult) -> Result<String, QueryError> {
    let (schema, batches) = as_text(result, printable)?;
    let table = pretty_format_batches_with_schema(schema, &batches).map_err(internal)?;
    Ok(format!("{table}\n"))
}

/// Comma-separated values with a header line (RFC 4180); NULL is an empty field.
///
/// # Errors
///
/// When a value cannot be rendered, which is a defect.
pub fn csv(result: &QueryResult) -> Result<String, QueryError> {
    let (schema, batches) = as_text(result, |text| text)?;
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_header(true).build(&mut out);
    // The header comes with the first batch, and a result may have none.
    writer.write(&RecordBatch::new_empty(schema)).map_err(internal)?;
    batches.iter().try_for_each(|batch| writer.write(batch)).map_err(internal)?;
    drop(writer);
    String::from_utf8(out).map_err(|e| QueryError::Internal { message: e.to_string() })
}

/// The result with all columns as strings, each passed through `clean`.
fn as_text(result: &QueryResult, clean: fn(String) -> String) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let fields =
        result.schema.fields().iter().map(|field| Field::new(clean(field.name().clone()), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches = result.batches.iter().map(|batch| {
        let columns = batch.columns().iter().map(|column| text_column(column, clean)).collect::<Result<Vec<_>, _>>()?;
        // A result may have rows and no columns.
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options).map_err(internal)
    });
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    Ok((schema, batches))
}

fn text_column(column: &ArrayRef, clean: fn(String) -> String) -> Result<ArrayRef, QueryError> {
    let mut builder = StringBuilder::new();
    for row in 0..column.len() {
        if column.is_null(row) || column.data_type().is_null() {
            builder.append_null();
        } else {
            builder.append_value(clean(value::text(column, row)?));
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn printable(text: String) -> String {
    if !text.contains(unsafe_to_print) {
        return text;
    }
    let escape = |c: char| if unsafe_to_print(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Control characters other than line ends, which the table wraps inside the cell, and those that reorder text.
fn unsafe_to_print(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn internal(error: ArrowError) -> QueryError {
    QueryError::Internal { message: error.to_string() }
}
