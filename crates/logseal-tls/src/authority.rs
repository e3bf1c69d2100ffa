//! The deployment's certificate authority: `ca.json` with its certificate and its sealed key, and `ca.pem`, the certificate alone, for
//! clients.
//!
//! The key is under AES-256-GCM, bound to the certificate: whoever alters the file can put no other certificate in its place. `ca.pem` is
//! written anew at each start when it is not the certificate in `ca.json`. Server certificates are never stored: each start makes one with a
//! key of its own.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use logseal_core::UnixNanos;
use logseal_crypto::{OsRandom, RootKey, aad, seal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

const FORMAT: u32 = 1;

const DAY: Duration = Duration::from_secs(86_400);

/// Clients pin the authority's certificate: it lives as long as a deployment may.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);

/// More than any process runs, and less than what some clients take as the most of a server certificate (825 days).
const SERVER_LIFE: Duration = Duration::from_secs(800 * 86_400);

/// Clocks of clients may be behind.
const BACKDATED: Duration = DAY;

/// TLS cannot be offered or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot access `{file}`")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The authority's file was altered, or was written under another root key.
    #[error("`{file}` fails its integrity check: restore it or the root key it was written under")]
    Integrity {
        /// The file.
        file: String,
    },
    /// The authority's file was written by a later version of this program.
    #[error(
        "`{file}` has format {format}, this version of logseal knows format {known}: start the version that wrote it"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Its format.
        format: u32,
        /// The format that this version knows.
        known: u32,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// What was given as certificates is none.
    #[error("there is no certificate in PEM form in `{file}`")]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// A file that a setting names cannot be read.
    #[error("`{setting}`: cannot read `{file}`")]
    Unreadable {
        /// The setting.
        setting: &'static str,
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that a setting names does not hold what it should.
    #[error("`{setting}`: `{file}` has no {wanted} in PEM form")]
    Missing {
        /// The setting.
        setting: &'static str,
        /// The file.
        file: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// What files of the configuration hold cannot be used together.
    #[error("`tls.certificate` and `tls.key`: {problem}: `{certificate}`, `{key}`")]
    Pair {
        /// Why not.
        problem: &'static str,
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What the library said.
        #[source]
        source: Box<rustls::Error>,
    },
    /// This machine trusts nobody.
    #[error(
        "this machine has no certificate authorities: install them (on most systems the package `ca-certificates`), or name a file"
    )]
    NoAuthorities,
    /// TLS itself refused.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The certificate authority of a deployment.
pub struct Authority {
    key: Zeroizing<KeyPair>,
    file: PathBuf,
}

/// A certificate for one server, with its key.
pub struct ServerIdentity {
    /// Its certificate, and those that lead from it to an authority.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// What all formats have in common.
#[derive(Deserialize)]
struct AnyFile {
    format: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthorityFile {
    format: u32,
    certificate: String,
    private_key_sealed: String,
}

impl Authority {
    /// The authority in `dir`, which exists; made when there is none yet.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn open(dir: &Path, root: &RootKey, now: UnixNanos) -> Result<Self, TlsError> {
        let (stored, file) = (dir.join("ca.json"), dir.join("ca.pem"));
        let (key, certificate) = match fs::read(&stored) {
            Ok(bytes) => parse(&stored, &bytes, root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&stored, root, now)?,
            Err(source) => return Err(io_error(&stored, source)),
        };
        if fs::read(&file).ok().as_deref() != Some(certificate.as_bytes()) {
            // A certificate is no secret: it may be copied to wherever clients are.
            replace(&file, certificate.as_bytes(), 0o644).map_err(|source| io_error(&file, source))?;
        }
        Ok(Self { key, file })
    }

    /// The file with the certificate that clients trust.
    #[must_use]
    pub fn certificate_file(&self) -> &Path {
        &self.file
    }

    /// A certificate for a server on this machine, and at `addresses`.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`].
    pub fn issue(&self, addresses: &[IpAddr], now: UnixNanos) -> Result<ServerIdentity, TlsError> {
        let key = Zeroizing::new(KeyPair::generate().map_err(TlsError::Certificate)?);
        let mut names = vec![SanType::DnsName("localhost".try_into().map_err(TlsError::Certificate)?)];
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0_u16, 0, 0, 0, 0, 0, 0, 1])];
        for address in loopback.iter().chain(addresses) {
            let name = SanType::IpAddress(*address);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut params = dated(now, SERVER_LIFE);
        params.subject_alt_names = names;
        params.distinguished_name = named("Logseal");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::new(authority_params(&self.key, now), &*self.key);
        let certificate = params.signed_by(&*key, &issuer).map_err(TlsError::Certificate)?;
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(ServerIdentity { chain: vec![certificate.der().clone()], key: der.into() })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("file", &self.file).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerIdentity([redacted])")
    }
}

