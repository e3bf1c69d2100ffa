//! A server with workspaces and operations that were made while it was stopped, and a client that keeps its connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use logseal_bench::ServerProbe;
use logseal_catalog::{Catalog, Change, OperationFilter, OperationRow};
use logseal_core::{IdGenerator, OperationId, SystemClock};
use logseal_crypto::{Key256, OsRandom, RootKey};
use logseal_testkit::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tenants;

/// Rows of one change.
const ROWS: usize = 1_000;

/// Time between two looks at an operation that runs.
const LOOK: Duration = Duration::from_millis(20);

/// A running server and what can be asked of it.
pub(crate) struct Deployment {
    server: Server,
    http: Client<HttpConnector, Full<Bytes>>,
    /// The paths of the statuses of ended operations.
    statuses: Vec<String>,
    _dir: TempDir,
}

impl Deployment {
    /// A server whose cluster `local` has `workspaces`, with `operations` that have ended.
    pub(crate) async fn new(workspaces: usize, operations: usize) -> Arc<Self> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data_dir = dir.path().join("data");
        let start = || Server::start(env!("CARGO_BIN_EXE_logseal"), &data_dir, &["--set", "log.level=warn"]);
        let http = || Client::builder(TokioExecutor::new()).pool_max_idle_per_host(64).build_http();
        let first = Self { server: start(), http: http(), statuses: Vec::new(), _dir: dir };
        let tags = json!({"tags": {"first": "change"}});
        first.operation(Method::PATCH, &first.path("clusters/local", ""), Some(tags)).await;
        let Self { server, _dir: dir, .. } = first;
        assert!(server.stop().success());
        // `default` is one of them.
        tenants::make(&data_dir, workspaces - 1).await;
        let catalog = catalog(&data_dir).await;
        let statuses = plant(&catalog, operations).await;
        catalog.close().await.expect("the last change is durable");
        Arc::new(Self { server: start(), http: http(), statuses, _dir: dir })
    }

    /// The path of `rest` in the default resource group.
    pub(crate) fn path(&self, rest: &str, query: &str) -> String {
        let (subscription, group) =
            (self.server.credential("/subscriptionId"), self.server.credential("/resourceGroup"));
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.OperationalInsights/{rest}\
             ?api-version=2025-07-01{query}"
        )
    }

    /// The path of the status of one of the ended operations.
    pub(crate) fn status_of(&self, number: u64) -> &str {
        // Steps of a large prime: neighbors in time are not neighbors in the catalog.
        let index = number.wrapping_mul(2_654_435_761) % self.statuses.len() as u64;
        &self.statuses[usize::try_from(index).expect("an index")]
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Bytes) {
        let (status, _, body) = self.call(method, path, body).await;
        (status, body)
    }

    /// The answer to a request that succeeds.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method, path, body).await;
        assert!((200..300).contains(&status), "{status} {path}: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Sends a request that begins an operation, and waits until it has succeeded.
    pub(crate) async fn operation(&self, method: Method, path: &str, body: Option<Value>) {
        let (status, headers, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{status} {path}: {}", String::from_utf8_lossy(&answer));
        let url = headers["azure-asyncoperation"].to_str().expect("ASCII");
        let path = url.strip_prefix(self.endpoint()).expect("a URL of this server");
        loop {
            let operation = self.json(Method::GET, path, None).await;
            match operation["status"].as_str() {
                Some("Succeeded") => return,
                Some("Failed" | "Canceled") => panic!("{operation}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Time that the server has spent on all cores.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        ServerProbe::new(self.server.process_id()).cpu_seconds().expect("Linux, and a running process")
    }

    fn endpoint(&self) -> &str {
        self.server.credential("/endpoints/management")
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, HeaderMap, Bytes) {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint()))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.server.credential("/managementToken")))
            .body(Full::new(body))
            .expect("a request");
        let (parts, body) = self.http.request(request).await.expect("an answer").into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.expect("a whole answer").to_bytes())
    }
}

/// The catalog of `data_dir`, which no server uses now.
async fn catalog(data_dir: &std::path::Path) -> Catalog {
    let text = std::fs::read_to_string(data_dir.join("vault/root.key")).expect("a generated root key");
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).expect("hexadecimal digits");
    let root = RootKey::new(Key256::copy_from_slice(&bytes).expect("256 bits"));
    Catalog::open(&data_dir.join("catalog.sqlite"), root.catalog_mac()).await.expect("the server's catalog")
}

/// Adds `count` operations like the one that has ended; returns the paths of their statuses.
async fn plant(catalog: &Catalog, count: usize) -> Vec<String> {
    let ended = catalog.operations(OperationFilter::default(), None, 1).await.expect("operations").remove(0);
    let ids = IdGenerator::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let rows: Vec<_> =
        (0..count).map(|_| OperationRow { id: OperationId::from(ids.next()), version: 1, ..ended.clone() }).collect();
    for rows in rows.chunks(ROWS) {
        let changes = rows.iter().map(|row| Change::PutOperation { row: row.clone(), expected: None }).collect();
        catalog.apply(Change::All(changes)).await.expect("operations of their own");
    }
    let status = |row: &OperationRow| {
        format!(
            "/subscriptions/{}/providers/Microsoft.OperationalInsights/locations/{}/operationStatuses/{}?api-version=2025-07-01",
            row.subscription, row.location, row.id
        )
    };
    rows.iter().map(status).collect()
}
