//! The columns of a table, and how each field of OTLP maps to them.
//!
//! # From OTLP to columns
//!
//! | OTLP | column | type | when it is null, and what else happens |
//! | --- | --- | --- | --- |
//! | `LogRecord.time_unix_nano` | `time` | timestamp ns UTC | never null: when 0 or beyond 2^63 - 1 it is the observed time, else the received time, and the original is in `overflow.timeUnixNano` |
//! | `LogRecord.observed_time_unix_nano` | `observed_time` | timestamp ns UTC | null when 0; null when beyond 2^63 - 1, the original in `overflow.observedTimeUnixNano` |
//! | (the receiver's clock) | `received_time` | timestamp ns UTC | never null, the same for all records of a request |
//! | `LogRecord.severity_number` | `severity_number` | Int32 | never null; numbers without a name stay as they are |
//! | `LogRecord.severity_text` | `severity_text` | Utf8 | null when empty; not UTF-8: null and `overflow.severityText` |
//! | `LogRecord.event_name` | `event_name` | Utf8 | null when empty; not UTF-8: null and `overflow.eventName` |
//! | `LogRecord.body` | `body` | Utf8 | a string as it is, any other kind as OTLP JSON of the `AnyValue`; null when absent or empty |
//! | `LogRecord.body` | `body_kind` | Utf8 | `string`, `bool`, `int`, `double`, `bytes`, `array`, `kvlist`, or `empty` (an `AnyValue` without a value); null when absent |
//! | `LogRecord.attributes` | `attributes` | Struct | one child for each key, see below |
//! | `LogRecord.dropped_attributes_count` | `dropped_attributes_count` | UInt32 | never null |
//! | `LogRecord.trace_id` | `trace_id` | Utf8, lower-case hex | null when empty; not 16 bytes: null and `overflow.traceId` in hex |
//! | `LogRecord.span_id` | `span_id` | Utf8, lower-case hex | null when empty; not 8 bytes: null and `overflow.spanId` in hex |
//! | `LogRecord.flags` | `flags` | UInt32 | never null |
//! | `Resource.attributes` | `resource_attributes` | Struct | as `attributes`; leftovers in `overflow.resource.attributes` |
//! | `Resource.dropped_attributes_count` | `resource_dropped_attributes_count` | UInt32 | never null |
//! | `Resource.entity_refs` | none | | `overflow.resource.entityRefs` |
//! | `ResourceLogs.schema_url` | `resource_schema_url` | Utf8 | null when empty; not UTF-8: null and `overflow.resourceSchemaUrl` |
//! | `Resource.attributes["service.name"]` | `service_name` | Utf8 | null when absent or not a string; the attribute stays in `resource_attributes` too |
//! | `Resource.attributes["logseal.table"]` | (chooses the table) | | stays in `resource_attributes` too |
//! | `InstrumentationScope.name` | `scope_name` | Utf8 | null when empty; not UTF-8: null and `overflow.scope.name` |
//! | `InstrumentationScope.version` | `scope_version` | Utf8 | null when empty; not UTF-8: null and `overflow.scope.version` |
//! | `InstrumentationScope.attributes` | `scope_attributes` | Struct | as `attributes`; leftovers in `overflow.scope.attributes` |
//! | `InstrumentationScope.dropped_attributes_count` | `scope_dropped_attributes_count` | UInt32 | never null |
//! | `ScopeLogs.schema_url` | `scope_schema_url` | Utf8 | null when empty; not UTF-8: null and `overflow.scopeSchemaUrl` |
//! | all that no column holds exactly | `overflow` | Utf8 | null when there is nothing, else one JSON object, a fragment of OTLP JSON |
//!
//! Proto3 cannot tell an empty string, a zero or an absent scope from one that was not sent, and neither do the columns.
//! Unknown fields are skipped. What repeats follows protobuf: the last scalar wins, embedded messages merge.
//!
//! # Attributes
//!
//! A key becomes a column of its container at first sight; the kind of value seen then is the column's for ever.
//!
//! | `AnyValue` | kind | type of the child column |
//! | --- | --- | --- |
//! | `string_value` | [`String`](AttributeKind::String) | Utf8 |
//! | `string_value` that is not UTF-8 | as `bytes_value` with the same bytes, and counted | |
//! | `bool_value` | [`Bool`](AttributeKind::Bool) | Boolean |
//! | `int_value` | [`Int`](AttributeKind::Int) | Int64 |
//! | `double_value` | [`Double`](AttributeKind::Double) | Float64, NaN and infinities included |
//! | `bytes_value` | [`Bytes`](AttributeKind::Bytes) | Binary |
//! | `array_value` | [`Array`](AttributeKind::Array) | Utf8, OTLP JSON of the `AnyValue` |
//! | `kvlist_value` | [`Kvlist`](AttributeKind::Kvlist) | Utf8, OTLP JSON of the `AnyValue` |
//! | no value | no column | `overflow.attributes`, with the key alone |
//! | `string_value_strindex`, `KeyValue.key_strindex` | as if absent, and counted | |
//!
//! Into `overflow.attributes` (`overflow.resource.attributes`, `overflow.scope.attributes`), in the order they came, go
//! a value of another kind than its column's, all but the last of several with the same key, an empty or overlong key,
//! and what comes after the table has all the columns it may have. So a key's last value is in its column if the
//! column is not null, else it is the last one in `overflow`.
//!
//! # The overflow object
//!
//! Members, each only when needed: `attributes`, `timeUnixNano`, `observedTimeUnixNano` (decimal strings), `severityText`,
//! `eventName`, `traceId`, `spanId` (hex), `resource` (`attributes`, `entityRefs`), `resourceSchemaUrl`, `scope` (`name`,
//! `version`, `attributes`), `scopeSchemaUrl`. Text that is not UTF-8 stands as `{"bytesValue":"<base64>"}`.
//!
//! # Rejected alone
//!
//! A record is rejected, and counted, when one of its keys (or of a key-value list inside) is not UTF-8, when values are
//! nested deeper than the limit, when it has more attributes than the limit, when the request has more records than the
//! limit, or when repeating its resource's and scope's values in one more row exceeds the limit. A fault in a resource or
//! a scope rejects all of its records.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

