//! Workspaces get new access keys.

use std::sync::Arc;

use logseal_catalog::{ResourceKind, ResourceRow};
use logseal_keys::Slot;
use serde_json::Value;

use super::{Caller, Place, existing, submission};
use crate::Problem;
use crate::json::Object;
use crate::key_check;
use crate::operation::document::{REGENERATE, RegenerateKeys};
use crate::operation::runner::Operations;
use crate::operation::{Intent, Operation, kinds};
use crate::resource::workspace::WorkspaceDocument;
use crate::resource::{ProvisioningState, choice};

/// POST of a workspace's `regenerateSharedKey`: both keys, or the one that the body names as Azure Cosmos DB's `regenerateKey` does.
pub(crate) async fn regenerate_keys(
    operations: &Arc<Operations>,
    place: Place<'_>,
    body: &Value,
    caller: &Caller,
) -> Result<(ResourceRow, Operation), Problem> {
    let row = existing(operations, ResourceKind::Workspace, place).await?;
    caller.admit(Some(&row))?;
    let mut root = Object::root(body)?;
    let kind = choice(&mut root, "keykind", &Slot::ALL.map(Slot::as_str))?;
    let skips_check = key_check::skips(&mut root)?;
    root.finish()?;
    let slots = kind.and_then(Slot::parse).map_or_else(|| Slot::ALL.to_vec(), |slot| vec![slot]);
    let mut document: WorkspaceDocument = kinds::document(&row)?;
    let world = operations.world();
    if document.settings.access.enable_key_check_before_regeneration
        && !skips_check
        && let Err(problem) = key_check::refuse_recent(world, &row, &slots)
    {
        key_check::record(world, &row, &caller.actor, REGENERATE, &problem).await;
        return Err(problem);
    }
    document.provisioning_state = ProvisioningState::Updating;
    let intent = Intent::RegenerateKeys(RegenerateKeys { slots, skips_check });
    let location = document.settings.location.clone();
    let operation = operations.start(submission(&row, &document, intent, &location, caller, world.clock.now())).await?;
    Ok((row, operation))
}
