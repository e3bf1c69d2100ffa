//! Rows of tokens of the management API.

use logseal_core::{UnixNanos, WorkspaceId};

use super::Authenticated;

/// A token of the management API, without the token itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenRow {
    /// What people call it; no two tokens have one name.
    pub name: String,
    /// An HMAC of the token, 32 bytes, by which it is found.
    pub lookup: Vec<u8>,
    /// What its holder may do, in a word of the control plane's.
    pub role: String,
    /// The workspaces that its holder may query.
    pub workspaces: Vec<WorkspaceId>,
    /// When it was made.
    pub created: UnixNanos,
    /// From when on it opens nothing; `None` for never.
    pub expires: Option<UnixNanos>,
}

impl TokenRow {
    /// The workspaces as they are stored.
    pub(crate) fn workspace_bytes(&self) -> Vec<u8> {
        self.workspaces.iter().flat_map(|id| *id.as_bytes()).collect()
    }
}

authenticated!(
    TokenRow,
    "token",
    |r| r.name.clone(),
    [
        r.name.as_bytes(),
        r.lookup,
        r.role.as_bytes(),
        r.workspace_bytes(),
        r.created.0.to_le_bytes(),
        // An empty field is none, which no time is.
        r.expires.map_or_else(Vec::new, |expires| expires.0.to_le_bytes().to_vec()),
    ]
);
