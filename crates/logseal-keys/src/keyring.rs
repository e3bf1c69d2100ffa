//! Makes, unwraps and hands out account keys (AEKs).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use logseal_catalog::{AekRow, Catalog, SegmentRow};
use logseal_core::{AekId, Chain, Clock, ClusterId, WorkspaceId};
use logseal_crypto::{Aek, Commitment, Dek, Key256, MacKey, OsRandom, WrappedDek};
use logseal_vault::{KeyId, KeyName, KeyVault, KeyVersion};

use crate::KeyError;
use crate::renewal::kek_row;
use crate::wrapped_key_copy::{AekOwner, WrappedKeyStore};

/// The account keys of a deployment.
///
/// Each AEK is unwrapped by the vault once and kept; segments never cause a call to the vault.
#[derive(Debug)]
pub struct Keyring {
    pub(crate) vault: Arc<dyn KeyVault>,
    catalog: Catalog,
    pub(crate) copies: Arc<dyn WrappedKeyStore>,
    pub(crate) mac_key: MacKey,
    clock: Arc<dyn Clock>,
    unwrapped: Mutex<Unwrapped>,
}

/// Where new data of a workspace goes. One value, so that what is sealed under one cluster's key never goes into the log of another one.
#[derive(Clone, Debug)]
pub struct Link {
    /// The cluster that the workspace is linked to.
    pub cluster: ClusterId,
    /// The newest generation of the workspace's key, which is this cluster's.
    pub aek: Arc<Aek>,
}

#[derive(Debug, Default)]
struct Unwrapped {
    by_id: HashMap<AekId, Arc<Aek>>,
    /// Asked for on every request.
    links: HashMap<WorkspaceId, Link>,
    /// Workspaces that are not available in this life, and why.
    refused: HashMap<WorkspaceId, Arc<str>>,
    /// Keys that were destroyed, with what may still hold them. Whoever read a row before that must not bring its key back.
    shredded: HashMap<AekId, Weak<Aek>>,
}

impl Keyring {
    /// A keyring over `catalog`'s rows and `vault`'s KEKs. `mac_key` authenticates the copies in `copies`.
    #[must_use]
    pub fn new(
        vault: Arc<dyn KeyVault>,
        catalog: Catalog,
        copies: Arc<dyn WrappedKeyStore>,
        mac_key: MacKey,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { vault, catalog, copies, mac_key, clock, unwrapped: Mutex::default() }
    }

    /// A new AEK of `owner`, wrapped by `kek`, its wrap proven by an unwrap and its copy durable in the store. When the copy of a key
    /// of this `id` is there already, an earlier try was interrupted, and that key is the one.
    ///
    /// The key may be used once the returned row is in the catalog.
    ///
    /// # Errors
    ///
    /// [`KeyError::Vault`], [`KeyError::Commitment`] when the vault unwraps something else than it wrapped,
    /// [`KeyError::Copy`], [`KeyError::BadCopy`] when the copy of another key is in its place.
    pub async fn new_aek(
        &self,
        id: AekId,
        owner: AekOwner<'_>,
        generation: u32,
        kek: &KeyId,
    ) -> Result<AekRow, KeyError> {
        let planned = AekRow {
            id,
            workspace: owner.workspace.id,
            cluster: owner.cluster.id,
            generation,
            kek: kek_row(kek),
            wrapped: Vec::new(),
            commitment: Vec::new(),
            created: self.clock.now(),
        };
        if let Some(copied) = self.copied(&planned).await? {
            return Ok(copied);
        }
        let key = Key256::generate(OsRandom);
        let row = AekRow {
            wrapped: self.vault.wrap(kek, &key).await.map_err(|source| KeyError::Vault { aek: id, source })?,
            commitment: Aek::commitment_of(id, planned.workspace, generation, &key).as_bytes().to_vec(),
            ..planned
        };
        drop(key);
        self.prove(&row).await?;
        self.copy(&row, owner).await?;
        Ok(row)
    }

    /// Proves that the vault unwraps the key of `row` and that it is the one that the row commits to. Nothing is kept.
    ///
    /// # Errors
    ///
    /// [`KeyError::Vault`], [`KeyError::Commitment`], [`KeyError::KekName`].
    pub async fn prove(&self, row: &AekRow) -> Result<(), KeyError> {
        self.unwrap(row).await.map(drop)
    }

