//! Columns back into records, by the documentation of `logseal_otlp::schema` alone.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type};
use data_encoding::{BASE64, HEXLOWER};
use logseal_otlp::Scanned;
use logseal_otlp::schema::KIND_METADATA;
use serde_json::value::RawValue;

use crate::RECEIVED;
use crate::canonical::{Attributes, Entity, Owner, Record, Value, double};

type Object = HashMap<String, Box<RawValue>>;

fn object(text: &str) -> Object {
    serde_json::from_str(text).expect("a JSON object")
}

fn list(raw: &RawValue) -> Vec<Box<RawValue>> {
    serde_json::from_str(raw.get()).expect("a JSON array")
}

fn text(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).expect("a JSON string")
}

fn any_value(json: &str) -> Value {
    let object = object(json);
    let Some((kind, raw)) = object.iter().next() else { return Value::Empty };
    assert_eq!(object.len(), 1, "{json}");
    match kind.as_str() {
        "stringValue" => Value::String(text(raw)),
        "boolValue" => Value::Bool(serde_json::from_str(raw.get()).expect("a boolean")),
        "intValue" => Value::Int(text(raw).parse().expect("an integer")),
        "bytesValue" => Value::Bytes(BASE64.decode(text(raw).as_bytes()).expect("base64")),
        "doubleValue" => double(match raw.get() {
            "\"NaN\"" => f64::NAN,
            "\"Infinity\"" => f64::INFINITY,
            "\"-Infinity\"" => f64::NEG_INFINITY,
            number => number.parse().expect("a number"),
        }),
        "arrayValue" => {
            Value::Array(list(&self::object(raw.get())["values"]).iter().map(|v| any_value(v.get())).collect())
        }
        "kvlistValue" => {
            Value::Kvlist(list(&self::object(raw.get())["values"]).iter().map(|kv| key_value(kv)).collect())
        }
        other => panic!("unknown kind {other}"),
    }
}

fn key_value(raw: &RawValue) -> (String, Value) {
    let object = object(raw.get());
    (text(&object["key"]), object.get("value").map_or(Value::Empty, |value| any_value(value.get())))
}

struct Rows<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

impl Rows<'_> {
    fn column(&self, name: &str) -> &ArrayRef {
        self.batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"))
    }

    fn text(&self, name: &str) -> Option<String> {
        let column = self.column(name).as_string::<i32>();
        column.is_valid(self.row).then(|| column.value(self.row).to_owned())
    }

    fn uint(&self, name: &str) -> u32 {
        self.column(name).as_primitive::<UInt32Type>().value(self.row)
    }

    fn time(&self, name: &str) -> Option<i64> {
        let column = self.column(name).as_primitive::<TimestampNanosecondType>();
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    /// The values in `overflow`, then the one in the column.
    fn attributes(&self, name: &str, overflow: Option<&RawValue>) -> Attributes {
        let mut attributes = Attributes::new();
        for leftover in overflow.map(list).unwrap_or_default() {
            let (key, value) = key_value(&leftover);
            attributes.entry(key).or_default().push(value);
        }
        let Some(column) = self.batch.column_by_name(name) else { return attributes };
        let column = column.as_struct();
        assert!(!column.fields().is_empty(), "a struct without children is left out");
        assert!(column.fields().is_sorted_by_key(|field| field.name()), "children are sorted");
        for (field, child) in column.fields().iter().zip(column.columns()) {
            if child.is_valid(self.row) {
                let value = cell(&field.metadata()[KIND_METADATA], child, self.row);
                attributes.entry(field.name().clone()).or_default().push(value);
            }
        }
        attributes
    }

    fn id(&self, name: &str, overflow: Option<&RawValue>) -> Vec<u8> {
        let hex = overflow.map(text).or_else(|| self.text(name)).unwrap_or_default();
        HEXLOWER.decode(hex.as_bytes()).expect("hex")
    }

    fn record(&self) -> Record {
        let overflow = self.text("overflow").map(|json| object(&json)).unwrap_or_default();
        let inner = |name: &str| overflow.get(name).map(|raw| object(raw.get())).unwrap_or_default();
        let (resource, scope) = (inner("resource"), inner("scope"));
        let original = |name: &str| overflow.get(name).map(|raw| text(raw).parse::<u64>().expect("a number"));
        let observed = self.time("observed_time");
        let time = self.time("time").expect("time is never null");
        let original_time = original("timeUnixNano");
        if original_time.is_some() {
            assert_eq!(time, observed.unwrap_or(RECEIVED.0), "the documented fallback");
        }
        assert_eq!(self.time("received_time"), Some(RECEIVED.0));
        let resource = Owner {
            attributes: self.attributes("resource_attributes", resource.get("attributes").map(|raw| &**raw)),
            dropped: self.uint("resource_dropped_attributes_count"),
            schema_url: self.text("resource_schema_url").unwrap_or_default(),
            entities: resource.get("entityRefs").map(|raw| entities(raw)).unwrap_or_default(),
            ..Owner::default()
        };
        let service_name = match resource.attributes.get("service.name").and_then(|values| values.last()) {
            Some(Value::String(name)) if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        assert_eq!(self.text("service_name"), service_name);
        let body = self.text("body_kind").map(|kind| match (kind.as_str(), self.text("body")) {
            ("string", Some(text)) => Value::String(text),
            ("empty", None) => Value::Empty,
            (kind, Some(json)) => {
                let value = any_value(&json);
                assert_eq!(kind, kind_name(&value));
                value
            }
            (kind, None) => panic!("a body of kind {kind} without text"),
        });
        Record {
            resource,
            scope: Owner {
                name: self.text("scope_name").unwrap_or_default(),
                version: self.text("scope_version").unwrap_or_default(),
                attributes: self.attributes("scope_attributes", scope.get("attributes").map(|raw| &**raw)),
                dropped: self.uint("scope_dropped_attributes_count"),
                schema_url: self.text("scope_schema_url").unwrap_or_default(),
                entities: Vec::new(),
            },
            time: original_time.unwrap_or_else(|| time.try_into().expect("not negative")),
            observed_time: original("observedTimeUnixNano")
                .unwrap_or_else(|| observed.unwrap_or(0).try_into().expect("not negative")),
            severity_number: self.column("severity_number").as_primitive::<Int32Type>().value(self.row),
            severity_text: self.text("severity_text").unwrap_or_default(),
            event_name: self.text("event_name").unwrap_or_default(),
            body,
            attributes: self.attributes("attributes", overflow.get("attributes").map(|raw| &**raw)),
            dropped: self.uint("dropped_attributes_count"),
            flags: self.uint("flags"),
            trace_id: self.id("trace_id", overflow.get("traceId").map(|raw| &**raw)),
            span_id: self.id("span_id", overflow.get("spanId").map(|raw| &**raw)),
        }
    }
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Empty => "empty",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Double(_) => "double",
        Value::Bytes(_) => "bytes",
        Value::Array(_) => "array",
        Value::Kvlist(_) => "kvlist",
    }
}

