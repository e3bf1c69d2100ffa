//! Workspaces.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Method, ProvisioningState, Tags, choice, location, off, root, tags};
use crate::Problem;
use crate::json::Object;
use crate::key_check;

/// The resource type.
pub(crate) const TYPE: &str = "Microsoft.OperationalInsights/workspaces";

/// Retention in days of a workspace for which nobody asked for another one.
pub(crate) const DEFAULT_RETENTION: u32 = 30;

/// The retention that can be asked for, in days: that of Azure Monitor's tables.
pub(crate) const RETENTION: std::ops::RangeInclusive<i64> = 4..=730;

/// The smallest daily cap in GB; -1 is none.
pub(crate) const MIN_QUOTA: f64 = 0.023;

/// The tiers that can be asked for: names that tools send and expect back.
pub(crate) const SKUS: [&str; 3] = ["PerGB2018", "LACluster", "Standalone"];

/// What is kept of a workspace.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkspaceDocument {
    pub(crate) provisioning_state: ProvisioningState,
    pub(crate) settings: WorkspaceSettings,
    /// The present link or its change; `None` while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<Link>,
}

/// The link to a cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Link {
    /// `Succeeded`, or what is being done with it.
    pub(crate) state: ProvisioningState,
    /// The cluster's path, as it was given.
    pub(crate) cluster: String,
    /// When it was linked, in nanoseconds since 1970.
    pub(crate) since: i64,
}

/// What a PUT or PATCH sets.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkspaceSettings {
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Tags,
    pub(crate) sku: String,
    /// When `sku` was last set, in nanoseconds since 1970.
    pub(crate) sku_since: i64,
    /// After how many days segments are removed; `None` for never: of a workspace that came without its settings nothing is lost.
    pub(crate) retention_in_days: Option<u32>,
    /// Most GB (10^9 bytes) that are taken between two midnights (UTC); `None` for no cap.
    ///
    /// What counts are the bytes of OTLP bodies after decompression, of requests that were acknowledged. A request that begins below the
    /// cap is taken whole. What was counted in the last 30 s before a crash is forgotten.
    #[serde(default)]
    pub(crate) daily_quota_gb: Option<f64>,
    #[serde(default)]
    pub(crate) access: AccessSettings,
}

/// How shippers may prove who they are, under the names that the properties have in `features`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AccessSettings {
    /// The workspace's keys are not accepted.
    pub(crate) disable_local_auth: bool,
    /// A key that is in use is regenerated only for who insists.
    pub(crate) enable_key_check_before_regeneration: bool,
    /// Keys of which one is in use are turned off only for who insists.
    pub(crate) enable_key_check_before_disable_local_auth: bool,
}

impl WorkspaceSettings {
    /// What a workspace has that nobody asked for.
    pub(crate) fn new(location: String, now: i64) -> Self {
        Self {
            location,
            tags: Tags::new(),
            sku: "PerGB2018".to_owned(),
            sku_since: now,
            retention_in_days: Some(DEFAULT_RETENTION),
            daily_quota_gb: None,
            access: AccessSettings::default(),
        }
    }

    /// Reads the body of a PUT or PATCH of a workspace whose document is `current`, or that is to be made.
    pub(crate) fn input(
        body: &Value,
        current: Option<&WorkspaceDocument>,
        id: &str,
        method: Method,
        now: i64,
    ) -> Result<Self, Problem> {
        let mut root = root(body, id, TYPE)?;
        // It is about the request, not about the workspace.
        key_check::skips(&mut root)?;
        let location = location(&mut root, current.map(|c| c.settings.location.as_str()), method)?;
        let tags = tags(&mut root)?;
        let mut settings = current.map_or_else(|| Self::new(location.clone(), now), |c| c.settings.clone());
        settings.tags = match (tags, method) {
            (Some(tags), _) => tags,
            (None, Method::Put) => Tags::new(),
            (None, Method::Patch) => settings.tags,
        };
        if let Some(identity) = root.object("identity")? {
            no_identity(identity)?;
        }
        if let Some(properties) = root.object("properties")? {
            settings.read(properties, current, now)?;
        }
        root.finish()?;
        Ok(settings)
    }

