//! The resources as values: what is kept of them, what may be asked for, and what is shown. Nothing here reads or writes anything.
//!
//! A *document* is what the catalog keeps of a resource beside its keys, as JSON. Its fields may be added to, with defaults; none
//! changes its meaning. *Input* is a PUT's or PATCH's body, *change* what it asks for of a document, and a *view* is what is answered.

pub(crate) mod cluster;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod name;
pub(crate) mod view;
pub(crate) mod workspace;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Problem;
use crate::json::Object;

/// Tags of a resource.
pub(crate) type Tags = BTreeMap<String, String>;

/// Most tags, longest name and longest value of one: Azure Resource Manager's limits.
pub(crate) const TAGS: usize = 50;
const TAG_NAME: usize = 512;
pub(crate) const TAG_VALUE: usize = 256;

/// Where a resource is in its life, or how its last change ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum ProvisioningState {
    Creating,
    Updating,
    Deleting,
    #[default]
    Succeeded,
    Failed,
    Canceled,
}

impl ProvisioningState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Updating => "Updating",
            Self::Deleting => "Deleting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }
}

/// How a body changes a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    Put,
    Patch,
}

/// A body's root, without what every resource has and nobody can change.
fn root<'v>(body: &'v Value, id: &str, kind: &str) -> Result<Object<'v>, Problem> {
    let mut root = Object::root(body)?;
    root.unchanged("id", Some(id))?;
    root.unchanged("name", id.rsplit('/').next())?;
    root.unchanged("type", Some(kind))?;
    root.skip(&["etag", "systemdata"]);
    Ok(root)
}

/// The body's `tags`; `None` when it has none.
fn tags(root: &mut Object<'_>) -> Result<Option<Tags>, Problem> {
    let Some(given) = root.object("tags")? else { return Ok(None) };
    let mut tags = Tags::new();
    for (name, value) in given.rest() {
        let value = value.as_str().ok_or_else(|| Problem::invalid("tags", format!("tag `{name}` is not a string")))?;
        let bad_name = name.is_empty() || name.len() > TAG_NAME || name.contains(['<', '>', '%', '&', '\\', '?', '/']);
        if bad_name || value.len() > TAG_VALUE {
            let message = format!(
                "a tag has a name of 1 to {TAG_NAME} bytes without <>%&\\?/ and a value of at most {TAG_VALUE}"
            );
            return Err(Problem::invalid("tags", message));
        }
        tags.insert(name.to_owned(), value.to_owned());
    }
    if tags.len() > TAGS {
        return Err(Problem::invalid("tags", format!("a resource has at most {TAGS} tags")));
    }
    Ok(Some(tags))
}

/// The body's `location`, against the present one: a resource does not move.
fn location(root: &mut Object<'_>, now: Option<&str>, method: Method) -> Result<String, Problem> {
    match (root.string("location")?, now) {
        (Some(given), Some(now)) if plain_location(given) != plain_location(now) => Err(Problem::conflict(
            "InvalidResourceLocation",
            format!("the resource is in location `{now}` and cannot move to `{given}`"),
        )),
        (_, Some(now)) => Ok(now.to_owned()),
        (Some(given), None) => name::location(given).map(|()| given.to_owned()),
        (None, None) if method == Method::Put => Err(Problem::bad(
            "LocationRequired",
            "location",
            "give a `location`; any name of letters and digits will do",
        )),
        (None, None) => Ok(String::new()),
    }
}

/// A location as paths have it and as it compares: `West Europe` is `westeurope`.
pub(crate) fn plain_location(text: &str) -> String {
    text.replace(' ', "").to_ascii_lowercase()
}

/// Takes a value of `allowed`, compared without case and stored as it is spelled there.
pub(crate) fn choice(
    root: &mut Object<'_>,
    name: &str,
    allowed: &[&'static str],
) -> Result<Option<&'static str>, Problem> {
    let path = root.path_of(name);
    let Some(given) = root.string(name)? else { return Ok(None) };
    match allowed.iter().find(|value| value.eq_ignore_ascii_case(given)) {
        Some(value) => Ok(Some(value)),
        None => Err(Problem::invalid(&path, format!("`{path}` is `{given}`; it can be: {}", allowed.join(", ")))),
    }
}

/// Takes a flag that can only be false here.
fn off(root: &mut Object<'_>, name: &str, why: &str) -> Result<(), Problem> {
    let path = root.path_of(name);
    match root.bool(name)? {
        Some(true) => Err(Problem::invalid(&path, format!("`{path}` cannot be true: {why}"))),
        _ => Ok(()),
    }
}
