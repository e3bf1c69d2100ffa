//! Who comes in: the deployment's management token, and tokens with roles.
//!
//! A token is 256 random bits. It is shown once, when it is made; the catalog holds an HMAC of it under the root key, by which it is found. A
//! role says which routes its holder may use, in the table that the routes are made from (`api::endpoints`, and `grpc::METHODS`); a reader's
//! token names the workspaces besides. So who reads logs does not manage keys, and who manages keys reads no logs by queries.
//!
//! Credentials that open nothing cost little: they are refused before anything else of a request is looked at, few of them a peer get more than a
//! short answer, and the audit trail has a few records of them with a count, however many come. A credential that does open something is taken
//! from everywhere: nobody who shares an address with its holder can lock it out, and to guess 256 bits no rate suffices.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`role`] | [`Role`] and [`Principal`]: what somebody may do |
//! | `refusals` | how many refusals are answered and recorded |
//! | `tokens` | [`Gate`]'s tokens: made, listed, deleted |

pub(crate) mod refusals;
mod role;
pub(crate) mod tokens;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use logseal_catalog::{AuditEntry, Catalog, CatalogError};
use logseal_core::{Chain, Clock, IdGenerator, Peer, SteadyClock};
use logseal_crypto::{BearerToken, MacKey, bearer};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::error;

use self::refusals::Refusals;
pub use self::role::Role;
pub(crate) use self::role::{Principal, RoleNeeded};
use self::tokens::Known;
pub use self::tokens::is_token_name;
use crate::Problem;
use crate::audit::AuditTrail;
use crate::meter;
use crate::resource::view::date;

/// A credential that opens nothing.
const REFUSED: &str = "logseal/access/refused";

/// A request that its token's role, or its grants, do not admit.
const DENIED: &str = "logseal/access/denied";

/// How often it is looked whether there were refusals of which no record tells yet.
const PERIOD: Duration = Duration::from_secs(60);

/// Most of a path that a record takes.
const PATH_BYTES: usize = 512;

/// What a gate is made of.
#[derive(Debug)]
pub struct GateParts {
    /// The token that has all rights.
    pub management_token: BearerToken,
    /// Makes the HMACs of tokens.
    pub lookup_key: MacKey,
    /// Holds tokens, and workspaces that they may name.
    pub catalog: Catalog,
    /// Takes what is changed, and some of what is refused.
    pub audit: AuditTrail,
    /// Tells records apart.
    pub ids: IdGenerator,
    /// Ends tokens.
    pub clock: Arc<dyn Clock>,
    /// For rates.
    pub steady: Arc<dyn SteadyClock>,
}

/// Decides who comes in.
#[derive(Debug)]
pub struct Gate {
    parts: GateParts,
    known: RwLock<Known>,
    /// Held by whoever makes or deletes a token, so that memory follows the catalog.
    changing: Mutex<()>,
    refusals: Refusals,
}

/// Why a credential opens nothing.
#[derive(Debug)]
enum Refusal {
    Unknown,
    /// It is one of ours, of which the catalog cannot be believed what it may do.
    Unusable,
    Expired(String),
}

impl Gate {
    /// A gate that admits the management token, and the tokens that the catalog holds.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`]. A token whose row was altered opens nothing until that is repaired, is reported, and keeps no other one out.
    pub async fn open(parts: GateParts) -> Result<Arc<Self>, CatalogError> {
        let (rows, refused) = parts.catalog.tokens().await?;
        for token in &refused {
            error!(error = %Chain(&token.error), "a token of the management API opens nothing: delete it and make another, or repair its row and start again");
        }
        let refusals = Refusals::new(Arc::clone(&parts.steady));
        Ok(Arc::new(Self { known: RwLock::new(Known::of(rows, refused)), changing: Mutex::new(()), refusals, parts }))
    }

