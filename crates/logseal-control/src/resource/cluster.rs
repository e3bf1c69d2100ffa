//! Clusters.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::identity::{DefaultIdentity, Identity, IdentityType, WantedIdentity};
use super::key::{KeyReference, WantedKey};
use super::{Method, ProvisioningState, Tags, choice, location, off, root, tags};
use crate::Problem;
use crate::json::Object;

/// The resource type.
pub(crate) const TYPE: &str = "Microsoft.OperationalInsights/clusters";

/// The commitment tiers in GB a day that Azure's clusters have. Here they are names that tools send and expect back.
pub(crate) const CAPACITIES: [i64; 11] = [100, 200, 300, 400, 500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000];

pub(crate) const SKU: &str = "CapacityReservation";

/// What is kept of a cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterDocument {
    pub(crate) provisioning_state: ProvisioningState,
    pub(crate) settings: ClusterSettings,
    pub(crate) identity: Identity,
    /// As which identity the key vault is asked; the one that `identity` is, while nothing was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_identity: Option<DefaultIdentity>,
    /// The customer's key; `None` while the service-managed one protects the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyReference>,
    /// When the key in use came into use, in nanoseconds since 1970.
    pub(crate) key_since: i64,
}

/// What a PUT or PATCH sets, but for the key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterSettings {
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Tags,
    pub(crate) capacity: i64,
    /// When `capacity` was last set, in nanoseconds since 1970.
    pub(crate) capacity_since: i64,
    pub(crate) billing_type: String,
}

/// What a body asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClusterChange {
    pub(crate) settings: ClusterSettings,
    /// Another key than the present one.
    pub(crate) key: Option<WantedKey>,
    /// Another identity than the present one.
    pub(crate) identity: Option<WantedIdentity>,
    /// Another default identity than the present one.
    pub(crate) default_identity: Option<DefaultIdentity>,
}

impl ClusterSettings {
    /// What a cluster has that nobody asked for.
    pub(crate) fn new(location: String, now: i64) -> Self {
        Self {
            location,
            tags: Tags::new(),
            capacity: CAPACITIES[0],
            capacity_since: now,
            billing_type: "Cluster".to_owned(),
        }
    }
}

impl ClusterChange {
    /// Reads the body of a PUT or PATCH of a cluster whose document is `current`, or that is to be made, named `id` and `name`.
    pub(crate) fn input(
        body: &Value,
        current: Option<&ClusterDocument>,
        id: &str,
        method: Method,
        now: i64,
    ) -> Result<Self, Problem> {
        let mut root = root(body, id, TYPE)?;
        let location = location(&mut root, current.map(|c| c.settings.location.as_str()), method)?;
        let tags = tags(&mut root)?;
        let identity = WantedIdentity::input(&mut root, current.map(|c| &c.identity))?;
        let present = current.map_or_else(|| ClusterSettings::new(location.clone(), now), |c| c.settings.clone());
        let capacity = capacity(&mut root)?.unwrap_or(present.capacity);
        let mut settings = ClusterSettings {
            location,
            // A PUT states the tags, a PATCH those that it changes.
            tags: match method {
                Method::Put => tags.unwrap_or_default(),
                Method::Patch => tags.unwrap_or_else(|| present.tags.clone()),
            },
            capacity,
            capacity_since: if capacity == present.capacity { present.capacity_since } else { now },
            billing_type: present.billing_type,
        };
        let (mut key, mut default_identity) = (None, None);
        if let Some(mut properties) = root.object("properties")? {
            key = KeyReference::input(&mut properties, current.and_then(|c| c.key.as_ref()))?;
            default_identity = DefaultIdentity::input(&mut properties)?;
            if let Some(billing) = choice(&mut properties, "billingtype", &["Cluster", "Workspaces"])? {
                billing.clone_into(&mut settings.billing_type);
            }
            off(
                &mut properties,
                "isdoubleencryptionenabled",
                "data is encrypted once, under keys that your key protects",
            )?;
            off(&mut properties, "isavailabilityzonesenabled", "a deployment has one node")?;
            if let Some(mut replication) = properties.object("replication")? {
                off(&mut replication, "enabled", "a deployment has one node")?;
                replication.skip(&["location", "isavailabilityzonesenabled", "provisioningstate"]);
                replication.skip(&["createddate", "lastmodifieddate"]);
                replication.finish()?;
            }
            properties.unchanged("provisioningstate", current.map(|c| c.provisioning_state.as_str()))?;
            properties.skip(&["clusterid", "createddate", "lastmodifieddate", "associatedworkspaces"]);
            properties.skip(&["capacityreservationproperties", "keystate", "customermanagedkeystatus"]);
            properties.finish()?;
        }
        root.finish()?;
        let is_other = |wanted: &WantedKey| match wanted {
            WantedKey::Customers(key) => current.is_none_or(|c| c.key.as_ref() != Some(key)),
            WantedKey::ServiceManaged => true,
        };
        let key = key.filter(is_other);
        let default_identity =
            default_identity.filter(|wanted| current.is_none_or(|c| c.default_identity.as_ref() != Some(wanted)));
        if let Some(default) = default_identity.as_ref().or(current.and_then(|c| c.default_identity.as_ref())) {
            let (kind, assigned) = identity_after(current, identity.as_ref());
            default.check(kind, assigned)?;
        }
        if current.is_some() && (identity.is_some() || default_identity.is_some()) && key.is_some() {
            // Azure Monitor's rule: of one that fails nobody could say which of the two it was.
            let message = "identity and key cannot change in one request: change the identity, then the key";
            return Err(Problem::bad("IdentityAndKeyInOneUpdate", "identity", message));
        }
        Ok(Self { settings, key, identity, default_identity })
    }
}

