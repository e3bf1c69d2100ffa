//! The shape of errors: `{"error":{"code","message","innererror":{"code"}}}`, as Key Vault writes them.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use logseal_core::Chain;
use serde_json::json;
use tracing::error;

use crate::VaultError;

/// An error answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    inner: Option<&'static str>,
    message: String,
    retry_after: Option<Duration>,
}

/// The codes of a refusal, beside its answer, for who reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal(pub(super) &'static str);

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, inner: None, message: message.into(), retry_after: None }
    }

    /// What was sent cannot be understood, or not be done.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    pub(super) fn forbidden(inner: &'static str, message: impl Into<String>) -> Self {
        Self { inner: Some(inner), ..Self::new(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    fn conflict(inner: &'static str, message: impl Into<String>) -> Self {
        Self { inner: Some(inner), ..Self::new(StatusCode::CONFLICT, "Conflict", message) }
    }

    /// Part of Key Vault's API, but not of this vault.
    pub(super) fn not_offered(what: &str) -> Self {
        let message = format!("{what} is not offered by this vault");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(super) fn throttled(retry_after: Duration) -> Self {
        let message = "there were too many requests for keys of this size: try again after the time in `Retry-After`";
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "Throttled", message) }
    }
}

impl From<VaultError> for Problem {
    fn from(cause: VaultError) -> Self {
        let message = cause.to_string();
        match cause {
            VaultError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "KeyNotFound", message),
            VaultError::KeyDisabled(_) => Self::forbidden("KeyDisabled", message),
            VaultError::AccessDenied { .. } | VaultError::NoIdentity => Self::forbidden("AccessDenied", message),
            VaultError::OperationNotAllowed { .. } => Self::forbidden("KeyOperationForbidden", message),
            VaultError::OutsideValidity { why: "expired", .. } => Self::forbidden("KeyExpired", message),
            VaultError::OutsideValidity { .. } => Self::forbidden("KeyNotYetValid", message),
            VaultError::PurgeProtected(_) => Self::forbidden("PurgeProtected", message),
            VaultError::Exists(_) => Self::conflict("KeyAlreadyExists", message),
            VaultError::Deleted(_) => Self::conflict("ObjectIsDeletedButRecoverable", message),
            VaultError::Invalid(_) | VaultError::BadWrap(_) => Self::bad(message),
            VaultError::Stopped => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message),
            cause => {
                error!(error = %Chain(&cause), "the embedded vault cannot do what it was asked");
                let message = "the vault cannot do this now: the server's log has the reason";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, inner, message, retry_after } = self;
        let mut error = json!({"code": code, "message": message});
        if let Some(inner) = inner {
            error["innererror"] = json!({"code": inner});
        }
        let mut response = (status, Json(json!({"error": error}))).into_response();
        if let Some(wait) = retry_after {
            // Whole seconds, rounded up: at zero a client would be back too early.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response.extensions_mut().insert(Refusal(inner.unwrap_or(code)));
        response
    }
}

/// Gives the errors that axum makes by itself, which are plain text, the shape of all others.
pub(super) async fn as_json(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    Problem::new(status, "BadParameter", "the request cannot be understood").into_response()
}
