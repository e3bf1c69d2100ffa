//! The messages of a request as JSON names them: which field has which number and which type.
//!
//! Held against OTLP's own descriptors by a test of the whole crate: every field of every kind goes through it and comes out as prost
//! reads it.

use super::lexer::Text;

/// Most fields of a message.
pub(super) const MOST_FIELDS: usize = 12;

/// Longest name of a field.
pub(super) const NAME_BYTES: usize = 24;

/// One type of message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: &'static [Field],
    /// `AnyValue`: at most one field is set, and it nests.
    pub(super) is_value: bool,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The name in the .proto file.
    original: &'static str,
    pub(super) number: u8,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// How a field is written, here and there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Bytes in hexadecimal digits: an exception that OTLP makes for its ids.
    Hex,
    Base64,
    Bool,
    Int64,
    Int32,
    Uint32,
    Fixed64,
    Fixed32,
    Double,
    Severity,
    Message(&'static Message),
}

impl Message {
    /// The ordinal of the field with this name. Senders write fields in one order: the search begins at `expected`.
    pub(super) fn find(&self, name: Text<'_>, expected: usize) -> Option<usize> {
        let mut buffer = [0; NAME_BYTES];
        let name = name.short(&mut buffer)?;
        let matches = |field: &Field| field.name.as_bytes() == name || field.original.as_bytes() == name;
        let (before, after) = self.fields.split_at(expected.min(self.fields.len()));
        after.iter().position(matches).map(|index| before.len() + index).or_else(|| before.iter().position(matches))
    }
}

impl Field {
    /// The first byte on the wire: number and wire type.
    pub(super) fn tag(&self) -> u8 {
        let wire_type = match self.kind {
            Kind::Bool | Kind::Int64 | Kind::Int32 | Kind::Uint32 | Kind::Severity => 0,
            Kind::Fixed64 | Kind::Double => 1,
            Kind::Text | Kind::Hex | Kind::Base64 | Kind::Message(_) => 2,
            Kind::Fixed32 => 5,
        };
        self.number << 3 | wire_type
    }

    /// True if a reader of protobuf would put two of them together, where of others the last one counts.
    pub(super) fn merges(&self) -> bool {
        self.repeated || matches!(self.kind, Kind::Message(_))
    }
}

const fn one(number: u8, name: &'static str, original: &'static str, kind: Kind) -> Field {
    assert!(name.len() <= NAME_BYTES && original.len() <= NAME_BYTES && number < 16);
    Field { name, original, number, kind, repeated: false }
}

const fn list(number: u8, name: &'static str, original: &'static str, kind: Kind) -> Field {
    Field { repeated: true, ..one(number, name, original, kind) }
}

const fn message(fields: &'static [Field]) -> Message {
    assert!(fields.len() <= MOST_FIELDS);
    Message { fields, is_value: false }
}

pub(super) static REQUEST: Message =
    message(&[list(1, "resourceLogs", "resource_logs", Kind::Message(&RESOURCE_LOGS))]);

static RESOURCE_LOGS: Message = message(&[
    one(1, "resource", "resource", Kind::Message(&RESOURCE)),
    list(2, "scopeLogs", "scope_logs", Kind::Message(&SCOPE_LOGS)),
    one(3, "schemaUrl", "schema_url", Kind::Text),
]);

static RESOURCE: Message = message(&[
    list(1, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
    list(3, "entityRefs", "entity_refs", Kind::Message(&ENTITY_REF)),
]);

static ENTITY_REF: Message = message(&[
    one(1, "schemaUrl", "schema_url", Kind::Text),
    one(2, "type", "type", Kind::Text),
    list(3, "idKeys", "id_keys", Kind::Text),
    list(4, "descriptionKeys", "description_keys", Kind::Text),
]);

static SCOPE_LOGS: Message = message(&[
    one(1, "scope", "scope", Kind::Message(&SCOPE)),
    list(2, "logRecords", "log_records", Kind::Message(&LOG_RECORD)),
    one(3, "schemaUrl", "schema_url", Kind::Text),
]);

static SCOPE: Message = message(&[
    one(1, "name", "name", Kind::Text),
    one(2, "version", "version", Kind::Text),
    list(3, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
]);

static LOG_RECORD: Message = message(&[
    one(1, "timeUnixNano", "time_unix_nano", Kind::Fixed64),
    one(11, "observedTimeUnixNano", "observed_time_unix_nano", Kind::Fixed64),
    one(2, "severityNumber", "severity_number", Kind::Severity),
    one(3, "severityText", "severity_text", Kind::Text),
    one(5, "body", "body", Kind::Message(&ANY_VALUE)),
    list(6, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
    one(7, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
    one(8, "flags", "flags", Kind::Fixed32),
    one(9, "traceId", "trace_id", Kind::Hex),
    one(10, "spanId", "span_id", Kind::Hex),
    one(12, "eventName", "event_name", Kind::Text),
]);

static KEY_VALUE: Message = message(&[
    one(1, "key", "key", Kind::Text),
    one(2, "value", "value", Kind::Message(&ANY_VALUE)),
    one(3, "keyStrindex", "key_strindex", Kind::Int32),
]);

static ANY_VALUE: Message = Message {
    fields: &[
        one(1, "stringValue", "string_value", Kind::Text),
        one(2, "boolValue", "bool_value", Kind::Bool),
        one(3, "intValue", "int_value", Kind::Int64),
        one(4, "doubleValue", "double_value", Kind::Double),
        one(5, "arrayValue", "array_value", Kind::Message(&ARRAY)),
        one(6, "kvlistValue", "kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        one(7, "bytesValue", "bytes_value", Kind::Base64),
        one(8, "stringValueStrindex", "string_value_strindex", Kind::Int32),
    ],
    is_value: true,
};

static ARRAY: Message = message(&[list(1, "values", "values", Kind::Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message = message(&[list(1, "values", "values", Kind::Message(&KEY_VALUE))]);

/// The number of an enumeration's name, `SEVERITY_NUMBER_INFO2` for example; nothing for a name that OTLP does not have.
pub(super) fn severity(name: &[u8]) -> Option<i32> {
    const LEVELS: [(&[u8], i32); 6] =
        [(b"TRACE", 1), (b"DEBUG", 5), (b"INFO", 9), (b"WARN", 13), (b"ERROR", 17), (b"FATAL", 21)];
    let name = name.strip_prefix(b"SEVERITY_NUMBER_")?;
    if name == b"UNSPECIFIED" {
        return Some(0);
    }
    let (name, further) = match name.split_last()? {
        (digit @ b'2'..=b'4', name) => (name, i32::from(digit - b'1')),
        _ => (name, 0),
    };
    LEVELS.iter().find(|(level, _)| *level == name).map(|(_, number)| number + further)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

    use super::*;

    #[test]
    fn severities_have_the_numbers_of_otlp() {
        for number in 0..=24 {
            let name = SeverityNumber::try_from(number).unwrap().as_str_name();
            assert_eq!(severity(name.as_bytes()), Some(number), "{name}");
        }
        for other in
            ["SEVERITY_NUMBER_INFO1", "SEVERITY_NUMBER_INFO5", "SEVERITY_NUMBER_", "INFO", "", "SEVERITY_NUMBER_2"]
        {
            assert_eq!(severity(other.as_bytes()), None, "{other}");
        }
    }
}
