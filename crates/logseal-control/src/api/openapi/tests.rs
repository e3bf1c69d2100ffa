//! The document against the file, the routes and what reads bodies.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::output::PROVISIONING_STATES;
use super::*;
use crate::api::router;
use crate::resource::cluster::ClusterChange;
use crate::resource::workspace::WorkspaceSettings;
use crate::resource::{Method as Write, ProvisioningState};
use crate::testing::Deployment;
use crate::testing::management::{TOKEN, management};

async fn call(router: &Router, method: &str, path: &str, token: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn served(router: &Router) -> (Value, String) {
    let (status, text) = call(router, "GET", "/openapi.json", TOKEN).await;
    assert_eq!(status, StatusCode::OK);
    (serde_json::from_str(&text).unwrap(), text)
}

/// Scenario: the document is asked for with and without the token. Guarantee: it is the file that clients are made from, and it is not
/// open.
#[tokio::test]
async fn the_document_is_the_file() {
    let deployment = Deployment::new().await;
    let router = router(Arc::new(management(&deployment).await));
    assert_eq!(call(&router, "GET", "/openapi.json", "other").await.0, StatusCode::UNAUTHORIZED);
    let (_, text) = served(&router).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/openapi/openapi.json");
    if std::env::var_os("LOGSEAL_BLESS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert!(golden == text, "the document differs from testdata/openapi/openapi.json; LOGSEAL_BLESS=1 rewrites that");
}

/// Scenario: each path of the document, with each method. Guarantee: what the document has is answered as it says, what it has not is no
/// method of the path; so router and document have the same routes.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let deployment = Deployment::new().await;
    let router = router(Arc::new(management(&deployment).await));
    let (document, _) = served(&router).await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for (template, item) in paths {
        let path = [
            ("{subscription}", "00000000-0000-0000-0000-000000000000"),
            ("{group}", "default"),
            ("{name}", "nothing-here"),
            ("{service}", "cluster"),
            ("{location}", "local"),
            ("{id}", "00000000-0000-0000-0000-000000000000"),
            ("{workspace}", "00000000-0000-0000-0000-000000000000"),
            ("{key}", "00000000-0000-0000-0000-000000000000"),
            ("{segment}", "00000000-0000-0000-0000-000000000000"),
            ("{token}", "nothing-here"),
        ]
        .iter()
        .fold(template.clone(), |path, (name, value)| path.replace(name, value));
        assert!(!path.contains('{'), "{path}");
        for method in ["get", "put", "patch", "post", "delete"] {
            let (status, body) =
                call(&router, &method.to_uppercase(), &format!("{path}?api-version=2025-07-01"), TOKEN).await;
            let responses = &item[method]["responses"];
            if responses.is_null() {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            } else {
                assert!(!responses[status.as_str()].is_null(), "{method} {path} answered {status}: {body}");
                assert!(!body.contains("no such path"), "{method} {path}: {body}");
            }
        }
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(reference) = object.get("$ref") {
                found.insert(reference.as_str().unwrap().to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Guarantee: no reference leads nowhere, nothing is described that nobody has, and every operation has a name of its own.
#[tokio::test]
async fn the_document_is_whole() {
    let deployment = Deployment::new().await;
    let (document, _) = served(&router(Arc::new(management(&deployment).await))).await;
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for reference in &used {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "nobody has {kind}/{name}");
            let known = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            assert!(known, "OpenAPI has no such names of components: {name}");
        }
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<_> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}

/// Every property that the schema knows, as a body that has this one alone, as `null`.
fn bodies(schema: &Value, schemas: &Map<String, Value>) -> Vec<Value> {
    let mut found = Vec::new();
    let reference = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    if let Some(name) = reference {
        found.extend(bodies(&schemas[name], schemas));
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        found.extend(bodies(inner, schemas));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        found.push(json!({name: null}));
        found.extend(bodies(inner, schemas).into_iter().map(|body| json!({name: body})));
    }
    found
}

/// Scenario: each property of the schemas of bodies, at each depth. Guarantee: what reads bodies knows it.
#[test]
fn every_property_of_a_schema_is_one_that_is_read() {
    let schemas = input::schemas();
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters/name";
    for (name, least) in [("ClusterInput", 35), ("WorkspaceInput", 35)] {
        let bodies = bodies(&schemas[name], &schemas);
        assert!(bodies.len() >= least, "{name}: {}", bodies.len());
        for body in bodies {
            let read = match name {
                "ClusterInput" => ClusterChange::input(&body, None, id, Write::Patch, 0).err(),
                _ => WorkspaceSettings::input(&body, None, id, Write::Patch, 0).err(),
            };
            let refused = read.map(|problem| problem.message().to_owned()).unwrap_or_default();
            assert!(!refused.contains("is not a property"), "{name} {body}: {refused}");
        }
    }
}

#[test]
fn words_are_those_of_the_code() {
    for word in PROVISIONING_STATES {
        let state: ProvisioningState = serde_json::from_value(word.into()).unwrap();
        assert_eq!(state.as_str(), word);
    }
}
