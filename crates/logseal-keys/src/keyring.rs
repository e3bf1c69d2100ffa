//! Makes, unwraps and hands out account keys (AEKs).

mod held;
mod wraps;

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logseal_catalog::{AekRow, Catalog, KekRow, SegmentRow};
use logseal_core::{AekId, Chain, Clock, ClusterId, WorkspaceId};
use logseal_crypto::{Aek, Commitment, Dek, Key256, KeyUseError, Lease, MacKey, OsRandom, WrappedDek};
use logseal_vault::{KeyId, KeyName, KeyVersion, VaultError};

use self::held::Unwrapped;
pub use self::wraps::{UNCOUNTED, WRAPS_LIMIT, Wraps};
use crate::KeyError;
use crate::availability::Cause;
use crate::fault::KeyFault;
use crate::renewal::kek_row;
use crate::vaults::ClusterVaults;
use crate::wrapped_key_copy::{AekOwner, WrappedKeyStore};

/// The account keys of a deployment.
///
/// Each AEK is unwrapped by the vault once and kept; segments never cause a call to the vault.
#[derive(Debug)]
pub struct Keyring {
    pub(crate) vaults: Arc<dyn ClusterVaults>,
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

/// Why the keys of a cluster are not given.
#[derive(Clone, Debug)]
pub struct Suspension {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// What is wrong, and whether the vault itself said so.
    pub cause: Cause,
}

impl Suspension {
    fn unwatched(cluster: ClusterId) -> Self {
        let cause = Cause { fault: KeyFault::NotYetUnwrapped, definitive: false };
        Self { cluster, name: cluster.to_string().into(), cause }
    }
}

impl Display for Suspension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster `{}` does not serve because {}", self.name, self.cause.fault)
    }
}

impl Keyring {
    /// A keyring over `catalog`'s rows and the KEKs in `vaults`. `mac_key` authenticates the copies in `copies`. Keys that are unwrapped serve
    /// without limit, until [`Keyring::watched`] or [`Keyring::suspend`] says otherwise.
    #[must_use]
    pub fn new(
        vaults: Arc<dyn ClusterVaults>,
        catalog: Catalog,
        copies: Arc<dyn WrappedKeyStore>,
        mac_key: MacKey,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let unwrapped = Mutex::new(Unwrapped::new(Some(Lease::unlimited())));
        Self { vaults, catalog, copies, mac_key, clock, unwrapped }
    }

    /// This keyring, but no key of any cluster is given before [`Keyring::resume`]: somebody watches the clusters' KEKs.
    #[must_use]
    pub fn watched(self) -> Self {
        Self { unwrapped: Mutex::new(Unwrapped::new(None)), ..self }
    }

    /// From now on keys of `cluster` are given, and may be used as long as `lease` allows.
    pub fn resume(&self, cluster: ClusterId, lease: Arc<Lease>) {
        self.unwrapped().resume(cluster, lease);
    }

    /// From now on no key of the cluster is given. The lease of those that were ends, and they leave memory with their last user.
    pub fn suspend(&self, why: Arc<Suspension>) {
        self.unwrapped().suspend(why);
    }

    /// `cluster` is gone: nothing is remembered of it.
    pub fn forget_cluster(&self, cluster: ClusterId) {
        self.unwrapped().forget_cluster(cluster);
    }

    /// Why no key of `cluster` is given; `None` when they are.
    #[must_use]
    pub fn suspension(&self, cluster: ClusterId) -> Option<Arc<Suspension>> {
        self.unwrapped().suspension(cluster)
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
            wrapped: self
                .wrap(owner.cluster.id, kek, &key)
                .await
                .map_err(|source| KeyError::Vault { aek: id, source })?,
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
        self.unwrap_key(row).await.map(drop)
    }

    /// Unwraps every AEK of `workspace`, so that its first record does not wait for the vault. From now on new data goes where the
    /// newest one says.
    ///
    /// # Errors
    ///
    /// As [`Keyring::current`], for the first key that fails.
    pub async fn warm(&self, workspace: WorkspaceId) -> Result<Link, KeyError> {
        let rows = self.catalog.aeks_of(workspace).await?;
        self.unwrapped().look_again(workspace);
        for row in &rows {
            match self.remember(row).await {
                // It opens what was written when the workspace was another cluster's.
                Err(KeyError::Suspended(_)) if row.generation < rows.last().map_or(0, |newest| newest.generation) => {}
                remembered => drop(remembered?),
            }
        }
        if let Some(newest) = rows.last() {
            self.link(newest).await?;
        }
        self.current(workspace).await
    }

    /// Where new data of `workspace` goes; its key may seal. A link that the catalog got since is only followed from the next [`Keyring::warm`] on.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoAek`], [`KeyError::Refused`], and as [`Keyring::aek`] and [`Keyring::reserve_wraps`].
    pub async fn current(&self, workspace: WorkspaceId) -> Result<Link, KeyError> {
        let known = self.unwrapped().link(workspace);
        let link = match known {
            Some(known) => known?,
            None => self.look_up(workspace).await?,
        };
        self.reserve_wraps(&link.aek, 1).await?;
        Ok(link)
    }

