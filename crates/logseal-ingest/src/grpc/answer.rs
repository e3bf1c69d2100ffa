//! Answers on the wire: acknowledgements, and refusals as gRPC statuses.
//!
//! | refusal | status | `RetryInfo` |
//! | --- | --- | --- |
//! | credentials | `UNAUTHENTICATED` | no |
//! | framing, compression, content | `INVALID_ARGUMENT` | no |
//! | over a limit | `RESOURCE_EXHAUSTED` | no: OTLP has clients drop the batch |
//! | the daily cap, reset in less than 5 minutes | `UNAVAILABLE` | yes |
//! | the daily cap, reset later | `RESOURCE_EXHAUSTED` | no: nobody keeps a batch for hours |
//! | encoding or method | `UNIMPLEMENTED` | no |
//! | our own trouble | `UNAVAILABLE` | yes |
//! | the client's deadline | `DEADLINE_EXCEEDED` | no: retryable as it is |
//!
//! Never `INTERNAL`, `PERMISSION_DENIED`, `FAILED_PRECONDITION` or `OUT_OF_RANGE`: clients drop data on the first three
//! and send a hopeless request for ever on the last. `RetryInfo` goes into `grpc-status-details-bin`, where gRPC has it,
//! and into the trailer `google.rpc.retryinfo-bin`, where OpenTelemetry's Python exporter looks for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::decompress::Encoding;
use crate::door::{Accepted, Refusal};
use crate::status::{self, RpcStatus};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<prost_types::Duration>,
}

const RETRY_INFO_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The status for `refusal`; `retry_delay` is used only where the table above has `RetryInfo`.
pub(super) fn refused(refusal: &Refusal, retry_delay: Duration) -> Response<Body> {
    let (code, message) = (status::code(refusal), status::text(refusal));
    let mut metadata = MetadataMap::new();
    let mut details = Bytes::new();
    if code == Code::Unavailable {
        let retry = RetryInfo { retry_delay: prost_types::Duration::try_from(retry_delay).ok() }.encode_to_vec();
        metadata.insert_bin("google.rpc.retryinfo-bin", MetadataValue::from_bytes(&retry));
        let any = prost_types::Any { type_url: RETRY_INFO_TYPE.to_owned(), value: retry };
        details = RpcStatus { code: code as i32, message: message.clone(), details: vec![any] }.encode_to_vec().into();
    }
    if code == Code::Unimplemented {
        // Any other place of this status ignores the header; for an unknown encoding gRPC asks for it.
        metadata.insert("grpc-accept-encoding", MetadataValue::from_static(Encoding::NAMES));
    }
    Status::with_details_and_metadata(code, message, details, metadata).into_http()
}

/// The answer to a request that was taken in, wholly or in part.
pub(super) fn acknowledged(accepted: &Accepted) -> Response<Body> {
    // An empty `ExportLogsServiceResponse`: not compressed, no bytes.
    const WHOLE: &[u8] = &[0; 5];
    let data = match status::partial_success(accepted) {
        None => Bytes::from_static(WHOLE),
        partial_success => framed(&ExportLogsServiceResponse { partial_success }),
    };
    let mut response = Response::new(Body::new(Reply { data: Some(data), trailers: true }));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut data = BytesMut::with_capacity(5 + length);
    data.put_u8(0);
    // A few KiB: the only text in it was shortened.
    data.put_u32(length as u32);
    data.put_slice(&message.encode_to_vec());
    data.freeze()
}

/// One DATA frame, then trailers with status 0.
#[derive(Debug)]
struct Reply {
    data: Option<Bytes>,
    trailers: bool,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !std::mem::take(&mut self.trailers) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        !self.trailers
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every refusal. Guarantee: no status on which clients lose data for our trouble, and `RetryInfo` in both
    /// places exactly where the client is to come back.
    #[test]
    fn refusals_have_their_status() {
        let delay = Duration::from_millis(1_500);
        let cases = [
            (Refusal::Unauthenticated { problem: "unknown" }, 16, false),
            (Refusal::LocalAuthDisabled, 16, false),
            (Refusal::Undecodable("broken".into()), 3, false),
            (Refusal::too_large("it", 5), 8, false),
            (Refusal::CapReached { reason: "all".to_owned(), retry_after: None }, 8, false),
            (Refusal::CapReached { reason: "all".to_owned(), retry_after: Some(delay) }, 14, true),
            (Refusal::Unsupported("what".to_owned()), 12, false),
            (Refusal::unavailable("later \u{20ac}\n"), 14, true),
            (Refusal::DeadlinePassed, 4, false),
            (Refusal::Disconnected, 1, false),
        ];
        for (refusal, code, retry) in cases {
            let response = refused(&refusal, delay);
            let headers = response.headers();
            assert_eq!((response.status().as_u16(), &headers["content-type"]), (200, &CONTENT_TYPE));
            assert_eq!(headers["grpc-status"], code.to_string().as_str(), "{refusal:?}");
            let status = Status::from_header_map(headers).expect("a status");
            assert_eq!(status.message(), refusal.to_string());
            assert_eq!(headers.contains_key("google.rpc.retryinfo-bin"), retry, "{refusal:?}");
            assert_eq!(!status.details().is_empty(), retry, "{refusal:?}");
            if retry {
                let details = RpcStatus::decode(status.details()).expect("a google.rpc.Status");
                assert_eq!((details.code, details.details[0].type_url.as_str()), (14, RETRY_INFO_TYPE));
                let info = RetryInfo::decode(&details.details[0].value[..]).expect("a RetryInfo");
                let expected = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
                assert_eq!(info.retry_delay, Some(expected));
            }
        }
    }

    #[test]
    fn long_texts_fit_into_headers() {
        let response = refused(&Refusal::unavailable("\u{20ac}".repeat(100_000)), Duration::from_secs(1));
        let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 8_192, "{size}");
    }
}