    /// Unwraps every AEK of `workspace`, so that its first record does not wait for the vault. From now on new data goes where the
    /// newest one says.
    ///
    /// # Errors
    ///
    /// As [`Keyring::current`], for the first key that fails.
    pub async fn warm(&self, workspace: WorkspaceId) -> Result<Link, KeyError> {
        let rows = self.catalog.aeks_of(workspace).await?;
        for row in &rows {
            self.remember(row).await?;
        }
        if let Some(newest) = rows.last() {
            self.link(newest).await?;
        }
        self.current(workspace).await
    }

    /// Where new data of `workspace` goes. A link that the catalog got since is only followed from the next [`Keyring::warm`] on.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoAek`], [`KeyError::Refused`], and as [`Keyring::aek`].
    pub async fn current(&self, workspace: WorkspaceId) -> Result<Link, KeyError> {
        if let Some(known) = self.known_link(workspace) {
            return known;
        }
        match self.catalog.aeks_of(workspace).await?.pop() {
            Some(newest) => self.link(&newest).await,
            None => Err(self.not_found(KeyError::NoAek(workspace)).await),
        }
    }

    /// The newest AEK that the catalog has of `workspace`: a link that new data does not follow yet may have brought it.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoAek`], and as [`Keyring::aek`].
    pub async fn newest(&self, workspace: WorkspaceId) -> Result<Arc<Aek>, KeyError> {
        match self.catalog.aeks_of(workspace).await?.pop() {
            Some(newest) => self.remember(&newest).await,
            None => Err(self.not_found(KeyError::NoAek(workspace)).await),
        }
    }

    /// Follows the link that `newest` stands for, unless a newer one is followed already: callers read the catalog at different moments.
    async fn link(&self, newest: &AekRow) -> Result<Link, KeyError> {
        let link = Link { cluster: newest.cluster, aek: self.remember(newest).await? };
        let mut unwrapped = self.unwrapped();
        if unwrapped.shredded.contains_key(&newest.id) {
            return Err(KeyError::Shredded(newest.id));
        }
        let followed = unwrapped.links.entry(newest.workspace).or_insert_with(|| link.clone());
        if followed.aek.generation() < newest.generation {
            *followed = link;
        }
        Ok(followed.clone())
    }

    /// From now on `workspace` is not available: some of its keys, or of what they protect, cannot be had for the reason `why`. No key is
    /// given for new data; its other keys open what they protect all the same. Only a start ends this, after the repair.
    pub fn refuse(&self, workspace: WorkspaceId, why: &KeyError) {
        let mut unwrapped = self.unwrapped();
        unwrapped.refused.entry(workspace).or_insert_with(|| Chain(why).to_string().into());
    }

    /// Why `workspace` is not available; `None` when it is.
    #[must_use]
    pub fn refusal(&self, workspace: WorkspaceId) -> Option<Arc<str>> {
        self.unwrapped().refused.get(&workspace).map(Arc::clone)
    }

    /// Takes up which keys were destroyed before this start, so that what is left of their data is told from what is damaged.
    ///
    /// # Errors
    ///
    /// [`KeyError::Catalog`].
    pub async fn learn_shredded(&self) -> Result<(), KeyError> {
        let aeks: Vec<_> = self.catalog.shredded().await?.into_iter().map(|row| row.aek).collect();
        self.shred(&aeks);
        Ok(())
    }

    /// The keys `aeks` were destroyed: they leave memory with their last user, and none of them is ever given again.
    pub fn shred(&self, aeks: &[AekId]) {
        let mut unwrapped = self.unwrapped();
        unwrapped.links.retain(|_, link| !aeks.contains(&link.aek.id()));
        for id in aeks {
            let users = unwrapped.by_id.remove(id).map(|aek| Arc::downgrade(&aek));
            let known = unwrapped.shredded.entry(*id).or_default();
            if let Some(users) = users {
                *known = users;
            }
        }
    }

    /// Whether the key `id` was destroyed.
    #[must_use]
    pub fn is_shredded(&self, id: AekId) -> bool {
        self.unwrapped().shredded.contains_key(&id)
    }

    /// Whether a user still holds one of `aeks`, which were destroyed.
    #[must_use]
    pub fn is_in_use(&self, aeks: &[AekId]) -> bool {
        let unwrapped = self.unwrapped();
        aeks.iter().filter_map(|id| unwrapped.shredded.get(id)).any(|users| users.strong_count() > 0)
    }

    /// `workspace` is gone: nothing is remembered of it.
    pub fn forget(&self, workspace: WorkspaceId) {
        let mut unwrapped = self.unwrapped();
        unwrapped.links.remove(&workspace);
        unwrapped.refused.remove(&workspace);
        unwrapped.by_id.retain(|_, aek| aek.workspace() != workspace);
    }

