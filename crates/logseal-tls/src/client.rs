//! TLS to servers of one authority, and of no other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{TlsError, io_error};

/// Opens connections to servers whose certificates come from the authorities that it was made with.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// Trusts the certificates in `file` (PEM), and nothing else.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the file cannot be read or has no certificate.
    pub fn trusting(file: &Path) -> Result<Self, TlsError> {
        let pem = std::fs::read(file).map_err(|source| io_error(file, source))?;
        let none = || TlsError::NoCertificate { file: file.display().to_string() };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|_| none())?).map_err(TlsError::Tls)?;
        }
        if roots.is_empty() {
            return Err(none());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// A connection to `host`, whose certificate has that name.
    ///
    /// # Errors
    ///
    /// What the system or the handshake said.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        // An IPv6 address stands in brackets in a URL, and without them elsewhere.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}
