//! JSON bodies as Azure Resource Manager reads them: names of properties compare without case, and one that is not known is refused
//! by its name, so that a misspelled setting is never taken for a setting.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;

use crate::Problem;

/// One object of a body, whose properties are taken one by one.
#[derive(Debug)]
pub(crate) struct Object<'v> {
    path: String,
    properties: BTreeMap<String, (&'v str, &'v Value)>,
}

/// The body as a JSON value. Its depth is bounded by `serde_json`, its size by the router.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "InvalidRequestContent", format!("the body is not JSON: {error}"))
    })
}

impl<'v> Object<'v> {
    /// The body's root.
    pub(crate) fn root(value: &'v Value) -> Result<Self, Problem> {
        Self::of(String::new(), value)
    }

    fn of(path: String, value: &'v Value) -> Result<Self, Problem> {
        let Value::Object(object) = value else {
            let target = if path.is_empty() { "the body" } else { path.as_str() };
            return Err(Problem::invalid(target, format!("`{target}` is not an object")));
        };
        let mut properties = BTreeMap::new();
        for (name, value) in object {
            if let Some((other, _)) = properties.insert(name.to_ascii_lowercase(), (name.as_str(), value)) {
                let message = format!("`{other}` and `{name}` are the same property: give one of them");
                return Err(Problem::invalid(name, message));
            }
        }
        Ok(Self { path, properties })
    }

    /// The value of `name`, which is given in lower case; `null` counts as not given.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'v Value> {
        debug_assert_eq!(name, name.to_ascii_lowercase(), "names compare in lower case");
        self.properties.remove(name).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Whether `name` is given as `null`.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.properties.get(name).is_some_and(|(_, value)| value.is_null())
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        let path = self.path_of(name);
        self.take(name).map(|value| Self::of(path, value)).transpose()
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<&'v str>, Problem> {
        let path = self.path_of(name);
        self.take(name)
            .map(|value| value.as_str().ok_or_else(|| Problem::invalid(&path, format!("`{path}` is not a string"))))
            .transpose()
    }

    pub(crate) fn bool(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        let path = self.path_of(name);
        self.take(name)
            .map(|value| value.as_bool().ok_or_else(|| Problem::invalid(&path, format!("`{path}` is not a boolean"))))
            .transpose()
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        let path = self.path_of(name);
        self.take(name)
            .map(|value| value.as_i64().ok_or_else(|| Problem::invalid(&path, format!("`{path}` is not an integer"))))
            .transpose()
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        let path = self.path_of(name);
        self.take(name)
            .map(|value| value.as_f64().ok_or_else(|| Problem::invalid(&path, format!("`{path}` is not a number"))))
            .transpose()
    }

    /// The properties that were not taken, with their names as they were given.
    pub(crate) fn rest(self) -> impl Iterator<Item = (&'v str, &'v Value)> {
        self.properties.into_values()
    }

    /// Passes over properties that the server computes: who changes a resource may send them back as they were read.
    pub(crate) fn skip(&mut self, names: &[&str]) {
        for name in names {
            let _ = self.take(name);
        }
    }

    /// Refuses a property that the server computes and that has another value than `now`.
    pub(crate) fn unchanged(&mut self, name: &str, now: Option<&str>) -> Result<(), Problem> {
        let path = self.path_of(name);
        match self.string(name)? {
            Some(given) if !now.is_some_and(|now| now.eq_ignore_ascii_case(given)) => {
                Err(Problem::invalid(&path, format!("`{path}` is read-only; leave it out or send it as it was read")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what was not taken.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.properties.values().next() {
            None => Ok(()),
            Some((name, _)) => {
                let path = if self.path.is_empty() { (*name).to_owned() } else { format!("{}.{name}", self.path) };
                Err(Problem::invalid(&path, format!("`{path}` is not a property that this resource has")))
            }
        }
    }

    /// How messages call the property `name`.
    pub(crate) fn path_of(&self, name: &str) -> String {
        let name = self.properties.get(name).map_or(name, |(given, _)| given);
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_compare_without_case_and_unknown_ones_are_refused_by_name() {
        let body = json!({"Properties": {"KeyName": "k", "kyName": "typo"}, "LOCATION": "x"});
        let mut root = Object::root(&body).unwrap();
        assert_eq!(root.string("location").unwrap(), Some("x"));
        let mut properties = root.object("properties").unwrap().unwrap();
        assert_eq!(properties.string("keyname").unwrap(), Some("k"));
        let problem = format!("{:?}", properties.finish().unwrap_err());
        assert!(problem.contains("Properties.kyName"), "{problem}");
        root.finish().unwrap();
    }

    #[test]
    fn a_property_that_is_given_twice_and_one_of_another_type_are_refused() {
        let twice = json!({"tags": {}, "Tags": {}});
        assert!(Object::root(&twice).is_err());
        for wrong in [json!({"a": 1}), json!({"a": []}), json!({"a": {}})] {
            assert!(Object::root(&wrong).unwrap().string("a").is_err(), "{wrong}");
        }
        assert!(Object::root(&json!([])).is_err() && Object::root(&json!("text")).is_err());
        assert!(Object::root(&json!({"a": 1.5})).unwrap().integer("a").is_err());
        assert!(parse(format!("{}1{}", "[".repeat(4096), "]".repeat(4096)).as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn null_counts_as_not_given() {
        let body = json!({"a": null});
        let mut root = Object::root(&body).unwrap();
        assert!(root.is_null("a"));
        assert_eq!(root.string("a").unwrap(), None);
        root.finish().unwrap();
    }
}
