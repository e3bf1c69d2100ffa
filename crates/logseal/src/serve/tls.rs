//! TLS of the listeners: who is served without it, and by which certificate.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use logseal_core::UnixNanos;
use logseal_ingest::{grpc, http};
use logseal_tls::{Acceptor, Certificates, ClientCertificates, serve};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::CommandError;
use crate::root_key;

/// The certificate in use, for commands on this machine.
const COPY: &str = "tls.pem";

/// What makes connections of the listeners' streams.
#[derive(Debug)]
pub(super) struct Acceptors {
    pub(super) grpc: Acceptor,
    pub(super) http: Acceptor,
    pub(super) management: Acceptor,
    /// What follows changes of the files; none without TLS.
    pub(super) certificates: Option<Certificates>,
    /// The file with the certificate in use; empty without TLS.
    pub(super) certificate_file: PathBuf,
}

/// Without TLS a listener would send keys and logs over the network in clear; with a root key that lies beside what it protects, whoever
/// gets in has both.
pub(super) fn refuse_public(config: &Config, data_dir: &Path) -> Result<(), CommandError> {
    let listen = &config.listen;
    let addresses = [
        ("listen.otlp_grpc", listen.otlp_grpc),
        ("listen.otlp_http", listen.otlp_http),
        ("listen.management", listen.management),
    ];
    let public = addresses.iter().find(|(_, address)| !address.ip().is_loopback());
    let Some((key, address)) = public else { return Ok(()) };
    if config.tls.files()?.is_none() {
        return Err(CommandError::Config(format!(
            "`{key}` is {address}: without TLS only loopback addresses such as 127.0.0.1 are served; set `tls.certificate` and `tls.key`"
        )));
    }
    if root_key::would_be_generated(data_dir, &config.vault.root_key_file) {
        return Err(CommandError::Config(format!(
            "`{key}` is {address}: with a root key that is generated inside the data directory only loopback addresses such as 127.0.0.1 \
             are served; set `vault.root_key_file` or {}",
            root_key::VARIABLE
        )));
    }
    Ok(())
}

impl Acceptors {
    /// Reads the files that `config` names.
    pub(super) fn open(config: &Config, data_dir: &DataDir, now: UnixNanos) -> Result<Self, CommandError> {
        let Some(files) = config.tls.files()? else {
            let plain = Acceptor::plain;
            let (certificates, certificate_file) = (None, PathBuf::new());
            return Ok(Self { grpc: plain(), http: plain(), management: plain(), certificates, certificate_file });
        };
        let offers = [
            (grpc::PROTOCOLS, ClientCertificates::Asked),
            (http::PROTOCOLS, ClientCertificates::Asked),
            // Its token is the only way in.
            (serve::PROTOCOLS, ClientCertificates::Ignored),
        ];
        let copy = data_dir.join(COPY);
        let (certificates, [grpc, http, management]) = Certificates::open(files, copy.clone(), offers, now)
            .map_err(CommandError::start("use the certificate of the listeners"))?;
        let certificate_file =
            copy.canonicalize().map_err(CommandError::io("find the copy of the listeners' certificate"))?;
        Ok(Self { grpc, http, management, certificates: Some(certificates), certificate_file })
    }
}

/// Where clients on this machine find what is served at `address`.
pub(super) fn url(acceptor: &Acceptor, address: SocketAddr) -> String {
    let mut address = address;
    // Not an address of anybody: that of this machine is meant.
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let scheme = if acceptor.is_tls() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_this_machine() {
        for (address, expected) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("192.0.2.1:1", "http://192.0.2.1:1"),
        ] {
            assert_eq!(url(&Acceptor::plain(), address.parse().unwrap()), expected);
        }
    }
}
