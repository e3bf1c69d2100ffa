//! Answers on the wire, in the form of the request.
//!
//! | refusal | status | `retry-after` |
//! | --- | --- | --- |
//! | credentials | 401 | no |
//! | compression, content, a body that broke off | 400 | no |
//! | over a limit | 413 | no |
//! | the daily cap, reset in less than 5 minutes | 429 | yes |
//! | the daily cap, reset later | 403 | no: nobody keeps a batch for hours |
//! | content type or encoding | 415 | no |
//! | another path, another method | 404, 405 | no |
//! | our own trouble | 503 | yes |
//!
//! OTLP's clients send again after 429, 502, 503 and 504, and drop the batch after any other 4xx and 5xx: our own trouble never tells
//! them that. Each refusal's body is a `google.rpc.Status` with the code that gRPC has for it, in the form of the request: JSON for
//! JSON, else protobuf, which is what the specification wants when it says nothing else, and so for a content type that is neither.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::Code;

use super::PATH;
use crate::door::{Accepted, Refusal};
use crate::passage::Form;
use crate::status::{self, RpcStatus};

/// A request for something that is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Elsewhere {
    Path,
    Method,
}

/// The answer to a request that was taken in, wholly or in part.
pub(super) fn acknowledged(accepted: &Accepted, form: Form) -> Response<Full<Bytes>> {
    let partial_success = status::partial_success(accepted);
    let body = match (form, partial_success) {
        (Form::Protobuf, partial_success) => ExportLogsServiceResponse { partial_success }.encode_to_vec(),
        (Form::Json, None) => b"{}".to_vec(),
        (Form::Json, Some(partial)) => {
            // Defaults are left out, and 64 bits are a string.
            let mut object = Map::new();
            if partial.rejected_log_records != 0 {
                object.insert("rejectedLogRecords".to_owned(), partial.rejected_log_records.to_string().into());
            }
            if !partial.error_message.is_empty() {
                object.insert("errorMessage".to_owned(), partial.error_message.into());
            }
            json!({ "partialSuccess": Value::Object(object) }).to_string().into_bytes()
        }
    };
    respond(StatusCode::OK, body, form)
}

/// The answer for `refusal`; `retry_delay` is used only where the table above has it.
pub(super) fn refused(refusal: &Refusal, retry_delay: Duration, form: Option<Form>) -> Response<Full<Bytes>> {
    let status = match refusal {
        Refusal::Unauthenticated { .. } | Refusal::LocalAuthDisabled => StatusCode::UNAUTHORIZED,
        Refusal::Undecodable(_) | Refusal::Disconnected => StatusCode::BAD_REQUEST,
        Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::CapReached { retry_after: None, .. } => StatusCode::FORBIDDEN,
        Refusal::CapReached { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // HTTP's clients do not tell their deadline; if one did, it would be ours to say so.
        Refusal::Unavailable { .. } | Refusal::DeadlinePassed => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = failed(status, status::code(refusal), status::text(refusal), form);
    match status {
        StatusCode::UNAUTHORIZED => add(&mut response, header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            // Whole seconds, never before the time itself and never none.
            let seconds = retry_delay.as_secs() + u64::from(retry_delay.subsec_nanos() > 0);
            add(&mut response, header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        _ => {}
    }
    response
}

/// The answer to a request for something else.
pub(super) fn elsewhere(elsewhere: Elsewhere, form: Option<Form>) -> Response<Full<Bytes>> {
    match elsewhere {
        Elsewhere::Path => {
            failed(StatusCode::NOT_FOUND, Code::Unimplemented, format!("only `{PATH}` is served here"), form)
        }
        Elsewhere::Method => {
            let text = format!("`{PATH}` takes POST only");
            let mut response = failed(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text, form);
            add(&mut response, header::ALLOW, HeaderValue::from_static("POST"));
            response
        }
    }
}

fn failed(status: StatusCode, code: Code, message: String, form: Option<Form>) -> Response<Full<Bytes>> {
    let form = form.unwrap_or(Form::Protobuf);
    let code = code as i32;
    let body = match form {
        Form::Protobuf => RpcStatus { code, message, details: Vec::new() }.encode_to_vec(),
        Form::Json => json!({ "code": code, "message": message }).to_string().into_bytes(),
    };
    respond(status, body, form)
}

fn respond(status: StatusCode, body: Vec<u8>, form: Form) -> Response<Full<Bytes>> {
    let content_type = match form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    add(&mut response, header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn add(response: &mut Response<Full<Bytes>>, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every refusal. Guarantee: a status on which clients do what the refusal means, and a time to come back exactly where
    /// they are to.
    #[test]
    fn refusals_have_their_status() {
        let delay = Duration::from_millis(1_500);
        let cases = [
            (Refusal::Unauthenticated { problem: "unknown" }, 401, false),
            (Refusal::LocalAuthDisabled, 401, false),
            (Refusal::Undecodable("broken".into()), 400, false),
            (Refusal::too_large("it", 5), 413, false),
            (Refusal::CapReached { reason: "all".to_owned(), retry_after: None }, 403, false),
            (Refusal::CapReached { reason: "all".to_owned(), retry_after: Some(delay) }, 429, true),
            (Refusal::Unsupported("what".to_owned()), 415, false),
            (Refusal::unavailable("later \u{20ac}\n"), 503, true),
            (Refusal::DeadlinePassed, 503, true),
            (Refusal::Disconnected, 400, false),
        ];
        for (refusal, status, retry) in cases {
            let response = refused(&refusal, delay, Some(Form::Json));
            assert_eq!(response.status(), status, "{refusal:?}");
            let retry_after = response.headers().get(header::RETRY_AFTER);
            assert_eq!(retry_after.map(|value| value.to_str().expect("digits")), retry.then_some("2"), "{refusal:?}");
            let challenged = response.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401, "{refusal:?}");
            let retryable = [429, 502, 503, 504].contains(&status);
            assert_eq!(retryable, retry, "{refusal:?}");
        }
        for (millis, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (5_000, "5")] {
            let response = refused(&Refusal::unavailable("later"), Duration::from_millis(millis), None);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