    async fn look_up(&self, workspace: WorkspaceId) -> Result<Link, KeyError> {
        match self.catalog.aeks_of(workspace).await?.pop() {
            Some(newest) => self.link(&newest).await.inspect_err(|error| {
                if let KeyError::Suspended(why) = error {
                    self.unwrapped().send_away(workspace, why);
                }
            }),
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

    /// Follows the link that `newest` stands for, unless a newer one is followed already.
    async fn link(&self, newest: &AekRow) -> Result<Link, KeyError> {
        let link = Link { cluster: newest.cluster, aek: self.remember(newest).await? };
        self.unwrapped().follow(newest.workspace, link)
    }

    /// From now on `workspace` is not available: some of its keys, or of what they protect, cannot be had for the reason `why`. No key is
    /// given for new data; its other keys open what they protect all the same. Only a start ends this, after the repair.
    pub fn refuse(&self, workspace: WorkspaceId, why: &KeyError) {
        self.unwrapped().refuse(workspace, || Chain(why).to_string().into());
    }

    /// Why `workspace` is not available; `None` when it is.
    #[must_use]
    pub fn refusal(&self, workspace: WorkspaceId) -> Option<Arc<str>> {
        self.unwrapped().refusal(workspace)
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
        self.unwrapped().shred(aeks);
    }

    /// Whether the key `id` was destroyed.
    #[must_use]
    pub fn is_shredded(&self, id: AekId) -> bool {
        self.unwrapped().is_shredded(id)
    }

    /// Whether a user still holds one of `aeks`, which were destroyed.
    #[must_use]
    pub fn is_in_use(&self, aeks: &[AekId]) -> bool {
        self.unwrapped().is_in_use(aeks)
    }

    /// `workspace` is gone: nothing is remembered of it.
    pub fn forget(&self, workspace: WorkspaceId) {
        self.unwrapped().forget(workspace);
    }

    /// The AEK `id`. Rows of other keys do not matter. Before it seals, [`Keyring::reserve_wraps`] has to allow that.
    ///
    /// # Errors
    ///
    /// [`KeyError::UnknownAek`], [`KeyError::Shredded`], [`KeyError::Vault`], [`KeyError::Commitment`], [`KeyError::KekName`], [`KeyError::Catalog`].
    pub async fn aek(&self, id: AekId) -> Result<Arc<Aek>, KeyError> {
        if let Some(known) = self.unwrapped().known(id) {
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
        aek.unwrap_dek(segment.id, &wrapped, commitment).map_err(|error| match error {
            KeyUseError::LeaseOver(over) => over.into(),
            KeyUseError::Seal(_) => failed(),
        })
    }

    async fn remember(&self, row: &AekRow) -> Result<Arc<Aek>, KeyError> {
        if let Some(known) = self.unwrapped().known(row.id) {
            return known;
        }
        let aek = self.unwrap(row).await?;
        let mut unwrapped = self.unwrapped();
        let count = unwrapped.counted(row.id)?.count();
        unwrapped.remember(Arc::new(aek.counted_by(count)), row.cluster)
    }

    /// Unwraps by the vault and checks the commitment: the vault authenticates no context. The key is under the lease that its cluster had
    /// before the vault was asked. What it seals is not counted.
    pub(crate) async fn unwrap(&self, row: &AekRow) -> Result<Aek, KeyError> {
        let lease = self.unwrapped().lease_of(row.cluster)?;
        Ok(Aek::new(row.id, row.workspace, row.generation, self.unwrap_key(row).await?, lease))
    }

    pub(crate) async fn unwrap_key(&self, row: &AekRow) -> Result<Key256, KeyError> {
        let kek = kek_id_of(&row.kek).ok_or(KeyError::KekName(row.id))?;
        let failed = |source| KeyError::Vault { aek: row.id, source };
        let vault = self.vaults.vault_of(row.cluster, &kek).await.map_err(failed)?;
        let key = vault.unwrap(&kek, &row.wrapped).await.map_err(failed)?;
        let context = logseal_crypto::aad::account_key(row.workspace, row.id, row.generation);
        let committed = Commitment::from_slice(&row.commitment).is_some_and(|c| c.matches(&key, &context));
        if committed { Ok(key) } else { Err(KeyError::Commitment(row.id)) }
    }

    pub(crate) async fn wrap(&self, cluster: ClusterId, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        self.vaults.vault_of(cluster, kek).await?.wrap(kek, key).await
    }

    /// Whether keys of `cluster` are given and may be used.
    #[must_use]
    pub fn serves(&self, cluster: ClusterId) -> bool {
        self.unwrapped().lease_of(cluster).is_ok_and(|lease| lease.check().is_ok())
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn unwrapped(&self) -> MutexGuard<'_, Unwrapped> {
        self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The KEK version that `row` names; `None` when no vault can have it.
pub(crate) fn kek_id_of(row: &KekRow) -> Option<KeyId> {
    Some(KeyId {
        vault_uri: row.vault_uri.as_str().into(),
        name: KeyName::parse(&row.name).ok()?,
        version: KeyVersion::parse(&row.version).ok()?,
    })
}

#[cfg(test)]
mod tests;
