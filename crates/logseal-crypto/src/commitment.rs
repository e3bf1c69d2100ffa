//! Key commitment: a value that only one key can have in one context.
//!
//! AES-GCM does not commit to its key: a ciphertext can be made that opens under two keys (eprint 2020/1491). Each wrapped
//! key therefore has a commitment beside it, `HKDF-SHA-256(key, info = label | context)`, compared in constant time before
//! the key is used. It reveals nothing about the key (HKDF is a one-way function of a 256-bit random input).

use std::fmt::{self, Debug};

use hkdf::Hkdf;
use logseal_core::stack;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::Key256;
use crate::aad::Aad;

/// What a key commits to in one context. Public.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// The commitment of `key` in the context that `aad` names.
    #[must_use]
    pub fn of(key: &Key256, aad: &Aad) -> Self {
        let mut out = [0; 32];
        stack::wiped(|| {
            Hkdf::<Sha256>::new(None, key.expose())
                .expand_multi_info(&[b"logseal key commitment v1 ", aad.as_bytes()], &mut out)
                .expect("32 bytes are within HKDF's limit of 255 blocks");
        });
        Self(out)
    }

    /// A stored commitment; `None` unless it has 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `key` in the context of `aad` is the one committed to, in constant time.
    #[must_use]
    pub fn matches(&self, key: &Key256, aad: &Aad) -> bool {
        Self::of(key, aad).0.ct_eq(&self.0).into()
    }
}

impl Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commitment({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aad;

    #[test]
    fn binds_key_and_context() {
        let key = Key256::copy_from_slice(&[1; 32]).unwrap();
        let other = Key256::copy_from_slice(&[2; 32]).unwrap();
        let context = aad::vault_private_key("a", "b");
        let commitment = Commitment::of(&key, &context);
        assert!(commitment.matches(&key, &context));
        assert!(!commitment.matches(&other, &context));
        assert!(!commitment.matches(&key, &aad::vault_private_key("a", "c")));
    }
}
