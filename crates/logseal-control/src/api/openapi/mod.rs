//! The API's document: OpenAPI 3.1, made from the list that the routes are made from.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `input` | schemas of bodies, as strict as what reads them |
//! | `output` | schemas of answers |
//! | `patterns` | texts as regular expressions |
//!
//! The file `testdata/openapi/openapi.json` is this document; a test compares them. A change of it that takes something away from clients
//! needs another path or another `api-version`.

mod input;
mod output;
mod patterns;

use axum::body::Bytes;
use http::header;
use serde_json::{Map, Value, json};

use super::routes::{Answer, Content, Endpoint, Method, Routes};
use crate::gate::Role;
use crate::gate::tokens::NAME_BYTES;
use crate::resource::name;

/// `guarded` with the document over it and `open`.
pub(super) fn with_document(open: &Routes, guarded: Routes) -> Routes {
    let own =
        Endpoint::new(&Role::ALL, Method::Get, "/openapi.json", "Document_Get", "This document.").shows("Document");
    let document = document(open.endpoints().iter().chain(guarded.endpoints()).chain([&own]));
    let text = Bytes::from(format!("{document:#}\n"));
    guarded.at(own, move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    })
}

/// The document over `endpoints`.
fn document<'e>(endpoints: impl Iterator<Item = &'e Endpoint>) -> Value {
    let mut schemas = input::schemas();
    schemas.extend(output::schemas());
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = paths.entry(&endpoint.path).or_insert_with(|| json!({"parameters": of_path(&endpoint.path)}));
        path[endpoint.method.name()] = operation(endpoint, &schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Logseal management API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Resources have Azure Resource Manager's shape. Fixed segments of paths and names of properties compare \
                without case; the spelling here is the one of answers. A property of a body that is `null` counts as not given. \
                `x-logseal-roles` says which roles an operation is for; the management token has all rights.",
        },
        "security": [{"managementToken": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"managementToken": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token that `Tokens_Create` made, or `managementToken` of the data directory's credentials.json.",
            }},
            "parameters": parameters(),
            "headers": headers(),
            "responses": errors(),
            "schemas": schemas,
        },
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// References to the parameters in the braces of a path.
fn of_path(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| reference("parameters", &format!("path.{name}"))).collect()
}

