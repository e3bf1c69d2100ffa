//! Which KEK protects which keys: rotation, and workspaces that go to another cluster.

use std::collections::HashMap;

use logseal_core::{AekId, ClusterId, TableId, WorkspaceId};

use super::control::invalid;
use super::{Rows, breaks_reference, with_id};
use crate::catalog::WORKSPACE;
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AekRow, CatalogError, ClusterRow, ColumnRow, KekRow, WorkspaceRow};

/// A workspace's way from one cluster to another.
pub(super) struct Link {
    pub(super) workspace: WorkspaceId,
    pub(super) from: ClusterId,
    pub(super) to: ClusterId,
}

impl Link {
    fn stale(&self) -> CatalogError {
        CatalogError::Stale { kind: WorkspaceRow::KIND, id: self.workspace.to_string() }
    }
}

const COLUMNS: &str = "SELECT * FROM columns WHERE table_id IN (SELECT id FROM tables WHERE workspace_id = ?)";

impl Rows<'_> {
    pub(super) async fn switch_kek(
        &mut self,
        cluster: ClusterId,
        kek: &KekRow,
        aeks: &[AekRow],
    ) -> Result<(), CatalogError> {
        let stale = || CatalogError::Stale { kind: ClusterRow::KIND, id: cluster.to_string() };
        let stored = self.cluster(cluster).await?;
        let rows = self.find(with_id("SELECT * FROM aeks WHERE cluster_id = ?", cluster.as_bytes())).await?;
        let mut known: HashMap<AekId, AekRow> = rows.into_iter().map(|row: AekRow| (row.id, row)).collect();
        for row in aeks {
            let old = known.remove(&row.id).ok_or_else(stale)?;
            if *row != (AekRow { kek: kek.clone(), wrapped: row.wrapped.clone(), ..old.clone() }) {
                return Err(invalid(row, "it differs in more than its wrapping, or is wrapped by another KEK version"));
            }
            if *row != old {
                self.update_aek(row).await?;
            }
        }
        if !known.is_empty() {
            return Err(stale());
        }
        let switched = ClusterRow { kek: kek.clone(), ..stored };
        let query =
            sqlx::query("UPDATE clusters SET kek_vault_uri = ?, kek_name = ?, kek_version = ?, mac = ? WHERE id = ?")
                .bind(&kek.vault_uri)
                .bind(&kek.name)
                .bind(&kek.version)
                .bind(mac(self.mac_key, &switched))
                .bind(cluster.as_bytes().as_slice());
        self.execute("update cluster", query).await
    }

    async fn cluster(&mut self, id: ClusterId) -> Result<ClusterRow, CatalogError> {
        let row = self.find_one("SELECT * FROM clusters WHERE id = ?", id.as_bytes()).await?;
        row.ok_or_else(|| CatalogError::Unknown { kind: ClusterRow::KIND, id: id.to_string() })
    }

    /// Writes what a new wrapping changes.
    async fn update_aek(&mut self, r: &AekRow) -> Result<(), CatalogError> {
        let query = sqlx::query(
            "UPDATE aeks SET cluster_id = ?, kek_vault_uri = ?, kek_name = ?, kek_version = ?, wrapped = ?, mac = ? \
             WHERE id = ?",
        )
        .bind(r.cluster.as_bytes().as_slice())
        .bind(&r.kek.vault_uri)
        .bind(&r.kek.name)
        .bind(&r.kek.version)
        .bind(&r.wrapped)
        .bind(mac(self.mac_key, r))
        .bind(r.id.as_bytes().as_slice());
        self.execute("update AEK", query).await
    }

    pub(super) async fn move_workspace(
        &mut self,
        link: &Link,
        aek: &AekRow,
        rewrapped: &[AekRow],
        columns: &[ColumnRow],
    ) -> Result<(), CatalogError> {
        let id = link.workspace;
        let unknown = || CatalogError::Unknown { kind: WorkspaceRow::KIND, id: id.to_string() };
        let stored: Option<WorkspaceRow> = self.find_one(WORKSPACE, id.as_bytes()).await?;
        let moved = WorkspaceRow { cluster: link.to, ..stored.clone().ok_or_else(unknown)? };
        let rows = self.find(with_id("SELECT * FROM aeks WHERE workspace_id = ?", id.as_bytes())).await?;
        let aeks: HashMap<AekId, AekRow> = rows.into_iter().map(|row: AekRow| (row.id, row)).collect();
        let rows = self.find(with_id(COLUMNS, id.as_bytes())).await?;
        let known: HashMap<(TableId, u32), ColumnRow> =
            rows.into_iter().map(|row: ColumnRow| ((row.table, row.ordinal), row)).collect();
        if aeks.contains_key(&aek.id) {
            // Nothing else brings the new AEK: this is the change whose answer was lost, or one that has been built upon since.
            let repeated = stored.is_some_and(|stored| stored == moved)
                && rewrapped.iter().chain([aek]).all(|row| aeks.get(&row.id) == Some(row))
                && known.len() == columns.len()
                && columns.iter().all(|row| known.get(&(row.table, row.ordinal)) == Some(row));
            return if repeated { Ok(()) } else { Err(link.stale()) };
        }
        let target = self.cluster(link.to).await?;
        if (aek.workspace, aek.cluster) != (id, link.to) {
            return Err(invalid(aek, "it belongs to another workspace or cluster"));
        }
        let generations = aeks.values().map(|row| row.generation).max().unwrap_or(0);
        if stored.is_none_or(|stored| stored.cluster != link.from)
            || target.kek != aek.kek
            || generations.checked_add(1) != Some(aek.generation)
        {
            return Err(link.stale());
        }
        self.add_aek(aek).await?;
        for row in rewrapped {
            let old = aeks.get(&row.id).filter(|old| old.cluster == link.from).ok_or_else(|| link.stale())?;
            let kek = target.kek.clone();
            if *row != (AekRow { cluster: link.to, kek, wrapped: row.wrapped.clone(), ..old.clone() }) {
                return Err(invalid(row, "it differs in more than its wrapping, or is wrapped by another KEK version"));
            }
            self.update_aek(row).await?;
        }
        self.reseal(link, aek.id, known, columns).await?;
        let query = sqlx::query("UPDATE workspaces SET cluster_id = ?, mac = ? WHERE id = ?")
            .bind(link.to.as_bytes().as_slice())
            .bind(mac(self.mac_key, &moved))
            .bind(id.as_bytes().as_slice());
        self.execute("update workspace", query).await
    }

    /// Replaces the columns `known` of the workspace by `columns`, which must be the same ones sealed under `aek`.
    async fn reseal(
        &mut self,
        link: &Link,
        aek: AekId,
        mut known: HashMap<(TableId, u32), ColumnRow>,
        columns: &[ColumnRow],
    ) -> Result<(), CatalogError> {
        for r in columns {
            let old = known.remove(&(r.table, r.ordinal)).ok_or_else(|| link.stale())?;
            if (r.aek, r.container, r.kind) != (aek, old.container, old.kind) {
                return Err(invalid(r, "it differs in more than its sealing, or is sealed under another AEK"));
            }
            let query = sqlx::query(
                "UPDATE columns SET aek_id = ?, name_sealed = ?, name_fingerprint = ?, mac = ? \
                 WHERE table_id = ? AND ordinal = ?",
            )
            .bind(r.aek.as_bytes().as_slice())
            .bind(&r.name_sealed)
            .bind(&r.name_fingerprint)
            .bind(mac(self.mac_key, r))
            .bind(r.table.as_bytes().as_slice())
            .bind(i64::from(r.ordinal));
            self.store(ColumnRow::KIND, r.label(), query).await?;
        }
        if known.is_empty() { Ok(()) } else { Err(link.stale()) }
    }

    pub(super) async fn remove_cluster(&mut self, id: ClusterId) -> Result<(), CatalogError> {
        self.execute("forget key versions", with_id("DELETE FROM kek_versions WHERE cluster_id = ?", id.as_bytes()))
            .await?;
        let query = with_id("DELETE FROM clusters WHERE id = ?", id.as_bytes());
        self.execute("remove cluster", query).await.map_err(|error| match breaks_reference(&error) {
            true => {
                let why = "workspaces or AEKs belong to it";
                CatalogError::Invalid { kind: ClusterRow::KIND, id: id.to_string(), why }
            }
            false => error,
        })
    }
}
