//! RSA-OAEP-256 by aws-lc-rs. The crate `rsa` is not an option: RUSTSEC-2023-0071 has no fix.

use std::fmt::{self, Debug};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
};
use logseal_crypto::Key256;
use zeroize::Zeroizing;

use crate::VaultError;

/// An RSA key pair for wrapping.
pub(super) struct RsaKey {
    private: PrivateDecryptingKey,
}

impl RsaKey {
    pub(super) fn generate(bits: u32) -> Result<Self, VaultError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return Err(VaultError::Rsa("generate: the size must be 2048, 3072 or 4096")),
        };
        let private = PrivateDecryptingKey::generate(size).map_err(|_| VaultError::Rsa("generate"))?;
        Ok(Self { private })
    }

    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        Some(Self { private: PrivateDecryptingKey::from_pkcs8(pkcs8).ok()? })
    }

    pub(super) fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, VaultError> {
        self.private.as_der().map_err(|_| VaultError::Rsa("encode"))
    }

    pub(super) fn bits(&self) -> u32 {
        u32::try_from(self.private.key_size_bits()).unwrap_or(u32::MAX)
    }

    pub(super) fn wrap(&self, key: &Key256) -> Result<Vec<u8>, VaultError> {
        let failed = |_| VaultError::Rsa("wrap");
        let public = OaepPublicEncryptingKey::new(self.private.public_key()).map_err(failed)?;
        let mut out = vec![0; public.ciphertext_size()];
        let length = public.encrypt(&OAEP_SHA256_MGF1SHA256, key.expose(), &mut out, None).map_err(failed)?.len();
        out.truncate(length);
        Ok(out)
    }

    /// `None` when `wrapped` does not open or does not hold 32 bytes: an attacker learns no more than that.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Option<Key256> {
        let private = OaepPrivateDecryptingKey::new(self.private.clone()).ok()?;
        let mut out = Zeroizing::new(vec![0; private.min_output_size()]);
        let opened = private.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut out, None).ok()?;
        Key256::copy_from_slice(opened)
    }
}

impl Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({} bits, [redacted])", self.bits())
    }
}
