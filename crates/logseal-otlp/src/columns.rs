//! Arrow builders of one chunk: the columns that every table has, and the cells of one attribute column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    StructArray, TimestampNanosecondArray, TimestampNanosecondBuilder, UInt32Builder,
};
use arrow::datatypes::{Fields, Schema};
use arrow::error::ArrowError;
use logseal_core::UnixNanos;

use crate::json;
use crate::overflow;
use crate::record::Record;
use crate::schema::{AttributeKind, POSITIONS, Position, struct_field};
use crate::value::Value;

/// Most rows that builders reserve memory for before they have any; a scope's records are counted before they are read.
const RESERVED_ROWS: usize = 1024;

/// Builders of the fixed columns. Values of resource and scope are appended in runs, after the records they belong to.
#[derive(Debug)]
pub(crate) struct FixedColumns {
    time: TimestampNanosecondBuilder,
    observed_time: TimestampNanosecondBuilder,
    severity_number: Int32Builder,
    severity_text: StringBuilder,
    event_name: StringBuilder,
    body: StringBuilder,
    body_kind: StringBuilder,
    dropped_attributes_count: UInt32Builder,
    trace_id: StringBuilder,
    span_id: StringBuilder,
    flags: UInt32Builder,
    resource_dropped_attributes_count: UInt32Builder,
    resource_schema_url: StringBuilder,
    service_name: StringBuilder,
    scope_name: StringBuilder,
    scope_version: StringBuilder,
    scope_dropped_attributes_count: UInt32Builder,
    scope_schema_url: StringBuilder,
    overflow: StringBuilder,
}

impl FixedColumns {
    /// Empty columns, with memory for `rows` rows.
    pub(crate) fn new(rows: usize) -> Self {
        let rows = rows.min(RESERVED_ROWS);
        let text = |bytes| StringBuilder::with_capacity(rows, rows * bytes);
        // Columns that most records leave empty, or that are equal for a run of rows, reserve no text.
        Self {
            time: TimestampNanosecondBuilder::with_capacity(rows),
            observed_time: TimestampNanosecondBuilder::with_capacity(rows),
            severity_number: Int32Builder::with_capacity(rows),
            severity_text: text(4),
            event_name: text(0),
            body: text(64),
            body_kind: text(6),
            dropped_attributes_count: UInt32Builder::with_capacity(rows),
            trace_id: text(32),
            span_id: text(16),
            flags: UInt32Builder::with_capacity(rows),
            resource_dropped_attributes_count: UInt32Builder::with_capacity(rows),
            resource_schema_url: text(0),
            service_name: text(0),
            scope_name: text(0),
            scope_version: text(0),
            scope_dropped_attributes_count: UInt32Builder::with_capacity(rows),
            scope_schema_url: text(0),
            overflow: text(0),
        }
    }

    /// Appends a record's own fields but for `overflow`, to which it adds what a column cannot hold. Returns the
    /// column `time`'s value.
    pub(crate) fn append_record(
        &mut self,
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
        self.time.append_value(time);
        self.observed_time.append_option(observed);
        self.severity_number.append_value(record.severity_number);
        append_text(&mut self.severity_text, record.severity_text, "severityText", members);
        append_text(&mut self.event_name, record.event_name, "eventName", members);
        self.append_body(record.body, scratch);
        self.dropped_attributes_count.append_value(record.dropped_attributes_count);
        append_id::<16, 32>(&mut self.trace_id, record.trace_id, "traceId", members);
        append_id::<8, 16>(&mut self.span_id, record.span_id, "spanId", members);
        self.flags.append_value(record.flags);
        time
    }

    fn append_body(&mut self, body: Option<Value<'_>>, scratch: &mut String) {
        match body {
            None => {
                self.body.append_null();
                self.body_kind.append_null();
            }
            Some(Value::Empty) => {
                self.body.append_null();
                self.body_kind.append_value("empty");
            }
            Some(Value::String(text)) => {
                self.body.append_value(text);
                self.body_kind.append_value(AttributeKind::String.name());
            }
            Some(value) => {
                scratch.clear();
                json::any_value(scratch, value);
                self.body.append_value(&*scratch);
                self.body_kind.append_option(kind(value).map(AttributeKind::name));
            }
        }
    }

