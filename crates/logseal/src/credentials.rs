//! `DIR/credentials.json`: addresses and secrets for the clients of a data directory, readable by its owner only.

use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use logseal_crypto::{Key256, OsRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::data_dir::replace_private;
use crate::error::CommandError;

const FILE: &str = "credentials.json";

/// The variable that overrides the management token.
pub(crate) const MANAGEMENT_TOKEN: &str = "LOGSEAL_MANAGEMENT_TOKEN";

/// The variables that override what commands know of the vault.
pub(crate) const VAULT_TOKEN: &str = "LOGSEAL_VAULT_TOKEN";
pub(crate) const VAULT_ENDPOINT: &str = "LOGSEAL_VAULT_ENDPOINT";
pub(crate) const VAULT_CA_FILE: &str = "LOGSEAL_VAULT_CA_FILE";

/// The least length of a token that is kept.
const TOKEN_BYTES: usize = 32;

/// What a client of the data directory needs.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credentials {
    pub(crate) subscription_id: String,
    pub(crate) resource_group: String,
    pub(crate) cluster: String,
    pub(crate) workspace: String,
    pub(crate) workspace_id: String,
    pub(crate) workspace_key: Zeroizing<String>,
    pub(crate) management_token: Zeroizing<String>,
    /// Empty in a file of a version whose vault had no address; so are its certificates and its endpoint, and that of OTLP/HTTP.
    #[serde(default)]
    pub(crate) vault_token: Zeroizing<String>,
    #[serde(default)]
    pub(crate) vault_ca_file: PathBuf,
    /// The certificate that the other listeners have; empty without TLS.
    #[serde(default)]
    pub(crate) tls_certificate_file: PathBuf,
    pub(crate) endpoints: Endpoints,
}

/// The tokens that administrators present.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Tokens {
    #[serde(rename = "managementToken")]
    pub(crate) management: Zeroizing<String>,
    #[serde(rename = "vaultToken")]
    pub(crate) vault: Zeroizing<String>,
}

/// URLs of the listeners.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoints {
    pub(crate) otlp_grpc: String,
    #[serde(default)]
    pub(crate) otlp_http: String,
    pub(crate) management: String,
    #[serde(default)]
    pub(crate) vault: String,
}

impl Credentials {
    /// Reads the file; flags and variables that override it are applied by callers.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, CommandError> {
        let mut read = Self::stored(data_dir)?;
        override_from(MANAGEMENT_TOKEN, &mut read.management_token);
        override_from(VAULT_TOKEN, &mut read.vault_token);
        override_from("LOGSEAL_WORKSPACE_KEY", &mut read.workspace_key);
        if let Some(file) = std::env::var_os(VAULT_CA_FILE) {
            read.vault_ca_file = file.into();
        }
        for (variable, value) in [
            ("LOGSEAL_MANAGEMENT_ENDPOINT", &mut read.endpoints.management),
            ("LOGSEAL_OTLP_GRPC_ENDPOINT", &mut read.endpoints.otlp_grpc),
            (VAULT_ENDPOINT, &mut read.endpoints.vault),
        ] {
            if let Ok(endpoint) = std::env::var(variable) {
                *value = endpoint;
                if variable != VAULT_ENDPOINT {
                    // Another server's certificate is another one.
                    read.tls_certificate_file = PathBuf::new();
                }
            }
        }
        Ok(read)
    }

    /// The file as it is.
    fn stored(data_dir: &Path) -> Result<Self, CommandError> {
        let file = data_dir.join(FILE);
        let text = std::fs::read(&file).map(Zeroizing::new);
        let text = text.map_err(|source| CommandError::NoCredentials { file: file.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| CommandError::Credentials { file, source })
    }

    /// Writes the file with another key, when it is about the workspace with this id.
    pub(crate) fn replace_workspace_key(
        data_dir: &Path,
        workspace_id: &str,
        key: Zeroizing<String>,
    ) -> Result<(), CommandError> {
        let stored = Self::stored(data_dir)?;
        if stored.workspace_id != workspace_id {
            return Ok(());
        }
        Self { workspace_key: key, ..stored }.write(data_dir)
    }

    /// The workspace in the file and its primary key, for a catalog that has lost them; nothing when the file does not say.
    pub(crate) fn workspace_key(data_dir: &Path) -> Option<(String, Zeroizing<String>)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Workspace {
            workspace_id: String,
            workspace_key: Zeroizing<String>,
        }
        let text = std::fs::read(data_dir.join(FILE)).map(Zeroizing::new).ok()?;
        let Workspace { workspace_id, workspace_key } = serde_json::from_slice(&text).ok()?;
        Some((workspace_id, workspace_key))
    }

    /// Writes the file.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), CommandError> {
        let file = data_dir.join(FILE);
        let writing = CommandError::io(format!("write `{}`", file.display()));
        let text = serde_json::to_vec_pretty(self).map(Zeroizing::new);
        text.map_err(std::io::Error::other).and_then(|text| replace_private(&file, &text)).map_err(writing)
    }

    /// The tokens of an earlier start, or new ones.
    pub(crate) fn keep_or_make_tokens(data_dir: &Path) -> Tokens {
        let kept = std::fs::read(data_dir.join(FILE)).map(Zeroizing::new).ok();
        let kept = kept.and_then(|text| serde_json::from_slice::<Tokens>(&text).ok()).unwrap_or_default();
        let made = || Zeroizing::new(BASE64URL_NOPAD.encode(Key256::generate(OsRandom).expose()));
        let kept_or_made = |token: Zeroizing<String>| if token.len() >= TOKEN_BYTES { token } else { made() };
        Tokens { management: kept_or_made(kept.management), vault: kept_or_made(kept.vault) }
    }
}

impl Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens([redacted])")
    }
}

fn override_from(variable: &str, value: &mut Zeroizing<String>) {
    if let Ok(text) = std::env::var(variable) {
        *value = Zeroizing::new(text);
    }
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("workspace", &self.workspace)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_the_vault_is_read_and_its_tokens_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let old = format!(
            r#"{{"subscriptionId":"s","resourceGroup":"g","cluster":"c","workspace":"w","workspaceId":"i","workspaceKey":"k",
                "managementToken":"{}","endpoints":{{"otlpGrpc":"a","management":"b"}}}}"#,
            "m".repeat(43)
        );
        std::fs::write(dir.path().join(FILE), old).unwrap();
        let mut read = Credentials::read(dir.path()).unwrap();
        assert!(read.vault_token.is_empty() && read.endpoints.vault.is_empty() && read.endpoints.otlp_http.is_empty());
        let first = Credentials::keep_or_make_tokens(dir.path());
        assert_eq!(first.management.as_str(), "m".repeat(43));
        assert_eq!(first.vault.len(), 43);
        assert!(!format!("{first:?}{read:?}").contains(first.vault.as_str()));

        read.vault_token = first.vault.clone();
        read.write(dir.path()).unwrap();
        for (workspace, expected) in [("another", "k"), ("i", "new")] {
            Credentials::replace_workspace_key(dir.path(), workspace, Zeroizing::new("new".to_owned())).unwrap();
            assert_eq!(Credentials::stored(dir.path()).unwrap().workspace_key.as_str(), expected);
        }
        let second = Credentials::keep_or_make_tokens(dir.path());
        assert_eq!((second.management, second.vault), (first.management, first.vault));
    }
}
