//! The identity of a cluster: as whom it asks the key vault.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Problem;
use crate::json::Object;
use crate::port::UserAssignedIdentity;

/// The only tenant: identities belong to the deployment.
pub(crate) const TENANT: &str = "00000000-0000-0000-0000-000000000000";

/// The types that a cluster's identity can have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum IdentityType {
    /// It was born with the cluster, or when it was last asked for.
    #[default]
    SystemAssigned,
    /// One of those that the configuration names.
    UserAssigned,
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
    /// The id that grants in the vault name. That of a system-assigned identity that was taken away is never used again.
    pub(crate) principal_id: String,
    /// Which one it is; of the type `UserAssigned` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_assigned: Option<UserAssigned>,
}

/// A user-assigned identity, as it was configured when the cluster got it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserAssigned {
    /// Its resource id.
    pub(crate) id: String,
    pub(crate) client_id: String,
}

/// The identity that a body asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum WantedIdentity {
    SystemAssigned,
    /// The one with this resource id.
    UserAssigned(String),
    None,
}

fn id_path(id: &str) -> String {
    format!("identity.userAssignedIdentities[\"{id}\"]")
}

impl WantedIdentity {
    /// Reads `identity`: another one than `now`. What the server computed may be sent back.
    pub(crate) fn input(root: &mut Object<'_>, now: Option<&Identity>) -> Result<Option<Self>, Problem> {
        let Some(mut given) = root.object("identity")? else { return Ok(None) };
        let path = given.path_of("type");
        let kind = match given.string("type")? {
            Some(kind) if kind.eq_ignore_ascii_case("SystemAssigned") => IdentityType::SystemAssigned,
            Some(kind) if kind.eq_ignore_ascii_case("UserAssigned") => IdentityType::UserAssigned,
            Some(kind) if kind.eq_ignore_ascii_case("None") => IdentityType::None,
            Some(kind) => {
                let message = format!("`{path}` is `{kind}`; it can be one of: SystemAssigned, UserAssigned, None");
                return Err(Problem::invalid(&path, message));
            }
            None => {
                let message = format!("`{path}` is missing: give SystemAssigned, UserAssigned or None");
                return Err(Problem::bad("MissingIdentity", &path, message));
            }
        };
        let assigned = user_assigned(&mut given)?;
        let same = now.filter(|now| now.kind == kind);
        if same.is_some_and(|now| now.kind == IdentityType::SystemAssigned) || now.is_none() {
            given.unchanged("principalid", same.map(|now| now.principal_id.as_str()))?;
            given.unchanged("tenantid", Some(TENANT))?;
        } else {
            // What was read of the identity before, sent back with another type.
            given.skip(&["principalid", "tenantid"]);
        }
        given.finish()?;
        let path = "identity.userAssignedIdentities";
        match (kind, assigned) {
            (IdentityType::UserAssigned, Some(id)) => {
                let unchanged = same.and_then(|now| now.user_assigned.as_ref());
                let is_other = unchanged.is_none_or(|now| !now.id.eq_ignore_ascii_case(&id));
                Ok(is_other.then_some(Self::UserAssigned(id)))
            }
            (IdentityType::UserAssigned, None) if same.is_some() => Ok(None),
            (IdentityType::UserAssigned, None) => {
                let message = format!("`{path}` is missing: name one identity, as {{\"RESOURCE ID\": {{}}}}");
                Err(Problem::bad("MissingIdentity", path, message))
            }
            (_, Some(_)) => {
                Err(Problem::invalid(path, "an identity of this type comes without `userAssignedIdentities`"))
            }
            _ if same.is_some() => Ok(None),
            (IdentityType::SystemAssigned, None) => Ok(Some(Self::SystemAssigned)),
            (IdentityType::None, None) => Ok(Some(Self::None)),
        }
    }
}

