//! The columns of one chunk while they are made: those that every table has, and the cells of one attribute column.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray, TimestampNanosecondArray};
use arrow::datatypes::{Fields, Float64Type, Int32Type, Int64Type, Schema, TimestampNanosecondType, UInt32Type};
use arrow::error::ArrowError;
use logseal_core::UnixNanos;

use crate::build::{Bools, Numbers, Texts};
use crate::json;
use crate::overflow;
use crate::record::Record;
use crate::schema::{AttributeKind, POSITIONS, Position, struct_field};
use crate::value::{TextCheck, Value};

/// Most rows that columns reserve memory for before they have any; a scope's records are counted before they are read.
const RESERVED_ROWS: usize = 1024;

/// The fixed columns while they are made. Values of resource and scope are put in runs, after the records they belong to.
#[derive(Debug)]
pub(crate) struct FixedColumns {
    texts: TextCheck,
    time: Numbers<TimestampNanosecondType>,
    observed_time: Numbers<TimestampNanosecondType>,
    severity_number: Numbers<Int32Type>,
    severity_text: Texts,
    event_name: Texts,
    body: Texts,
    body_kind: Texts,
    dropped_attributes_count: Numbers<UInt32Type>,
    trace_id: Texts,
    span_id: Texts,
    flags: Numbers<UInt32Type>,
    resource_dropped_attributes_count: Numbers<UInt32Type>,
    resource_schema_url: Texts,
    service_name: Texts,
    scope_name: Texts,
    scope_version: Texts,
    scope_dropped_attributes_count: Numbers<UInt32Type>,
    scope_schema_url: Texts,
    overflow: Texts,
}

impl FixedColumns {
    /// Empty columns, with memory for `rows` rows. With [`TextCheck::Later`] texts of records are put as they are.
    pub(crate) fn new(rows: usize, texts: TextCheck) -> Self {
        let rows = rows.min(RESERVED_ROWS);
        let text = |bytes| Texts::new(rows, rows * bytes);
        // Columns that most records leave empty, or that are equal for a run of rows, reserve no text.
        Self {
            texts,
            time: Numbers::new(rows),
            observed_time: Numbers::new(rows),
            severity_number: Numbers::new(rows),
            severity_text: text(4),
            event_name: Texts::new(0, 0),
            body: text(64),
            body_kind: text(6),
            dropped_attributes_count: Numbers::new(rows),
            trace_id: text(32),
            span_id: text(16),
            flags: Numbers::new(rows),
            resource_dropped_attributes_count: Numbers::new(rows),
            resource_schema_url: text(0),
            service_name: text(0),
            scope_name: text(0),
            scope_version: text(0),
            scope_dropped_attributes_count: Numbers::new(rows),
            scope_schema_url: text(0),
            overflow: Texts::new(0, 0),
        }
    }

    /// Puts a record's own fields into row `row` but for `overflow`, adding to `members` what a column cannot hold. Returns the column
    /// `time`'s value.
    pub(crate) fn put_record(
        &mut self,
        row: usize,
        record: &Record<'_>,
        received: UnixNanos,
        members: &mut String,
        scratch: &mut String,
    ) -> i64 {
        let observed = if record.observed_time == 0 { None } else { i64::try_from(record.observed_time).ok() };
        if record.observed_time != 0 && observed.is_none() {
            overflow::number(members, "observedTimeUnixNano", record.observed_time);
        }
        let time = match i64::try_from(record.time) {
            Ok(time) if time != 0 => time,
            _ => {
                overflow::number(members, "timeUnixNano", record.time);
                observed.unwrap_or(received.0)
            }
        };
        self.time.put(row, time);
        if let Some(observed) = observed {
            self.observed_time.put(row, observed);
        }
        self.severity_number.put(row, record.severity_number);
        put_text(&mut self.severity_text, row, record.severity_text, self.texts, "severityText", members);
        put_text(&mut self.event_name, row, record.event_name, self.texts, "eventName", members);
        if let Some(body) = record.body {
            self.put_body(row, body, scratch);
        }
        self.dropped_attributes_count.put(row, record.dropped_attributes_count);
        put_id::<16, 32>(&mut self.trace_id, row, record.trace_id, "traceId", members);
        put_id::<8, 16>(&mut self.span_id, row, record.span_id, "spanId", members);
        self.flags.put(row, record.flags);
        time
    }

