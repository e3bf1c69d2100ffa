//! Clusters and workspaces as they come, change and go while the server runs.
//!
//! The catalog is changed first, and decides: everything here brings the running parts to what it says. Each call may be repeated, and
//! may be given up anywhere.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use logseal_catalog::{Catalog, CatalogError};
use logseal_core::{AekId, ClusterId, WorkspaceId};
use logseal_ingest::pipeline::backlog::Backlog;
use logseal_ingest::pipeline::cutter::Cutter;
use logseal_ingest::pipeline::logs::{LogError, Logs};
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::{AccessKeys, KeyError, KeyStatus, Keyring, Monitor};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::holder::first_answer;
use super::workspaces;

/// How long a log that is closed may take to become empty.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How long what is under way may hold a key that was destroyed: requests and lots take less, a query reads parts of a second at a time.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The running part of the server did not follow the catalog.
#[derive(Debug, Error)]
pub(super) enum DataPlaneTrouble {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot read the catalog")]
    Catalog(#[from] CatalogError),
    #[error("cannot open workspace `{workspace}`")]
    Workspace {
        workspace: WorkspaceId,
        #[source]
        source: KeyError,
    },
    #[error("workspace `{0}` is not in the catalog")]
    UnknownWorkspace(WorkspaceId),
    #[error("cluster `{0}` is not in the catalog")]
    UnknownCluster(ClusterId),
    #[error("the key of cluster `{cluster}` cannot be used now{}", .status.cause.map_or_else(String::new, |cause| format!(": {}", cause.fault)))]
    NoKey { cluster: String, status: KeyStatus },
    #[error("the log of cluster `{cluster}`, which workspace `{workspace}` is linked to, is not open")]
    NoLog { workspace: WorkspaceId, cluster: ClusterId },
    #[error("a key that was destroyed is still used by what was under way")]
    KeyInUse,
}

impl DataPlaneTrouble {
    /// Whether the same call may succeed later without anybody's doing.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Log(error) => error.is_passing(),
            Self::Catalog(error) => !matches!(error, CatalogError::Integrity { .. }),
            Self::Workspace { source, .. } => !source.is_lasting(),
            Self::UnknownWorkspace(_) | Self::UnknownCluster(_) => false,
            Self::NoKey { status, .. } => status.cause.is_none_or(|cause| !cause.definitive),
            Self::NoLog { .. } | Self::KeyInUse => true,
        }
    }
}

/// Workspaces that are deleted and can be recovered.
#[derive(Debug, Default)]
pub(super) struct Suspended(RwLock<HashSet<WorkspaceId>>);

impl Suspended {
    pub(super) fn add(&self, workspace: WorkspaceId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(workspace);
    }

    fn remove(&self, workspace: WorkspaceId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&workspace);
    }

    pub(super) fn has(&self, workspace: WorkspaceId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&workspace)
    }
}

/// The running part of the server, as far as resources change it.
#[derive(Debug)]
pub(super) struct DataPlane {
    pub(super) catalog: Catalog,
    pub(super) keyring: Arc<Keyring>,
    pub(super) access: Arc<AccessKeys>,
    pub(super) tables: Arc<Tables>,
    pub(super) logs: Arc<Logs>,
    pub(super) cutter: Cutter,
    pub(super) backlog: Arc<Backlog>,
    pub(super) suspended: Arc<Suspended>,
    pub(super) monitor: Arc<Monitor>,
}

impl DataPlane {
    /// Watches the key of `cluster` from now on, and opens its log as a start does; nothing is done when that is so already.
    pub(super) async fn open_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneTrouble> {
        let row = self.catalog.cluster(cluster).await?.ok_or(DataPlaneTrouble::UnknownCluster(cluster))?;
        let mut status = self.monitor.watch(cluster, &row.name);
        let status = first_answer(&mut status).await;
        if status.state.serves() { Ok(()) } else { Err(DataPlaneTrouble::NoKey { cluster: row.name, status }) }
    }

    /// Ends the log of `cluster` once all that it has is in segments, in quarantine or shredded, and removes its folder.
    ///
    /// [`LogError::NotSettled`] after a minute: the cluster takes no records any more, nothing is lost, and the call can be repeated.
    pub(super) async fn close_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneTrouble> {
        if self.keyring.suspension(cluster).is_some() {
            // Its keys were destroyed: what is left of its records counts as settled, and needs no key.
            self.logs.open(cluster).await?;
        }
        self.logs.close(cluster, SETTLED_WITHIN).await?;
        self.monitor.forget(cluster);
        Ok(())
    }

    /// Brings `workspace` to what the catalog says: its access keys and no others are accepted, new data goes to the cluster and under the
    /// key that it has now. Requests that are under way end where they began.
    pub(super) async fn open_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneTrouble> {
        let row = self.catalog.workspace(workspace).await?;
        let row = row.ok_or(DataPlaneTrouble::UnknownWorkspace(workspace))?;
        let keys = self.catalog.workspace_keys_of(workspace).await?;
        let opened = workspaces::open(&self.catalog, &self.keyring, &self.tables, &row).await;
        let cluster = opened.map_err(|source| DataPlaneTrouble::Workspace { workspace, source })?.cluster;
        if self.logs.replaying(cluster).await.is_none() {
            return Err(DataPlaneTrouble::NoLog { workspace, cluster });
        }
        // Last: a key that is accepted leads to a workspace that takes records.
        self.access.replace(workspace, &keys);
        self.suspended.remove(workspace);
        info!(%workspace, %cluster, "a workspace is open");
        Ok(())
    }

    /// `workspace` is deleted and can be recovered: its shippers' keys are nobody's and its queries are refused. What was acknowledged goes
    /// into segments all the same. [`DataPlane::open_workspace`] undoes it.
    pub(super) fn suspend_workspace(&self, workspace: WorkspaceId) {
        self.access.suspend(workspace);
        self.suspended.add(workspace);
        info!(%workspace, "a workspace is suspended");
    }

    /// The keys `aeks` were destroyed, with `workspace` all that it had: they leave memory, and so do all rows under them; no file of a log
    /// waits for their frames.
    ///
    /// [`DataPlaneTrouble::KeyInUse`] when something under way holds one of them for longer than it should: nobody gets it any more, and the
    /// call can be repeated to learn that it is gone.
    pub(super) async fn shred(&self, aeks: &[AekId], workspace: Option<WorkspaceId>) -> Result<(), DataPlaneTrouble> {
        // First of all: whoever finds a table or its rows gone learns from here that they were shredded.
        self.keyring.shred(aeks);
        if let Some(workspace) = workspace {
            self.access.forget(workspace);
            self.keyring.forget(workspace);
            self.tables.remove(workspace);
            self.suspended.remove(workspace);
        }
        self.cutter.shred(aeks);
        // The logs refuse these keys from now on: data keys under them are only in the files that are written now.
        self.logs.roll(aeks).await;
        let let_go = async {
            while self.keyring.is_in_use(aeks) {
                sleep(LOOK).await;
            }
        };
        timeout(LET_GO_WITHIN, let_go).await.map_err(|_| DataPlaneTrouble::KeyInUse)
    }

    /// Records under `aeks` that are acknowledged and in no segment yet; an estimate while a log is replayed after a start.
    pub(super) fn unsealed_of(&self, aeks: &[AekId]) -> u64 {
        self.backlog.unsealed_of(aeks)
    }
}
