//! Cells of tables from the JSON of the management API. What an answer lacks is empty: a later server may say less.

use serde_json::Value;

use crate::client::Place;

/// What stands in a table for what there is none of.
pub(super) const NONE: &str = "-";

/// The text at `pointer`; empty when there is none.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The text at `pointer`, or a dash.
pub(super) fn text_or_none(value: &Value, pointer: &str) -> String {
    Some(text(value, pointer)).filter(|text| !text.is_empty()).unwrap_or_else(|| NONE.to_owned())
}

/// The number at `pointer` as people write it: `60`, not `60.0`.
pub(super) fn number(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0).to_string()
}

/// The elements at `pointer`.
pub(super) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The last segment of an id.
pub(super) fn name_in(id: &str) -> &str {
    id.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// `clusters/prod` for a resource of `place`, the whole id for others.
pub(super) fn short_id(id: &str, place: &Place) -> String {
    let Place { subscription, resource_group } = place;
    let own = format!(
        "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.OperationalInsights/"
    );
    match id.get(..own.len()) {
        Some(start) if start.eq_ignore_ascii_case(&own) => id[own.len()..].to_owned(),
        _ => id.to_owned(),
    }
}

/// The rows of a table of properties; those without a value are left out.
pub(super) fn properties(all: Vec<(&str, String)>) -> Vec<Vec<String>> {
    let given = all.into_iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// `a=1, b=2`.
pub(super) fn tags(resource: &Value) -> String {
    let tags = resource.get("tags").and_then(Value::as_object);
    let pairs =
        tags.into_iter().flatten().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_answer_lacks_is_empty() {
        let value = json!({"a": {"b": "text", "c": 60.0, "d": null, "e": [1, 2]}, "tags": {"x": "1", "y": ""}});
        assert_eq!(
            (text(&value, "/a/b"), text(&value, "/a/d"), text(&value, "/x/y")),
            ("text".into(), String::new(), String::new())
        );
        assert_eq!((number(&value, "/a/c").as_str(), number(&value, "/none").as_str()), ("60", "0"));
        assert_eq!((list(&value, "/a/e").len(), list(&value, "/a").len()), (2, 0));
        assert_eq!((tags(&value).as_str(), tags(&json!([])).as_str()), ("x=1, y=", ""));
        assert_eq!(text_or_none(&value, "/none"), "-");
    }

    #[test]
    fn ids_of_the_same_place_are_short() {
        let place = Place { subscription: "s".into(), resource_group: "rg".into() };
        let own = "/subscriptions/S/resourcegroups/RG/providers/microsoft.operationalinsights/clusters/prod";
        assert_eq!(short_id(own, &place), "clusters/prod");
        let other = "/subscriptions/s/resourceGroups/other/providers/Microsoft.OperationalInsights/clusters/prod";
        assert_eq!(short_id(other, &place), other);
        assert_eq!((name_in(own), name_in("")), ("prod", ""));
    }
}
