//! What the control plane asks of the running server.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use futures::TryStreamExt as _;
use logseal_catalog::AuditHead;
use logseal_control::{AnchorStore, DataPlane, DataPlaneError, Objects, QuotaStatus};
use logseal_core::{AekId, Chain, ClusterId, WorkspaceId};
use logseal_ingest::{DailyCaps, quota};
use logseal_keys::KeyStatus;
use logseal_segment::SegmentStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::credentials::CredentialsFile;
use super::data_plane::{self, DataPlaneTrouble};
use crate::data_dir::DataDir;

/// The store, for objects that go.
#[derive(Debug)]
pub(super) struct Removals(pub(super) SegmentStore);

#[async_trait]
impl Objects for Removals {
    async fn delete(&self, path: &str) -> Result<(), String> {
        let path = Path::parse(path).map_err(|error| error.to_string())?;
        self.0.delete(&path).await.map_err(|error| Chain(&error).to_string())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let prefix = Path::parse(prefix).map_err(|error| error.to_string())?;
        let found: Vec<_> =
            self.0.list(Some(&prefix)).try_collect().await.map_err(|error| Chain(&error).to_string())?;
        Ok(found.into_iter().map(|object| object.path.to_string()).collect())
    }
}

/// The running part of the server.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) data: data_plane::DataPlane,
    pub(super) caps: Arc<DailyCaps>,
    pub(super) credentials: CredentialsFile,
}

fn trouble(error: DataPlaneTrouble) -> DataPlaneError {
    DataPlaneError { is_passing: error.is_passing(), message: Chain(&error).to_string() }
}

#[async_trait]
impl DataPlane for Plane {
    async fn open_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError> {
        self.data.open_cluster(cluster).await.map_err(trouble)
    }

    async fn close_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError> {
        self.data.close_cluster(cluster).await.map_err(trouble)
    }

    async fn open_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError> {
        self.data.open_workspace(workspace).await.map_err(trouble)
    }

    async fn suspend_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError> {
        self.data.suspend_workspace(workspace);
        Ok(())
    }

    async fn shred(&self, keys: &[AekId], workspace: Option<WorkspaceId>) -> Result<(), DataPlaneError> {
        if let Some(workspace) = workspace {
            self.caps.forget(workspace);
        }
        self.data.shred(keys, workspace).await.map_err(trouble)
    }

    fn unsealed_of(&self, keys: &[AekId]) -> u64 {
        self.data.unsealed_of(keys)
    }

    fn set_daily_cap(&self, workspace: WorkspaceId, bytes: Option<u64>, version: u64) {
        self.caps.set_cap(workspace, bytes, version);
    }

    async fn access_keys_changed(&self, workspace: WorkspaceId) {
        self.credentials.follow(workspace).await;
    }

    fn key_status(&self, cluster: ClusterId) -> Option<KeyStatus> {
        self.data.monitor.status(cluster)
    }

    fn key_states_version(&self) -> u64 {
        self.data.monitor.version()
    }

    fn key_changed(&self, cluster: ClusterId) {
        self.data.monitor.nudge(cluster);
    }

    fn quota_status(&self, workspace: WorkspaceId) -> QuotaStatus {
        match self.caps.status(workspace) {
            quota::QuotaStatus::RespectQuota => QuotaStatus::RespectQuota,
            quota::QuotaStatus::ApproachingQuota => QuotaStatus::ApproachingQuota,
            quota::QuotaStatus::OverQuota => QuotaStatus::OverQuota,
        }
    }
}

/// The anchor of the audit trail as a file of its own, so that who puts back an older catalog alone is noticed.
#[derive(Debug)]
pub(crate) struct AnchorFile(PathBuf);

impl AnchorFile {
    pub(crate) fn of(data_dir: &DataDir) -> Self {
        Self(data_dir.join("audit.head"))
    }
}

#[derive(Deserialize, Serialize)]
struct StoredAnchor {
    sequence: u64,
    mac: String,
}

impl AnchorStore for AnchorFile {
    fn load(&self) -> io::Result<Option<AuditHead>> {
        let bytes = match std::fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let StoredAnchor { sequence, mac } = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        let mac = HEXLOWER.decode(mac.as_bytes()).map_err(io::Error::other)?;
        Ok(Some(AuditHead { sequence, mac }))
    }

    fn store(&self, anchor: &AuditHead) -> io::Result<()> {
        let folder = self.0.parent().unwrap_or(&self.0);
        let stored = StoredAnchor { sequence: anchor.sequence, mac: HEXLOWER.encode(&anchor.mac) };
        let mut file = NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, &stored)?;
        file.as_file().sync_all()?;
        file.persist(&self.0).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }
}
