//! The KEK versions that clusters used.

use super::Rows;
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{CatalogError, KekVersionRow};

/// A cluster that is gone is passed over: its key may be probed until whoever does it is told.
const PUT: &str = "INSERT INTO kek_versions (cluster_id, kek_vault_uri, kek_name, kek_version, probe, commitment, used, mac) \
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM clusters WHERE id = ?1) \
    ON CONFLICT (cluster_id, kek_vault_uri, kek_name, kek_version) DO UPDATE SET \
    probe = excluded.probe, commitment = excluded.commitment, used = excluded.used, mac = excluded.mac";

impl Rows<'_> {
    pub(super) async fn put_kek_version(&mut self, r: &KekVersionRow) -> Result<(), CatalogError> {
        let query = sqlx::query(PUT)
            .bind(r.cluster.as_bytes().as_slice())
            .bind(&r.kek.vault_uri)
            .bind(&r.kek.name)
            .bind(&r.kek.version)
            .bind(&r.probe)
            .bind(&r.commitment)
            .bind(r.used.0)
            .bind(mac(self.mac_key, r));
        self.store(KekVersionRow::KIND, r.label(), query).await
    }
}