    fn put_body(&mut self, row: usize, body: Value<'_>, scratch: &mut String) {
        self.body_kind.put(row, kind(body).map_or("empty", AttributeKind::name).as_bytes());
        match body {
            Value::Empty => (),
            Value::Text(text) => self.body.put(row, text),
            Value::String(text) => self.body.put(row, text.as_bytes()),
            value => {
                scratch.clear();
                json::any_value(scratch, value);
                self.body.put(row, scratch.as_bytes());
            }
        }
    }

    /// Puts the overflow object into row `row`; nothing in `parts` means null.
    #[inline]
    pub(crate) fn put_overflow(&mut self, row: usize, parts: [&str; 3], scratch: &mut String) {
        if parts.iter().all(|part| part.is_empty()) {
            return;
        }
        scratch.clear();
        for part in parts {
            if !part.is_empty() {
                scratch.extend([if scratch.is_empty() { "{" } else { "," }, part]);
            }
        }
        scratch.push('}');
        self.overflow.put(row, scratch.as_bytes());
    }

    /// Puts a resource's fields into `count` rows from `row` on.
    pub(crate) fn put_resource(
        &mut self,
        row: usize,
        count: usize,
        dropped: u32,
        schema_url: &[u8],
        service_name: &str,
    ) {
        self.resource_dropped_attributes_count.put_n(row, count, dropped);
        put_text_n(&mut self.resource_schema_url, row, count, schema_url);
        put_text_n(&mut self.service_name, row, count, service_name.as_bytes());
    }

    /// Puts a scope's fields into `count` rows from `row` on.
    pub(crate) fn put_scope(
        &mut self,
        row: usize,
        count: usize,
        dropped: u32,
        [name, version, schema_url]: [&[u8]; 3],
    ) {
        self.scope_dropped_attributes_count.put_n(row, count, dropped);
        put_text_n(&mut self.scope_name, row, count, name);
        put_text_n(&mut self.scope_version, row, count, version);
        put_text_n(&mut self.scope_schema_url, row, count, schema_url);
    }

    /// The batch of all `rows` rows, with a struct column for each container that has children.
    ///
    /// # Errors
    ///
    /// When a text is not UTF-8, which only [`TextCheck::Later`] lets happen.
    pub(crate) fn finish(
        self,
        rows: usize,
        received: UnixNanos,
        structs: [Option<StructArray>; 3],
    ) -> Result<RecordBatch, ArrowError> {
        let received_time = TimestampNanosecondArray::from_value(received.0, rows).with_timezone("UTC");
        // In the order of `POSITIONS`.
        let fixed: [ArrayRef; 20] = [
            Arc::new(self.time.finish(rows).with_timezone("UTC")),
            Arc::new(self.observed_time.finish(rows).with_timezone("UTC")),
            Arc::new(received_time),
            Arc::new(self.severity_number.finish(rows)),
            self.severity_text.finish(rows)?,
            self.event_name.finish(rows)?,
            self.body.finish(rows)?,
            self.body_kind.finish(rows)?,
            Arc::new(self.dropped_attributes_count.finish(rows)),
            self.trace_id.finish(rows)?,
            self.span_id.finish(rows)?,
            Arc::new(self.flags.finish(rows)),
            Arc::new(self.resource_dropped_attributes_count.finish(rows)),
            self.resource_schema_url.finish(rows)?,
            self.service_name.finish(rows)?,
            self.scope_name.finish(rows)?,
            self.scope_version.finish(rows)?,
            Arc::new(self.scope_dropped_attributes_count.finish(rows)),
            self.scope_schema_url.finish(rows)?,
            self.overflow.finish(rows)?,
        ];
        assemble(fixed, structs)
    }
}

