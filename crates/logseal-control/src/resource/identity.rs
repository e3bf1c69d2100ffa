//! The identity of a cluster: as whom it asks the key vault.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Problem;
use crate::json::Object;

/// The only tenant: identities belong to the deployment.
pub(crate) const TENANT: &str = "00000000-0000-0000-0000-000000000000";

/// What is kept of an identity.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// The id that grants in the vault name.
    pub(crate) principal_id: String,
}

impl Identity {
    /// Reads `identity`: only its type decides; what the server computed may be sent back.
    ///
    /// `UserAssigned` and `None` are refused as long as nothing acts on them: a cluster without identity must not go on using its key.
    pub(crate) fn input(root: &mut Object<'_>, now: Option<&Self>) -> Result<(), Problem> {
        let Some(mut given) = root.object("identity")? else { return Ok(()) };
        let path = given.path_of("type");
        match given.string("type")? {
            Some(kind) if kind.eq_ignore_ascii_case("SystemAssigned") => {}
            Some(kind) if ["UserAssigned", "None"].iter().any(|known| known.eq_ignore_ascii_case(kind)) => {
                let message = format!("`{path}` is `{kind}`; this version serves clusters with `SystemAssigned` only");
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
                    format!("`{path}` is missing: give SystemAssigned"),
                ));
            }
        }
        given.unchanged("principalid", now.map(|now| now.principal_id.as_str()))?;
        given.unchanged("tenantid", Some(TENANT))?;
        if let Some(assigned) = given.object("userassignedidentities")?
            && assigned.rest().next().is_some()
        {
            let path = "identity.userAssignedIdentities";
            return Err(Problem::invalid(path, "a system-assigned identity comes without `userAssignedIdentities`"));
        }
        given.finish()
    }

    pub(crate) fn view(&self) -> Value {
        json!({"type": "SystemAssigned", "tenantId": TENANT, "principalId": self.principal_id})
    }
}
