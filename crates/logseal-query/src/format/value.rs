//! One value as JSON.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{
    timestamp_ms_to_datetime, timestamp_ns_to_datetime, timestamp_s_to_datetime, timestamp_us_to_datetime,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use data_encoding::BASE64;

use crate::error::QueryError;

/// Appends the value in `row` of `array` to `out`, as JSON.
pub(super) fn write(out: &mut String, array: &ArrayRef, row: usize) -> Result<(), QueryError> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    macro_rules! number {
        ($type:ty) => {
            // Writing to a string cannot fail.
            _ = write!(out, "{}", array.as_primitive::<$type>().value(row))
        };
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => write_float(out, array.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => write_float(out, f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => write_float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            out.push_str(&display(array, row)?);
        }
        DataType::Struct(fields) => {
            out.push('{');
            let mut first = true;
            for (field, child) in fields.iter().zip(array.as_struct().columns()) {
                if child.is_null(row) || child.data_type().is_null() {
                    continue;
                }
                if !first {
                    out.push(',');
                }
                first = false;
                write_string(out, field.name());
                out.push(':');
                write(out, child, row)?;
            }
            out.push('}');
        }
        DataType::List(_) => write_list(out, &array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => write_list(out, &array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => write_list(out, &array.as_fixed_size_list().value(row))?,
        DataType::Map(..) => write_map(out, array, row)?,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            write(out, dictionary.values(), dictionary.normalized_keys()[row])?;
        }
        _ => write_string(out, &text(array, row)?),
    }
    Ok(())
}

/// The value in `row` of `array` as text: a string as it is, a nested value as JSON. The value must not be NULL.
pub(super) fn text(array: &ArrayRef, row: usize) -> Result<String, QueryError> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::Binary => BASE64.encode(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => BASE64.encode(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => BASE64.encode(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => BASE64.encode(array.as_fixed_size_binary().value(row)),
        DataType::Timestamp(unit, _) => timestamp(array, *unit, row)?,
        DataType::Struct(_)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Map(..)
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64 => {
            let mut out = String::new();
            write(&mut out, array, row)?;
            out
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            text(dictionary.values(), dictionary.normalized_keys()[row])?
        }
        _ => display(array, row)?,
    })
}

/// Appends `text` as a JSON string.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write_float(out: &mut String, value: f64) {
    match serde_json::Number::from_f64(value) {
        Some(number) => out.push_str(&number.to_string()),
        // JSON has no such numbers; these are OTLP JSON's (protobuf's) words for them.
        None if value.is_nan() => out.push_str("\"NaN\""),
        None if value > 0.0 => out.push_str("\"Infinity\""),
        None => out.push_str("\"-Infinity\""),
    }
}

fn write_list(out: &mut String, items: &ArrayRef) -> Result<(), QueryError> {
    out.push('[');
    for index in 0..items.len() {
        if index > 0 {
            out.push(',');
        }
        write(out, items, index)?;
    }
    out.push(']');
    Ok(())
}

fn write_map(out: &mut String, array: &ArrayRef, row: usize) -> Result<(), QueryError> {
    let entries = array.as_map().value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    out.push('{');
    for index in 0..entries.len() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, &text(keys, index)?);
        out.push(':');
        write(out, values, index)?;
    }
    out.push('}');
    Ok(())
}

/// RFC 3339 in UTC with nanoseconds. Arrow keeps all instants in UTC, whatever zone a column is shown in.
fn timestamp(array: &ArrayRef, unit: TimeUnit, row: usize) -> Result<String, QueryError> {
    let time = match unit {
        TimeUnit::Second => timestamp_s_to_datetime(array.as_primitive::<TimestampSecondType>().value(row)),
        TimeUnit::Millisecond => timestamp_ms_to_datetime(array.as_primitive::<TimestampMillisecondType>().value(row)),
        TimeUnit::Microsecond => timestamp_us_to_datetime(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => timestamp_ns_to_datetime(array.as_primitive::<TimestampNanosecondType>().value(row)),
    };
    // Coarser units reach years that no calendar here has.
    match time {
        Some(time) => Ok(time.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()),
        None => display(array, row),
    }
}

fn display(array: &ArrayRef, row: usize) -> Result<String, QueryError> {
    let internal = |e: ArrowError| QueryError::Internal { message: e.to_string() };
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(internal)?;
    let mut text = String::new();
    formatter.value(row).write(&mut text).map_err(internal)?;
    Ok(text)
}
