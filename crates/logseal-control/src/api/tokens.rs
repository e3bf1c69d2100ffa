//! `/v1/tokens`: tokens of this API. They are made and deleted, and never change.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use logseal_core::{ResourceId, UnixNanos, WorkspaceId};
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::key_release::secret;
use super::{Management, resources};
use crate::Problem;
use crate::gate::Role;
use crate::gate::is_token_name;
use crate::gate::tokens::{Token, WantedToken};
use crate::json::{self, Object};
use crate::resource::view::date;

/// The longest life of a token that has an end: ten years of 365 days.
pub(super) const LONGEST_LIFE: i64 = 10 * 365 * 86_400;

type Api = State<Arc<Management>>;

/// A token with its text, which is shown this once.
#[derive(Serialize)]
struct NewToken<'a> {
    name: &'a str,
    role: &'a str,
    created: String,
    expires: Option<String>,
    value: &'a str,
}

/// Makes a token.
pub(super) async fn create(State(api): Api, Caller(caller): Caller, body: Bytes) -> Result<Response, Problem> {
    let now = api.operations.world().clock.now();
    let made = api.gate.create(wanted(&body, now)?, &caller.actor).await?;
    let answer = secret(&NewToken {
        name: &made.row.name,
        role: &made.row.role,
        created: date(made.row.created),
        expires: made.row.expires.map(date),
        value: &made.value,
    });
    Ok((StatusCode::CREATED, answer).into_response())
}

fn wanted(body: &[u8], now: UnixNanos) -> Result<WantedToken, Problem> {
    let body = json::parse(body)?;
    let mut root = Object::root(&body)?;
    let (name, role) = (root.string("name")?, root.string("role")?);
    let (workspaces, seconds) = (root.take("workspaces"), root.integer("expiresinseconds")?);
    root.finish()?;
    let name = name.filter(|name| is_token_name(name)).ok_or_else(|| {
        let message =
            "`name` has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen";
        Problem::invalid("name", message)
    })?;
    let role = role.and_then(Role::parse).ok_or_else(|| {
        let names = Role::ALL.map(Role::as_str).join(", ");
        Problem::invalid("role", format!("`role` is one of: {names}"))
    })?;
    let seconds = match seconds {
        Some(seconds) if !(1..=LONGEST_LIFE).contains(&seconds) => {
            let message = format!("`expiresInSeconds` is {seconds}; it can be 1 to {LONGEST_LIFE}");
            return Err(Problem::invalid("expiresInSeconds", message));
        }
        seconds => seconds,
    };
    Ok(WantedToken {
        name: name.to_owned(),
        role,
        workspaces: ids(workspaces)?,
        expires: seconds.map(|seconds| UnixNanos(now.0.saturating_add(seconds.saturating_mul(1_000_000_000)))),
    })
}

/// The ids in a list, each once.
fn ids(value: Option<&Value>) -> Result<Vec<WorkspaceId>, Problem> {
    let wrong = || Problem::invalid("workspaces", "`workspaces` is a list of ids: `customerId` of each workspace");
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut ids = Vec::new();
    for item in value.as_array().ok_or_else(wrong)? {
        ids.push(item.as_str().and_then(|text| text.parse::<WorkspaceId>().ok()).ok_or_else(wrong)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// All tokens, without what opens anything.
pub(super) async fn list(State(api): Api) -> Result<Json<Value>, Problem> {
    let names = resources::names(&api.operations).await?;
    let value: Vec<_> = api.gate.tokens().iter().map(|token| view(token, &names)).collect();
    Ok(Json(json!({"value": value})))
}

/// One token, likewise.
pub(super) async fn show(State(api): Api, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let token = api.gate.tokens().into_iter().find(|token| token.row.name == name);
    let token = token.ok_or_else(|| {
        Problem::not_found(format!("there is no token `{name}`; `logseal token list` shows those that are there"))
    })?;
    Ok(Json(view(&token, &resources::names(&api.operations).await?)))
}

/// Deletes a token, which opens nothing any more when this is answered.
pub(super) async fn delete(
    State(api): Api,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let was = api.gate.delete(&name, &caller.actor).await?;
    Ok(if was { StatusCode::OK } else { StatusCode::NO_CONTENT }.into_response())
}

fn view(token: &Token, names: &HashMap<ResourceId, String>) -> Value {
    let row = &token.row;
    let workspace = |id: &WorkspaceId| json!({"id": id.to_string(), "name": names.get(&ResourceId::from(*id))});
    json!({
        "name": row.name,
        "role": row.role,
        "workspaces": row.workspaces.iter().map(workspace).collect::<Vec<_>>(),
        "created": date(row.created),
        "expires": row.expires.map(date),
        "lastUsed": token.used().map(date),
    })
}
