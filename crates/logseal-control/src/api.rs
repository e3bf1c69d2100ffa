//! Routes, and what their handlers share.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use logseal_catalog::Catalog;
use logseal_keys::AccessKeys;
use tokio::sync::watch;

use crate::auth::require_token;
use crate::port::{MetricsText, Queries};
use crate::{ManagementToken, Problem, health, query, resources};

/// Largest body of a management request; a query's text is the largest thing that comes in.
const BODY_BYTES: usize = 1024 * 1024;

/// What the handlers share.
#[derive(Debug)]
pub struct Management {
    /// Opens the API.
    pub token: ManagementToken,
    /// Resources and segments.
    pub catalog: Catalog,
    /// Workspace keys in clear, for their owner.
    pub access: Arc<AccessKeys>,
    /// Runs queries.
    pub queries: Arc<dyn Queries>,
    /// Renders metrics.
    pub metrics: Arc<dyn MetricsText>,
    /// Whether requests are served.
    pub ready: watch::Receiver<bool>,
}

/// The management API.
pub fn router(api: Arc<Management>) -> Router {
    const PROVIDER: &str =
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.OperationalInsights";
    let guarded = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/v1/workspaces/{workspace}/query", post(query::query))
        .route("/v1/workspaces", get(resources::workspaces))
        .route("/v1/segments", get(resources::segments))
        .route(&format!("{PROVIDER}/workspaces/{{name}}/sharedKeys"), post(resources::shared_keys))
        .fallback(|| async { Problem::not_found("there is no such path in the management API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path has another method")
        })
        .layer(from_fn_with_state(Arc::clone(&api), require_token));
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(api)
}

#[cfg(test)]
mod tests;