    /// Appends the overflow object of the row; nothing in `parts` means null.
    pub(crate) fn append_overflow(&mut self, parts: [&str; 3], scratch: &mut String) {
        if parts.iter().all(|part| part.is_empty()) {
            self.overflow.append_null();
            return;
        }
        scratch.clear();
        for part in parts {
            if !part.is_empty() {
                scratch.extend([if scratch.is_empty() { "{" } else { "," }, part]);
            }
        }
        scratch.push('}');
        self.overflow.append_value(&*scratch);
    }

    /// Appends a resource's fields for `count` rows.
    pub(crate) fn append_resource(&mut self, count: usize, dropped: u32, schema_url: &[u8], service_name: &str) {
        self.resource_dropped_attributes_count.append_value_n(dropped, count);
        append_text_n(&mut self.resource_schema_url, schema_url, count);
        append_text_n(&mut self.service_name, service_name.as_bytes(), count);
    }

    /// Appends a scope's fields for `count` rows.
    pub(crate) fn append_scope(&mut self, count: usize, dropped: u32, name: &[u8], version: &[u8], schema_url: &[u8]) {
        self.scope_dropped_attributes_count.append_value_n(dropped, count);
        append_text_n(&mut self.scope_name, name, count);
        append_text_n(&mut self.scope_version, version, count);
        append_text_n(&mut self.scope_schema_url, schema_url, count);
    }

    /// The batch of all rows, with a struct column for each container that has children.
    pub(crate) fn finish(
        mut self,
        received: UnixNanos,
        structs: [Option<StructArray>; 3],
    ) -> Result<RecordBatch, ArrowError> {
        let time = self.time.finish().with_timezone("UTC");
        let received_time = TimestampNanosecondArray::from_value(received.0, time.len()).with_timezone("UTC");
        // In the order of `POSITIONS`.
        let fixed: [ArrayRef; 20] = [
            Arc::new(time),
            Arc::new(self.observed_time.finish().with_timezone("UTC")),
            Arc::new(received_time),
            Arc::new(self.severity_number.finish()),
            Arc::new(self.severity_text.finish()),
            Arc::new(self.event_name.finish()),
            Arc::new(self.body.finish()),
            Arc::new(self.body_kind.finish()),
            Arc::new(self.dropped_attributes_count.finish()),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.resource_dropped_attributes_count.finish()),
            Arc::new(self.resource_schema_url.finish()),
            Arc::new(self.service_name.finish()),
            Arc::new(self.scope_name.finish()),
            Arc::new(self.scope_version.finish()),
            Arc::new(self.scope_dropped_attributes_count.finish()),
            Arc::new(self.scope_schema_url.finish()),
            Arc::new(self.overflow.finish()),
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
        Value::String(_) => AttributeKind::String,
        Value::Bool(_) => AttributeKind::Bool,
        Value::Int(_) => AttributeKind::Int,
        Value::Double(_) => AttributeKind::Double,
        Value::Bytes(_) => AttributeKind::Bytes,
        Value::Array(_) => AttributeKind::Array,
        Value::Kvlist(_) => AttributeKind::Kvlist,
    })
}

#[inline]
fn append_text(column: &mut StringBuilder, text: &[u8], name: &str, members: &mut String) {
    if text.is_empty() {
        column.append_null();
        return;
    }
    match std::str::from_utf8(text) {
        Ok(text) => column.append_value(text),
        Err(_) => {
            column.append_null();
            overflow::invalid_text(members, name, text);
        }
    }
}

fn append_text_n(column: &mut StringBuilder, text: &[u8], count: usize) {
    match std::str::from_utf8(text) {
        Ok(text) if !text.is_empty() => column.append_value_n(text, count),
        // What is not UTF-8 is in the overflow object.
        _ => column.append_nulls(count),
    }
}

