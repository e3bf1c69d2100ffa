//! Handshakes within bounds, for any listener.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::thread::available_parallelism;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor as Hello, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{ServerIdentity, TlsError};
use crate::stream::Stream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted. Where it is full the system drops what a client begins with, which sends it again after a second; a flood
/// of newcomers fills 1,024, which is what Rust's libraries ask for, before they are accepted. Linux takes no more than `net.core.somaxconn`: 4,096.
const BACKLOG: u32 = 4_096;

/// Listens at `address`, with room for a flood of newcomers.
///
/// # Errors
///
/// Those of the system.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts again does not wait for the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where connections come from, and what they have to begin with.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub tcp: TcpListener,
    /// What makes a connection of a stream.
    pub acceptor: Acceptor,
}

impl Listener {
    /// Takes connections as they are.
    #[must_use]
    pub const fn plain(tcp: TcpListener) -> Self {
        Self { tcp, acceptor: Acceptor::plain() }
    }
}

/// What makes connections of TCP streams: a handshake, or nothing.
#[derive(Clone)]
pub struct Acceptor(Option<Arc<Handshakes>>);

struct Handshakes {
    config: RwLock<Arc<ServerConfig>>,
    /// How many may be computed while others wait for a thread. A handshake takes some hundred microseconds of one, and a flood brings as many of them at
    /// once as there are places for connections: whatever comes behind all of these comes a tenth of a second late.
    turns: Semaphore,
}

/// One for each thread.
fn turns() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

impl Acceptor {
    /// Takes connections as they are.
    #[must_use]
    pub const fn plain() -> Self {
        Self(None)
    }

    /// Takes TLS connections as `identity`; `protocols` are offered by their ALPN names (RFC 7301), the first one first.
    ///
    /// # Errors
    ///
    /// [`TlsError::Tls`] when the certificate does not fit its key.
    pub fn new(identity: ServerIdentity, protocols: &[&str]) -> Result<Self, TlsError> {
        config(identity, protocols, None).map(Self::of)
    }

    pub(crate) fn of(config: ServerConfig) -> Self {
        Self(Some(Arc::new(Handshakes { config: RwLock::new(Arc::new(config)), turns: Semaphore::new(turns()) })))
    }

    /// Handshakes that begin from now on are `config`'s. Its sessions are its own: none that began under another one is resumed.
    pub(crate) fn replace(&self, config: ServerConfig) {
        if let Some(handshakes) = &self.0 {
            *handshakes.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        }
    }

    /// Whether connections are taken over TLS only.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// The handshake on `stream`, if there is one.
    ///
    /// # Errors
    ///
    /// What the client did wrong, or that it took too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let Some(handshakes) = &self.0 else { return Ok(Stream::Plain(stream)) };
        // It is on the heap: callers have futures of their own in which this one is.
        let accepted = timeout(HANDSHAKE, Box::pin(handshakes.accept(stream))).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {} s", HANDSHAKE.as_secs())))
        });
        Ok(Stream::Tls(Box::new(accepted?.into())))
    }
}

impl Handshakes {
    async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        // Nobody has a turn who has sent nothing.
        let hello = LazyConfigAcceptor::new(Hello::default(), stream).await?;
        let turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        // Keys and signature are computed here, and sent by the first poll.
        let mut accepted = pin!(hello.into_stream(config));
        let begun = poll_fn(|cx| Poll::Ready(accepted.as_mut().poll(cx))).await;
        yield_now().await;
        drop(turn);
        match begun {
            Poll::Ready(ended) => ended,
            Poll::Pending => accepted.await,
        }
    }
}

/// How `identity` is served; certificates of `clients` are asked for, and a client without one is taken as well.
pub(crate) fn config(
    identity: ServerIdentity,
    protocols: &[&str],
    clients: Option<&Arc<RootCertStore>>,
) -> Result<ServerConfig, TlsError> {
    let ServerIdentity { chain, key } = identity;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(roots) => WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| TlsError::Tls(rustls::Error::General(error.to_string())))?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(TlsError::Tls)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_tls() { "Acceptor(TLS)" } else { "Acceptor(plain)" })
    }
}

/// Makes aws-lc-rs the process's provider of TLS cryptography, for libraries that take the process's. Only the first call of a process counts.
pub fn install_provider() {
    let _ = aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream as Client;

    use logseal_core::{Clock as _, SystemClock};
    use logseal_crypto::{Key256, RootKey};
    use rustls::{ClientConfig, ClientConnection};
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::Authority;

    fn client_hello() -> Vec<u8> {
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of the provider")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let mut sent = Vec::new();
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        client.write_tls(&mut sent).expect("there is room");
        sent
    }

    /// Scenario: many clients begin a handshake at the same moment, and none goes on with it. Guarantee: between a few of them and the next few, others have
    /// their turn.
    #[tokio::test]
    async fn handshakes_that_come_at_once_let_others_have_their_turn() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).expect("256 bits"));
        let authority = Authority::open(dir.path(), &root, SystemClock.now()).expect("an empty folder");
        let identity = authority.issue(&[], SystemClock.now()).expect("a certificate");
        let acceptor = Acceptor::new(identity, &["h2"]).expect("a certificate and its key");
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (hello, all) = (client_hello(), 16 * turns());
        let (mut clients, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..all {
            let mut client = Client::connect(address).expect("listening");
            client.write_all(&hello).expect("there is room");
            client.set_nonblocking(true).expect("a socket");
            clients.push(client);
            streams.push(listener.accept().await.expect("a client").0);
        }
        let mut handshakes = JoinSet::new();
        for stream in streams {
            let acceptor = acceptor.clone();
            handshakes.spawn(async move { acceptor.accept(stream).await.is_ok() });
        }
        let (began, mut answered, mut most) = (Instant::now(), 0, 0);
        while answered < all {
            yield_now().await;
            let by_now = clients.iter().filter(|client| client.peek(&mut [0]).is_ok_and(|bytes| bytes > 0)).count();
            most = most.max(by_now - answered);
            answered = by_now;
            assert!(began.elapsed() < HANDSHAKE, "{answered} of {all} were answered");
        }
        assert!(most <= 2 * turns(), "{most} of {all} handshakes came in a row");
    }

    /// Scenario: clients connect while nothing is accepted. Guarantee: as many as the system lets wait are connected at once.
    #[tokio::test]
    async fn newcomers_wait_until_they_are_accepted() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux");
        let most: u32 = most.trim().parse().expect("a number");
        for number in 0..most.min(BACKLOG) {
            // One that is closed waits as well.
            let connected = timeout(Duration::from_millis(900), TcpStream::connect(address)).await;
            assert!(matches!(connected, Ok(Ok(_))), "the connection {number} was not made at once: {connected:?}");
        }
    }
}