/// The resource id in `userAssignedIdentities`; one with the value `null` is to be taken away.
fn user_assigned(given: &mut Object<'_>) -> Result<Option<String>, Problem> {
    let Some(assigned) = given.object("userassignedidentities")? else { return Ok(None) };
    let mut found = None;
    for (id, value) in assigned.rest().filter(|(_, value)| !value.is_null()) {
        if !value.is_object() {
            return Err(Problem::invalid(&id_path(id), format!("`{}` is not an object", id_path(id))));
        }
        if found.replace(id.to_owned()).is_some() {
            let message = "a cluster has exactly one identity: name one in `identity.userAssignedIdentities`";
            return Err(Problem::bad("TooManyUserAssignedIdentities", "identity.userAssignedIdentities", message));
        }
    }
    Ok(found)
}

impl Identity {
    /// A system-assigned identity with this principal.
    pub(crate) fn system_assigned(principal_id: String) -> Self {
        Self { kind: IdentityType::SystemAssigned, principal_id, user_assigned: None }
    }

    /// The identity that was asked for. `principal` is a new id: a system-assigned identity that comes back is another one, which needs
    /// grants of its own.
    ///
    /// # Errors
    ///
    /// A problem when the configuration, which `find` looks into, has no such user-assigned identity.
    pub(crate) fn wanted(
        wanted: WantedIdentity,
        principal: String,
        find: impl FnOnce(&str) -> Option<UserAssignedIdentity>,
    ) -> Result<Self, Problem> {
        match wanted {
            WantedIdentity::SystemAssigned => Ok(Self::system_assigned(principal)),
            WantedIdentity::None => Ok(Self { kind: IdentityType::None, principal_id: principal, user_assigned: None }),
            WantedIdentity::UserAssigned(id) => {
                let found = find(&id).ok_or_else(|| {
                    let message =
                        format!("this deployment has no user-assigned identity `{id}`: its configuration names them");
                    Problem::bad("UserAssignedIdentityNotFound", &id_path(&id), message)
                })?;
                let UserAssignedIdentity { id, principal, client_id } = found;
                let user_assigned = Some(UserAssigned { id, client_id });
                Ok(Self { kind: IdentityType::UserAssigned, principal_id: principal.to_string(), user_assigned })
            }
        }
    }

    pub(crate) fn view(&self) -> Value {
        match (self.kind, &self.user_assigned) {
            (IdentityType::SystemAssigned, _) => {
                json!({"type": "SystemAssigned", "tenantId": TENANT, "principalId": self.principal_id})
            }
            (IdentityType::UserAssigned, Some(assigned)) => json!({
                "type": "UserAssigned",
                "userAssignedIdentities": {
                    assigned.id.as_str(): {"principalId": self.principal_id, "clientId": assigned.client_id},
                },
            }),
            (IdentityType::UserAssigned | IdentityType::None, _) => json!({"type": "None"}),
        }
    }
}

/// Which identity a cluster asks its key vault as: `defaultIdentity` in the five forms that Cosmos DB has.
///
/// The delegated forms stand for the same identities: nothing is between a cluster of this deployment and its identity.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DefaultIdentity {
    /// The deployment's own.
    FirstParty,
    /// The cluster's system-assigned one.
    SystemAssigned { is_delegated: bool },
    /// The cluster's user-assigned one, named by its resource id.
    UserAssigned { is_delegated: bool, id: String },
}

/// The text is none of the five forms.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "it can be: FirstPartyIdentity, SystemAssignedIdentity, UserAssignedIdentity=ID, DelegatedSystemAssignedIdentity, DelegatedUserAssignedIdentity=ID"
)]
pub(crate) struct NoDefaultIdentity;

impl DefaultIdentity {
    /// Reads `defaultIdentity`.
    pub(crate) fn input(properties: &mut Object<'_>) -> Result<Option<Self>, Problem> {
        let path = properties.path_of("defaultidentity");
        let Some(text) = properties.string("defaultidentity")? else { return Ok(None) };
        let read = Self::try_from(text.to_owned());
        read.map(Some).map_err(|error| invalid_default(&path, format!("`{path}` is `{text}`; {error}")))
    }

