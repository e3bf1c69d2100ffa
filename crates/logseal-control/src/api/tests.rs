//! The API over a real catalog: who is let in, what is answered, what errors say.

mod key_release;
mod keys;
mod resources;
mod roles;

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use logseal_core::WorkspaceId;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::port::{QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat};
use crate::testing::Deployment;
use crate::testing::management::management;

/// Answers with what it was asked, or fails as the query's text says.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl Queries for Echo {
    async fn run(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
        format: QueryFormat,
    ) -> Result<QueryAnswer, QueryFailure> {
        let fail = |kind| Err(QueryFailure { kind, code: "Code", message: format!("about {sql}") });
        match sql {
            "invalid" => fail(QueryFailureKind::Invalid),
            "damaged" => fail(QueryFailureKind::Damaged),
            "unavailable" => fail(QueryFailureKind::Unavailable),
            _ => Ok(QueryAnswer {
                body: format!("{workspace} {sql} {row_limit:?} {format:?}").into_bytes(),
                truncated: row_limit == Some(1),
                unsealed_records: 7,
                lag: Duration::from_millis(1_250),
            }),
        }
    }
}

#[derive(Debug)]
struct Text;
impl MetricsText for Text {
    fn render(&self) -> String {
        "logseal_up 1\n".to_owned()
    }
}

struct Api {
    deployment: Deployment,
    router: Router,
    ready: watch::Sender<bool>,
    workspace: WorkspaceId,
    primary: String,
}

async fn api() -> Api {
    api_over(false).await
}

async fn api_over(is_tls: bool) -> Api {
    let deployment = Deployment::new().await;
    let workspace = deployment.catalog.workspaces().await.unwrap()[0].id;
    let keys = deployment.catalog.workspace_keys_of(workspace).await.unwrap();
    let primary = deployment.access.reveal(&keys[0]).unwrap().to_string();
    let (ready, is_ready) = watch::channel(false);
    let management = Management {
        queries: Arc::new(Echo),
        metrics: Arc::new(Text),
        ready: is_ready,
        is_tls,
        ..management(&deployment).await
    };
    Api { deployment, router: router(Arc::new(management)), ready, workspace, primary }
}

impl Api {
    async fn send(&self, request: Request<Body>) -> (StatusCode, String, http::HeaderMap) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), headers)
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, "Bearer token");
        let (status, body, _) = self.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        (status, body)
    }
}

