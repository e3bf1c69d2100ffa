//! The vault's token: whoever presents it administers the vault.

use std::fmt::{self, Debug};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Shared;
use super::problem::Problem;
use crate::events::{VaultEvent, action};

/// What Key Vault's SDKs need before they send a token. There is no directory behind it: what they are given to present is the vault's token.
const CHALLENGE: &str = "Bearer authorization=\"https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000\", \
                         resource=\"https://vault.azure.net\"";

/// The token that opens the vault.
pub struct VaultToken(Zeroizing<String>);

impl VaultToken {
    /// A token with this text.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Whether the request presents this token; compared in constant time for tokens of equal length.
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let presented = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let token = match presented.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => return false,
        };
        // An empty token would admit whoever sends none.
        !self.0.is_empty() && bool::from(token.ct_eq(self.0.as_bytes()))
    }
}

impl Debug for VaultToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultToken([redacted])")
    }
}

/// Refuses requests without the token before anything else of them is looked at.
pub(super) async fn require_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if shared.face.token.admits(request.headers()) {
        return next.run(request).await;
    }
    // The first request of an SDK comes without a token, to be told where to get one: only a wrong one is worth a report.
    if request.headers().contains_key(header::AUTHORIZATION)
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
