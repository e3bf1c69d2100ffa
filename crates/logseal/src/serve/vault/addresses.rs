//! Where the embedded vault is and was served: what names it in a cluster's `keyVaultUri`.
//!
//! Key identifiers carry the address that the request named, and clusters keep what they were given. The vault's address may change with
//! the configuration, or with each start when its port is 0; an address under which it once gave out identifiers stays its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::data_dir::replace_private;
use crate::error::CommandError;
use crate::serve::VAULT_URI;

const FORMAT: u32 = 1;

/// All addresses of the vault so far. They are loopback addresses, of which there are not many.
#[derive(Debug)]
pub(in crate::serve) struct Addresses(BTreeSet<SocketAddr>);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    addresses: BTreeSet<SocketAddr>,
}

impl Addresses {
    /// Those in `file` and `now`, durably.
    pub(super) fn with(file: &PathBuf, now: SocketAddr) -> Result<Self, CommandError> {
        let reading = CommandError::io(format!("read `{}`", file.display()));
        let mut addresses = match fs::read(file) {
            Ok(bytes) => {
                let stored: Stored = serde_json::from_slice(&bytes).map_err(io::Error::other).map_err(reading)?;
                if stored.format != FORMAT {
                    let (file, format) = (file.display(), stored.format);
                    let message = format!(
                        "`{file}` has format {format}, which this version does not know: start the version that wrote it"
                    );
                    return Err(CommandError::Refused(message));
                }
                stored.addresses
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(reading(error)),
        };
        if addresses.insert(now) {
            let writing = CommandError::io(format!("write `{}`", file.display()));
            let text = serde_json::to_vec_pretty(&Stored { format: FORMAT, addresses: addresses.clone() });
            text.map_err(io::Error::other).and_then(|text| replace_private(file, &text)).map_err(writing)?;
        }
        Ok(Self(addresses))
    }

    /// Whether `uri` names the embedded vault, now or earlier.
    pub(in crate::serve) fn is_ours(&self, uri: &str) -> bool {
        is_ours(uri, &self.0)
    }
}

/// Whether `uri` is the URI that is stored for the vault, or names one of `addresses`; 127.0.0.1, `::1` and `localhost` are one machine.
fn is_ours(uri: &str, addresses: &BTreeSet<SocketAddr>) -> bool {
    let uri = uri.to_ascii_lowercase();
    if uri.trim_end_matches('/') == VAULT_URI {
        return true;
    }
    let Ok(uri) = uri.parse::<Uri>() else { return false };
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
        return false;
    }
    let port = authority.port_u16().unwrap_or(443);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse::<IpAddr>().ok(),
    };
    let Some(address) = address else { return false };
    let is_usual = address == IpAddr::from([127, 0, 0, 1]) || address == IpAddr::from([0_u16, 0, 0, 0, 0, 0, 0, 1]);
    addresses.contains(&SocketAddr::new(address, port))
        || (is_usual && addresses.iter().any(|known| known.port() == port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vault_is_known_by_each_address_that_it_had_and_by_no_other() {
        let known = ["127.0.0.1:41234", "127.0.0.2:5000"].map(|address| address.parse().unwrap()).into();
        for ours in [
            VAULT_URI,
            "https://127.0.0.1:8420/",
            "HTTPS://127.0.0.1:41234",
            "https://localhost:41234/",
            "https://LocalHost:41234",
            "https://[::1]:41234",
            "https://127.0.0.2:5000",
            "https://127.0.0.1:5000",
        ] {
            assert!(is_ours(ours, &known), "{ours}");
        }
        for other in [
            "",
            "https://127.0.0.1",
            "https://127.0.0.1:41235",
            "https://127.0.0.2:41234",
            "http://127.0.0.1:41234",
            "https://127.0.0.1:41234/keys",
            "https://127.0.0.1:41234/?a=b",
            "https://user@127.0.0.1:41234",
            "https://localhost.example:41234",
            "https://kv.vault.azure.net",
            "127.0.0.1:41234",
        ] {
            assert!(!is_ours(other, &known), "{other}");
        }
    }

    #[test]
    fn addresses_outlive_a_restart_and_a_file_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("addresses.json");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for port in [5001, 5002, 5001] {
            Addresses::with(&file, address(port)).unwrap();
        }
        let addresses = Addresses::with(&file, address(5003)).unwrap();
        for port in [5001, 5002, 5003] {
            assert!(addresses.is_ours(&format!("https://localhost:{port}")));
        }
        fs::write(&file, r#"{"format": 2, "addresses": []}"#).unwrap();
        let refused = Addresses::with(&file, address(5004)).unwrap_err().to_string();
        assert!(refused.contains("format 2"), "{refused}");
    }
}
