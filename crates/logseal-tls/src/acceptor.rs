//! Handshakes within bounds, for any listener.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::authority::{ServerIdentity, TlsError};
use crate::stream::Stream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

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
pub struct Acceptor(Option<Arc<RwLock<Arc<ServerConfig>>>>);

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
        Self(Some(Arc::new(RwLock::new(Arc::new(config)))))
    }

    /// Handshakes that begin from now on are `config`'s. Its sessions are its own: none that began under another one is resumed.
    pub(crate) fn replace(&self, config: ServerConfig) {
        if let Some(current) = &self.0 {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
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
        let Some(current) = &self.0 else { return Ok(Stream::Plain(stream)) };
        let config = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
        let accepted = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {} s", HANDSHAKE.as_secs())))
        });
        Ok(Stream::Tls(Box::new(accepted?.into())))
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
