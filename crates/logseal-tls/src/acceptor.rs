//! Handshakes within bounds, for any listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{ServerIdentity, TlsError};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Takes TLS connections.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Takes connections as `identity`; `protocols` are offered by their ALPN names (RFC 7301), the first one first.
    ///
    /// # Errors
    ///
    /// [`TlsError::Tls`] when the certificate does not fit its key.
    pub fn new(identity: ServerIdentity, protocols: &[&str]) -> Result<Self, TlsError> {
        let ServerIdentity { certificate, key } = identity;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(TlsError::Tls)?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake on `stream`.
    ///
    /// # Errors
    ///
    /// What the client did wrong, or that it took too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        timeout(HANDSHAKE, self.0.accept(stream)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {} s", HANDSHAKE.as_secs())))
        })
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Makes aws-lc-rs the process's provider of TLS cryptography, for libraries that take the process's. Only the first call of a process counts.
pub fn install_provider() {
    let _ = aws_lc_rs::default_provider().install_default();
}
