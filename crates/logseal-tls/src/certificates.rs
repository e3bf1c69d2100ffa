//! Certificates that the operator gives as files, and what becomes of connections when the files change: those that are open go on, new ones
//! are taken with the new certificate, and what cannot be used changes nothing.
//!
//! Files are looked at again and again, by their identity, size and times, and on nothing else: no signal, no event of a file system that
//! network mounts and mounted secrets do not give. Certificate and key are two files, which nobody replaces in one step. So a state that
//! cannot be used is told only when it is still there at the next look, and told once; it is tried again at each look, since what it takes
//! to use it, such as space on the disk, may come back without a change of the files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use logseal_core::{Chain, Clock, UnixNanos};
use metrics::{Unit, describe_gauge, gauge};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::acceptor::{self, Acceptor};
use crate::authority::{ServerIdentity, TlsError, io_error, replace};

/// Whether what the files hold is not used.
const REFUSED: &str = "logseal_tls_certificate_refused";
/// When the certificate in use expires.
const EXPIRES: &str = "logseal_tls_certificate_expires_seconds";

/// Says what the metrics of certificates mean.
pub(crate) fn describe_metrics() {
    describe_gauge!(
        REFUSED,
        "1 while the files hold no certificate that can be used and the one before serves on, else 0"
    );
    describe_gauge!(EXPIRES, Unit::Seconds, "when the certificate in use expires, in seconds since 1970");
}

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// The end of the year 9999, in seconds since 1970: the last time that a certificate can name.
const LAST_TIME: u64 = 253_402_300_799;

/// More than any chain or list of authorities has.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// Setting `tls.certificate`: the server's certificate, then those that lead to an authority.
    pub certificate: PathBuf,
    /// Setting `tls.key`.
    pub key: PathBuf,
    /// Setting `tls.client_ca`: authorities of clients.
    pub client_ca: Option<PathBuf>,
}

/// Whether a listener asks its clients for certificates, if `tls.client_ca` is set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificates {
    /// It does; a client without one is taken as well.
    Asked,
    /// It does not.
    Ignored,
}

/// The certificate in use, and the listeners that use it.
#[derive(Debug)]
pub struct Certificates {
    files: CertificateFiles,
    /// Where the certificate in use is, for clients of this machine.
    copy: PathBuf,
    acceptors: Vec<(Acceptor, Offer)>,
    in_use: Marks,
    /// When the certificate in use expires, in seconds since 1970; `None` when it does not say, or never does.
    expires: Option<u64>,
    /// What could not be used, and whether that was told.
    refused: Option<(Marks, bool)>,
}

/// What a look found.
#[derive(Debug)]
pub enum Look {
    /// Nothing new, or nothing that is worth telling yet.
    Same,
    /// Another certificate is in use.
    Replaced,
    /// What is new cannot be used; told once.
    Refused(TlsError),
}

/// Protocols by their ALPN names, and what becomes of clients' certificates.
pub type Offer = (&'static [&'static str], ClientCertificates);

/// What a file was when it was looked at; `None` when it was not there.
type Mark = Option<[i64; 7]>;
type Marks = [Mark; 3];

/// What the files hold.
struct Loaded {
    identity: ServerIdentity,
    clients: Option<Arc<RootCertStore>>,
}

impl Certificates {
    /// Reads `files` for listeners that make each of `offers`: the protocols by their ALPN names, and whether clients' certificates are asked
    /// for. There is an acceptor for each, and the certificate in use is kept in `copy` too.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names setting and file.
    pub fn open<const N: usize>(
        files: CertificateFiles,
        copy: PathBuf,
        offers: [Offer; N],
        now: UnixNanos,
    ) -> Result<(Self, [Acceptor; N]), TlsError> {
        let in_use = marks(&files);
        let loaded = Loaded::read(&files)?;
        let configs = offers.map(|offer| loaded.config(&files, offer).map(|config| (Acceptor::of(config), offer)));
        let acceptors: Vec<_> = configs.into_iter().collect::<Result<_, _>>()?;
        let made = std::array::from_fn(|index| acceptors[index].0.clone());
        let certificates = Self { copy, acceptors, in_use, expires: loaded.expires(), refused: None, files };
        certificates.keep_copy(&loaded)?;
        loaded.warn_of_its_time(&certificates.files, now);
        Ok((certificates, made))
    }

