//! Access keys in the place of others, and when each was last presented.

use super::{Rows, lacking};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{CatalogError, WorkspaceKeyRow, WorkspaceKeyUseRow, WorkspaceRow};

/// Does not look at the row that is there: a key whose row was altered is replaced like any other.
const PUT_KEY: &str = "INSERT INTO workspace_keys (workspace_id, slot, lookup, sealed, created, mac) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (workspace_id, slot) DO UPDATE SET \
    lookup = excluded.lookup, sealed = excluded.sealed, created = excluded.created, mac = excluded.mac";

const FORGET_USE: &str = "DELETE FROM workspace_key_uses WHERE workspace_id = ? AND slot = ? AND lookup <> ?";

/// What is noted of a key that is not there any more is passed over: it is told of up to a minute late.
const PUT_USE: &str = "INSERT INTO workspace_key_uses (workspace_id, slot, lookup, used, mac) SELECT ?1, ?2, ?3, ?4, ?5 \
    WHERE EXISTS (SELECT 1 FROM workspace_keys WHERE workspace_id = ?1 AND slot = ?2 AND lookup = ?3) \
    ON CONFLICT (workspace_id, slot) DO UPDATE SET lookup = excluded.lookup, used = excluded.used, mac = excluded.mac";

impl Rows<'_> {
    pub(super) async fn replace_workspace_key(&mut self, r: &WorkspaceKeyRow) -> Result<(), CatalogError> {
        let forget =
            sqlx::query(FORGET_USE).bind(r.workspace.as_bytes().as_slice()).bind(&r.slot).bind(r.lookup.as_slice());
        self.execute("forget use of key", forget).await?;
        let query = sqlx::query(PUT_KEY)
            .bind(r.workspace.as_bytes().as_slice())
            .bind(&r.slot)
            .bind(&r.lookup)
            .bind(&r.sealed)
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.store(WorkspaceKeyRow::KIND, r.label(), query).await.map_err(lacking(WorkspaceRow::KIND, r.workspace))
    }

    pub(super) async fn put_workspace_key_uses(&mut self, rows: &[WorkspaceKeyUseRow]) -> Result<(), CatalogError> {
        for r in rows {
            let query = sqlx::query(PUT_USE)
                .bind(r.workspace.as_bytes().as_slice())
                .bind(&r.slot)
                .bind(&r.lookup)
                .bind(r.used.0)
                .bind(mac(self.mac_key, r));
            self.store(WorkspaceKeyUseRow::KIND, r.label(), query).await?;
        }
        Ok(())
    }
}
