//! Tokens of the management API.

use crate::{Catalog, CatalogError, TokenRow};

impl Catalog {
    /// All tokens, by name, and why each row that was altered is refused.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn tokens(&self) -> Result<(Vec<TokenRow>, Vec<CatalogError>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.sift(&mut connection, "SELECT * FROM tokens ORDER BY name").await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use logseal_core::{UnixNanos, WorkspaceId};

    use crate::catalog::tests::{filled, run_sql};
    use crate::{CatalogError, Change, TokenRow};

    pub(crate) fn row(name: &str, byte: u8) -> TokenRow {
        TokenRow {
            name: name.to_owned(),
            lookup: vec![byte; 32],
            role: "reader".to_owned(),
            workspaces: vec![WorkspaceId::from_bytes([2; 16]), WorkspaceId::from_bytes([5; 16])],
            created: UnixNanos(7),
            expires: Some(UnixNanos(9)),
        }
    }

    /// Scenario: tokens are added, one of them twice as after an answer that was lost, and one under a name that there is; one is removed, twice.
    /// Guarantee: what is there is what was added, a name is never given away under its holder, and repeating does no harm.
    #[tokio::test]
    async fn tokens_are_added_once_and_removed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        let everywhere = TokenRow { workspaces: vec![], expires: None, ..row("b", 2) };
        for row in [row("a", 1), row("a", 1), everywhere.clone()] {
            catalog.apply(Change::AddToken(row)).await.unwrap();
        }
        let taken = catalog.apply(Change::AddToken(TokenRow { role: "operator".to_owned(), ..row("a", 3) })).await;
        assert!(matches!(taken, Err(CatalogError::Conflict { kind: "token", .. })), "{taken:?}");
        assert_eq!(catalog.tokens().await.unwrap().0, [row("a", 1), everywhere.clone()]);
        for _ in 0..2 {
            catalog.apply(Change::RemoveToken { name: "a".to_owned() }).await.unwrap();
            assert_eq!(catalog.tokens().await.unwrap().0.as_slice(), std::slice::from_ref(&everywhere));
        }
    }

    /// Scenario: who can write the file gives a token another role. Guarantee: it is refused by name, the others are found, and it can be removed.
    #[tokio::test]
    async fn an_altered_token_is_refused_and_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        for row in [row("a", 1), row("b", 2)] {
            catalog.apply(Change::AddToken(row)).await.unwrap();
        }
        run_sql(&dir.path().join("catalog.sqlite"), "UPDATE tokens SET role = 'operator' WHERE name = 'a'").await;
        let (genuine, refused) = catalog.tokens().await.unwrap();
        assert_eq!(genuine, [row("b", 2)]);
        assert!(matches!(&refused[..], [CatalogError::Integrity { kind: "token", id }] if id == "a"), "{refused:?}");
        catalog.apply(Change::RemoveToken { name: "a".to_owned() }).await.unwrap();
        assert!(catalog.tokens().await.unwrap().1.is_empty());
    }
}