    /// Whether a cluster with an identity of this type, and the user-assigned one `id`, can ask as `self`. One without identity asks as
    /// nobody, whatever its default is.
    pub(crate) fn check(&self, kind: IdentityType, assigned: Option<&str>) -> Result<(), Problem> {
        let fits = match (self, kind) {
            (Self::FirstParty, _) | (_, IdentityType::None) => true,
            (Self::SystemAssigned { .. }, kind) => kind == IdentityType::SystemAssigned,
            (Self::UserAssigned { id, .. }, _) => assigned.is_some_and(|assigned| assigned.eq_ignore_ascii_case(id)),
        };
        if fits {
            return Ok(());
        }
        let message = format!(
            "`properties.defaultIdentity` is `{self}`, which is not an identity that the cluster has: give both in one request, `identity` and `properties.defaultIdentity`"
        );
        Err(invalid_default("properties.defaultIdentity", message))
    }
}

fn invalid_default(path: &str, message: String) -> Problem {
    Problem::bad("InvalidDefaultIdentity", path, message)
}

impl TryFrom<String> for DefaultIdentity {
    type Error = NoDefaultIdentity;

    fn try_from(text: String) -> Result<Self, NoDefaultIdentity> {
        let (form, id) = text.split_once('=').map_or((text.as_str(), None), |(form, id)| (form, Some(id.trim())));
        let form = form.trim().to_ascii_lowercase();
        let (form, is_delegated) = form.strip_prefix("delegated").map_or((form.as_str(), false), |form| (form, true));
        match (form, id) {
            ("firstpartyidentity", None) if !is_delegated => Ok(Self::FirstParty),
            ("systemassignedidentity", None) => Ok(Self::SystemAssigned { is_delegated }),
            ("userassignedidentity", Some(id)) if !id.is_empty() => {
                Ok(Self::UserAssigned { is_delegated, id: id.to_owned() })
            }
            _ => Err(NoDefaultIdentity),
        }
    }
}

impl Display for DefaultIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delegated = |is_delegated: bool| if is_delegated { "Delegated" } else { "" };
        match self {
            Self::FirstParty => f.write_str("FirstPartyIdentity"),
            Self::SystemAssigned { is_delegated } => {
                write!(f, "{}SystemAssignedIdentity", delegated(*is_delegated))
            }
            Self::UserAssigned { is_delegated, id } => {
                write!(f, "{}UserAssignedIdentity={id}", delegated(*is_delegated))
            }
        }
    }
}

