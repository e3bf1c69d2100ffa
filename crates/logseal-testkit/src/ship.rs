//! Raw OTLP requests over gRPC: bytes as they are, well-formed or not.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::Server;

/// Hands bytes through.
#[derive(Debug, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}

/// Sends `body` as an export request with the workspace's key.
///
/// # Errors
///
/// The server's refusal, or that it cannot be reached.
///
/// # Panics
///
/// When the answer is not an export response.
pub async fn export_bytes(server: &Server, body: Bytes) -> Result<ExportLogsServiceResponse, Status> {
    export_bytes_with_key(server, server.workspace_key(), body).await
}

/// As [`export_bytes`], with the key of another workspace.
///
/// # Errors
///
/// As [`export_bytes`].
///
/// # Panics
///
/// As [`export_bytes`].
pub async fn export_bytes_with_key(
    server: &Server,
    key: &str,
    body: Bytes,
) -> Result<ExportLogsServiceResponse, Status> {
    let endpoint = Channel::from_shared(server.otlp_grpc().to_owned()).expect("a URL");
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = Request::new(body);
    let key = format!("Bearer {key}").parse().expect("a header value");
    request.metadata_mut().insert("authorization", key);
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    let answer = grpc.unary(request, path, RawCodec).await?.into_inner();
    Ok(ExportLogsServiceResponse::decode(answer).expect("an export response"))
}

/// Sends `request` with the workspace's key.
///
/// # Errors
///
/// The server's refusal.
pub async fn export(server: &Server, request: &ExportLogsServiceRequest) -> Result<ExportLogsServiceResponse, Status> {
    export_bytes(server, request.encode_to_vec().into()).await
}

/// A text value.
#[must_use]
pub fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

/// An attribute.
#[must_use]
pub fn attribute(key: impl Into<String>, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}
