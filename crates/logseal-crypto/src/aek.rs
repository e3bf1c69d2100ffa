//! The account encryption key (AEK): one per workspace and generation, the only key that wraps DEKs.

use std::fmt::{self, Debug};
use std::sync::Arc;

use hkdf::Hkdf;
use logseal_core::{AekId, SegmentId, TableId, WalFileId, WorkspaceId, stack};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::aad::Aad;
use crate::{
    Commitment, Key256, Lease, LeaseOver, Mac, MacKey, OsRandom, SealError, WrapCount, WrappedDek, WrapsExhausted, aad,
    seal,
};

/// Bytes of a DEK as an AEK seals it: nonce, ciphertext, tag.
pub const SEALED_DEK_BYTES: usize = 32 + seal::OVERHEAD_BYTES;

/// A key could not be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyUseError {
    /// Nothing is wrong with what was to be opened.
    #[error(transparent)]
    LeaseOver(#[from] LeaseOver),
    /// What was to be opened does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// An account key did not seal. Nothing is wrong with what was to be sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum WrapError {
    /// The key may not be used any more.
    #[error(transparent)]
    LeaseOver(#[from] LeaseOver),
    /// More has to be reserved for the key first.
    #[error(transparent)]
    Exhausted(#[from] WrapsExhausted),
}

/// A data encryption key (DEK): of one segment, or of one workspace in one file of the write-ahead log. It is under the lease of the AEK
/// that wraps it.
#[derive(Debug)]
pub struct Dek {
    key: Key256,
    commitment: Commitment,
    lease: Arc<Lease>,
}

impl Dek {
    /// The key itself, for the Parquet writer or reader.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`].
    pub fn key(&self) -> Result<&Key256, LeaseOver> {
        self.lease.check().map(|()| &self.key)
    }

    /// The lease that it is under.
    #[must_use]
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// What the key commits to; stored in the catalog beside the wrap.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }
}

/// An unwrapped AEK.
///
/// It wraps DEKs with AES-256-GCM directly; what else it protects (the names of attribute columns) goes through keys
/// derived from it by HKDF with a label each. Both count as wraps: one count bounds each of the keys.
pub struct Aek {
    id: AekId,
    workspace: WorkspaceId,
    generation: u32,
    key: Key256,
    name_seal: Key256,
    name_mac: MacKey,
    lease: Arc<Lease>,
    wraps: Arc<WrapCount>,
}

impl Aek {
    /// The AEK `id` of `workspace` in `generation`, with the bytes that the vault unwrapped, to be used as long as `lease` allows.
    /// What it seals is counted by nobody else, without a limit; see [`Aek::counted_by`].
    #[must_use]
    pub fn new(id: AekId, workspace: WorkspaceId, generation: u32, key: Key256, lease: Arc<Lease>) -> Self {
        let derive = |label: &[u8]| {
            stack::wiped(|| {
                Key256::fill_with(|out| {
                    Hkdf::<Sha256>::new(None, key.expose())
                        .expand_multi_info(&[b"logseal AEK v1 ", label], out)
                        .expect("32 bytes are within HKDF's limit of 255 blocks");
                })
            })
        };
        let (name_seal, name_mac) =
            (derive(b"attribute name seal"), MacKey::new(derive(b"attribute name fingerprint")));
        Self { id, workspace, generation, key, name_seal, name_mac, lease, wraps: WrapCount::unlimited() }
    }

    /// This key, which seals what `wraps` allows.
    #[must_use]
    pub fn counted_by(self, wraps: Arc<WrapCount>) -> Self {
        Self { wraps, ..self }
    }

    /// The AEK's id.
    #[must_use]
    pub fn id(&self) -> AekId {
        self.id
    }

    /// The workspace that owns it.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// The generation, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The lease that it is under.
    #[must_use]
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// How often it sealed.
    #[must_use]
    pub fn wraps(&self) -> &WrapCount {
        &self.wraps
    }

    /// What an AEK with this key commits to; compared after each unwrap by the vault, which authenticates no context.
    #[must_use]
    pub fn commitment_of(id: AekId, workspace: WorkspaceId, generation: u32, key: &Key256) -> Commitment {
        Commitment::of(key, &aad::account_key(workspace, id, generation))
    }

    /// A new random DEK for `segment`, and its wrap.
    ///
    /// # Errors
    ///
    /// [`WrapError`].
    pub fn new_dek(&self, segment: SegmentId, random: OsRandom) -> Result<(Dek, WrappedDek), WrapError> {
        let (dek, sealed) = self.seal_new_dek(&aad::segment_dek(self.workspace, self.id, segment), random)?;
        Ok((dek, WrappedDek { aek: self.id, workspace: self.workspace, segment, sealed }))
    }

    /// Unwraps the DEK of `segment` and checks what it commits to.
    ///
    /// # Errors
    ///
    /// [`KeyUseError::LeaseOver`], and [`KeyUseError::Seal`] when `wrapped` was made for another AEK, workspace or segment, was altered, or
    /// its key is not the one that `commitment` names.
    pub fn unwrap_dek(
        &self,
        segment: SegmentId,
        wrapped: &WrappedDek,
        commitment: Commitment,
    ) -> Result<Dek, KeyUseError> {
        if (wrapped.aek, wrapped.workspace, wrapped.segment) != (self.id, self.workspace, segment) {
            return Err(SealError.into());
        }
        self.open_dek(&aad::segment_dek(self.workspace, self.id, segment), &wrapped.sealed, commitment)
    }

    /// Unwraps a segment's DEK when nothing is left that says what it commits to: the catalog, which holds the commitment, is
    /// lost. For rebuilding it only.
    ///
    /// AES-GCM does not commit to its key, so who holds the AEK could make a wrap that opens under two AEKs. The AEK is chosen
    /// by the id in `wrapped` and never by trial, and the caller authenticates the segment's footer with the DEK.
    ///
    /// # Errors
    ///
    /// [`KeyUseError::LeaseOver`], and [`KeyUseError::Seal`] when `wrapped` was made for another AEK or workspace, or was altered.
    pub fn danger_unwrap_dek_without_commitment(&self, wrapped: &WrappedDek) -> Result<Dek, KeyUseError> {
        self.lease.check()?;
        if (wrapped.aek, wrapped.workspace) != (self.id, self.workspace) {
            return Err(SealError.into());
        }
        let aad = aad::segment_dek(self.workspace, self.id, wrapped.segment);
        let key = Key256::copy_from_slice(&seal::open(&self.key, &aad, &wrapped.sealed)?).ok_or(SealError)?;
        let commitment = Commitment::of(&key, &aad);
        Ok(Dek { key, commitment, lease: Arc::clone(&self.lease) })
    }

    /// A new random DEK for what this workspace writes to `file` of the write-ahead log, and its wrap.
    ///
    /// # Errors
    ///
    /// [`WrapError`].
    pub fn new_wal_dek(&self, file: WalFileId, random: OsRandom) -> Result<(Dek, [u8; SEALED_DEK_BYTES]), WrapError> {
        self.seal_new_dek(&aad::wal_dek(self.workspace, self.id, file), random)
    }

    /// Unwraps this workspace's DEK of `file` and checks what it commits to.
    ///
    /// # Errors
    ///
    /// [`KeyUseError::LeaseOver`], and [`KeyUseError::Seal`] when `sealed` was made under another AEK or for another workspace or file, was
    /// altered, or its key is not the one that `commitment` names.
    pub fn unwrap_wal_dek(
        &self,
        file: WalFileId,
        sealed: &[u8; SEALED_DEK_BYTES],
        commitment: Commitment,
    ) -> Result<Dek, KeyUseError> {
        self.open_dek(&aad::wal_dek(self.workspace, self.id, file), sealed, commitment)
    }

    fn seal_new_dek(&self, aad: &Aad, random: OsRandom) -> Result<(Dek, [u8; SEALED_DEK_BYTES]), WrapError> {
        self.lease.check()?;
        self.wraps.take()?;
        let key = Key256::generate(random);
        let sealed = seal::seal(&self.key, aad, key.expose(), random);
        let sealed = sealed.as_slice().try_into().expect("32 bytes seal to 60");
        let commitment = Commitment::of(&key, aad);
        Ok((Dek { key, commitment, lease: Arc::clone(&self.lease) }, sealed))
    }

    fn open_dek(&self, aad: &Aad, sealed: &[u8; SEALED_DEK_BYTES], commitment: Commitment) -> Result<Dek, KeyUseError> {
        self.lease.check()?;
        let key = Key256::copy_from_slice(&seal::open(&self.key, aad, sealed)?).ok_or(SealError)?;
        if !commitment.matches(&key, aad) {
            return Err(SealError.into());
        }
        Ok(Dek { key, commitment, lease: Arc::clone(&self.lease) })
    }

    /// Seals the name of an attribute column of `table`.
    ///
    /// # Errors
    ///
    /// [`WrapError`].
    pub fn seal_name(&self, table: TableId, name: &str, random: OsRandom) -> Result<Vec<u8>, WrapError> {
        self.lease.check()?;
        self.wraps.take()?;
        let aad = aad::attribute_name(self.workspace, self.id, table);
        Ok(seal::seal(&self.name_seal, &aad, name.as_bytes(), random))
    }

    /// Opens what [`Aek::seal_name`] made.
    ///
    /// # Errors
    ///
    /// [`KeyUseError::LeaseOver`], and [`KeyUseError::Seal`] when it was altered, belongs to another table, or is not UTF-8.
    pub fn open_name(&self, table: TableId, sealed: &[u8]) -> Result<Zeroizing<String>, KeyUseError> {
        self.lease.check()?;
        let bytes = seal::open(&self.name_seal, &aad::attribute_name(self.workspace, self.id, table), sealed)?;
        String::from_utf8(bytes.to_vec()).map(Zeroizing::new).map_err(|_| SealError.into())
    }

    /// A fingerprint of an attribute's name: equal names of one table and container have equal fingerprints, and nobody
    /// without the AEK can test a guess.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`].
    pub fn name_fingerprint(&self, table: TableId, container: u8, name: &str) -> Result<Mac, LeaseOver> {
        self.lease.check()?;
        Ok(self.name_mac.mac("attribute name", &[table.as_bytes(), &[container], name.as_bytes()]))
    }
}

impl Debug for Aek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aek")
            .field("id", &self.id)
            .field("workspace", &self.workspace)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);
    const SEGMENT: SegmentId = SegmentId::from_bytes([3; 16]);
    const TABLE: TableId = TableId::from_bytes([4; 16]);

    fn aek(id: u8, key: u8) -> Aek {
        Aek::new(
            AekId::from_bytes([id; 16]),
            WORKSPACE,
            1,
            Key256::copy_from_slice(&[key; 32]).unwrap(),
            Lease::unlimited(),
        )
    }

    #[test]
    fn a_dek_round_trips_through_its_stored_bytes() {
        let aek = aek(2, 9);
        let (dek, wrapped) = aek.new_dek(SEGMENT, OsRandom).unwrap();
        let stored = wrapped.to_bytes();
        assert_eq!(stored.len(), crate::wrapped_dek::WRAPPED_DEK_BYTES);
        let read = WrappedDek::from_bytes(&stored).unwrap();
        assert!(aek.unwrap_dek(SEGMENT, &read, dek.commitment()).unwrap().key().unwrap().ct_eq(dek.key().unwrap()));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_wrap_is_refused() {
        let aek = aek(2, 9);
        let (dek, wrapped) = aek.new_dek(SEGMENT, OsRandom).unwrap();
        let stored = wrapped.to_bytes();
        for index in 0..stored.len() {
            let mut altered = stored.clone();
            altered[index] ^= 0x10;
            let opened =
                WrappedDek::from_bytes(&altered).and_then(|w| aek.unwrap_dek(SEGMENT, &w, dek.commitment()).ok());
            assert!(opened.is_none(), "byte {index}");
        }
        assert!(WrappedDek::from_bytes(&stored[1..]).is_none());
    }

    #[test]
    fn a_wrap_of_another_key_segment_or_commitment_is_refused() {
        let aek_2 = aek(2, 9);
        let (dek, wrapped) = aek_2.new_dek(SEGMENT, OsRandom).unwrap();
        let (other, _) = aek_2.new_dek(SEGMENT, OsRandom).unwrap();
        assert!(aek(2, 8).unwrap_dek(SEGMENT, &wrapped, dek.commitment()).is_err(), "same id, other key");
        assert!(aek(5, 9).unwrap_dek(SEGMENT, &wrapped, dek.commitment()).is_err(), "other id, same key");
        assert!(aek_2.unwrap_dek(SegmentId::from_bytes([9; 16]), &wrapped, dek.commitment()).is_err(), "other segment");
        assert!(aek_2.unwrap_dek(SEGMENT, &wrapped, other.commitment()).is_err(), "other commitment");
    }

    /// Scenario: the catalog with the commitments is lost. Guarantee: a wrap opens under its own key alone, and gives the very
    /// commitment that was lost.
    #[test]
    fn without_a_stored_commitment_a_wrap_still_opens_only_where_it_belongs() {
        let aek_2 = aek(2, 9);
        let (dek, wrapped) = aek_2.new_dek(SEGMENT, OsRandom).unwrap();
        let found = aek_2.danger_unwrap_dek_without_commitment(&wrapped).unwrap();
        assert!(found.key().unwrap().ct_eq(dek.key().unwrap()));
        assert_eq!(found.commitment(), dek.commitment());
        let claims_another = WrappedDek { segment: SegmentId::from_bytes([9; 16]), ..wrapped.clone() };
        assert!(aek_2.danger_unwrap_dek_without_commitment(&claims_another).is_err(), "other segment");
        assert!(aek(2, 8).danger_unwrap_dek_without_commitment(&wrapped).is_err(), "same id, other key");
        assert!(aek(5, 9).danger_unwrap_dek_without_commitment(&wrapped).is_err(), "other id, same key");
    }

    #[test]
    fn a_log_dek_opens_only_for_its_file_key_and_commitment() {
        let file = WalFileId::from_bytes([6; 16]);
        let aek_2 = aek(2, 9);
        let (dek, sealed) = aek_2.new_wal_dek(file, OsRandom).unwrap();
        assert!(
            aek_2.unwrap_wal_dek(file, &sealed, dek.commitment()).unwrap().key().unwrap().ct_eq(dek.key().unwrap())
        );
        let (other, _) = aek_2.new_wal_dek(file, OsRandom).unwrap();
        assert!(!other.key().unwrap().ct_eq(dek.key().unwrap()), "each call makes a new key");
        assert!(aek_2.unwrap_wal_dek(file, &sealed, other.commitment()).is_err(), "other commitment");
        assert!(aek_2.unwrap_wal_dek(WalFileId::from_bytes([7; 16]), &sealed, dek.commitment()).is_err(), "other file");
        assert!(aek(2, 8).unwrap_wal_dek(file, &sealed, dek.commitment()).is_err(), "same id, other key");
        assert!(aek(5, 9).unwrap_wal_dek(file, &sealed, dek.commitment()).is_err(), "other id, same key");
    }

    #[test]
    fn names_open_only_for_their_table_and_fingerprints_tell_containers_apart() {
        let aek = aek(2, 9);
        let sealed = aek.seal_name(TABLE, "http.route", OsRandom).unwrap();
        assert_eq!(aek.open_name(TABLE, &sealed).unwrap().as_str(), "http.route");
        assert!(aek.open_name(TableId::from_bytes([5; 16]), &sealed).is_err());
        assert_eq!(aek.name_fingerprint(TABLE, 0, "a"), aek.name_fingerprint(TABLE, 0, "a"));
        assert_ne!(aek.name_fingerprint(TABLE, 0, "a"), aek.name_fingerprint(TABLE, 1, "a"));
        assert_ne!(aek.name_fingerprint(TABLE, 0, "a"), aek.name_fingerprint(TABLE, 0, "b"));
    }

    #[test]
    fn every_use_fails_once_the_lease_is_over() {
        let aek = aek(2, 9);
        let file = WalFileId::from_bytes([6; 16]);
        let (dek, wrapped) = aek.new_dek(SEGMENT, OsRandom).unwrap();
        let (wal_dek, sealed) = aek.new_wal_dek(file, OsRandom).unwrap();
        let name = aek.seal_name(TABLE, "a", OsRandom).unwrap();
        aek.lease().end();
        let over = KeyUseError::LeaseOver(LeaseOver);
        assert_eq!(aek.new_dek(SEGMENT, OsRandom).err(), Some(LeaseOver.into()));
        assert_eq!(aek.new_wal_dek(file, OsRandom).err(), Some(LeaseOver.into()));
        assert_eq!(aek.unwrap_dek(SEGMENT, &wrapped, dek.commitment()).err(), Some(over));
        assert_eq!(aek.danger_unwrap_dek_without_commitment(&wrapped).err(), Some(over));
        assert_eq!(aek.unwrap_wal_dek(file, &sealed, wal_dek.commitment()).err(), Some(over));
        assert_eq!(aek.seal_name(TABLE, "a", OsRandom).err(), Some(LeaseOver.into()));
        assert_eq!(aek.open_name(TABLE, &name).err(), Some(over));
        assert_eq!(aek.name_fingerprint(TABLE, 0, "a").err(), Some(LeaseOver));
        assert_eq!(dek.key().err(), Some(LeaseOver));
    }

    /// Scenario: a key for which three wraps are reserved makes a key for a segment, one for a file of the log, and seals a name. Guarantee:
    /// each counts; the fourth is refused, whatever it is, while what was sealed still opens.
    #[test]
    fn all_that_a_key_seals_counts() {
        let wraps = WrapCount::unreserved();
        wraps.reserve(0, 3);
        let aek = aek(2, 9).counted_by(wraps);
        let file = WalFileId::from_bytes([6; 16]);
        let (dek, wrapped) = aek.new_dek(SEGMENT, OsRandom).unwrap();
        let (wal_dek, sealed) = aek.new_wal_dek(file, OsRandom).unwrap();
        let name = aek.seal_name(TABLE, "a", OsRandom).unwrap();
        assert_eq!((aek.wraps().used(), aek.wraps().left()), (3, 0));
        let exhausted = WrapError::Exhausted(WrapsExhausted);
        assert_eq!(aek.new_dek(SEGMENT, OsRandom).err(), Some(exhausted));
        assert_eq!(aek.new_wal_dek(file, OsRandom).err(), Some(exhausted));
        assert_eq!(aek.seal_name(TABLE, "a", OsRandom).err(), Some(exhausted));
        aek.unwrap_dek(SEGMENT, &wrapped, dek.commitment()).unwrap();
        aek.unwrap_wal_dek(file, &sealed, wal_dek.commitment()).unwrap();
        aek.open_name(TABLE, &name).unwrap();
        assert_eq!(aek.wraps().used(), 3, "opening does not count");
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", aek(2, 0xAB));
        assert!(!text.contains("171") && !text.contains("abab"), "{text}");
    }
}
