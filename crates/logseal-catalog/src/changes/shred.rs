//! What goes: destroyed keys with all that they sealed, segments whose time is over, and objects that nobody refers to.

use logseal_core::{AekId, SegmentId, UnixNanos, WorkspaceId};

use super::{Rows, with_id};
use crate::catalog::WORKSPACE;
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AekRow, CatalogError, GarbageRow, SegmentRow, ShreddedRow, WorkspaceRow};

/// Segments that are held in memory at a time: an AEK may have any number.
const SEGMENTS_OF: &str = "SELECT * FROM segments WHERE aek_id = ? LIMIT 500";

/// Coverage is found by its table: its primary key begins with it.
const FORGET_COVERAGE: &str = "DELETE FROM coverage WHERE aek_id = ?1 \
    AND table_id IN (SELECT id FROM tables WHERE workspace_id = ?2)";

/// What is left of a workspace without AEKs, in the order in which it can go.
const FORGET_WORKSPACE: [&str; 6] = [
    // Of frames in quarantine, whose AEK never was one of this workspace's.
    "DELETE FROM coverage WHERE table_id IN (SELECT id FROM tables WHERE workspace_id = ?)",
    "DELETE FROM tables WHERE workspace_id = ?",
    "DELETE FROM workspace_key_uses WHERE workspace_id = ?",
    "DELETE FROM workspace_keys WHERE workspace_id = ?",
    "DELETE FROM usage WHERE workspace_id = ?",
    "DELETE FROM workspaces WHERE id = ?",
];

impl Rows<'_> {
    pub(super) async fn shred_aeks(&mut self, aeks: &[AekId], at: UnixNanos) -> Result<(), CatalogError> {
        for id in aeks {
            match self.find_one::<AekRow>("SELECT * FROM aeks WHERE id = ?", id.as_bytes()).await? {
                Some(row) => self.shred_aek(&row, at).await?,
                None if self.is_shredded(*id).await? => {}
                None => return Err(CatalogError::Unknown { kind: AekRow::KIND, id: id.to_string() }),
            }
        }
        Ok(())
    }

    async fn is_shredded(&mut self, id: AekId) -> Result<bool, CatalogError> {
        let row = self.find_one::<ShreddedRow>("SELECT * FROM shredded WHERE aek_id = ?", id.as_bytes()).await?;
        Ok(row.is_some())
    }

    async fn shred_aek(&mut self, aek: &AekRow, at: UnixNanos) -> Result<(), CatalogError> {
        loop {
            // Read with their MACs: a path that was planted must not have another object deleted.
            let segments: Vec<SegmentRow> = self.find(with_id(SEGMENTS_OF, aek.id.as_bytes())).await?;
            if segments.is_empty() {
                break;
            }
            for segment in &segments {
                self.remove_segment(segment, at).await?;
            }
        }
        let query =
            sqlx::query(FORGET_COVERAGE).bind(aek.id.as_bytes().as_slice()).bind(aek.workspace.as_bytes().as_slice());
        self.execute("forget coverage", query).await?;
        self.execute("shred columns", with_id("DELETE FROM columns WHERE aek_id = ?", aek.id.as_bytes())).await?;
        self.execute("forget wraps", with_id("DELETE FROM aek_wraps WHERE aek_id = ?", aek.id.as_bytes())).await?;
        self.execute("shred AEK", with_id("DELETE FROM aeks WHERE id = ?", aek.id.as_bytes())).await?;
        let shredded = ShreddedRow { aek: aek.id, workspace: aek.workspace, at };
        let query = sqlx::query("INSERT INTO shredded VALUES (?, ?, ?, ?)")
            .bind(aek.id.as_bytes().as_slice())
            .bind(aek.workspace.as_bytes().as_slice())
            .bind(at.0)
            .bind(mac(self.mac_key, &shredded));
        self.store(ShreddedRow::KIND, shredded.label(), query).await
    }

    pub(super) async fn shred_workspace(&mut self, id: WorkspaceId, at: UnixNanos) -> Result<(), CatalogError> {
        let stored: Option<WorkspaceRow> = self.find_one(WORKSPACE, id.as_bytes()).await?;
        if stored.is_none() {
            // A workspace never was without an AEK.
            let query = with_id("SELECT 1 FROM shredded WHERE workspace_id = ? LIMIT 1", id.as_bytes());
            return match self.any(query).await? {
                true => Ok(()),
                false => Err(CatalogError::Unknown { kind: WorkspaceRow::KIND, id: id.to_string() }),
            };
        }
        let aeks: Vec<AekRow> = self.find(with_id("SELECT * FROM aeks WHERE workspace_id = ?", id.as_bytes())).await?;
        for aek in &aeks {
            self.shred_aek(aek, at).await?;
        }
        for sql in FORGET_WORKSPACE {
            self.execute("shred workspace", with_id(sql, id.as_bytes())).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_segments(&mut self, ids: &[SegmentId], at: UnixNanos) -> Result<(), CatalogError> {
        for id in ids {
            if let Some(row) = self.find_one("SELECT * FROM segments WHERE id = ?", id.as_bytes()).await? {
                self.remove_segment(&row, at).await?;
            }
        }
        Ok(())
    }

    async fn remove_segment(&mut self, r: &SegmentRow, at: UnixNanos) -> Result<(), CatalogError> {
        self.note_garbage(&r.path, at).await?;
        self.execute("remove segment", with_id("DELETE FROM segments WHERE id = ?", r.id.as_bytes())).await
    }

    pub(super) async fn add_garbage(&mut self, paths: &[String], at: UnixNanos) -> Result<(), CatalogError> {
        for path in paths {
            self.note_garbage(path, at).await?;
        }
        Ok(())
    }

    async fn note_garbage(&mut self, path: &str, at: UnixNanos) -> Result<(), CatalogError> {
        let row = GarbageRow { path: path.to_owned(), since: at };
        let query = sqlx::query("INSERT INTO garbage VALUES (?, ?, ?) ON CONFLICT (path) DO NOTHING")
            .bind(path)
            .bind(at.0)
            .bind(mac(self.mac_key, &row));
        self.execute("note garbage", query).await
    }

    pub(super) async fn forget_garbage(&mut self, paths: &[String]) -> Result<(), CatalogError> {
        for path in paths {
            let query = sqlx::query("DELETE FROM garbage WHERE path = ?").bind(path);
            self.execute("forget garbage", query).await?;
        }
        Ok(())
    }
}