fn parse(stored: &Path, bytes: &[u8], root: &RootKey) -> Result<(Zeroizing<KeyPair>, String), TlsError> {
    let altered = || TlsError::Integrity { file: stored.display().to_string() };
    let AnyFile { format } = serde_json::from_slice(bytes).map_err(|_| altered())?;
    if format != FORMAT {
        return Err(TlsError::NewerFormat { file: stored.display().to_string(), format, known: FORMAT });
    }
    let file: AuthorityFile = serde_json::from_slice(bytes).map_err(|_| altered())?;
    let sealed = BASE64.decode(file.private_key_sealed.as_bytes()).map_err(|_| altered())?;
    let der = seal::open(&root.vault_seal(), &aad::authority_key(file.certificate.as_bytes()), &sealed);
    let der = der.map_err(|_| altered())?;
    let key = KeyPair::try_from(der.as_slice()).map_err(|_| altered())?;
    if CertificateDer::from_pem_slice(file.certificate.as_bytes()).is_err() {
        return Err(altered());
    }
    Ok((Zeroizing::new(key), file.certificate))
}

fn make(stored: &Path, root: &RootKey, now: UnixNanos) -> Result<(Zeroizing<KeyPair>, String), TlsError> {
    let key = Zeroizing::new(KeyPair::generate().map_err(TlsError::Certificate)?);
    let certificate = authority_params(&key, now).self_signed(&*key).map_err(TlsError::Certificate)?.pem();
    let der = Zeroizing::new(key.serialize_der());
    let sealed = seal::seal(&root.vault_seal(), &aad::authority_key(certificate.as_bytes()), &der, OsRandom);
    let file = AuthorityFile { format: FORMAT, certificate, private_key_sealed: BASE64.encode(&sealed) };
    let write = || replace(stored, &serde_json::to_vec_pretty(&file)?, 0o600);
    write().map_err(|source| io_error(stored, source))?;
    Ok((key, file.certificate))
}

/// What the authority's certificate says. Its name has a part of its key: a client that trusts the authorities of several deployments finds
/// the right one by its name.
fn authority_params(key: &KeyPair, now: UnixNanos) -> CertificateParams {
    let mut params = dated(now, AUTHORITY_LIFE);
    let id = HEXLOWER.encode(params.key_identifier(key).get(..8).unwrap_or_default());
    params.distinguished_name = named(&format!("Logseal authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn dated(now: UnixNanos, life: Duration) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0));
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (now - BACKDATED, now + life);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Replaces `file` as a whole, durable when this returns.
pub(crate) fn replace(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = file.parent().ok_or_else(|| io::Error::other("the file has a folder"))?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    temporary.write_all(content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    File::open(dir)?.sync_all()
}

pub(crate) fn io_error(file: &Path, source: io::Error) -> TlsError {
    TlsError::Io { file: file.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use logseal_crypto::Key256;

    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::new(Key256::copy_from_slice(&[byte; 32]).unwrap())
    }

    const NOW: UnixNanos = UnixNanos(1_769_817_600_000_000_000);

    #[test]
    fn the_authority_stays_the_same_and_its_file_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), &root(1), NOW).unwrap();
        let pem = fs::read_to_string(first.certificate_file()).unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
        assert!(!fs::read_to_string(dir.path().join("ca.json")).unwrap().contains("PRIVATE"));
        for lost in ["", "not a certificate"] {
            fs::write(first.certificate_file(), lost).unwrap();
            let again = Authority::open(dir.path(), &root(1), NOW).unwrap();
            assert_eq!(fs::read_to_string(again.certificate_file()).unwrap(), pem);
        }
    }

    #[test]
    fn an_altered_authority_and_another_root_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path(), &root(1), NOW).unwrap();
        assert!(matches!(Authority::open(dir.path(), &root(2), NOW), Err(TlsError::Integrity { .. })));
        let stored = dir.path().join("ca.json");
        let text = fs::read_to_string(&stored).unwrap();
        let other_dir = tempfile::tempdir().unwrap();
        Authority::open(other_dir.path(), &root(1), NOW).unwrap();
        let other: AuthorityFile =
            serde_json::from_slice(&fs::read(other_dir.path().join("ca.json")).unwrap()).unwrap();
        let mut mixed: AuthorityFile = serde_json::from_str(&text).unwrap();
        mixed.certificate = other.certificate;
        for altered in [
            serde_json::to_string(&mixed).unwrap(),
            text.replace("Sealed\": \"", "Sealed\": \"AAAA"),
            "{}".to_owned(),
            String::new(),
        ] {
            fs::write(&stored, altered).unwrap();
            assert!(matches!(Authority::open(dir.path(), &root(1), NOW), Err(TlsError::Integrity { .. })));
        }
        fs::write(&stored, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let refused = Authority::open(dir.path(), &root(1), NOW).unwrap_err();
        assert!(matches!(refused, TlsError::NewerFormat { format: 2, known: 1, .. }), "{refused:?}");
        assert!(refused.to_string().contains("has format 2, this version of logseal knows format 1"), "{refused}");
    }
}
