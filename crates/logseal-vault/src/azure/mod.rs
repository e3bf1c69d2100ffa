//! Azure Key Vault and Managed HSM as a [`KeyVault`]: get, wrap and unwrap of the keys API, version 7.4.
//!
//! One [`AzureKeyVault`] asks one vault as one identity. It holds no key and no cache: what a failure means for the keys in memory is decided
//! by whoever asks.
//!
//! | the vault answers | error | class | repeated |
//! | --- | --- | --- | --- |
//! | nothing, since its name does not resolve | [`Unresolved`](VaultError::Unresolved) | trouble | no |
//! | nothing, since its name resolves to an address that is not public | [`Unreachable`](VaultError::Unreachable) | trouble | no |
//! | nothing, since its certificate is not accepted | [`Unreachable`](VaultError::Unreachable) | trouble | no |
//! | nothing, since nobody listens or the connection breaks | [`Unreachable`](VaultError::Unreachable) | trouble | yes |
//! | nothing in time | [`TimedOut`](VaultError::TimedOut) | trouble | yes, when it was the connection |
//! | 200 with what was asked for | | | |
//! | 200 with anything else, a redirect, more than 64 KiB, no HTTP | [`Malformed`](VaultError::Malformed) | trouble | no |
//! | 400 to an unwrap | [`BadWrap`](VaultError::BadWrap) | trouble | no |
//! | 401, again with a new token | [`Unauthorized`](VaultError::Unauthorized) | trouble | once, with a new token |
//! | 403 `KeyDisabled` | [`KeyDisabled`](VaultError::KeyDisabled) | refusal | no |
//! | 403 `AccessDenied`, `ForbiddenByRbac`, `ForbiddenByPolicy`, `Forbidden` | [`AccessDenied`](VaultError::AccessDenied) | refusal | no |
//! | 403 `ForbiddenByFirewall`, `ForbiddenByConnection` | [`Firewall`](VaultError::Firewall) | trouble | no |
//! | 403 `KeyExpired`, `KeyNotYetValid` to a wrap | [`OutsideValidity`](VaultError::OutsideValidity) | trouble | no |
//! | 403 `KeyOperationForbidden` | [`OperationNotAllowed`](VaultError::OperationNotAllowed) | trouble | no |
//! | 404 `KeyNotFound` | [`NotFound`](VaultError::NotFound) | refusal | no |
//! | 404 `VaultNotFound` | [`VaultNotFound`](VaultError::VaultNotFound) | trouble | no |
//! | any other status, and 403 and 404 whose body is no Key Vault error | [`Malformed`](VaultError::Malformed) | trouble | no |
//! | 429 | [`Throttled`](VaultError::Throttled) | trouble | yes, not before `Retry-After` |
//! | 408, 5xx | [`Server`](VaultError::Server) | trouble | yes, not before `Retry-After` |
//!
//! A refusal takes a cluster out of service. So it needs a body that only Key Vault writes, over TLS with a verified certificate: a proxy's or
//! a load balancer's 403 page is none.
//!
//! A call is repeated at most twice and never beyond [`AzureSettings::call_timeout`], which covers everything: the token, the name, all
//! attempts and the waits between them.
//!
//! What an answer says is never part of an error's text, but for our own words about it: it was written by somebody else.
//!
//! Tokens are asked for the fixed audience of the vault's cloud ([`VaultUri::audience`]), never for what a challenge names, and sent to that
//! vault only: there are no redirects and no proxies.
//!
//! Bodies that hold a key or a token are wiped after use, on our side. The buffers of the HTTP and TLS libraries are not: what passed
//! through them stays in memory until they are used again.

mod connect;
mod exchange;
#[cfg(feature = "azure")]
mod identity;
mod message;
mod outcome;
mod tls;
mod token;
mod token_file;
mod vaults;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::Full;
use logseal_core::{Clock, RandomSource};
use logseal_crypto::Key256;
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

pub use self::connect::{Network, SystemNetwork};
#[cfg(feature = "azure")]
pub use self::identity::{AzureIdentity, IdentityTokens};
pub use self::tls::TlsTrust;
pub use self::token::{AccessToken, CachedTokens, TokenSource};
pub use self::token_file::TokenFile;
pub use self::vaults::{AzureVaults, Credential};

use self::connect::{Dialer, Target};
use self::exchange::Connections;
use self::message::{key_properties, operation_body, unwrapped_key, wrapped_key};
use self::outcome::{Ask, Failure, read_answer};
use crate::uri::VaultUri;
use crate::{KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, PrincipalId, VaultError};

/// How patient a vault client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AzureSettings {
    /// For one connection: name, address and TLS. Default 2 s: a vault is in the same region and answers within milliseconds.
    pub connect_timeout: Duration,
    /// For one call with all that belongs to it. Default 5 s, so that a revocation is noticed in time even when the vault hangs.
    pub call_timeout: Duration,
    /// How long an unused connection is kept. Default 60 s: a cluster's key is probed every 20 s over the same one.
    pub idle_timeout: Duration,
}

impl Default for AzureSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What all vault clients of a process share.
#[derive(Clone, Debug)]
pub struct AzureParts {
    /// The resolver and the sockets.
    pub network: Arc<dyn Network>,
    /// Whose certificates are taken.
    pub trust: TlsTrust,
    /// Says which certificates have expired.
    pub clock: Arc<dyn Clock>,
    /// For the jitter of repetitions.
    pub random: Arc<dyn RandomSource>,
    /// How patient they are.
    pub settings: AzureSettings,
}