/// The type of the identity after the change, and the resource id of a user-assigned one.
fn identity_after<'i>(
    current: Option<&'i ClusterDocument>,
    wanted: Option<&'i WantedIdentity>,
) -> (IdentityType, Option<&'i str>) {
    match wanted {
        Some(WantedIdentity::SystemAssigned) => (IdentityType::SystemAssigned, None),
        Some(WantedIdentity::UserAssigned(id)) => (IdentityType::UserAssigned, Some(id)),
        Some(WantedIdentity::None) => (IdentityType::None, None),
        None => match current.map(|c| &c.identity) {
            None => (IdentityType::SystemAssigned, None),
            Some(Identity { kind, user_assigned, .. }) => (*kind, user_assigned.as_ref().map(|one| one.id.as_str())),
        },
    }
}

fn capacity(root: &mut Object<'_>) -> Result<Option<i64>, Problem> {
    let Some(mut sku) = root.object("sku")? else { return Ok(None) };
    let name = sku.string("name")?;
    let capacity = sku.integer("capacity")?;
    sku.skip(&["lastskuupdate"]);
    sku.finish()?;
    let bad = |code, target: &str, message: String| Err(Problem::bad(code, target, message));
    match (name, capacity) {
        (Some(name), _) if !name.eq_ignore_ascii_case(SKU) => {
            bad("InvalidSkuName", "sku.name", format!("`sku.name` is `{name}`; it can be: {SKU}"))
        }
        (None, _) => bad("InvalidSkuName", "sku.name", format!("`sku.name` is missing; it can be: {SKU}")),
        (_, None) => {
            bad("MissingCapacity", "sku.capacity", format!("`sku.capacity` is missing; it can be: {CAPACITIES:?}"))
        }
        (_, Some(capacity)) if !CAPACITIES.contains(&capacity) => bad(
            "CapacityOutOfRange",
            "sku.capacity",
            format!("`sku.capacity` is {capacity}; it can be: {CAPACITIES:?}"),
        ),
        (_, capacity) => Ok(capacity),
    }
}

impl ClusterDocument {
    /// The `sku`, as it is shown.
    pub(crate) fn sku(&self) -> Value {
        json!({"name": SKU, "capacity": self.settings.capacity})
    }

