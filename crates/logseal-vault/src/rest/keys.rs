//! Handlers of keys and deleted keys.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension as Also, Json};
use http::StatusCode;
use logseal_crypto::OsRandom;
use serde_json::{Value, json};
use tracing::error;

use super::asked::Asked;
use super::input::{self, CreateBody, Extension, GrantBody, ImportBody, PolicyBody, RandomBody, UpdateBody};
use super::problem::Problem;
use super::throttle::Work;
use super::{Detail, Shared, view};
use crate::embedded::Key;
use crate::embedded::key::{KeyOperation, VersionChange};
use crate::embedded::state::NewKey;

/// What handlers answer.
type Answer = Result<Json<Value>, Problem>;

/// What handlers of changes answer: the key, and what of it their report tells.
type Changed = Result<Response, Problem>;

type Caller = State<Arc<Shared>>;

/// Most random bytes that are given at once.
const RANDOM: usize = 128;

pub(super) async fn create(State(shared): Caller, asked: Asked, body: Bytes) -> Changed {
    let mut body: CreateBody = input::read(&body)?;
    let (name, bits) = (asked.name()?, body.bits()?);
    let change = body.change()?;
    shared.take(bits, Work::Create)?;
    let vault = &shared.face.vault;
    let existing = vault.state.key(&name).ok().filter(|key| key.deletion.is_none());
    let new = shared.new_key(change, &body.logseal, existing.as_deref()).await?;
    let key = match existing {
        Some(_) => vault.add_version(&name, bits, new).await?,
        None => vault.create(&name, bits, new).await?,
    };
    Ok(changed(view::bundle(&asked, &key, key.newest()), made(&key)))
}

pub(super) async fn import(State(shared): Caller, asked: Asked, body: Bytes) -> Changed {
    let mut body: ImportBody = input::read(&body)?;
    let (name, components) = (asked.name()?, body.components()?);
    let change = body.change()?;
    // A key of any size costs little to take in; what it brings along says its size only when it is looked at.
    shared.take(2048, Work::Create)?;
    let vault = &shared.face.vault;
    let existing = vault.state.key(&name).ok().filter(|key| key.deletion.is_none());
    let new = shared.new_key(change, &body.logseal, existing.as_deref()).await?;
    let key = vault.import(&name, components, new).await?;
    Ok(changed(view::bundle(&asked, &key, key.newest()), made(&key)))
}

pub(super) async fn rotate(State(shared): Caller, asked: Asked) -> Changed {
    let key = asked.key(&shared)?;
    let bits = key.version(None)?.rsa.bits();
    shared.take(bits, Work::Create)?;
    let key = shared.face.vault.rotate(&key.name).await?;
    Ok(changed(view::bundle(&asked, &key, key.newest()), made(&key)))
}

pub(super) async fn get(State(shared): Caller, asked: Asked) -> Answer {
    let key = asked.key(&shared)?;
    Ok(Json(view::bundle(&asked, &key, key.version(asked.version()?.as_ref())?)))
}

pub(super) async fn update(State(shared): Caller, asked: Asked, body: Bytes) -> Changed {
    let change = input::read::<UpdateBody>(&body)?.change()?;
    let key = asked.key(&shared)?;
    let version = key.version(asked.version()?.as_ref())?.version.clone();
    let key = shared.face.vault.update(&key.name, version.clone(), change).await?;
    let shown = view::bundle(&asked, &key, key.version(Some(&version))?);
    let detail = json!({"version": version.as_str(), "attributes": shown["attributes"]});
    Ok(changed(shown, detail))
}

pub(super) async fn list(State(shared): Caller, asked: Asked) -> Answer {
    let keys = listed(&shared)?;
    let alive = keys.iter().filter(|key| key.deletion.is_none());
    Ok(Json(asked.page(alive.map(|key| (token(key), view::item(&asked, key))).collect())?))
}

pub(super) async fn versions(State(shared): Caller, asked: Asked) -> Answer {
    let key = asked.key(&shared)?;
    key.alive()?;
    // Newest first: that is the one that people look for.
    let versions = key.versions.iter().rev();
    let items = versions.map(|version| (version.version.to_string(), view::version_item(&asked, &key, version)));
    Ok(Json(asked.page(items.collect())?))
}

pub(super) async fn delete(State(shared): Caller, asked: Asked) -> Changed {
    let key = asked.key(&shared)?;
    let key = shared.face.vault.delete(&key.name).await?;
    let shown = view::deleted_bundle(&asked, &key, key.deleted()?);
    let detail = json!({"scheduledPurgeDate": shown["scheduledPurgeDate"]});
    Ok(changed(shown, detail))
}

pub(super) async fn list_deleted(State(shared): Caller, asked: Asked) -> Answer {
    let keys = listed(&shared)?;
    let deleted = keys.iter().filter_map(|key| Some((key, key.deletion?)));
    let items = deleted.map(|(key, deletion)| (token(key), view::deleted_item(&asked, key, deletion)));
    Ok(Json(asked.page(items.collect())?))
}

