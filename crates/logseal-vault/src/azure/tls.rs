//! Whose certificates are taken, and TLS over aws-lc-rs, given by value and not by a process-wide default.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use logseal_core::Clock;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::VaultError;

/// The certificate authorities that may vouch for a key vault.
///
/// They are the machine's own: whoever runs it keeps them up to date, withdraws one without waiting for a release of this program, and adds a
/// company's own. A compiled-in list would do none of that.
#[derive(Clone)]
pub struct TlsTrust(RootCertStore);

impl TlsTrust {
    /// The machine's certificate authorities.
    ///
    /// # Errors
    ///
    /// [`VaultError::Invalid`] when there are none, since then no vault could ever be reached.
    pub fn system() -> Result<Self, VaultError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let text = "this machine has no certificate authorities: install them (on most systems the package `ca-certificates`)";
            return Err(VaultError::Invalid(text.into()));
        }
        Ok(Self(roots))
    }

    /// No authority but those that are added.
    #[must_use]
    pub fn none() -> Self {
        Self(RootCertStore::empty())
    }

    /// Adds the authorities of a PEM file, for vaults with a certificate of a private one.
    ///
    /// # Errors
    ///
    /// [`VaultError::Invalid`] when the text holds no certificate, or one that cannot be read.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, VaultError> {
        let before = self.0.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate.ok().and_then(|certificate| self.0.add(certificate).ok());
            added.ok_or_else(|| VaultError::Invalid("a certificate in the PEM file cannot be read".into()))?;
        }
        if self.0.len() == before {
            return Err(VaultError::Invalid("the PEM file holds no certificate".into()));
        }
        Ok(self)
    }

    /// The configuration of TLS connections; `clock` says which certificates have expired.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unreachable`] when no authority is trusted.
    pub(super) fn client_config(&self, clock: Arc<dyn Clock>) -> Result<ClientConfig, VaultError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |_| VaultError::Unreachable("TLS cannot be set up".into());
        // Built by hand for its error: a store without authorities is refused by it.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.0.clone()), Arc::clone(&provider))
            .build()
            .map_err(|_| {
                VaultError::Unreachable(
                    "no certificate authority is known that could vouch for it: install the machine's (on most systems the package \
                     `ca-certificates`), or name a file of your own"
                        .into(),
                )
            })?;
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Debug for TlsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsTrust({} authorities)", self.0.len())
    }
}

#[derive(Debug)]
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// What is wrong with a peer's certificate, in our words: the library's own carry names out of the certificate, which a stranger wrote.
pub(super) fn certificate_fault(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    Some(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its TLS certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its TLS certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its TLS certificate is for another name"
        }
        // The second is an authority of the same name with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its TLS certificate is of an authority that is not trusted here"
        }
        CertificateError::Revoked => "its TLS certificate is revoked",
        _ => "its TLS certificate is not accepted",
    })
}
