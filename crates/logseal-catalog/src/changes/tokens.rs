//! Tokens of the management API.

use super::Rows;
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{CatalogError, TokenRow};

impl Rows<'_> {
    pub(super) async fn add_token(&mut self, r: &TokenRow) -> Result<(), CatalogError> {
        let query = sqlx::query("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(&r.name)
            .bind(&r.lookup)
            .bind(&r.role)
            .bind(r.workspace_bytes())
            .bind(r.created.0)
            .bind(r.expires.map(|expires| expires.0))
            .bind(mac(self.mac_key, r));
        let Err(error) = self.store(TokenRow::KIND, r.label(), query).await else { return Ok(()) };
        // It is there already after an answer that was lost. One whose row was altered is another one.
        let found = self.find::<TokenRow>(sqlx::query("SELECT * FROM tokens WHERE name = ?").bind(&r.name)).await;
        if found.is_ok_and(|found| found.first() == Some(r)) { Ok(()) } else { Err(error) }
    }

    /// Also one whose row was altered: it opens nothing, and is in the way.
    pub(super) async fn remove_token(&mut self, name: &str) -> Result<(), CatalogError> {
        self.execute("remove token", sqlx::query("DELETE FROM tokens WHERE name = ?").bind(name)).await
    }
}
