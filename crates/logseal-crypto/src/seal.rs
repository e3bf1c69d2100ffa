//! AES-256-GCM with a random nonce, for few and small values: wraps, names, private keys.
//!
//! Sealed bytes are `nonce (12) | ciphertext | tag (16)`. With random 96-bit nonces a key may seal at most 2^32 values
//! (NIST SP 800-38D, section 8.3); callers that could come near count their uses.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use logseal_core::stack;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::aad::Aad;
use crate::{Key256, OsRandom};

/// Bytes of a GCM nonce.
pub const NONCE_BYTES: usize = 12;

/// Bytes of a GCM tag.
pub const TAG_BYTES: usize = 16;

/// Bytes that sealing adds to its input.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The sealed value was altered, or belongs to another key, purpose, workspace or object.
///
/// Which of these it was cannot be told, and would help only an attacker.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("sealed value does not open: it was altered, or belongs to another key or object")]
pub struct SealError;

/// Seals `plaintext` under `key`, bound to `aad`.
///
/// # Panics
///
/// When `plaintext` is larger than 64 GiB, the limit of GCM; no caller has such a value.
#[must_use]
pub fn seal(key: &Key256, aad: &Aad, plaintext: &[u8], random: OsRandom) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = random.array();
    let payload = Payload { msg: plaintext, aad: aad.as_bytes() };
    let ciphertext = stack::wiped(|| Aes256Gcm::new(key.expose().into()).encrypt(&Nonce::from(nonce), payload))
        .expect("GCM refuses only plaintexts over 64 GiB");
    [nonce.as_slice(), &ciphertext].concat()
}

/// Opens what [`seal`] made.
///
/// # Errors
///
/// [`SealError`] when anything but the very same key, AAD and bytes is given.
pub fn open(key: &Key256, aad: &Aad, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError)?;
    let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
    stack::wiped(|| Aes256Gcm::new(key.expose().into()).decrypt(&Nonce::from(*nonce), payload))
        .map(Zeroizing::new)
        .map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aad;

    fn key(byte: u8) -> Key256 {
        Key256::copy_from_slice(&[byte; 32]).unwrap()
    }

    /// Known answer: NIST GCM test vectors, AES-256, `gcmEncryptExtIV256`, 96-bit IV, Count 0 with 128-bit text and no AAD.
    #[test]
    fn the_cipher_is_aes_256_gcm() {
        let key = data_encoding::HEXLOWER
            .decode(b"31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22")
            .unwrap();
        let nonce: [u8; 12] = data_encoding::HEXLOWER.decode(b"0d18e06c7c725ac9e362e1ce").unwrap().try_into().unwrap();
        let text = data_encoding::HEXLOWER.decode(b"2db5168e932556f8089a0622981d017d").unwrap();
        let key = Key256::copy_from_slice(&key).unwrap();
        let sealed = Aes256Gcm::new(key.expose().into()).encrypt(&Nonce::from(nonce), text.as_slice()).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&sealed),
            "fa4362189661d163fcd6a56d8bf0405ad636ac1bbedd5cc3ee727dc2ab4a9489"
        );
    }

    #[test]
    fn two_seals_of_one_value_differ() {
        let aad = aad::vault_private_key("a", "b");
        assert_ne!(seal(&key(1), &aad, b"x", OsRandom), seal(&key(1), &aad, b"x", OsRandom));
    }

    proptest! {
        #[test]
        fn opens_only_unaltered(plaintext in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let aad = aad::vault_private_key("name", "version");
            let sealed = seal(&key(7), &aad, &plaintext, OsRandom);
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            let opened = open(&key(7), &aad, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), plaintext.as_slice());

            let mut altered = sealed.clone();
            altered[flip.index(sealed.len())] ^= 1 << bit;
            prop_assert!(open(&key(7), &aad, &altered).is_err());
            prop_assert!(open(&key(8), &aad, &sealed).is_err());
            prop_assert!(open(&key(7), &aad::vault_private_key("name", "other"), &sealed).is_err());
            prop_assert!(open(&key(7), &aad, &sealed[..flip.index(sealed.len())]).is_err());
        }
    }
}
