//! Health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};

use super::Management;

/// The process answers. Open: load balancers have no token, and it says nothing.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// Requests are served. Open, for the same reason.
pub(crate) async fn ready(State(api): State<Arc<Management>>) -> impl IntoResponse {
    if *api.ready.borrow() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

/// Prometheus' text format, version 0.0.4.
pub(crate) async fn metrics(State(api): State<Arc<Management>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render())
}