impl From<DefaultIdentity> for String {
    fn from(identity: DefaultIdentity) -> Self {
        identity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use logseal_vault::PrincipalId;

    use super::*;

    const ID: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logs";

    fn input(identity: Value, now: Option<&Identity>) -> Result<Option<WantedIdentity>, Problem> {
        let body = json!({"identity": identity});
        WantedIdentity::input(&mut Object::root(&body).unwrap(), now)
    }

    fn wanted(wanted: WantedIdentity) -> Result<Identity, Problem> {
        Identity::wanted(wanted, "p-new".to_owned(), |id| {
            let principal = PrincipalId::parse("p-user").unwrap();
            id.eq_ignore_ascii_case(ID).then(|| UserAssignedIdentity {
                id: ID.into(),
                principal,
                client_id: "c".into(),
            })
        })
    }

    #[test]
    fn an_identity_is_taken_away_and_comes_back_as_another_one() {
        let first = Identity::system_assigned("p-1".to_owned());
        assert_eq!(input(first.view(), Some(&first)).unwrap(), None, "what was read may be written back");
        assert_eq!(input(json!({"type": "none"}), Some(&first)).unwrap(), Some(WantedIdentity::None));
        let none = wanted(WantedIdentity::None).unwrap();
        assert_eq!(none.view(), json!({"type": "None"}));
        assert_eq!(input(none.view(), Some(&none)).unwrap(), None);
        let system = Some(WantedIdentity::SystemAssigned);
        assert_eq!(input(json!({"type": "SystemAssigned"}), Some(&none)).unwrap(), system);
        assert_eq!(input(first.view(), Some(&none)).unwrap(), system);
        assert_eq!(wanted(WantedIdentity::SystemAssigned).unwrap().principal_id, "p-new");
        let other = json!({"type": "SystemAssigned", "principalId": "p-9"});
        assert!(input(other, Some(&first)).is_err(), "nobody chooses his principal");
    }

    #[test]
    fn a_user_assigned_identity_is_one_that_the_configuration_names() {
        let first = Identity::system_assigned("p-1".to_owned());
        let given = json!({"type": "UserAssigned", "userAssignedIdentities": {ID.to_uppercase(): {}}});
        let asked = input(given.clone(), Some(&first)).unwrap().unwrap();
        let user = wanted(asked).unwrap();
        let assigned = json!({ID: {"principalId": "p-user", "clientId": "c"}});
        assert_eq!(user.view(), json!({"type": "UserAssigned", "userAssignedIdentities": assigned}));
        for same in [user.view(), given, json!({"type": "UserAssigned"})] {
            assert_eq!(input(same, Some(&user)).unwrap(), None);
        }
        let moved = json!({"type": "UserAssigned", "userAssignedIdentities": {ID: null, "/other": {}}});
        let asked = input(moved, Some(&user)).unwrap().unwrap();
        assert_eq!(asked, WantedIdentity::UserAssigned("/other".into()));
        assert_eq!(wanted(asked).unwrap_err().code(), "UserAssignedIdentityNotFound");
        let back = json!({"type": "SystemAssigned", "userAssignedIdentities": {ID: null}});
        assert_eq!(input(back, Some(&user)).unwrap(), Some(WantedIdentity::SystemAssigned));
        let code = |identity| input(identity, Some(&first)).unwrap_err().code();
        assert_eq!(code(json!({"type": "UserAssigned"})), "MissingIdentity");
        let two = json!({"type": "UserAssigned", "userAssignedIdentities": {"/a": {}, "/b": {}}});
        assert_eq!(code(two), "TooManyUserAssignedIdentities");
        for bad in [
            json!({"type": "UserAssigned", "userAssignedIdentities": {"/a": 1}}),
            json!({"type": "SystemAssigned", "userAssignedIdentities": {"/a": {}}}),
            json!({"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {"/a": {}}}),
        ] {
            assert_eq!(code(bad), "InvalidRequestContent");
        }
    }

    #[test]
    fn what_was_kept_before_there_were_types_is_system_assigned() {
        let kept: Identity = serde_json::from_value(json!({"principalId": "p"})).unwrap();
        assert_eq!(kept, Identity::system_assigned("p".to_owned()));
    }

    #[test]
    fn a_default_identity_has_one_of_five_forms_and_is_one_that_the_cluster_has() {
        let read = |text: &str| DefaultIdentity::try_from(text.to_owned());
        let user = format!("UserAssignedIdentity={ID}");
        let delegated = format!("DelegatedUserAssignedIdentity={ID}");
        let forms =
            ["FirstPartyIdentity", "SystemAssignedIdentity", &user, "DelegatedSystemAssignedIdentity", &delegated];
        for form in forms {
            assert_eq!(read(form).unwrap().to_string(), form);
            assert_eq!(read(&form.replace("Identity", "IDENTITY")).unwrap().to_string().len(), form.len());
        }
        for none in [
            "",
            "Default",
            "DelegatedFirstPartyIdentity",
            "UserAssignedIdentity",
            "UserAssignedIdentity=",
            "FirstPartyIdentity=x",
        ] {
            assert!(read(none).is_err(), "{none}");
        }
        let upper = ID.to_uppercase();
        let fits = |form: &str, kind, id| read(form).unwrap().check(kind, id).is_ok();
        let [system, assigned] = [IdentityType::SystemAssigned, IdentityType::UserAssigned];
        assert!(fits("FirstPartyIdentity", system, None) && fits("FirstPartyIdentity", assigned, Some(ID)));
        assert!(fits("SystemAssignedIdentity", system, None) && !fits("SystemAssignedIdentity", assigned, Some(ID)));
        assert!(fits(&user, assigned, Some(&upper)) && fits(&delegated, assigned, Some(ID)));
        assert!(!fits(&user, assigned, Some("/other")) && !fits(&user, system, None));
        assert!(fits(&user, IdentityType::None, None), "an identity can always be taken away");
    }
}
