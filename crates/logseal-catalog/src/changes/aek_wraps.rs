//! What account keys may have sealed.

use super::{Rows, signed, with_id};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AekWrapsRow, CatalogError};

/// An AEK that is gone is passed over: it may be destroyed before whoever seals with it is told.
const PUT: &str = "INSERT INTO aek_wraps (aek_id, wraps, mac) SELECT ?1, ?2, ?3 \
    WHERE EXISTS (SELECT 1 FROM aeks WHERE id = ?1) \
    ON CONFLICT (aek_id) DO UPDATE SET wraps = excluded.wraps, mac = excluded.mac";

impl Rows<'_> {
    pub(super) async fn reserve_aek_wraps(&mut self, r: &AekWrapsRow) -> Result<(), CatalogError> {
        let stored = self.find::<AekWrapsRow>(with_id("SELECT * FROM aek_wraps WHERE aek_id = ?", r.aek.as_bytes()));
        if stored.await?.iter().any(|stored| stored.wraps >= r.wraps) {
            return Ok(());
        }
        let query = sqlx::query(PUT)
            .bind(r.aek.as_bytes().as_slice())
            .bind(signed(AekWrapsRow::KIND, || r.label(), r.wraps)?)
            .bind(mac(self.mac_key, r));
        self.store(AekWrapsRow::KIND, r.label(), query).await
    }
}
