//! Which role each route is for, and tokens as their owners use them.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use super::*;
use crate::gate::Role;
use crate::testing::management::token;

/// Each operation of the document with the roles that it is for: reader, operator, key officer, auditor. It is written here once more, so that a role
/// that is given to a route by mistake is noticed.
const TABLE: &[(&str, &str)] = &[
    ("Audit_List", "A"),
    ("Audit_Verify", "A"),
    ("Clusters_CreateOrUpdate", "OK"),
    ("Clusters_Delete", "O"),
    ("Clusters_Get", "OK"),
    ("Clusters_List", "OK"),
    ("Clusters_ListByResourceGroup", "OK"),
    ("Clusters_OperationResult", "OK"),
    ("Clusters_Update", "OK"),
    ("Document_Get", "ROKA"),
    ("Keys_Unwrap", "R"),
    ("LinkedServices_CreateOrUpdate", "O"),
    ("LinkedServices_Delete", "O"),
    ("LinkedServices_Get", "OK"),
    ("LinkedServices_ListByWorkspace", "OK"),
    ("Metrics_Get", "OA"),
    ("OperationStatuses_Get", "OKA"),
    ("Operations_Cancel", "O"),
    ("Operations_Get", "OKA"),
    ("Operations_List", "OKA"),
    ("Queries_Run", "R"),
    ("Segments_ExportKey", "K"),
    ("Segments_List", "OK"),
    ("SharedKeys_GetSharedKeys", "K"),
    ("SharedKeys_Regenerate", "K"),
    ("Tokens_Create", ""),
    ("Tokens_Delete", ""),
    ("Tokens_Get", ""),
    ("Tokens_List", ""),
    ("Workspaces_CreateOrUpdate", "O"),
    ("Workspaces_Delete", "O"),
    ("Workspaces_Get", "ROK"),
    ("Workspaces_List", "OK"),
    ("Workspaces_ListByResourceGroup", "OK"),
    ("Workspaces_OperationResult", "OK"),
    ("Workspaces_RotateKey", "K"),
    ("Workspaces_Update", "O"),
];

fn letter(role: Role) -> char {
    match role {
        Role::Reader => 'R',
        Role::Operator => 'O',
        Role::KeyOfficer => 'K',
        Role::Auditor => 'A',
    }
}

impl Api {
    /// As [`Api::json`], with another token, or with none when it is empty.
    pub(super) async fn json_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (status, text, _) = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn create_token(&self, body: &Value) -> (StatusCode, http::HeaderMap, Value) {
        self.json("POST", "/v1/tokens", body).await
    }
}

/// Where a request of this kind finds what readers may see, and changes nothing.
fn path_of(api: &Api, template: &str, id: &str) -> String {
    let name = if id == "Workspaces_Get" { "default" } else { "nothing-here" };
    let workspace = api.workspace.to_string();
    let path = [
        ("{subscription}", "00000000-0000-0000-0000-000000000000"),
        ("{group}", "default"),
        ("{name}", name),
        ("{service}", "cluster"),
        ("{location}", "local"),
        ("{workspace}", &workspace),
        ("{token}", "nothing-here"),
    ]
    .iter()
    .fold(template.to_owned(), |path, (name, value)| path.replace(name, value));
    let path = ["{id}", "{key}", "{segment}"]
        .iter()
        .fold(path, |path, name| path.replace(name, "00000000-0000-0000-0000-000000000000"));
    assert!(!path.contains('{'), "{path}");
    format!("{path}?api-version=2025-07-01")
}

