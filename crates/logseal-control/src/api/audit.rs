//! The audit trail.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Management, arm};
use crate::Problem;

/// Which records are listed.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    before: Option<u64>,
    top: Option<u32>,
}

/// Records, newest first.
pub(super) async fn list(State(api): State<Arc<Management>>, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let value = api.audit.page(page.before, page.top.unwrap_or(arm::PAGE).clamp(1, 1_000)).await?;
    Ok(Json(json!({"value": value})))
}

/// Whether the trail is whole.
pub(super) async fn verify(State(api): State<Arc<Management>>) -> Result<Json<Value>, Problem> {
    Ok(Json(api.audit.verify().await?))
}
