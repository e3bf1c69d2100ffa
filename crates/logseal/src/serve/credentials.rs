//! What the server writes into `credentials.json` for the clients of its data directory: at its start, and when the key in it is regenerated.

use std::path::PathBuf;
use std::sync::Arc;

use logseal_catalog::{Catalog, ResourceKind};
use logseal_control::provision::{DEFAULT_CLUSTER, DEFAULT_RESOURCE_GROUP, DEFAULT_SUBSCRIPTION, DEFAULT_WORKSPACE};
use logseal_core::WorkspaceId;
use logseal_keys::{AccessKeys, Slot};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::State;
use crate::credentials::{Credentials, Endpoints, Tokens};
use crate::data_dir::DataDir;
use crate::error::{Chain, CommandError};

/// The file while the server runs.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    pub(super) data_dir: PathBuf,
    pub(super) catalog: Catalog,
    pub(super) access: Arc<AccessKeys>,
}

impl CredentialsFile {
    /// Puts the primary key of `workspace` into the file, if it is the workspace in it. What fails is told: the key is regenerated all the
    /// same, and the next start writes the file.
    pub(super) async fn follow(&self, workspace: WorkspaceId) {
        if let Err(error) = self.write(workspace).await {
            warn!(error = %Chain(&error), "credentials.json still has a key that was regenerated: the next start writes it anew, and `logseal workspace keys` shows the key");
        }
    }

    async fn write(&self, workspace: WorkspaceId) -> Result<(), CommandError> {
        let keys = self.catalog.genuine_workspace_keys_of(workspace).await;
        let keys = keys.map_err(CommandError::start("read the workspace's keys"))?;
        let Some(primary) = keys.iter().find(|row| row.slot == Slot::Primary.as_str()) else { return Ok(()) };
        let key = self.access.reveal(primary).map_err(CommandError::start("open the workspace's key"))?;
        let data_dir = self.data_dir.clone();
        let write = move || Credentials::replace_workspace_key(&data_dir, &workspace.to_string(), key);
        spawn_blocking(write).await.map_err(CommandError::start("write `credentials.json`"))?
    }
}

impl State {
    pub(super) async fn credentials(
        &self,
        data_dir: &DataDir,
        tokens: Tokens,
        (vault_ca_file, tls_certificate_file): (PathBuf, PathBuf),
        endpoints: Endpoints,
    ) -> Result<Credentials, CommandError> {
        let start = "read the default workspace";
        let workspaces = self.catalog.workspaces().await.map_err(CommandError::start(start))?;
        let (keys, _) = self.catalog.genuine_workspace_keys().await.map_err(CommandError::start(start))?;
        let place = (DEFAULT_SUBSCRIPTION, DEFAULT_RESOURCE_GROUP, DEFAULT_WORKSPACE);
        let resource = self.catalog.resource(ResourceKind::Workspace, place.0, place.1, place.2).await;
        let resource = resource.map_err(CommandError::start(start))?.map(|row| row.id.workspace());
        let mut credentials = Credentials {
            subscription_id: DEFAULT_SUBSCRIPTION.to_owned(),
            resource_group: DEFAULT_RESOURCE_GROUP.to_owned(),
            cluster: DEFAULT_CLUSTER.to_owned(),
            workspace: DEFAULT_WORKSPACE.to_owned(),
            workspace_id: String::new(),
            workspace_key: zeroize::Zeroizing::default(),
            management_token: tokens.management,
            vault_token: tokens.vault,
            vault_ca_file,
            tls_certificate_file,
            endpoints,
        };
        // Somebody may have deleted it for good.
        let Some(workspace) = workspaces.iter().find(|row| Some(row.id) == resource) else { return Ok(credentials) };
        let missing = || CommandError::Refused("the default workspace's key is not in the catalog".to_owned());
        let id = workspace.id.to_string();
        let key = keys.iter().find(|row| row.workspace == workspace.id && row.slot == Slot::Primary.as_str());
        let workspace_key = match key {
            Some(row) => self.access.reveal(row).map_err(CommandError::start(start))?,
            // Its row was altered, or is gone: the file keeps what an earlier start wrote.
            None => {
                let kept = Credentials::workspace_key(data_dir.path()).filter(|(of, _)| *of == id);
                kept.ok_or_else(missing)?.1
            }
        };
        credentials.workspace_id = id;
        credentials.workspace_key = workspace_key;
        Ok(credentials)
    }
}
