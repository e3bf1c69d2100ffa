//! What one workspace has, at one moment.
//!
//! Only rows of that workspace are read, through indexes, so that neither the number of other workspaces nor a row of theirs that was
//! altered matters. MACs cover the ids that rows are found by: a row that was moved here is refused. One that was moved away is not
//! found by its owner any more, and so all that has a second owner is also looked for by that one: a segment by its table, a column by
//! its AEK, coverage by its segment. What only the second owner knows is a *stray*, and refused. A table has no second owner, but what
//! refers to it: its segments and columns are strays without it.

use std::collections::HashSet;

use logseal_core::WorkspaceId;
use sqlx::SqliteConnection;

use crate::codec::Decode;
use crate::rows::Authenticated as _;
use crate::{Catalog, CatalogError, ColumnRow, CoverageRow, SegmentRow, TableRow};

/// One workspace's tables, columns, segments and coverage at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its tables.
    pub tables: Vec<TableRow>,
    /// The attribute columns of all its tables, by table and order of assignment.
    pub columns: Vec<ColumnRow>,
    /// The segments of all its tables, oldest first.
    pub segments: Vec<SegmentRow>,
    /// The settled frames of the streams of all its tables, by stream, file and first sequence number.
    pub coverage: Vec<CoverageRow>,
}

const TABLES: &str = "SELECT * FROM tables WHERE workspace_id = ?1 ORDER BY name";

const COLUMNS: &str = "SELECT * FROM columns WHERE table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) \
    ORDER BY table_id, ordinal";

const STRAY_COLUMNS: &str = "SELECT * FROM columns WHERE aek_id IN (SELECT id FROM aeks WHERE workspace_id = ?1) \
    AND table_id NOT IN (SELECT id FROM tables WHERE workspace_id = ?1) LIMIT 1";

const SEGMENTS: &str = "SELECT * FROM segments WHERE workspace_id = ?1 ORDER BY table_id, min_time, id";

/// In two halves, for which SQLite looks only at the ends of each table's owners; `<>` would walk through all segments of the table.
const STRAY_SEGMENTS: &str = "SELECT * FROM segments INDEXED BY segments_by_table WHERE workspace_id < ?1 \
    AND table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) \
    UNION ALL SELECT * FROM segments INDEXED BY segments_by_table WHERE workspace_id > ?1 \
    AND table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) LIMIT 1";

const COVERAGE: &str = "SELECT * FROM coverage WHERE table_id IN (SELECT id FROM tables WHERE workspace_id = ?1) \
    ORDER BY table_id, aek_id, file_id, first";

/// The table of a coverage row is always its segment's.
const STRAY_COVERAGE: &str = "SELECT coverage.* FROM segments CROSS JOIN coverage ON coverage.segment_id = segments.id \
    AND coverage.table_id <> segments.table_id WHERE segments.workspace_id = ?1 LIMIT 1";

impl Catalog {
    /// The tables and columns of `workspace`, without its segments and coverage.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn schema(&self, workspace: WorkspaceId) -> Result<Snapshot, CatalogError> {
        let mut moment = self.readers.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        self.read_schema(&mut moment, workspace).await
    }

    /// The tables, columns, segments and coverage of `workspace`, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn snapshot(&self, workspace: WorkspaceId) -> Result<Snapshot, CatalogError> {
        let mut moment = self.readers.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        let schema = self.read_schema(&mut moment, workspace).await?;
        let segments: Vec<SegmentRow> = self.owned(&mut moment, SEGMENTS, STRAY_SEGMENTS, workspace).await?;
        let tables: HashSet<_> = schema.tables.iter().map(|table| table.id).collect();
        if let Some(row) = segments.iter().find(|row| !tables.contains(&row.table)) {
            return Err(CatalogError::Integrity { kind: SegmentRow::KIND, id: row.label() });
        }
        let coverage = self.owned(&mut moment, COVERAGE, STRAY_COVERAGE, workspace).await?;
        Ok(Snapshot { segments, coverage, ..schema })
    }

    async fn read_schema(
        &self,
        moment: &mut SqliteConnection,
        workspace: WorkspaceId,
    ) -> Result<Snapshot, CatalogError> {
        let tables = self.read_all(moment, sqlx::query(TABLES).bind(workspace.as_bytes().as_slice())).await?;
        let columns = self.owned(moment, COLUMNS, STRAY_COLUMNS, workspace).await?;
        Ok(Snapshot { tables, columns, ..Snapshot::default() })
    }

    /// The rows that `own` finds for `workspace`, unless `strays` finds any.
    async fn owned<R: Decode>(
        &self,
        moment: &mut SqliteConnection,
        own: &'static str,
        strays: &'static str,
        workspace: WorkspaceId,
    ) -> Result<Vec<R>, CatalogError> {
        let query = |sql| sqlx::query(sql).bind(workspace.as_bytes().as_slice());
        let rows = self.read_all(moment, query(own)).await?;
        match self.read_all::<R>(moment, query(strays)).await?.first() {
            None => Ok(rows),
            Some(stray) => Err(CatalogError::Integrity { kind: R::KIND, id: stray.label() }),
        }
    }
}

#[cfg(test)]
mod tests;
