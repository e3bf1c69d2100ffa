//! Who a request is from, and whether its route is for them.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Extensions, HeaderValue, StatusCode, header};
use logseal_core::Peer;

use super::Management;
use crate::Problem;
use crate::gate::{Principal, Role, RoleNeeded};

/// Whoever the gate let in.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Arc<Principal>);

impl FromRequestParts<Arc<Management>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Management>) -> Result<Self, Problem> {
        parts.extensions.get().cloned().map(Self).ok_or_else(nobody)
    }
}

/// Only a route that is open has requests of nobody, and no handler of such a one asks who it is from.
fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", "the request was not authenticated")
}

/// Where the listener says that the request comes from.
pub(crate) fn peer(extensions: &Extensions) -> Peer {
    extensions.get().copied().unwrap_or_else(Peer::unknown)
}

/// Refuses requests without a token that opens anything before anything else of them is looked at.
pub(crate) async fn require_token(State(api): State<Arc<Management>>, mut request: Request, next: Next) -> Response {
    let principal = match api.gate.enter(request.headers(), peer(request.extensions())).await {
        Ok(principal) => principal,
        Err(problem) => {
            let is_unknown = problem.status() == StatusCode::UNAUTHORIZED;
            let mut response = problem.into_response();
            if is_unknown {
                let challenge = HeaderValue::from_static("Bearer realm=\"logseal\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            return response;
        }
    };
    request.extensions_mut().insert(Arc::clone(&principal));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if response.extensions().get::<RoleNeeded>().is_some() {
        api.gate.denied(&principal, method.as_str(), &path).await;
    }
    response
}

/// Refuses requests of who has none of `roles`, before their bodies are looked at.
pub(super) async fn require_role(roles: &'static [Role], request: Request, next: Next) -> Response {
    let admitted = match request.extensions().get::<Arc<Principal>>() {
        Some(principal) => principal.admit(roles),
        None => Err(nobody()),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_what_a_listener_says() {
        let mut extensions = Extensions::new();
        assert_eq!(peer(&extensions), Peer::unknown());
        let other = Peer::new("192.0.2.2:5".parse().unwrap());
        extensions.insert(other);
        assert_eq!(peer(&extensions), other);
    }
}