    /// The smallest commitment.
    pub(crate) fn min_capacity() -> i64 {
        CAPACITIES[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters/c1x2";

    fn put(body: Value) -> Result<ClusterChange, Problem> {
        ClusterChange::input(&body, None, ID, Method::Put, 5)
    }

    fn document(change: ClusterChange) -> ClusterDocument {
        let identity = Identity::system_assigned("p".into());
        let provisioning_state = ProvisioningState::Succeeded;
        let (settings, default_identity) = (change.settings, change.default_identity);
        let key = change.key.map(|wanted| match wanted {
            WantedKey::Customers(key) => key,
            WantedKey::ServiceManaged => panic!("a new cluster has no other"),
        });
        ClusterDocument { provisioning_state, settings, identity, default_identity, key, key_since: 0 }
    }

    fn full() -> Value {
        json!({"location": "West Europe", "identity": {"type": "systemassigned"}, "tags": {"a": "1"},
            "sku": {"name": "capacityReservation", "capacity": 500}, "properties": {"billingType": "cluster"}})
    }

    #[test]
    fn what_a_body_sets_is_kept_and_what_it_leaves_out_has_a_default() {
        let change = put(full()).unwrap();
        assert_eq!((change.settings.capacity, change.settings.tags["a"].as_str()), (500, "1"));
        assert_eq!(put(json!({"location": "x"})).unwrap().settings.capacity, 100);
        assert_eq!(put(json!({})).unwrap_err().code(), "LocationRequired");
    }

    #[test]
    fn wrong_values_are_refused_with_the_code_of_their_cause() {
        let refusal = |change: fn(&mut Value)| {
            let mut body = full();
            change(&mut body);
            put(body).unwrap_err().code()
        };
        assert_eq!(refusal(|b| b["sku"]["name"] = "PerGB2018".into()), "InvalidSkuName");
        assert_eq!(refusal(|b| b["sku"] = json!({"name": "CapacityReservation"})), "MissingCapacity");
        assert_eq!(refusal(|b| b["sku"]["capacity"] = 123.into()), "CapacityOutOfRange");
        assert_eq!(refusal(|b| b["identity"]["type"] = "Managed".into()), "InvalidRequestContent");
        assert_eq!(refusal(|b| b["identity"]["type"] = "UserAssigned".into()), "MissingIdentity");
        let default = |b: &mut Value| b["properties"]["defaultIdentity"] = "UserAssignedIdentity=/x".into();
        assert_eq!(refusal(default), "InvalidDefaultIdentity");
        assert_eq!(refusal(|b| b["identity"] = json!({})), "MissingIdentity");
        assert_eq!(refusal(|b| b["properties"]["billingType"] = "Free".into()), "InvalidRequestContent");
        assert_eq!(refusal(|b| b["properties"]["isDoubleEncryptionEnabled"] = true.into()), "InvalidRequestContent");
        assert_eq!(refusal(|b| b["properties"]["provisioningState"] = "Failed".into()), "InvalidRequestContent");
        assert_eq!(refusal(|b| b["color"] = "red".into()), "InvalidRequestContent");
        assert_eq!(refusal(|b| b["tags"]["x"] = 1.into()), "InvalidRequestContent");
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let current = document(put(full()).unwrap());
        let patch = |body| ClusterChange::input(&body, Some(&current), ID, Method::Patch, 9).unwrap();
        assert_eq!(patch(json!({})).settings, current.settings);
        assert_eq!(patch(json!({"tags": {"b": "2"}})).settings.tags.keys().collect::<Vec<_>>(), ["b"]);
        let again =
            ClusterChange::input(&json!({"location": "westeurope"}), Some(&current), ID, Method::Put, 9).unwrap();
        assert_eq!((again.settings.capacity, again.settings.tags.len()), (500, 0));
        let moved = ClusterChange::input(&json!({"location": "eastus"}), Some(&current), ID, Method::Put, 9);
        assert_eq!(moved.unwrap_err().code(), "InvalidResourceLocation");
    }

    #[test]
    fn the_key_in_use_is_no_change() {
        let key = json!({"keyVaultUri": "https://v", "keyName": "kek", "keyVersion": ""});
        let mut body = full();
        body["properties"]["keyVaultProperties"] = key.clone();
        let change = put(body.clone()).unwrap();
        assert!(change.key.is_some());
        let current = document(change);
        let both = json!({"identity": {"type": "None"}, "properties": {"keyVaultProperties": {"keyVaultUri": "https://v", "keyName": "k2"}}});
        let refused = ClusterChange::input(&both, Some(&current), ID, Method::Patch, 9).unwrap_err();
        assert_eq!(refused.code(), "IdentityAndKeyInOneUpdate");
        assert_eq!(ClusterChange::input(&body, Some(&current), ID, Method::Put, 9).unwrap().key, None);
    }
}
