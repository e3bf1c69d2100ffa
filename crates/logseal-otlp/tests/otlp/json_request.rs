//! Requests in OTLP/JSON: what they become, what is refused, and what that takes.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use logseal_core::limit;
use logseal_otlp::from_json;
use logseal_otlp::json_request::most_bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, EntityRef, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};

use crate::{generate, scan_with_defaults, workspace};

/// How a sender writes what the mapping leaves open.
#[derive(Clone, Copy, Debug)]
struct Manner {
    original_names: bool,
    numbers: bool,
    other_alphabet: bool,
    names_of_severities: bool,
    nulls: bool,
    spaces: bool,
}

impl Manner {
    fn of(bits: u8) -> Self {
        let bit = |n: u8| bits & 1 << n != 0;
        Self {
            original_names: bit(0),
            numbers: bit(1),
            other_alphabet: bit(2),
            names_of_severities: bit(3),
            nulls: bit(4),
            spaces: bit(5),
        }
    }

    fn text(self, request: &ExportLogsServiceRequest) -> String {
        let resource_logs = self.list(&request.resource_logs, |manner, logs| {
            let resource = logs.resource.as_ref().map(|resource| {
                let entities = manner.list(&resource.entity_refs, Self::entity);
                manner.object([
                    ("attributes", manner.list(&resource.attributes, Self::key_value)),
                    ("droppedAttributesCount", json!(resource.dropped_attributes_count)),
                    ("entityRefs", entities),
                ])
            });
            manner.object([
                ("resource", json!(resource)),
                ("scopeLogs", manner.list(&logs.scope_logs, Self::scope_logs)),
                ("schemaUrl", json!(logs.schema_url)),
            ])
        });
        let tree = self.object([("resourceLogs", resource_logs)]);
        if self.spaces { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) }
            .expect("a tree can be written")
    }

    fn scope_logs(self, logs: &ScopeLogs) -> Value {
        let scope = logs.scope.as_ref().map(|scope| {
            self.object([
                ("name", json!(scope.name)),
                ("version", json!(scope.version)),
                ("attributes", self.list(&scope.attributes, Self::key_value)),
                ("droppedAttributesCount", self.number(scope.dropped_attributes_count)),
            ])
        });
        self.object([
            ("scope", json!(scope)),
            ("logRecords", self.list(&logs.log_records, Self::record)),
            ("schemaUrl", json!(logs.schema_url)),
        ])
    }

    fn record(self, record: &LogRecord) -> Value {
        let hex = |bytes: &[u8]| json!(if self.other_alphabet { HEXUPPER } else { HEXLOWER }.encode(bytes));
        let severity = match record.severity_number().as_str_name() {
            name if self.names_of_severities && record.severity_number == record.severity_number() as i32 => {
                json!(name)
            }
            _ => json!(record.severity_number),
        };
        self.object([
            ("timeUnixNano", self.number(record.time_unix_nano)),
            ("observedTimeUnixNano", self.number(record.observed_time_unix_nano)),
            ("severityNumber", severity),
            ("severityText", json!(record.severity_text)),
            ("body", json!(record.body.as_ref().map(|value| self.any_value(value)))),
            ("attributes", self.list(&record.attributes, Self::key_value)),
            ("droppedAttributesCount", self.number(record.dropped_attributes_count)),
            ("flags", self.number(record.flags)),
            ("traceId", hex(&record.trace_id)),
            ("spanId", hex(&record.span_id)),
            ("eventName", json!(record.event_name)),
        ])
    }

    fn entity(self, entity: &EntityRef) -> Value {
        let EntityRef { schema_url, r#type, id_keys, description_keys } = entity;
        self.object([
            ("schemaUrl", json!(schema_url)),
            ("type", json!(r#type)),
            ("idKeys", json!(id_keys)),
            ("descriptionKeys", json!(description_keys)),
        ])
    }

    fn key_value(self, KeyValue { key, value, key_strindex }: &KeyValue) -> Value {
        self.object([
            ("key", json!(key)),
            ("value", json!(value.as_ref().map(|value| self.any_value(value)))),
            ("keyStrindex", self.number(*key_strindex)),
        ])
    }

    fn any_value(self, AnyValue { value }: &AnyValue) -> Value {
        let Some(value) = value else { return json!({}) };
        let base64 = if self.other_alphabet { BASE64URL_NOPAD } else { BASE64 };
        let member = match value {
            Kind::StringValue(text) => ("stringValue", json!(text)),
            Kind::BoolValue(value) => ("boolValue", json!(value)),
            Kind::IntValue(value) => ("intValue", self.number(*value)),
            Kind::DoubleValue(value) if value.is_nan() => ("doubleValue", json!("NaN")),
            Kind::DoubleValue(value) if value.is_infinite() && *value > 0.0 => ("doubleValue", json!("Infinity")),
            Kind::DoubleValue(value) if value.is_infinite() => ("doubleValue", json!("-Infinity")),
            Kind::DoubleValue(value) if self.numbers => ("doubleValue", json!(value)),
            Kind::DoubleValue(value) => ("doubleValue", json!(format!("{value:?}"))),
            Kind::BytesValue(bytes) => ("bytesValue", json!(base64.encode(bytes))),
            Kind::ArrayValue(ArrayValue { values }) => {
                ("arrayValue", self.object([("values", self.list(values, Self::any_value))]))
            }
            Kind::KvlistValue(KeyValueList { values }) => {
                ("kvlistValue", self.object([("values", self.list(values, Self::key_value))]))
            }
            Kind::StringValueStrindex(index) => ("stringValueStrindex", self.number(*index)),
        };
        self.object([member])
    }

    fn number(self, number: impl serde_json_number::Number) -> Value {
        if self.numbers { number.number() } else { json!(number.to_string()) }
    }

    fn list<T>(self, values: &[T], write: impl Fn(Self, &T) -> Value) -> Value {
        values.iter().map(|value| write(self, value)).collect()
    }

    /// Fields that are not there are null, or left out.
    fn object<const N: usize>(self, members: [(&str, Value); N]) -> Value {
        let name = |name: &str| match self.original_names {
            true => {
                name.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase())).collect()
            }
            false => name.to_owned(),
        };
        let members = members.into_iter().filter(|(_, value)| self.nulls || !value.is_null());
        Value::Object(members.map(|(member, value)| (name(member), value)).collect::<Map<_, _>>())
    }
}

