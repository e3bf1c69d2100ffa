//! OTLP/HTTP on a real socket: a client of either version of HTTP, and raw bytes where a client is in the way.

mod answers;
mod bodies;
mod connections;

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use crate::harness::{Body, KEY, Server, soon};

pub(crate) const LOGS: &str = "/v1/logs";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A request as JSON and as protobuf.
const REQUEST_JSON: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9}]}]}]}"#;
const REQUEST: &[u8] = &[0x0A, 0x06, 0x12, 0x04, 0x12, 0x02, 0x10, 0x09];

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn bare_deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).expect("in memory")
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    One,
    Two,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

#[derive(Debug)]
pub(crate) struct HttpClient(Sender);

impl HttpClient {
    pub(crate) async fn connect(server: &Server, version: Version) -> Self {
        let stream = TcpStream::connect(server.http).await.expect("listening");
        stream.set_nodelay(true).expect("a socket");
        let io = TokioIo::new(stream);
        Self(match version {
            Version::One => {
                let (sender, connection) = soon(http1::handshake(io)).await.expect("HTTP/1.1");
                tokio::spawn(async move { drop(connection.await) });
                Sender::One(sender)
            }
            Version::Two => {
                let (sender, connection) = soon(http2::handshake(TokioExecutor::new(), io)).await.expect("HTTP/2");
                tokio::spawn(async move { drop(connection.await) });
                Sender::Two(sender)
            }
        })
    }

    /// Posts `body` as protobuf with credentials; a header of `headers` takes the place of the usual one, and an empty value removes it.
    pub(crate) async fn post(&mut self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> HttpAnswer {
        self.send(Method::POST, LOGS, headers, Full::new(body.into()).boxed()).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> HttpAnswer {
        let bearer = format!("Bearer {KEY}");
        let usual = [("host", "localhost"), ("content-type", PROTOBUF), ("authorization", bearer.as_str())];
        let mut all = HeaderMap::new();
        for (name, value) in usual.iter().chain(headers) {
            let name: http::HeaderName = name.parse().expect("a header name");
            if value.is_empty() {
                drop(all.remove(&name))
            } else {
                drop(all.insert(name, value.parse().expect("text")))
            }
        }
        let uri = match self.0 {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("http://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).body(body).expect("a request");
        *request.headers_mut() = all;
        let response = match &mut self.0 {
            Sender::One(sender) => {
                soon(sender.ready()).await.expect("the connection is still good");
                soon(sender.send_request(request)).await
            }
            Sender::Two(sender) => soon(sender.send_request(request)).await,
        };
        HttpAnswer::read(response.expect("an answer")).await
    }
}

#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl HttpAnswer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = soon(body.collect()).await.expect("a whole answer").to_bytes();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// True for a plain acknowledgement, in either form.
    pub(crate) fn is_whole(&self) -> bool {
        let body: &[u8] = if self.header("content-type") == JSON { b"{}" } else { b"" };
        self.status == 200 && self.body == body
    }

    /// Status, code, and the seconds after which the client may come back; checks what every refusal has.
    pub(crate) fn refusal(&self) -> (u16, i32, Option<u64>) {
        let (code, message) = self.code_and_message();
        assert!(!message.is_empty(), "{self:?}");
        let retry_after = self.headers.get("retry-after").map(|_| self.header("retry-after").parse().expect("seconds"));
        (self.status, code, retry_after)
    }

    fn code_and_message(&self) -> (i32, String) {
        assert!(self.status >= 400, "{self:?}");
        if self.header("content-type") == JSON {
            let status: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
            let code = status["code"].as_i64().expect("a code").try_into().expect("a small number");
            return (code, status["message"].as_str().expect("a message").to_owned());
        }
        assert_eq!(self.header("content-type"), PROTOBUF);
        let status = RpcStatus::decode(&self.body[..]).expect("a google.rpc.Status");
        (status.code, status.message)
    }

    fn message(&self) -> String {
        self.code_and_message().1
    }
}
