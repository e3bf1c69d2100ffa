//! Records without what OTLP lets a receiver forget: the order of attributes with different keys, and grouping.

use std::collections::BTreeMap;

use logseal_core::TableName;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Oneof;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, KeyValue};

/// Values of each key in the order they came.
pub(crate) type Attributes = BTreeMap<String, Vec<Value>>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Empty,
    String(String),
    Bool(bool),
    Int(i64),
    /// The bits; all NaN are one.
    Double(u64),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Kvlist(Vec<(String, Value)>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entity {
    pub(crate) schema_url: String,
    pub(crate) kind: String,
    pub(crate) id_keys: Vec<String>,
    pub(crate) description_keys: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) attributes: Attributes,
    pub(crate) dropped: u32,
    pub(crate) schema_url: String,
    pub(crate) entities: Vec<Entity>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) resource: Owner,
    pub(crate) scope: Owner,
    pub(crate) time: u64,
    pub(crate) observed_time: u64,
    pub(crate) severity_number: i32,
    pub(crate) severity_text: String,
    pub(crate) event_name: String,
    pub(crate) body: Option<Value>,
    pub(crate) attributes: Attributes,
    pub(crate) dropped: u32,
    pub(crate) flags: u32,
    pub(crate) trace_id: Vec<u8>,
    pub(crate) span_id: Vec<u8>,
}

pub(crate) fn double(number: f64) -> Value {
    Value::Double(if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() })
}

fn value(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        None | Some(Oneof::StringValueStrindex(_)) => Value::Empty,
        Some(Oneof::StringValue(text)) => Value::String(text.clone()),
        Some(Oneof::BoolValue(value)) => Value::Bool(*value),
        Some(Oneof::IntValue(value)) => Value::Int(*value),
        Some(Oneof::DoubleValue(value)) => double(*value),
        Some(Oneof::BytesValue(bytes)) => Value::Bytes(bytes.clone()),
        Some(Oneof::ArrayValue(list)) => Value::Array(list.values.iter().map(|v| self::value(Some(v))).collect()),
        Some(Oneof::KvlistValue(list)) => {
            Value::Kvlist(list.values.iter().map(|kv| (kv.key.clone(), self::value(kv.value.as_ref()))).collect())
        }
    }
}

fn attributes(list: &[KeyValue]) -> Attributes {
    let mut attributes = Attributes::new();
    for attribute in list {
        attributes.entry(attribute.key.clone()).or_default().push(value(attribute.value.as_ref()));
    }
    attributes
}

fn entity(entity: &EntityRef) -> Entity {
    Entity {
        schema_url: entity.schema_url.clone(),
        kind: entity.r#type.clone(),
        id_keys: entity.id_keys.clone(),
        description_keys: entity.description_keys.clone(),
    }
}

/// The records of each table, as the columns must give them back.
pub(crate) fn records(request: &ExportLogsServiceRequest) -> BTreeMap<String, Vec<Record>> {
    let mut tables: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for resource_logs in &request.resource_logs {
        let mut resource = Owner { schema_url: resource_logs.schema_url.clone(), ..Owner::default() };
        if let Some(given) = &resource_logs.resource {
            resource.attributes = attributes(&given.attributes);
            resource.dropped = given.dropped_attributes_count;
            resource.entities = given.entity_refs.iter().map(entity).collect();
        }
        let table = match resource.attributes.get("logseal.table").and_then(|values| values.last()) {
            Some(Value::String(name)) if TableName::parse(name).is_ok() => name.clone(),
            _ => "logs".to_owned(),
        };
        for scope_logs in &resource_logs.scope_logs {
            let mut scope = Owner { schema_url: scope_logs.schema_url.clone(), ..Owner::default() };
            if let Some(given) = &scope_logs.scope {
                scope.name = given.name.clone();
                scope.version = given.version.clone();
                scope.attributes = attributes(&given.attributes);
                scope.dropped = given.dropped_attributes_count;
            }
            for record in &scope_logs.log_records {
                tables.entry(table.clone()).or_default().push(Record {
                    resource: resource.clone(),
                    scope: scope.clone(),
                    time: record.time_unix_nano,
                    observed_time: record.observed_time_unix_nano,
                    severity_number: record.severity_number,
                    severity_text: record.severity_text.clone(),
                    event_name: record.event_name.clone(),
                    body: record.body.as_ref().map(|body| value(Some(body))),
                    attributes: attributes(&record.attributes),
                    dropped: record.dropped_attributes_count,
                    flags: record.flags,
                    trace_id: record.trace_id.clone(),
                    span_id: record.span_id.clone(),
                });
            }
        }
    }
    tables
}