fn error_code(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap();
    assert!(value["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    value["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_but_health_needs_the_token_before_anything_else() {
    let api = api().await;
    let keys =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/default/sharedKeys";
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/v1/operations"),
        ("PUT", "/subscriptions/x/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters/c"),
        ("GET", "/v1/segments"),
        ("POST", "/v1/workspaces/x/query"),
        ("POST", "/v1/keys/x/unwrapkey"),
        ("POST", "/v1/segments/x/exportkey"),
        ("POST", keys),
        ("GET", "/nothing"),
        ("DELETE", "/metrics"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::from("not json")).unwrap();
        let (status, body, headers) = api.send(request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(error_code(&body), "Unauthorized");
        assert!(headers.contains_key(header::WWW_AUTHENTICATE));
    }
    let open = |path: &'static str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(api.send(open("/healthz")).await.0, StatusCode::OK);
    assert_eq!(api.send(open("/readyz")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    api.ready.send(true).unwrap();
    let (status, body, _) = api.send(open("/readyz")).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::OK, "ready\ncluster local Active\ncluster service-managed Active\n")
    );
}

#[tokio::test]
async fn a_query_reaches_its_workspace_in_the_form_that_was_asked_for() {
    let api = api().await;
    let (path, workspace) = (format!("/v1/workspaces/{}/query", api.workspace), api.workspace);
    let (status, body) = api.call("POST", &path, r#"{"query":"SELECT 1","timespan":null}"#).await;
    assert_eq!((status, body), (StatusCode::OK, format!("{workspace} SELECT 1 None Tables")));
    for (accept, format) in [
        ("application/json", "Tables"),
        ("text/csv", "Csv"),
        ("application/vnd.apache.arrow.stream", "Arrow"),
        ("application/vnd.logseal.rows+json", "Json"),
    ] {
        let request = Request::post(&path).header(header::AUTHORIZATION, "Bearer token").header(header::ACCEPT, accept);
        let (status, body, headers) = api.send(request.body(r#"{"query":"q","maxRows":1}"#.into()).unwrap()).await;
        assert_eq!((status, body), (StatusCode::OK, format!("{workspace} q Some(1) {format}")));
        assert_eq!(headers["x-logseal-truncated"], "true");
        assert_eq!(
            (&headers["x-logseal-unsealed-records"], &headers["x-logseal-lag-ms"]),
            (&"7".parse().unwrap(), &"1250".parse().unwrap())
        );
    }
    let image = Request::post(&path).header(header::AUTHORIZATION, "Bearer token").header(header::ACCEPT, "image/png");
    let (status, body, _) = api.send(image.body(r#"{"query":"q"}"#.into()).unwrap()).await;
    assert_eq!((status, error_code(&body).as_str()), (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"));
}

#[tokio::test]
async fn failures_say_whose_fault_they_are() {
    let api = api().await;
    let path = format!("/v1/workspaces/{}/query", api.workspace);
    for (sql, expected) in [
        ("invalid", StatusCode::BAD_REQUEST),
        ("damaged", StatusCode::INTERNAL_SERVER_ERROR),
        ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (status, body) = api.call("POST", &path, &format!(r#"{{"query":"{sql}"}}"#)).await;
        assert_eq!((status, error_code(&body).as_str()), (expected, "Code"));
        assert!(body.contains(&format!("about {sql}")), "the message reaches the caller: {body}");
    }
    for (path, body, expected, code) in [
        (path.as_str(), "", StatusCode::BAD_REQUEST, "InvalidRequestContent"),
        (path.as_str(), r#"{"sql":"x"}"#, StatusCode::BAD_REQUEST, "InvalidRequestContent"),
        ("/v1/workspaces/nonsense/query", "{}", StatusCode::NOT_FOUND, "ResourceNotFound"),
        ("/v1/workspaces/00000000-0000-0000-0000-000000000000/query", "{}", StatusCode::NOT_FOUND, "ResourceNotFound"),
        ("/nothing", "", StatusCode::NOT_FOUND, "ResourceNotFound"),
        ("/metrics", "", StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    ] {
        let (status, answer) = api.call("POST", path, body).await;
        assert_eq!((status, error_code(&answer).as_str()), (expected, code), "{path} {body}");
    }
    let large = format!(r#"{{"query":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let (status, answer) = api.call("POST", &path, &large).await;
    assert_eq!((status, error_code(&answer).as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge"));
    let (status, answer) = api.call("GET", "/v1/segments?workspace=a&workspace=b", "").await;
    assert_eq!((status, error_code(&answer).as_str()), (StatusCode::BAD_REQUEST, "InvalidRequest"));
}

#[tokio::test]
async fn paths_and_property_names_compare_without_case_and_with_or_without_a_slash() {
    let api = api().await;
    let workspace = api.workspace;
    for path in [format!("/v1/workspaces/{workspace}/query/"), format!("/V1/Workspaces/{workspace}/Query")] {
        let (status, body) = api.call("POST", &path, r#"{"Query":"q","MAXROWS":3}"#).await;
        assert_eq!((status, body), (StatusCode::OK, format!("{workspace} q Some(3) Tables")), "{path}");
    }
    let keys = "/Subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/DEFAULT/providers/microsoft.operationalinsights/workspaces/Default/sharedKeys/";
    assert_eq!(api.call("POST", &format!("{keys}?api-version=2020-08-01"), "").await.0, StatusCode::OK);
}

const GROUP: &str = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/Microsoft.OperationalInsights";

fn path(rest: &str) -> String {
    let separator = if rest.contains('?') { '&' } else { '?' };
    format!("{GROUP}/{rest}{separator}api-version=2025-07-01")
}

#[tokio::test]
async fn segments_are_listed_and_keys_shown_to_their_owner() {
    let api = api().await;
    let (status, body) = api.call("GET", "/v1/segments?workspace=default", "").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"value":[]}"#));
    assert_eq!(api.call("GET", "/v1/segments?workspace=none", "").await.0, StatusCode::NOT_FOUND);
    let (status, body) = api.call("POST", &path("workspaces/Default/sharedKeys"), "").await;
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, shown["primarySharedKey"].as_str()), (StatusCode::OK, Some(api.primary.as_str())));
    assert_ne!(shown["primarySharedKey"], shown["secondarySharedKey"]);
    assert_eq!(api.call("POST", &path("workspaces/none/sharedKeys"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.call("GET", "/metrics", "").await.1, "logseal_up 1\n");
}

impl Api {
    /// Sends JSON as a tool does, and gives status, headers and JSON.
    async fn json(&self, method: &str, path: &str, body: &Value) -> (StatusCode, http::HeaderMap, Value) {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, "Bearer token");
        let request = request.header(header::HOST, "logs.test:8430").body(Body::from(body.to_string())).unwrap();
        let (status, text, headers) = self.send(request).await;
        (status, headers, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.json("GET", path, &json!({})).await;
        (status, body)
    }

    /// Follows the headers of an asynchronous answer to the end, as an SDK does.
    async fn follow(&self, headers: &http::HeaderMap) -> Value {
        let url = headers["azure-asyncoperation"].to_str().unwrap();
        let path = url.strip_prefix("http://logs.test:8430").expect("an absolute URL at the authority that was asked");
        let id = path.split('?').next().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        self.deployment.end(id).await;
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }
}
