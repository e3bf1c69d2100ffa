//! Workspaces get new account keys.

use std::sync::Arc;

use logseal_catalog::{ResourceKind, ResourceRow};
use logseal_core::AekId;
use serde_json::Value;

use super::links::{owner_of, refuse_suspended};
use super::{Caller, Place, existing, submission};
use crate::Problem;
use crate::json::Object;
use crate::operation::document::RotateKey;
use crate::operation::runner::Operations;
use crate::operation::{Intent, Operation, kinds};
use crate::resource::ProvisioningState;
use crate::resource::workspace::WorkspaceDocument;

/// POST of a workspace's `rotateKey`. Its body says nothing: it is empty or an empty object.
pub(crate) async fn rotate_key(
    operations: &Arc<Operations>,
    place: Place<'_>,
    body: &Value,
    caller: &Caller,
) -> Result<Operation, Problem> {
    let row = existing(operations, ResourceKind::Workspace, place).await?;
    caller.admit(Some(&row))?;
    Object::root(body)?.finish()?;
    rotate_key_of(operations, &row, caller).await
}

/// Gives the workspace of `row`, which is not deleted, a new account key.
pub(crate) async fn rotate_key_of(
    operations: &Arc<Operations>,
    row: &ResourceRow,
    caller: &Caller,
) -> Result<Operation, Problem> {
    let mut document: WorkspaceDocument = kinds::document(row)?;
    // The names of columns are sealed anew: that takes the present key.
    refuse_suspended(operations, &[owner_of(operations, row).await?])?;
    document.provisioning_state = ProvisioningState::Updating;
    let intent = Intent::RotateKey(RotateKey { aek: AekId::from(operations.world().ids.next()) });
    let location = document.settings.location.clone();
    let now = operations.world().clock.now();
    operations.start(submission(row, &document, intent, &location, caller, now)).await
}