    /// The AEK `id`. Rows of other keys do not matter.
    ///
    /// # Errors
    ///
    /// [`KeyError::UnknownAek`], [`KeyError::Shredded`], [`KeyError::Vault`], [`KeyError::Commitment`], [`KeyError::KekName`], [`KeyError::Catalog`].
    pub async fn aek(&self, id: AekId) -> Result<Arc<Aek>, KeyError> {
        if let Some(known) = self.known(id) {
            return known;
        }
        match self.catalog.aek(id).await? {
            Some(row) => self.remember(&row).await,
            // It may have been destroyed a moment ago.
            None if self.catalog.is_shredded(id).await? => Err(KeyError::Shredded(id)),
            None => Err(self.not_found(KeyError::UnknownAek(id)).await),
        }
    }

    /// `unknown`, unless a row was altered: that may be the one that was looked for, under another id or owner.
    async fn not_found(&self, unknown: KeyError) -> KeyError {
        self.catalog.aeks().await.err().map_or(unknown, KeyError::from)
    }

    /// The DEK of `segment`, from its authenticated catalog row.
    ///
    /// # Errors
    ///
    /// [`KeyError::SegmentKey`] when the wrapped DEK does not open, and as [`Keyring::aek`].
    pub async fn segment_dek(&self, segment: &SegmentRow) -> Result<Dek, KeyError> {
        let failed = || KeyError::SegmentKey(segment.id);
        let wrapped = WrappedDek::from_bytes(&segment.wrapped_dek).ok_or_else(failed)?;
        let commitment = Commitment::from_slice(&segment.dek_commitment).ok_or_else(failed)?;
        let aek = self.aek(segment.aek).await?;
        aek.unwrap_dek(segment.id, &wrapped, commitment).map_err(|_| failed())
    }

    async fn remember(&self, row: &AekRow) -> Result<Arc<Aek>, KeyError> {
        if let Some(known) = self.known(row.id) {
            return known;
        }
        let aek = Arc::new(self.unwrap(row).await?);
        let mut unwrapped = self.unwrapped();
        if unwrapped.shredded.contains_key(&row.id) {
            return Err(KeyError::Shredded(row.id));
        }
        unwrapped.by_id.insert(row.id, Arc::clone(&aek));
        Ok(aek)
    }

    /// Unwraps by the vault and checks the commitment: the vault authenticates no context.
    pub(crate) async fn unwrap(&self, row: &AekRow) -> Result<Aek, KeyError> {
        Ok(Aek::new(row.id, row.workspace, row.generation, self.unwrap_key(row).await?))
    }

    pub(crate) async fn unwrap_key(&self, row: &AekRow) -> Result<Key256, KeyError> {
        let kek = kek_id(row).ok_or(KeyError::KekName(row.id))?;
        let key =
            self.vault.unwrap(&kek, &row.wrapped).await.map_err(|source| KeyError::Vault { aek: row.id, source })?;
        let context = logseal_crypto::aad::account_key(row.workspace, row.id, row.generation);
        let committed = Commitment::from_slice(&row.commitment).is_some_and(|c| c.matches(&key, &context));
        if committed { Ok(key) } else { Err(KeyError::Commitment(row.id)) }
    }

    fn unwrapped(&self) -> MutexGuard<'_, Unwrapped> {
        self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, id: AekId) -> Option<Result<Arc<Aek>, KeyError>> {
        let unwrapped = self.unwrapped();
        if unwrapped.shredded.contains_key(&id) {
            return Some(Err(KeyError::Shredded(id)));
        }
        unwrapped.by_id.get(&id).map(Arc::clone).map(Ok)
    }

    fn known_link(&self, workspace: WorkspaceId) -> Option<Result<Link, KeyError>> {
        let unwrapped = self.unwrapped();
        if let Some(why) = unwrapped.refused.get(&workspace) {
            return Some(Err(KeyError::Refused { workspace, why: Arc::clone(why) }));
        }
        unwrapped.links.get(&workspace).cloned().map(Ok)
    }
}

fn kek_id(row: &AekRow) -> Option<KeyId> {
    Some(KeyId {
        vault_uri: row.kek.vault_uri.as_str().into(),
        name: KeyName::parse(&row.kek.name).ok()?,
        version: KeyVersion::parse(&row.kek.version).ok()?,
    })
}

#[cfg(test)]
mod tests;