/// Names of the columns that every table has.
pub mod column {
    /// When the event happened.
    pub const TIME: &str = "time";
    /// When the collection system saw it.
    pub const OBSERVED_TIME: &str = "observed_time";
    /// When this server received it.
    pub const RECEIVED_TIME: &str = "received_time";
    /// Severity as a number, 1 to 24.
    pub const SEVERITY_NUMBER: &str = "severity_number";
    /// Severity as the source named it.
    pub const SEVERITY_TEXT: &str = "severity_text";
    /// Name of the class of events.
    pub const EVENT_NAME: &str = "event_name";
    /// The body.
    pub const BODY: &str = "body";
    /// The kind of the body's value.
    pub const BODY_KIND: &str = "body_kind";
    /// Attributes of the record.
    pub const ATTRIBUTES: &str = "attributes";
    /// How many of them the sender dropped.
    pub const DROPPED_ATTRIBUTES_COUNT: &str = "dropped_attributes_count";
    /// Trace that the record belongs to.
    pub const TRACE_ID: &str = "trace_id";
    /// Span that the record belongs to.
    pub const SPAN_ID: &str = "span_id";
    /// W3C trace flags.
    pub const FLAGS: &str = "flags";
    /// Attributes of the resource.
    pub const RESOURCE_ATTRIBUTES: &str = "resource_attributes";
    /// How many of them the sender dropped.
    pub const RESOURCE_DROPPED_ATTRIBUTES_COUNT: &str = "resource_dropped_attributes_count";
    /// Schema of the resource's attributes.
    pub const RESOURCE_SCHEMA_URL: &str = "resource_schema_url";
    /// The resource attribute `service.name`.
    pub const SERVICE_NAME: &str = "service_name";
    /// Name of the instrumentation scope.
    pub const SCOPE_NAME: &str = "scope_name";
    /// Version of the instrumentation scope.
    pub const SCOPE_VERSION: &str = "scope_version";
    /// Attributes of the instrumentation scope.
    pub const SCOPE_ATTRIBUTES: &str = "scope_attributes";
    /// How many of them the sender dropped.
    pub const SCOPE_DROPPED_ATTRIBUTES_COUNT: &str = "scope_dropped_attributes_count";
    /// Schema of the scope's and its records' attributes.
    pub const SCOPE_SCHEMA_URL: &str = "scope_schema_url";
    /// What no other column holds exactly.
    pub const OVERFLOW: &str = "overflow";
}

