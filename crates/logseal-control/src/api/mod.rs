//! The management API over HTTP: routes, and what their handlers share.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `arm` | what all requests in Azure Resource Manager's shape have in common |
//! | `resources` | clusters, workspaces and links |
//! | `operations` | the status of operations |
//! | `audit` | the audit trail |
//! | `keys`, `segments`, `query`, `health` | the other handlers |
//! | [`auth`] | [`ManagementToken`](auth::ManagementToken) |
//! | [`problem`] | the shape of errors |

mod arm;
mod audit;
pub mod auth;
mod health;
mod keys;
mod operations;
pub mod problem;
mod query;
mod resources;
mod segments;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use logseal_catalog::Catalog;
use logseal_keys::AccessKeys;
use tokio::sync::watch;
use tower::ServiceExt as _;

use self::auth::{ManagementToken, require_token};
use self::problem::Problem;
use crate::audit::AuditTrail;
use crate::operation::runner::Operations;
use crate::port::{MetricsText, Queries};

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
    /// Changes of resources.
    pub operations: Arc<Operations>,
    /// What was changed, by whom.
    pub audit: AuditTrail,
    /// Runs queries.
    pub queries: Arc<dyn Queries>,
    /// Renders metrics.
    pub metrics: Arc<dyn MetricsText>,
    /// Whether requests are served.
    pub ready: watch::Receiver<bool>,
    /// The URL that the API has for its clients; `None` for the one that each request names.
    pub public_url: Option<String>,
}

const SUBSCRIPTION: &str = "/subscriptions/{subscription}";
const PROVIDER: &str = "providers/microsoft.operationalinsights";

/// The management API. Fixed segments of paths compare without case and paths with or without a trailing slash, so the templates are in
/// lower case.
pub fn router(api: Arc<Management>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/v1/workspaces/{workspace}/query", post(query::query))
        .route("/v1/segments", get(segments::segments))
        .route("/v1/operations", get(operations::list))
        .route("/v1/operations/{id}", get(operations::show))
        .route("/v1/operations/{id}/cancel", post(operations::cancel))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/verify", get(audit::verify))
        .merge(resource_manager())
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

/// The paths that Azure's tools know.
fn resource_manager() -> Router<Arc<Management>> {
    let group = format!("{SUBSCRIPTION}/resourcegroups/{{group}}/{PROVIDER}");
    let (cluster, workspace) = (format!("{group}/clusters/{{name}}"), format!("{group}/workspaces/{{name}}"));
    let link = format!("{workspace}/linkedservices/{{service}}");
    Router::new()
        .route(&format!("{SUBSCRIPTION}/{PROVIDER}/clusters"), get(resources::list_clusters))
        .route(&format!("{SUBSCRIPTION}/{PROVIDER}/workspaces"), get(resources::list_workspaces))
        .route(
            &format!("{SUBSCRIPTION}/{PROVIDER}/locations/{{location}}/operationstatuses/{{id}}"),
            get(operations::status),
        )
        .route(&format!("{group}/clusters"), get(resources::list_clusters))
        .route(&format!("{group}/workspaces"), get(resources::list_workspaces))
        .route(
            &cluster,
            get(resources::get_cluster)
                .put(resources::put_cluster)
                .patch(resources::patch_cluster)
                .delete(resources::delete_cluster),
        )
        .route(
            &workspace,
            get(resources::get_workspace)
                .put(resources::put_workspace)
                .patch(resources::patch_workspace)
                .delete(resources::delete_workspace),
        )
        .route(&format!("{cluster}/operationresults/{{id}}"), get(operations::result))
        .route(&format!("{workspace}/operationresults/{{id}}"), get(operations::result))
        .route(&format!("{workspace}/linkedservices"), get(resources::list_links))
        .route(&link, get(resources::get_link).put(resources::put_link).delete(resources::delete_link))
        .route(&format!("{workspace}/sharedkeys"), post(keys::shared_keys))
}

/// Brings the fixed segments of a path into lower case, and takes a trailing slash away. Names stay as they were given: a new resource
/// is shown under its name as its maker wrote it.
fn normalize_path(mut request: Request) -> Request {
    let uri = request.uri();
    let path = match uri.path().trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => {
            let mut segments = trimmed.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            // In Azure Resource Manager's paths fixed segments and values take turns; a provider is a value that is fixed.
            let is_resource = segments[0].eq_ignore_ascii_case("subscriptions");
            for index in 0..segments.len() {
                let is_value = is_resource && index % 2 == 1 && segments[index - 1] != "providers";
                if !is_value {
                    segments[index].make_ascii_lowercase();
                }
            }
            format!("/{}", segments.join("/"))
        }
    };
    let normalized = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let parts = normalized.parse().ok().map(|path_and_query| {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path_and_query);
        parts
    });
    if let Some(normalized) = parts.and_then(|parts| http::Uri::from_parts(parts).ok()) {
        *request.uri_mut() = normalized;
    }
    request
}

#[cfg(test)]
mod tests;
