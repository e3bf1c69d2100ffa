//! A workspace gets other access keys.
//!
//! It takes no key of a vault, so it also goes on while the cluster is revoked. The new keys are made in the step whose transaction has them,
//! so a step that is taken up again makes others, and nothing but the catalog's sealed copy ever holds one. Once that transaction is
//! there the old keys are gone: what follows only has the running server look.

use logseal_catalog::Change;
use logseal_core::WorkspaceId;
use logseal_keys::Slot;
use serde_json::{Map, Value, json};
use tracing::error;

use super::super::document::RegenerateKeys;
use super::super::runner::Context;
use super::super::world::World;
use super::super::{Effects, Intent, Operation, StepError};
use super::{FINISH, put, resource};
use crate::resource::ProvisioningState;
use crate::resource::view::key_metadata;
use crate::resource::workspace::WorkspaceDocument;

/// The step that decides.
pub(super) const REPLACE: &str = "replace-keys";

/// The door takes the new keys, and the old ones no more.
pub(super) const ACCEPT: &str = "accept-keys";

pub(super) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource.workspace());
    match (step, &operation.document.intent) {
        (REPLACE, Intent::RegenerateKeys(RegenerateKeys { slots, .. })) => {
            let now = world.clock.now();
            let replaced = slots.iter().map(|slot| world.access.generate(id, *slot, now).row);
            let effects = replaced.map(Change::ReplaceWorkspaceKey).collect();
            operation.document.result = Some(json!({"keyKinds": slots}));
            Ok(effects)
        }
        (ACCEPT, _) => {
            accept(world, id).await?;
            Ok(Effects::new())
        }
        (FINISH, _) => shown(operation, world, ProvisioningState::Succeeded).await,
        _ => Ok(Effects::new()),
    }
}

/// Keys that were replaced stay so, whatever came then.
pub(super) async fn undone(operation: &Operation, context: &Context<'_>) -> Result<Effects, StepError> {
    accept(context.world, operation.row.resource.workspace()).await?;
    shown(operation, context.world, ProvisioningState::Failed).await
}

/// What audit records say: which keys are to be others and whether that was insisted on, when each was made and last used.
pub(super) fn references(world: &World, id: WorkspaceId, intent: &RegenerateKeys) -> Value {
    let mut keys: Map<String, Value> =
        world.access.metadata(id).iter().map(|key| (key.slot.as_str().to_owned(), key_metadata(key))).collect();
    keys.insert("keyKinds".to_owned(), json!(intent.slots));
    keys.insert("skipAccountKeysLastUsageCheck".to_owned(), intent.skips_check.into());
    keys.into()
}

async fn accept(world: &World, id: WorkspaceId) -> Result<(), StepError> {
    // A row that was altered is no reason to go on with keys that were replaced.
    let keys = world.catalog.genuine_workspace_keys_of(id).await?;
    if keys.len() < Slot::ALL.len() {
        // The shippers that have it are told to come back, as after a start.
        error!(workspace = %id, "an access key cannot be used: until it is regenerated and the server is started again, unknown keys are told to come back");
        world.access.set_incomplete();
    }
    world.access.replace(id, &keys);
    world.data.access_keys_changed(id).await;
    Ok(())
}

async fn shown(operation: &Operation, world: &World, state: ProvisioningState) -> Result<Effects, StepError> {
    let (row, mut document) = resource::<WorkspaceDocument>(world, operation.row.resource).await?;
    document.provisioning_state = state;
    Ok(vec![put(&row, &document, world.clock.now())])
}
