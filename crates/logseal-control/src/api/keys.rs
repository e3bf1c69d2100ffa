//! The keys by which shippers are let in.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use logseal_catalog::{OperationState, ResourceKind, ResourceRow};
use logseal_keys::Slot;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Management;
use super::arm::{self, ASYNC_OPERATION, Head};
use super::key_release::secret;
use crate::{Problem, request};

/// How long a request waits for keys to be regenerated, which takes some commits of the catalog.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedKeys {
    primary_shared_key: Zeroizing<String>,
    secondary_shared_key: Zeroizing<String>,
}

/// Both keys of a workspace in clear.
pub(super) async fn shared_keys(State(api): State<Arc<Management>>, head: Head) -> Result<Response, Problem> {
    let workspace = request::existing(&api.operations, ResourceKind::Workspace, head.place()).await?;
    Ok(secret(&revealed(&api, &workspace).await?))
}

/// Other keys in the place of both, or of one; answered when that is durable and the old ones are refused.
pub(super) async fn regenerate(
    State(api): State<Arc<Management>>,
    head: Head,
    bytes: Bytes,
) -> Result<Response, Problem> {
    regenerate_within(&api, &head, &bytes, PATIENCE).await
}

/// As [`regenerate`]. What has not ended after `patience`, since the disk is full or hangs, is answered with the place where it can be followed.
pub(super) async fn regenerate_within(
    api: &Management,
    head: &Head,
    bytes: &Bytes,
    patience: Duration,
) -> Result<Response, Problem> {
    let body = arm::body(bytes)?;
    let (workspace, begun) = request::regenerate_keys(&api.operations, head.place(), &body, &head.caller).await?;
    let ended = api.operations.wait(begun.row.id, patience).await?.unwrap_or(begun);
    match ended.row.state {
        OperationState::Succeeded => {
            let mut answer = secret(&revealed(api, &workspace).await?);
            // There is nothing left to wait for: neither a place of a result nor a time to come back.
            let follow = head.follow(&ended).remove(ASYNC_OPERATION);
            answer.headers_mut().extend(follow.map(|url| (ASYNC_OPERATION, url)));
            Ok(answer)
        }
        OperationState::Running => Ok((StatusCode::ACCEPTED, head.follow(&ended)).into_response()),
        OperationState::Failed | OperationState::Canceled => Ok(arm::outcome(&ended, None)),
    }
}

async fn revealed(api: &Management, workspace: &ResourceRow) -> Result<SharedKeys, Problem> {
    let rows = api.catalog.workspace_keys_of(workspace.id.workspace()).await?;
    let reveal = |slot: Slot| {
        let slot = slot.as_str();
        let row = rows.iter().find(|row| row.slot == slot);
        let row = row.ok_or_else(|| Problem::not_found(format!("workspace `{}` has no {slot} key", workspace.name)))?;
        api.access.reveal(row).map_err(|error| Problem::unavailable(error.to_string()))
    };
    Ok(SharedKeys { primary_shared_key: reveal(Slot::Primary)?, secondary_shared_key: reveal(Slot::Secondary)? })
}