fn operation(endpoint: &Endpoint, schemas: &Map<String, Value>) -> Value {
    let Endpoint { id, summary, parameters, body, answers, errors, roles, is_open, .. } = endpoint;
    let group = id.split('_').next().unwrap_or(id);
    let mut responses = Map::new();
    for answer in answers {
        responses.insert(answer.status.to_string(), response(answer));
    }
    for status in errors {
        responses.insert(status.to_string(), reference("responses", &format!("Error{status}")));
    }
    let mut operation = json!({"operationId": id, "tags": [group], "summary": summary, "responses": responses});
    if !parameters.is_empty() {
        operation["parameters"] = parameters.iter().map(|name| reference("parameters", name)).collect();
    }
    if let Some(schema) = body {
        let content = json!({"application/json": {"schema": reference("schemas", schema)}});
        // No body counts as an empty object.
        let required = schemas[*schema]["required"].as_array().is_some_and(|names| !names.is_empty());
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    if *is_open {
        operation["security"] = json!([]);
    } else {
        operation["x-logseal-roles"] = roles.iter().map(|role| role.as_str()).collect();
    }
    operation
}

fn response(answer: &Answer) -> Value {
    let mut response = json!({"description": answer.says});
    let content = match answer.content {
        Content::Nothing => Value::Null,
        Content::Json(schema) => json!({"application/json": {"schema": reference("schemas", schema)}}),
        Content::Text(media_type) => json!({media_type: {"schema": {"type": "string"}}}),
        Content::Result => json!({
            "application/json": {"schema": reference("schemas", "QueryTables")},
            "application/vnd.logseal.rows+json": {"schema": reference("schemas", "QueryRows")},
            "application/vnd.apache.arrow.stream": {},
            "text/csv": {"schema": {"type": "string"}},
        }),
    };
    if !content.is_null() {
        response["content"] = content;
    }
    if !answer.headers.is_empty() {
        response["headers"] = answer.headers.iter().map(|name| (*name, reference("headers", name))).collect();
    }
    response
}

fn parameters() -> Value {
    let path = |name: &str, schema: Value, says: &str| json!({"name": name, "in": "path", "required": true, "schema": schema, "description": says});
    let optional = |place: &str, name: &str, schema: Value, says: &str| json!({"name": name, "in": place, "schema": schema, "description": says});
    let query = |name: &str, schema: Value, says: &str| optional("query", name, schema, says);
    let flag = || json!({"type": "boolean", "default": false});
    let page = || json!({"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100});
    let uuid = || json!({"type": "string", "format": "uuid"});
    let (first, last) = (name::FIRST_VERSION, name::LAST_VERSION);
    json!({
        "path.subscription": path("subscription", uuid(), "A UUID; it need not exist."),
        "path.group": path("group", json!({"type": "string", "pattern": patterns::GROUP}), "A resource group; it need not exist."),
        "path.name": path("name", json!({"type": "string", "pattern": patterns::RESOURCE}), "The resource's name."),
        "path.service": path("service", json!({"type": "string", "enum": ["cluster"]}), "The only linked service."),
        "path.location": path("location", json!({"type": "string", "pattern": patterns::LOCATION}), "The resource's location."),
        "path.id": path("id", uuid(), "The operation's id."),
        "path.key": path("key", uuid(), "The id of an account key: `masterKeyID` in a segment's key metadata."),
        "path.segment": path("segment", uuid(), "The segment's id."),
        "path.token": path("token", json!({"type": "string", "pattern": patterns::TOKEN_NAME, "maxLength": NAME_BYTES}), "The token's name."),
        "path.workspace": path("workspace", uuid(), "The workspace's `customerId`."),
        "api-version": {
            "name": "api-version", "in": "query", "required": true,
            "schema": {"type": "string", "pattern": patterns::API_VERSION},
            "description": format!("A date from {first} to {last}; all answer the same."),
            "example": last,
        },
        "page.top": query("$top", page(), "Most resources of a page."),
        "page.skiptoken": query("$skiptoken", json!({"type": "string", "pattern": patterns::TOKEN}), "Where the page begins: from `nextLink`."),
        "forceDelete": query("forceDelete", flag(), "Also when keys of the cluster protect data, which is lost then."),
        "force": query("force", flag(), "For good: the data is lost at once."),
        "wait": query("wait", json!({"type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0}), "Seconds to wait for its end, at most 30 at a time."),
        "status": query("status", json!({"type": "string", "enum": ["running", "succeeded", "failed", "canceled"]}), "Only operations in this state."),
        "operationBefore": query("before", uuid(), "Only operations older than this one: `nextBefore` of the page before."),
        "recordBefore": query("before", json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}), "Only records with smaller numbers than this one."),
        "top": query("top", json!({"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 100}), "Most of a page; beyond 1 to 1000 the nearest of them."),
        "workspace": query("workspace", json!({"type": "string"}), "The name or the id of a workspace."),
        "If-Match": optional("header", "If-Match", json!({"type": "string"}), "Only if the resource has this entity tag; `*` for any."),
        "If-None-Match": optional("header", "If-None-Match", json!({"type": "string"}), "Only if it has not; with `*`, only if there is none."),
    })
}

fn headers() -> Value {
    let header = |schema: Value, says: &str| json!({"schema": schema, "description": says});
    let url = || json!({"type": "string", "format": "uri"});
    let integer = || json!({"type": "integer", "minimum": 0});
    json!({
        "Azure-AsyncOperation": header(url(), "Where the operation's status is."),
        "Location": header(url(), "Where the operation's result will be."),
        "Retry-After": header(json!({"type": "integer", "minimum": 1}), "Seconds after which to ask again."),
        "Cache-Control": header(json!({"type": "string"}), "`no-store`."),
        "ETag": header(json!({"type": "string"}), "The resource's entity tag."),
        "WWW-Authenticate": header(json!({"type": "string"}), "`Bearer`."),
        "X-Logseal-Truncated": header(json!({"type": "boolean"}), "Whether rows beyond the limit were left out."),
        "X-Logseal-Unsealed-Records": header(integer(), "Acknowledged records of the workspace that are in no segment yet; the result has them."),
        "X-Logseal-Lag-Ms": header(integer(), "How long ago the oldest of them was received, in milliseconds."),
    })
}

/// The errors, each with the shape of all.
fn errors() -> Value {
    let error = |says: &str, headers: &[&str]| {
        let headers: Map<_, _> = headers.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect();
        let content = json!({"application/json": {"schema": reference("schemas", "Error")}});
        json!({"description": says, "content": content, "headers": headers})
    };
    json!({
        "Error400": error("The path, a parameter or the body has what it cannot have: `target` says where.", &[]),
        "Error401": error("The token is missing, wrong or expired.", &["WWW-Authenticate"]),
        "Error403": error("`AuthorizationFailed`: it needs another role or grant, which the message names. Any other code: the key of the cluster that this takes was revoked.", &[]),
        "Error404": error("There is no such resource, operation, segment, token or path.", &[]),
        "Error406": error("Results come in none of the forms of `Accept`.", &[]),
        "Error408": error("The body did not arrive within 30 s.", &[]),
        "Error409": error("The state of the resource does not admit it; with `Retry-After` when it will.", &["Retry-After"]),
        "Error412": error("The resource's entity tag is another one.", &[]),
        "Error413": error("The body is larger than 1 MiB.", &[]),
        "Error429": error("Too many tokens that open nothing came from this address.", &["Retry-After"]),
        "Error500": error("A segment or its key is missing or damaged: the message names it.", &[]),
        "Error503": error("Not now: try again.", &["Retry-After"]),
    })
}

#[cfg(test)]
mod tests;
