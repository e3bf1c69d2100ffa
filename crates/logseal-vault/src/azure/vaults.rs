//! The key vaults that a deployment reaches over the network, and what it proves its identities with.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use logseal_core::Clock;

use super::{AccessToken, AzureKeyVault, AzureParts, CachedTokens, TokenSource};
use crate::uri::{Audience, VaultUri, VaultUriPolicy};
use crate::{KeyVault, PrincipalId, VaultError};

/// Clients that are kept, each with its connections. When there are more, all are made anew.
const KEPT: usize = 256;

/// What one identity is proved with, and where its tokens may go.
#[derive(Clone, Debug)]
pub struct Credential {
    tokens: Arc<CachedTokens>,
    named_hosts_only: bool,
}

impl Credential {
    /// Tokens that the directory made for key vaults of one cloud: any key vault there may see them.
    #[must_use]
    pub fn of_directory(source: Arc<dyn TokenSource>, clock: Arc<dyn Clock>) -> Self {
        Self { tokens: Arc::new(CachedTokens::new(source, clock)), named_hosts_only: false }
    }

    /// Tokens of which it is not known for whom they are: they are sent to hosts that the operator named, and to no other.
    #[must_use]
    pub fn for_named_hosts(source: Arc<dyn TokenSource>, clock: Arc<dyn Clock>) -> Self {
        Self { tokens: Arc::new(CachedTokens::new(source, clock)), named_hosts_only: true }
    }
}

/// Finds the client of a vault and an identity.
#[derive(Debug)]
pub struct AzureVaults {
    policy: VaultUriPolicy,
    parts: AzureParts,
    credentials: HashMap<PrincipalId, Option<Credential>>,
    system_assigned: Option<Credential>,
    clients: Mutex<HashMap<(VaultUri, PrincipalId), Arc<AzureKeyVault>>>,
}

impl AzureVaults {
    /// The vaults that `policy` allows. `system_assigned` is for all principals that are not in `credentials`; those that are there have their own
    /// credential, or none.
    #[must_use]
    pub fn new(
        policy: VaultUriPolicy,
        parts: AzureParts,
        credentials: HashMap<PrincipalId, Option<Credential>>,
        system_assigned: Option<Credential>,
    ) -> Self {
        Self { policy, parts, credentials, system_assigned, clients: Mutex::default() }
    }

    /// The vault at `uri`, asked as `principal`, with its normalized URI. A principal without a credential gets a vault whose every call fails
    /// with [`VaultError::Token`].
    ///
    /// # Errors
    ///
    /// [`VaultError::Invalid`] when the URI breaks a rule, with what to do.
    pub fn vault(&self, uri: &str, principal: &PrincipalId) -> Result<(Box<str>, Arc<dyn KeyVault>), VaultError> {
        let uri = self.policy.parse(uri).map_err(|error| VaultError::Invalid(error.to_string()))?;
        let text = uri.as_str().into();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uri, principal.clone());
        if let Some(client) = clients.get(&key) {
            return Ok((text, Arc::clone(client) as _));
        }
        let tokens = self.tokens(&key.0, principal);
        let client = Arc::new(AzureKeyVault::new(key.0.clone(), principal.clone(), tokens, &self.parts)?);
        if clients.len() >= KEPT {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&client));
        Ok((text, client))
    }

    fn tokens(&self, uri: &VaultUri, principal: &PrincipalId) -> Arc<CachedTokens> {
        let why = match self.credentials.get(principal).unwrap_or(&self.system_assigned) {
            Some(credential) if uri.is_explicit() || !credential.named_hosts_only => {
                return Arc::clone(&credential.tokens);
            }
            Some(_) => format!("the credential of identity `{principal}` is for hosts that `azure.hosts` names only"),
            None => {
                format!("no credential is configured for identity `{principal}`: add one to `azure.identities_file`")
            }
        };
        Arc::new(CachedTokens::new(Arc::new(NoTokens(why)), Arc::clone(&self.parts.clock)))
    }
}

/// Where there are no tokens, and why.
#[derive(Debug)]
struct NoTokens(String);

#[async_trait]
impl TokenSource for NoTokens {
    async fn token(&self, _: Audience) -> Result<AccessToken, VaultError> {
        Err(VaultError::Token(self.0.clone()))
    }
}
