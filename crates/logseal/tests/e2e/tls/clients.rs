//! An authority of the test's own, and clients that trust it: with and without a certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::lifecycle::request;

/// A certificate and its key, in PEM form.
pub(super) type Pair = (String, String);

/// Longer than anything here takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(30);

/// What all subjects are called.
pub(super) const COMMON_NAME: &str = "a.common.name";

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate with these names: addresses, URIs and DNS names.
    pub(super) fn issue(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let name = |name: &&str| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if name.contains(':') => SanType::URI((*name).try_into().expect("a URI")),
            Err(_) => SanType::DnsName((*name).try_into().expect("a name")),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.subject_alt_names = names.iter().map(name).collect();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

fn address(endpoint: &str) -> SocketAddr {
    endpoint.strip_prefix("https://").expect("served over TLS").parse().expect("an address")
}

/// A connection to the server at `endpoint`, which has to be of `authority`.
pub(super) async fn open(
    endpoint: &str,
    authority: &Authority,
    client: Option<&Pair>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("they belong together")
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address(endpoint)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().expect("a name"), stream).await
}

/// Whether the server ends a connection before it says anything: what it thinks of a client's certificate comes after the handshake.
pub(super) async fn is_ended(mut stream: impl AsyncRead + Unpin) -> bool {
    let mut byte = [0];
    matches!(timeout(LONG, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

/// What the server says to `bytes` that are sent in clear, before it ends the connection, and how long it takes for it.
pub(super) async fn say_in_clear(endpoint: &str, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address(endpoint)).await.expect("it listens");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is an end as well.
    timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is ended").ok();
    (answer, started.elapsed())
}

/// A connection whose handshake does not go on after `bytes`.
pub(super) async fn half_open(endpoint: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address(endpoint)).await.expect("it listens");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// Ships one record by a stock client.
pub(super) async fn export(
    endpoint: &str,
    authority: &Authority,
    client: Option<&Pair>,
    key: Option<&str>,
    body: &str,
) -> Result<(), tonic::Status> {
    export_on(channel(endpoint, authority, client).await?, key, body).await
}

/// A connection of a stock gRPC client, which makes no other.
pub(super) async fn channel(
    endpoint: &str,
    authority: &Authority,
    client: Option<&Pair>,
) -> Result<Channel, tonic::Status> {
    let failed = |error: String| tonic::Status::unavailable(error);
    let stream = open(endpoint, authority, client, &["h2"]).await.map_err(|error| failed(error.to_string()))?;
    let mut stream = Some(TokioIo::new(stream));
    let once = service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("one connection is enough"));
        async move { stream }
    });
    let channel = Endpoint::from_shared(endpoint.to_owned()).expect("a URL").connect_with_connector(once).await;
    channel.map_err(|error| failed(error.to_string()))
}

pub(super) async fn export_on(channel: Channel, key: Option<&str>, body: &str) -> Result<(), tonic::Status> {
    let mut call = tonic::Request::new(request(&[body]));
    if let Some(key) = key {
        call.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("a header"));
    }
    LogsServiceClient::new(channel).export(call).await.map(drop)
}

/// A connection over which records are posted.
pub(super) struct Http {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Http {
    pub(super) async fn open(
        endpoint: &str,
        authority: &Authority,
        client: Option<&Pair>,
        protocol: &str,
    ) -> std::io::Result<Self> {
        let stream = open(endpoint, authority, client, &[protocol]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// The answer's status.
    pub(super) async fn post(&mut self, key: Option<&str>, body: &str) -> u16 {
        self.ask("POST", "/v1/logs", key, request(&[body]).encode_to_vec()).await.0
    }

    /// The answer's status and its body.
    pub(super) async fn ask(&mut self, method: &str, path: &str, key: Option<&str>, body: Vec<u8>) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        request = request.header("content-type", "application/x-protobuf");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = self.sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}
