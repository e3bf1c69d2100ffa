//! The management API over HTTP: routes, and what their handlers share.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `endpoints`, `routes` | the list of all routes, with what the API's document says of them |
//! | `openapi` | that document |
//! | `arm` | what all requests in Azure Resource Manager's shape have in common |
//! | `resources` | clusters, workspaces and links |
//! | `operations` | the status of operations |
//! | `audit` | the audit trail |
//! | `key_release` | data keys of segments for readers outside of the server |
//! | `keys`, `segments`, `query`, `health` | the other handlers |
//! | `auth` | who a request is from, and whether its route is for them |
//! | `tokens` | tokens of this API |
//! | [`problem`] | the shape of errors |

mod arm;
mod audit;
pub(crate) mod auth;
mod endpoints;
mod health;
mod key_release;
mod keys;
mod openapi;
mod operations;
pub mod problem;
mod query;
mod resources;
mod routes;
mod segments;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn_with_state, map_response};
use logseal_catalog::Catalog;
use logseal_keys::AccessKeys;
use tokio::sync::watch;
use tower::ServiceExt as _;

use self::auth::require_token;
use self::problem::Problem;
use crate::audit::AuditTrail;
use crate::gate::Gate;
use crate::operation::runner::Operations;
use crate::port::{MetricsText, Queries};

/// Largest body of a management request; a query's text is the largest thing that comes in.
const BODY_BYTES: usize = 1024 * 1024;

/// What the handlers share.
#[derive(Debug)]
pub struct Management {
    /// Who comes in.
    pub gate: Arc<Gate>,
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
    /// Whether it is served over TLS, which links without a public URL say.
    pub is_tls: bool,
}

/// The management API. Fixed segments of paths compare without case and paths with or without a trailing slash.
pub fn router(api: Arc<Management>) -> Router {
    let (open, guarded) = (endpoints::open(), endpoints::guarded());
    let guarded = openapi::with_document(&open, guarded)
        .into_router()
        .fallback(|| async { Problem::not_found("there is no such path in the management API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path has another method")
        })
        .layer(from_fn_with_state(Arc::clone(&api), require_token))
        .layer(map_response(problem::as_json));
    let routes = open.into_router().merge(guarded).layer(DefaultBodyLimit::max(BODY_BYTES)).with_state(api);
    // A layer of the router would run after routing: the path has to be brought into its form before.
    Router::new().fallback_service(routes.map_request(normalize_path))
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
