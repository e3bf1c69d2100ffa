//! Tokens: made, listed, deleted.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use logseal_catalog::{AuditEntry, CatalogError, Change, RefusedToken, ResourceKind, TokenRow};
use logseal_core::{Chain, ResourceId, UnixNanos, WorkspaceId};
use logseal_crypto::{Key256, MacKey, OsRandom};
use serde_json::{Value, json};
use tracing::error;
use zeroize::Zeroizing;

use super::{Gate, Principal, Refusal, Role};
use crate::Problem;
use crate::resource::view::date;

/// What tokens begin with, by which people and scanners of secrets know one.
const PREFIX: &str = "lsm_";

/// Longest credential that is looked up; ours have 47 characters.
const CREDENTIAL_BYTES: usize = 128;

/// Most tokens of a deployment, which all are in memory.
const TOKENS: usize = 1_000;

/// Most workspaces that a token names.
pub(crate) const WORKSPACES: usize = 100;

/// Longest name.
pub(crate) const NAME_BYTES: usize = 63;

const WRITE: &str = "logseal/tokens/write";
const DELETE: &str = "logseal/tokens/delete";

/// A token that opens something.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) row: TokenRow,
    pub(crate) principal: Arc<Principal>,
    /// In nanoseconds since 1970; 0 for never since the start.
    used: AtomicI64,
}

impl Token {
    /// `None` when no role is called as the row says.
    fn of(row: TokenRow) -> Option<Self> {
        let role = Role::parse(&row.role)?;
        let principal = Arc::new(Principal::of_token(&row.name, role, row.workspaces.clone()));
        Some(Self { row, principal, used: AtomicI64::new(0) })
    }

    pub(super) fn use_at(&self, now: UnixNanos) {
        self.used.store(now.0, Relaxed);
    }

    /// When it was last presented since the start.
    pub(crate) fn used(&self) -> Option<UnixNanos> {
        Some(self.used.load(Relaxed)).filter(|used| *used != 0).map(UnixNanos)
    }
}

/// Tokens by their HMACs. A look-up tells an attacker by its time only about HMACs, which nobody without the root key can make.
#[derive(Debug, Default)]
pub(super) struct Known {
    usable: HashMap<[u8; 32], Arc<Token>>,
    /// The names of those whose rows cannot be believed or understood. Their holders are not told that their tokens are nobody's, on which programs
    /// give up; when the HMAC itself was altered, nothing tells such a token from one that never was.
    unusable: HashMap<[u8; 32], Option<String>>,
}

impl Known {
    pub(super) fn of(rows: Vec<TokenRow>, refused: Vec<RefusedToken>) -> Self {
        let mut known = Self::default();
        for RefusedToken { name, lookup, .. } in refused {
            known.add_unusable(lookup.unwrap_or_default(), name);
        }
        for row in rows {
            let (name, lookup) = (row.name.clone(), row.lookup.clone());
            if !known.add(row) {
                error!(
                    name,
                    "a token of the management API has a role that this version does not know: it opens nothing"
                );
                known.add_unusable(lookup, Some(name));
            }
        }
        known
    }

    fn add_unusable(&mut self, lookup: Vec<u8>, name: Option<String>) {
        if let Ok(lookup) = lookup.try_into() {
            self.unusable.insert(lookup, name);
        }
    }

    fn add(&mut self, row: TokenRow) -> bool {
        let lookup = row.lookup.as_slice().try_into().ok();
        match (lookup, Token::of(row)) {
            (Some(lookup), Some(token)) => {
                self.usable.insert(lookup, Arc::new(token));
                true
            }
            _ => false,
        }
    }

    fn find(&self, lookup: &[u8; 32]) -> Result<Arc<Token>, Refusal> {
        match self.usable.get(lookup) {
            Some(token) => Ok(Arc::clone(token)),
            None if self.unusable.contains_key(lookup) => Err(Refusal::Unusable),
            None => Err(Refusal::Unknown),
        }
    }

    fn remove(&mut self, name: &str) {
        self.usable.retain(|_, token| token.row.name != name);
        self.unusable.retain(|_, known| known.as_deref() != Some(name));
    }
}

/// What a new token is to be.
#[derive(Clone, Debug)]
pub(crate) struct WantedToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) workspaces: Vec<WorkspaceId>,
    /// From when on it opens nothing.
    pub(crate) expires: Option<UnixNanos>,
}

/// A token that was made, with its text, which nobody has anywhere else.
pub(crate) struct NewToken {
    pub(crate) row: TokenRow,
    pub(crate) value: Zeroizing<String>,
}

impl Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("name", &self.row.name).finish_non_exhaustive()
    }
}

/// Whether `name` can be a token's: lower-case letters, digits and hyphens, since paths of this API compare without case.
#[must_use]
pub fn is_token_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(known) && !name.starts_with('-') && !name.ends_with('-')
}

fn lookup(key: &MacKey, presented: &[u8]) -> [u8; 32] {
    *key.mac("management token v1", &[presented]).as_bytes()
}

impl Gate {
    /// The token that `presented` is.
    pub(super) fn token(&self, presented: &[u8]) -> Result<Arc<Token>, Refusal> {
        if presented.is_empty() || presented.len() > CREDENTIAL_BYTES {
            return Err(Refusal::Unknown);
        }
        let lookup = lookup(&self.parts.lookup_key, presented);
        self.known.read().unwrap_or_else(PoisonError::into_inner).find(&lookup)
    }