pub(super) async fn get_deleted(State(shared): Caller, asked: Asked) -> Answer {
    let key = asked.key(&shared)?;
    Ok(Json(view::deleted_bundle(&asked, &key, key.deleted()?)))
}

pub(super) async fn purge(State(shared): Caller, asked: Asked) -> Result<StatusCode, Problem> {
    let key = asked.key(&shared)?;
    shared.face.vault.purge(&key.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn recover(State(shared): Caller, asked: Asked) -> Changed {
    let key = asked.key(&shared)?;
    let key = shared.face.vault.recover(&key.name).await?;
    Ok(changed(view::bundle(&asked, &key, key.newest()), Value::Null))
}

pub(super) async fn policy(State(shared): Caller, asked: Asked) -> Answer {
    let key = asked.key(&shared)?;
    key.alive()?;
    Ok(Json(view::policy(&asked, &key)))
}

pub(super) async fn set_policy(State(shared): Caller, asked: Asked, body: Bytes) -> Changed {
    let policy = input::read::<PolicyBody>(&body)?.policy()?;
    let key = asked.key(&shared)?;
    let key = shared.face.vault.set_policy(&key.name, policy).await?;
    let shown = view::policy(&asked, &key);
    let detail = json!({"lifetimeActions": shown["lifetimeActions"], "attributes": shown["attributes"]});
    Ok(changed(shown, detail))
}

pub(super) async fn grants(State(shared): Caller, asked: Asked) -> Answer {
    let key = asked.key(&shared)?;
    key.alive()?;
    Ok(Json(view::grants(&key)))
}

pub(super) async fn grant(State(shared): Caller, asked: Asked, body: Bytes) -> Changed {
    let permissions = input::read::<GrantBody>(&body)?.permissions()?;
    let (key, principal) = (asked.key(&shared)?, asked.principal()?);
    let names: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
    let detail = json!({"principal": principal.as_str(), "permissions": names});
    let key = shared.face.vault.grant(&key.name, principal, permissions).await?;
    Ok(changed(view::grants(&key), detail))
}

pub(super) async fn revoke(State(shared): Caller, asked: Asked) -> Changed {
    let (key, principal) = (asked.key(&shared)?, asked.principal()?);
    let detail = json!({"principal": principal.as_str()});
    let key = shared.face.vault.grant(&key.name, principal, [].into()).await?;
    Ok(changed(view::grants(&key), detail))
}

pub(super) async fn random(State(shared): Caller, _: Asked, body: Bytes) -> Answer {
    let RandomBody { count } = input::read(&body)?;
    shared.take(2048, Work::Other)?;
    let bytes: [u8; RANDOM] = OsRandom.array();
    if !(1..=RANDOM).contains(&count) {
        return Err(Problem::bad(format!("`count` is {count}; it can be 1 to {RANDOM}")));
    }
    Ok(Json(json!({"value": data_encoding::BASE64URL_NOPAD.encode(&bytes[..count])})))
}

pub(super) async fn not_offered() -> Problem {
    Problem::not_offered("moving whole keys out of a vault and into one (backup, restore, release)")
}

fn unknown_clusters(error: String) -> Problem {
    error!(error, "a key is not made, since it is not known whom to grant it to");
    let message = "it is not known now whom to grant the key to: the server's log has the reason";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

fn changed(shown: Value, detail: Value) -> Response {
    (Also(Detail(detail)), Json(shown)).into_response()
}

fn made(key: &Key) -> Value {
    let newest = key.newest();
    json!({"version": newest.version.as_str(), "bits": newest.rsa.bits(), "recoverable": !key.purgeable})
}

/// All keys but the deployment's own.
fn listed(shared: &Shared) -> Result<Vec<Arc<Key>>, Problem> {
    shared.take(2048, Work::Other)?;
    let state = &shared.face.vault.state;
    Ok(state.keys().into_iter().filter(|key| !state.is_reserved(&key.name)).collect())
}

/// Where a listing goes on after `key`.
fn token(key: &Key) -> String {
    key.name.as_str().to_ascii_lowercase()
}

impl Shared {
    /// What a key is made with. A further version of `existing` leaves alone what the key says as a whole.
    async fn new_key(
        &self,
        change: VersionChange,
        extension: &Extension,
        existing: Option<&Key>,
    ) -> Result<NewKey, Problem> {
        let attributes = input::attributes(&change);
        let VersionChange { operations, tags, .. } = change;
        let Extension { grants, purgeable } = *extension;
        if let Some(key) = existing
            && (grants.is_some_and(|grants| grants != key.welcoming)
                || purgeable.is_some_and(|purgeable| purgeable != key.purgeable))
        {
            return Err(Problem::bad("the key exists already: what `logseal` says is decided when a key is made"));
        }
        let welcoming = grants.unwrap_or(true);
        let granted = match existing {
            None if welcoming => self.face.clusters.principals().await.map_err(unknown_clusters)?,
            _ => Vec::new(),
        };
        Ok(NewKey {
            attributes,
            operations: operations.unwrap_or(KeyOperation::ALL.into()),
            tags: tags.unwrap_or_default(),
            grants: granted,
            welcoming,
            purgeable: purgeable.unwrap_or(false),
        })
    }
}
