//! Who a request is from, and whether its route is for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Extensions, HeaderValue, StatusCode, header};
use logseal_core::{Peer, Standing};
use tokio::time::timeout;

use super::{BODY_BYTES, Management};
use crate::Problem;
use crate::gate::{Principal, Role, RoleNeeded};

/// How long a body may take to arrive: whoever has a token could keep the connections of all others by bodies that do not end.
const BODY_TIME: Duration = Duration::from_secs(30);

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

/// Tells the listener that the client of a connection has a token.
pub(crate) fn prove(extensions: &Extensions) {
    if let Some(standing) = extensions.get::<Standing>() {
        standing.prove();
    }
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
    prove(request.extensions());
    request.extensions_mut().insert(Arc::clone(&principal));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if response.extensions().get::<RoleNeeded>().is_some() {
        api.gate.denied(&principal, method.as_str(), &path).await;
    }
    response
}

/// Refuses requests of who has none of `roles`, before their bodies are looked at; the body of any other has arrived as a whole when the request goes on.
pub(super) async fn require_role(roles: &'static [Role], request: Request, next: Next) -> Response {
    let admitted = match request.extensions().get::<Arc<Principal>>() {
        Some(principal) => principal.admit(roles),
        None => Err(nobody()),
    };
    match admitted {
        Ok(()) => match arrived(request, BODY_TIME).await {
            Ok(request) => next.run(request).await,
            Err(problem) => problem.into_response(),
        },
        Err(problem) => problem.into_response(),
    }
}

/// `request` with its body in memory.
async fn arrived(request: Request, time: Duration) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    match timeout(time, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body))),
        Ok(Err(_)) => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", "the body is larger than 1 MiB"))
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", time.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: bodies that are there, that are too large, and that do not end. Guarantee: the first is handed on, the others are refused, each in its
    /// own way, and the last after its time.
    #[tokio::test]
    async fn a_body_arrives_within_its_bounds_or_is_refused() {
        let endless = futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
        for (body, expected) in [
            (Body::from("x"), StatusCode::OK),
            (Body::from(vec![b'x'; BODY_BYTES + 1]), StatusCode::PAYLOAD_TOO_LARGE),
            (Body::from_stream(endless), StatusCode::REQUEST_TIMEOUT),
        ] {
            let arrived = arrived(Request::new(body), Duration::from_millis(20)).await;
            assert_eq!(arrived.map_or_else(|problem| problem.status(), |_| StatusCode::OK), expected);
        }
    }

    #[test]
    fn the_peer_is_what_a_listener_says() {
        let mut extensions = Extensions::new();
        assert_eq!(peer(&extensions), Peer::unknown());
        let other = Peer::new("192.0.2.2:5".parse().unwrap());
        extensions.insert(other);
        assert_eq!(peer(&extensions), other);
    }
}