/// Whole numbers of every width.
mod serde_json_number {
    use serde_json::Value;

    pub(super) trait Number: ToString {
        fn number(&self) -> Value;
    }

    impl<T: ToString + Into<Value> + Copy> Number for T {
        fn number(&self) -> Value {
            (*self).into()
        }
    }
}

/// The same with one NaN: JSON has no more of them.
fn with_one_nan(request: &mut ExportLogsServiceRequest) {
    fn value(any: &mut AnyValue) {
        match &mut any.value {
            Some(Kind::DoubleValue(number)) if number.is_nan() => *number = f64::NAN,
            Some(Kind::ArrayValue(array)) => array.values.iter_mut().for_each(value),
            Some(Kind::KvlistValue(list)) => attributes(&mut list.values),
            _ => {}
        }
    }
    fn attributes(list: &mut [KeyValue]) {
        list.iter_mut().filter_map(|attribute| attribute.value.as_mut()).for_each(value);
    }
    for logs in &mut request.resource_logs {
        logs.resource.iter_mut().for_each(|resource| attributes(&mut resource.attributes));
        for logs in &mut logs.scope_logs {
            logs.scope.iter_mut().for_each(|scope| attributes(&mut scope.attributes));
            for record in &mut logs.log_records {
                attributes(&mut record.attributes);
                record.body.iter_mut().for_each(value);
            }
        }
    }
}

