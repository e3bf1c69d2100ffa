//! The embedded vault's REST face: the part of Azure Key Vault's keys API that makes sense for RSA keys, so that its SDKs can drive it
//! unmodified.
//!
//! Beyond that API, for this program's own command line:
//!
//! * `GET /keys/{name}/grants` shows who may do what: `{"value":[{"principalId","permissions":["get","wrapKey","unwrapKey"]}],"newClusters"}`.
//! * `PUT /keys/{name}/grants/{principal}` with `{"permissions":[...]}` grants these in the place of others, without a body all three.
//! * `DELETE /keys/{name}/grants/{principal}` takes all away. All three answer with the grants as they are then.
//! * The bodies of create and import may have `"logseal": {"grants": bool, "purgeable": bool}`: whether clusters are granted everything (they
//!   are), and whether the key can be purged before its retention has ended (it cannot).
//!
//! Whoever has the vault's token administers it. The token is checked before the path and the body are looked at; the rest of a request
//! is carried out in a task of its own, so that a client that goes away leaves no change without its report. What is unwrapped for a client
//! passes through buffers of the HTTP stack, which are not wiped; the deployment's own keys never come this way.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `auth` | the token, and the challenge that SDKs wait for |
//! | `asked` | what a request names |
//! | `input`, `view` | bodies, and keys as answers show them |
//! | `keys`, `operations` | the handlers |
//! | `problem` | the shape of errors |
//! | `throttle` | how many requests are taken |

mod asked;
mod auth;
mod input;
mod keys;
mod operations;
mod problem;
mod throttle;
mod view;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use logseal_core::SteadyClock;
use logseal_crypto::{BearerToken, OsRandom};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use self::problem::{Problem, Refusal};
use self::throttle::{Throttle, Work};
use crate::events::{SUCCEEDED, VaultEvent, action};
use crate::{EmbeddedVault, PrincipalId};

/// Largest body; the largest that makes sense, an imported key of 4096 bits, has some 4 KiB.
const BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// Who holds the vault's token, as events call them.
const ADMINISTRATOR: &str = "vault-token";

/// What the REST face is made of.
#[derive(Debug)]
pub struct Face {
    /// The vault.
    pub vault: Arc<EmbeddedVault>,
    /// Opens it.
    pub token: BearerToken,
    /// Whom new keys are granted to.
    pub clusters: Arc<dyn Clusters>,
    /// For throttling.
    pub clock: Arc<dyn SteadyClock>,
}

/// The clusters of the deployment.
#[async_trait]
pub trait Clusters: Debug + Send + Sync {
    /// As whom each of them asks the vault.
    ///
    /// # Errors
    ///
    /// Why that is not known now.
    async fn principals(&self) -> Result<Vec<PrincipalId>, String>;
}

#[derive(Debug)]
struct Shared {
    face: Face,
    throttle: Throttle,
}

impl Shared {
    fn take(&self, bits: u32, work: Work) -> Result<(), Problem> {
        self.throttle.take(bits, work).map_err(Problem::throttled)
    }
}

/// The REST face. Fixed segments of paths compare without case, names of keys too, and paths with or without a trailing slash.
pub fn router(face: Face) -> Router {
    let throttle = Throttle::new(Arc::clone(&face.clock));
    let shared = Arc::new(Shared { face, throttle });
    let routes = operation_routes(operation_routes(key_routes(), "/keys/{name}"), "/keys/{name}/{version}")
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "NotFound", "there is no such path in the keys API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path has another method")
        })
        .layer(from_fn_with_state(Arc::clone(&shared), carry_out))
        .layer(from_fn_with_state(Arc::clone(&shared), auth::require_token))
        .layer(map_response(problem::as_json))
        .layer(from_fn(name_request))
        .with_state(shared);
    // A layer of the router would run after routing: the path has to be brought into its form before.
    Router::new().fallback_service(routes.map_request(normalize_path))
}

fn key_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/keys", get(keys::list))
        .route("/keys/restore", post(keys::not_offered))
        .route("/keys/{name}", get(keys::get).put(keys::import).patch(keys::update).delete(keys::delete))
        .route("/keys/{name}/create", post(keys::create))
        .route("/keys/{name}/rotate", post(keys::rotate))
        .route("/keys/{name}/backup", post(keys::not_offered))
        .route("/keys/{name}/versions", get(keys::versions))
        .route("/keys/{name}/rotationpolicy", get(keys::policy).put(keys::set_policy))
        .route("/keys/{name}/grants", get(keys::grants))
        .route("/keys/{name}/grants/{principal}", put(keys::grant).delete(keys::revoke))
        .route("/keys/{name}/{version}", get(keys::get).patch(keys::update))
        .route("/deletedkeys", get(keys::list_deleted))
        .route("/deletedkeys/{name}", get(keys::get_deleted).delete(keys::purge))
        .route("/deletedkeys/{name}/recover", post(keys::recover))
        .route("/rng", post(keys::random))
}

