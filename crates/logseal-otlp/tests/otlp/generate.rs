//! Arbitrary requests: every field, every kind of value, and what senders should not do but may.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::prelude::*;

fn text() -> BoxedStrategy<String> {
    prop_oneof![2 => Just(String::new()), 6 => "[a-z]{1,8}", 2 => "\\PC{0,6}", 1 => "[\\x00-\\x1f\"\\\\]{1,4}"].boxed()
}

/// Few keys, so that they repeat within a record and change their kind between records.
fn attribute_key() -> BoxedStrategy<String> {
    prop_oneof![
        12 => "[a-f]",
        2 => Just("service.name".to_owned()),
        1 => Just("logseal.table".to_owned()),
        1 => Just(String::new()),
        1 => Just("k".repeat(300)),
        1 => text(),
    ]
    .boxed()
}

fn double() -> BoxedStrategy<f64> {
    prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(-0.0), any::<u64>().prop_map(f64::from_bits)]
        .boxed()
}

fn any_value() -> BoxedStrategy<AnyValue> {
    let leaf = prop_oneof![
        1 => Just(None),
        6 => text().prop_map(|text| Some(Value::StringValue(text))),
        1 => prop_oneof![Just("logs"), Just("audit"), Just("not a table")].prop_map(|t| Some(Value::StringValue(t.into()))),
        2 => any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        3 => any::<i64>().prop_map(|value| Some(Value::IntValue(value))),
        2 => double().prop_map(|value| Some(Value::DoubleValue(value))),
        1 => vec(any::<u8>(), 0..6).prop_map(|bytes| Some(Value::BytesValue(bytes))),
        1 => any::<i32>().prop_map(|index| Some(Value::StringValueStrindex(index))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 16, 4, |inner| {
        let element = (text(), proptest::option::of(inner.clone()));
        let element = element.prop_map(|(key, value)| KeyValue { key, value, key_strindex: 0 });
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| Some(Value::ArrayValue(ArrayValue { values }))),
            vec(element, 0..4).prop_map(|values| Some(Value::KvlistValue(KeyValueList { values }))),
        ]
        .prop_map(|value| AnyValue { value })
    })
    .boxed()
}

fn attributes() -> BoxedStrategy<Vec<KeyValue>> {
    let reference = prop_oneof![20 => Just(0), 1 => any::<i32>()];
    let attribute = (attribute_key(), proptest::option::weighted(0.95, any_value()), reference);
    vec(attribute.prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex }), 0..7).boxed()
}

fn time() -> BoxedStrategy<u64> {
    let year = 1_700_000_000_000_000_000..1_800_000_000_000_000_000_u64;
    prop_oneof![2 => Just(0), 6 => year, 1 => any::<u64>(), 1 => Just(1_u64 << 63), 1 => Just(i64::MAX as u64)].boxed()
}

fn id(length: usize) -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        4 => vec(any::<u8>(), length),
        1 => Just(vec![0; length]),
        1 => vec(any::<u8>(), 0..40),
    ]
    .boxed()
}

fn record() -> BoxedStrategy<LogRecord> {
    let times = (time(), time());
    let severity = (prop_oneof![0..25, any::<i32>()], text());
    let ids = (id(16), id(8), any::<u32>(), prop_oneof![Just(0), any::<u32>()]);
    (times, severity, proptest::option::of(any_value()), attributes(), ids, text())
        .prop_map(|(times, severity, body, attributes, ids, event_name)| LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number: severity.0,
            severity_text: severity.1,
            body,
            attributes,
            dropped_attributes_count: ids.3,
            flags: ids.2,
            trace_id: ids.0,
            span_id: ids.1,
            event_name,
        })
        .boxed()
}

fn resource() -> BoxedStrategy<Resource> {
    let entity = (text(), text(), vec(text(), 0..3), vec(text(), 0..3));
    let entity = entity.prop_map(|(schema_url, r#type, id_keys, description_keys)| EntityRef {
        schema_url,
        r#type,
        id_keys,
        description_keys,
    });
    (attributes(), 0..3_u32, vec(entity, 0..2))
        .prop_map(|(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        })
        .boxed()
}

fn scope() -> BoxedStrategy<InstrumentationScope> {
    (text(), text(), attributes(), 0..3_u32)
        .prop_map(|(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        })
        .boxed()
}

/// A record, and further ones that have the same keys with values of the same kinds, as one program's records have.
fn alike() -> BoxedStrategy<Vec<LogRecord>> {
    let values = (text(), any::<i64>(), prop_oneof![4 => 0..20_usize, 1 => 100..200_usize, 1 => Just(20_000)]);
    (record(), vec(values, 0..4))
        .prop_map(|(record, others)| {
            let others = others.into_iter().map(|(text, number, repeats)| {
                let mut other = record.clone();
                for attribute in &mut other.attributes {
                    match attribute.value.as_mut().and_then(|value| value.value.as_mut()) {
                        Some(Value::StringValue(value)) if value != "audit" => *value = text.repeat(repeats),
                        Some(Value::IntValue(value)) => *value = number,
                        _ => (),
                    }
                }
                other
            });
            let others: Vec<LogRecord> = others.collect();
            [vec![record], others].concat()
        })
        .boxed()
}

/// Any request.
pub(crate) fn request() -> BoxedStrategy<ExportLogsServiceRequest> {
    let scope_logs = (proptest::option::of(scope()), vec(alike(), 0..3), text());
    let scope_logs = scope_logs.prop_map(|(scope, log_records, schema_url)| ScopeLogs {
        scope,
        log_records: log_records.concat(),
        schema_url,
    });
    let resource_logs = (proptest::option::of(resource()), vec(scope_logs, 0..3), text());
    let resource_logs =
        resource_logs.prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resource_logs, 0..4).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs }).boxed()
}