fn entities(raw: &RawValue) -> Vec<Entity> {
    let strings = |raw: Option<&Box<RawValue>>| raw.map(|raw| list(raw).iter().map(|raw| text(raw)).collect());
    let entity = |raw: &RawValue| {
        let object = object(raw.get());
        Entity {
            schema_url: object.get("schemaUrl").map(|raw| text(raw)).unwrap_or_default(),
            kind: object.get("type").map(|raw| text(raw)).unwrap_or_default(),
            id_keys: strings(object.get("idKeys")).unwrap_or_default(),
            description_keys: strings(object.get("descriptionKeys")).unwrap_or_default(),
        }
    };
    list(raw).iter().map(|raw| entity(raw)).collect()
}

fn cell(kind: &str, child: &ArrayRef, row: usize) -> Value {
    let value = match child.data_type() {
        DataType::Utf8 if kind == "string" => Value::String(child.as_string::<i32>().value(row).to_owned()),
        DataType::Utf8 => any_value(child.as_string::<i32>().value(row)),
        DataType::Boolean => Value::Bool(child.as_boolean().value(row)),
        DataType::Int64 => Value::Int(child.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => double(child.as_primitive::<Float64Type>().value(row)),
        DataType::Binary => Value::Bytes(child.as_binary::<i32>().value(row).to_vec()),
        other => panic!("an attribute column of type {other}"),
    };
    assert_eq!(kind_name(&value), kind);
    value
}

/// The records of a batch.
pub(crate) fn batch_records(batch: &RecordBatch) -> Vec<Record> {
    (0..batch.num_rows()).map(|row| Rows { batch, row }.record()).collect()
}

/// The records of each table.
pub(crate) fn records(scanned: &Scanned) -> BTreeMap<String, Vec<Record>> {
    let mut tables: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for chunk in &scanned.chunks {
        let times = chunk.batch["time"].as_primitive::<TimestampNanosecondType>();
        assert_eq!(times.values().iter().min(), Some(&chunk.min_time.0));
        assert_eq!(times.values().iter().max(), Some(&chunk.max_time.0));
        tables.entry(chunk.schema.name().to_string()).or_default().extend(batch_records(&chunk.batch));
    }
    tables
}
