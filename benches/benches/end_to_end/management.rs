//! The server's management API, as far as the rows need it: workspaces, and whether everything is in segments.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use logseal_testkit::Server;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::Failed;

/// How often the server is asked whether everything is in segments: each question takes a little of its time.
const DRAIN_POLL: Duration = Duration::from_millis(500);

/// How often it is asked whether a workspace is made.
const MADE_POLL: Duration = Duration::from_millis(5);

const API_VERSION: &str = "?api-version=2025-07-01";

/// The API of a running server.
pub(crate) struct Management {
    authority: String,
    token: String,
    workspaces: String,
}

impl Management {
    pub(crate) fn of(server: &Server) -> Self {
        let endpoint = server.credential("/endpoints/management");
        Self {
            authority: endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            token: server.credential("/managementToken").to_owned(),
            workspaces: format!(
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.OperationalInsights/workspaces",
                server.credential("/subscriptionId"),
                server.credential("/resourceGroup"),
            ),
        }
    }

    /// Waits until the server reports no record outside a segment.
    pub(crate) async fn drained(&self) -> Result<(), Failed> {
        loop {
            sleep(DRAIN_POLL).await;
            let text = self.call(Method::GET, "/metrics", "").await?;
            let text = String::from_utf8_lossy(&text);
            let left = text.lines().find_map(|line| line.strip_prefix("logseal_ingest_unsealed_records "));
            if left.is_some_and(|left| left.trim().parse::<f64>().is_ok_and(|left| left <= 0.0)) {
                return Ok(());
            }
        }
    }

    /// Makes `count` workspaces and returns their keys.
    pub(crate) async fn make_workspaces(&self, count: usize) -> Result<Vec<String>, Failed> {
        let path = |number: usize| format!("{}/tenant-{number}", self.workspaces);
        let document = json!({"location": "local"}).to_string();
        for number in 0..count {
            self.call(Method::PUT, &(path(number) + API_VERSION), &document).await?;
        }
        let mut keys = Vec::with_capacity(count);
        for number in 0..count {
            while !self.is_made(&path(number)).await? {
                sleep(MADE_POLL).await;
            }
            let answer = self.call(Method::POST, &(path(number) + "/sharedKeys" + API_VERSION), "").await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            keys.push(answer["primarySharedKey"].as_str().ok_or("a workspace without a key")?.to_owned());
        }
        Ok(keys)
    }

    async fn is_made(&self, path: &str) -> Result<bool, Failed> {
        let workspace: Value =
            serde_json::from_slice(&self.call(Method::GET, &format!("{path}{API_VERSION}"), "").await?)?;
        match workspace["properties"]["provisioningState"].as_str() {
            Some("Succeeded") => Ok(true),
            Some("Creating") => Ok(false),
            state => Err(format!("`{path}` is in state {state:?}").into()),
        }
    }

    async fn call(&self, method: Method, path: &str, body: &str) -> Result<Bytes, Failed> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.to_owned())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(format!("`{path}` was answered with {status}: {}", String::from_utf8_lossy(&body)).into())
    }
}
