//! The vault's token: whoever presents it administers the vault.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use logseal_core::Standing;
use serde_json::json;

use super::Shared;
use super::problem::Problem;
use crate::events::{VaultEvent, action};

/// What Key Vault's SDKs need before they send a token. There is no directory behind it: what they are given to present is the vault's token.
const CHALLENGE: &str = "Bearer authorization=\"https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000\", \
                         resource=\"https://vault.azure.net\"";

/// Refuses requests without the token before anything else of them is looked at.
pub(super) async fn require_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let presented = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if presented.is_some_and(|presented| shared.face.token.admits(presented)) {
        if let Some(standing) = request.extensions().get::<Standing>() {
            standing.prove();
        }
        return next.run(request).await;
    }
    // The first request of an SDK comes without a token, to be told where to get one: only a wrong one is worth a report.
    if presented.is_some()
        && let Some(passed_over) = shared.throttle.report()
    {
        let event = VaultEvent {
            actor: "unknown".to_owned(),
            action: action::ACCESS,
            key: String::new(),
            outcome: "Unauthorized".to_owned(),
            detail: json!({"notReported": passed_over}),
        };
        shared.face.vault.report(event).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "expected `authorization: Bearer <vault token>`; it is `vaultToken` in credentials.json of the data directory",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    response
}