/// Transcodes, and holds the documented bound: nothing grew.
fn transcoded(json: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = from_json(json).map_err(|error| error.to_string())?;
    assert!(bytes.len() <= most_bytes(json.len()), "{} bytes of {}", bytes.len(), json.len());
    assert_eq!(bytes.capacity(), most_bytes(json.len()), "allocated once");
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Scenario: any request, written in any manner. Guarantee: prost reads the same request from what it becomes.
    #[test]
    fn every_request_survives_json(mut request in generate::request(), bits in any::<u8>()) {
        with_one_nan(&mut request);
        let json = Manner::of(bits).text(&request);
        let bytes = transcoded(json.as_bytes()).unwrap();
        let read = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        prop_assert_eq!(read.encode_to_vec(), request.encode_to_vec(), "{}", json);
    }

    /// Scenario: a request of which some bytes were changed. Guarantee: no panic and no growth, and what is taken is protobuf.
    #[test]
    fn damage_is_refused_or_harmless(
        request in generate::request(),
        bits in any::<u8>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:0-9eE.tfn\\\\u+\\- -]{0,3}", 0..4_usize), 1..4),
    ) {
        let mut json = Manner::of(bits).text(&request).into_bytes();
        for (at, instead, gone) in changes {
            let at = at.index(json.len() + 1);
            let end = json.len().min(at + gone);
            json.splice(at..end, instead.bytes());
        }
        if let Ok(bytes) = transcoded(&json) {
            scan_with_defaults(&bytes, &workspace()).unwrap();
        }
    }
}

/// A request with one record that has these members.
fn with_record(members: &str) -> String {
    format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{{members}}}]}}]}}]}}")
}

fn record_of(members: &str) -> Result<LogRecord, String> {
    let bytes = transcoded(with_record(members).as_bytes())?;
    let mut request = ExportLogsServiceRequest::decode(&bytes[..]).expect("protobuf");
    Ok(request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0))
}

#[track_caller]
fn body_is(body: &str, expected: Option<Kind>) {
    let record = record_of(&format!("\"body\":{body}")).expect(body);
    assert_eq!(record.body, Some(AnyValue { value: expected }), "{body}");
}

#[test]
fn values_have_the_forms_of_the_mapping() {
    for (body, value) in [("5", 5), ("\"5\"", 5), ("1e3", 1_000), ("\"1e3\"", 1_000), ("-1.0", -1), ("\"\\u0037\"", 7)]
    {
        body_is(&format!("{{\"intValue\":{body}}}"), Some(Kind::IntValue(value)));
        body_is(&format!("{{\"int_value\":{body}}}"), Some(Kind::IntValue(value)));
    }
    for extreme in [i64::MIN, i64::MAX] {
        body_is(&format!("{{\"intValue\":{extreme}}}"), Some(Kind::IntValue(extreme)));
    }
    for (body, value) in [
        ("1", 1.0),
        ("\"1.5\"", 1.5),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
        ("2E2", 200.0),
    ] {
        body_is(&format!("{{\"doubleValue\":{body}}}"), Some(Kind::DoubleValue(value)));
    }
    for body in ["\"AQID/w==\"", "\"AQID_w\"", "\"AQID_w==\"", "\"AQID\\/w\"", "\"\\u0041QID/w\""] {
        body_is(&format!("{{\"bytesValue\":{body}}}"), Some(Kind::BytesValue(vec![1, 2, 3, 255])));
    }
    body_is("{}", None);
    body_is("{\"unknownKind\":[{\"a\":[null,{}]}]}", None);
    body_is("{\"stringValue\":\"a\\u0062\\ud800\"}", Some(Kind::StringValue("ab\u{fffd}".to_owned())));
    body_is("{\"\\u0073tringValue\":\"\"}", Some(Kind::StringValue(String::new())));
    let empty = AnyValue { value: None };
    body_is("{\"arrayValue\":{\"values\":[null,{}]}}", Some(Kind::ArrayValue(ArrayValue { values: vec![empty; 2] })));
    body_is("{\"arrayValue\":{}}", Some(Kind::ArrayValue(ArrayValue::default())));

    for (members, number) in [
        ("\"severityNumber\":9", 9),
        ("\"severityNumber\":\"9\"", 9),
        ("\"severityNumber\":-2147483648", i32::MIN),
        ("\"severityNumber\":\"SEVERITY_NUMBER_INFO2\"", 10),
        ("\"severity_number\":\"SEVERITY_NUMBER_FATAL4\"", 24),
        ("\"severityNumber\":\"SEVERITY_NUMBER_OF_A_LATER_VERSION\"", 0),
        ("\"severityNumber\":null", 0),
    ] {
        assert_eq!(record_of(members).expect(members).severity_number, number, "{members}");
    }
    let ids = record_of("\"traceId\":\"5B8EFFF798038103d269b633813fc60c\",\"spanId\":\"\"").unwrap();
    assert_eq!((HEXLOWER.encode(&ids.trace_id).as_str(), ids.span_id.len()), ("5b8efff798038103d269b633813fc60c", 0));
    assert_eq!(record_of("\"timeUnixNano\":18446744073709551615").unwrap().time_unix_nano, u64::MAX);
}

