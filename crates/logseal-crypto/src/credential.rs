//! Tokens that administrators present (RFC 6750).

use std::fmt::{self, Debug};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The token in the value of an `authorization` header; `None` when it is of another scheme. The scheme compares without case (RFC 9110,
/// section 11.1).
#[must_use]
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// One token that opens something.
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// A token with this text. An empty one admits nobody.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Whether `authorization`, the value of that header, presents this token; compared in constant time for tokens of equal length.
    #[must_use]
    pub fn admits(&self, authorization: &[u8]) -> bool {
        bearer(authorization).is_some_and(|presented| self.is(presented))
    }

    /// Whether `presented` is this token, likewise.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        // An empty token would admit whoever sends none.
        !self.0.is_empty() && bool::from(presented.ct_eq(self.0.as_bytes()))
    }
}

impl Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_token_is_admitted() {
        let token = BearerToken::new(Zeroizing::new("secret-token".to_owned()));
        assert!(token.admits(b"Bearer secret-token"));
        assert!(token.admits(b"bearer secret-token"), "the scheme compares without case");
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "secret-token",
            "Basic secret-token",
            "Bearer secret-tokeN",
            "Bearer secret-token2",
        ] {
            assert!(!token.admits(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains("secret"));
        let empty = BearerToken::new(Zeroizing::default());
        assert!(!empty.admits(b"Bearer ") && !empty.admits(b""));
    }
}
