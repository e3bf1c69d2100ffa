//! Renders a result for whoever asked.
//!
//! | function | form |
//! | --- | --- |
//! | [`table`] | text with borders, for people; control characters are escaped |
//! | [`json`](fn@json) | an array of row objects |
//! | [`azure_json`] | `{"tables":[{"name","columns","rows"}]}`, the body of Azure Monitor's query API |
//! | [`csv`] | RFC 4180 with a header line |
//! | [`arrow_stream`] | Arrow's IPC stream, types unchanged |
//!
//! Values look the same in all of them but the last: times are RFC 3339 with nanoseconds in UTC, bytes are base64, 64-bit
//! integers are JSON numbers, and nested values are JSON without their NULL members.

mod text;
mod value;

use arrow::datatypes::{DataType, Schema};
use arrow::ipc::writer::StreamWriter;
use serde_json::json;

use crate::engine::QueryResult;
use crate::error::QueryError;

pub use text::{csv, table};

/// `[{"column": value, ..}, ..]`, one line a row; NULL columns are `null`.
///
/// # Errors
///
/// When a value cannot be rendered, which is a defect.
pub fn json(result: &QueryResult) -> Result<String, QueryError> {
    let names = unique_names(&result.schema);
    let mut out = String::from("[");
    for (index, (batch, row)) in rows(result).enumerate() {
        out.push_str(if index == 0 { "\n{" } else { ",\n{" });
        for (position, (name, column)) in names.iter().zip(batch.columns()).enumerate() {
            if position > 0 {
                out.push(',');
            }
            value::write_string(&mut out, name);
            out.push(':');
            value::write(&mut out, column, row)?;
        }
        out.push('}');
    }
    out.push_str(if result.rows == 0 { "]\n" } else { "\n]\n" });
    Ok(out)
}

/// The body of Azure Monitor's query API, with one table `PrimaryResult`.
///
/// # Errors
///
/// When a value cannot be rendered, which is a defect.
pub fn azure_json(result: &QueryResult) -> Result<String, QueryError> {
    let columns: Vec<_> = result
        .schema
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": azure_type(field.data_type())}))
        .collect();
    let mut out = String::from(r#"{"tables":[{"name":"PrimaryResult","columns":"#);
    out.push_str(&serde_json::Value::Array(columns).to_string());
    out.push_str(r#","rows":["#);
    for (index, (batch, row)) in rows(result).enumerate() {
        out.push_str(if index == 0 { "[" } else { ",[" });
        for (position, column) in batch.columns().iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            value::write(&mut out, column, row)?;
        }
        out.push(']');
    }
    out.push_str("]}]}");
    Ok(out)
}

/// Arrow's IPC stream format.
///
/// # Errors
///
/// When Arrow cannot write a type, which is a defect.
pub fn arrow_stream(result: &QueryResult) -> Result<Vec<u8>, QueryError> {
    let write = || {
        let mut writer = StreamWriter::try_new(Vec::new(), &result.schema)?;
        result.batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()?;
        writer.into_inner()
    };
    write().map_err(|e| QueryError::Internal { message: e.to_string() })
}

fn rows(result: &QueryResult) -> impl Iterator<Item = (&arrow::record_batch::RecordBatch, usize)> {
    result.batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)))
}

/// The columns' names, a repeated one numbered: two members of one name would hide each other.
fn unique_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{}_{number}", field.name());
            number += 1;
        }
        names.push(name);
    }
    names
}

fn azure_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => "datetime",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "long",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "int",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "real",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "real"
        }
        DataType::Boolean => "bool",
        DataType::Dictionary(_, values) => azure_type(values),
        // A column without a type holds only NULL: an attribute that nobody sent.
        DataType::Null
        | DataType::Struct(_)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Map(..) => "dynamic",
        _ => "string",
    }
}
