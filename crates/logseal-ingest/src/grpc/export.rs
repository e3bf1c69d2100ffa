//! `LogsService/Export`: one call from its headers to its answer.
//!
//! tonic's own codec is not used for it: it reserves memory for whatever length a client announces before anything of
//! ours has run, and decodes into structs that the scan does without.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tonic::body::Body;

use super::framing::MessageReader;
use super::{answer, deadline};
use crate::connection::Remote;
use crate::decompress::{Encoding, expected_bytes};
use crate::door::{Accepted, Door, Refusal};
use crate::meter::Protocol;
use crate::passage::{Arrived, Call, Form, identify, in_time, receive, take_in};

/// The path of the call.
pub(super) const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Answers one call.
pub(super) async fn export(door: &Door, remote: &Remote, request: Request<Body>) -> Response<Body> {
    let call = Call::begin(door, Protocol::Grpc);
    if let Some(status) = not_grpc(request.method(), request.headers()) {
        call.unsupported();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return response;
    }
    let (parts, body) = request.into_parts();
    let timeout = deadline::timeout(&parts.headers);
    let end = timeout.map(deadline::patience).and_then(|patience| call.start().checked_add(patience));
    let work = read(door, remote, &parts.headers, body, call.start(), timeout);
    match call.settle(end, work).await {
        Ok(accepted) => answer::acknowledged(&accepted),
        Err((refusal, retry_delay)) => answer::refused(&refusal, retry_delay),
    }
}

/// Everything between the headers and the answer, cheapest refusal first.
async fn read(
    door: &Door,
    remote: &Remote,
    headers: &HeaderMap,
    body: Body,
    start: Instant,
    timeout: Option<Duration>,
) -> Result<Accepted, Refusal> {
    let workspace = identify(door, remote, headers)?;
    let encoding = encoding(headers)?;
    let (admission, limits) = (&door.admission, door.admission.limits());
    let hold = admission.hold(workspace, start, timeout);
    admission.pace(workspace, &hold).await?;

    let mut reader = MessageReader::new(body);
    // Until here the call holds nothing but its stream, so waiting for the head costs only that.
    let head = in_time(limits.body_read, reader.head()).await?;
    let encoding = match (head.compressed, encoding) {
        (true, Encoding::Identity) => {
            return Err(Refusal::Undecodable("the message is compressed but `grpc-encoding` does not say how".into()));
        }
        (true, encoding) => encoding,
        (false, _) => Encoding::Identity,
    };
    // usize has at least 32 bits wherever this runs.
    let length = head.length as usize;
    if length > limits.request_bytes {
        return Err(Refusal::too_large("the announced length of the request", limits.request_bytes));
    }
    let expansion = door.intake.expansion(workspace);
    let expected = expected_bytes(encoding, length, limits.request_bytes, expansion);
    let permit = admission.take(expected, &hold).await?;
    let arrived = AtomicU64::new(0);
    let wire = receive(door, workspace, &arrived, reader.message(length, &arrived)).await?;
    take_in(door, Arrived { workspace, hold, encoding, form: Form::Protobuf, expansion, wire, permit }).await
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(name) = headers.get("grpc-encoding") else { return Ok(Encoding::Identity) };
    Encoding::parse(name.as_bytes())
        .ok_or_else(|| Refusal::Unsupported(format!("unknown `grpc-encoding`; accepted are `{}`", Encoding::NAMES)))
}

/// The HTTP status for a request that is no gRPC call, as gRPC over HTTP/2 has it.
fn not_grpc(method: &Method, headers: &HeaderMap) -> Option<StatusCode> {
    match (method == Method::POST, is_grpc(headers)) {
        (true, true) => None,
        (true, false) => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (false, _) => Some(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// True for protobuf over gRPC, the only content that this service decodes; gRPC-Web is another protocol.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/grpc") || kind.eq_ignore_ascii_case(b"application/grpc+proto")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn content_type(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_bytes(value).expect("a header value"))])
    }

    #[test]
    fn only_grpc_with_protobuf_is_taken() {
        let cases: [(&[u8], bool); 8] = [
            (b"application/grpc", true),
            (b"application/grpc+proto", true),
            (b"Application/gRPC; charset=utf-8", true),
            (b"application/grpc+json", false),
            (b"application/grpc-web", false),
            (b"application/grpc-web+proto", false),
            (b"application/x-protobuf", false),
            (b"", false),
        ];
        for (value, expected) in cases {
            assert_eq!(is_grpc(&content_type(value)), expected, "{}", value.escape_ascii());
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
