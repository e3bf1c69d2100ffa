//! The keys by which shippers are let in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use logseal_catalog::ResourceKind;
use serde::Serialize;

use super::Management;
use super::arm::Head;
use crate::{Problem, request};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SharedKeys {
    primary_shared_key: String,
    secondary_shared_key: String,
}

/// Both keys of a workspace in clear.
pub(super) async fn shared_keys(State(api): State<Arc<Management>>, head: Head) -> Result<Json<SharedKeys>, Problem> {
    let workspace = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    let rows = api.catalog.workspace_keys_of(workspace.id.workspace()).await?;
    let reveal = |slot: &str| {
        let row = rows.iter().find(|row| row.slot == slot);
        let row = row.ok_or_else(|| Problem::not_found(format!("workspace `{}` has no {slot} key", workspace.name)))?;
        let key = api.access.reveal(row).map_err(|error| Problem::unavailable(error.to_string()))?;
        Ok::<_, Problem>(key.to_string())
    };
    Ok(Json(SharedKeys { primary_shared_key: reveal("primary")?, secondary_shared_key: reveal("secondary")? }))
}
