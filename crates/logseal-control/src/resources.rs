//! Workspaces, their keys, and their segments.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use logseal_catalog::{SegmentRow, WorkspaceRow};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::Problem;
use crate::api::Management;

/// A listing, in the shape of Azure Resource Manager.
#[derive(Serialize)]
pub(crate) struct Listing<T> {
    value: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workspace {
    name: String,
    customer_id: String,
    cluster_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SharedKeys {
    primary_shared_key: String,
    secondary_shared_key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Segment {
    id: String,
    workspace: String,
    table: String,
    path: String,
    bytes: u64,
    rows: u64,
    min_time: i64,
    max_time: i64,
    created: i64,
    aek_id: String,
}

#[derive(Deserialize)]
pub(crate) struct SegmentFilter {
    workspace: Option<String>,
}

/// All workspaces.
pub(crate) async fn workspaces(State(api): State<Arc<Management>>) -> Result<Json<Listing<Workspace>>, Problem> {
    let rows = all_workspaces(&api).await?;
    let value = rows.into_iter().map(|row| Workspace {
        name: row.name,
        customer_id: row.id.to_string(),
        cluster_id: row.cluster.to_string(),
    });
    Ok(Json(Listing { value: value.collect() }))
}

/// The segments of one workspace, or of all.
pub(crate) async fn segments(
    State(api): State<Arc<Management>>,
    Query(filter): Query<SegmentFilter>,
) -> Result<Json<Listing<Segment>>, Problem> {
    let mut workspaces = all_workspaces(&api).await?;
    if let Some(name) = &filter.workspace {
        workspaces = vec![find(workspaces, name)?];
    }
    let mut value = Vec::new();
    for workspace in workspaces {
        let snapshot = api.catalog.snapshot(workspace.id).await.map_err(|error| catalog_trouble(&error))?;
        let table = |row: &SegmentRow| snapshot.tables.iter().find(|table| table.id == row.table);
        value.extend(snapshot.segments.iter().map(|row| Segment {
            id: row.id.to_string(),
            workspace: workspace.name.clone(),
            table: table(row).map(|table| table.name.to_string()).unwrap_or_default(),
            path: row.path.clone(),
            bytes: row.bytes,
            rows: row.rows,
            min_time: row.min_time.0,
            max_time: row.max_time.0,
            created: row.created.0,
            aek_id: row.aek.to_string(),
        }));
    }
    Ok(Json(Listing { value }))
}

/// Both keys of a workspace in clear.
pub(crate) async fn shared_keys(
    State(api): State<Arc<Management>>,
    Path((_subscription, _group, name)): Path<(String, String, String)>,
) -> Result<Json<SharedKeys>, Problem> {
    let workspace = find(all_workspaces(&api).await?, &name)?;
    let rows = api.catalog.workspace_keys().await.map_err(|error| catalog_trouble(&error))?;
    let reveal = |slot: &str| {
        let row = rows.iter().find(|row| row.workspace == workspace.id && row.slot == slot);
        let row = row.ok_or_else(|| Problem::not_found(format!("workspace `{name}` has no {slot} key")))?;
        let key = api.access.reveal(row).map_err(|error| Problem::unavailable(error.to_string()))?;
        Ok(key.to_string())
    };
    Ok(Json(SharedKeys { primary_shared_key: reveal("primary")?, secondary_shared_key: reveal("secondary")? }))
}

async fn all_workspaces(api: &Management) -> Result<Vec<WorkspaceRow>, Problem> {
    api.catalog.workspaces().await.map_err(|error| catalog_trouble(&error))
}

/// Names of resources compare without case.
fn find(workspaces: Vec<WorkspaceRow>, name: &str) -> Result<WorkspaceRow, Problem> {
    let found = workspaces.into_iter().find(|row| row.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| Problem::not_found(format!("there is no workspace `{name}`")))
}

fn catalog_trouble(cause: &logseal_catalog::CatalogError) -> Problem {
    error!(error = %cause, "the catalog cannot be read");
    Problem::unavailable(cause.to_string())
}
