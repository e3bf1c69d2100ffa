//! RSA by aws-lc-rs: OAEP for wraps, PKCS #1 and PSS for signatures. The crate `rsa` is not an option: RUSTSEC-2023-0071 has no fix.

use std::fmt::{self, Debug};

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeyPairComponents, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm,
    OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaParameters,
};
use zeroize::Zeroizing;

use crate::VaultError;

/// RSA modulus sizes in bits that a key may have.
pub const RSA_BITS: [u32; 3] = [2048, 3072, 4096];

/// The public exponent of every key, 65537: others gain nothing, and large ones make public operations slow.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// How a value is encrypted or a key wrapped (RFC 8017, section 7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encryption {
    /// `RSA-OAEP`: SHA-1 for both hashes; OAEP does not need them to be free of collisions.
    Oaep,
    /// `RSA-OAEP-256`: SHA-256 for both hashes.
    Oaep256,
}

impl Encryption {
    /// Reads the name that RFC 7518, section 4.1, has for it.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "RSA-OAEP" => Some(Self::Oaep),
            "RSA-OAEP-256" => Some(Self::Oaep256),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static OaepAlgorithm {
        match self {
            Self::Oaep => &OAEP_SHA1_MGF1SHA1,
            Self::Oaep256 => &OAEP_SHA256_MGF1SHA256,
        }
    }
}

/// How a digest is signed (RFC 8017, section 8).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signing {
    digest: &'static Algorithm,
    sign: &'static dyn RsaEncoding,
    verify: &'static RsaParameters,
}

impl Signing {
    /// Reads the name that RFC 7518, section 3.1, has for it.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (digest, sign, verify): (_, &'static dyn RsaEncoding, _) = match name {
            "RS256" => (&SHA256, &RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256),
            "RS384" => (&SHA384, &RSA_PKCS1_SHA384, &RSA_PKCS1_2048_8192_SHA384),
            "RS512" => (&SHA512, &RSA_PKCS1_SHA512, &RSA_PKCS1_2048_8192_SHA512),
            "PS256" => (&SHA256, &RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            "PS384" => (&SHA384, &RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
            "PS512" => (&SHA512, &RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
            _ => return None,
        };
        Some(Self { digest, sign, verify })
    }

    /// How many bytes a digest has.
    #[must_use]
    pub(crate) fn digest_bytes(self) -> usize {
        self.digest.output_len()
    }
}

/// The components of a private key that is brought along, big-endian (RFC 7518, section 6.3).
pub(crate) struct PrivateComponents {
    /// The modulus.
    pub(crate) n: Zeroizing<Vec<u8>>,
    /// The public exponent.
    pub(crate) e: Zeroizing<Vec<u8>>,
    /// The private exponent.
    pub(crate) d: Zeroizing<Vec<u8>>,
    /// The first prime factor.
    pub(crate) p: Zeroizing<Vec<u8>>,
    /// The second prime factor.
    pub(crate) q: Zeroizing<Vec<u8>>,
    /// `d mod (p - 1)`.
    pub(crate) dp: Zeroizing<Vec<u8>>,
    /// `d mod (q - 1)`.
    pub(crate) dq: Zeroizing<Vec<u8>>,
    /// `q^-1 mod p`.
    pub(crate) qi: Zeroizing<Vec<u8>>,
}

impl Debug for PrivateComponents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateComponents([redacted])")
    }
}

/// An RSA key pair.
pub(crate) struct RsaKey {
    /// For signatures and for the public part.
    pair: KeyPair,
    /// The same key, for decryption.
    private: PrivateDecryptingKey,
}

