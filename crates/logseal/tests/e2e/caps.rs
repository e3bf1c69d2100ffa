//! Daily caps, from the management API to the shipper.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_testkit::Server;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::Deployment;
use crate::lifecycle::request;

/// The smallest daily cap, in GB, and bytes of one request.
const CAP: f64 = 0.023;
const REQUEST: usize = 1_000_000;

const DAY: Duration = Duration::from_secs(86_400);

#[expect(clippy::disallowed_methods, reason = "the server under test reads the same clock")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("this century")
}

fn today() -> u64 {
    now().as_secs() / DAY.as_secs()
}

/// What a refusal is now: shippers wait for a reset that is near.
fn expected() -> Code {
    let resets_in = DAY.as_secs() - now().as_secs() % DAY.as_secs();
    if resets_in < 300 { Code::Unavailable } else { Code::ResourceExhausted }
}

async fn ship(server: &Server) -> Result<(), Status> {
    let mut client = LogsServiceClient::connect(server.otlp_grpc().to_owned()).await.expect("a listener");
    let text = "x".repeat(REQUEST);
    let mut message = tonic::Request::new(request(&[&text]));
    let key = format!("Bearer {}", server.workspace_key());
    message.metadata_mut().insert("authorization", key.parse().expect("a header value"));
    client.export(message).await.map(drop)
}

async fn call(server: &Server, method: Method, path: &str, body: Value) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.credential("/endpoints/management")))
        .header(header::AUTHORIZATION, format!("Bearer {}", server.credential("/managementToken")))
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// Sets the daily cap in GB and returns the workspace.
async fn cap(server: &Server, gb: f64) -> Value {
    let path = format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.OperationalInsights/workspaces/default\
         ?api-version=2025-07-01",
        server.credential("/subscriptionId"),
        server.credential("/resourceGroup"),
    );
    call(server, Method::PATCH, &path, json!({"properties": {"workspaceCapping": {"dailyQuotaGb": gb}}})).await
}

/// What the audit trail says of caps that were reached.
async fn audited(server: &Server) -> Vec<Value> {
    let trail = call(server, Method::GET, "/v1/audit?top=1000", Value::Null).await;
    let records = trail["value"].as_array().expect("records").iter();
    records.filter(|record| record["action"] == "logseal/workspaces/dailyCapReached").cloned().collect()
}

/// Scenario: a workspace with a cap of 23 MB sends until it is refused; the server is killed as soon as that is in the audit trail, and
/// starts again; the cap is raised; the server is stopped and starts, and the cap is lowered to just what was used. Guarantee: all that
/// began below the cap is taken and nothing after it, also after the restarts; it is audited once; after the cap is raised records are taken
/// at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_daily_cap_is_enforced_through_a_crash_until_it_is_raised() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let day = today();
    cap(&server, CAP).await;
    let mut taken = 0;
    let refused = loop {
        match ship(&server).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 100, "{CAP} GB are 23 requests");
    };
    // A midnight in between begins a day in which nothing is used; what follows would be another day's.
    if today() != day {
        return;
    }
    assert_eq!((taken, refused.code()), (23, expected()), "{refused:?}");
    assert!(refused.message().contains("cap of 23000000 bytes"), "{refused:?}");
    assert_eq!(refused.details().is_empty(), refused.code() == Code::ResourceExhausted, "{refused:?}");
    while audited(&server).await.is_empty() {}
    server.kill();

    let server = deployment.start();
    let again = ship(&server).await.map_err(|status| status.code());
    if today() != day {
        return;
    }
    assert_eq!(again, Err(expected()), "what was used is known after a crash");
    let workspace = cap(&server, 2.0 * CAP).await;
    assert_eq!(workspace["properties"]["workspaceCapping"]["dataIngestionStatus"], "RespectQuota");
    ship(&server).await.expect("the cap is higher");
    let records = audited(&server).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["after"]["capBytes"], 23_000_000, "{records:?}");
    assert!(server.stop().success());

    let server = deployment.start();
    cap(&server, 0.024).await;
    let last = ship(&server).await.map_err(|status| status.code());
    if today() != day {
        return;
    }
    assert_eq!(last, Err(expected()), "what was used is known after a stop");
    assert_eq!(server.value("SELECT count(*) FROM logs"), 24, "what was acknowledged, and nothing else");
}
