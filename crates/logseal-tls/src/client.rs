//! Connections to servers that are who they should be: of an authority, or one server's certificate and no other.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::authority::{TlsError, io_error};
use crate::stream::Stream;

/// How long a connection may take, its handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// Opens connections to servers whose certificates are those that it was made to trust.
///
/// As a service it opens what a URL says: over TLS for `https`, else plain.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Trusts the authorities in `file` (PEM), and nothing else.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the file cannot be read or has no certificate.
    pub fn trusting(file: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(TlsError::Tls)?;
        }
        Self::with_roots(roots)
    }

    /// Trusts the authorities that this machine trusts.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoAuthorities`] when there is none.
    pub fn system() -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        Self::with_roots(roots)
    }

    /// Trusts nobody: for plain connections.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn plain() -> Result<Self, TlsError> {
        Self::with_roots(RootCertStore::empty())
    }

    /// Takes the server whose certificate is the first one in `file` (PEM), by whatever name it is called, and no other. The file is read
    /// again for each connection: the server may have another certificate by then.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the file cannot be read or has no certificate.
    pub fn pinned(file: &Path) -> Result<Self, TlsError> {
        certificates(file)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { file: file.to_owned(), provider }))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    fn with_roots(roots: RootCertStore) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Offers `protocols` by their ALPN names (RFC 7301), the first one first.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.0);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// A connection to `host`, whose certificate has that name.
    ///
    /// # Errors
    ///
    /// What the system or the handshake said.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let host = bare(host);
        let stream = TcpStream::connect((host, port)).await?;
        // Small requests would wait for delayed acknowledgements otherwise. A socket that refuses the option is dead already.
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }

    async fn open(&self, uri: Uri) -> io::Result<Stream> {
        let host = uri.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
        if uri.scheme_str() == Some("https") {
            let stream = self.connect(host, uri.port_u16().unwrap_or(443)).await?;
            return Ok(Stream::Tls(Box::new(stream.into())));
        }
        let stream = TcpStream::connect((bare(host), uri.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        Ok(Stream::Plain(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let opened = timeout(CONNECT, connector.open(uri)).await.unwrap_or_else(|_| {
                let message = format!("no connection within {} s", CONNECT.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            });
            opened.map(TokioIo::new)
        })
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// An IPv6 address stands in brackets in a URL, and without them elsewhere.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = std::fs::read(file).map_err(|source| io_error(file, source))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let none = || TlsError::NoCertificate { file: file.display().to_string() };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(none)
}

/// Takes one certificate. Who has its key is the server: neither an authority nor a name says more than that, and its times are the
/// business of those who do not know it.
#[derive(Debug)]
struct Pinned {
    file: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // A few hundred bytes on this machine, which its server keeps up to date.
        match certificates(&self.file) {
            Ok(pinned) if pinned.first().is_some_and(|pinned| pinned == end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
