//! Keys as answers show them.

use data_encoding::BASE64URL_NOPAD;
use logseal_core::UnixNanos;
use serde_json::{Value, json};

use super::asked::Asked;
use crate::embedded::Key;
use crate::embedded::key::{Attributes, Deletion, RETENTION_DAYS, Version};
use crate::embedded::rotation::{RotationPolicy, Trigger};

/// `KeyBundle`: the public part of a version, and what its owner says of it.
pub(super) fn bundle(asked: &Asked, key: &Key, version: &Version) -> Value {
    let (n, e) = version.rsa.public();
    let operations: Vec<_> = version.operations.iter().map(|operation| operation.as_str()).collect();
    json!({
        "key": {
            "kid": asked.id(&key.name, &version.version).to_string(),
            "kty": "RSA",
            "key_ops": operations,
            "n": BASE64URL_NOPAD.encode(&n),
            "e": BASE64URL_NOPAD.encode(&e),
        },
        "attributes": attributes(key, version),
        "tags": version.tags,
    })
}

/// `DeletedKeyBundle`.
pub(super) fn deleted_bundle(asked: &Asked, key: &Key, deletion: Deletion) -> Value {
    with_deletion(bundle(asked, key, key.newest()), asked, key, deletion)
}

/// `KeyItem` of a key.
pub(super) fn item(asked: &Asked, key: &Key) -> Value {
    let (base, name, newest) = (&asked.base, &key.name, key.newest());
    json!({"kid": format!("{base}/keys/{name}"), "attributes": attributes(key, newest), "tags": newest.tags})
}

/// `DeletedKeyItem`.
pub(super) fn deleted_item(asked: &Asked, key: &Key, deletion: Deletion) -> Value {
    with_deletion(item(asked, key), asked, key, deletion)
}

/// `KeyItem` of a version.
pub(super) fn version_item(asked: &Asked, key: &Key, version: &Version) -> Value {
    let kid = asked.id(&key.name, &version.version).to_string();
    json!({"kid": kid, "attributes": attributes(key, version), "tags": version.tags})
}

/// `KeyRotationPolicy`; a key without one shows Key Vault's default, which does nothing.
pub(super) fn policy(asked: &Asked, key: &Key) -> Value {
    let id = format!("{}/keys/{}/rotationpolicy", asked.base, key.name);
    let Some(RotationPolicy { rotate, notify, expiry, created, updated }) = &key.rotation else {
        return json!({"id": id, "lifetimeActions": [], "attributes": {}});
    };
    let action = |kind: &str, trigger: &Option<Trigger>| {
        trigger.as_ref().map(|trigger| {
            let trigger = match trigger {
                Trigger::TimeAfterCreate(span) => json!({"timeAfterCreate": span.to_string()}),
                Trigger::TimeBeforeExpiry(span) => json!({"timeBeforeExpiry": span.to_string()}),
            };
            json!({"trigger": trigger, "action": {"type": kind}})
        })
    };
    let actions: Vec<_> = [action("Rotate", rotate), action("Notify", notify)].into_iter().flatten().collect();
    let mut attributes = json!({"created": UnixNanos(*created).seconds(), "updated": UnixNanos(*updated).seconds()});
    if let Some(span) = expiry {
        attributes["expiryTime"] = span.to_string().into();
    }
    json!({"id": id, "lifetimeActions": actions, "attributes": attributes})
}

/// Who may do what with the key: a page of this vault's own API.
pub(super) fn grants(key: &Key) -> Value {
    let grants = key.grants.iter().map(|(principal, permissions)| {
        let permissions: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
        json!({"principalId": principal.as_str(), "permissions": permissions})
    });
    json!({"value": grants.collect::<Vec<_>>(), "newClusters": key.welcoming})
}

fn attributes(key: &Key, version: &Version) -> Value {
    let Attributes { enabled, not_before, expires } = version.attributes;
    let mut attributes = json!({
        "enabled": enabled,
        "created": version.created.seconds(),
        "updated": version.updated.seconds(),
        "recoveryLevel": if key.purgeable { "Recoverable+Purgeable" } else { "Recoverable" },
        "recoverableDays": RETENTION_DAYS,
        "exportable": false,
    });
    for (name, time) in [("nbf", not_before), ("exp", expires)] {
        if let Some(time) = time {
            attributes[name] = time.seconds().into();
        }
    }
    attributes
}

fn with_deletion(mut view: Value, asked: &Asked, key: &Key, deletion: Deletion) -> Value {
    view["recoveryId"] = format!("{}/deletedkeys/{}", asked.base, key.name).into();
    view["deletedDate"] = deletion.at.seconds().into();
    view["scheduledPurgeDate"] = deletion.purge_at.seconds().into();
    view
}
