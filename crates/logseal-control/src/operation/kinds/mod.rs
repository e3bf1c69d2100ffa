//! The kinds of operations: which steps each has, what a step does and how it is undone.

mod cluster;
mod delete_cluster;
mod regenerate_keys;
mod rotate_key;
mod workspace;

pub(crate) use delete_cluster::refuse_live_data;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use logseal_catalog::{AekRow, CatalogError, Change, ResourceKind, ResourceRow};
use logseal_core::{AekId, ClusterId, ResourceId, UnixNanos};
use logseal_keys::wrapped_key_copy::{copies_of, path_of};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::document::Kek;
use super::runner::Context;
use super::world::World;
use super::{Effects, Intent, Operation, StepError};
use crate::Problem;

/// Account keys of a cluster that are worked on at the same time: vault and store take most of the time of each, and Azure's vaults throttle
/// whoever asks more than some hundred times a second.
const KEYS_AT_ONCE: usize = 4;

/// The last step of every kind: the resource shows what was done, in the transaction that ends the operation.
const FINISH: &str = "finish";

/// The steps of a kind, in their order.
pub(crate) fn steps(intent: &Intent) -> &'static [&'static str] {
    match intent {
        Intent::CreateCluster(_) => &["validate-key", "probe-key", "add-cluster", "open-log", FINISH],
        Intent::UpdateCluster(_) => &["validate-key", "probe-key", "switch-key", FINISH],
        Intent::DeleteCluster(_) => &["unlink-workspaces", "shred-keys", "close-log", "remove-cluster", FINISH],
        Intent::CreateWorkspace(_) => &["add-workspace", "open", FINISH],
        Intent::RecoverWorkspace(_) => &["open", FINISH],
        Intent::DeleteWorkspace(_) => &["suspend", FINISH],
        Intent::PurgeWorkspace(_) => &["suspend", "shred-keys", "forget", FINISH],
        Intent::MoveWorkspace(_) => &["check", "move", "open", FINISH],
        Intent::RotateKey(_) => &[rotate_key::ADD_KEY, "open", FINISH],
        Intent::RegenerateKeys(_) => &[regenerate_keys::REPLACE, regenerate_keys::ACCEPT, FINISH],
    }
}

/// How many of the first steps must be done at the most for the operation to be canceled: what comes then is not undone on request.
pub(crate) fn cancelable(intent: &Intent) -> usize {
    match intent {
        Intent::CreateCluster(_) | Intent::CreateWorkspace(_) => steps(intent).len(),
        Intent::UpdateCluster(_) => 3,
        Intent::MoveWorkspace(_) => 2,
        Intent::RotateKey(_) => 1,
        Intent::DeleteCluster(_)
        | Intent::RecoverWorkspace(_)
        | Intent::DeleteWorkspace(_)
        | Intent::PurgeWorkspace(_)
        | Intent::RegenerateKeys(_) => 0,
    }
}

/// Does `step`. It may have been done before, but for its effects.
pub(crate) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    match operation.document.intent {
        Intent::CreateCluster(_) | Intent::UpdateCluster(_) => cluster::run(operation, step, context).await,
        Intent::DeleteCluster(_) => delete_cluster::run(operation, step, context).await,
        Intent::RotateKey(_) => rotate_key::run(operation, step, context).await,
        Intent::RegenerateKeys(_) => regenerate_keys::run(operation, step, context).await,
        _ => workspace::run(operation, step, context).await,
    }
}

/// Undoes `step`, which was done.
pub(crate) async fn undo(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    match operation.document.intent {
        Intent::CreateCluster(_) => cluster::undo(operation, step, context).await,
        Intent::CreateWorkspace(_) | Intent::RecoverWorkspace(_) | Intent::DeleteWorkspace(_) => {
            workspace::undo(operation, step, context).await
        }
        // What is done of the others either shows nowhere yet or stays.
        _ => Ok(Effects::new()),
    }
}

/// The resource after everything was undone.
pub(crate) async fn undone(operation: &Operation, context: &Context<'_>) -> Result<Effects, StepError> {
    match operation.document.intent {
        Intent::CreateCluster(_) | Intent::UpdateCluster(_) | Intent::DeleteCluster(_) => {
            cluster::undone(operation, context).await
        }
        Intent::RotateKey(_) => rotate_key::undone(operation, context).await,
        Intent::RegenerateKeys(_) => regenerate_keys::undone(operation, context).await,
        _ => workspace::undone(operation, context).await,
    }
}

/// Chooses anew what was chosen for a step that is taken up again.
pub(crate) async fn renew(operation: &mut Operation, world: &World) -> Result<(), StepError> {
    match &mut operation.document.intent {
        Intent::MoveWorkspace(intent) => workspace::renew(intent, operation.row.resource.workspace(), world).await,
        Intent::RotateKey(intent) => rotate_key::renew(intent, operation.row.resource.workspace(), world).await,
        _ => Ok(()),
    }
}