/// Scenario: names that come more than once, in either form, and with null. Guarantee: the last one counts, nothing is merged, and what
/// lies between stays as it is.
#[test]
fn of_equal_names_the_last_one_counts() {
    let record = record_of(
        "\"attributes\":[{\"key\":\"gone\"},{\"key\":\"too\"}],\"severityText\":\"a\",\"body\":{\"stringValue\":\"gone\"},\
         \"attributes\":[{\"key\":\"kept\",\"value\":{\"intValue\":1},\"value\":{\"boolValue\":true},\"key\":\"k\"}],\
         \"eventName\":\"e\",\"severity_text\":\"b\",\"flags\":7,\"flags\":null,\"timeUnixNano\":5,\"timeUnixNano\":null,\
         \"severityNumber\":1,\"severityNumber\":null,\"body\":{\"arrayValue\":{\"values\":[{}]}}",
    );
    let value = |value| Some(AnyValue { value: Some(value) });
    let expected = LogRecord {
        attributes: vec![KeyValue { key: "k".to_owned(), value: value(Kind::BoolValue(true)), key_strindex: 0 }],
        severity_text: "b".to_owned(),
        event_name: "e".to_owned(),
        body: value(Kind::ArrayValue(ArrayValue { values: vec![AnyValue { value: None }] })),
        ..LogRecord::default()
    };
    assert_eq!(record, Ok(expected));
    assert_eq!(record_of("\"body\":{\"stringValue\":\"a\"},\"body\":null").unwrap().body, None);
    body_is("{\"stringValue\":\"a\",\"intValue\":2}", Some(Kind::IntValue(2)));
    body_is("{\"stringValue\":\"a\",\"intValue\":null}", Some(Kind::StringValue("a".to_owned())));
    body_is("{\"stringValue\":\"a\",\"stringValue\":null}", None);
    body_is(
        "{\"kvlistValue\":{\"values\":[{}]},\"kvlist_value\":{\"values\":[]}}",
        Some(Kind::KvlistValue(KeyValueList::default())),
    );

    let twice = "{\"resourceLogs\":[{},{\"schemaUrl\":\"a\"}],\"resource_logs\":[{\"schemaUrl\":\"b\"}]}";
    let request = ExportLogsServiceRequest::decode(&transcoded(twice.as_bytes()).unwrap()[..]).unwrap();
    let expected = ResourceLogs { schema_url: "b".to_owned(), ..ResourceLogs::default() };
    assert_eq!(request.resource_logs, [expected]);
}

