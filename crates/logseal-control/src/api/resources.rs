//! Clusters, workspaces and their links.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use logseal_catalog::{ResourceFilter, ResourceKind, ResourceRow};
use logseal_core::{ResourceId, UnixNanos};
use serde_json::{Value, json};

use super::Management;
use super::arm::{self, Head};
use crate::Problem;
use crate::operation::kinds;
use crate::operation::runner::Operations;
use crate::request::{self, Written};
use crate::resource::Method;
use crate::resource::cluster::ClusterDocument;
use crate::resource::view::{self, LiveWorkspace};
use crate::resource::workspace::WorkspaceDocument;

type Api = State<Arc<Management>>;

pub(super) async fn put_cluster(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    write_cluster(&api, &head, &bytes, Method::Put).await
}

pub(super) async fn patch_cluster(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    write_cluster(&api, &head, &bytes, Method::Patch).await
}

async fn write_cluster(api: &Management, head: &Head, bytes: &Bytes, method: Method) -> Result<Response, Problem> {
    let body = arm::body(bytes)?;
    let operation = request::write_cluster(&api.operations, head.place(), &body, method, &head.caller).await?;
    // 200 also for a new one: Azure's SDKs refuse 201 here.
    let row = request::find(&api.operations, ResourceKind::Cluster, head.place()).await?;
    let shown = match row {
        Some(row) => arm::resource(StatusCode::OK, &row, cluster(&api.operations, &row).await?),
        // It failed already, and was undone.
        None => (StatusCode::OK, Json(json!({}))).into_response(),
    };
    Ok((head.follow(&operation), shown).into_response())
}

pub(super) async fn get_cluster(State(api): Api, head: Head) -> Result<Response, Problem> {
    let row = request::existing(&api.operations, ResourceKind::Cluster, head.place()).await?;
    Ok(arm::rendered(&row, api.operations.cluster_body(&row).await?))
}

