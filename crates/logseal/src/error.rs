//! What can go wrong with a command, in words that say what to do.

use std::error::Error;
use std::path::PathBuf;

use http::StatusCode;
pub(crate) use logseal_core::Chain;
use thiserror::Error;

/// A failed command.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Usage(String),
    #[error("data directory `{}` is in use by {holder}; stop it, or give another one with --data-dir", dir.display())]
    Locked { dir: PathBuf, holder: String },
    #[error("`{}` is not there or not readable; start `logseal serve` with this data directory first", file.display())]
    NoCredentials {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` cannot be understood", file.display())]
    Credentials {
        file: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the root key in {place} is not 64 hexadecimal digits (256 bits)")]
    RootKey { place: String },
    #[error("{0}")]
    Refused(String),
    #[error("cannot reach the server at {endpoint}; {advice}")]
    Unreachable {
        endpoint: String,
        /// What to look at.
        advice: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{message} ({code})")]
    Answer { status: StatusCode, code: String, message: String },
    #[error("{code}: {message}; `logseal operation show {id}` shows the operation")]
    Operation { id: String, code: String, message: String },
    #[error(
        "{why}; operation `{id}` goes on: `logseal operation wait {id}` follows it, `logseal operation cancel {id}` cancels it"
    )]
    GoesOn { id: String, why: String },
    #[error("cannot start: {what}")]
    Start {
        what: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("cannot {what}")]
    Catalog {
        what: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("cannot show the result")]
    Show(#[source] Box<dyn Error + Send + Sync>),
    #[error("the benchmark failed")]
    Bench(#[source] Box<dyn Error + Send + Sync>),
}

impl CommandError {
    /// For `map_err` on an I/O operation: "cannot `what`: cause".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` while the server starts.
    pub(crate) fn start<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Start { what, source: Box::new(source) }
    }

    /// Whether the command line or configuration is at fault: exit code 2.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Usage(_))
    }

    /// The same, with what to do about an answer of this status.
    pub(crate) fn with_hint(self, about: StatusCode, hint: &str) -> Self {
        match self {
            Self::Answer { status, code, message } if status == about => {
                Self::Answer { status, code, message: format!("{message}; {hint}") }
            }
            other => other,
        }
    }

    /// The answer's status, when the server refused.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            _ => None,
        }
    }
}