/// What is computed with a version, or with the newest one when the path names none.
fn operation_routes(routes: Router<Arc<Shared>>, of: &str) -> Router<Arc<Shared>> {
    routes
        .route(&format!("{of}/encrypt"), post(operations::encrypt))
        .route(&format!("{of}/decrypt"), post(operations::decrypt))
        .route(&format!("{of}/sign"), post(operations::sign))
        .route(&format!("{of}/verify"), post(operations::verify))
        .route(&format!("{of}/wrapkey"), post(operations::wrap_key))
        .route(&format!("{of}/unwrapkey"), post(operations::unwrap_key))
        .route(&format!("{of}/release"), post(keys::not_offered))
}

/// Brings the fixed segments of a path into lower case and takes empty ones away: SDKs leave out a version by an empty segment. A key's name
/// stays as it was given, since a new key is shown under it.
fn normalize_path(mut request: Request) -> Request {
    let uri = request.uri();
    let segments = uri.path().split('/').filter(|segment| !segment.is_empty()).enumerate();
    let segments = segments.map(|(index, text)| if index == 1 { text.to_owned() } else { text.to_ascii_lowercase() });
    let path = format!("/{}", segments.collect::<Vec<_>>().join("/"));
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

/// Gives the answer an id, and the client's own id back.
async fn name_request(request: Request, next: Next) -> Response {
    let own = request.headers().get(CLIENT_REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    let id: [u8; 16] = OsRandom.array();
    if let Ok(id) = HeaderValue::from_str(&data_encoding::HEXLOWER.encode(&id)) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if let Some(own) = own {
        response.headers_mut().insert(CLIENT_REQUEST_ID, own);
    }
    // Answers hold what was unwrapped.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Takes the body within its bounds, carries out the request in a task of its own, and reports what it changed or was refused.
async fn carry_out(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", "the body is larger than 64 KiB").into_response()
    };
    if announced.is_some_and(|length| length > BODY_BYTES as u64) {
        return too_large();
    }
    let body = match timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return too_large(),
        Err(_) => {
            let message = "the body did not arrive within 10 s";
            return Problem::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message).into_response();
        }
    };
    let (action, key) = what(&parts.method, parts.uri.path());
    let done = tokio::spawn(async move {
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        let (status, extensions) = (response.status(), response.extensions());
        let refusal = extensions.get::<Refusal>().copied();
        let detail = extensions.get::<Detail>().map_or(Value::Null, |detail| detail.0.clone());
        report(&shared, action, key, (status, refusal, detail)).await;
        response
    });
    done.await.unwrap_or_else(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the request could not be carried out")
            .into_response()
    })
}

/// What a request is about: the action, whether it changes something, and the key's name, with the version when the path has one.
fn what(method: &Method, path: &str) -> (Option<(&'static str, bool)>, String) {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    let (key, rest) = match segments.as_slice() {
        ["keys" | "deletedkeys", name, rest @ ..] => (*name, rest),
        _ => return (None, String::new()),
    };
    let is_deleted = segments[0] == "deletedkeys";
    let last = rest.last().copied().unwrap_or_default();
    let action = match (method.as_str(), last) {
        ("POST", "create") => (action::CREATE, true),
        ("POST", "rotate") => (action::ROTATE, true),
        ("POST", "recover") if is_deleted => (action::RECOVER, true),
        ("POST", "wrapkey" | "encrypt" | "sign") => (action::WRAP, false),
        ("POST", "unwrapkey" | "decrypt" | "verify") => (action::UNWRAP, false),
        ("PUT", "") => (action::IMPORT, true),
        ("PUT", "rotationpolicy") => (action::POLICY, true),
        ("PUT", _) => (action::GRANT, true),
        ("PATCH", _) => (action::UPDATE, true),
        ("DELETE", "") if is_deleted => (action::PURGE, true),
        ("DELETE", "") => (action::DELETE, true),
        ("DELETE", _) => (action::REVOKE, true),
        _ => (action::READ, false),
    };
    let version = rest.first().filter(|version| version.len() == 32 && !is_deleted);
    (Some(action), version.map_or_else(|| key.to_owned(), |version| format!("{key}/{version}")))
}

async fn report(
    shared: &Shared,
    action: Option<(&'static str, bool)>,
    key: String,
    (status, refusal, detail): (StatusCode, Option<Refusal>, Value),
) {
    let Some((action, is_change)) = action else { return };
    let (outcome, detail) = match refusal {
        None if is_change && status.is_success() => (SUCCEEDED, detail),
        Some(Refusal(code)) if status == StatusCode::FORBIDDEN => match shared.throttle.report() {
            Some(passed_over) => (code, json!({"notReported": passed_over})),
            None => return,
        },
        _ => return,
    };
    let (actor, outcome) = (ADMINISTRATOR.to_owned(), outcome.to_owned());
    shared.face.vault.report(VaultEvent { actor, action, key, outcome, detail }).await;
}

/// What was changed, beside its answer, for who reports it.
#[derive(Clone, Debug)]
struct Detail(Value);

#[cfg(test)]
mod tests;