    /// All tokens, by name.
    pub(crate) fn tokens(&self) -> Vec<Arc<Token>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut tokens: Vec<_> = known.usable.values().cloned().collect();
        tokens.sort_by(|a, b| a.row.name.cmp(&b.row.name));
        tokens
    }

    /// Makes a token on behalf of `actor`. It goes on when its caller goes away.
    pub(crate) async fn create(self: &Arc<Self>, wanted: WantedToken, actor: &str) -> Result<NewToken, Problem> {
        let (gate, actor) = (Arc::clone(self), actor.to_owned());
        joined(tokio::spawn(async move { gate.make(wanted, &actor).await }).await)
    }

    /// Deletes the token `name` on behalf of `actor`, and says whether there was one. When this returns it opens nothing any more. It goes on when its
    /// caller goes away: otherwise a token might be gone from the catalog alone.
    pub(crate) async fn delete(self: &Arc<Self>, name: &str, actor: &str) -> Result<bool, Problem> {
        let (gate, name, actor) = (Arc::clone(self), name.to_owned(), actor.to_owned());
        joined(tokio::spawn(async move { gate.remove(&name, &actor).await }).await)
    }

    async fn make(&self, wanted: WantedToken, actor: &str) -> Result<NewToken, Problem> {
        let _changing = self.changing.lock().await;
        self.check(&wanted).await?;
        let mut value = Zeroizing::new(String::with_capacity(64));
        value.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(Key256::generate(OsRandom).expose(), &mut value);
        let WantedToken { name, role, workspaces, expires } = wanted;
        let row = TokenRow {
            name,
            lookup: lookup(&self.parts.lookup_key, value.as_bytes()).to_vec(),
            role: role.as_str().to_owned(),
            workspaces,
            created: self.parts.clock.now(),
            expires,
        };
        let record = self.change(WRITE, &row.name, actor, described(&row));
        let added = Change::All(vec![Change::AddToken(row.clone()), Change::Audit(record)]);
        self.parts.catalog.apply(added).await.map_err(|error| match error {
            // Also one whose row was altered, so that it is not known.
            CatalogError::Conflict { .. } => taken(&row.name),
            error => error.into(),
        })?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).add(row.clone());
        Ok(NewToken { row, value })
    }

    async fn check(&self, wanted: &WantedToken) -> Result<(), Problem> {
        let tokens = self.tokens();
        if tokens.iter().any(|token| token.row.name == wanted.name) {
            return Err(taken(&wanted.name));
        }
        if tokens.len() >= TOKENS {
            let message = format!("a deployment has at most {TOKENS} tokens: delete one first");
            return Err(Problem::conflict("TokenLimitReached", message));
        }
        let of = |message: &str| Err(Problem::invalid("workspaces", message));
        match (wanted.role, wanted.workspaces.len()) {
            (Role::Reader, 0) => return of("`workspaces` is missing: a reader's token names those that it may query"),
            (Role::Reader, 1..=WORKSPACES) | (_, 0) => {}
            (Role::Reader, _) => return of(&format!("`workspaces` has more than {WORKSPACES} workspaces")),
            _ => return of("`workspaces` is for readers: other roles query none"),
        }
        for id in &wanted.workspaces {
            let row = self.parts.catalog.resource_by_id(ResourceId::from(*id)).await?;
            if !row.is_some_and(|row| row.kind == ResourceKind::Workspace && row.deleted.is_none()) {
                return of(&format!("there is no workspace with the id `{id}`; `logseal workspace list` shows them"));
            }
        }
        Ok(())
    }

    async fn remove(&self, name: &str, actor: &str) -> Result<bool, Problem> {
        let _changing = self.changing.lock().await;
        let known = self.tokens().into_iter().find(|token| token.row.name == name);
        // One whose row was altered is not known, and goes all the same.
        let was = known.is_some() || self.is_refused(name).await?;
        if !was {
            return Ok(false);
        }
        let record = self.change(DELETE, name, actor, Value::Null);
        let removed = Change::All(vec![Change::RemoveToken { name: name.to_owned() }, Change::Audit(record)]);
        self.parts.catalog.apply(removed).await?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(true)
    }

    /// Whether the catalog has a row of this name that cannot be believed or not be understood.
    async fn is_refused(&self, name: &str) -> Result<bool, Problem> {
        let (rows, refused) = self.parts.catalog.tokens().await?;
        let named = |token: &RefusedToken| token.name.as_deref() == Some(name);
        Ok(refused.iter().any(named) || rows.iter().any(|row| row.name == name))
    }

    fn change(&self, action: &str, name: &str, actor: &str, mut after: Value) -> AuditEntry {
        if after.is_null() {
            after = json!({});
        }
        // The trail takes equal records that follow each other for one.
        after["request"] = self.parts.ids.next().to_string().into();
        AuditEntry {
            at: self.parts.clock.now(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            resource: format!("/v1/tokens/{name}"),
            operation: None,
            outcome: "Succeeded".to_owned(),
            before: "null".to_owned(),
            after: after.to_string(),
        }
    }
}

/// What a record says of a token.
fn described(row: &TokenRow) -> Value {
    let workspaces: Vec<_> = row.workspaces.iter().map(ToString::to_string).collect();
    json!({"role": row.role, "workspaces": workspaces, "expires": row.expires.map(date)})
}

fn taken(name: &str) -> Problem {
    Problem::conflict(
        "TokenExists",
        format!("there is a token `{name}` already, and tokens never change: delete it first"),
    )
}

fn joined<T>(ended: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    ended.unwrap_or_else(|panic| {
        error!(error = %Chain(&panic), "a change of tokens ended in a panic");
        Err(Problem::unavailable("the change was broken off: look at what tokens there are"))
    })
}
