//! As whom a vault is asked.

use std::fmt::{self, Display};

use thiserror::Error;

/// The id of an identity, as grants in a vault name it: 1 to 64 letters, digits or hyphens, usually a UUID. Compared without case.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PrincipalId(Box<str>);

/// The text is no principal id.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a principal id is 1 to 64 letters, digits or hyphens")]
pub struct PrincipalIdError;

impl PrincipalId {
    /// Parses an id; it is kept in lower case.
    ///
    /// # Errors
    ///
    /// [`PrincipalIdError`] when the text does not match the grammar.
    pub fn parse(text: &str) -> Result<Self, PrincipalIdError> {
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if valid { Ok(Self(text.to_ascii_lowercase().into())) } else { Err(PrincipalIdError) }
    }

    /// The deployment's own identity, as which a cluster can ask for its key.
    #[must_use]
    pub fn first_party() -> Self {
        Self("first-party".into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who asks the embedded vault.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Caller {
    /// The deployment itself, which owns the vault and needs no grant: for the service-managed key, never for a cluster's own.
    Deployment,
    /// An identity; grants say what it may do.
    Principal(PrincipalId),
    /// Nobody: a cluster without identity.
    Nobody,
}

impl Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment => f.write_str("this deployment"),
            Self::Principal(id) => id.fmt(f),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_without_case() {
        assert_eq!(PrincipalId::parse("AB-1"), PrincipalId::parse("ab-1"));
        for bad in ["", "a/b", "a b", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(PrincipalId::parse(bad), Err(PrincipalIdError), "{bad:?}");
        }
    }
}
