//! Schemas of bodies.
//!
//! They are as strict as what reads the bodies: `resource::cluster`, `resource::workspace`, `request::link`,
//! `request::regenerate_keys`, `key_release`, `tokens` and `query`. What a client
//! may send back as it was read, and nobody looks at, has a schema that everything fits.

use logseal_keys::Slot;
use serde_json::{Map, Value, json};

use super::output::PROVISIONING_STATES;
use super::patterns::{
    CLUSTER_ID, DEFAULT_IDENTITY, KEY_NAME, KEY_URI, KEY_VERSION, LOCATION, TAG_NAME, TOKEN_NAME, VAULT_URI,
    WRAPPED_KEY,
};
use crate::api::key_release::ALGORITHM;
use crate::api::tokens::LONGEST_LIFE;
use crate::gate::Role;
use crate::gate::tokens::{NAME_BYTES, WORKSPACES};
use crate::resource::cluster::{self, CAPACITIES, SKU};
use crate::resource::identity::TENANT;
use crate::resource::key::URI_BYTES;
use crate::resource::workspace::{self, MIN_QUOTA, RETENTION, SKUS};
use crate::resource::{TAG_VALUE, TAGS};

pub(super) fn schemas() -> Map<String, Value> {
    let schemas = [
        ("Tags", tags()),
        ("ClusterInput", cluster()),
        ("KeyVaultProperties", key()),
        ("WorkspaceInput", workspace()),
        ("LinkedServiceInput", link()),
        ("Query", query()),
        ("WrappedKey", wrapped_key()),
        ("RegenerateKey", regenerate_key()),
        ("TokenInput", token()),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// An object that has these properties only.
fn closed(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

/// The schema with `null`, which counts as not given.
fn optional(mut schema: Value) -> Value {
    let Some(kind) = schema.get("type").cloned() else {
        return json!({"anyOf": [schema, {"type": "null"}]});
    };
    schema["type"] = json!([kind, "null"]);
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    schema
}

/// Not read.
fn ignored() -> Value {
    json!({"description": "Not read: the server computes it."})
}

/// May be left out, or has to be what was read.
fn unchanged(schema: Value) -> Value {
    let mut schema = optional(schema);
    schema["description"] = "Has to be as it was read.".into();
    schema["readOnly"] = true.into();
    schema
}

fn switch(says: &str) -> Value {
    json!({"type": ["boolean", "null"], "description": says})
}

fn skips_check() -> Value {
    switch("Also when a key that is to go was used recently.")
}

/// A flag that only has one value here.
fn off() -> Value {
    json!({"type": ["boolean", "null"], "enum": [false, null]})
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn tags() -> Value {
    json!({
        "type": ["object", "null"],
        "maxProperties": TAGS,
        "propertyNames": {"pattern": TAG_NAME},
        "additionalProperties": {"type": "string", "maxLength": TAG_VALUE},
    })
}

fn location() -> Value {
    let mut location = optional(text(LOCATION));
    location["description"] = "Required for a new resource; later it has to be as it was.".into();
    location
}

fn with_head(kind: &str, mut properties: Map<String, Value>) -> Value {
    for (name, schema) in [
        ("id", unchanged(json!({"type": "string"}))),
        ("name", unchanged(json!({"type": "string"}))),
        ("type", unchanged(words(&[kind]))),
        ("etag", ignored()),
        ("systemData", ignored()),
        ("location", location()),
        ("tags", json!({"$ref": "#/components/schemas/Tags"})),
    ] {
        properties.insert(name.to_owned(), schema);
    }
    closed(&[], properties.into())
}

fn cluster() -> Value {
    let mut user_assigned =
        json!({"type": ["object", "null"], "maxProperties": 2, "additionalProperties": {"type": ["object", "null"]}});
    user_assigned["description"] = "With the type UserAssigned: the resource id of the one identity; beside it, with null, one that it takes the place of.".into();
    let identity = closed(
        &["type"],
        json!({
            "type": words(&["SystemAssigned", "UserAssigned", "None"]),
            "tenantId": unchanged(words(&[TENANT])),
            "principalId": unchanged(json!({"type": "string"})),
            "userAssignedIdentities": user_assigned,
        }),
    );
    let sku = closed(
        &["name", "capacity"],
        json!({
            "name": words(&[SKU]),
            "capacity": {"type": "integer", "enum": CAPACITIES},
            "lastSkuUpdate": ignored(),
        }),
    );
    let replication = closed(
        &[],
        json!({
            "enabled": off(),
            "location": ignored(),
            "isAvailabilityZonesEnabled": ignored(),
            "provisioningState": ignored(),
            "createdDate": ignored(),
            "lastModifiedDate": ignored(),
        }),
    );
    let properties = closed(
        &[],
        json!({
            "keyVaultProperties": optional(json!({"$ref": "#/components/schemas/KeyVaultProperties"})),
            "keyVaultKeyUri": optional(key_uri()),
            "defaultIdentity": optional(default_identity()),
            "billingType": optional(words(&["Cluster", "Workspaces"])),
            "isDoubleEncryptionEnabled": off(),
            "isAvailabilityZonesEnabled": off(),
            "replication": optional(replication),
            "provisioningState": unchanged(words(&PROVISIONING_STATES)),
            "clusterId": ignored(),
            "createdDate": ignored(),
            "lastModifiedDate": ignored(),
            "associatedWorkspaces": ignored(),
            "capacityReservationProperties": ignored(),
            "keyState": ignored(),
            "customerManagedKeyStatus": ignored(),
        }),
    );
    let properties = [("identity", optional(identity)), ("sku", optional(sku)), ("properties", optional(properties))];
    with_head(cluster::TYPE, properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
}

/// Cosmos DB's name for a key in automatic mode.
fn key_uri() -> Value {
    let mut uri = text(KEY_URI);
    uri["description"] = "A key without a version: the newest one is used.".into();
    uri
}

fn default_identity() -> Value {
    let mut identity = text(DEFAULT_IDENTITY);
    identity["description"] = "As which identity the key vault is asked.".into();
    identity
}

fn key() -> Value {
    let version = || json!({"type": ["string", "null"], "pattern": KEY_VERSION});
    let size = || json!({"type": ["integer", "null"], "enum": [2048, 3072, 4096, null]});
    let mut reference = closed(
        &["keyVaultUri", "keyName"],
        json!({
            "keyVaultUri": {"type": "string", "pattern": VAULT_URI, "maxLength": URI_BYTES},
            "keyName": text(KEY_NAME),
            "keyVersion": version(),
            "keyRsaSize": size(),
        }),
    );
    reference["description"] = "A key. Without a version, or with an empty one, the newest version is used.".into();
    let empty = || json!({"type": ["string", "null"], "maxLength": 0});
    let mut none = closed(
        &[],
        json!({"keyVaultUri": empty(), "keyName": empty(), "keyVersion": empty(), "keyRsaSize": {"type": ["integer", "null"]}}),
    );
    none["description"] = "No key: only for a cluster that has none.".into();
    json!({"anyOf": [reference, none]})
}

fn workspace() -> Value {
    let sku = closed(
        &[],
        json!({"name": optional(words(&SKUS)), "lastSkuUpdate": ignored(), "capacityReservationLevel": ignored()}),
    );
    let capping = closed(
        &[],
        json!({
            "dailyQuotaGb": {"anyOf": [
                {"type": "number", "minimum": MIN_QUOTA},
                {"type": "number", "exclusiveMaximum": 0, "description": "No cap."},
                {"type": "null"},
            ]},
            "quotaNextResetTime": ignored(),
            "dataIngestionStatus": ignored(),
        }),
    );
    let features = closed(
        &[],
        json!({
            "disableLocalAuth": switch("Shippers' keys are not accepted."),
            "enableKeyCheckBeforeRegeneration": switch("A key that was used recently is regenerated only with `skipAccountKeysLastUsageCheck`."),
            "enableKeyCheckBeforeDisableLocalAuth": switch("The same for turning keys off."),
            "enableDataExport": off(),
            "immediatePurgeDataOn30Days": off(),
            "enableLogAccessUsingOnlyResourcePermissions": off(),
            "unifiedSentinelBillingOnly": off(),
            "clusterResourceId": ignored(),
        }),
    );
    let properties = closed(
        &[],
        json!({
            "sku": optional(sku),
            "retentionInDays": {
                "type": ["integer", "null"], "minimum": RETENTION.start(), "maximum": RETENTION.end(),
                "description": "`null` for the default.",
            },
            "workspaceCapping": optional(capping),
            "features": optional(features),
            "publicNetworkAccessForIngestion": optional(words(&["Enabled"])),
            "publicNetworkAccessForQuery": optional(words(&["Enabled"])),
            "forceCmkForQuery": off(),
            "provisioningState": unchanged(words(&PROVISIONING_STATES)),
            "customerId": ignored(),
            "createdDate": ignored(),
            "modifiedDate": ignored(),
            "privateLinkScopedResources": ignored(),
            "source": ignored(),
            "keysMetadata": ignored(),
        }),
    );
    let identity = closed(&[], json!({"type": optional(words(&["None"]))}));
    let properties = [
        ("identity", optional(identity)),
        ("properties", optional(properties)),
        ("skipAccountKeysLastUsageCheck", skips_check()),
    ];
    with_head(workspace::TYPE, properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
}

fn link() -> Value {
    let properties = closed(
        &["writeAccessResourceId"],
        json!({
            "writeAccessResourceId": {"type": "string", "pattern": CLUSTER_ID, "description": "The id of a cluster that exists."},
            "resourceId": unchanged(json!({"type": "string"})),
            "provisioningState": ignored(),
        }),
    );
    let mut link = closed(
        &["properties"],
        json!({"id": ignored(), "name": ignored(), "type": ignored(), "tags": ignored(), "properties": properties}),
    );
    link["properties"]["properties"]["properties"]["resourceId"]["description"] =
        "The same as `writeAccessResourceId`, or not given.".into();
    link
}

fn regenerate_key() -> Value {
    let mut kind = optional(words(&Slot::ALL.map(Slot::as_str)));
    kind["description"] = "Which key; both when it is left out.".into();
    closed(&[], json!({"keyKind": kind, "skipAccountKeysLastUsageCheck": skips_check()}))
}

fn wrapped_key() -> Value {
    let mut value = text(WRAPPED_KEY);
    value["description"] = "`wrappedDEK` of the file's key metadata.".into();
    closed(&["alg", "value"], json!({"alg": words(&[ALGORITHM]), "value": value}))
}

fn token() -> Value {
    let mut name = text(TOKEN_NAME);
    name["maxLength"] = NAME_BYTES.into();
    closed(
        &["name", "role"],
        json!({
            "name": name,
            "role": words(&Role::ALL.map(Role::as_str)),
            "workspaces": {
                "type": ["array", "null"], "maxItems": WORKSPACES, "items": {"type": "string", "format": "uuid"},
                "description": "For a reader, and only for one: `customerId` of each workspace that it may query.",
            },
            "expiresInSeconds": {
                "type": ["integer", "null"], "minimum": 1, "maximum": LONGEST_LIFE,
                "description": "After how long it opens nothing any more; `null` for never.",
            },
        }),
    )
}

fn query() -> Value {
    json!({
        "type": "object",
        "required": ["query"],
        "description": "Other properties, such as a `timespan`, are not read.",
        "properties": {
            "query": {"type": "string", "description": "One SQL query."},
            "maxRows": {"type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX, "description": "Most rows of the answer."},
        },
    })
}
