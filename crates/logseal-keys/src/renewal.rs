//! Account keys under another KEK, and column names under another account key: what happens when a cluster's KEK changes or a workspace
//! is linked to another cluster.
//!
//! Everything may be repeated: a key whose copy is in the store already is taken from there, so that a change that was interrupted ends
//! with the key that it began with, and the store never has two keys of one id.

use logseal_catalog::{AekRow, ColumnRow, KekRow};
use logseal_core::ClusterId;
use logseal_crypto::{Key256, OsRandom};
use logseal_vault::{KeyId, VaultError};

use crate::wrapped_key_copy::{self, AekOwner};
use crate::{KeyError, Keyring, schema};

impl Keyring {
    /// The key of `row`, which `owner`'s workspace has, wrapped by `kek` instead: unwrapped by the vault, wrapped, proven by an
    /// unwrap, and its copy durable in the store under `owner`'s cluster.
    ///
    /// # Errors
    ///
    /// [`KeyError::Vault`], [`KeyError::Commitment`], [`KeyError::KekName`], [`KeyError::Copy`], [`KeyError::BadCopy`].
    pub async fn rewrap(&self, row: &AekRow, owner: AekOwner<'_>, kek: &KeyId) -> Result<AekRow, KeyError> {
        let renewed = AekRow { cluster: owner.cluster.id, kek: kek_row(kek), wrapped: Vec::new(), ..row.clone() };
        if let Some(copied) = self.copied(&renewed).await? {
            return Ok(copied);
        }
        let key = self.unwrap_key(row).await?;
        let wrapped = self.wrap(owner.cluster.id, kek, &key).await;
        let wrapped = wrapped.map_err(|source| KeyError::Vault { aek: row.id, source })?;
        drop(key);
        let renewed = AekRow { wrapped, ..renewed };
        self.prove(&renewed).await?;
        self.copy(&renewed, owner).await?;
        Ok(renewed)
    }

    /// Proves that `kek` wraps a key and unwraps it to the same one, when it is asked as `cluster`.
    ///
    /// # Errors
    ///
    /// [`VaultError`], with [`VaultError::BadWrap`] when another key comes back.
    pub async fn probe(&self, cluster: ClusterId, kek: &KeyId) -> Result<(), VaultError> {
        let key = Key256::generate(OsRandom);
        let vault = self.vaults.vault_of(cluster, kek).await?;
        let wrapped = vault.wrap(kek, &key).await?;
        let back = vault.unwrap(kek, &wrapped).await?;
        if back.ct_eq(&key) { Ok(()) } else { Err(VaultError::BadWrap(kek.clone())) }
    }

    /// `columns` of one workspace with their names sealed under the key of `row` instead, which is not in the catalog yet: whoever adds it
    /// there counts them.
    ///
    /// # Errors
    ///
    /// [`KeyError::ColumnName`] when a name does not open, and as [`Keyring::aek`].
    pub async fn reseal(&self, columns: &[ColumnRow], row: &AekRow) -> Result<Vec<ColumnRow>, KeyError> {
        let to = self.unwrap(row).await?;
        let mut resealed = Vec::with_capacity(columns.len());
        for column in columns {
            let from = self.aek(column.aek).await?;
            let name = schema::open_column_name(&from, column)?;
            let ColumnRow { table, ordinal, container, kind, .. } = *column;
            resealed.push(schema::seal_column(&to, table, ordinal, container, kind, &name)?);
        }
        Ok(resealed)
    }

    /// The key that is to be wrapped as `row` says, when its copy is in the store already.
    pub(crate) async fn copied(&self, row: &AekRow) -> Result<Option<AekRow>, KeyError> {
        let path = wrapped_key_copy::path_of(row);
        let Some(content) = self.copies.get(&path).await.map_err(KeyError::Copy)? else { return Ok(None) };
        let copied = wrapped_key_copy::parse(&path, &content, &self.mac_key)?.aek;
        let is_same = (copied.workspace, copied.generation, &copied.kek) == (row.workspace, row.generation, &row.kek);
        let committed = row.commitment.is_empty() || row.commitment == copied.commitment;
        if !is_same || !committed {
            return Err(KeyError::BadCopy { path: path.to_string(), why: "it is the copy of another key" });
        }
        self.prove(&copied).await?;
        Ok(Some(copied))
    }

    pub(crate) async fn copy(&self, row: &AekRow, owner: AekOwner<'_>) -> Result<(), KeyError> {
        let (path, content) = wrapped_key_copy::object(row, owner, &self.mac_key);
        self.copies.put_new(&path, content).await.map_err(KeyError::Copy)
    }
}

/// How rows name a KEK version.
#[must_use]
pub fn kek_row(kek: &KeyId) -> KekRow {
    KekRow { vault_uri: kek.vault_uri.to_string(), name: kek.name.to_string(), version: kek.version.to_string() }
}
