//! Names of tables.

use std::fmt::{self, Display};

use thiserror::Error;

use crate::limit::TABLE_NAME_BYTES;

/// A table's name: `[A-Za-z][A-Za-z0-9_]{0,62}`. Compared as it is written.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableName(Box<str>);

/// The text is not a table name.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a table name is a letter followed by at most 62 letters, digits or underscores")]
pub struct TableNameError;

impl TableName {
    /// The table that takes every record which does not ask for another one: `logs`.
    #[must_use]
    pub fn logs() -> Self {
        Self("logs".into())
    }

    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// When the text does not match the grammar above.
    pub fn parse(text: &str) -> Result<Self, TableNameError> {
        let bytes = text.as_bytes();
        let valid = bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.len() <= TABLE_NAME_BYTES
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if valid { Ok(Self(text.into())) } else { Err(TableNameError) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_enforced() {
        let longest = format!("a{}", "b".repeat(62));
        for good in ["logs", "A", "a_1", longest.as_str()] {
            assert_eq!(TableName::parse(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        let too_long = format!("{longest}b");
        for bad in ["", "1a", "_a", "a-b", "a.b", "a b", "\u{e9}", "a\0", "../a", too_long.as_str()] {
            assert!(TableName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