/// One key vault, asked as one identity.
pub struct AzureKeyVault {
    uri: VaultUri,
    host_header: HeaderValue,
    caller: PrincipalId,
    tokens: Arc<CachedTokens>,
    connections: Connections,
    random: Arc<dyn RandomSource>,
    call_timeout: Duration,
}

impl AzureKeyVault {
    /// The vault at `uri`, asked with the tokens of `caller`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unreachable`] when TLS cannot be set up, for example without any certificate authority.
    pub fn new(
        uri: VaultUri,
        caller: PrincipalId,
        tokens: Arc<CachedTokens>,
        parts: &AzureParts,
    ) -> Result<Self, VaultError> {
        let AzureParts { network, trust, clock, random, settings } = parts;
        let AzureSettings { connect_timeout, call_timeout, idle_timeout } = *settings;
        let tls = trust.client_config(Arc::clone(clock))?;
        let dialer = Dialer::new(Arc::clone(network), tls, connect_timeout);
        let target = Target { host: uri.host().into(), port: uri.port(), explicit: uri.is_explicit(), tls: true };
        let authority = uri.as_str().trim_start_matches("https://");
        let host_header = HeaderValue::from_str(authority)
            .map_err(|_| VaultError::Invalid(format!("`{uri}` cannot be named in a request")))?;
        let connections = Connections::new(dialer, target, idle_timeout);
        Ok(Self { uri, host_header, caller, tokens, connections, random: Arc::clone(random), call_timeout })
    }

    /// Asks, and gives the body of a good answer. `body` is empty for a get.
    async fn ask(&self, ask: Ask<'_>, body: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let limit = Instant::now() + self.call_timeout;
        // The last copy wipes the memory: the body of a wrap is a key in clear.
        let body = Bytes::from_owner(body);
        let answered = timeout_at(limit, self.attempts(ask, &body, limit)).await;
        answered.unwrap_or(Err(VaultError::TimedOut(self.call_timeout)))
    }

    async fn attempts(&self, ask: Ask<'_>, body: &Bytes, limit: Instant) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let audience = self.uri.audience();
        let mut token = in_time(limit, self.tokens.token(audience)).await?;
        let mut renewed = false;
        let mut repeated = 0;
        loop {
            let failure = match self.attempt(ask, body, &token).await {
                Ok(body) => return Ok(body),
                Err(failure) => failure,
            };
            if matches!(failure.error, VaultError::Unauthorized) && !renewed {
                renewed = true;
                token = in_time(limit, self.tokens.another(audience, &token)).await?;
                continue;
            }
            let left = limit.saturating_duration_since(Instant::now());
            let Some(pause) = failure.pause(repeated, left, &*self.random) else { return Err(failure.error) };
            repeated += 1;
            sleep(pause).await;
        }
    }

    async fn attempt(&self, ask: Ask<'_>, body: &Bytes, token: &AccessToken) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut request = Request::builder()
            .method(ask.method())
            .uri(ask.path())
            .header(HOST, &self.host_header)
            .header(AUTHORIZATION, token.header()?)
            .header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.clone()))
            .map_err(|_| VaultError::Invalid("the request cannot be written".into()))?;
        match self.connections.exchange(request).await {
            Ok(answer) => read_answer(&ask, answer, &self.caller),
            Err(error) => Err(Failure::of_exchange(error, self.uri.host())),
        }
    }

    /// A key of another vault is never asked for here: the answer would be about a namesake.
    fn own(&self, kek: &KeyId) -> Result<(), VaultError> {
        if *kek.vault_uri == *self.uri.as_str() {
            return Ok(());
        }
        Err(VaultError::Invalid(format!("key `{kek}` is not in the vault `{}`", self.uri)))
    }
}

/// The vault is not to blame when there is no token in time.
async fn in_time<T>(limit: Instant, token: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
    let late = |_| VaultError::Token("the identity service did not answer in time".into());
    timeout_at(limit, token).await.map_err(late)?
}

#[async_trait]
impl KeyVault for AzureKeyVault {
    async fn key(&self, name: &KeyName, version: Option<&KeyVersion>) -> Result<KeyProperties, VaultError> {
        let answer = self.ask(Ask::Get { vault: &self.uri, name, version }, Zeroizing::default()).await?;
        key_properties(&answer, self.uri.as_str(), name, version)
    }

    async fn wrap(&self, kek: &KeyId, key: &Key256) -> Result<Vec<u8>, VaultError> {
        self.own(kek)?;
        let answer = self.ask(Ask::Wrap(kek), operation_body(key.expose())).await?;
        wrapped_key(&answer, kek)
    }

    async fn unwrap(&self, kek: &KeyId, wrapped: &[u8]) -> Result<Key256, VaultError> {
        self.own(kek)?;
        let answer = self.ask(Ask::Unwrap(kek), operation_body(wrapped)).await?;
        unwrapped_key(&answer, kek)
    }
}

impl Debug for AzureKeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureKeyVault").field("uri", &self.uri).field("caller", &self.caller).finish_non_exhaustive()
    }
}