    /// Looks at the files once.
    pub fn look(&mut self, now: UnixNanos) -> Look {
        let found = marks(&self.files);
        if found == self.in_use {
            self.refused = None;
            return Look::Same;
        }
        let was_here = self.refused.filter(|(refused, _)| *refused == found);
        match (self.take(now), was_here) {
            (Ok(expires), _) => {
                (self.in_use, self.expires, self.refused) = (found, expires, None);
                Look::Replaced
            }
            (Err(_), None) => {
                self.refused = Some((found, false));
                Look::Same
            }
            (Err(error), Some((_, told))) => {
                self.refused = Some((found, true));
                if told { Look::Same } else { Look::Refused(error) }
            }
        }
    }

    /// Uses what is in the files, and says when it expires.
    fn take(&self, now: UnixNanos) -> Result<Option<u64>, TlsError> {
        let loaded = Loaded::read(&self.files)?;
        let configs: Result<Vec<_>, _> =
            self.acceptors.iter().map(|(_, offer)| loaded.config(&self.files, *offer)).collect();
        let configs = configs?;
        // First: a client that comes in between finds a certificate that it does not know yet, and no other harm.
        self.keep_copy(&loaded)?;
        for ((acceptor, _), config) in self.acceptors.iter().zip(configs) {
            acceptor.replace(config);
        }
        loaded.warn_of_its_time(&self.files, now);
        Ok(loaded.expires())
    }

    /// What [`describe_metrics`] says, as it is now.
    fn measure(&self) {
        gauge!(REFUSED).set(if self.refused.is_some_and(|(_, told)| told) { 1.0 } else { 0.0 });
        if let Some(expires) = self.expires {
            gauge!(EXPIRES).set(expires as f64);
        }
    }

    fn keep_copy(&self, loaded: &Loaded) -> Result<(), TlsError> {
        let Some(certificate) = loaded.identity.chain.first() else { return Ok(()) };
        // Made of the certificate alone: the file that it is from may have the key as well.
        replace(&self.copy, pem(certificate).as_bytes(), 0o644).map_err(|source| io_error(&self.copy, source))
    }

    /// Looks at the files for ever, and tells the log and the metrics what it finds.
    pub async fn keep(mut self, clock: Arc<dyn Clock>) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = clock.now();
            // Files may be on a network.
            let looked = spawn_blocking(move || {
                let look = self.look(now);
                (self, look)
            });
            let Ok((certificates, look)) = looked.await else {
                error!("certificates are not looked at any more: restart the server to use new ones");
                return;
            };
            self = certificates;
            self.measure();
            match look {
                Look::Same => {}
                Look::Replaced => {
                    info!(file = %self.files.certificate.display(), "new connections get the new certificate");
                }
                Look::Refused(error) => error!(
                    error = %Chain(&error),
                    "the new certificate is not used, and the one before serves on: put a certificate and the key that belongs to it into \
                     the files of `tls.certificate` and `tls.key`; they are looked at every {} s",
                    PERIOD.as_secs()
                ),
            }
        }
    }
}

