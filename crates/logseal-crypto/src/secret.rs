//! The type of a symmetric key.

use std::fmt::{self, Debug};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::OsRandom;

/// A 256-bit secret: an AEK, a DEK, the root key or a key derived from one of them.
///
/// Boxed, so that moving it leaves no copies on the stack; wiped on drop; without `Clone`, `Serialize` or a `Debug` that
/// shows anything. [`Key256::expose`] is the one way to its bytes.
#[derive(ZeroizeOnDrop)]
pub struct Key256(Box<[u8; 32]>);

impl Key256 {
    /// A new random key.
    #[must_use]
    pub fn generate(random: OsRandom) -> Self {
        Self::fill_with(|bytes| random.fill_secret(bytes))
    }

    /// A key whose bytes `fill` writes in place.
    pub fn fill_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut key = Self(Box::new([0; 32]));
        fill(&mut key.0);
        key
    }

    /// A copy of `bytes`; `None` unless there are exactly 32. The caller wipes its own copy.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| Self::fill_with(|key| key.copy_from_slice(bytes)))
    }

    /// The key's bytes. Callers hand them to a cipher or a wrap at once and keep no copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Debug for Key256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key256([redacted])")
    }
}

impl Zeroize for Key256 {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_key() {
        let key = Key256::copy_from_slice(&[0xAB; 32]).unwrap();
        let text = format!("{key:?}");
        assert!(!text.contains("ab") && !text.contains("AB") && !text.contains("171"), "{text}");
    }

    #[test]
    fn only_32_bytes_make_a_key() {
        for length in [0, 16, 31, 33] {
            assert!(Key256::copy_from_slice(&vec![1; length]).is_none());
        }
    }

    #[test]
    fn generated_keys_differ() {
        assert!(!Key256::generate(OsRandom).ct_eq(&Key256::generate(OsRandom)));
    }
}
