//! The bodies of Key Vault's keys API, version 7.4: what is sent, and what an answer must look like to be believed.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use logseal_core::UnixNanos;
use logseal_crypto::Key256;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::uri::KeyIdentifier;
use crate::{KeyId, KeyName, KeyProperties, KeyVersion, VaultError};

/// The longest wrapped key that is taken: that of an RSA key of 8192 bits.
const WRAPPED_BYTES: usize = 1024;

/// How deep the causes of an error are looked at.
const INNER_ERRORS: usize = 8;

#[derive(Deserialize)]
struct KeyBundle<'a> {
    #[serde(borrow)]
    key: JsonWebKey<'a>,
    attributes: Attributes<'a>,
}

#[derive(Deserialize)]
struct JsonWebKey<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow, default)]
    n: Option<Cow<'a, str>>,
}

/// Times are in seconds since 1970.
#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(default)]
    enabled: Option<bool>,
    created: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    exp: Option<i64>,
    #[serde(borrow, default, rename = "recoveryLevel")]
    recovery_level: Option<Cow<'a, str>>,
}

/// The answer to wrap and unwrap. The value is borrowed from the body, so that no second copy of a key comes into being.
#[derive(Deserialize)]
struct OperationResult<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
    value: &'a str,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    error: ErrorDetail<'a>,
}

#[derive(Deserialize)]
struct ErrorDetail<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default, alias = "innerError")]
    innererror: Option<Box<InnerError<'a>>>,
}

#[derive(Deserialize)]
struct InnerError<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default, alias = "innerError")]
    innererror: Option<Box<InnerError<'a>>>,
}

/// The body of a wrap or unwrap of `value`; wiped after use.
pub(super) fn operation_body(value: &[u8]) -> Zeroizing<Vec<u8>> {
    const HEAD: &[u8] = br#"{"alg":"RSA-OAEP-256","value":""#;
    const TAIL: &[u8] = br#""}"#;
    let encoded = BASE64URL_NOPAD.encode_len(value.len());
    // Its whole length at once: growing would leave copies behind that nobody wipes.
    let mut body = Zeroizing::new(vec![0; HEAD.len() + encoded + TAIL.len()]);
    let (head, rest) = body.split_at_mut(HEAD.len());
    let (text, tail) = rest.split_at_mut(encoded);
    head.copy_from_slice(HEAD);
    BASE64URL_NOPAD.encode_mut(value, text);
    tail.copy_from_slice(TAIL);
    body
}

/// Reads the answer to a get: it must be of the key, and of the version if one was named.
pub(super) fn key_properties(
    body: &[u8],
    vault_uri: &str,
    name: &KeyName,
    version: Option<&KeyVersion>,
) -> Result<KeyProperties, VaultError> {
    let bundle: KeyBundle<'_> = parse(body)?;
    let named = named_version(&bundle.key.kid, vault_uri, name)?;
    if version.is_some_and(|version| *version != named) {
        return Err(VaultError::Malformed("it is of another key version"));
    }
    let kty = bundle.key.kty;
    // It is shown to people, so it must be the word that it should be.
    if !(1..=16).contains(&kty.len()) || !kty.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(VaultError::Malformed("the key's type is no JSON Web Key type"));
    }
    let Attributes { enabled, created, nbf, exp, recovery_level } = bundle.attributes;
    let mut properties = KeyProperties {
        id: KeyId { vault_uri: vault_uri.into(), name: name.clone(), version: named },
        key_type: kty.into(),
        rsa_bits: 0,
        enabled: enabled.unwrap_or(true),
        created: time(created),
        not_before: nbf.map(time),
        expires: exp.map(time),
        // `Purgeable` in any combination means that somebody can destroy the key before its retention ends.
        recoverable: recovery_level.is_some_and(|level| !level.is_empty() && !level.contains("Purgeable")),
    };
    if properties.is_rsa() {
        properties.rsa_bits = modulus_bits(bundle.key.n.as_deref())?;
    }
    Ok(properties)
}

/// Reads the answer to a wrap.
pub(super) fn wrapped_key(body: &[u8], kek: &KeyId) -> Result<Vec<u8>, VaultError> {
    let value = operation_value(body, kek)?;
    let wrapped = BASE64URL_NOPAD.decode(value.as_bytes()).ok();
    wrapped
        .filter(|wrapped| (1..=WRAPPED_BYTES).contains(&wrapped.len()))
        .ok_or(VaultError::Malformed("its value is no wrapped key"))
}

/// Reads the answer to an unwrap: 32 bytes, decoded in place.
pub(super) fn unwrapped_key(body: &[u8], kek: &KeyId) -> Result<Key256, VaultError> {
    let value = operation_value(body, kek)?;
    let mut whole = false;
    let key = Key256::fill_with(|key| {
        whole = BASE64URL_NOPAD.decode_len(value.len()) == Ok(key.len())
            && BASE64URL_NOPAD.decode_mut(value.as_bytes(), key) == Ok(key.len());
    });
    if whole { Ok(key) } else { Err(VaultError::Malformed("its value is no 256-bit key")) }
}

/// The codes of a Key Vault error, the innermost first; `None` when the body is no such error.
pub(super) fn error_codes(body: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    let ErrorDetail { code, innererror } = parse::<ErrorBody<'_>>(body).ok()?.error;
    if code.is_empty() {
        return None;
    }
    let mut codes = vec![code];
    let mut inner = innererror;
    while let Some(detail) = inner.filter(|_| codes.len() <= INNER_ERRORS) {
        codes.extend(detail.code);
        inner = detail.innererror;
    }
    codes.reverse();
    Some(codes)
}

fn operation_value<'a>(body: &'a [u8], kek: &KeyId) -> Result<&'a str, VaultError> {
    let result: OperationResult<'a> = parse(body)?;
    if named_version(&result.kid, &kek.vault_uri, &kek.name)? != kek.version {
        return Err(VaultError::Malformed("it is of another key version"));
    }
    Ok(result.value)
}

/// The version that a `kid` names, if it is of this vault and key. Hosts and key names are compared without case, as the vault does.
fn named_version(kid: &str, vault_uri: &str, name: &KeyName) -> Result<KeyVersion, VaultError> {
    let wrong = VaultError::Malformed("it is of another key");
    match KeyIdentifier::recognize(kid) {
        Some(KeyIdentifier { vault, name: found, version: Some(version) })
            if vault.eq_ignore_ascii_case(vault_uri) && found.as_str().eq_ignore_ascii_case(name.as_str()) =>
        {
            Ok(version)
        }
        _ => Err(wrong),
    }
}

fn modulus_bits(modulus: Option<&str>) -> Result<u32, VaultError> {
    let bits = modulus.and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok()).and_then(|bytes| {
        let first = bytes.iter().position(|byte| *byte != 0)?;
        u32::try_from((bytes.len() - first) * 8).ok().map(|bits| bits - bytes[first].leading_zeros())
    });
    bits.ok_or(VaultError::Malformed("the RSA key has no modulus"))
}

fn time(seconds: i64) -> UnixNanos {
    UnixNanos(seconds.saturating_mul(1_000_000_000))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, VaultError> {
    serde_json::from_slice(body).map_err(|_| VaultError::Malformed("it is not the JSON that it should be"))
}

#[cfg(test)]
mod tests;
