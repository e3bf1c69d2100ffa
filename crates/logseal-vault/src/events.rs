//! What the embedded vault tells of itself: every change, and every access that was refused.

use std::fmt::Debug;

use async_trait::async_trait;
use serde_json::Value;

/// Something that was done to a key, or was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VaultEvent {
    /// Who: `vault-token`, an identity's id, or `logseal` for what the vault does by itself.
    pub actor: String,
    /// What, as Azure Resource Manager would name the action.
    pub action: &'static str,
    /// The key's name, with its version when only one is concerned; empty when the request named none.
    pub key: String,
    /// `Succeeded`, or the code of the refusal.
    pub outcome: String,
    /// What there is to know about it, never a secret; `null` for nothing.
    pub detail: Value,
}

/// Outcome of what was done.
pub const SUCCEEDED: &str = "Succeeded";

/// Where events go.
#[async_trait]
pub trait VaultEvents: Debug + Send + Sync {
    /// Keeps `event`. A change is durable already: that its event cannot be kept does not undo it.
    async fn report(&self, event: VaultEvent);
}

/// The actions that events name.
pub(crate) mod action {
    pub(crate) const CREATE: &str = "Microsoft.KeyVault/vaults/keys/create/action";
    pub(crate) const IMPORT: &str = "Microsoft.KeyVault/vaults/keys/import/action";
    pub(crate) const ROTATE: &str = "Microsoft.KeyVault/vaults/keys/rotate/action";
    pub(crate) const UPDATE: &str = "Microsoft.KeyVault/vaults/keys/update/action";
    pub(crate) const DELETE: &str = "Microsoft.KeyVault/vaults/keys/delete";
    pub(crate) const RECOVER: &str = "Microsoft.KeyVault/vaults/keys/recover/action";
    pub(crate) const PURGE: &str = "Microsoft.KeyVault/vaults/keys/purge/action";
    pub(crate) const POLICY: &str = "Microsoft.KeyVault/vaults/keys/rotationpolicy/write";
    pub(crate) const GRANT: &str = "Microsoft.KeyVault/vaults/keys/grants/write";
    pub(crate) const REVOKE: &str = "Microsoft.KeyVault/vaults/keys/grants/delete";
    pub(crate) const READ: &str = "Microsoft.KeyVault/vaults/keys/read";
    pub(crate) const WRAP: &str = "Microsoft.KeyVault/vaults/keys/wrap/action";
    pub(crate) const UNWRAP: &str = "Microsoft.KeyVault/vaults/keys/unwrap/action";
    pub(crate) const ACCESS: &str = "Microsoft.KeyVault/vaults/access";
}
