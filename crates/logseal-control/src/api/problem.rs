//! The shape of errors: `{"error":{"code","message","target","details"}}`, as Azure Resource Manager writes them.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use logseal_catalog::CatalogError;
use logseal_core::Chain;
use logseal_keys::Suspension;
use serde::Serialize;
use tracing::error;

use crate::gate::RoleNeeded;

/// An error answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    target: Option<String>,
    /// Whole seconds.
    retry_after: Option<u64>,
}

impl Problem {
    /// The code of a refusal for want of a role or a grant.
    pub(crate) const AUTHORIZATION_FAILED: &str = "AuthorizationFailed";

    /// An answer with `status`, a code for programs and a message for people that says what to do.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), target: None, retry_after: None }
    }

    /// Our own trouble. The cause was logged; the caller learns that trying again makes sense.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// Nothing has this name or id.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFound", message)
    }

    /// The property `target` of the body has a value that it cannot have.
    #[must_use]
    pub fn invalid(target: &str, message: impl Into<String>) -> Self {
        Self::bad("InvalidRequestContent", target, message)
    }

    /// As [`Problem::invalid`], with a code of its own.
    #[must_use]
    pub fn bad(code: &'static str, target: &str, message: impl Into<String>) -> Self {
        Self { target: Some(target.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// The resource is in a state in which this cannot be done.
    #[must_use]
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// The key of a cluster cannot be used: for good until somebody mends it (403), or until the vault is reached again (503).
    #[must_use]
    pub fn suspended(why: &Suspension) -> Self {
        let status = if why.cause.definitive { StatusCode::FORBIDDEN } else { StatusCode::SERVICE_UNAVAILABLE };
        Self::new(status, why.cause.fault.code(), why.to_string())
    }

    /// Says when to try again: in seconds, rounded up.
    #[must_use]
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)), ..self }
    }

    /// The code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<CatalogError> for Problem {
    fn from(cause: CatalogError) -> Self {
        match cause {
            CatalogError::Stale { .. } | CatalogError::Conflict { .. } => Self::conflict(
                "Conflict",
                "the resource was changed by another request meanwhile: read it and try again",
            ),
            CatalogError::Busy { operation, .. } => Self::conflict(
                "OperationInProgress",
                format!("operation `{operation}` changes this resource: wait for it to end and try again"),
            ),
            cause => {
                error!(error = %Chain(&cause), "the catalog cannot be used");
                Self::unavailable("the catalog cannot be read or written now: the server's log has the reason")
            }
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    details: [(); 0],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = Detail { code: self.code, message: &self.message, target: self.target.as_deref(), details: [] };
        let mut response = (self.status, Json(Body { error })).into_response();
        // Azure's clients repeat any refusal that has this header, and only these may end differently by themselves.
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.code == "OperationInProgress" {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Self::AUTHORIZATION_FAILED {
            response.extensions_mut().insert(RoleNeeded);
        }
        response
    }
}

/// Gives the errors that axum makes by itself, which are plain text, the shape of all others.
pub(crate) async fn as_json(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (code, message) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("RequestTooLarge", "the body is larger than 1 MiB"),
        _ => ("InvalidRequest", "the path, its parameters or the body cannot be understood"),
    };
    Problem::new(status, code, message).into_response()
}
