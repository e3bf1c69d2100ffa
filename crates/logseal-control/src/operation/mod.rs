//! Asynchronous changes of resources.
//!
//! An operation is a durable record with an *intent*: what is to be done, and what was decided on the way. Its kind declares *steps*.
//! A step first does what has to be done outside of the catalog, which may be repeated, and then gives the changes of the catalog that
//! belong to it; these are committed in one transaction with the operation's progress. So a step's effect on the catalog happens once,
//! and after a crash the operation goes on with the step that was not committed. What must not stay half done is undone, step by step,
//! in reverse. The catalog admits one running operation for each resource.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `document` | what is kept of an operation: intent, progress, outcome |
//! | `kinds` | the steps of each kind, by resource |
//! | [`runner`] | the tasks that run operations |
//! | [`world`] | what steps work with |

pub(crate) mod document;
pub(crate) mod kinds;
pub mod runner;
pub mod world;

use http::StatusCode;
use logseal_catalog::{CatalogError, Change};
use logseal_core::Chain;
use logseal_keys::fault::Entry;
use logseal_keys::{KeyError, KeyFault};

pub(crate) use self::document::{Failure, Intent, Operation};
use crate::Problem;
use crate::port::DataPlaneError;

/// What a step did: the catalog's part of it.
pub(crate) type Effects = Vec<Change>;

/// Why a step did not do its work.
#[derive(Debug)]
pub(crate) enum StepError {
    /// It never will: the operation is undone and fails.
    Failed(Failure),
    /// It may when it is tried again.
    Passing(String),
    /// What an earlier step found is no longer so: the operation goes on from that step.
    Back(&'static str),
}

impl StepError {
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Failure { code: code.to_owned(), message: message.into() })
    }
}

impl From<Problem> for StepError {
    fn from(problem: Problem) -> Self {
        if problem.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Self::Passing(problem.message().to_owned());
        }
        Self::failed(problem.code(), problem.message())
    }
}

impl From<CatalogError> for StepError {
    fn from(error: CatalogError) -> Self {
        let message = Chain(&error).to_string();
        if error.is_decision() { Self::failed("CatalogRefused", message) } else { Self::Passing(message) }
    }
}

impl From<DataPlaneError> for StepError {
    fn from(error: DataPlaneError) -> Self {
        if error.is_passing { Self::Passing(error.message) } else { Self::failed("ServerFailed", error.message) }
    }
}

impl From<KeyError> for StepError {
    fn from(error: KeyError) -> Self {
        let message = Chain(&error).to_string();
        match error {
            KeyError::Catalog(error) => error.into(),
            KeyError::Suspended(why) => Self::failed(why.cause.fault.code(), message),
            error if !error.is_lasting() => Self::Passing(message),
            KeyError::Vault { source, .. } => {
                let Entry { code, action, .. } = KeyFault::from(&source).entry();
                Self::failed(code, format!("{message}: {action}"))
            }
            _ => Self::failed("KeyDamaged", message),
        }
    }
}

#[cfg(test)]
mod tests;
