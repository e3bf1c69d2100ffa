//! `DIR/credentials.json`: addresses and secrets for the clients of a data directory, readable by its owner only.

use std::fmt::{self, Debug};
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use logseal_crypto::{Key256, OsRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::data_dir::replace_private;
use crate::error::CommandError;

const FILE: &str = "credentials.json";

/// The variable that overrides the management token.
pub(crate) const MANAGEMENT_TOKEN: &str = "LOGSEAL_MANAGEMENT_TOKEN";

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
    pub(crate) endpoints: Endpoints,
}

/// URLs of the listeners.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoints {
    pub(crate) otlp_grpc: String,
    pub(crate) management: String,
}

impl Credentials {
    /// Reads the file; flags and variables that override it are applied by callers.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, CommandError> {
        let file = data_dir.join(FILE);
        let text = std::fs::read(&file).map(Zeroizing::new);
        let text = text.map_err(|source| CommandError::NoCredentials { file: file.clone(), source })?;
        let mut read: Self =
            serde_json::from_slice(&text).map_err(|source| CommandError::Credentials { file, source })?;
        override_from(MANAGEMENT_TOKEN, &mut read.management_token);
        override_from("LOGSEAL_WORKSPACE_KEY", &mut read.workspace_key);
        for (variable, value) in [
            ("LOGSEAL_MANAGEMENT_ENDPOINT", &mut read.endpoints.management),
            ("LOGSEAL_OTLP_GRPC_ENDPOINT", &mut read.endpoints.otlp_grpc),
        ] {
            if let Ok(endpoint) = std::env::var(variable) {
                *value = endpoint;
            }
        }
        Ok(read)
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

    /// The management token of an earlier start, or a new one.
    pub(crate) fn keep_or_make_token(data_dir: &Path) -> Zeroizing<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Token {
            management_token: Zeroizing<String>,
        }
        let kept = std::fs::read(data_dir.join(FILE)).map(Zeroizing::new).ok();
        let kept =
            kept.and_then(|text| serde_json::from_slice::<Token>(&text).ok()).map(|token| token.management_token);
        kept.filter(|token| token.len() >= 32)
            .unwrap_or_else(|| Zeroizing::new(BASE64URL_NOPAD.encode(Key256::generate(OsRandom).expose())))
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