    fn read(
        &mut self,
        mut properties: Object<'_>,
        current: Option<&WorkspaceDocument>,
        now: i64,
    ) -> Result<(), Problem> {
        if let Some(mut sku) = properties.object("sku")? {
            // The tier that a linked workspace shows, `LACluster`, may be sent back.
            if let Some(name) = choice(&mut sku, "name", &SKUS)?
                && name != self.sku
            {
                name.clone_into(&mut self.sku);
                self.sku_since = now;
            }
            sku.skip(&["lastskuupdate", "capacityreservationlevel"]);
            sku.finish()?;
        }
        let path = properties.path_of("retentionindays");
        if properties.is_null("retentionindays") {
            self.retention_in_days = Some(DEFAULT_RETENTION);
        }
        if let Some(days) = properties.integer("retentionindays")? {
            if !RETENTION.contains(&days) {
                let message = format!("`{path}` is {days}; it can be {} to {}", RETENTION.start(), RETENTION.end());
                return Err(Problem::bad("InvalidRetention", &path, message));
            }
            self.retention_in_days = u32::try_from(days).ok();
        }
        if let Some(mut capping) = properties.object("workspacecapping")? {
            let path = capping.path_of("dailyquotagb");
            match capping.number("dailyquotagb")? {
                Some(gb) if gb < 0.0 => self.daily_quota_gb = None,
                Some(gb) if gb < MIN_QUOTA || !gb.is_finite() => {
                    let message = format!("`{path}` is {gb}; it can be {MIN_QUOTA} or more, or -1 for no cap");
                    return Err(Problem::bad("InvalidDailyQuota", &path, message));
                }
                Some(gb) => self.daily_quota_gb = Some(gb),
                None => {}
            }
            capping.skip(&["quotanextresettime", "dataingestionstatus"]);
            capping.finish()?;
        }
        if let Some(mut features) = properties.object("features")? {
            let AccessSettings {
                disable_local_auth,
                enable_key_check_before_regeneration,
                enable_key_check_before_disable_local_auth,
            } = &mut self.access;
            for (name, setting) in [
                ("disablelocalauth", disable_local_auth),
                ("enablekeycheckbeforeregeneration", enable_key_check_before_regeneration),
                ("enablekeycheckbeforedisablelocalauth", enable_key_check_before_disable_local_auth),
            ] {
                if let Some(wanted) = features.bool(name)? {
                    *setting = wanted;
                }
            }
            off(&mut features, "enabledataexport", "there is no data export")?;
            off(&mut features, "immediatepurgedataon30days", "retention removes segments by itself")?;
            off(&mut features, "enablelogaccessusingonlyresourcepermissions", "queries need the management token")?;
            off(&mut features, "unifiedsentinelbillingonly", "nothing is billed")?;
            features.skip(&["clusterresourceid"]);
            features.finish()?;
        }
        for access in ["publicnetworkaccessforingestion", "publicnetworkaccessforquery"] {
            choice(&mut properties, access, &["Enabled"])?;
        }
        off(&mut properties, "forcecmkforquery", "queries are not saved")?;
        properties.unchanged("provisioningstate", current.map(|c| c.provisioning_state.as_str()))?;
        properties.skip(&[
            "customerid",
            "createddate",
            "modifieddate",
            "privatelinkscopedresources",
            "source",
            "keysmetadata",
        ]);
        properties.finish()
    }
}

