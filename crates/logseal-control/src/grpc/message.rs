//! Operations as messages.

use std::collections::BTreeMap;

use logseal_catalog::OperationState as State;
use logseal_core::UnixNanos;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde_json::Value as Json;

use super::v1;
use crate::operation::{Operation, kinds};

/// `operation` as it is shown; `within` is the share of the present step that is done.
pub(super) fn message(operation: &Operation, within: f64) -> v1::Operation {
    let (row, document) = (&operation.row, &operation.document);
    let done = row.state != State::Running;
    let step = kinds::steps(&document.intent).get(document.done).copied().unwrap_or_default();
    let failure = document.failure.as_ref().filter(|_| matches!(row.state, State::Failed | State::Canceled));
    let result = document.result.as_ref().filter(|_| row.state == State::Succeeded);
    #[expect(clippy::cast_possible_truncation, reason = "it is between 0 and 100")]
    let percent_complete = operation.percent_complete(within) as i32;
    v1::Operation {
        id: row.id.to_string(),
        kind: row.kind.clone(),
        resource_id: row.target.clone(),
        status_path: operation.path(),
        state: state(row.state).into(),
        status: operation.status().to_owned(),
        done,
        percent_complete,
        step: if done { String::new() } else { step.to_owned() },
        start_time: Some(timestamp(row.created)),
        end_time: row.ended.map(timestamp),
        error: failure
            .map(|failure| v1::OperationError { code: failure.code.clone(), message: failure.message.clone() }),
        result: result.and_then(Json::as_object).map(structure),
    }
}

fn state(state: State) -> v1::OperationState {
    match state {
        State::Running => v1::OperationState::Running,
        State::Succeeded => v1::OperationState::Succeeded,
        State::Failed => v1::OperationState::Failed,
        State::Canceled => v1::OperationState::Canceled,
    }
}

fn timestamp(at: UnixNanos) -> Timestamp {
    const SECOND: i64 = 1_000_000_000;
    #[expect(clippy::cast_possible_truncation, reason = "a remainder by 10^9")]
    let nanos = at.0.rem_euclid(SECOND) as i32;
    Timestamp { seconds: at.0.div_euclid(SECOND), nanos }
}

/// Results are of our own making: their depth is that of our code, and their numbers are counts, which a double holds exactly.
fn structure(object: &serde_json::Map<String, Json>) -> Struct {
    let fields: BTreeMap<_, _> = object.iter().map(|(name, json)| (name.clone(), value(json))).collect();
    Struct { fields }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Json::Object(object) => Kind::StructValue(structure(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_before_1970_and_after_keep_their_nanoseconds() {
        assert_eq!(timestamp(UnixNanos(1_500_000_001)), Timestamp { seconds: 1, nanos: 500_000_001 });
        assert_eq!(timestamp(UnixNanos(-1)), Timestamp { seconds: -1, nanos: 999_999_999 });
    }

    #[test]
    fn a_result_keeps_all_that_json_has() {
        let json = json!({"a": null, "b": true, "c": 3, "d": "x", "e": [1, {"f": []}]});
        let fields = structure(json.as_object().unwrap()).fields;
        let kind = |name: &str| fields[name].kind.clone().unwrap();
        assert_eq!(kind("a"), Kind::NullValue(0));
        assert_eq!(kind("b"), Kind::BoolValue(true));
        assert_eq!(kind("c"), Kind::NumberValue(3.0));
        assert_eq!(kind("d"), Kind::StringValue("x".to_owned()));
        let Kind::ListValue(list) = kind("e") else { panic!("it is a list") };
        assert_eq!(list.values.len(), 2);
        assert!(matches!(list.values[1].kind, Some(Kind::StructValue(_))));
    }
}
