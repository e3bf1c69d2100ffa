//! Health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};
use logseal_keys::availability::KeyState;

use super::Management;

/// The process answers. Open: load balancers have no token, and it says nothing.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// Requests of some cluster are served, and a line for each cluster with the state of its key. Open, for the same reason: names of clusters
/// are no secrets.
pub(crate) async fn ready(State(api): State<Arc<Management>>) -> impl IntoResponse {
    let (status, mut body) = if *api.ready.borrow() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned())
    };
    // A catalog that cannot be read is told by everything else.
    for cluster in api.catalog.clusters().await.unwrap_or_default() {
        let state = api.operations.world().data.key_status(cluster.id);
        let state = state.map_or(KeyState::Resuming, |status| status.state).as_str();
        body.push_str(&format!("cluster {} {state}\n", cluster.name));
    }
    (status, body)
}

/// Prometheus' text format, version 0.0.4.
pub(crate) async fn metrics(State(api): State<Arc<Management>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render())
}
