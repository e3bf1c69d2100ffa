//! What of a cluster is whose to change: its key is the key officer's, everything else the operator's.

use super::Caller;
use crate::Problem;
use crate::gate::{Principal, Role};
use crate::resource::cluster::{ClusterChange, ClusterDocument};
use crate::resource::key::WantedKey;

impl Caller {
    /// Refuses a change of what is another role's. Values that are stated as they are change nothing. The identity decides as whom the key is
    /// asked for, so it goes with the key; of a new cluster, which has no customer's key yet, it goes with the rest.
    pub(super) fn admit_to_change(
        &self,
        change: &ClusterChange,
        current: Option<&ClusterDocument>,
    ) -> Result<(), Problem> {
        let Some(role) = self.role else { return Ok(()) };
        let ClusterChange { settings, key, identity, default_identity } = change;
        let changes_key = match current {
            Some(_) => key.is_some() || identity.is_some() || default_identity.is_some(),
            None => matches!(key, Some(WantedKey::Customers(_))),
        };
        let changes_settings = current.is_none_or(|current| current.settings != *settings);
        let lacks = |what: &str| Err(Principal::of_role(&self.actor, role).lacks(what));
        match role {
            Role::KeyOfficer if changes_settings => {
                lacks("the role `operator`: a key officer changes a cluster's key and identity only")
            }
            Role::Operator if changes_key => {
                lacks("the role `key-officer`: an operator changes everything of a cluster but its key and identity")
            }
            Role::Reader | Role::Auditor => lacks("the role `operator` or `key-officer`"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::resource::identity::Identity;
    use crate::resource::{Method, ProvisioningState};

    const ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/clusters/c1x2";

    fn key(name: &str) -> Value {
        json!({"properties": {"keyVaultProperties": {"keyVaultUri": "https://v", "keyName": name, "keyVersion": ""}}})
    }

    fn new(body: &Value) -> ClusterChange {
        ClusterChange::input(body, None, ID, Method::Put, 5).unwrap()
    }

    /// A cluster under the key `kek`.
    fn current() -> ClusterDocument {
        let mut body = key("kek");
        body["location"] = "local".into();
        let ClusterChange { settings, key, .. } = new(&body);
        let Some(WantedKey::Customers(key)) = key else { panic!("a customer's key") };
        ClusterDocument {
            provisioning_state: ProvisioningState::Succeeded,
            settings,
            identity: Identity::system_assigned("p".into()),
            default_identity: None,
            key: Some(key),
            key_since: 0,
        }
    }

    fn may(role: Role, change: &ClusterChange, current: Option<&ClusterDocument>) -> bool {
        let caller = Caller::new(&Principal::of_role("x", role), &HeaderMap::new());
        match caller.admit_to_change(change, current) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!(problem.code(), "AuthorizationFailed");
                false
            }
        }
    }

    /// Scenario: changes of a cluster that is there, by each role. Guarantee: key and identity are the key officer's, the rest the operator's, both in
    /// one request nobody's but of who has all rights; what states things as they are is admitted.
    #[test]
    fn key_and_settings_of_a_cluster_are_different_duties() {
        let current = current();
        let patch = |body: &Value| ClusterChange::input(body, Some(&current), ID, Method::Patch, 9).unwrap();
        let both = json!({"tags": {"a": "1"}, "properties": key("other")["properties"]});
        for (body, operator, officer) in [
            (json!({"tags": {"a": "1"}}), true, false),
            (json!({"sku": {"name": "CapacityReservation", "capacity": 500}}), true, false),
            (key("other"), false, true),
            (json!({"identity": {"type": "None"}}), false, true),
            (json!({"properties": {"defaultIdentity": "FirstPartyIdentity"}}), false, true),
            (both, false, false),
            (key("kek"), true, true),
            (json!({}), true, true),
        ] {
            let change = patch(&body);
            let may = |role| may(role, &change, Some(&current));
            assert_eq!((may(Role::Operator), may(Role::KeyOfficer)), (operator, officer), "{body}");
            assert!(!may(Role::Reader) && !may(Role::Auditor));
            assert!(Caller::unconditional("x").admit_to_change(&change, Some(&current)).is_ok());
        }
    }

    #[test]
    fn an_operator_makes_a_cluster_without_a_customers_key() {
        let plain = new(&json!({"location": "x", "identity": {"type": "None"}}));
        assert!(may(Role::Operator, &plain, None) && !may(Role::KeyOfficer, &plain, None));
        let mut body = key("kek");
        body["location"] = "x".into();
        assert!(!may(Role::Operator, &new(&body), None) && !may(Role::KeyOfficer, &new(&body), None));
    }
}