/// Scenario: everything that is not a request. Guarantee: the refusal has the place and the field, and no content.
#[test]
fn refusals_say_where_and_do_not_quote() {
    let record = |members: &str| with_record(members);
    let path = "resourceLogs[0].scopeLogs[0].logRecords[0]";
    let cases = [
        (String::new(), "byte 0: expected an object".to_owned()),
        ("null".to_owned(), "byte 0: expected an object".to_owned()),
        ("[]".to_owned(), "byte 0: expected an object".to_owned()),
        ("\u{feff}{}".to_owned(), "byte 0: expected an object".to_owned()),
        ("{} {}".to_owned(), "byte 3: something follows".to_owned()),
        ("{\"resourceLogs\":{}}".to_owned(), "byte 16 (`resourceLogs`): expected a list".to_owned()),
        ("{\"resourceLogs\":[{}".to_owned(), "byte 19 (`resourceLogs`): expected `,` or the end".to_owned()),
        ("{\"resourceLogs\":[7]}".to_owned(), "byte 17 (`resourceLogs[0]`): expected an object".to_owned()),
        ("{\"secret\":sEcret}".to_owned(), "byte 10: expected a value".to_owned()),
        (record("\"timeUnixNano\":\"sEcret\""), format!("(`{path}.timeUnixNano`): expected a whole number")),
        (record("\"timeUnixNano\":-1"), format!("(`{path}.timeUnixNano`): the number is beyond")),
        (record("\"timeUnixNano\":18446744073709551616"), format!("(`{path}.timeUnixNano`): the number is beyond")),
        (record("\"timeUnixNano\":1.5"), format!("(`{path}.timeUnixNano`): expected a whole number")),
        (record("\"timeUnixNano\":true"), format!("(`{path}.timeUnixNano`): expected a whole number")),
        (record("\"timeUnixNano\":\"\""), format!("(`{path}.timeUnixNano`): expected a whole number")),
        (record("\"flags\":4294967296"), format!("(`{path}.flags`): the number is beyond")),
        (record("\"severityNumber\":2147483648"), format!("(`{path}.severityNumber`): the number is beyond")),
        (record("\"severityNumber\":{}"), format!("(`{path}.severityNumber`): expected a whole number")),
        (record("\"traceId\":\"abc\""), format!("(`{path}.traceId`): expected an even number of hex")),
        (
            record("\"traceId\":\"W47/95gDgQPSabYzgT/GDA==\""),
            format!("(`{path}.traceId`): expected an even number of hex"),
        ),
        (record("\"severityText\":7"), format!("(`{path}.severityText`): expected a string")),
        (record("\"body\":\"sEcret\""), format!("(`{path}.body`): expected an object")),
        (record("\"body\":{\"boolValue\":1}"), format!("(`{path}.body.boolValue`): expected true or false")),
        (record("\"body\":{\"doubleValue\":\"nan\"}"), format!("(`{path}.body.doubleValue`): expected a number")),
        (record("\"body\":{\"doubleValue\":NaN}"), format!("(`{path}.body.doubleValue`): expected a number")),
        (record("\"body\":{\"doubleValue\":1e999}"), format!("(`{path}.body.doubleValue`): the number is beyond")),
        (record("\"body\":{\"bytesValue\":\"sEcret!\"}"), format!("(`{path}.body.bytesValue`): expected base64")),
        (record("\"body\":{\"arrayValue\":[]}"), format!("(`{path}.body.arrayValue`): expected an object")),
        (
            record("\"attributes\":[{},{\"value\":{\"stringValue\":\"sEcret}}]"),
            format!("(`{path}.attributes[1].value.stringValue`): the text ends"),
        ),
        (record("\"attributes\":{\"sEcret\":1}"), format!("(`{path}.attributes`): expected a list")),
        (record("\"body\":{\"stringValue\":\"sEcret\\x\"}"), format!("(`{path}.body.stringValue`): an escape")),
        (
            record("\"body\":{\"stringValue\":\"sEcret\n\"}"),
            format!("(`{path}.body.stringValue`): a control character"),
        ),
    ];
    for (json, expected) in cases {
        let error = transcoded(json.as_bytes()).expect_err(&json);
        assert!(error.contains(&expected), "{json}: {error}");
        assert!(!error.contains("sEcret"), "{error}");
    }
}