/// Scenario: each operation of the document is asked for with a token of each role, with the management token, and with none. Guarantee: those that
/// the table names come to the handler, the others are refused with the code of a lacking role and the roles that are needed, as the document says;
/// without a token nobody comes in. An operation that is not in the table, or a route that is not in the document, fails this or the test of
/// the document.
#[tokio::test(flavor = "multi_thread")]
async fn each_route_is_for_the_roles_of_the_table() {
    let api = api().await;
    let management = Arc::new(management(&api.deployment).await);
    let mut tokens = BTreeMap::new();
    for role in Role::ALL {
        tokens.insert(letter(role), (role, token(&management, role).await));
    }
    // Its tokens are those that were made.
    let api = Api { router: router(management), ..api };
    let (_, document) = api.get("/openapi.json").await;
    let mut seen = BTreeSet::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let id = operation["operationId"].as_str().unwrap();
            if operation["security"] == json!([]) {
                assert!(["Health_Alive", "Health_Ready"].contains(&id), "{id} is open");
                continue;
            }
            seen.insert(id.to_owned());
            let (_, letters) = TABLE.iter().find(|(known, _)| *known == id).unwrap_or_else(|| panic!("{id} is new"));
            let (method, path) = (method.to_uppercase(), path_of(&api, template, id));
            let ask = async |token: &str| api.json_as(token, &method, &path, &json!({})).await;
            let refused = |answer: &(StatusCode, Value)| {
                answer.0 == StatusCode::FORBIDDEN && answer.1["error"]["code"] == "AuthorizationFailed"
            };
            assert_eq!(ask("").await.0, StatusCode::UNAUTHORIZED, "{id}");
            let mut needed = Vec::new();
            for (own, (role, token)) in &tokens {
                let answer = ask(token).await;
                if letters.contains(*own) {
                    assert!(!refused(&answer) && answer.0 != StatusCode::UNAUTHORIZED, "{id} {role}: {answer:?}");
                    needed.push(role.as_str());
                    continue;
                }
                assert!(refused(&answer), "{id} {role}: {answer:?}");
                let message = answer.1["error"]["message"].as_str().unwrap().to_owned();
                let (_, needs) = message.split_once("this needs").unwrap();
                for other in Role::ALL {
                    assert_eq!(needs.contains(&format!("`{other}`")), letters.contains(letter(other)), "{message}");
                }
                assert_eq!(needs.contains("management token"), letters.is_empty(), "{message}");
            }
            assert!(!refused(&ask("token").await), "{id}: the management token has all rights");
            let listed: BTreeSet<_> =
                operation["x-logseal-roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap()).collect();
            assert_eq!(listed, needed.into_iter().collect(), "{id}");
        }
    }
    let known: BTreeSet<_> = TABLE.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(seen, known);
    for path in ["/nothing", "/v1/nothing"] {
        assert_eq!(api.json_as(&tokens[&'R'].1, "GET", path, &Value::Null).await.0, StatusCode::NOT_FOUND);
    }
}

