//! What workspaces have sent on a day.

use super::{Rows, signed};
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{CatalogError, UsageRow};

/// A workspace that is gone is passed over: its last bytes may be noted after it was shredded.
const PUT_USAGE: &str = "INSERT INTO usage (workspace_id, day, bytes, reached, mac) SELECT ?1, ?2, ?3, ?4, ?5 \
    WHERE EXISTS (SELECT 1 FROM workspaces WHERE id = ?1) ON CONFLICT (workspace_id) DO UPDATE SET \
    day = excluded.day, bytes = excluded.bytes, reached = excluded.reached, mac = excluded.mac";

impl Rows<'_> {
    pub(super) async fn put_usage(&mut self, rows: &[UsageRow]) -> Result<(), CatalogError> {
        let Some(today) = rows.iter().map(|row| row.day).max() else { return Ok(()) };
        self.execute("forget usage", sqlx::query("DELETE FROM usage WHERE day < ?").bind(today)).await?;
        for r in rows {
            let query = sqlx::query(PUT_USAGE)
                .bind(r.workspace.as_bytes().as_slice())
                .bind(r.day)
                .bind(signed(UsageRow::KIND, || r.label(), r.bytes)?)
                .bind(r.reached)
                .bind(mac(self.mac_key, r));
            self.store(UsageRow::KIND, r.label(), query).await?;
        }
        Ok(())
    }
}
