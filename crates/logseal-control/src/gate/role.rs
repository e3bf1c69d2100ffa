//! What somebody may do.

use std::fmt::{self, Display};

use http::StatusCode;
use logseal_core::WorkspaceId;

use crate::Problem;

/// Who has all rights, in the audit trail.
const MANAGEMENT: &str = "management-token";

/// What the holder of a token may do. Nobody who may read records may do anything with keys, and the other way round.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Queries of the workspaces that the token names, and keys of their segments for the reader's own use.
    Reader,
    /// Resources and operations; no records and no keys.
    Operator,
    /// Clusters' keys, workspaces' keys, and keys of segments that are kept; no records by queries.
    KeyOfficer,
    /// The audit trail, operations and metrics, all to be read only.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Operator, Self::KeyOfficer, Self::Auditor];

    /// The role's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::KeyOfficer => "key-officer",
            Self::Auditor => "auditor",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Beside an answer: it is one because of a role or a grant that is lacking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoleNeeded;

/// Who asks, and what they may do.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// As the audit trail calls them.
    pub(crate) actor: String,
    /// `None` for who has all rights.
    role: Option<Role>,
    /// What a reader may query.
    workspaces: Vec<WorkspaceId>,
}

impl Principal {
    /// Whoever has the management token.
    pub(crate) fn management() -> Self {
        Self::unrestricted(MANAGEMENT)
    }

    /// `actor`, who may do everything.
    pub(crate) fn unrestricted(actor: &str) -> Self {
        Self { actor: actor.to_owned(), role: None, workspaces: Vec::new() }
    }

    /// `actor` in `role`, with no workspaces.
    pub(crate) fn of_role(actor: &str, role: Role) -> Self {
        Self { actor: actor.to_owned(), role: Some(role), workspaces: Vec::new() }
    }

    /// Whoever has the token `name`.
    pub(crate) fn of_token(name: &str, role: Role, workspaces: Vec<WorkspaceId>) -> Self {
        Self { actor: format!("token:{name}"), role: Some(role), workspaces }
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.role
    }

    /// Refuses who has none of `roles`. An empty list is for who has all rights.
    pub(crate) fn admit(&self, roles: &[Role]) -> Result<(), Problem> {
        match self.role {
            Some(role) if !roles.contains(&role) => Err(self.lacks(&needed(roles))),
            _ => Ok(()),
        }
    }

    /// Refuses readers whose token does not name `workspace`, or that ask for one that is not there: they learn nothing of it. Of others it asks
    /// for nothing.
    pub(crate) fn admit_to(&self, workspace: Option<WorkspaceId>) -> Result<(), Problem> {
        let granted = workspace.is_some_and(|id| self.workspaces.contains(&id));
        match self.role {
            Some(Role::Reader) if !granted => Err(self.lacks("the role `reader` with a grant on this workspace")),
            _ => Ok(()),
        }
    }

    /// What is answered to who lacks `what`.
    pub(crate) fn lacks(&self, what: &str) -> Problem {
        let role = self.role.map_or("all roles", Role::as_str);
        let message = format!("`{}` has the role `{role}`; this needs {what}", self.actor);
        Problem::new(StatusCode::FORBIDDEN, Problem::AUTHORIZATION_FAILED, message)
    }
}

/// `roles` in words.
pub(crate) fn needed(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| format!("`{role}`")).collect();
    match names.as_slice() {
        [] => "the management token".to_owned(),
        [one] => format!("the role {one}"),
        [first @ .., last] => format!("the role {} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_who_was_refused_and_what_is_needed() {
        let reader = Principal::of_token("grafana", Role::Reader, vec![WorkspaceId::from_bytes([1; 16])]);
        let message = |roles: &[Role]| reader.admit(roles).unwrap_err().message().to_owned();
        assert_eq!(message(&[]), "`token:grafana` has the role `reader`; this needs the management token");
        assert!(message(&[Role::Operator]).ends_with("this needs the role `operator`"));
        let three = [Role::Operator, Role::KeyOfficer, Role::Auditor];
        assert!(message(&three).ends_with("this needs the role `operator`, `key-officer` or `auditor`"));
        assert!(reader.admit(&Role::ALL).is_ok() && Principal::management().admit(&[]).is_ok());
    }

    #[test]
    fn a_reader_gets_to_its_workspaces_only() {
        let [own, other] = [1, 2].map(|byte| WorkspaceId::from_bytes([byte; 16]));
        let reader = Principal::of_token("r", Role::Reader, vec![own]);
        assert!(reader.admit_to(Some(own)).is_ok());
        let refused = [reader.admit_to(Some(other)), reader.admit_to(None)];
        assert_eq!(refused[0], refused[1], "what is there is told apart from what is not for nobody");
        assert_eq!(refused[0].as_ref().unwrap_err().code(), "AuthorizationFailed");
        assert!(Principal::management().admit_to(Some(other)).is_ok());
    }

    #[test]
    fn roles_are_what_their_names_say() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("owner"), None);
    }
}
