//! Refusals as gRPC statuses.
//!
//! | HTTP status of the same refusal | gRPC status |
//! | --- | --- |
//! | 400 | `INVALID_ARGUMENT` |
//! | 401 | `UNAUTHENTICATED` |
//! | 403 for want of a role | `PERMISSION_DENIED` |
//! | 404 | `NOT_FOUND` |
//! | 409, 412 | `FAILED_PRECONDITION` |
//! | 429 | `RESOURCE_EXHAUSTED` |
//! | any other | `UNAVAILABLE` |

use http::StatusCode;
use prost::Message;
use tonic::{Code, Status};

use crate::Problem;

/// Longest text of a status: it travels in headers, escaped, and once more in base64; gRPC's C core takes 8 KiB of them.
const MESSAGE_BYTES: usize = 1_024;

/// `google.rpc.Status`, the content of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo` without its metadata.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(string, tag = "2")]
    pub(super) domain: String,
}

pub(super) const ERROR_INFO_TYPE: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// A status whose `reason` is a code of the management API.
pub(super) fn status(code: Code, reason: &str, message: &str) -> Status {
    let message = &message[..message.floor_char_boundary(MESSAGE_BYTES)];
    let info = ErrorInfo { reason: reason.to_owned(), domain: "logseal".to_owned() }.encode_to_vec();
    let detail = prost_types::Any { type_url: ERROR_INFO_TYPE.to_owned(), value: info };
    let details = RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

pub(super) fn invalid(message: impl AsRef<str>) -> Status {
    status(Code::InvalidArgument, "InvalidArgument", message.as_ref())
}

pub(super) fn unknown(id: impl std::fmt::Display) -> Status {
    let message = format!("there is no operation `{id}`: it never was, or ended longer ago than operations are kept");
    status(Code::NotFound, "ResourceNotFound", &message)
}

pub(super) fn too_many(most: usize) -> Status {
    let message = format!("{most} calls wait for operations or watch them, which is the most: call again later");
    status(Code::ResourceExhausted, "TooManyWatchers", &message)
}

pub(super) fn stopping() -> Status {
    let message = "the server stops; operations go on with its next start: call again";
    status(Code::Unavailable, "ServerStopping", message)
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let code = match problem.status() {
            StatusCode::BAD_REQUEST => Code::InvalidArgument,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            // Other refusals of this status pass when a key is mended.
            StatusCode::FORBIDDEN if problem.code() == Problem::AUTHORIZATION_FAILED => Code::PermissionDenied,
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
            _ => Code::Unavailable,
        };
        status(code, problem.code(), problem.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: refusals of the management API. Guarantee: each has its gRPC code, and the code for programs is kept.
    #[test]
    fn a_refusal_keeps_its_code_in_the_details() {
        for (problem, code, reason) in [
            (Problem::not_found("x"), Code::NotFound, "ResourceNotFound"),
            (Problem::invalid("a", "x"), Code::InvalidArgument, "InvalidRequestContent"),
            (Problem::conflict("OperationNotCancelable", "x"), Code::FailedPrecondition, "OperationNotCancelable"),
            (Problem::unavailable("x"), Code::Unavailable, "ServiceUnavailable"),
            (Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", "x"), Code::Unauthenticated, "Unauthorized"),
            (
                Problem::new(StatusCode::FORBIDDEN, "AuthorizationFailed", "x"),
                Code::PermissionDenied,
                "AuthorizationFailed",
            ),
            (Problem::new(StatusCode::FORBIDDEN, "KeyDisabled", "x"), Code::Unavailable, "KeyDisabled"),
            (
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "x"),
                Code::ResourceExhausted,
                "TooManyRequests",
            ),
        ] {
            let status = Status::from(problem);
            assert_eq!((status.code(), status.message()), (code, "x"));
            let details = RpcStatus::decode(status.details()).unwrap();
            assert_eq!((details.code, details.message.as_str()), (code as i32, "x"));
            assert_eq!(details.details[0].type_url, ERROR_INFO_TYPE);
            let info = ErrorInfo::decode(&details.details[0].value[..]).unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "logseal"));
        }
    }

    #[test]
    fn long_texts_fit_into_headers() {
        let response = invalid("\u{20ac}".repeat(100_000)).into_http::<()>();
        let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 8_192, "{size}");
    }
}
