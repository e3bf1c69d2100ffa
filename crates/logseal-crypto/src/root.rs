//! The root key of a deployment: 256 bits, from which each purpose gets a key of its own.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::{Key256, MacKey};

/// The deployment's root key. It encrypts nothing itself: each purpose has a key derived by HKDF-SHA-256 (RFC 5869) with a
/// label of its own.
#[derive(Debug)]
pub struct RootKey(Key256);

impl RootKey {
    /// A root key with these bytes.
    #[must_use]
    pub fn new(key: Key256) -> Self {
        Self(key)
    }

    /// Seals the private keys of the embedded vault.
    #[must_use]
    pub fn vault_seal(&self) -> Key256 {
        self.derive("vault private keys")
    }

    /// MACs the key rows and segment rows of the catalog.
    #[must_use]
    pub fn catalog_mac(&self) -> MacKey {
        MacKey::new(self.derive("catalog rows"))
    }

    /// MACs the public part of the embedded vault's keys.
    #[must_use]
    pub fn vault_mac(&self) -> MacKey {
        MacKey::new(self.derive("vault rows"))
    }

    /// Looks up workspace keys without storing them.
    #[must_use]
    pub fn credential_mac(&self) -> MacKey {
        MacKey::new(self.derive("credential lookup"))
    }

    /// Looks up tokens of the management API without storing them.
    #[must_use]
    pub fn token_mac(&self) -> MacKey {
        MacKey::new(self.derive("management tokens"))
    }

    /// Seals the readable copy of workspace keys.
    #[must_use]
    pub fn credential_seal(&self) -> Key256 {
        self.derive("credential copies")
    }

    fn derive(&self, purpose: &str) -> Key256 {
        Key256::fill_with(|out| {
            Hkdf::<Sha256>::new(None, self.0.expose())
                .expand_multi_info(&[b"logseal root v1 ", purpose.as_bytes()], out)
                .expect("32 bytes are within HKDF's limit of 255 blocks");
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
        assert!(!root.vault_seal().ct_eq(&root.credential_seal()));
        assert_ne!(root.catalog_mac().mac("d", &[]), root.vault_mac().mac("d", &[]));
        assert_ne!(root.catalog_mac().mac("d", &[]), root.credential_mac().mac("d", &[]));
        assert_ne!(root.token_mac().mac("d", &[]), root.credential_mac().mac("d", &[]));
        let other = RootKey::new(Key256::copy_from_slice(&[2; 32]).unwrap());
        assert!(!root.vault_seal().ct_eq(&other.vault_seal()));
    }
}