/// Key in a child field's metadata whose value is the [name](AttributeKind::name) of its kind.
pub const KIND_METADATA: &str = "logseal.kind";

/// Which attributes a column belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AttributeContainer {
    /// Those of the record itself.
    Record,
    /// Those of its resource.
    Resource,
    /// Those of its instrumentation scope.
    Scope,
}

impl AttributeContainer {
    /// All containers, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Record, Self::Resource, Self::Scope];

    /// Name of the struct column.
    #[must_use]
    pub const fn column_name(self) -> &'static str {
        match self {
            Self::Record => column::ATTRIBUTES,
            Self::Resource => column::RESOURCE_ATTRIBUTES,
            Self::Scope => column::SCOPE_ATTRIBUTES,
        }
    }

    /// The number that stands for it in storage; it never changes.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Record => 0,
            Self::Resource => 1,
            Self::Scope => 2,
        }
    }

    /// The container with this [`code`](Self::code).
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Record),
            1 => Some(Self::Resource),
            2 => Some(Self::Scope),
            _ => None,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self.code() as usize
    }
}

/// The kind of values that an attribute column holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AttributeKind {
    /// Text.
    String,
    /// True or false.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit floating point.
    Double,
    /// Bytes.
    Bytes,
    /// List of values, as OTLP JSON.
    Array,
    /// List of keys and values, as OTLP JSON.
    Kvlist,
}

impl AttributeKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 7] =
        [Self::String, Self::Bool, Self::Int, Self::Double, Self::Bytes, Self::Array, Self::Kvlist];

    /// The type of the column.
    #[must_use]
    pub const fn arrow_type(self) -> DataType {
        match self {
            Self::String | Self::Array | Self::Kvlist => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bytes => DataType::Binary,
        }
    }

    /// The kind's name, as in the column `body_kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::Array => "array",
            Self::Kvlist => "kvlist",
        }
    }

    /// The number that stands for it in storage; it never changes.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::String => 0,
            Self::Bool => 1,
            Self::Int => 2,
            Self::Double => 3,
            Self::Bytes => 4,
            Self::Array => 5,
            Self::Kvlist => 6,
        }
    }

    /// The kind with this [`code`](Self::code).
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// One attribute column: a key of a container and the kind of its values.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AttributeColumn {
    /// Which struct column it is a child of.
    pub container: AttributeContainer,
    /// The attribute's key, the child's name.
    pub key: Box<str>,
    /// The kind of the values.
    pub kind: AttributeKind,
}

/// The field of an attribute column inside its struct.
pub(crate) fn attribute_field(key: &str, kind: AttributeKind) -> FieldRef {
    let metadata = HashMap::from([(KIND_METADATA.to_owned(), kind.name().to_owned())]);
    Arc::new(Field::new(key, kind.arrow_type(), true).with_metadata(metadata))
}

/// Where a column of the table comes from.
#[derive(Clone, Debug)]
pub(crate) enum Position {
    Fixed(FieldRef),
    Attributes(AttributeContainer),
}

