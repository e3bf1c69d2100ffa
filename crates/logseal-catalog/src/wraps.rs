//! How often account keys may have sealed by now: what is reserved for each before it seals.

use logseal_core::AekId;

use crate::{AekWrapsRow, Catalog, CatalogError};

impl Catalog {
    /// The wraps that are reserved for the AEK `id`; `None` when nothing was ever reserved: whoever made the key did not count, or its count
    /// was lost with an earlier catalog.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`]; other AEKs' rows do not matter.
    pub async fn aek_wraps_of(&self, id: AekId) -> Result<Option<u64>, CatalogError> {
        let query = sqlx::query("SELECT * FROM aek_wraps WHERE aek_id = ?").bind(id.as_bytes().as_slice());
        Ok(self.all::<AekWrapsRow>(query).await?.pop().map(|row| row.wraps))
    }

    /// The wraps that are reserved for each AEK that has any, and why each row that was altered is refused.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn aek_wraps(&self) -> Result<(Vec<AekWrapsRow>, Vec<CatalogError>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.sift(&mut connection, "SELECT * FROM aek_wraps ORDER BY aek_id").await
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::{AekId, UnixNanos};

    use crate::catalog::tests::{filled, run_sql};
    use crate::{AekWrapsRow, CatalogError, Change};

    const AEK: AekId = AekId::from_bytes([3; 16]);

    /// Scenario: wraps are reserved, fewer than that again, and more than before; for a key that is not there; then the key is destroyed, and
    /// somebody who does not know yet reserves more. Guarantee: the number never falls, and nothing is kept of a key that is not there.
    #[tokio::test]
    async fn reserved_wraps_never_fall_and_go_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let gone = AekId::from_bytes([0xEE; 16]);
        let reserve = async |aek, wraps| {
            catalog.apply(Change::ReserveAekWraps(AekWrapsRow { aek, wraps })).await.unwrap();
            catalog.aek_wraps_of(aek).await.unwrap()
        };
        assert_eq!(catalog.aek_wraps_of(AEK).await.unwrap(), None);
        assert_eq!(reserve(AEK, 0).await, Some(0));
        assert_eq!(reserve(AEK, 500).await, Some(500));
        assert_eq!(reserve(AEK, 500).await, Some(500), "an answer that was lost does no harm");
        assert_eq!(reserve(AEK, 499).await, Some(500));
        assert_eq!(reserve(gone, 5).await, None);
        let (rows, refused) = catalog.aek_wraps().await.unwrap();
        assert_eq!((rows, refused.len()), (vec![AekWrapsRow { aek: AEK, wraps: 500 }], 0));
        catalog.apply(Change::ShredAeks { aeks: vec![AEK], at: UnixNanos(1) }).await.unwrap();
        assert_eq!(reserve(AEK, 900).await, None);
        assert_eq!(catalog.aek_wraps().await.unwrap().0, []);
    }

    /// Scenario: the number of a key is lowered on the disk. Guarantee: it is neither believed nor built upon.
    #[tokio::test]
    async fn a_lowered_number_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let reserve = |wraps| catalog.apply(Change::ReserveAekWraps(AekWrapsRow { aek: AEK, wraps }));
        reserve(500).await.unwrap();
        run_sql(&dir.path().join("catalog.sqlite"), "UPDATE aek_wraps SET wraps = 5").await;
        let (rows, told) = catalog.aek_wraps().await.unwrap();
        assert!(rows.is_empty() && told.len() == 1, "{rows:?}");
        for refused in [catalog.aek_wraps_of(AEK).await.err(), reserve(600).await.err()] {
            assert!(matches!(refused, Some(CatalogError::Integrity { kind: "AEK wraps", .. })), "{refused:?}");
        }
    }
}
