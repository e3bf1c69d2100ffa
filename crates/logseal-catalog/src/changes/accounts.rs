//! Clusters, workspaces and their keys.

use super::{Rows, lacking, with_id};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AekRow, CatalogError, ClusterRow, WorkspaceKeyRow, WorkspaceRow};

impl Rows<'_> {
    pub(super) async fn add_cluster(&mut self, r: &ClusterRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO clusters VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(&r.name)
            .bind(r.created.0)
            .bind(&r.kek.vault_uri)
            .bind(&r.kek.name)
            .bind(&r.kek.version)
            .bind(mac(self.mac_key, r));
        self.store(ClusterRow::KIND, r.label(), query).await
    }

    pub(super) async fn add_workspace(&mut self, r: &WorkspaceRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO workspaces VALUES (?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(&r.name)
            .bind(r.cluster.as_bytes().as_slice())
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.store(WorkspaceRow::KIND, r.label(), query).await.map_err(lacking(ClusterRow::KIND, r.cluster))
    }

    pub(super) async fn add_workspace_key(&mut self, r: &WorkspaceKeyRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO workspace_keys VALUES (?, ?, ?, ?, ?, ?)")
            .bind(r.workspace.as_bytes().as_slice())
            .bind(&r.slot)
            .bind(&r.lookup)
            .bind(&r.sealed)
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.store(WorkspaceKeyRow::KIND, r.label(), query).await.map_err(lacking(WorkspaceRow::KIND, r.workspace))
    }

    pub(super) async fn add_aek(&mut self, r: &AekRow) -> Result<(), CatalogError> {
        if !self.any(with_id("SELECT 1 FROM clusters WHERE id = ?", r.cluster.as_bytes())).await? {
            return Err(CatalogError::Unknown { kind: ClusterRow::KIND, id: r.cluster.to_string() });
        }
        let query = sqlx::query("INSERT INTO aeks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.cluster.as_bytes().as_slice())
            .bind(i64::from(r.generation))
            .bind(&r.kek.vault_uri)
            .bind(&r.kek.name)
            .bind(&r.kek.version)
            .bind(&r.wrapped)
            .bind(&r.commitment)
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.store(AekRow::KIND, r.label(), query).await.map_err(lacking(WorkspaceRow::KIND, r.workspace))
    }
}
