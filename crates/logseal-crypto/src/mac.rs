//! HMAC-SHA-256 (RFC 2104) over the fields of a row, so that who can write the catalog can neither plant a key nor swap a
//! segment.

use std::fmt::{self, Debug};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::Key256;

/// A MAC: public, compared in constant time.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Mac([u8; 32]);

impl Mac {
    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A key for MACs.
#[derive(Debug)]
pub struct MacKey(Key256);

impl MacKey {
    /// A MAC key with these bytes.
    #[must_use]
    pub fn new(key: Key256) -> Self {
        Self(key)
    }

    /// The MAC of `fields` in `domain`.
    ///
    /// Each field is preceded by its length as a 64-bit little-endian number, so no two lists of fields give the same input.
    #[must_use]
    pub fn mac(&self, domain: &str, fields: &[&[u8]]) -> Mac {
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("HMAC takes keys of any length");
        for field in [domain.as_bytes()].iter().chain(fields) {
            hmac.update(&(field.len() as u64).to_le_bytes());
            hmac.update(field);
        }
        Mac(hmac.finalize().into_bytes().into())
    }

    /// Whether `stored` is the MAC of `fields` in `domain`, in constant time.
    #[must_use]
    pub fn verify(&self, domain: &str, fields: &[&[u8]], stored: &[u8]) -> bool {
        self.mac(domain, fields).0.as_slice().ct_eq(stored).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = MacKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
        let mac = key.mac("row", &[b"ab", b"c"]);
        assert!(key.verify("row", &[b"ab", b"c"], mac.as_bytes()));
        assert!(!key.verify("row", &[b"a", b"bc"], mac.as_bytes()));
        assert!(!key.verify("row", &[b"abc"], mac.as_bytes()));
        assert!(!key.verify("other", &[b"ab", b"c"], mac.as_bytes()));
        assert!(!key.verify("row", &[b"ab", b"c"], &mac.as_bytes()[..31]));
    }
}
