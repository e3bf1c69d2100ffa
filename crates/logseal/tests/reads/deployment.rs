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
use logseal_catalog::{AekRow, Catalog, Change, OperationFilter, OperationRow, SegmentCommit, SegmentRow, TableRow};
use logseal_core::{Clock as _, IdGenerator, OperationId, SegmentId, SystemClock};
use logseal_crypto::{Key256, OsRandom, RootKey};
use logseal_testkit::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tenants;

/// Rows of one change.
const ROWS: usize = 1_000;

/// Time between two looks at an operation that runs.
const LOOK: Duration = Duration::from_millis(20);

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) workspaces: usize,
    /// Operations that have ended.
    pub(crate) operations: usize,
    /// Segments in the catalog, as many in each workspace; none of them has an object.
    pub(crate) segments: usize,
}

/// A running server and what can be asked of it.
pub(crate) struct Deployment {
    server: Server,
    http: Client<HttpConnector, Full<Bytes>>,
    /// The paths of the statuses of ended operations.
    statuses: Vec<String>,
    /// The rows of segments that were planted.
    segments: Vec<SegmentRow>,
    dir: TempDir,
}

impl Deployment {
    /// A server whose cluster `local` has all that `size` says.
    pub(crate) async fn new(size: Size) -> Arc<Self> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data_dir = dir.path().join("data");
        let start = || Server::start(env!("CARGO_BIN_EXE_logseal"), &data_dir, &["--set", "log.level=warn"]);
        let http = || Client::builder(TokioExecutor::new()).pool_max_idle_per_host(64).build_http();
        let first = Self { server: start(), http: http(), statuses: Vec::new(), segments: Vec::new(), dir };
        let tags = json!({"tags": {"first": "change"}});
        first.operation(Method::PATCH, &first.path("clusters/local", ""), Some(tags)).await;
        let Self { server, dir, .. } = first;
        assert!(server.stop().success());
        // `default` is one of them.
        tenants::make(&data_dir, size.workspaces - 1).await;
        let catalog = catalog(&data_dir).await;
        let statuses = plant(&catalog, size.operations).await;
        let segments = plant_segments(&catalog, size.segments).await;
        catalog.close().await.expect("the last change is durable");
        Arc::new(Self { server: start(), http: http(), statuses, segments, dir })
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

    /// What a command that succeeds prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = self.server.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Whether the catalog has the segments that were planted, and nothing else of them.
    pub(crate) async fn segments_are_as_planted(&self) -> bool {
        let catalog = catalog(&self.dir.path().join("data")).await;
        let mut found = Vec::with_capacity(self.segments.len());
        for workspace in catalog.workspaces().await.expect("workspaces") {
            found.extend(catalog.snapshot(workspace.id).await.expect("a snapshot").segments);
        }
        found.sort_by_key(|row| row.id);
        found == self.segments
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

/// The catalog of `data_dir`; a server that runs may only be read beside.
async fn catalog(data_dir: &std::path::Path) -> Catalog {
    let text = std::fs::read_to_string(data_dir.join("vault/root.key")).expect("a generated root key");
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).expect("hexadecimal digits");
    let root = RootKey::new(Key256::copy_from_slice(&bytes).expect("256 bits"));
    Catalog::open(&data_dir.join("catalog.sqlite"), root.catalog_mac()).await.expect("the server's catalog")
}

/// Adds `count` segments, the workspaces of the cluster `local` in turn; returns them by id.
async fn plant_segments(catalog: &Catalog, count: usize) -> Vec<SegmentRow> {
    let ids = IdGenerator::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let mut owners = Vec::new();
    for workspace in catalog.workspaces().await.expect("workspaces") {
        let table = catalog.schema(workspace.id).await.expect("a schema").tables.remove(0);
        let aek = catalog.aeks_of(workspace.id).await.expect("account keys").remove(0);
        owners.push((table, aek));
    }
    let segment = |(table, aek): &(TableRow, AekRow)| {
        let id = SegmentId::from(ids.next());
        let created = SystemClock.now();
        let wrapped_dek = [id.as_bytes().as_slice(), &[7; 44]].concat();
        SegmentRow {
            id,
            workspace: table.workspace,
            table: table.id,
            aek: aek.id,
            path: format!("planted/{id}"),
            bytes: 1 << 20,
            rows: 1_000,
            min_time: created,
            max_time: created,
            created,
            wrapped_dek,
            dek_commitment: vec![8; 32],
        }
    };
    let mut planted: Vec<_> = (0..count).map(|number| segment(&owners[number % owners.len()])).collect();
    for rows in planted.chunks(ROWS) {
        let commit = |row: &SegmentRow| {
            let owner = owners.iter().find(|(table, _)| table.id == row.table);
            let (table, _) = owner.expect("a table of the catalog").clone();
            let (segment, columns, coverage, attested) = (row.clone(), Vec::new(), Vec::new(), Vec::new());
            Change::CommitSegment(Box::new(SegmentCommit { segment, table, columns, coverage, attested }))
        };
        catalog.apply(Change::All(rows.iter().map(commit).collect())).await.expect("segments of their own");
    }
    planted.sort_by_key(|row| row.id);
    planted
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
