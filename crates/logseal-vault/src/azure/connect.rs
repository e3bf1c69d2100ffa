//! From a name to a TLS connection: resolve once, check all addresses, connect to a checked one, present the name.
//!
//! Nothing resolves the name a second time, so there is no moment in which another answer could be used than the one that was checked.
//! There are no proxies: neither the environment nor a setting can put a third party between server and vault.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::tls::certificate_fault;
use crate::VaultError;
use crate::address::is_public;

/// How many addresses of a name are looked at.
const ADDRESSES: usize = 8;

/// How many names are resolved at the same time. The system's resolver blocks a thread, in bad times for half a minute.
const LOOKUPS: usize = 8;

/// What a vault client needs of the network.
#[async_trait]
pub trait Network: Debug + Send + Sync {
    /// The addresses of `host`.
    ///
    /// # Errors
    ///
    /// When the name does not resolve.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;

    /// A connection to exactly this address.
    ///
    /// # Errors
    ///
    /// When nobody answers there.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The system's resolver and sockets.
#[derive(Clone, Debug)]
pub struct SystemNetwork {
    lookups: Arc<Semaphore>,
}

impl Default for SystemNetwork {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

#[async_trait]
impl Network for SystemNetwork {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        // The permit goes with the thread: a caller that gave up leaves the lookup running.
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        tokio::task::spawn_blocking(move || {
            let addresses =
                (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
            drop(permit);
            addresses
        })
        .await
        .map_err(io::Error::other)?
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Where to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// Whether the operator named this very host: then its address may be a private one.
    pub(super) explicit: bool,
    /// False only for an identity service on this very machine.
    pub(super) tls: bool,
}

/// What bytes go through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name does not resolve.
    Unresolved,
    /// One of the name's addresses is not a public one.
    NotPublic,
    /// It took too long.
    TimedOut(Duration),
    /// Nobody answers, or the connection broke.
    Broken(io::ErrorKind),
    /// The peer's certificate is not accepted.
    Certificate(&'static str),
    /// The peer does not speak TLS as we do.
    Tls,
}

impl ConnectError {
    /// Whether another attempt soon may succeed.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Broken(_))
    }

    pub(super) fn into_vault_error(self, host: &str) -> VaultError {
        match self {
            Self::Unresolved => VaultError::Unresolved(host.into()),
            Self::NotPublic => VaultError::Unreachable(format!(
                "`{host}` resolves to an address that is not public; if it is a private endpoint, the operator of this server must allow the host"
            )),
            Self::TimedOut(limit) => VaultError::TimedOut(limit),
            Self::Broken(kind) => VaultError::Unreachable(kind.to_string()),
            Self::Certificate(fault) => VaultError::Unreachable(fault.into()),
            Self::Tls => VaultError::Unreachable("it does not speak TLS as it must".into()),
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Dialer {
    network: Arc<dyn Network>,
    tls: TlsConnector,
    limit: Duration,
}

impl Dialer {
    /// `limit` is for one connection: name, address and TLS.
    pub(super) fn new(network: Arc<dyn Network>, tls: ClientConfig, limit: Duration) -> Self {
        Self { network, tls: TlsConnector::from(Arc::new(tls)), limit }
    }

    /// A connection to `target`; with TLS its certificate is for the target's name.
    pub(super) async fn dial(&self, target: &Target) -> Result<Box<dyn Stream>, ConnectError> {
        let limit = Instant::now() + self.limit;
        let stream = self.tcp(target, limit).await?;
        if !target.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(target.host.to_string()).map_err(|_| ConnectError::Unresolved)?;
        let handshake = timeout_at(limit, self.tls.connect(name, stream)).await;
        let stream = handshake.map_err(|_| ConnectError::TimedOut(self.limit))?.map_err(|error| tls_error(&error))?;
        Ok(Box::new(stream))
    }

    async fn tcp(&self, target: &Target, limit: Instant) -> Result<TcpStream, ConnectError> {
        let addresses = self.resolve(target, limit).await?;
        let mut last = ConnectError::Unresolved;
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets its share of the time that is left, so that a dead first one does not use it up.
            let left = limit.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let connected = self.network.connect(SocketAddr::new(*address, target.port));
            last = match timeout_at(Instant::now() + share, connected).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => ConnectError::Broken(error.kind()),
                Err(_) => ConnectError::TimedOut(self.limit),
            };
        }
        Err(last)
    }

    /// The addresses of `target`, all of them checked: a name with one public and one private address is refused as a whole.
    async fn resolve(&self, target: &Target, limit: Instant) -> Result<Vec<IpAddr>, ConnectError> {
        let found = timeout_at(limit, self.network.resolve(&target.host)).await;
        let found = found.map_err(|_| ConnectError::TimedOut(self.limit))?.map_err(|_| ConnectError::Unresolved)?;
        if !target.explicit && !found.iter().copied().all(is_public) {
            return Err(ConnectError::NotPublic);
        }
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(ConnectError::Unresolved) } else { Ok(addresses) }
    }
}

impl Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("network", &self.network).field("limit", &self.limit).finish_non_exhaustive()
    }
}

fn tls_error(error: &io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => certificate_fault(inner).map_or(ConnectError::Tls, ConnectError::Certificate),
        None => ConnectError::Broken(error.kind()),
    }
}