/// Scenario: a reader's token is made over HTTP, used, and deleted. Guarantee: it is shown once; it queries its workspaces and finds their ids, and of
/// others learns nothing, not even whether they are there; when it is deleted it opens nothing at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_queries_its_own_workspaces_only() {
    let api = api().await;
    let own = api.workspace;
    let wanted = json!({"name": "grafana", "role": "reader", "workspaces": [own.to_string(), own.to_string()], "expiresInSeconds": 3_600});
    let (status, headers, made) = api.create_token(&wanted).await;
    assert_eq!((status, &headers["cache-control"]), (StatusCode::CREATED, &"no-store".parse().unwrap()), "{made}");
    let token = made["value"].as_str().unwrap();
    let (_, listed) = api.get("/v1/tokens").await;
    let entry = &listed["value"][0];
    assert_eq!(
        (&entry["name"], &entry["role"], &entry["lastUsed"]),
        (&json!("grafana"), &json!("reader"), &Value::Null)
    );
    assert_eq!(entry["workspaces"], json!([{"id": own.to_string(), "name": "default"}]));
    assert_eq!(entry["expires"], made["expires"]);
    assert!(!listed.to_string().contains(token));

    let query = async |workspace: &str| {
        let path = format!("/v1/workspaces/{workspace}/query");
        let request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        api.send(request.body(r#"{"query":"q"}"#.into()).unwrap()).await
    };
    let (status, body, _) = query(&own.to_string()).await;
    assert_eq!((status, body), (StatusCode::OK, format!("{own} q None Tables")));
    let body = json!({"location": "local"});
    let (_, headers, other) = api.json("PUT", &path("workspaces/other"), &body).await;
    api.follow(&headers).await;
    let other = other["properties"]["customerId"].as_str().unwrap();
    let (there, not_there) = (query(other).await, query("00000000-0000-0000-0000-000000000000").await);
    assert_eq!((there.0, error_code(&there.1).as_str()), (StatusCode::FORBIDDEN, "AuthorizationFailed"));
    assert_eq!((there.0, &there.1), (not_there.0, &not_there.1));
    let shown = async |name: &str| api.json_as(token, "GET", &path(&format!("workspaces/{name}")), &Value::Null).await;
    assert_eq!(shown("Default").await.1["properties"]["customerId"], own.to_string());
    assert_eq!(shown("other").await.0, StatusCode::FORBIDDEN);
    assert_eq!(shown("other").await, shown("none-such").await);
    assert!(api.get("/v1/tokens/grafana").await.1["lastUsed"].is_string());

    let delete = async || api.json("DELETE", "/v1/tokens/Grafana/", &Value::Null).await.0;
    assert_eq!((delete().await, delete().await), (StatusCode::OK, StatusCode::NO_CONTENT));
    assert_eq!(query(&own.to_string()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get("/v1/tokens/grafana").await.0, StatusCode::NOT_FOUND);
    let (_, trail) = api.get("/v1/audit?top=1000").await;
    let actions = |name: &str| {
        let of_name = trail["value"].as_array().unwrap().iter().filter(|record| record["action"] == name);
        of_name.cloned().collect::<Vec<_>>()
    };
    let denied = actions("logseal/access/denied");
    assert_eq!(denied.len(), 5, "{denied:?}");
    assert!(denied.iter().all(|record| record["actor"] == "token:grafana"), "{denied:?}");
    assert!(denied.iter().any(|record| record["resource"].as_str().unwrap().ends_with("/workspaces/other")));
    for (action, count) in [("logseal/tokens/write", 1), ("logseal/tokens/delete", 1)] {
        let records = actions(action);
        assert_eq!(records.len(), count);
        assert_eq!(
            (&records[0]["actor"], &records[0]["resource"]),
            (&json!("management-token"), &json!("/v1/tokens/grafana"))
        );
    }
    assert!(!trail.to_string().contains(token));
}

/// Scenario: a cluster's tags and key are changed by an operator and by a key officer. Guarantee: each changes its own part, in their own names.
#[tokio::test(flavor = "multi_thread")]
async fn key_and_settings_are_changed_by_different_people() {
    let api = api().await;
    let mut tokens = Vec::new();
    for role in ["operator", "key-officer"] {
        let (status, _, made) = api.create_token(&json!({"name": format!("a-{role}"), "role": role})).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        tokens.push(made["value"].as_str().unwrap().to_owned());
    }
    let [operator, officer] = tokens.as_slice() else { panic!("two tokens") };
    let patch = async |token: &str, body: Value| {
        let request = Request::patch(path("clusters/local")).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = request.header(header::HOST, "logs.test:8430").body(Body::from(body.to_string())).unwrap();
        let (status, text, headers) = api.send(request).await;
        if status == StatusCode::OK {
            assert_eq!(api.follow(&headers).await["status"], "Succeeded");
            return (status, String::new());
        }
        (status, error_code(&text))
    };
    let vault = crate::testing::VAULT;
    let key = json!({"properties": {"keyVaultProperties": {"keyVaultUri": vault, "keyName": "kek", "keyVersion": ""}}});
    let tags = json!({"tags": {"team": "a"}});
    let refused = (StatusCode::FORBIDDEN, "AuthorizationFailed".to_owned());
    let done = (StatusCode::OK, String::new());
    assert_eq!(patch(operator, key.clone()).await, refused);
    assert_eq!(patch(officer, tags.clone()).await, refused);
    assert_eq!(patch(officer, key).await, done);
    assert_eq!(patch(operator, tags).await, done);
    let (_, trail) = api.get("/v1/audit").await;
    let actors: BTreeSet<_> =
        trail["value"].as_array().unwrap().iter().map(|record| record["actor"].as_str().unwrap().to_owned()).collect();
    assert!(actors.contains("token:a-operator") && actors.contains("token:a-key-officer"), "{actors:?}");
}

/// Scenario: bodies that ask for no token. Guarantee: each is refused with the property that is wrong.
#[tokio::test]
async fn wrong_tokens_are_not_made() {
    let api = api().await;
    let own = api.workspace.to_string();
    for (body, target) in [
        (json!({"role": "auditor"}), "name"),
        (json!({"name": "Upper", "role": "auditor"}), "name"),
        (json!({"name": "a/b", "role": "auditor"}), "name"),
        (json!({"name": "-a", "role": "auditor"}), "name"),
        (json!({"name": "a".repeat(64), "role": "auditor"}), "name"),
        (json!({"name": "a"}), "role"),
        (json!({"name": "a", "role": "owner"}), "role"),
        (json!({"name": "a", "role": "reader", "workspaces": own}), "workspaces"),
        (json!({"name": "a", "role": "reader", "workspaces": ["default"]}), "workspaces"),
        (json!({"name": "a", "role": "reader", "workspaces": []}), "workspaces"),
        (json!({"name": "a", "role": "auditor", "workspaces": [own]}), "workspaces"),
        (json!({"name": "a", "role": "auditor", "expiresInSeconds": 0}), "expiresInSeconds"),
        (json!({"name": "a", "role": "auditor", "expiresInSeconds": i64::MAX}), "expiresInSeconds"),
        (json!({"name": "a", "role": "auditor", "lifetime": 5}), "lifetime"),
    ] {
        let (status, _, answer) = api.create_token(&body).await;
        assert_eq!((status, &answer["error"]["target"]), (StatusCode::BAD_REQUEST, &json!(target)), "{body}: {answer}");
    }
    assert_eq!(api.create_token(&json!({"name": "a", "role": "auditor"})).await.0, StatusCode::CREATED);
    let (status, _, answer) = api.create_token(&json!({"name": "a", "role": "operator"})).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("TokenExists")));
    assert_eq!(api.json_as("", Method::POST.as_str(), "/v1/tokens", &json!({})).await.0, StatusCode::UNAUTHORIZED);
}
