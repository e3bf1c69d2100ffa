//! An OTLP/gRPC client that hands encoded requests to HTTP/2 without copying them: the load shares the server's cores.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderValue;
use http_body_util::{BodyExt as _, Full};
use logseal_bench::{Payload, request};
use logseal_core::{Clock as _, SystemClock, UnixNanos};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Bytes before a message: compressed or not, and its length.
const PREFIX_BYTES: usize = 5;

/// Longest wait for an answer. The server holds calls for 5 s.
const ANSWER: Duration = Duration::from_secs(60);

/// An encoded request.
#[derive(Clone)]
pub(crate) struct Message {
    /// With its gRPC prefix.
    framed: Bytes,
    pub(crate) records: u64,
}

/// `count` different requests of `records` records each.
pub(crate) fn messages(payload: Payload, records: usize, count: u64) -> Vec<Message> {
    let base = UnixNanos(SystemClock.now().0 - 60_000_000_000);
    let encode = |index| {
        let body = request(payload, 1, index, records, base);
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + body.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(body.len()).expect("a request has some megabytes"));
        framed.put_slice(&body);
        Message { framed: framed.freeze(), records: records as u64 }
    };
    (0..count).map(encode).collect()
}

/// Why there is no acknowledgement.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The server said so.
    Refused(Status),
    /// The connection broke, or no answer came.
    Lost(String),
}

/// Connections that take turns.
pub(crate) struct Client {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str, connections: usize) -> Self {
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            let endpoint = Channel::from_shared(endpoint.to_owned()).expect("the server's own URL").tcp_nodelay(true);
            channels.push(endpoint.connect().await.expect("a server that is ready"));
        }
        Self { channels, next: AtomicUsize::new(0) }
    }

    /// Sends `message` with `authorization`; returns how many of its records were rejected.
    pub(crate) async fn export(&self, authorization: &HeaderValue, message: &Message) -> Result<u64, Unanswered> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let call = call(self.channels[turn].clone(), authorization.clone(), message.framed.clone());
        let Ok(answer) = tokio::time::timeout(ANSWER, call).await else {
            return Err(Unanswered::Lost(format!("no answer within {ANSWER:?}")));
        };
        answer
    }
}

async fn call(mut channel: Channel, authorization: HeaderValue, framed: Bytes) -> Result<u64, Unanswered> {
    let lost = |error: tonic::transport::Error| Unanswered::Lost(format!("{error:?}"));
    poll_fn(|context| channel.poll_ready(context)).await.map_err(lost)?;
    let request = http::Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", authorization)
        .body(Body::new(Full::new(framed)))
        .expect("a request");
    let answer = channel.call(request).await.map_err(lost)?;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return outcome(status, &[]);
    }
    let body = answer.into_body().collect().await.map_err(|error| Unanswered::Lost(format!("{error:?}")))?;
    let status = body.trailers().and_then(Status::from_header_map);
    let status = status.ok_or_else(|| Unanswered::Lost("an answer without a status".to_owned()))?;
    outcome(status, &body.to_bytes())
}

fn outcome(status: Status, message: &[u8]) -> Result<u64, Unanswered> {
    if status.code() != Code::Ok {
        return Err(Unanswered::Refused(status));
    }
    let response = ExportLogsServiceResponse::decode(message.get(PREFIX_BYTES..).unwrap_or_default());
    let partial = response.expect("an export response").partial_success.unwrap_or_default();
    Ok(partial.rejected_log_records.unsigned_abs())
}
