//! A workspace gets the next generation of its account key.
//!
//! New data is sealed under it, and so are the names of all columns, since an older key may be destroyed before it. Everything else stays
//! as it was sealed.

use logseal_catalog::Change;
use logseal_core::{AekId, WorkspaceId};
use logseal_keys::AekOwner;
use serde_json::json;

use super::super::document::RotateKey;
use super::super::runner::Context;
use super::super::world::World;
use super::super::{Effects, Intent, Operation, StepError};
use super::workspace::{NextKey, next_key, workspace};
use super::{FINISH, put, remove_copies, resource};
use crate::resource::ProvisioningState;
use crate::resource::workspace::WorkspaceDocument;

/// The step that decides: with it the workspace has the key.
pub(super) const ADD_KEY: &str = "add-key";

pub(super) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource.workspace());
    match (step, &operation.document.intent) {
        (ADD_KEY, Intent::RotateKey(intent)) => {
            let (effects, generation) = add(world, id, intent).await?;
            operation.document.result = Some(json!({"aek": intent.aek.to_string(), "generation": generation}));
            Ok(effects)
        }
        ("open", _) => {
            world.data.open_workspace(id).await?;
            Ok(Effects::new())
        }
        (FINISH, _) => shown(operation, world, ProvisioningState::Succeeded).await,
        _ => Ok(Effects::new()),
    }
}

/// A key that was added stays, and the next start follows it at the latest.
pub(super) async fn undone(operation: &Operation, context: &Context<'_>) -> Result<Effects, StepError> {
    let Intent::RotateKey(intent) = &operation.document.intent else { return Ok(Effects::new()) };
    remove_unused_copy(intent, operation.row.resource.workspace(), context.world).await?;
    let state = if operation.document.canceled { ProvisioningState::Canceled } else { ProvisioningState::Failed };
    shown(operation, context.world, state).await
}

/// Another key for another try: what the copy of the first one says may be outdated.
pub(super) async fn renew(intent: &mut RotateKey, id: WorkspaceId, world: &World) -> Result<(), StepError> {
    remove_unused_copy(intent, id, world).await?;
    intent.aek = AekId::from(world.ids.next());
    Ok(())
}

async fn add(world: &World, id: WorkspaceId, intent: &RotateKey) -> Result<(Effects, u32), StepError> {
    let workspace = workspace(world, id).await?;
    let cluster = world.catalog.cluster(workspace.cluster).await?;
    let cluster =
        cluster.ok_or_else(|| StepError::failed("ClusterNotFound", "the workspace's cluster is no longer there"))?;
    let (keys, schema) = (world.catalog.aeks_of(id).await?, world.catalog.schema(id).await?);
    let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &schema.tables };
    let NextKey { aek, columns, counted } = next_key(world, intent.aek, owner, &keys, &schema.columns).await?;
    let generation = aek.generation;
    let (from, to, rewrapped) = (cluster.id, cluster.id, Vec::new());
    Ok((vec![Change::MoveWorkspace { workspace: id, from, to, aek, rewrapped, columns }, counted], generation))
}

/// Removes the copy of a key that the workspace did not get. It stays linked to one cluster while the operation runs.
async fn remove_unused_copy(intent: &RotateKey, id: WorkspaceId, world: &World) -> Result<(), StepError> {
    if world.catalog.aek(intent.aek).await?.is_some() {
        return Ok(());
    }
    let Some(workspace) = world.catalog.workspace(id).await? else { return Ok(()) };
    remove_copies(world, &[(workspace.cluster, intent.aek)]).await
}

async fn shown(operation: &Operation, world: &World, state: ProvisioningState) -> Result<Effects, StepError> {
    let (row, mut document) = resource::<WorkspaceDocument>(world, operation.row.resource).await?;
    document.provisioning_state = state;
    Ok(vec![put(&row, &document, world.clock.now())])
}
