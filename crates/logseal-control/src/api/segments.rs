//! Segments, for whoever looks after the store.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use logseal_catalog::SegmentRow;
use logseal_core::{ResourceId, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Management, resources};
use crate::{Problem, upkeep};

/// A listing, in the shape of Azure Resource Manager.
#[derive(Serialize)]
pub(super) struct Listing<T> {
    value: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Segment {
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
pub(super) struct SegmentFilter {
    workspace: Option<String>,
    /// Only those that retention removes next.
    #[serde(default)]
    expired: bool,
}

/// The segments of the workspaces of one name, or of all.
pub(super) async fn segments(
    State(api): State<Arc<Management>>,
    Query(filter): Query<SegmentFilter>,
) -> Result<Json<Listing<Segment>>, Problem> {
    let mut workspaces: Vec<(WorkspaceId, String)> =
        resources::names(&api.operations).await?.into_iter().map(|(id, name)| (id.workspace(), name)).collect();
    workspaces.sort();
    if let Some(wanted) = &filter.workspace {
        workspaces.retain(|(id, name)| name.eq_ignore_ascii_case(wanted) || id.to_string() == *wanted);
        if workspaces.is_empty() {
            return Err(Problem::not_found(format!("there is no workspace `{wanted}`")));
        }
    }
    let mut value = Vec::new();
    for (workspace, name) in workspaces {
        let snapshot = api.catalog.snapshot(workspace).await?;
        let segments = if filter.expired { expired(&api, workspace).await? } else { snapshot.segments };
        let table = |row: &SegmentRow| snapshot.tables.iter().find(|table| table.id == row.table);
        value.extend(segments.iter().map(|row| Segment {
            id: row.id.to_string(),
            workspace: name.clone(),
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

/// What the next run of retention removes of `workspace`: the dry run.
async fn expired(api: &Management, workspace: WorkspaceId) -> Result<Vec<SegmentRow>, Problem> {
    match api.catalog.resource_by_id(ResourceId::from(workspace)).await? {
        Some(row) => Ok(upkeep::expired(&api.operations, &row, u32::MAX).await?),
        None => Ok(Vec::new()),
    }
}