/// A batch of fixed columns and struct columns, in the order of the table's schema.
pub(crate) fn assemble(
    fixed: impl IntoIterator<Item = ArrayRef>,
    mut structs: [Option<StructArray>; 3],
) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(POSITIONS.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(POSITIONS.len());
    let mut fixed = fixed.into_iter();
    for position in POSITIONS.iter() {
        match position {
            Position::Fixed(field) => {
                fields.push(Arc::clone(field));
                arrays.extend(fixed.next());
            }
            Position::Attributes(container) => {
                if let Some(array) = structs[container.index()].take() {
                    fields.push(struct_field(*container, array.fields().clone()));
                    arrays.push(Arc::new(array));
                }
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(Fields::from(fields))), arrays)
}

/// The kind of a value, nothing for an empty one.
#[inline]
pub(crate) fn kind(value: Value<'_>) -> Option<AttributeKind> {
    Some(match value {
        Value::Empty => return None,
        Value::String(_) | Value::Text(_) => AttributeKind::String,
        Value::Bool(_) => AttributeKind::Bool,
        Value::Int(_) => AttributeKind::Int,
        Value::Double(_) => AttributeKind::Double,
        Value::Bytes(_) => AttributeKind::Bytes,
        Value::Array(_) => AttributeKind::Array,
        Value::Kvlist(_) => AttributeKind::Kvlist,
    })
}

#[inline]
fn put_text(column: &mut Texts, row: usize, text: &[u8], check: TextCheck, name: &str, members: &mut String) {
    if text.is_empty() {
        return;
    }
    if check == TextCheck::Later || std::str::from_utf8(text).is_ok() {
        column.put(row, text);
    } else {
        overflow::invalid_text(members, name, text);
    }
}

fn put_text_n(column: &mut Texts, row: usize, count: usize, text: &[u8]) {
    // What is not UTF-8 is in the overflow object.
    if !text.is_empty() && std::str::from_utf8(text).is_ok() {
        column.put_n(row, count, text);
    }
}

/// The two digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Puts an id of `BYTES` bytes as `DIGITS` = 2 * `BYTES` digits.
#[inline]
fn put_id<const BYTES: usize, const DIGITS: usize>(
    column: &mut Texts,
    row: usize,
    id: &[u8],
    name: &str,
    members: &mut String,
) {
    if let Ok(id) = <&[u8; BYTES]>::try_from(id) {
        let mut digits = [0; DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(id) {
            pair.copy_from_slice(&HEX[usize::from(*byte)]);
        }
        column.put(row, &digits);
    } else if !id.is_empty() {
        overflow::hex(members, name, id);
    }
}

/// The cells of one attribute column, filled row by row; rows without a value are null.
#[derive(Debug)]
pub(crate) enum Cells {
    Text(Texts),
    Bytes(Texts),
    Int(Numbers<Int64Type>),
    Double(Numbers<Float64Type>),
    Bool(Bools),
}

impl Cells {
    /// No cells yet, with memory for `rows`.
    pub(crate) fn new(kind: AttributeKind, rows: usize) -> Self {
        let rows = rows.min(RESERVED_ROWS);
        match kind {
            AttributeKind::String | AttributeKind::Array | AttributeKind::Kvlist => {
                Self::Text(Texts::new(rows, rows * 8))
            }
            AttributeKind::Bytes => Self::Bytes(Texts::new(rows, 0)),
            AttributeKind::Int => Self::Int(Numbers::new(rows)),
            AttributeKind::Double => Self::Double(Numbers::new(rows)),
            AttributeKind::Bool => Self::Bool(Bools::new(rows)),
        }
    }

    /// Puts `value`, which is of the column's kind, into row `row`.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, value: Value<'_>, scratch: &mut String) {
        match (self, value) {
            (Self::Text(column), Value::Text(text)) => column.put(row, text),
            (Self::Int(column), Value::Int(value)) => column.put(row, value),
            (Self::Double(column), Value::Double(value)) => column.put(row, value),
            (cells, value) => cells.put_n(row, 1, value, scratch),
        }
    }

    /// Puts `value` into `count` rows from `row` on.
    pub(crate) fn put_n(&mut self, row: usize, count: usize, value: Value<'_>, scratch: &mut String) {
        match (self, value) {
            (Self::Text(column), Value::String(text)) => column.put_n(row, count, text.as_bytes()),
            (Self::Text(column), Value::Text(text)) => column.put_n(row, count, text),
            (Self::Bytes(column), Value::Bytes(bytes)) => column.put_n(row, count, bytes),
            (Self::Int(column), Value::Int(value)) => column.put_n(row, count, value),
            (Self::Double(column), Value::Double(value)) => column.put_n(row, count, value),
            (Self::Bool(column), Value::Bool(value)) => column.put_n(row, count, value),
            (Self::Text(column), Value::Array(_) | Value::Kvlist(_)) => {
                scratch.clear();
                json::any_value(scratch, value);
                column.put_n(row, count, scratch.as_bytes());
            }
            // Of another kind than the column: does not happen, and would be null.
            _ => (),
        }
    }

    /// The column of `rows` rows.
    ///
    /// # Errors
    ///
    /// As [`Texts::finish`].
    pub(crate) fn finish(self, rows: usize) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Text(column) => column.finish(rows)?,
            Self::Bytes(column) => column.finish_bytes(rows)?,
            Self::Int(column) => Arc::new(column.finish(rows)),
            Self::Double(column) => Arc::new(column.finish(rows)),
            Self::Bool(column) => column.finish(rows),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_two_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(std::str::from_utf8(&HEX[usize::from(byte)]).unwrap(), format!("{byte:02x}"));
        }
    }
}
