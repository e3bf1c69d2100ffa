//! An error with its causes, as one line of text.

use std::error::Error;
use std::fmt::{self, Display};

/// Shows an error with all its causes on one line, the outermost first: `cannot do this: because of that: and that`.
///
/// An error's own `Display` leaves its source out, so that nothing is said twice; this is for the one place where the error is
/// handled, a log line or a command's last words.
///
/// ```
/// use logseal_core::{Chain, TableName};
///
/// if let Err(error) = TableName::parse("not a name") {
///     assert_eq!(Chain(&error).to_string(), error.to_string());
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'e>(pub &'e dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot {what}")]
    struct Failed {
        what: &'static str,
        #[source]
        source: Option<Box<Failed>>,
    }

    #[test]
    fn all_causes_are_on_one_line_and_the_outermost_comes_first() {
        let failed = |what, source: Option<Failed>| Failed { what, source: source.map(Box::new) };
        let root = failed("sync", None);
        assert_eq!(Chain(&root).to_string(), "cannot sync");
        let outermost = failed("go on", Some(failed("write", Some(root))));
        assert_eq!(Chain(&outermost).to_string(), "cannot go on: cannot write: cannot sync");
    }
}
