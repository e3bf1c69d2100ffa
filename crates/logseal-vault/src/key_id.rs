//! Identifiers of keys, as Azure Key Vault writes them: `https://{vault}/keys/{name}/{version}`.

use std::fmt::{self, Display};

use thiserror::Error;

/// A key's name: `[0-9A-Za-z-]{1,127}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyName(Box<str>);

/// A key's version: 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyVersion(Box<str>);

/// One version of one key in one vault.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct KeyId {
    /// The vault's URI without a trailing slash, for example `https://127.0.0.1:8420`.
    pub vault_uri: Box<str>,
    /// The key's name.
    pub name: KeyName,
    /// The key's version.
    pub version: KeyVersion,
}

/// The text is not a part of a key identifier.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyIdError {
    /// The name does not match its grammar.
    #[error("a key name is 1 to 127 letters, digits or hyphens")]
    Name,
    /// The version does not match its grammar.
    #[error("a key version is 32 lower-case hexadecimal digits")]
    Version,
}

impl KeyName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`KeyIdError::Name`] when the text does not match the grammar.
    pub fn parse(text: &str) -> Result<Self, KeyIdError> {
        let valid = (1..=127).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(KeyIdError::Name) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyVersion {
    /// Parses a version.
    ///
    /// # Errors
    ///
    /// [`KeyIdError::Version`] when the text does not match the grammar.
    pub fn parse(text: &str) -> Result<Self, KeyIdError> {
        let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if valid { Ok(Self(text.into())) } else { Err(KeyIdError::Version) }
    }

    /// The version made of these random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&bytes).into())
    }

    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keys/{}/{}", self.vault_uri, self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammars_are_enforced() {
        assert!(KeyName::parse("log-kek-1").is_ok());
        for bad in ["", "a/b", "a b", "..", "a_b", "\u{e9}", &"a".repeat(128)] {
            assert_eq!(KeyName::parse(bad), Err(KeyIdError::Name), "{bad:?}");
        }
        assert!(KeyVersion::parse("78deebed173b48e48f55abf87ed4cf71").is_ok());
        for bad in ["", "78deebed", "78DEEBED173B48E48F55ABF87ED4CF71", "78deebed173b48e48f55abf87ed4cf7g"] {
            assert_eq!(KeyVersion::parse(bad), Err(KeyIdError::Version), "{bad:?}");
        }
    }

    #[test]
    fn a_key_id_reads_as_key_vault_writes_it() {
        let id = KeyId {
            vault_uri: "https://127.0.0.1:8420".into(),
            name: KeyName::parse("kek").unwrap(),
            version: KeyVersion::from_bytes([0xAB; 16]),
        };
        assert_eq!(id.to_string(), format!("https://127.0.0.1:8420/keys/kek/{}", "ab".repeat(16)));
    }
}