/// What it means when the catalog refuses the effects of a step.
pub(crate) fn refused(intent: &Intent, error: CatalogError) -> StepError {
    match (intent, &error) {
        // Keys, columns or workspaces came meanwhile.
        (Intent::UpdateCluster(_), CatalogError::Stale { .. }) => StepError::Back("switch-key"),
        (Intent::MoveWorkspace(_), CatalogError::Stale { .. }) => StepError::Back("check"),
        (Intent::RotateKey(_), CatalogError::Stale { .. }) => StepError::Back(rotate_key::ADD_KEY),
        (Intent::DeleteCluster(_), CatalogError::Stale { .. } | CatalogError::Invalid { .. }) => {
            StepError::Back("unlink-workspaces")
        }
        _ => error.into(),
    }
}

/// The keys that protect a resource, by reference: what audit records say before and after. Of other access keys, what is known of them.
pub(crate) async fn references(world: &World, id: ResourceId, intent: &Intent) -> Result<Value, CatalogError> {
    if let Intent::RegenerateKeys(intent) = intent {
        return Ok(regenerate_keys::references(world, id.workspace(), intent));
    }
    let Some(row) = world.catalog.resource_by_id(id).await? else { return Ok(Value::Null) };
    Ok(match row.kind {
        ResourceKind::Cluster => match world.catalog.cluster(id.cluster()).await? {
            Some(cluster) => json!({"kek": Kek::from(&cluster.kek).id()}),
            None => Value::Null,
        },
        ResourceKind::Workspace => {
            let keys = world.catalog.aeks_of(id.workspace()).await?;
            match keys.last() {
                Some(newest) => json!({
                    "cluster": newest.cluster.to_string(),
                    "aek": newest.id.to_string(),
                    "generation": newest.generation,
                    "kek": Kek::from(&newest.kek).id(),
                }),
                None => Value::Null,
            }
        }
    })
}

/// The resource's row with its document.
async fn resource<D: DeserializeOwned>(world: &World, id: ResourceId) -> Result<(ResourceRow, D), StepError> {
    let row = world.catalog.resource_by_id(id).await?;
    let row = row.ok_or_else(|| StepError::failed("ResourceNotFound", "the resource is no longer there"))?;
    let document = document(&row)?;
    Ok((row, document))
}

/// The document of a resource's row.
pub(crate) fn document<D: DeserializeOwned>(row: &ResourceRow) -> Result<D, Problem> {
    serde_json::from_str(&row.document).map_err(|error| {
        tracing::error!(resource = %row.id, %error, "a resource cannot be read: a later version wrote it");
        Problem::unavailable(format!("`{}` was written by a later version of logseal", row.name))
    })
}

/// The change that gives the resource of `row` another document.
pub(crate) fn put<D: Serialize>(row: &ResourceRow, document: &D, now: UnixNanos) -> Change {
    put_deleted(row, document, now, row.deleted)
}

/// As [`put`]; from `deleted` on the resource is gone for who looks for it.
fn put_deleted<D: Serialize>(row: &ResourceRow, document: &D, now: UnixNanos, deleted: Option<UnixNanos>) -> Change {
    let document = serde_json::to_string(document).expect("a document has string keys only");
    let next = ResourceRow { document, version: row.version + 1, changed: now, deleted, ..row.clone() };
    Change::PutResource { row: next, expected: Some(row.version) }
}

/// Removes every copy of `keys` from the store, wherever they were. Nothing reads them any more: the catalog decides.
async fn remove_copies(world: &World, keys: &[(ClusterId, AekId)]) -> Result<(), StepError> {
    for (cluster, aek) in keys {
        for path in world.objects.list(copies_of(*cluster, *aek).as_ref()).await.map_err(StepError::Passing)? {
            world.objects.delete(&path).await.map_err(StepError::Passing)?;
        }
    }
    Ok(())
}

/// Removes the copies of `keys` that are wrapped otherwise than their rows say.
async fn remove_outdated_copies(world: &World, keys: &[AekRow]) -> Result<(), StepError> {
    let remove = async |key: &AekRow| {
        let current = path_of(key).to_string();
        let folder = copies_of(key.cluster, key.id);
        for path in world.objects.list(folder.as_ref()).await? {
            if path != current {
                world.objects.delete(&path).await?;
            }
        }
        Ok(())
    };
    let removed = stream::iter(keys.iter().map(remove)).buffered(KEYS_AT_ONCE);
    removed.try_collect::<()>().await.map_err(StepError::Passing)
}

/// What the result of an operation says of keys that it shredded: copies of the catalog from before hold them as these versions wrapped
/// them.
fn shredded(keys: &[AekRow]) -> Value {
    let mut versions: Vec<_> = keys.iter().map(|key| Kek::from(&key.kek).id()).collect();
    versions.sort_unstable();
    versions.dedup();
    json!({"shreddedKeys": keys.len(), "kekVersions": versions})
}
