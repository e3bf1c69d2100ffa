//! Schemas of answers. What is listed as required is always there; later versions may add properties.

use serde_json::{Map, Value, json};

use super::patterns;
use crate::gate::Role;
use crate::resource::cluster::{self, CAPACITIES, SKU};
use crate::resource::identity::TENANT;
use crate::resource::workspace::{self, RETENTION, SKUS};

/// The words of `ProvisioningState`.
pub(super) const PROVISIONING_STATES: [&str; 6] =
    ["Creating", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"];

/// The words of an operation's status.
const STATUSES: [&str; 6] = ["InProgress", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"];

pub(super) fn schemas() -> Map<String, Value> {
    let list = |item: &str| object(&["value"], json!({"value": {"type": "array", "items": reference(item)}}));
    let pages = |item: &str, next: &str, schema: Value| {
        let mut list = list(item);
        list["properties"][next] = schema;
        list
    };
    let resources = |item: &str| pages(item, "nextLink", json!({"type": "string", "format": "uri"}));
    let schemas = [
        ("Cluster", cluster()),
        ("ClusterList", resources("Cluster")),
        ("Workspace", workspace()),
        ("WorkspaceList", resources("Workspace")),
        ("LinkedService", link()),
        ("LinkedServiceList", list("LinkedService")),
        ("Resource", json!({"anyOf": [reference("Cluster"), reference("Workspace"), reference("LinkedService")]})),
        ("OperationStatus", status()),
        ("Operation", operation()),
        ("OperationList", pages("Operation", "nextBefore", uuid())),
        ("AuditList", list("AuditRecord")),
        ("AuditRecord", audit_record()),
        ("AuditVerdict", audit_verdict()),
        ("SharedKeys", shared_keys()),
        ("UnwrappedKey", unwrapped_key()),
        ("ExportedKey", exported_key()),
        ("TokenList", list("Token")),
        ("Token", token()),
        ("NewToken", new_token()),
        ("SegmentList", list("Segment")),
        ("Segment", segment()),
        ("QueryTables", query_tables()),
        ("QueryRows", json!({"type": "array", "items": {"type": "object"}, "description": "Rows by column name."})),
        ("Document", object(&["openapi", "info", "paths", "components"], json!({"openapi": text()}))),
        ("Error", error()),
        ("ErrorDetail", error_detail()),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// An object all of whose properties are always there.
fn whole(properties: Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn date() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn nanoseconds() -> Value {
    json!({"type": "integer", "description": "Nanoseconds since 1970, UTC."})
}

fn optional_date() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn tags() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

fn cluster() -> Value {
    let workspace =
        whole(json!({"workspaceId": uuid(), "workspaceName": text(), "resourceId": text(), "associateDate": date()}));
    let key = object(
        &["keyVaultUri", "keyName", "keyVersion"],
        json!({"keyVaultUri": text(), "keyName": text(), "keyVersion": text(), "keyRsaSize": {"type": "integer"}}),
    );
    let version = object(
        &["version", "wrappedKeys"],
        json!({"version": text(), "wrappedKeys": count(), "lastUsed": optional_date()}),
    );
    let key_state = object(
        &["state", "since", "resolvedVersion", "versions"],
        json!({
            "state": words(&["Active", "Degraded", "Revoked", "Resuming"]),
            "since": optional_date(),
            "until": optional_date(),
            "code": {"type": ["string", "null"], "description": "Of the catalogue of key faults."},
            "reason": {"type": ["string", "null"]},
            "configuredVersion": {"type": ["string", "null"], "description": "As it was asked for; empty for the newest one."},
            "resolvedVersion": text(),
            "newestVersion": {"type": ["string", "null"], "description": "In the vault, when that was looked for."},
            "principalId": {"type": ["string", "null"], "description": "As whom the key vault is asked; null for nobody."},
            "versions": {"type": "array", "items": version},
        }),
    );
    let required = [
        "provisioningState",
        "clusterId",
        "createdDate",
        "lastModifiedDate",
        "isDoubleEncryptionEnabled",
        "isAvailabilityZonesEnabled",
        "billingType",
        "associatedWorkspaces",
        "capacityReservationProperties",
    ];
    let properties = object(
        &required,
        json!({
            "provisioningState": words(&PROVISIONING_STATES),
            "clusterId": uuid(),
            "createdDate": date(),
            "lastModifiedDate": date(),
            "isDoubleEncryptionEnabled": {"const": false},
            "isAvailabilityZonesEnabled": {"const": false},
            "billingType": words(&["Cluster", "Workspaces"]),
            "associatedWorkspaces": {"type": "array", "items": workspace},
            "capacityReservationProperties": whole(json!({"lastSkuUpdate": date(), "minCapacity": {"type": "integer"}})),
            "keyVaultProperties": key,
            "keyState": key_state,
            "customerManagedKeyStatus": text(),
            "defaultIdentity": text(),
        }),
    );
    let identity = object(
        &["type"],
        json!({
            "type": words(&["SystemAssigned", "UserAssigned", "None"]),
            "tenantId": words(&[TENANT]),
            "principalId": uuid(),
            "userAssignedIdentities": {"type": "object", "additionalProperties": {"type": "object"}},
        }),
    );
    let sku = whole(json!({"name": words(&[SKU]), "capacity": {"type": "integer", "enum": CAPACITIES}}));
    resource(cluster::TYPE, json!({"identity": identity, "sku": sku, "properties": properties}))
}

fn workspace() -> Value {
    let tiers: Vec<_> =
        SKUS.into_iter().chain(["LACluster"]).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let properties = whole(json!({
        "provisioningState": words(&PROVISIONING_STATES),
        "customerId": uuid(),
        "createdDate": date(),
        "modifiedDate": date(),
        "sku": whole(json!({"name": words(&tiers), "lastSkuUpdate": date()})),
        "retentionInDays": {"type": ["integer", "null"], "minimum": RETENTION.start(), "maximum": RETENTION.end()},
        "workspaceCapping": whole(json!({
            "dailyQuotaGb": {"type": "number", "description": "-1 for no cap."},
            "quotaNextResetTime": date(),
            "dataIngestionStatus": text(),
        })),
        "features": object(
            &[
                "disableLocalAuth",
                "enableKeyCheckBeforeDisableLocalAuth",
                "enableKeyCheckBeforeRegeneration",
                "enableLogAccessUsingOnlyResourcePermissions",
            ],
            json!({
                "disableLocalAuth": {"type": "boolean"},
                "enableKeyCheckBeforeDisableLocalAuth": {"type": "boolean"},
                "enableKeyCheckBeforeRegeneration": {"type": "boolean"},
                "enableLogAccessUsingOnlyResourcePermissions": {"const": false},
                "clusterResourceId": text(),
            }),
        ),
        "keysMetadata": object(&[], json!({"primarySharedKey": key_metadata(), "secondarySharedKey": key_metadata()})),
        "publicNetworkAccessForIngestion": words(&["Enabled"]),
        "publicNetworkAccessForQuery": words(&["Enabled"]),
        "forceCmkForQuery": {"const": false},
    }));
    resource(workspace::TYPE, json!({"properties": properties}))
}

fn key_metadata() -> Value {
    let mut used = optional_date();
    used["description"] =
        "When it was last presented and accepted; null if never. After a crash up to a minute of it is forgotten."
            .into();
    whole(json!({"generationTime": date(), "lastUseTime": used}))
}

fn resource(kind: &str, own: Value) -> Value {
    let mut properties = json!({
        "id": text(),
        "name": {"type": "string", "pattern": patterns::RESOURCE},
        "type": words(&[kind]),
        "location": text(),
        "tags": tags(),
        "etag": text(),
    });
    for (name, schema) in own.as_object().into_iter().flatten() {
        properties[name] = schema.clone();
    }
    whole(properties)
}

fn link() -> Value {
    let states = ["ProvisioningAccount", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"];
    whole(json!({
        "id": text(),
        "name": text(),
        "type": words(&["Microsoft.OperationalInsights/workspaces/linkedServices"]),
        "properties": whole(json!({"writeAccessResourceId": text(), "provisioningState": words(&states)})),
    }))
}

fn status_properties() -> Value {
    json!({
        "id": {"type": "string", "description": "The path of this document."},
        "name": uuid(),
        "status": words(&STATUSES),
        "startTime": date(),
        "endTime": {"type": "string", "format": "date-time", "description": "Only when it has ended."},
        "percentComplete": {"type": "number", "minimum": 0, "maximum": 100},
        "error": {"allOf": [whole(json!({"code": text(), "message": text()}))], "description": "Why it failed or was canceled."},
        "properties": {"type": "object", "description": "What its success produced, by kind."},
    })
}

const STATUS: [&str; 5] = ["id", "name", "status", "startTime", "percentComplete"];

fn status() -> Value {
    object(&STATUS, status_properties())
}

fn operation() -> Value {
    let mut properties = status_properties();
    properties["kind"] = text();
    properties["resourceId"] = text();
    properties["step"] = json!({"type": "string", "description": "What is being done; only while it runs."});
    let required: Vec<_> = STATUS.into_iter().chain(["kind", "resourceId"]).collect();
    object(&required, properties)
}

fn audit_record() -> Value {
    let references = || json!({"description": "What the record is about, before and after: mostly the keys that protected the resource, by reference."});
    object(
        &["sequence", "time", "actor", "action", "resource", "outcome"],
        json!({
            "sequence": count(),
            "time": date(),
            "actor": text(),
            "action": text(),
            "resource": text(),
            "operation": {"type": ["string", "null"], "format": "uuid"},
            "outcome": text(),
            "before": references(),
            "after": references(),
        }),
    )
}

fn audit_verdict() -> Value {
    whole(json!({
        "records": count(),
        "lastSequence": {"type": ["integer", "null"], "minimum": 0},
        "faults": {"type": "array", "description": "Empty when the trail is whole."},
        "notices": {"type": "array", "description": "Where other catalogs took the place of one before, with what the trail had then.",
            "items": {"type": "string"}},
    }))
}

fn shared_keys() -> Value {
    whole(json!({"primarySharedKey": text(), "secondarySharedKey": text()}))
}

fn data_key() -> Value {
    json!({"type": "string", "pattern": patterns::DATA_KEY, "description": "256 bits, base64url."})
}

fn unwrapped_key() -> Value {
    whole(json!({"kid": uuid(), "value": data_key()}))
}

fn exported_key() -> Value {
    whole(json!({
        "segmentId": uuid(),
        "workspaceId": uuid(),
        "tableId": uuid(),
        "path": {"type": "string", "description": "In the object store."},
        "algorithm": words(&["AES_GCM_V1"]),
        "aadPrefix": {"type": "string", "pattern": patterns::HEX, "description": "Hexadecimal. The file states it too; a reader that is given it takes no other file for this one."},
        "kid": uuid(),
        "value": data_key(),
    }))
}

fn token_name() -> Value {
    json!({"type": "string", "pattern": patterns::TOKEN_NAME})
}

fn role() -> Value {
    words(&Role::ALL.map(Role::as_str))
}

fn token() -> Value {
    let name = json!({"type": ["string", "null"], "description": "`null` when the workspace is gone."});
    let mut used = optional_date();
    used["description"] = "When it was last presented, since the server's start.".into();
    whole(json!({
        "name": token_name(),
        "role": role(),
        "workspaces": {"type": "array", "items": whole(json!({"id": uuid(), "name": name}))},
        "created": date(),
        "expires": optional_date(),
        "lastUsed": used,
    }))
}

fn new_token() -> Value {
    let value = json!({"type": "string", "pattern": patterns::ACCESS_TOKEN, "description": "What is sent as `authorization: Bearer`."});
    whole(json!({"name": token_name(), "role": role(), "created": date(), "expires": optional_date(), "value": value}))
}

fn segment() -> Value {
    whole(json!({
        "id": uuid(),
        "workspace": text(),
        "table": text(),
        "path": text(),
        "bytes": count(),
        "rows": count(),
        "minTime": nanoseconds(),
        "maxTime": nanoseconds(),
        "created": nanoseconds(),
        "aekId": uuid(),
    }))
}

fn query_tables() -> Value {
    let column = whole(json!({"name": text(), "type": text()}));
    let rows = json!({"type": "array", "items": {"type": "array"}});
    let table = whole(json!({"name": text(), "columns": {"type": "array", "items": column}, "rows": rows}));
    object(&["tables"], json!({"tables": {"type": "array", "items": table}}))
}

fn error() -> Value {
    whole(json!({"error": reference("ErrorDetail")}))
}

fn error_detail() -> Value {
    object(
        &["code", "message"],
        json!({
            "code": {"type": "string", "minLength": 1, "description": "For programs; it never changes its meaning."},
            "message": {"type": "string", "description": "For people: what is wrong and what to do."},
            "target": {"type": "string", "description": "The property or parameter that it is about."},
            "details": {"type": "array", "items": reference("ErrorDetail")},
        }),
    )
}
