//! The management token.

use std::fmt::{self, Debug};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Management;
use crate::Problem;

/// Who acts, in the audit trail. There is one token; who holds it is the management.
pub(crate) const ACTOR: &str = "management-token";

/// The token that opens the management API.
pub struct ManagementToken(Zeroizing<String>);

impl ManagementToken {
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
        token.ct_eq(self.0.as_bytes()).into()
    }
}

impl Debug for ManagementToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManagementToken([redacted])")
    }
}

/// Refuses requests without the token before anything else of them is looked at.
pub(crate) async fn require_token(State(api): State<Arc<Management>>, request: Request, next: Next) -> Response {
    if api.token.admits(request.headers()) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "expected `authorization: Bearer <management token>`; it is in credentials.json of the data directory",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"logseal\""));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_token_is_admitted() {
        let token = ManagementToken::new(Zeroizing::new("secret-token".to_owned()));
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token.admits(&headers)
        };
        assert!(admits("Bearer secret-token"));
        assert!(admits("bearer secret-token"), "the scheme compares without case, RFC 9110 section 11.1");
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "secret-token",
            "Basic secret-token",
            "Bearer secret-tokeN",
            "Bearer secret-token2",
        ] {
            assert!(!admits(wrong), "{wrong:?}");
        }
        assert!(!token.admits(&HeaderMap::new()));
        assert!(!format!("{token:?}").contains("secret"));
    }
}