pub(super) async fn delete_cluster(State(api): Api, head: Head) -> Result<Response, Problem> {
    let force = head.flag("forceDelete")?;
    let operation = request::delete_cluster(&api.operations, head.place(), force, &head.caller).await?;
    Ok(match operation {
        Some(operation) => (StatusCode::ACCEPTED, head.follow(&operation)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub(super) async fn list_clusters(State(api): Api, head: Head) -> Result<Json<Value>, Problem> {
    let (rows, last) = page(&api.operations, &head, ResourceKind::Cluster).await?;
    let mut value = Vec::with_capacity(rows.len());
    for row in &rows {
        value.push(cluster(&api.operations, row).await?);
    }
    Ok(Json(listing(&head, value, last)))
}

pub(super) async fn put_workspace(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    let body = arm::body(&bytes)?;
    let written = request::write_workspace(&api.operations, head.place(), &body, Method::Put, &head.caller).await?;
    workspace_written(&api.operations, &head, written).await
}

pub(super) async fn patch_workspace(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    let body = arm::body(&bytes)?;
    let written = request::write_workspace(&api.operations, head.place(), &body, Method::Patch, &head.caller).await?;
    workspace_written(&api.operations, &head, written).await
}

async fn workspace_written(operations: &Operations, head: &Head, written: Written) -> Result<Response, Problem> {
    let (operation, is_new, row) = match written {
        Written::Changed(row) => return Ok(arm::resource(StatusCode::OK, &row, workspace(operations, &row)?)),
        Written::Started { operation, is_new } => {
            let row = request::find(operations, ResourceKind::Workspace, head.place()).await?;
            (operation, is_new, row)
        }
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let shown = match row {
        Some(row) => arm::resource(status, &row, workspace(operations, &row)?),
        None => (status, Json(json!({}))).into_response(),
    };
    Ok((head.follow(&operation), shown).into_response())
}

/// Readers find the ids of their workspaces by it.
pub(super) async fn get_workspace(State(api): Api, head: Head) -> Result<Response, Problem> {
    let found = request::find(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let found = found.filter(|row| row.deleted.is_none());
    head.principal.admit_to(found.map(|row| row.id.workspace()))?;
    let row = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    Ok(arm::resource(StatusCode::OK, &row, workspace(&api.operations, &row)?))
}

pub(super) async fn delete_workspace(State(api): Api, head: Head) -> Result<Response, Problem> {
    let force = head.flag("force")?;
    let operation = request::delete_workspace(&api.operations, head.place(), force, &head.caller).await?;
    Ok(match operation {
        Some(operation) => (StatusCode::ACCEPTED, head.follow(&operation)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub(super) async fn rotate_key(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    let body = arm::body(&bytes)?;
    let operation = request::rotate_key(&api.operations, head.place(), &body, &head.caller).await?;
    Ok((StatusCode::ACCEPTED, head.follow(&operation)).into_response())
}

pub(super) async fn list_workspaces(State(api): Api, head: Head) -> Result<Json<Value>, Problem> {
    let (rows, last) = page(&api.operations, &head, ResourceKind::Workspace).await?;
    let value = rows.iter().map(|row| workspace(&api.operations, row)).collect::<Result<_, _>>()?;
    Ok(Json(listing(&head, value, last)))
}

pub(super) async fn put_link(State(api): Api, head: Head, bytes: Bytes) -> Result<Response, Problem> {
    cluster_link(&head)?;
    let body = arm::body(&bytes)?;
    let operation = request::link(&api.operations, head.place(), &body, &head.caller).await?;
    let row = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let shown = view::link(&row, &kinds::document(&row)?).unwrap_or_else(|| json!({}));
    Ok(match operation {
        Some(operation) => (StatusCode::OK, head.follow(&operation), Json(shown)).into_response(),
        None => Json(shown).into_response(),
    })
}

pub(super) async fn get_link(State(api): Api, head: Head) -> Result<Json<Value>, Problem> {
    cluster_link(&head)?;
    let row = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let linked = view::link(&row, &kinds::document(&row)?);
    linked.map(Json).ok_or_else(|| Problem::not_found(format!("workspace `{}` is linked to no cluster", row.name)))
}

pub(super) async fn list_links(State(api): Api, head: Head) -> Result<Json<Value>, Problem> {
    let row = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let links: Vec<Value> = view::link(&row, &kinds::document(&row)?).into_iter().collect();
    Ok(Json(json!({"value": links})))
}

pub(super) async fn delete_link(State(api): Api, head: Head) -> Result<Response, Problem> {
    cluster_link(&head)?;
    let row = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let document: WorkspaceDocument = kinds::document(&row)?;
    if document.link.is_none() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let operation = request::unlink(&api.operations, row, document, &head.caller.actor).await?;
    Ok((StatusCode::ACCEPTED, head.follow(&operation)).into_response())
}

/// The only linked service is `cluster`.
fn cluster_link(head: &Head) -> Result<(), Problem> {
    let name = head.parameter("service");
    if name.eq_ignore_ascii_case("cluster") {
        return Ok(());
    }
    Err(Problem::not_found(format!("there is no linked service `{name}`: only `cluster`")))
}

/// One page of resources, and the last one when there are more.
async fn page(
    operations: &Operations,
    head: &Head,
    kind: ResourceKind,
) -> Result<(Vec<ResourceRow>, Option<ResourceRow>), Problem> {
    let (subscription, group) = (head.parameter("subscription"), head.parameter("group"));
    let group = Some(group).filter(|group| !group.is_empty());
    let filter = ResourceFilter { kind, subscription: Some(subscription), group, deleted: false };
    let after = match head.skip_token()?.as_deref() {
        None => None,
        Some([subscription, group, name]) => Some(ResourceRow {
            id: ResourceId::from(logseal_core::ClusterId::from_bytes([0; 16])),
            kind,
            subscription: subscription.clone(),
            group: group.clone(),
            name: name.clone(),
            document: String::new(),
            version: 0,
            created: UnixNanos(0),
            changed: UnixNanos(0),
            deleted: None,
        }),
        Some(_) => {
            let message = "`$skiptoken` is not one that this listing gave";
            return Err(Problem::bad("InvalidQueryParameter", "$skiptoken", message));
        }
    };
    let top = head.top()?;
    let mut rows = operations.world().catalog.resources(filter, after.as_ref(), top + 1).await?;
    let more = rows.len() > top as usize;
    rows.truncate(top as usize);
    let last = rows.last().filter(|_| more).cloned();
    Ok((rows, last))
}

fn listing(head: &Head, value: Vec<Value>, last: Option<ResourceRow>) -> Value {
    match &last {
        Some(ResourceRow { subscription, group, name, .. }) => {
            head.page(value, Some(&[subscription.as_str(), group.as_str(), name.as_str()]))
        }
        None => head.page(value, None),
    }
}

/// A cluster as it is shown.
pub(super) async fn cluster(operations: &Operations, row: &ResourceRow) -> Result<Value, Problem> {
    let document: ClusterDocument = kinds::document(row)?;
    let live = operations.live_key(row.id.cluster(), &document);
    Ok(view::cluster(row, &document, &*operations.cluster_facts(row).await?, &live))
}

/// A workspace as it is shown.
pub(super) fn workspace(operations: &Operations, row: &ResourceRow) -> Result<Value, Problem> {
    let world = operations.world();
    let id = row.id.workspace();
    let live = LiveWorkspace { quota: world.data.quota_status(id), keys: world.access.metadata(id) };
    Ok(view::workspace(row, &kinds::document(row)?, &live, world.clock.now()))
}

/// Names of all workspaces by id, for listings that name them.
pub(super) async fn names(operations: &Operations) -> Result<HashMap<ResourceId, String>, Problem> {
    let filter = ResourceFilter { kind: ResourceKind::Workspace, subscription: None, group: None, deleted: false };
    let rows = operations.world().catalog.resources(filter, None, u32::MAX).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}