    /// Whoever sends `headers`, from `peer`.
    ///
    /// # Errors
    ///
    /// 401 without a token that opens anything, 429 when `peer` sent too many that do not, and 503 with one whose row was altered.
    pub(crate) async fn enter(&self, headers: &HeaderMap, peer: Peer) -> Result<Arc<Principal>, Problem> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            count("missing");
            return Err(unauthorized(EXPECTED));
        };
        match self.find(bearer(authorization.as_bytes()).unwrap_or_default()) {
            Ok(principal) => Ok(principal),
            Err(refusal) => Err(self.refuse(&refusal, peer).await),
        }
    }

    fn find(&self, presented: &[u8]) -> Result<Arc<Principal>, Refusal> {
        if self.parts.management_token.is(presented) {
            return Ok(Arc::new(Principal::management()));
        }
        let token = self.token(presented)?;
        let now = self.parts.clock.now();
        match token.row.expires {
            Some(expires) if expires <= now => {
                Err(Refusal::Expired(format!("the token `{}` expired at {}", token.row.name, date(expires))))
            }
            _ => {
                token.use_at(now);
                Ok(Arc::clone(&token.principal))
            }
        }
    }

    async fn refuse(&self, refusal: &Refusal, peer: Peer) -> Problem {
        let allowed = match refusal {
            // Nobody guesses one of ours.
            Refusal::Unusable => Ok(()),
            Refusal::Unknown | Refusal::Expired(_) => self.refusals.attempt(peer),
        };
        let (reason, outcome) = match (&allowed, refusal) {
            (Err(_), _) => ("limited", "Unauthorized"),
            (Ok(()), Refusal::Unknown) => ("unknown", "Unauthorized"),
            (Ok(()), Refusal::Expired(_)) => ("expired", "Unauthorized"),
            (Ok(()), Refusal::Unusable) => ("unusable", "ServiceUnavailable"),
        };
        count(reason);
        if let Some(untold) = self.refusals.tell() {
            let details = json!({"peer": peer.address().to_string(), "notRecorded": untold});
            self.record("unknown", REFUSED, "", outcome, details).await;
        }
        match (allowed, refusal) {
            (Err(wait), _) => {
                let message = "too many tokens that open nothing came from this address: try again after the time in `Retry-After`, with the right one";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(wait)
            }
            (Ok(()), Refusal::Unknown) => unauthorized(EXPECTED),
            (Ok(()), Refusal::Expired(message)) => unauthorized(message),
            (Ok(()), Refusal::Unusable) => Problem::unavailable(UNUSABLE),
        }
    }

    /// Counts that a route was not for `principal`, and has some records of it.
    pub(crate) async fn denied(&self, principal: &Principal, method: &str, path: &str) {
        count("denied");
        if let Some(untold) = self.refusals.tell() {
            let path = &path[..path.floor_char_boundary(PATH_BYTES)];
            let details = json!({"method": method, "notRecorded": untold});
            self.record(&principal.actor, DENIED, path, "AuthorizationFailed", details).await;
        }
    }

    /// Records refusals that no record tells of, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.settle().await;
        }
    }

    /// Records the refusals that no record tells of, when there are any.
    pub async fn settle(&self) {
        if let Some(untold) = self.refusals.untold() {
            self.record("unknown", REFUSED, "", "Counted", json!({"notRecorded": untold})).await;
        }
    }

    async fn record(&self, actor: &str, action: &str, resource: &str, outcome: &str, details: serde_json::Value) {
        let entry = AuditEntry {
            at: self.parts.clock.now(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            operation: None,
            outcome: outcome.to_owned(),
            before: "null".to_owned(),
            after: details.to_string(),
        };
        if let Err(error) = self.parts.audit.record(entry).await {
            error!(error = %Chain(&error), "the audit trail takes no record of requests that were refused");
        }
    }
}

const EXPECTED: &str = "expected `authorization: Bearer <token>`: one that `logseal token create` made, or the management token of credentials.json in the \
                        data directory; a workspace's key is another thing";

const UNUSABLE: &str = "this token cannot be used, since what the catalog says of it cannot be believed: the server's log has its name and the reason";

fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
}

fn count(reason: &'static str) {
    metrics::counter!(meter::REFUSALS, "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests;
