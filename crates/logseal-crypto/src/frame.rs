//! AES-256-GCM with a counter, for the many frames of a write-ahead log file.
//!
//! The nonce is the deterministic construction of NIST SP 800-38D, section 8.2.1: a fixed field of 32 bits, random for each
//! file, and an invocation field of 64 bits, the frame's sequence (big-endian). It needs no random bytes for each frame and
//! has no limit of 2^32 seals. What makes it safe is that no sequence is ever sealed twice under one key: each file has its
//! own DEKs, is written by one process life, and [`FrameSealer`] refuses to go back.
//!
//! The cipher is `ring`'s, which is much faster than that of [`seal`](crate::seal) for what a log writes.
//!
//! Sealed bytes are `ciphertext | tag (16)`: the nonce is known from the frame's place.

use std::fmt::{self, Debug};
use std::sync::Arc;

use logseal_core::stack;
use ring::aead::{self, AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

use crate::aad::Aad;
use crate::seal::{NONCE_BYTES, TAG_BYTES};
use crate::{Dek, Key256, KeyUseError, Lease, LeaseOver, SealError};

/// The sequence is not larger than one that this key sealed before: sealing it would repeat a nonce.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("frame {sequence} does not come after frame {last}, the highest that this key sealed")]
pub struct SequenceReused {
    /// The sequence that was asked for.
    pub sequence: u64,
    /// The highest sequence sealed so far.
    pub last: u64,
}

/// A frame could not be sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FrameSealError {
    /// It would repeat a nonce.
    #[error(transparent)]
    Sequence(#[from] SequenceReused),
    /// The key may not be used any more.
    #[error(transparent)]
    LeaseOver(#[from] LeaseOver),
}

/// Seals frames of one file under one DEK, with rising sequences.
///
/// Not `Clone`: a copy would have its own idea of the last sequence. The expanded key is wiped by the process's allocator, when it is freed.
pub struct FrameSealer {
    key: Box<LessSafeKey>,
    field: [u8; 4],
    last: u64,
    lease: Arc<Lease>,
}

impl FrameSealer {
    /// A sealer that has sealed nothing yet. `field` is the file's fixed field of all nonces.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`].
    pub fn new(dek: &Dek, field: [u8; 4]) -> Result<Self, LeaseOver> {
        let key = expanded(dek.key()?);
        Ok(Self { key, field, last: 0, lease: Arc::clone(dek.lease()) })
    }

    /// Seals `plaintext` as frame `sequence` (from 1), bound to `aad`, and appends ciphertext and tag to `out`.
    ///
    /// # Errors
    ///
    /// [`FrameSealError::Sequence`] unless `sequence` is larger than all that were sealed before, [`FrameSealError::LeaseOver`]; `out` is
    /// unchanged then.
    ///
    /// # Panics
    ///
    /// When `plaintext` is larger than 64 GiB, the limit of GCM; no caller has such a value.
    pub fn seal(
        &mut self,
        sequence: u64,
        aad: &Aad,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), FrameSealError> {
        self.lease.check()?;
        if sequence <= self.last {
            return Err(SequenceReused { sequence, last: self.last }.into());
        }
        self.last = sequence;
        out.reserve(plaintext.len() + TAG_BYTES);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let aad = aead::Aad::from(aad.as_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.field, sequence), aad, &mut out[start..])
            .expect("GCM refuses only plaintexts over 64 GiB");
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

impl Debug for FrameSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSealer").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Opens what a [`FrameSealer`] with the same DEK and field made.
pub struct FrameOpener {
    key: Box<LessSafeKey>,
    field: [u8; 4],
    lease: Arc<Lease>,
}

impl FrameOpener {
    /// An opener for the file whose nonces have the fixed field `field`.
    ///
    /// # Errors
    ///
    /// [`LeaseOver`].
    pub fn new(dek: &Dek, field: [u8; 4]) -> Result<Self, LeaseOver> {
        let key = expanded(dek.key()?);
        Ok(Self { key, field, lease: Arc::clone(dek.lease()) })
    }

    /// The plaintext of frame `sequence`.
    ///
    /// # Errors
    ///
    /// [`KeyUseError::LeaseOver`], and [`KeyUseError::Seal`] when anything but the very same key, field, sequence, AAD and bytes is given.
    pub fn open(&self, sequence: u64, aad: &Aad, sealed: &[u8]) -> Result<Vec<u8>, KeyUseError> {
        self.lease.check()?;
        let mut plaintext = sealed.to_vec();
        let aad = aead::Aad::from(aad.as_bytes());
        let opened = self.key.open_in_place(nonce(self.field, sequence), aad, &mut plaintext).map_err(|_| SealError)?;
        let bytes = opened.len();
        plaintext.truncate(bytes);
        Ok(plaintext)
    }
}

impl Debug for FrameOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameOpener").finish_non_exhaustive()
    }
}

/// The expanded key, on the heap: `ring` does not wipe it, the process's allocator wipes what is freed.
fn expanded(key: &Key256) -> Box<LessSafeKey> {
    let expand = || UnboundKey::new(&AES_256_GCM, key.expose()).expect("a key of 256 bits");
    stack::wiped(|| Box::new(LessSafeKey::new(expand())))
}

fn nonce(field: [u8; 4], sequence: u64) -> Nonce {
    let mut bytes = [0; NONCE_BYTES];
    bytes[..4].copy_from_slice(&field);
    bytes[4..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::{Aes256Gcm, KeyInit};
    use logseal_core::{AekId, WalFileId, WorkspaceId};
    use proptest::prelude::*;

    use super::*;
    use crate::{Aek, OsRandom, aad};

    const FILE: WalFileId = WalFileId::from_bytes([6; 16]);

    fn dek() -> Dek {
        let key = Key256::copy_from_slice(&[9; 32]).unwrap();
        Aek::new(AekId::from_bytes([2; 16]), WorkspaceId::from_bytes([1; 16]), 1, key, Lease::unlimited())
            .new_wal_dek(FILE, OsRandom)
            .unwrap()
            .0
    }

    #[test]
    fn a_sequence_is_never_sealed_twice_and_never_goes_back() {
        let aad = aad::wal_frame(FILE, b"head", b"");
        let mut sealer = FrameSealer::new(&dek(), [1; 4]).unwrap();
        let mut out = Vec::new();
        assert!(sealer.seal(0, &aad, b"x", &mut out).is_err(), "sequences count from 1");
        sealer.seal(5, &aad, b"x", &mut out).unwrap();
        let length = out.len();
        for sequence in [1, 4, 5] {
            assert_eq!(sealer.seal(sequence, &aad, b"y", &mut out), Err(SequenceReused { sequence, last: 5 }.into()));
        }
        assert_eq!(out.len(), length, "a refused seal leaves nothing behind");
        sealer.seal(6, &aad, b"y", &mut out).unwrap();
    }

    #[test]
    fn the_nonce_is_the_field_and_the_sequence_in_network_order() {
        let expected = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(nonce([1, 2, 3, 4], 0x102).as_ref(), &expected);
        // The stored bytes are those of another library's AES-256-GCM with this nonce.
        let (dek, aad) = (dek(), aad::wal_frame(FILE, b"head", b"m"));
        let mut out = b"before".to_vec();
        FrameSealer::new(&dek, [1, 2, 3, 4]).unwrap().seal(0x102, &aad, b"text", &mut out).unwrap();
        let mut plain = b"text".to_vec();
        let tag = Aes256Gcm::new(dek.key().unwrap().expose().into())
            .encrypt_inout_detached(&expected.into(), aad.as_bytes(), plain.as_mut_slice().into())
            .unwrap();
        assert_eq!(out, [b"before".as_slice(), &plain, &tag].concat());
    }

    #[test]
    fn nothing_is_sealed_or_opened_once_the_lease_is_over() {
        let (dek, aad) = (dek(), aad::wal_frame(FILE, b"head", b""));
        let mut sealer = FrameSealer::new(&dek, [1; 4]).unwrap();
        let opener = FrameOpener::new(&dek, [1; 4]).unwrap();
        let mut out = Vec::new();
        sealer.seal(1, &aad, b"x", &mut out).unwrap();
        let sealed = out.clone();
        dek.lease().end();
        assert_eq!(sealer.seal(2, &aad, b"y", &mut out), Err(FrameSealError::LeaseOver(LeaseOver)));
        assert_eq!(out, sealed, "nothing is left behind");
        assert_eq!(opener.open(1, &aad, &sealed), Err(KeyUseError::LeaseOver(LeaseOver)));
        assert!(FrameSealer::new(&dek, [1; 4]).is_err() && FrameOpener::new(&dek, [1; 4]).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let dek = dek();
        for text in [
            format!("{:?}", FrameSealer::new(&dek, [1; 4]).unwrap()),
            format!("{:?}", FrameOpener::new(&dek, [1; 4]).unwrap()),
        ] {
            assert!(text.ends_with(".. }") && text.len() < 40, "{text}");
        }
    }

    proptest! {
        #[test]
        fn opens_only_unaltered(plaintext in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (dek, aad) = (dek(), aad::wal_frame(FILE, b"head", b"metadata"));
            let mut sealed = Vec::new();
            FrameSealer::new(&dek, [3; 4]).unwrap().seal(7, &aad, &plaintext, &mut sealed).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + TAG_BYTES);
            let opener = FrameOpener::new(&dek, [3; 4]).unwrap();
            prop_assert_eq!(&opener.open(7, &aad, &sealed).unwrap(), &plaintext);

            let mut altered = sealed.clone();
            altered[flip.index(sealed.len())] ^= 1 << bit;
            prop_assert!(opener.open(7, &aad, &altered).is_err());
            prop_assert!(opener.open(8, &aad, &sealed).is_err(), "another place");
            prop_assert!(opener.open(7, &aad::wal_frame(FILE, b"head", b"other"), &sealed).is_err());
            prop_assert!(FrameOpener::new(&dek, [4; 4]).unwrap().open(7, &aad, &sealed).is_err(), "another file");
            prop_assert!(opener.open(7, &aad, &sealed[..flip.index(sealed.len())]).is_err());
        }
    }
}
