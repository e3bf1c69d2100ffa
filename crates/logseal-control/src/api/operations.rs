//! The status of asynchronous operations.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use logseal_catalog::{OperationFilter, OperationState, ResourceKind};
use logseal_core::OperationId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Management;
use super::arm::{self, Head};
use super::resources;
use crate::Problem;
use crate::operation::{Intent, Operation, kinds};
use crate::resource::{plain_location, view};

type Api = State<Arc<Management>>;

/// The longest wait of one request.
const PATIENCE: Duration = Duration::from_secs(30);

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!(
        "there is no operation `{id}`: it never was, or ended longer ago than operations are kept"
    ))
}

async fn find(api: &Management, id: &str) -> Result<Operation, Problem> {
    let parsed: OperationId = id.parse().map_err(|_| unknown(id))?;
    api.operations.find(parsed).await?.ok_or_else(|| unknown(id))
}

/// The status document: always 200 while the operation is known, however it ended.
pub(super) async fn status(State(api): Api, head: Head) -> Result<Response, Problem> {
    let operation = find(&api, head.parameter("id")).await?;
    let (subscription, location) = (head.parameter("subscription"), head.parameter("location"));
    if !operation.row.subscription.eq_ignore_ascii_case(subscription) || !same_location(&operation, location) {
        return Err(unknown(head.parameter("id")));
    }
    let view = operation.view(api.operations.within(operation.row.id));
    if operation.row.state == OperationState::Running {
        return Ok(([(http::header::RETRY_AFTER, "1")], Json(view)).into_response());
    }
    Ok(Json(view).into_response())
}

fn same_location(operation: &Operation, location: &str) -> bool {
    operation.row.location == plain_location(location)
}

/// What the request that began it would have answered: 202 while it runs.
pub(super) async fn result(State(api): Api, head: Head) -> Result<Response, Problem> {
    let operation = find(&api, head.parameter("id")).await?;
    if operation.row.state == OperationState::Running {
        return Ok((StatusCode::ACCEPTED, head.follow(&operation)).into_response());
    }
    let shown = if operation.document.intent.deletes() {
        None
    } else {
        match api.operations.world().catalog.resource_by_id(operation.row.resource).await? {
            Some(row) if row.deleted.is_none() => Some(match row.kind {
                ResourceKind::Cluster => resources::cluster(&api.operations, &row).await?,
                ResourceKind::Workspace if matches!(operation.document.intent, Intent::MoveWorkspace(_)) => {
                    view::link(&row, &kinds::document(&row)?).unwrap_or_default()
                }
                ResourceKind::Workspace => resources::workspace(&api.operations, &row)?,
            }),
            _ => None,
        }
    };
    Ok(arm::outcome(&operation, shown))
}

/// Which operations are listed.
#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    status: Option<String>,
    before: Option<String>,
    top: Option<u32>,
}

/// Operations, newest first.
pub(super) async fn list(State(api): Api, Query(filter): Query<Filter>) -> Result<Json<Value>, Problem> {
    let state = match filter.status.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("running" | "inprogress") => Some(OperationState::Running),
        Some("succeeded") => Some(OperationState::Succeeded),
        Some("failed") => Some(OperationState::Failed),
        Some("canceled") => Some(OperationState::Canceled),
        Some(other) => {
            let message = format!("`status` is `{other}`; it can be: running, succeeded, failed, canceled");
            return Err(Problem::bad("InvalidQueryParameter", "status", message));
        }
    };
    let before = filter.before.map(|id| id.parse().map_err(|_| unknown(&id))).transpose()?;
    let top = filter.top.unwrap_or(arm::PAGE).clamp(1, 1_000);
    let filter = OperationFilter { subscription: None, resource: None, state };
    let operations = api.operations.list(filter, before, top).await?;
    let more = operations.len() == top as usize;
    let value: Vec<_> = operations.iter().map(|o| o.listed(api.operations.within(o.row.id))).collect();
    let mut page = json!({"value": value});
    if let Some(last) = operations.last().filter(|_| more) {
        page["nextBefore"] = last.row.id.to_string().into();
    }
    Ok(Json(page))
}

/// How long to wait.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    /// Seconds; 0 to answer at once.
    wait: Option<u64>,
}

/// One operation; with `wait`, when it has ended or the time is over.
pub(super) async fn show(
    State(api): Api,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<Value>, Problem> {
    let parsed: OperationId = id.parse().map_err(|_| unknown(&id))?;
    let patience = Duration::from_secs(wait.wait.unwrap_or(0)).min(PATIENCE);
    let operation = api.operations.wait(parsed, patience).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(operation.listed(api.operations.within(parsed))))
}

/// Cancels an operation that has done nothing yet that cannot be undone.
pub(super) async fn cancel(State(api): Api, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let parsed: OperationId = id.parse().map_err(|_| unknown(&id))?;
    let operation = api.operations.cancel(parsed, PATIENCE).await?;
    Ok(Json(operation.listed(api.operations.within(parsed))))
}
