//! Resources as they are answered.

use chrono::{DateTime, SecondsFormat, TimeZone as _, Utc};
use logseal_catalog::{ClusterRow, KekUse, KekVersionRow, ResourceKind, ResourceRow};
use logseal_core::{UnixNanos, WorkspaceId};
use logseal_keys::availability::KeyState;
use logseal_keys::fault::KEY_STATUS_GOOD;
use logseal_keys::{KeyMetadata, KeyStatus};
use serde_json::{Map, Value, json};

use super::ProvisioningState;
use super::cluster::{self, ClusterDocument};
use super::workspace::{self, WorkspaceDocument};
use crate::port::QuotaStatus;

/// A moment in RFC 3339.
pub(crate) fn date(at: UnixNanos) -> String {
    let date: DateTime<Utc> = Utc.timestamp_nanos(at.0);
    date.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The path of a resource.
pub(crate) fn path(row: &ResourceRow) -> String {
    let ResourceRow { subscription, group, name, .. } = row;
    let kind = match row.kind {
        ResourceKind::Cluster => cluster::TYPE,
        ResourceKind::Workspace => workspace::TYPE,
    };
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}")
}

/// The entity tag of a resource (RFC 9110, section 8.8.3).
pub(crate) fn etag(row: &ResourceRow) -> String {
    format!("\"{:08x}\"", row.version)
}

/// What the catalog knows of a cluster beside its document.
#[derive(Debug, Default)]
pub(crate) struct ClusterFacts {
    /// Its row; `None` while it is being made.
    pub(crate) row: Option<ClusterRow>,
    /// How many account keys each key version wraps.
    pub(crate) keys: Vec<KekUse>,
    /// When each key version was last used, the last one first.
    pub(crate) versions: Vec<KekVersionRow>,
    /// The workspaces that are linked to it, as [`linked_workspace`] shows each: there may be a thousand, and the cluster is shown anew at
    /// each change of its own.
    pub(crate) workspaces: Vec<Value>,
}

/// A workspace as the cluster shows it that it has been linked to `since` then.
pub(crate) fn linked_workspace(id: WorkspaceId, resource: &ResourceRow, since: UnixNanos) -> Value {
    json!({
        "workspaceId": id.to_string(),
        "workspaceName": resource.name,
        "resourceId": path(resource),
        "associateDate": date(since),
    })
}

/// What is known of a cluster's key and is not in the catalog.
#[derive(Debug)]
pub(crate) struct LiveKey {
    /// Its state; `None` while nobody watches it.
    pub(crate) status: Option<KeyStatus>,
    /// The newest version that the vault has of it, when that was looked for.
    pub(crate) newest: Option<String>,
    /// The principal that the vault is asked as; `None` for nobody.
    pub(crate) principal: Option<String>,
}

/// A cluster.
pub(crate) fn cluster(row: &ResourceRow, document: &ClusterDocument, facts: &ClusterFacts, live: &LiveKey) -> Value {
    let mut properties = json!({
        "provisioningState": document.provisioning_state.as_str(),
        "clusterId": row.id.to_string(),
        "createdDate": date(row.created),
        "lastModifiedDate": date(row.changed),
        "isDoubleEncryptionEnabled": false,
        "isAvailabilityZonesEnabled": false,
        "billingType": document.settings.billing_type,
        "associatedWorkspaces": facts.workspaces,
        "capacityReservationProperties": {
            "lastSkuUpdate": date(UnixNanos(document.settings.capacity_since)),
            "minCapacity": ClusterDocument::min_capacity(),
        },
    });
    if let Some(key) = &document.key {
        properties["keyVaultProperties"] = key.view();
    }
    if let Some(identity) = &document.default_identity {
        properties["defaultIdentity"] = identity.to_string().into();
    }
    if let Some(cluster) = &facts.row {
        properties["keyState"] = key_state(cluster, document, facts, live);
        if document.key.is_some() {
            let cause = live.status.as_ref().and_then(|status| status.cause);
            properties["customerManagedKeyStatus"] = match cause {
                None => KEY_STATUS_GOOD.into(),
                Some(cause) => cause.fault.customer_managed_key_status().into(),
            };
        }
    }
    json!({
        "id": path(row),
        "name": row.name,
        "type": cluster::TYPE,
        "location": document.settings.location,
        "tags": document.settings.tags,
        "identity": document.identity.view(),
        "sku": document.sku(),
        "etag": etag(row),
        "properties": properties,
    })
}