fn no_identity(mut identity: Object<'_>) -> Result<(), Problem> {
    let path = identity.path_of("type");
    choice(&mut identity, "type", &["None"]).map_err(|_| {
        Problem::bad("IdentityTypeNotSupported", &path, "a workspace has no identity of its own: its cluster has one")
    })?;
    identity.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/w1x2";

    fn put(properties: Value) -> Result<WorkspaceSettings, Problem> {
        let body = json!({"location": "x", "properties": properties});
        WorkspaceSettings::input(&body, None, ID, Method::Put, 5)
    }

    #[test]
    fn what_a_body_sets_is_kept() {
        let settings = put(json!({"retentionInDays": 90, "sku": {"name": "pergb2018"},
            "workspaceCapping": {"dailyQuotaGb": 1.5}, "features": {"disableLocalAuth": false}}))
        .unwrap();
        assert_eq!((settings.retention_in_days, settings.daily_quota_gb), (Some(90), Some(1.5)));
        assert_eq!(put(json!({})).unwrap().retention_in_days, Some(DEFAULT_RETENTION));
        assert_eq!(put(json!({"workspaceCapping": {"dailyQuotaGb": -1}})).unwrap().daily_quota_gb, None);
    }

    /// Scenario: features are set one by one, by what an older version kept. Guarantee: each body changes what it names, and keeps the rest.
    #[test]
    fn features_of_access_change_one_by_one() {
        let mut document: WorkspaceDocument = serde_json::from_value(json!({"provisioningState": "Succeeded",
            "settings": {"location": "x", "sku": "PerGB2018", "skuSince": 1, "retentionInDays": 30}}))
        .unwrap();
        assert_eq!(document.settings.access, AccessSettings::default());
        for (name, wanted, expected) in [
            ("EnableKeyCheckBeforeRegeneration", json!(true), [false, true, false]),
            ("enableKeyCheckBeforeDisableLocalAuth", json!(true), [false, true, true]),
            ("disableLocalAuth", json!(true), [true, true, true]),
            ("disableLocalAuth", json!(null), [true, true, true]),
            ("enableKeyCheckBeforeRegeneration", json!(false), [true, false, true]),
        ] {
            let body = json!({"SkipAccountKeysLastUsageCheck": true, "properties": {"features": {name: wanted}}});
            let settings = WorkspaceSettings::input(&body, Some(&document), ID, Method::Patch, 5).unwrap();
            let AccessSettings {
                disable_local_auth,
                enable_key_check_before_regeneration,
                enable_key_check_before_disable_local_auth,
            } = settings.access;
            let found =
                [disable_local_auth, enable_key_check_before_regeneration, enable_key_check_before_disable_local_auth];
            assert_eq!(found, expected, "{name}: {wanted}");
            document.settings = serde_json::from_value(serde_json::to_value(settings).unwrap()).unwrap();
        }
    }

    #[test]
    fn what_would_not_be_enforced_is_refused() {
        for bad in [
            json!({"retentionInDays": 3}),
            json!({"retentionInDays": 731}),
            json!({"retentionInDays": "30"}),
            json!({"sku": {"name": "Free"}}),
            json!({"workspaceCapping": {"dailyQuotaGb": 0}}),
            json!({"features": {"disableLocalAuth": "yes"}}),
            json!({"features": {"enableDataExport": true}}),
            json!({"features": {"other": false}}),
            json!({"publicNetworkAccessForQuery": "Disabled"}),
            json!({"forceCmkForQuery": true}),
            json!({"defaultDataCollectionRuleResourceId": "/x"}),
            json!({"provisioningState": "Deleting"}),
        ] {
            assert!(put(bad.clone()).is_err(), "{bad}");
        }
        let identity = json!({"location": "x", "identity": {"type": "SystemAssigned"}});
        assert!(WorkspaceSettings::input(&identity, None, ID, Method::Put, 5).is_err());
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let settings = put(json!({"retentionInDays": 90})).unwrap();
        let current = WorkspaceDocument { provisioning_state: ProvisioningState::Succeeded, settings, link: None };
        let patch =
            WorkspaceSettings::input(&json!({"tags": {"a": "b"}}), Some(&current), ID, Method::Patch, 9).unwrap();
        assert_eq!((patch.retention_in_days, patch.tags.len()), (Some(90), 1));
    }
}
