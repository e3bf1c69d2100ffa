//! Key vaults beside the embedded one: which may be named, and whose certificates they may have.

use std::fs;

use logseal_vault::VaultUriPolicy;
use logseal_vault::azure::TlsTrust;
use logseal_vault::uri::Audience;
use serde::{Deserialize, Serialize};

use super::words;
use crate::error::CommandError;

/// Azure Key Vault, and whatever else speaks its keys API.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Azure {
    pub(crate) domains: String,
    pub(crate) hosts: String,
    pub(crate) ca_file: String,
    pub(crate) identities_file: String,
}

impl Default for Azure {
    fn default() -> Self {
        let domains = Audience::ALL.map(Audience::as_str).join(" ");
        Self { domains, hosts: String::new(), ca_file: String::new(), identities_file: String::new() }
    }
}

fn audience(key: &str, name: &str) -> Result<Audience, CommandError> {
    Audience::parse(name).ok_or_else(|| {
        let known = Audience::ALL.map(Audience::as_str).join(", ");
        CommandError::Config(format!("`{key}` has `{name}`; it can be: {known}"))
    })
}

impl Azure {
    /// Which vaults may be named.
    pub(crate) fn policy(&self) -> Result<VaultUriPolicy, CommandError> {
        let mut policy = VaultUriPolicy::none();
        for name in words(&self.domains) {
            policy = policy.allow_domain(audience("azure.domains", name)?);
        }
        for entry in words(&self.hosts) {
            let (host, named) = entry.split_once('=').map_or((entry, None), |(host, name)| (host, Some(name)));
            let audience = named.map(|name| audience("azure.hosts", name)).transpose()?;
            policy = policy.allow_host(host, audience).map_err(|error| {
                CommandError::Config(format!(
                    "`azure.hosts` has `{entry}`, which is no HOST, HOST:PORT or HOST:PORT=CLOUD: {error}"
                ))
            })?;
        }
        Ok(policy)
    }

    /// Whose certificates are taken: the machine's authorities, as far as it has any, and those of `azure.ca_file`.
    pub(crate) fn trust(&self) -> Result<TlsTrust, CommandError> {
        if self.ca_file.is_empty() {
            return Ok(TlsTrust::system().unwrap_or_else(|_| TlsTrust::none()));
        }
        let reading = CommandError::io(format!("read `azure.ca_file` `{}`", self.ca_file));
        let pem = fs::read(&self.ca_file).map_err(reading)?;
        let trust = TlsTrust::system().unwrap_or_else(|_| TlsTrust::none()).with_pem(&pem);
        trust.map_err(|error| CommandError::Config(format!("`azure.ca_file`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_domains_are_allowed_as_they_are_listed() {
        let azure = Azure {
            domains: "public".into(),
            hosts: "kv.internal:8443=china, b.vault.azure.cn".into(),
            ..Azure::default()
        };
        let policy = azure.policy().unwrap();
        for allowed in ["https://a.vault.azure.net", "https://kv.internal:8443", "https://b.vault.azure.cn/"] {
            assert!(policy.parse(allowed).is_ok(), "{allowed}");
        }
        for other in ["https://a.vault.azure.cn", "https://kv.internal", "https://a.managedhsm.azure.net"] {
            assert!(policy.parse(other).is_err(), "{other}");
        }
        assert!(Azure::default().policy().unwrap().parse("https://a.managedhsm.azure.net").is_ok());
    }

    #[test]
    fn wrong_lists_are_refused_by_the_key_and_the_word() {
        for (domains, hosts, expected) in [
            ("azure", "", "`azure.domains` has `azure`"),
            ("", "kv.internal", "`azure.hosts` has `kv.internal`"),
            ("", "kv.internal=moon", "`azure.hosts` has `moon`"),
            ("", "127.0.0.1:8420=public", "IP address"),
        ] {
            let azure = Azure { domains: domains.into(), hosts: hosts.into(), ..Azure::default() };
            let error = azure.policy().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let azure = Azure { ca_file: file.path().display().to_string(), ..Azure::default() };
        assert!(azure.trust().unwrap_err().to_string().contains("azure.ca_file"));
    }
}
