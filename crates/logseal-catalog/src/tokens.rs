//! Tokens of the management API.

use sqlx::{Executor as _, Row as _};

use crate::codec::read;
use crate::{Catalog, CatalogError, TokenRow};

/// A token whose row was altered. What it says of itself is worth nothing but to tell its holder and the operator which one it is.
#[derive(Debug)]
pub struct RefusedToken {
    /// What the row calls it.
    pub name: Option<String>,
    /// The HMAC by which the row has it found.
    pub lookup: Option<Vec<u8>>,
    /// Why it is refused.
    pub error: CatalogError,
}

impl Catalog {
    /// All tokens, by name, and those whose rows were altered.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`].
    pub async fn tokens(&self) -> Result<(Vec<TokenRow>, Vec<RefusedToken>), CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        let rows = connection.fetch_all("SELECT * FROM tokens ORDER BY name").await;
        let (mut genuine, mut refused) = (Vec::new(), Vec::new());
        for row in rows.map_err(CatalogError::sql("read"))? {
            match read(&self.mac_key, &row) {
                Ok(token) => genuine.push(token),
                Err(error) => refused.push(RefusedToken {
                    name: row.try_get("name").ok(),
                    lookup: row.try_get("lookup").ok(),
                    error,
                }),
            }
        }
        Ok((genuine, refused))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use logseal_core::{UnixNanos, WorkspaceId};

    use crate::catalog::tests::{filled, run_sql};
    use crate::{CatalogError, Change, RefusedToken, TokenRow};

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

    /// Scenario: who can write the file gives a token another role, then grants that are none. Guarantee: it is refused by name, with what it is found
    /// by, the others are found, and it can be removed.
    #[tokio::test]
    async fn an_altered_token_is_refused_and_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(&dir).await;
        for row in [row("a", 1), row("b", 2)] {
            catalog.apply(Change::AddToken(row)).await.unwrap();
        }
        for alteration in ["role = 'operator'", "workspaces = x'00'"] {
            let sql = format!("UPDATE tokens SET {alteration} WHERE name = 'a'");
            run_sql(&dir.path().join("catalog.sqlite"), &sql).await;
            let (genuine, refused) = catalog.tokens().await.unwrap();
            assert_eq!(genuine, [row("b", 2)], "{alteration}");
            let [RefusedToken { name, lookup, error }] = &refused[..] else { panic!("{alteration}: {refused:?}") };
            assert_eq!((name.as_deref(), lookup), (Some("a"), &Some(vec![1; 32])), "{alteration}");
            assert!(matches!(error, CatalogError::Integrity { kind: "token", id } if id == "a"), "{error:?}");
        }
        catalog.apply(Change::RemoveToken { name: "a".to_owned() }).await.unwrap();
        assert!(catalog.tokens().await.unwrap().1.is_empty());
    }
}