impl Loaded {
    fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let chain = certificates("tls.certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read("tls.key", &files.key)?).map_err(|_| TlsError::Missing {
            setting: "tls.key",
            file: files.key.display().to_string(),
            wanted: "unencrypted private key",
        })?;
        let clients = files.client_ca.as_deref().map(client_authorities).transpose()?;
        Ok(Self { identity: ServerIdentity { chain, key }, clients })
    }

    fn config(&self, files: &CertificateFiles, offer: Offer) -> Result<rustls::ServerConfig, TlsError> {
        let (protocols, asked) = offer;
        let identity = ServerIdentity { chain: self.identity.chain.clone(), key: self.identity.key.clone_key() };
        let clients = self.clients.as_ref().filter(|_| asked == ClientCertificates::Asked);
        acceptor::config(identity, protocols, clients).map_err(|error| match error {
            TlsError::Tls(source) => TlsError::Pair {
                problem: match source {
                    Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        "the key does not belong to the certificate"
                    }
                    _ => "certificate and key cannot be used",
                },
                certificate: files.certificate.display().to_string(),
                key: files.key.display().to_string(),
                source: Box::new(source),
            },
            other => other,
        })
    }

    fn expires(&self) -> Option<u64> {
        self.identity.chain.first().and_then(expires)
    }

    /// Clients may have their own idea of the time, and an expired certificate beats none.
    fn warn_of_its_time(&self, files: &CertificateFiles, now: UnixNanos) {
        if let Some(problem) = self.identity.chain.first().and_then(|certificate| out_of_its_time(certificate, now)) {
            warn!(file = %files.certificate.display(), "the certificate of `tls.certificate` {problem}: most clients refuse it; replace it");
        }
    }
}

/// How `certificate` is not valid at `now`.
fn out_of_its_time(certificate: &CertificateDer<'_>, now: UnixNanos) -> Option<&'static str> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    out_of_time(&parsed, u64::try_from(now.seconds()).unwrap_or(0))
}

/// The first second since 1970 at which `certificate` has expired: searched for by asking, since what reads certificates here says no times.
fn expires(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let is_over = |second| out_of_time(&parsed, second) == Some("has expired");
    let (mut before, mut over) = (0, LAST_TIME);
    if !is_over(over) {
        return None;
    }
    while over - before > 1 {
        let middle = before + (over - before) / 2;
        if is_over(middle) { over = middle } else { before = middle }
    }
    Some(over)
}

/// How a certificate is not valid at `second` since 1970.
fn out_of_time(certificate: &ParsedCertificate<'_>, second: u64) -> Option<&'static str> {
    let at = UnixTime::since_unix_epoch(Duration::from_secs(second));
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    // Times are looked at before anybody is asked for: that nobody is trusted here says nothing.
    match verify_server_cert_signed_by_trust_anchor(certificate, &RootCertStore::empty(), &[], at, algorithms) {
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Some("has expired")
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            Some("is not valid yet")
        }
        _ => None,
    }
}

fn read(setting: &'static str, file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(file)
        .and_then(|open| open.take(FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Unreadable { setting, file: file.display().to_string(), source })?;
    Ok(bytes)
}

fn certificates(setting: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(setting, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let missing = || TlsError::Missing { setting, file: file.display().to_string(), wanted: "certificate" };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(missing)
}

fn client_authorities(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let setting = "tls.client_ca";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, file)? {
        roots.add(certificate).map_err(|_| TlsError::Missing {
            setting,
            file: file.display().to_string(),
            wanted: "usable certificate authority",
        })?;
    }
    Ok(Arc::new(roots))
}

fn marks(files: &CertificateFiles) -> Marks {
    let mark = |file: &Path| -> Mark {
        let of: io::Result<fs::Metadata> = fs::metadata(file);
        // A file that is written again within one tick of the clock, with the same number and size, is the one case that is not seen.
        of.ok().map(|of| {
            let number = |value: u64| i64::from_ne_bytes(value.to_ne_bytes());
            [
                number(of.dev()),
                number(of.ino()),
                number(of.size()),
                of.mtime(),
                of.mtime_nsec(),
                of.ctime(),
                of.ctime_nsec(),
            ]
        })
    };
    [mark(&files.certificate), mark(&files.key), files.client_ca.as_deref().and_then(mark)]
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests;
