//! Files of the write-ahead log, and which of their frames are settled.

use logseal_core::{UnixNanos, WalFileId};

use super::{Rows, lacking, signed, with_id};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{CatalogError, CoverageRow, TableRow, WalFileRow, WalFileState};

/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;

impl Rows<'_> {
    pub(super) async fn register_wal_file(&mut self, r: &WalFileRow) -> Result<(), CatalogError> {
        if r.header_hash.len() != HASH_BYTES {
            let why = "the hash of its header has not 32 bytes";
            return Err(CatalogError::Invalid { kind: WalFileRow::KIND, id: r.label(), why });
        }
        match self.wal_file(r.id).await? {
            Some(stored) if stored == *r => return Ok(()),
            Some(_) => return Err(CatalogError::Conflict { kind: WalFileRow::KIND, id: r.label() }),
            None => {}
        }
        let signed = |value| signed(WalFileRow::KIND, || r.label(), value);
        let query = sqlx::query("INSERT INTO wal_files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(r.id.as_bytes().as_slice())
            .bind(r.node.as_bytes().as_slice())
            .bind(r.cluster.as_bytes().as_slice())
            .bind(signed(r.ordinal)?)
            .bind(&r.header_hash)
            .bind(r.created.0)
            .bind(i64::from(r.state.code()))
            .bind(r.changed.0)
            .bind(signed(r.attested)?)
            .bind(mac(self.mac_key, r));
        self.store(WalFileRow::KIND, r.label(), query).await
    }

    pub(super) async fn set_wal_file_state(
        &mut self,
        file: WalFileId,
        state: WalFileState,
        at: UnixNanos,
    ) -> Result<(), CatalogError> {
        match self.wal_file(file).await? {
            None => Err(CatalogError::Unknown { kind: WalFileRow::KIND, id: file.to_string() }),
            Some(stored) if stored.state == state => Ok(()),
            Some(stored) => self.update_wal_file(&WalFileRow { state, changed: at, ..stored }).await,
        }
    }

    pub(super) async fn raise_attested(&mut self, file: WalFileId, attested: u64) -> Result<(), CatalogError> {
        match self.wal_file(file).await? {
            Some(stored) if stored.attested < attested => {
                self.update_wal_file(&WalFileRow { attested, ..stored }).await
            }
            _ => Ok(()),
        }
    }

    /// The file's row, authenticated: what is written anew from it gets a valid MAC.
    async fn wal_file(&mut self, file: WalFileId) -> Result<Option<WalFileRow>, CatalogError> {
        self.find_one("SELECT * FROM wal_files WHERE id = ?", file.as_bytes()).await
    }

    /// Writes the fields that may change.
    async fn update_wal_file(&mut self, r: &WalFileRow) -> Result<(), CatalogError> {
        let query = sqlx::query("UPDATE wal_files SET state = ?, changed = ?, attested = ?, mac = ? WHERE id = ?")
            .bind(i64::from(r.state.code()))
            .bind(r.changed.0)
            .bind(signed(WalFileRow::KIND, || r.label(), r.attested)?)
            .bind(mac(self.mac_key, r))
            .bind(r.id.as_bytes().as_slice());
        self.execute("update WAL file", query).await
    }

    pub(super) async fn quarantine(&mut self, coverage: &[CoverageRow]) -> Result<(), CatalogError> {
        for row in coverage {
            if row.segment.is_some() {
                let why = "quarantined frames are in no segment";
                return Err(CatalogError::Invalid { kind: CoverageRow::KIND, id: row.label(), why });
            }
            self.add_coverage(row).await?;
        }
        Ok(())
    }

    pub(super) async fn add_coverage(&mut self, r: &CoverageRow) -> Result<(), CatalogError> {
        if r.first > r.last {
            let why = "its range ends before it begins";
            return Err(CatalogError::Invalid { kind: CoverageRow::KIND, id: r.label(), why });
        }
        let signed = |value| signed(CoverageRow::KIND, || r.label(), value);
        let (first, last) = (signed(r.first)?, signed(r.last)?);
        let nearest = sqlx::query(
            "SELECT * FROM coverage WHERE table_id = ? AND aek_id = ? AND file_id = ? AND first <= ? \
             ORDER BY first DESC LIMIT 1",
        )
        .bind(r.table.as_bytes().as_slice())
        .bind(r.aek.as_bytes().as_slice())
        .bind(r.file.as_bytes().as_slice())
        .bind(last);
        if self.find::<CoverageRow>(nearest).await?.iter().any(|stored| stored.last >= r.first) {
            return Err(CatalogError::Covered { file: r.file, first: r.first, last: r.last });
        }
        let query = sqlx::query("INSERT INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(r.table.as_bytes().as_slice())
            .bind(r.aek.as_bytes().as_slice())
            .bind(r.file.as_bytes().as_slice())
            .bind(first)
            .bind(last)
            .bind(r.segment.as_ref().map(|id| id.as_bytes().as_slice()))
            .bind(mac(self.mac_key, r));
        self.store(CoverageRow::KIND, r.label(), query).await.map_err(lacking(TableRow::KIND, r.table))
    }

    pub(super) async fn forget_wal_files(&mut self, retired_before: UnixNanos) -> Result<(), CatalogError> {
        let query = sqlx::query("SELECT * FROM wal_files WHERE state = ? AND changed < ?")
            .bind(i64::from(WalFileState::Retired.code()))
            .bind(retired_before.0);
        // Read with their MACs: a state that was planted must not remove what tells of a loss.
        for file in self.find::<WalFileRow>(query).await? {
            let id = file.id.as_bytes();
            self.execute("forget coverage", with_id("DELETE FROM coverage WHERE file_id = ?", id)).await?;
            self.execute("forget WAL file", with_id("DELETE FROM wal_files WHERE id = ?", id)).await?;
        }
        Ok(())
    }
}
