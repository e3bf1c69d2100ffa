//! Routes, and what their handlers share.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use logseal_catalog::Catalog;
use logseal_keys::AccessKeys;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::auth::require_token;
use crate::port::{MetricsText, Queries};
use crate::{ManagementToken, Problem, health, problem, query, resources};

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

/// The management API. Paths compare without case and with or without a trailing slash, so the templates are in lower case.
pub fn router(api: Arc<Management>) -> Router {
    const PROVIDER: &str =
        "/subscriptions/{subscription}/resourcegroups/{group}/providers/microsoft.operationalinsights";
    let guarded = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/v1/workspaces/{workspace}/query", post(query::query))
        .route("/v1/workspaces", get(resources::workspaces))
        .route("/v1/segments", get(resources::segments))
        .route(&format!("{PROVIDER}/workspaces/{{name}}/sharedkeys"), post(resources::shared_keys))
        .fallback(|| async { Problem::not_found("there is no such path in the management API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path has another method")
        })
        .layer(from_fn_with_state(Arc::clone(&api), require_token))
        .layer(map_response(problem::as_json));
    let routes = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(api);
    // A layer of the router would run after routing: the path has to be brought into its form before.
    Router::new().fallback_service(routes.map_request(normalize_path))
}

/// Lower case, no trailing slash. Every name and id in a path compares without case.
fn normalize_path(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().to_ascii_lowercase();
    let path = match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let normalized = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    if let Ok(normalized) = normalized.parse() {
        *request.uri_mut() = normalized;
    }
    request
}

#[cfg(test)]
mod tests;
