//! Tables, columns and segments.

use super::{Rows, lacking, signed, with_id};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{
    AekRow, CatalogError, ColumnRow, CoverageRow, GarbageRow, SegmentCommit, SegmentRow, TableRow, WorkspaceRow,
};

const OLDER_AEK: &str = "SELECT 1 FROM aeks WHERE id = ?1 AND workspace_id = ?2 \
    AND generation < (SELECT max(generation) FROM aeks WHERE workspace_id = ?2)";

impl Rows<'_> {
    pub(super) async fn commit_segment(&mut self, commit: &SegmentCommit) -> Result<(), CatalogError> {
        let r = &commit.segment;
        let own = |c: &CoverageRow| (c.segment, c.table, c.aek) == (Some(r.id), r.table, r.aek);
        if let Some(stray) = commit.coverage.iter().find(|coverage| !own(coverage)) {
            let why = "it names another segment, table or AEK than the segment that it came with";
            return Err(CatalogError::Invalid { kind: CoverageRow::KIND, id: stray.label(), why });
        }
        if self.is_committed(commit).await? {
            return Ok(());
        }
        if !self.any(with_id("SELECT 1 FROM aeks WHERE id = ?", r.aek.as_bytes())).await? {
            return Err(CatalogError::Unknown { kind: AekRow::KIND, id: r.aek.to_string() });
        }
        // An object that was removed from here must not come back: whoever sweeps the store deletes it.
        if self.any(sqlx::query("SELECT 1 FROM garbage WHERE path = ?").bind(&r.path)).await? {
            return Err(CatalogError::Conflict { kind: GarbageRow::KIND, id: r.path.clone() });
        }
        self.add_table_once(&commit.table).await?;
        for column in &commit.columns {
            self.add_column_once(column).await?;
        }
        self.add_segment(r).await?;
        for coverage in &commit.coverage {
            self.add_coverage(coverage).await?;
        }
        for (file, attested) in &commit.attested {
            self.raise_attested(*file, *attested).await?;
        }
        Ok(())
    }

    /// Whether this very segment is there: its answer was lost, and what came with it is there too. Another one of its id is
    /// a conflict.
    async fn is_committed(&mut self, commit: &SegmentCommit) -> Result<bool, CatalogError> {
        let id = commit.segment.id;
        let stored: Option<SegmentRow> = self.find_one("SELECT * FROM segments WHERE id = ?", id.as_bytes()).await?;
        let Some(stored) = stored else { return Ok(false) };
        let query = sqlx::query("SELECT * FROM coverage WHERE segment_id = ? ORDER BY file_id, first")
            .bind(id.as_bytes().as_slice());
        let covered: Vec<CoverageRow> = self.find(query).await?;
        let mut coverage = commit.coverage.clone();
        coverage.sort_by_key(|row| (row.file, row.first));
        if stored == commit.segment && covered == coverage {
            return Ok(true);
        }
        Err(CatalogError::Conflict { kind: SegmentRow::KIND, id: id.to_string() })
    }

    pub(super) async fn add_table(&mut self, r: &TableRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO tables VALUES (?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.name.as_str())
            .bind(r.created.0)
            .bind(mac(self.mac_key, r));
        self.store(TableRow::KIND, r.label(), query).await.map_err(lacking(WorkspaceRow::KIND, r.workspace))
    }

    /// Adds the table unless it is there. Another one of its id or name is a conflict; when it was made does not count, because
    /// who adopts a segment does not know it.
    pub(super) async fn add_table_once(&mut self, r: &TableRow) -> Result<(), CatalogError> {
        match self.find_one::<TableRow>("SELECT * FROM tables WHERE id = ?", r.id.as_bytes()).await? {
            None => self.add_table(r).await,
            Some(stored) if stored.workspace == r.workspace && stored.name == r.name => Ok(()),
            Some(_) => Err(CatalogError::Conflict { kind: TableRow::KIND, id: r.label() }),
        }
    }

    /// A column is sealed under its workspace's newest AEK: an older one may be destroyed before it, and take the column with it.
    pub(super) async fn refuse_older_seal(&mut self, table: &TableRow, r: &ColumnRow) -> Result<(), CatalogError> {
        let query =
            sqlx::query(OLDER_AEK).bind(r.aek.as_bytes().as_slice()).bind(table.workspace.as_bytes().as_slice());
        match self.any(query).await? {
            true => Err(CatalogError::Stale { kind: ColumnRow::KIND, id: r.label() }),
            false => Ok(()),
        }
    }

    pub(super) async fn add_column_once(&mut self, r: &ColumnRow) -> Result<(), CatalogError> {
        let query = sqlx::query(
            "INSERT INTO columns VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (table_id, ordinal) DO NOTHING",
        )
        .bind(r.table.as_bytes().as_slice())
        .bind(i64::from(r.ordinal))
        .bind(i64::from(r.container))
        .bind(i64::from(r.kind))
        .bind(r.aek.as_bytes().as_slice())
        .bind(&r.name_sealed)
        .bind(&r.name_fingerprint)
        .bind(mac(self.mac_key, r));
        // Its table is there: it came with it.
        self.store(ColumnRow::KIND, r.label(), query).await.map_err(lacking(AekRow::KIND, r.aek))
    }

    async fn add_segment(&mut self, r: &SegmentRow) -> Result<(), CatalogError> {
        let signed = |value| signed(SegmentRow::KIND, || r.label(), value);
        let query = sqlx::query("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.workspace.as_bytes().as_slice())
            .bind(r.table.as_bytes().as_slice())
            .bind(r.aek.as_bytes().as_slice())
            .bind(&r.path)
            .bind(signed(r.bytes)?)
            .bind(signed(r.rows)?)
            .bind(r.min_time.0)
            .bind(r.max_time.0)
            .bind(r.created.0)
            .bind(&r.wrapped_dek)
            .bind(&r.dek_commitment)
            .bind(mac(self.mac_key, r));
        // Its table and AEK are there: they were looked at before.
        self.store(SegmentRow::KIND, r.label(), query).await.map_err(lacking(WorkspaceRow::KIND, r.workspace))
    }
}
