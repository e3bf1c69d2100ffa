//! The identity of a cluster: as whom it asks the key vault.

use logseal_vault::{Caller, PrincipalId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Problem;
use crate::json::Object;

/// The only tenant: identities belong to the deployment.
pub(crate) const TENANT: &str = "00000000-0000-0000-0000-000000000000";

/// The types that a cluster's identity can have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum IdentityType {
    /// It was born with the cluster, or when it was last asked for.
    #[default]
    SystemAssigned,
    /// The cluster has none: it can use no customer's key.
    None,
}

/// What is kept of an identity.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// Its type.
    #[serde(default)]
    pub(crate) kind: IdentityType,
    /// The id that grants in the vault name. That of an identity that was taken away is never used again.
    pub(crate) principal_id: String,
}

impl Identity {
    /// A system-assigned identity with this principal.
    pub(crate) fn system_assigned(principal_id: String) -> Self {
        Self { kind: IdentityType::SystemAssigned, principal_id }
    }

    /// Reads `identity`: its type, if it is another one than now. What the server computed may be sent back.
    ///
    /// `UserAssigned` is refused as long as nothing acts on it: a cluster must not go on with another identity than it shows.
    pub(crate) fn input(root: &mut Object<'_>, now: Option<&Self>) -> Result<Option<IdentityType>, Problem> {
        let Some(mut given) = root.object("identity")? else { return Ok(None) };
        let path = given.path_of("type");
        let kind = match given.string("type")? {
            Some(kind) if kind.eq_ignore_ascii_case("SystemAssigned") => IdentityType::SystemAssigned,
            Some(kind) if kind.eq_ignore_ascii_case("None") => IdentityType::None,
            Some(kind) if kind.eq_ignore_ascii_case("UserAssigned") => {
                let message = format!("`{path}` is `{kind}`; this version serves clusters with SystemAssigned or None");
                return Err(Problem::bad("IdentityTypeNotSupported", &path, message));
            }
            Some(kind) => {
                let message = format!("`{path}` is `{kind}`; it can be: SystemAssigned, UserAssigned, None");
                return Err(Problem::invalid(&path, message));
            }
            None => {
                return Err(Problem::bad(
                    "MissingIdentity",
                    &path,
                    format!("`{path}` is missing: give SystemAssigned or None"),
                ));
            }
        };
        let same = now.filter(|now| now.kind == kind);
        if same.is_some_and(|now| now.kind == IdentityType::SystemAssigned) || now.is_none() {
            given.unchanged("principalid", same.map(|now| now.principal_id.as_str()))?;
            given.unchanged("tenantid", Some(TENANT))?;
        } else {
            // What was read of the identity before, sent back with another type.
            given.skip(&["principalid", "tenantid"]);
        }
        if let Some(assigned) = given.object("userassignedidentities")?
            && assigned.rest().next().is_some()
        {
            let path = "identity.userAssignedIdentities";
            return Err(Problem::invalid(path, "an identity of this type comes without `userAssignedIdentities`"));
        }
        given.finish()?;
        Ok(if same.is_some() { None } else { Some(kind) })
    }

    /// The identity that a cluster with `self` has after it was asked for `kind`; `principal` is a new id. An identity that comes back is
    /// another one, which needs grants of its own.
    pub(crate) fn of_type(kind: IdentityType, principal: String) -> Self {
        Self { kind, principal_id: principal }
    }

    /// As whom the embedded vault is asked.
    pub(crate) fn caller(&self) -> Caller {
        match (self.kind, PrincipalId::parse(&self.principal_id)) {
            (IdentityType::SystemAssigned, Ok(principal)) => Caller::Principal(principal),
            _ => Caller::Nobody,
        }
    }

    pub(crate) fn view(&self) -> Value {
        match self.kind {
            IdentityType::SystemAssigned => {
                json!({"type": "SystemAssigned", "tenantId": TENANT, "principalId": self.principal_id})
            }
            IdentityType::None => json!({"type": "None"}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(identity: Value, now: Option<&Identity>) -> Result<Option<IdentityType>, Problem> {
        let body = json!({"identity": identity});
        Identity::input(&mut Object::root(&body).unwrap(), now)
    }

    #[test]
    fn an_identity_is_taken_away_and_comes_back_as_another_one() {
        let first = Identity::system_assigned("p-1".to_owned());
        assert_eq!(input(first.view(), Some(&first)).unwrap(), None, "what was read may be written back");
        assert_eq!(input(json!({"type": "none"}), Some(&first)).unwrap(), Some(IdentityType::None));
        let none = Identity::of_type(IdentityType::None, "p-2".to_owned());
        assert_eq!((none.view(), none.caller()), (json!({"type": "None"}), Caller::Nobody));
        assert_eq!(input(none.view(), Some(&none)).unwrap(), None);
        assert_eq!(input(json!({"type": "SystemAssigned"}), Some(&none)).unwrap(), Some(IdentityType::SystemAssigned));
        assert_eq!(input(first.view(), Some(&none)).unwrap(), Some(IdentityType::SystemAssigned));
        let other = json!({"type": "SystemAssigned", "principalId": "p-9"});
        assert!(input(other, Some(&first)).is_err(), "nobody chooses his principal");
    }

    #[test]
    fn what_was_kept_before_there_were_types_is_system_assigned() {
        let kept: Identity = serde_json::from_value(json!({"principalId": "p"})).unwrap();
        assert_eq!(kept, Identity::system_assigned("p".to_owned()));
    }
}
