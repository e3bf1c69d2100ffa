//! `LogsService/Export`: one call from its headers to its answer.
//!
//! tonic's own codec is not used for it: it reserves memory for whatever length a client announces before anything of
//! ours has run, and decodes into structs that the scan does without.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tracing::{debug, error};

use super::framing::MessageReader;
use super::{answer, deadline};
use crate::decompress::{Encoding, decompress, expected_bytes};
use crate::door::{Accepted, Door, IntakeRequest, Refusal};
use crate::meter::{Meter, Outcome};

/// The path of the call.
pub(super) const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Answers one call.
pub(super) async fn export(door: &Door, request: Request<Body>) -> Response<Body> {
    let mut call = Call::begin(&door.meter);
    if let Some(status) = not_grpc(request.method(), request.headers()) {
        call.outcome = Outcome::Unsupported;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return response;
    }
    let (parts, body) = request.into_parts();
    let timeout = deadline::timeout(&parts.headers);
    // A panic in what we call must neither cost the client its batch nor look like a broken connection.
    let work = AssertUnwindSafe(take_in(door, &parts.headers, body, call.start, timeout)).catch_unwind();
    let result = match timeout.map(deadline::patience).and_then(|patience| call.start.checked_add(patience)) {
        Some(end) => timeout_at(end, work).await.unwrap_or(Ok(Err(Refusal::DeadlinePassed))),
        None => work.await,
    };
    let result = result.unwrap_or_else(|_panic| {
        // The panic's text may quote log content: the panic hook has it, this line does not.
        error!("a panic was contained while a request was taken in");
        Err(Refusal::unavailable("the request could not be taken in now"))
    });
    match result {
        Ok(accepted) => {
            door.meter.records_accepted.increment(accepted.accepted);
            door.meter.records_rejected.increment(accepted.rejected);
            let whole = accepted.rejected == 0 && accepted.message.is_none();
            call.outcome = if whole { Outcome::Accepted } else { Outcome::Partial };
            answer::acknowledged(&accepted)
        }
        Err(refusal) => {
            debug!(%refusal, "a call was refused");
            call.outcome = Outcome::from(&refusal);
            let asked = match &refusal {
                Refusal::Unavailable { retry_after, .. } | Refusal::CapReached { retry_after, .. } => *retry_after,
                _ => None,
            };
            answer::refused(&refusal, door.retry_delay(asked))
        }
    }
}

/// Everything between the headers and the answer, cheapest refusal first.
async fn take_in(
    door: &Door,
    headers: &HeaderMap,
    body: Body,
    start: Instant,
    timeout: Option<Duration>,
) -> Result<Accepted, Refusal> {
    let workspace = door.authenticator.workspace_of(bearer(headers)?)?;
    door.within_cap(workspace)?;
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
    let permit = admission.take(expected_bytes(encoding, length, limits.request_bytes), &hold).await?;
    let wire = in_time(limits.body_read, reader.message(length)).await?;
    door.meter.wire_bytes.increment(length as u64);
    let (body, compressed, permit) = decompress(encoding, wire, permit, limits.request_bytes).await?;
    door.meter.decompressed_bytes.increment(body.len() as u64);
    admission.charge(workspace, body.len());
    let bytes = body.len();
    let accepted = hand_over(door, IntakeRequest { workspace, body, compressed, permit, hold }).await?;
    door.count(workspace, bytes);
    Ok(accepted)
}

async fn hand_over(door: &Door, request: IntakeRequest) -> Result<Accepted, Refusal> {
    // OTLP wants success for a request without records, whatever state its workspace is in.
    if request.body.is_empty() {
        return Ok(Accepted::default());
    }
    Ok(door.intake.take(request).await?)
}

async fn in_time<T>(limit: Duration, read: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout_at(Instant::now() + limit, read).await.unwrap_or_else(|_| {
        // Not the request's fault but the network's: the same request may pass next time.
        Err(Refusal::unavailable("the request body did not arrive in time (setting `ingest.body_read_ms`)"))
    })
}

/// The key in `authorization: Bearer <key>`.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    const SCHEME: &str = "bearer ";
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Refusal::Unauthenticated { problem: "no credentials" });
    };
    let key = value
        .to_str()
        .ok()
        .filter(|_| values.next().is_none())
        .and_then(|text| text.split_at_checked(SCHEME.len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
        .map(|(_, key)| key.trim_matches(' '))
        .filter(|key| !key.is_empty());
    key.ok_or(Refusal::Unauthenticated { problem: "malformed credentials" })
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

/// Counts the call once, also when its future is dropped because the client went away.
struct Call<'a> {
    meter: &'a Meter,
    start: Instant,
    outcome: Outcome,
}

impl<'a> Call<'a> {
    fn begin(meter: &'a Meter) -> Self {
        Self { meter, start: Instant::now(), outcome: Outcome::Aborted }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.meter.ended(self.outcome, self.start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        headers
    }

    #[test]
    fn keys_come_from_one_bearer_header() {
        let cases: [(&[&[u8]], Option<&str>); 10] = [
            (&[b"Bearer key"], Some("key")),
            (&[b"bearer key"], Some("key")),
            (&[b"BEARER   key "], Some("key")),
            (&[], None),
            (&[b""], None),
            (&[b"Bearer"], None),
            (&[b"Bearer "], None),
            (&[b"Basic key"], None),
            (&[b"Bearer \xff"], None),
            (&[b"Bearer key", b"Bearer other"], None),
        ];
        for (values, expected) in cases {
            assert_eq!(bearer(&headers("authorization", values)).ok(), expected, "{values:?}");
        }
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
            assert_eq!(is_grpc(&headers("content-type", &[value])), expected, "{}", value.escape_ascii());
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
