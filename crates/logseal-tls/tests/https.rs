//! HTTP over TLS through real sockets: who is believed, which protocols are spoken, and what ends.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here is the test; clippy takes functions beside the tests for production code"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use logseal_core::{Clock as _, SystemClock};
use logseal_crypto::{Key256, RootKey};
use logseal_tls::{Acceptor, Authority, Connector, Limits, Listener, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::service_fn;

/// Longer than anything here takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);

struct World {
    _dir: tempfile::TempDir,
    ca: PathBuf,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    asked: std::sync::Arc<Notify>,
    go_on: std::sync::Arc<Notify>,
}

fn root() -> RootKey {
    RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap())
}

impl World {
    /// A server that answers with the path that was asked for; `/wait` when it is told to.
    async fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), &root(), SystemClock.now()).unwrap();
        let identity = authority.issue(&[], SystemClock.now()).unwrap();
        let acceptor = Acceptor::new(identity, serve::PROTOCOLS).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (stop, is_stopped) = watch::channel(false);
        let (asked, go_on) = (std::sync::Arc::<Notify>::default(), std::sync::Arc::<Notify>::default());
        let (has_asked, may_go_on) = (std::sync::Arc::clone(&asked), std::sync::Arc::clone(&go_on));
        let service = service_fn(move |request: Request<Incoming>| {
            let (asked, go_on) = (std::sync::Arc::clone(&has_asked), std::sync::Arc::clone(&may_go_on));
            async move {
                let path = request.uri().path().to_owned();
                if path == "/wait" {
                    asked.notify_one();
                    go_on.notified().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(path))))
            }
        });
        let server = tokio::spawn(serve(Listener { tcp, acceptor }, service, limits, is_stopped));
        let ca = authority.certificate_file().to_owned();
        Self { _dir: dir, ca, address, stop, server, asked, go_on }
    }

    async fn client(&self) -> http1::SendRequest<Empty<Bytes>> {
        let stream = Connector::trusting(&self.ca).unwrap().connect("127.0.0.1", self.address.port()).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(path).header("host", "localhost").body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn clients_of_the_authority_are_served_by_each_name_of_this_machine() {
    let world = World::new(Limits::default()).await;
    for name in ["127.0.0.1", "localhost"] {
        let connector = Connector::trusting(&world.ca).unwrap();
        let stream = connector.connect(name, world.address.port()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(text(sender.send_request(request("/a")).await.unwrap()).await, "/a", "{name}");
    }
}

#[tokio::test]
async fn another_authority_and_another_name_are_not_believed() {
    let world = World::new(Limits::default()).await;
    let other = tempfile::tempdir().unwrap();
    let other = Authority::open(other.path(), &root(), SystemClock.now()).unwrap();
    // The same root key makes another authority: what a client trusts is the certificate.
    let pem = std::fs::read(other.certificate_file()).unwrap();
    let file = world.ca.with_extension("other");
    std::fs::write(&file, pem).unwrap();
    let refused = Connector::trusting(&file).unwrap().connect("127.0.0.1", world.address.port()).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let connector = Connector::trusting(&world.ca).unwrap();
    let refused = connector.connect("127.0.0.2", world.address.port()).await;
    assert!(refused.is_err(), "the certificate is for other addresses");
    // Whoever takes one certificate takes no other, of whatever authority.
    let pinned = Connector::pinned(&world.ca).unwrap().connect("127.0.0.1", world.address.port()).await.unwrap_err();
    assert!(pinned.to_string().contains("certificate"), "{pinned}");
    std::fs::write(&file, "no certificate").unwrap();
    assert!(Connector::trusting(&file).is_err() && Connector::pinned(&file).is_err());
}

#[tokio::test]
async fn http_2_is_spoken_with_who_asks_for_it() {
    use rustls::pki_types::pem::PemObject as _;
    let world = World::new(Limits::default()).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&world.ca).unwrap();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(world.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("https://localhost/b").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.version(), text(response).await.as_str()), (Version::HTTP_2, "/b"));
}

/// Scenario: clients that speak no TLS, or nothing at all, hold every place. Guarantee: the server ends them by itself, and serves again.
#[tokio::test]
async fn connections_are_bounded_and_those_without_a_request_give_way() {
    let short = Duration::from_millis(200);
    let world = World::new(Limits { connections: 1, head: short, idle: short, ..Limits::default() }).await;
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, plain.read_to_end(&mut answer)).await.expect("it is ended").ok();
    assert!(!answer.starts_with(b"HTTP/"), "nothing is answered in clear");

    let mut silent = Connector::trusting(&world.ca).unwrap().connect("localhost", world.address.port()).await.unwrap();
    let served = tokio::spawn(async move {
        let mut client = world.client().await;
        text(client.send_request(request("/c")).await.unwrap()).await
    });
    timeout(LONG, silent.read_to_end(&mut answer)).await.expect("it is ended").ok();
    assert_eq!(timeout(LONG, served).await.expect("its place is free again").unwrap(), "/c");
}

/// Scenario: a client that keeps its connection asks again later than a first request may come. Guarantee: the connection is still there.
#[tokio::test]
async fn a_connection_that_is_kept_is_not_ended_like_one_without_a_request() {
    let short = Duration::from_millis(100);
    let world = World::new(Limits { head: short, idle: LONG, ..Limits::default() }).await;
    let stream = Connector::trusting(&world.ca).unwrap().connect("localhost", world.address.port()).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut connection = tokio::spawn(connection);
    assert_eq!(text(client.send_request(request("/first")).await.unwrap()).await, "/first");
    assert!(timeout(5 * short, &mut connection).await.is_err(), "the server ended it");
    assert_eq!(text(client.send_request(request("/later")).await.unwrap()).await, "/later");
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_finish_and_takes_no_other() {
    let world = World::new(Limits { drain: LONG, ..Limits::default() }).await;
    let mut client = world.client().await;
    let waiting = tokio::spawn(async move { text(client.send_request(request("/wait")).await.unwrap()).await });
    world.asked.notified().await;
    world.stop.send(true).unwrap();
    world.go_on.notify_one();
    assert_eq!(waiting.await.unwrap(), "/wait");
    timeout(LONG, world.server).await.expect("it ends").unwrap().unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
}