impl RsaKey {
    pub(super) fn generate(bits: u32) -> Result<Self, VaultError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => {
                return Err(VaultError::Invalid(format!("an RSA key has 2048, 3072 or 4096 bits, not {bits}")));
            }
        };
        let pair = KeyPair::generate(size).map_err(|_| VaultError::Rsa("generate"))?;
        Self::of(pair).ok_or(VaultError::Rsa("generate"))
    }

    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        Self::of(KeyPair::from_pkcs8(pkcs8).ok()?)
    }

    /// The key that somebody brings along, if it is one that this vault would have made.
    pub(super) fn import(components: &PrivateComponents) -> Result<Self, VaultError> {
        let PrivateComponents { n, e, d, p, q, dp, dq, qi } = components;
        let trimmed = |value: &'_ [u8]| value.iter().position(|byte| *byte != 0).unwrap_or(value.len());
        let bits = n.len().saturating_sub(trimmed(n)).saturating_mul(8);
        if !RSA_BITS.iter().any(|size| *size as usize == bits) {
            return Err(VaultError::Invalid("the key's modulus must have 2048, 3072 or 4096 bits".to_owned()));
        }
        if e[trimmed(e)..] != EXPONENT {
            return Err(VaultError::Invalid("the key's public exponent must be 65537 (`AQAB`)".to_owned()));
        }
        let pair = KeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: n.as_slice(), e: e.as_slice() },
            d: d.as_slice(),
            p: p.as_slice(),
            q: q.as_slice(),
            dP: dp.as_slice(),
            dQ: dq.as_slice(),
            qInv: qi.as_slice(),
        });
        // A modulus whose first bit is not set is shorter than its bytes.
        let pair = pair.ok().and_then(Self::of).filter(|key| RSA_BITS.contains(&key.bits()));
        pair.ok_or_else(|| VaultError::Invalid("the key's components do not make an RSA private key".to_owned()))
    }

    fn of(pair: KeyPair) -> Option<Self> {
        let pkcs8: Pkcs8V1Der<'static> = pair.as_der().ok()?;
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).ok()?;
        Some(Self { pair, private })
    }

    /// The private key, in memory that is wiped.
    pub(super) fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, VaultError> {
        self.pair.as_der().map_err(|_| VaultError::Rsa("encode"))
    }

    pub(crate) fn bits(&self) -> u32 {
        u32::try_from(self.private.key_size_bits()).unwrap_or(u32::MAX)
    }

    /// Modulus and exponent, big-endian.
    pub(crate) fn public(&self) -> (Vec<u8>, Vec<u8>) {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        (n, e)
    }

    pub(crate) fn encrypt(&self, how: Encryption, plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        let failed = |_| VaultError::Rsa("encrypt");
        let public = OaepPublicEncryptingKey::new(self.private.public_key()).map_err(failed)?;
        let most = public.max_plaintext_size(how.algorithm());
        if plaintext.len() > most {
            let (given, bits) = (plaintext.len(), self.bits());
            return Err(VaultError::Invalid(format!(
                "the value has {given} bytes; a key of {bits} bits takes at most {most} with this algorithm"
            )));
        }
        let mut out = vec![0; public.ciphertext_size()];
        let length = public.encrypt(how.algorithm(), plaintext, &mut out, None).map_err(failed)?.len();
        out.truncate(length);
        Ok(out)
    }

    /// `None` when `ciphertext` does not open: an attacker learns no more than that.
    pub(crate) fn decrypt(&self, how: Encryption, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let private = OaepPrivateDecryptingKey::new(self.private.clone()).ok()?;
        let mut out = Zeroizing::new(vec![0; private.min_output_size()]);
        let length = private.decrypt(how.algorithm(), ciphertext, &mut out, None).ok()?.len();
        out.truncate(length);
        Some(out)
    }

    /// `None` when `digest` has another length than the algorithm's.
    pub(crate) fn sign(&self, how: Signing, digest: &[u8]) -> Option<Vec<u8>> {
        let digest = Digest::import_less_safe(digest, how.digest).ok()?;
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign_digest(how.sign, &digest, &mut signature).ok()?;
        Some(signature)
    }

    /// Whether `signature` is one of `digest`; `None` when `digest` has another length than the algorithm's.
    pub(crate) fn verify(&self, how: Signing, digest: &[u8], signature: &[u8]) -> Option<bool> {
        let digest = Digest::import_less_safe(digest, how.digest).ok()?;
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        let public = public.to_parsed_public_key(how.verify).ok()?;
        Some(public.verify_digest_sig(&digest, signature).is_ok())
    }
}

impl Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({} bits, [redacted])", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;

    #[test]
    fn what_is_encrypted_opens_with_the_same_algorithm_only() {
        let key = RsaKey::generate(2048).unwrap();
        let sealed = key.encrypt(Encryption::Oaep, b"secret").unwrap();
        assert_eq!(key.decrypt(Encryption::Oaep, &sealed).unwrap().as_slice(), b"secret");
        assert!(key.decrypt(Encryption::Oaep256, &sealed).is_none());
        assert!(key.encrypt(Encryption::Oaep256, &[1; 190]).is_ok(), "the modulus less 66 bytes");
        assert!(matches!(key.encrypt(Encryption::Oaep256, &[1; 191]), Err(VaultError::Invalid(_))));
        let again = RsaKey::from_pkcs8(key.to_pkcs8().unwrap().as_ref()).unwrap();
        assert_eq!(again.decrypt(Encryption::Oaep, &sealed).unwrap().as_slice(), b"secret");
        assert_eq!((key.public().0.len(), key.public().1.as_slice()), (256, EXPONENT.as_slice()));
    }

    #[test]
    fn signatures_verify_for_their_digest_and_algorithm_only() {
        let key = RsaKey::generate(2048).unwrap();
        for (name, algorithm) in [("RS256", &SHA256), ("RS384", &SHA384), ("PS256", &SHA256), ("PS512", &SHA512)] {
            let how = Signing::parse(name).unwrap();
            let (right, wrong) = (digest(algorithm, b"a"), digest(algorithm, b"b"));
            let signature = key.sign(how, right.as_ref()).unwrap();
            assert_eq!(key.verify(how, right.as_ref(), &signature), Some(true), "{name}");
            assert_eq!(key.verify(how, wrong.as_ref(), &signature), Some(false), "{name}");
            assert!(key.sign(how, &right.as_ref()[1..]).is_none(), "{name}: a digest of another length");
        }
        assert!(Signing::parse("RS1").is_none() && Encryption::parse("RSA1_5").is_none());
    }

    #[test]
    fn only_keys_of_the_vaults_own_kind_are_imported() {
        let part = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let made_of = |n: &[u8], e: &[u8]| PrivateComponents {
            n: part(n),
            e: part(e),
            d: part(&[3]),
            p: part(&[5]),
            q: part(&[7]),
            dp: part(&[1]),
            dq: part(&[1]),
            qi: part(&[1]),
        };
        for (bad, why) in [
            (made_of(&[0xff; 128], &EXPONENT), "2048"),
            (made_of(&[], &[]), "2048"),
            (made_of(&[0xff; 256], &[3]), "65537"),
            (made_of(&[0xff; 256], &EXPONENT), "components"),
        ] {
            let message = RsaKey::import(&bad).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }
}