/// The columns of every table in their order, shared by all schemas so that a chunk does not make them anew.
pub(crate) static POSITIONS: LazyLock<[Position; 23]> = LazyLock::new(|| {
    let fixed = |name, data_type, nullable| Position::Fixed(Arc::new(Field::new(name, data_type, nullable)));
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name| fixed(name, DataType::Utf8, true);
    [
        fixed(column::TIME, time(), false),
        fixed(column::OBSERVED_TIME, time(), true),
        fixed(column::RECEIVED_TIME, time(), false),
        fixed(column::SEVERITY_NUMBER, DataType::Int32, true),
        text(column::SEVERITY_TEXT),
        text(column::EVENT_NAME),
        text(column::BODY),
        text(column::BODY_KIND),
        Position::Attributes(AttributeContainer::Record),
        fixed(column::DROPPED_ATTRIBUTES_COUNT, DataType::UInt32, true),
        text(column::TRACE_ID),
        text(column::SPAN_ID),
        fixed(column::FLAGS, DataType::UInt32, true),
        Position::Attributes(AttributeContainer::Resource),
        fixed(column::RESOURCE_DROPPED_ATTRIBUTES_COUNT, DataType::UInt32, true),
        text(column::RESOURCE_SCHEMA_URL),
        text(column::SERVICE_NAME),
        text(column::SCOPE_NAME),
        text(column::SCOPE_VERSION),
        Position::Attributes(AttributeContainer::Scope),
        fixed(column::SCOPE_DROPPED_ATTRIBUTES_COUNT, DataType::UInt32, true),
        text(column::SCOPE_SCHEMA_URL),
        text(column::OVERFLOW),
    ]
});

/// The field of a container's struct column.
pub(crate) fn struct_field(container: AttributeContainer, children: Fields) -> FieldRef {
    Arc::new(Field::new(container.column_name(), DataType::Struct(children), true))
}

/// The whole logical schema of a table with these attribute columns: the fixed columns in their order and three struct
/// columns, whose children are sorted by key.
///
/// A struct column is present even without children, which a chunk leaves out.
#[must_use]
pub fn arrow_schema(columns: &[AttributeColumn]) -> Schema {
    let children = |container| {
        let mut children: Vec<&AttributeColumn> = columns.iter().filter(|c| c.container == container).collect();
        children.sort_by(|a, b| a.key.cmp(&b.key));
        children.into_iter().map(|c| attribute_field(&c.key, c.kind)).collect::<Fields>()
    };
    let fields = POSITIONS.iter().map(|position| match position {
        Position::Fixed(field) => Arc::clone(field),
        Position::Attributes(container) => struct_field(*container, children(*container)),
    });
    Schema::new(fields.collect::<Fields>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_stable() {
        for (code, container, name) in [
            (0, AttributeContainer::Record, "attributes"),
            (1, AttributeContainer::Resource, "resource_attributes"),
            (2, AttributeContainer::Scope, "scope_attributes"),
        ] {
            assert_eq!((container.code(), container.column_name()), (code, name));
            assert_eq!(AttributeContainer::from_code(code), Some(container));
        }
        assert_eq!(AttributeContainer::from_code(3), None);
        let names = ["string", "bool", "int", "double", "bytes", "array", "kvlist"];
        for (code, name) in (0..).zip(names) {
            let kind = AttributeKind::from_code(code).unwrap();
            assert_eq!((kind.code(), kind.name()), (code, name));
        }
        assert_eq!(AttributeKind::from_code(7), None);
    }

    #[test]
    fn the_schema_has_the_documented_columns_and_sorted_children() {
        let column = |container, key: &str, kind| AttributeColumn { container, key: key.into(), kind };
        let schema = arrow_schema(&[
            column(AttributeContainer::Record, "b", AttributeKind::Int),
            column(AttributeContainer::Scope, "s", AttributeKind::Array),
            column(AttributeContainer::Record, "a", AttributeKind::Bool),
        ]);
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let documented: Vec<&str> = include_str!("schema.rs")
            .lines()
            .take_while(|line| !line.contains("# Attributes"))
            .filter_map(|line| line.strip_prefix("//! | `")?.split("| `").nth(1)?.split('`').next())
            .collect();
        for name in &names {
            let generated = ["received_time", "overflow"].contains(name);
            assert!(generated || documented.contains(name), "{name} is not in the documentation");
        }
        assert_eq!(names.len(), 23);
        let DataType::Struct(children) = schema.field_with_name("attributes").unwrap().data_type() else { panic!() };
        let children: Vec<_> = children
            .iter()
            .map(|f| (f.name().as_str(), f.data_type().clone(), f.metadata()[KIND_METADATA].as_str()))
            .collect();
        assert_eq!(children, [("a", DataType::Boolean, "bool"), ("b", DataType::Int64, "int")]);
    }
}
