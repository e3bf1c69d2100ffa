//! The client against servers that answer what a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::Uri as RequestUri;
use axum::response::IntoResponse;
use axum::routing::get;
use http::HeaderMap as Headers;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::endpoint::Token;
use super::*;

/// A client of a server with these routes.
pub(crate) async fn served(router: Router) -> Management {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    client(endpoint)
}

fn client(endpoint: String) -> Management {
    Management::new(Target {
        endpoint,
        token: Token(Zeroizing::new("t0ken".to_owned())),
        place: Place { subscription: "s".into(), resource_group: "g".into() },
        advice: "is it running?".to_owned(),
        connector: Connector::plain().unwrap(),
        workspace: None,
    })
}

/// Scenario: a listing of three pages whose links name another host. Guarantee: all of it is listed, each page asked of the server that
/// was named, with the token.
#[tokio::test]
async fn a_listing_goes_on_at_the_same_server_to_its_end() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let page = move |headers: Headers, uri: RequestUri| async move {
        assert_eq!(headers["authorization"], "Bearer t0ken");
        let mut seen = seen.lock().unwrap();
        seen.push(uri.query().unwrap().to_owned());
        let (number, path) = (seen.len(), uri.path().to_owned());
        let next = (number < 3).then(|| format!("http://elsewhere.example:1{path}?api-version=x&$skiptoken={number}"));
        serde_json::json!({"value": [{"name": number}], "nextLink": next}).to_string()
    };
    let path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters";
    let management = served(Router::new().route(path, get(page))).await;
    let names: Vec<_> = management.list("clusters").await.unwrap().into_iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, [1, 2, 3]);
    assert_eq!(asked.lock().unwrap()[1..], ["api-version=x&$skiptoken=1", "api-version=x&$skiptoken=2"]);
}

/// Scenario: a server whose listing never ends. Guarantee: the command does.
#[tokio::test]
async fn a_listing_without_an_end_is_given_up() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pages);
    let page = move |uri: RequestUri| async move {
        counted.fetch_add(1, Ordering::Relaxed);
        serde_json::json!({"value": [], "nextLink": uri.to_string()}).to_string()
    };
    let management = served(Router::new().fallback(page)).await;
    let error = management.list("clusters").await.unwrap_err();
    assert!(error.to_string().contains("pages"), "{error}");
    assert_eq!(pages.load(Ordering::Relaxed), PAGES);
}

#[tokio::test]
async fn refusals_carry_code_and_message_and_a_missing_server_says_what_to_look_at() {
    let problem = || async {
        (StatusCode::CONFLICT, r#"{"error":{"code":"Busy","message":"wait","target":null,"details":[]}}"#)
            .into_response()
    };
    let html = || async { (StatusCode::BAD_GATEWAY, "<html>") };
    let management = served(Router::new().route("/problem", get(problem)).route("/html", get(html))).await;
    let error = management.get("/problem").await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("wait (Busy)", Some(StatusCode::CONFLICT)));
    let error = management.get("/html").await.unwrap_err().to_string();
    assert!(error.contains("502") && error.contains("no answer of logseal"), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = client(format!("http://{}", free.local_addr().unwrap()));
    drop(free);
    let error = nobody.get("/").await.unwrap_err();
    assert!(error.to_string().contains("cannot reach") && error.to_string().contains("is it running?"), "{error}");
}

#[test]
fn an_operation_is_found_behind_its_header() {
    let id = "0194d5a0-0000-7000-8000-000000000001";
    let operation = |url: &str| {
        let mut answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() };
        answer.headers.insert("azure-asyncoperation", url.parse().unwrap());
        answer.operation()
    };
    let path = "/subscriptions/s/providers/Microsoft.OperationalInsights/locations/l/operationStatuses";
    assert_eq!(operation(&format!("http://h:1{path}/{id}?api-version=1")).as_deref(), Some(id));
    assert_eq!(operation(&format!("http://h:1{path}/..?api-version=1")), None);
}

#[test]
fn a_link_is_followed_by_its_path_only() {
    let next = "http://elsewhere.example:1/subscriptions/s?api-version=1&$skiptoken=x";
    assert_eq!(path_of(next).unwrap(), "/subscriptions/s?api-version=1&$skiptoken=x");
    assert!(path_of("::").is_err() && path_of("elsewhere.example:1").is_err());
}
