//! What is to go, and what went: segments whose time is over, objects that nobody refers to, and destroyed keys.

use logseal_core::{AekId, ClusterId, UnixNanos, WorkspaceId};
use sqlx::{Executor as _, Row as _};

use crate::rows::Authenticated as _;
use crate::{AekRow, Catalog, CatalogError, GarbageRow, SegmentRow, ShreddedRow};

/// How much one AEK sealed, as far as segments of it are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GenerationSize {
    /// The AEK.
    pub aek: AekId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// Its number of segments.
    pub segments: u64,
    /// Their records.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The index has all that is asked for: no segment's row is read.
const GENERATION_SIZES: &str = "SELECT aeks.id, aeks.workspace_id, count(segments.id), \
    coalesce(sum(segments.row_count), 0), coalesce(sum(segments.bytes), 0) \
    FROM aeks LEFT JOIN segments ON segments.aek_id = aeks.id WHERE aeks.cluster_id = ?1 \
    GROUP BY aeks.id ORDER BY aeks.workspace_id, aeks.generation";

const EXPIRED: &str = "SELECT * FROM segments INDEXED BY segments_by_age WHERE workspace_id = ?1 AND created < ?2 \
    ORDER BY created, id LIMIT ?3";

const GARBAGE: &str = "SELECT * FROM garbage WHERE since < ?1 ORDER BY since, path LIMIT ?2";

impl Catalog {
    /// How much each AEK of `cluster` sealed, by workspace and generation. For showing, not for deciding: MACs are not checked.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Integrity`] when a sum is impossible, [`CatalogError::Sql`].
    pub async fn generation_sizes(&self, cluster: ClusterId) -> Result<Vec<GenerationSize>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        let query = sqlx::query(GENERATION_SIZES).bind(cluster.as_bytes().as_slice());
        let rows = connection.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
        let size = |row: &sqlx::sqlite::SqliteRow| {
            let id = |column| row.try_get::<Vec<u8>, _>(column).ok()?.try_into().ok();
            let number = |column| u64::try_from(row.try_get::<i64, _>(column).ok()?).ok();
            Some(GenerationSize {
                aek: AekId::from_bytes(id(0)?),
                workspace: WorkspaceId::from_bytes(id(1)?),
                segments: number(2)?,
                rows: number(3)?,
                bytes: number(4)?,
            })
        };
        let impossible = || CatalogError::Integrity { kind: AekRow::KIND, id: format!("of cluster {cluster}") };
        rows.iter().map(|row| size(row).ok_or_else(impossible)).collect()
    }

    /// The oldest segments of `workspace` that were made before `created_before`, at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn expired_segments(
        &self,
        workspace: WorkspaceId,
        created_before: UnixNanos,
        limit: u32,
    ) -> Result<Vec<SegmentRow>, CatalogError> {
        let query = sqlx::query(EXPIRED).bind(workspace.as_bytes().as_slice()).bind(created_before.0).bind(limit);
        self.all(query).await
    }

    /// Objects that nothing has referred to since before `since_before`, longest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn garbage(&self, since_before: UnixNanos, limit: u32) -> Result<Vec<GarbageRow>, CatalogError> {
        self.all(sqlx::query(GARBAGE).bind(since_before.0).bind(limit)).await
    }

    /// All destroyed AEKs.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn shredded(&self) -> Result<Vec<ShreddedRow>, CatalogError> {
        self.all(sqlx::query("SELECT * FROM shredded ORDER BY aek_id")).await
    }

    /// Whether the AEK `id` was destroyed.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn is_shredded(&self, id: AekId) -> Result<bool, CatalogError> {
        let query = sqlx::query("SELECT * FROM shredded WHERE aek_id = ?").bind(id.as_bytes().as_slice());
        Ok(!self.all::<ShreddedRow>(query).await?.is_empty())
    }
}