const HEX_DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Appends an id of `BYTES` bytes as `HEX` = 2 * `BYTES` digits.
#[inline]
fn append_id<const BYTES: usize, const HEX: usize>(
    column: &mut StringBuilder,
    id: &[u8],
    name: &str,
    members: &mut String,
) {
    if id.len() == BYTES {
        let mut digits = [0; HEX];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(id) {
            pair.copy_from_slice(&[HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
        }
        // Digits are ASCII; the fallback only spares a panic.
        column.append_value(std::str::from_utf8(&digits).unwrap_or_default());
    } else {
        column.append_null();
        if !id.is_empty() {
            overflow::hex(members, name, id);
        }
    }
}

/// The cells of one attribute column, filled row by row; rows without a value become null when the next value comes.
#[derive(Debug)]
pub(crate) struct Cells {
    builder: CellBuilder,
    rows: usize,
}

#[derive(Debug)]
enum CellBuilder {
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bytes(BinaryBuilder),
}

macro_rules! each_builder {
    ($self:expr, $builder:ident => $body:expr) => {
        match $self {
            CellBuilder::Text($builder) => $body,
            CellBuilder::Bool($builder) => $body,
            CellBuilder::Int($builder) => $body,
            CellBuilder::Double($builder) => $body,
            CellBuilder::Bytes($builder) => $body,
        }
    };
}

impl Cells {
    /// No cells yet, with memory for `rows`.
    pub(crate) fn new(kind: AttributeKind, rows: usize) -> Self {
        let rows = rows.min(RESERVED_ROWS);
        let builder = match kind {
            AttributeKind::String | AttributeKind::Array | AttributeKind::Kvlist => {
                CellBuilder::Text(StringBuilder::with_capacity(rows, rows * 8))
            }
            AttributeKind::Bool => CellBuilder::Bool(BooleanBuilder::with_capacity(rows)),
            AttributeKind::Int => CellBuilder::Int(Int64Builder::with_capacity(rows)),
            AttributeKind::Double => CellBuilder::Double(Float64Builder::with_capacity(rows)),
            AttributeKind::Bytes => CellBuilder::Bytes(BinaryBuilder::with_capacity(rows, 0)),
        };
        Self { builder, rows: 0 }
    }

    /// Makes all rows before `row` exist.
    #[inline]
    fn pad(&mut self, row: usize) {
        if self.rows < row {
            let missing = row - self.rows;
            each_builder!(&mut self.builder, builder => builder.append_nulls(missing));
            self.rows = row;
        }
    }

    /// Puts `value`, which is of the column's kind, into row `row`.
    #[inline]
    pub(crate) fn append(&mut self, row: usize, value: Value<'_>, scratch: &mut String) {
        self.pad(row);
        match (&mut self.builder, value) {
            (CellBuilder::Text(builder), Value::String(text)) => builder.append_value(text),
            (CellBuilder::Int(builder), Value::Int(value)) => builder.append_value(value),
            (CellBuilder::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (CellBuilder::Double(builder), Value::Double(value)) => builder.append_value(value),
            (CellBuilder::Bytes(builder), Value::Bytes(bytes)) => builder.append_value(bytes),
            (CellBuilder::Text(builder), Value::Array(_) | Value::Kvlist(_)) => {
                scratch.clear();
                json::any_value(scratch, value);
                builder.append_value(&*scratch);
            }
            (builder, _) => each_builder!(builder, builder => builder.append_null()),
        }
        self.rows += 1;
    }

    /// Puts `value` into `count` rows from `row` on.
    pub(crate) fn append_n(&mut self, row: usize, count: usize, value: Value<'_>, scratch: &mut String) {
        self.pad(row);
        match (&mut self.builder, value) {
            (CellBuilder::Text(builder), Value::String(text)) => builder.append_value_n(text, count),
            (CellBuilder::Int(builder), Value::Int(value)) => builder.append_value_n(value, count),
            (CellBuilder::Bool(builder), Value::Bool(value)) => builder.append_n(count, value),
            (CellBuilder::Double(builder), Value::Double(value)) => builder.append_value_n(value, count),
            (CellBuilder::Bytes(builder), Value::Bytes(bytes)) => builder.append_value_n(bytes, count),
            (CellBuilder::Text(builder), Value::Array(_) | Value::Kvlist(_)) => {
                scratch.clear();
                json::any_value(scratch, value);
                builder.append_value_n(&*scratch, count);
            }
            (builder, _) => each_builder!(builder, builder => builder.append_nulls(count)),
        }
        self.rows += count;
    }

    /// The column of `rows` rows.
    pub(crate) fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        each_builder!(&mut self.builder, builder => Arc::new(builder.finish()))
    }
}