fn key_state(cluster: &ClusterRow, document: &ClusterDocument, facts: &ClusterFacts, live: &LiveKey) -> Value {
    let status = live.status.as_ref();
    let mut versions: Vec<_> = facts.versions.iter().map(|row| (row.kek.version.as_str(), Some(row.used))).collect();
    for wrapping in &facts.keys {
        if !versions.iter().any(|(version, _)| *version == wrapping.version) {
            versions.push((&wrapping.version, None));
        }
    }
    let wrapped = |version: &str| {
        facts.keys.iter().find(|wrapping| wrapping.version == version).map_or(0, |wrapping| wrapping.wrapped_keys)
    };
    let cause = status.and_then(|status| status.cause);
    json!({
        "state": status.map_or(KeyState::Resuming, |status| status.state).as_str(),
        "since": status.map(|status| date(status.since)),
        "until": status.and_then(|status| status.until).map(date),
        "code": cause.map(|cause| cause.fault.code()),
        "reason": cause.map(|cause| cause.fault.to_string()),
        "configuredVersion": document.key.as_ref().map(|key| &key.key_version),
        "resolvedVersion": cluster.kek.version,
        "newestVersion": live.newest,
        "principalId": live.principal,
        "versions": versions.iter().map(|(version, used)| json!({
            "version": version,
            "wrappedKeys": wrapped(version),
            "lastUsed": used.map(date),
        })).collect::<Vec<_>>(),
    })
}

/// What is shown of an access key.
pub(crate) fn key_metadata(key: &KeyMetadata) -> Value {
    json!({"generationTime": date(key.created), "lastUseTime": key.last_used.map(date)})
}

/// What is known of a workspace and is not in its document.
#[derive(Debug)]
pub(crate) struct LiveWorkspace {
    pub(crate) quota: QuotaStatus,
    /// Of its access keys.
    pub(crate) keys: Vec<KeyMetadata>,
}

/// A workspace.
pub(crate) fn workspace(
    row: &ResourceRow,
    document: &WorkspaceDocument,
    live: &LiveWorkspace,
    now: UnixNanos,
) -> Value {
    let settings = &document.settings;
    let linked = document.link.as_ref().filter(|link| link.state != ProvisioningState::Creating);
    // Azure Cosmos DB has the same for its keys, under the names that they have there.
    let keys: Map<String, Value> =
        live.keys.iter().map(|key| (format!("{}SharedKey", key.slot.as_str()), key_metadata(key))).collect();
    let mut properties = json!({
        "provisioningState": document.provisioning_state.as_str(),
        "customerId": row.id.to_string(),
        "createdDate": date(row.created),
        "modifiedDate": date(row.changed),
        "sku": {
            "name": if linked.is_some() { "LACluster" } else { settings.sku.as_str() },
            "lastSkuUpdate": date(UnixNanos(settings.sku_since)),
        },
        "retentionInDays": settings.retention_in_days,
        "workspaceCapping": {
            "dailyQuotaGb": settings.daily_quota_gb.unwrap_or(-1.0),
            "quotaNextResetTime": date(next_midnight(now)),
            "dataIngestionStatus": live.quota.as_str(),
        },
        "features": settings.access,
        "keysMetadata": keys,
        "publicNetworkAccessForIngestion": "Enabled",
        "publicNetworkAccessForQuery": "Enabled",
        "forceCmkForQuery": false,
    });
    properties["features"]["enableLogAccessUsingOnlyResourcePermissions"] = false.into();
    if let Some(link) = linked {
        properties["features"]["clusterResourceId"] = link.cluster.as_str().into();
    }
    json!({
        "id": path(row),
        "name": row.name,
        "type": workspace::TYPE,
        "location": settings.location,
        "tags": settings.tags,
        "etag": etag(row),
        "properties": properties,
    })
}

/// The link of a workspace to a cluster; `None` when it has none.
pub(crate) fn link(row: &ResourceRow, document: &WorkspaceDocument) -> Option<Value> {
    let link = document.link.as_ref()?;
    Some(json!({
        "id": format!("{}/linkedServices/Cluster", path(row)),
        "name": format!("{}/Cluster", row.name),
        "type": "Microsoft.OperationalInsights/workspaces/linkedServices",
        "properties": {
            "writeAccessResourceId": link.cluster,
            // Azure's clients know these names for a link's states.
            "provisioningState": match link.state {
                ProvisioningState::Creating => "ProvisioningAccount",
                state => state.as_str(),
            },
        },
    }))
}

/// When a new day begins, UTC.
pub(crate) fn next_midnight(now: UnixNanos) -> UnixNanos {
    const DAY: i64 = 86_400_000_000_000;
    UnixNanos(now.0.div_euclid(DAY).saturating_add(1).saturating_mul(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_3339_and_days_end_at_midnight() {
        let at = UnixNanos(1_700_000_000_123_456_789);
        assert_eq!(date(at), "2023-11-14T22:13:20.123Z");
        assert_eq!(date(next_midnight(at)), "2023-11-15T00:00:00.000Z");
    }
}