/// Scenario: every beginning of a request. Guarantee: refused, but for the whole of it.
#[test]
fn a_text_that_is_cut_off_is_refused() {
    let whole = with_record(
        "\"body\":{\"kvlistValue\":{\"values\":[{\"key\":\"\\u00e9\",\"value\":{\"intValue\":\"1\"}}]}},\"x\":[1.5e3,null]",
    );
    for end in 0..whole.len() {
        assert!(transcoded(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
    }
    assert!(transcoded(whole.as_bytes()).is_ok());
}

/// Scenario: two records, one of which nests values, as deep as they may and deeper, through lists and key-value lists. Guarantee: as in
/// protobuf, the one that is too deep is rejected alone, until the nesting is beyond all reason; the stack holds.
#[test]
fn deep_values_cost_their_record_only() {
    for (open, close) in
        [("{\"arrayValue\":{\"values\":[", "]}}"), ("{\"kvlistValue\":{\"values\":[{\"key\":\"k\",\"value\":", "}]}}")]
    {
        for (values, rejected) in [(limit::VALUE_NESTING, 0), (limit::VALUE_NESTING + 1, 1), (300, 1)] {
            let body = [open.repeat(values - 1), "{\"intValue\":1}".to_owned(), close.repeat(values - 1)].concat();
            let json = with_record(&format!("\"body\":{body}}},{{\"body\":{{\"stringValue\":\"good\"}}"));
            let scanned = scan_with_defaults(&transcoded(json.as_bytes()).unwrap(), &workspace()).unwrap();
            assert_eq!((scanned.accepted, scanned.rejected), (2 - rejected, rejected), "{values} {open}");
        }
        let endless = with_record(&format!("\"body\":{}", open.repeat(1_000_000)));
        assert!(transcoded(endless.as_bytes()).unwrap_err().contains("nested too deep"));
    }
    for unknown in ["[", "{\"a\":"] {
        let endless = format!("{{\"unknown\":{}", unknown.repeat(1_000_000));
        assert!(transcoded(endless.as_bytes()).unwrap_err().contains("nested too deep"));
    }
}

/// Scenario: long texts in values that lie in one another, and names that come again before and after them. Guarantee: the same bytes
/// are not moved for each level: this is done in a moment, not in minutes.
#[test]
fn what_is_nested_is_not_copied_for_each_level() {
    let long = "x".repeat(4 << 20);
    let mut body = format!("{{\"stringValue\":\"{long}\"}}");
    for _ in 1..limit::VALUE_NESTING {
        body = format!(
            "{{\"kvlistValue\":{{\"values\":[{{\"key\":\"a\",\"keyStrindex\":1,\"value\":{body},\"key\":\"b\",\"keyStrindex\":null}}]}}}}"
        );
    }
    let bytes = transcoded(with_record(&format!("\"body\":{body}")).as_bytes()).unwrap();
    let request = ExportLogsServiceRequest::decode(&bytes[..]);
    // prost nests fewer messages than that; the scan is whom it is for.
    assert!(request.is_err_and(|error| error.to_string().contains("recursion limit")));
    let scanned = scan_with_defaults(&bytes, &workspace()).unwrap();
    assert_eq!((scanned.accepted, scanned.rejected), (1, 0), "{:?}", scanned.rejection);
}

/// Scenario: the texts of which protobuf is longest: long ones in a list of strings, and messages of nothing. Guarantee: the bound holds
/// (`transcoded` looks).
#[test]
fn the_bound_of_memory_holds_where_it_is_tight() {
    for (length, count) in [(0, 100_000), (127, 1_000), (128, 1_000), (16_383, 100), (16_384, 100), (2 << 20, 4)] {
        let keys = vec![format!("\"{}\"", "k".repeat(length)); count].join(",");
        let json = format!("{{\"resourceLogs\":[{{\"resource\":{{\"entityRefs\":[{{\"idKeys\":[{keys}]}}]}}}}]}}");
        let bytes = transcoded(json.as_bytes()).unwrap();
        let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        let entity = &request.resource_logs[0].resource.as_ref().unwrap().entity_refs[0];
        assert_eq!(entity.id_keys.iter().filter(|key| key.len() == length).count(), count);
    }
    let empty = format!("{{\"resourceLogs\":[{}{{}}]}}", "{},".repeat(100_000));
    assert_eq!(transcoded(empty.as_bytes()).unwrap().len(), 200_002);
    let negative = vec!["{\"intValue\":-1}"; 10_000].join(",");
    let json = with_record(&format!("\"body\":{{\"arrayValue\":{{\"values\":[{negative}]}}}}"));
    assert!(transcoded(json.as_bytes()).is_ok());
}

/// Text that is not UTF-8 comes out as the scan wants it: in a value it is kept as bytes, and counted.
#[test]
fn bytes_that_are_not_utf8_are_left_to_the_scan() {
    let mut json = with_record("\"body\":{\"stringValue\":\"@@\"}").into_bytes();
    json.iter_mut().filter(|byte| **byte == b'@').for_each(|byte| *byte = 0xFF);
    let scanned = scan_with_defaults(&transcoded(&json).unwrap(), &workspace()).unwrap();
    assert_eq!((scanned.accepted, scanned.replaced_utf8), (1, 1));
}

#[test]
fn a_text_beyond_every_limit_is_refused() {
    let json = vec![b' '; limit::REQUEST_BYTES + 1];
    assert!(from_json(&json).unwrap_err().to_string().contains("beyond what any request may have"));
}
