//! Bodies of requests. A property that this vault does not act on is refused, never passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};

use axum::body::Bytes;
use data_encoding::BASE64URL_NOPAD;
use logseal_core::UnixNanos;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::problem::Problem;
use crate::Permission;
use crate::embedded::key::{Attributes, KeyOperation, VersionChange};
use crate::embedded::rotation::{RotationPolicy, Span, Trigger};
use crate::embedded::rsa::PrivateComponents;

/// The size of a key for which none is asked.
const BITS: u32 = 2048;

/// The only public exponent.
const EXPONENT: u64 = 65_537;

/// The body as JSON; an empty one counts as an empty object.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text = if body.is_empty() { b"{}" } else { body.as_ref() };
    // What the error quotes of the body are names of properties and types, but for a value of a wrong enum: none of them is secret here.
    serde_json::from_slice(text).map_err(|error| Problem::bad(format!("the body cannot be understood: {error}")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    kty: String,
    key_size: Option<u32>,
    public_exponent: Option<u64>,
    key_ops: Option<Vec<String>>,
    attributes: Option<AttributesBody>,
    tags: Option<BTreeMap<String, String>>,
    /// What only this vault knows.
    #[serde(default)]
    pub(super) logseal: Extension,
}

/// What a key of this vault has beside Key Vault's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extension {
    /// Whether clusters, those of now and later ones, are granted everything; they are unless it says no.
    pub(super) grants: Option<bool>,
    /// Whether it can be purged before its retention has ended.
    pub(super) purgeable: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AttributesBody {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
    exportable: Option<bool>,
    // What the server computes; who changes a key may send it back as it was read.
    #[serde(rename = "created")]
    _created: Option<Value>,
    #[serde(rename = "updated")]
    _updated: Option<Value>,
    #[serde(rename = "recoveryLevel")]
    _recovery_level: Option<Value>,
    #[serde(rename = "recoverableDays")]
    _recoverable_days: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateBody {
    key_ops: Option<Vec<String>>,
    attributes: Option<AttributesBody>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportBody {
    key: JsonWebKey,
    #[serde(alias = "hsm", rename = "Hsm")]
    hsm: Option<bool>,
    attributes: Option<AttributesBody>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) logseal: Extension,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonWebKey {
    #[serde(rename = "kid")]
    _kid: Option<String>,
    kty: String,
    key_ops: Option<Vec<String>>,
    n: Option<Zeroizing<String>>,
    e: Option<Zeroizing<String>>,
    d: Option<Zeroizing<String>>,
    p: Option<Zeroizing<String>>,
    q: Option<Zeroizing<String>>,
    dp: Option<Zeroizing<String>>,
    dq: Option<Zeroizing<String>>,
    qi: Option<Zeroizing<String>>,
}

/// The body of wrapKey and its siblings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationBody {
    pub(super) alg: String,
    value: Zeroizing<String>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PolicyBody {
    #[serde(default)]
    lifetime_actions: Vec<LifetimeAction>,
    attributes: Option<PolicyAttributes>,
    #[serde(rename = "id")]
    _id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LifetimeAction {
    trigger: TriggerBody,
    action: ActionBody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TriggerBody {
    time_after_create: Option<String>,
    time_before_expiry: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionBody {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PolicyAttributes {
    expiry_time: Option<String>,
    #[serde(rename = "created")]
    _created: Option<Value>,
    #[serde(rename = "updated")]
    _updated: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    permissions: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomBody {
    pub(super) count: usize,
}

impl CreateBody {
    /// The size that the key is to have.
    pub(super) fn bits(&self) -> Result<u32, Problem> {
        check_kind(&self.kty)?;
        if self.public_exponent.is_some_and(|exponent| exponent != EXPONENT) {
            return Err(Problem::bad("`public_exponent` can only be 65537"));
        }
        let bits = self.key_size.unwrap_or(BITS);
        if crate::embedded::RSA_BITS.contains(&bits) {
            return Ok(bits);
        }
        Err(Problem::bad(format!("`key_size` is {bits}; it can be: 2048, 3072, 4096")))
    }

    pub(super) fn change(&mut self) -> Result<VersionChange, Problem> {
        change(self.attributes.take(), self.key_ops.take(), self.tags.take())
    }
}

impl UpdateBody {
    pub(super) fn change(self) -> Result<VersionChange, Problem> {
        change(self.attributes, self.key_ops, self.tags)
    }
}

impl ImportBody {
    pub(super) fn change(&mut self) -> Result<VersionChange, Problem> {
        change(self.attributes.take(), self.key.key_ops.take(), self.tags.take())
    }

    pub(super) fn components(&self) -> Result<PrivateComponents, Problem> {
        check_kind(&self.key.kty)?;
        if self.hsm == Some(true) {
            return Err(Problem::bad("`Hsm` is true; this vault keeps keys in software"));
        }
        let part = |name: &str, value: &Option<Zeroizing<String>>| match value {
            Some(text) => base64(name, text),
            None => Err(Problem::bad(format!(
                "`key.{name}` is missing: an RSA private key has n, e, d, p, q, dp, dq and qi"
            ))),
        };
        let JsonWebKey { n, e, d, p, q, dp, dq, qi, .. } = &self.key;
        Ok(PrivateComponents {
            n: part("n", n)?,
            e: part("e", e)?,
            d: part("d", d)?,
            p: part("p", p)?,
            q: part("q", q)?,
            dp: part("dp", dp)?,
            dq: part("dq", dq)?,
            qi: part("qi", qi)?,
        })
    }
}

impl OperationBody {
    pub(super) fn value(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        base64("value", &self.value)
    }

    pub(super) fn digest(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let digest = self.digest.as_deref().ok_or_else(|| Problem::bad("`digest` is missing"))?;
        base64("digest", digest)
    }
}

impl Debug for OperationBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationBody").field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl PolicyBody {
    pub(super) fn policy(self) -> Result<RotationPolicy, Problem> {
        let mut policy = RotationPolicy { rotate: None, notify: None, expiry: None, created: 0, updated: 0 };
        if let Some(text) =
            self.attributes.and_then(|attributes| attributes.expiry_time).filter(|text| !text.is_empty())
        {
            policy.expiry = Some(span(&text)?);
        }
        for LifetimeAction { trigger, action } in self.lifetime_actions {
            let trigger = match (trigger.time_after_create, trigger.time_before_expiry) {
                (Some(text), None) => Trigger::TimeAfterCreate(span(&text)?),
                (None, Some(text)) => Trigger::TimeBeforeExpiry(span(&text)?),
                _ => return Err(Problem::bad("a trigger has either `timeAfterCreate` or `timeBeforeExpiry`")),
            };
            let place = match action.kind.to_ascii_lowercase().as_str() {
                "rotate" => &mut policy.rotate,
                "notify" => &mut policy.notify,
                other => return Err(Problem::bad(format!("the action is `{other}`; it can be: rotate, notify"))),
            };
            if place.replace(trigger).is_some() {
                return Err(Problem::bad("a policy has at most one action of each type"));
            }
        }
        Ok(policy)
    }
}

impl GrantBody {
    /// What is granted: everything, unless the body says less.
    pub(super) fn permissions(&self) -> Result<BTreeSet<Permission>, Problem> {
        let Some(names) = &self.permissions else { return Ok(Permission::ALL.into()) };
        let read = |name: &String| {
            Permission::parse(name)
                .ok_or_else(|| Problem::bad(format!("the permission is `{name}`; it can be: get, wrapKey, unwrapKey")))
        };
        let permissions: BTreeSet<_> = names.iter().map(read).collect::<Result<_, _>>()?;
        if permissions.is_empty() {
            return Err(Problem::bad("`permissions` is empty: delete the grant to take everything away"));
        }
        Ok(permissions)
    }
}

fn span(text: &str) -> Result<Span, Problem> {
    Span::try_from(text.to_owned()).map_err(Problem::bad)
}

fn check_kind(kty: &str) -> Result<(), Problem> {
    if kty.eq_ignore_ascii_case("RSA") {
        return Ok(());
    }
    Err(Problem::bad(format!("`kty` is `{kty}`; this vault has keys of the type RSA")))
}

fn change(
    attributes: Option<AttributesBody>,
    operations: Option<Vec<String>>,
    tags: Option<BTreeMap<String, String>>,
) -> Result<VersionChange, Problem> {
    let attributes = attributes.unwrap_or_default();
    if attributes.exportable == Some(true) {
        return Err(Problem::bad("`exportable` is true; no key leaves this vault"));
    }
    let time = |name: &str, seconds: Option<i64>| match seconds {
        None => Ok(None),
        Some(seconds) => {
            let time =
                Some(seconds).filter(|seconds| *seconds >= 0).and_then(|seconds| seconds.checked_mul(1_000_000_000));
            time.map(|time| Some(UnixNanos(time))).ok_or_else(|| {
                Problem::bad(format!("`{name}` is {seconds}; it is a Unix time in seconds before the year 2262"))
            })
        }
    };
    let operation = |name: &String| {
        KeyOperation::parse(name).ok_or_else(|| {
            let known = KeyOperation::ALL.map(KeyOperation::as_str).join(", ");
            Problem::bad(format!("`key_ops` has `{name}`; it can have: {known}"))
        })
    };
    Ok(VersionChange {
        enabled: attributes.enabled,
        not_before: time("nbf", attributes.nbf)?,
        expires: time("exp", attributes.exp)?,
        operations: operations.map(|names| names.iter().map(operation).collect::<Result<_, _>>()).transpose()?,
        tags,
    })
}

/// A new version with what was asked for, and defaults elsewhere.
pub(super) fn attributes(change: &VersionChange) -> Attributes {
    let VersionChange { enabled, not_before, expires, .. } = *change;
    Attributes { enabled: enabled.unwrap_or(true), not_before, expires }
}

fn base64(name: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let decoded = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes());
    decoded.map(Zeroizing::new).map_err(|_| Problem::bad(format!("`{name}` is not base64url")))
}
