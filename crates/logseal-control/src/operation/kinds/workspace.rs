//! Workspaces are made, linked, deleted and recovered.

use logseal_catalog::{AekRow, AekWrapsRow, Change, ClusterRow, ColumnRow, ResourceKind, TableRow, WorkspaceRow};
use logseal_core::{AekId, ResourceId, TableName, UnixNanos, WorkspaceId};
use logseal_keys::{AekOwner, Slot};
use logseal_vault::{KeyId, KeyName, KeyVersion};

use super::super::document::{CreateWorkspace, MoveWorkspace, RecoverWorkspace};
use super::super::runner::Context;
use super::super::world::{SERVICE_CLUSTER, World};
use super::super::{Effects, Intent, Operation, StepError};
use super::{FINISH, put, put_deleted, remove_copies, resource, shredded};
use crate::resource::ProvisioningState;
use crate::resource::cluster::ClusterDocument;
use crate::resource::workspace::{Link, WorkspaceDocument};
use crate::settings;

pub(super) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource.workspace());
    match step {
        "add-workspace" => match &operation.document.intent {
            Intent::CreateWorkspace(intent) => add(world, id, intent).await,
            _ => Ok(Effects::new()),
        },
        "open" => {
            // One that is deleted, and can come back, is moved with its cluster's end and stays closed.
            let (row, _) = resource::<WorkspaceDocument>(world, operation.row.resource).await?;
            if let Intent::CreateWorkspace(CreateWorkspace { settings, .. })
            | Intent::RecoverWorkspace(RecoverWorkspace { settings, .. }) = &operation.document.intent
            {
                // Before its keys are accepted.
                settings::tell(world, id, settings, row.version);
            }
            world.data.open_workspace(id).await?;
            if row.deleted.is_some() {
                world.data.suspend_workspace(id).await?;
            }
            Ok(Effects::new())
        }
        "suspend" => {
            world.data.suspend_workspace(id).await?;
            Ok(Effects::new())
        }
        "shred-keys" => {
            let keys = world.catalog.aeks_of(id).await?;
            operation.document.result = Some(shredded(&keys));
            // Before the rows go, which say where the copies are: what is repeated finds none.
            let copies: Vec<_> = keys.iter().map(|key| (key.cluster, key.id)).collect();
            remove_copies(world, &copies).await?;
            Ok(vec![Change::ShredWorkspace { workspace: id, at: world.clock.now() }])
        }
        "forget" => {
            world.catalog.scrub().await?;
            let shredded = world.catalog.shredded().await?;
            let aeks: Vec<AekId> = shredded.iter().filter(|row| row.workspace == id).map(|row| row.aek).collect();
            world.data.shred(&aeks, Some(id)).await?;
            Ok(Effects::new())
        }
        "check" | "move" => {
            let Intent::MoveWorkspace(intent) = &operation.document.intent else { return Ok(Effects::new()) };
            let cluster = destination(world, intent).await?;
            if step == "check" { Ok(Effects::new()) } else { relocate(world, id, intent, &cluster).await }
        }
        FINISH => finish(operation, world).await,
        _ => Ok(Effects::new()),
    }
}

pub(super) async fn undo(
    operation: &Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource.workspace());
    match step {
        "open" => {
            world.data.suspend_workspace(id).await?;
            Ok(Effects::new())
        }
        "suspend" => {
            world.data.open_workspace(id).await?;
            Ok(Effects::new())
        }
        "add-workspace" => {
            let keys = world.catalog.aeks_of(id).await?;
            let aeks: Vec<AekId> = keys.iter().map(|key| key.id).collect();
            world.data.shred(&aeks, Some(id)).await?;
            let copies: Vec<_> = keys.iter().map(|key| (key.cluster, key.id)).collect();
            remove_copies(world, &copies).await?;
            Ok(vec![Change::ShredWorkspace { workspace: id, at: world.clock.now() }])
        }
        _ => Ok(Effects::new()),
    }
}

pub(super) async fn undone(operation: &Operation, context: &Context<'_>) -> Result<Effects, StepError> {
    let world = context.world;
    let (row, mut document) = resource::<WorkspaceDocument>(world, operation.row.resource).await?;
    match &operation.document.intent {
        Intent::CreateWorkspace(_) => return Ok(vec![Change::RemoveResource { id: row.id, expected: row.version }]),
        Intent::MoveWorkspace(intent) => {
            // Once it has moved it stays where it is.
            let is_moved = world.catalog.workspace(row.id.workspace()).await?.is_some_and(|w| w.cluster == intent.to);
            if is_moved {
                remove_copies_of_before(row.id.workspace(), world).await?;
            } else {
                remove_unused_copies(intent, row.id.workspace(), world).await?;
            }
            document.link = match (&intent.cluster, is_moved) {
                (Some(_), false) | (None, true) => None,
                (Some(_), true) => document.link.map(|link| Link { state: ProvisioningState::Failed, ..link }),
                (None, false) => document.link.map(|link| Link { state: ProvisioningState::Succeeded, ..link }),
            };
            document.provisioning_state = ProvisioningState::Failed;
            return Ok(vec![put(&row, &document, world.clock.now())]);
        }
        Intent::RecoverWorkspace(intent) => {
            document.provisioning_state = ProvisioningState::Succeeded;
            return Ok(vec![put_deleted(&row, &document, world.clock.now(), Some(UnixNanos(intent.deleted)))]);
        }
        _ => document.provisioning_state = ProvisioningState::Failed,
    }
    Ok(vec![put(&row, &document, world.clock.now())])
}

/// Removes the copies that were made for a link that did not come about.
async fn remove_unused_copies(intent: &MoveWorkspace, id: WorkspaceId, world: &World) -> Result<(), StepError> {
    let keys = world.catalog.aeks_of(id).await?;
    let own = keys.iter().filter(|key| key.cluster != intent.to).map(|key| key.id);
    let copies: Vec<_> = own.chain([intent.aek]).map(|aek| (intent.to, aek)).collect();
    remove_copies(world, &copies).await
}

/// Removes the copies of keys that were under the service-managed KEK and are under a customer's.
async fn remove_copies_of_before(id: WorkspaceId, world: &World) -> Result<(), StepError> {
    let keys = world.catalog.aeks_of(id).await?;
    let moved = keys.iter().filter(|key| key.cluster != SERVICE_CLUSTER);
    let copies: Vec<_> = moved.map(|key| (SERVICE_CLUSTER, key.id)).collect();
    remove_copies(world, &copies).await
}

/// Another key for another try: what the copy of the first one says may be outdated.
pub(super) async fn renew(intent: &mut MoveWorkspace, id: WorkspaceId, world: &World) -> Result<(), StepError> {
    remove_unused_copies(intent, id, world).await?;
    intent.aek = AekId::from(world.ids.next());
    Ok(())
}

async fn add(world: &World, id: WorkspaceId, intent: &CreateWorkspace) -> Result<Effects, StepError> {
    let (row, _) = resource::<WorkspaceDocument>(world, ResourceId::from(id)).await?;
    let cluster = world.catalog.cluster(SERVICE_CLUSTER).await?;
    let cluster =
        cluster.ok_or_else(|| StepError::Passing("the service-managed cluster is not there yet".to_owned()))?;
    let kek = kek_of(&cluster)?;
    let workspace = WorkspaceRow { id, name: row.name, cluster: cluster.id, created: row.created };
    let tables = vec![TableRow { id: intent.table, workspace: id, name: TableName::logs(), created: row.created }];
    let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
    let aek = world.keyring.new_aek(intent.aek, owner, 1, &kek).await?;
    let keys = Slot::ALL.map(|slot| world.access.generate(id, slot, row.created).row).to_vec();
    let counted = Change::ReserveAekWraps(AekWrapsRow { aek: aek.id, wraps: 0 });
    Ok(vec![Change::AddWorkspace { workspace, keys, aek, tables }, counted])
}

/// The cluster that a workspace is to be linked to, if it can be.
async fn destination(world: &World, intent: &MoveWorkspace) -> Result<ClusterRow, StepError> {
    let missing = || {
        let path = intent.cluster.as_deref().unwrap_or("service-managed");
        StepError::failed("ClusterNotFound", format!("cluster `{path}` is not there or is being deleted"))
    };
    if intent.to != SERVICE_CLUSTER {
        let row = world.resource(ResourceKind::Cluster, ResourceId::from(intent.to)).await?;
        let row = row.filter(|row| row.deleted.is_none()).ok_or_else(missing)?;
        let document: ClusterDocument = super::document(&row)?;
        if document.provisioning_state == ProvisioningState::Deleting {
            return Err(missing());
        }
    }
    world.catalog.cluster(intent.to).await?.ok_or_else(missing)
}

/// The workspace gets a new key under the destination's KEK, which also seals its column names from now on; keys under the
/// service-managed KEK are wrapped by a customer's KEK, never the other way round.
async fn relocate(
    world: &World,
    id: WorkspaceId,
    intent: &MoveWorkspace,
    cluster: &ClusterRow,
) -> Result<Effects, StepError> {
    let workspace = workspace(world, id).await?;
    let from = workspace.cluster;
    if from == cluster.id {
        return Ok(Effects::new());
    }
    let kek = kek_of(cluster)?;
    let schema = world.catalog.schema(id).await?;
    let owner = AekOwner { cluster, workspace: &workspace, tables: &schema.tables };
    let keys = world.catalog.aeks_of(id).await?;
    let mut rewrapped: Vec<AekRow> = Vec::new();
    for key in keys.iter().filter(|key| from == SERVICE_CLUSTER && key.cluster == from) {
        rewrapped.push(world.keyring.rewrap(key, owner, &kek).await?);
    }
    let NextKey { aek, columns, counted } = next_key(world, intent.aek, owner, &keys, &schema.columns).await?;
    let (row, mut document) = resource::<WorkspaceDocument>(world, ResourceId::from(id)).await?;
    let now = world.clock.now();
    document.link = intent.cluster.as_ref().map(|cluster| Link {
        state: ProvisioningState::Updating,
        cluster: cluster.clone(),
        since: now.0,
    });
    Ok(vec![
        Change::MoveWorkspace { workspace: id, from, to: cluster.id, aek, rewrapped, columns },
        counted,
        put(&row, &document, now),
    ])
}

/// The row of the workspace `id`.
pub(super) async fn workspace(world: &World, id: WorkspaceId) -> Result<WorkspaceRow, StepError> {
    let gone = || StepError::failed("WorkspaceNotFound", "the workspace is no longer there");
    world.catalog.workspace(id).await?.ok_or_else(gone)
}

/// The next generation of a workspace's key, with what it seals from the beginning.
pub(super) struct NextKey {
    pub(super) aek: AekRow,
    /// All columns of the workspace.
    pub(super) columns: Vec<ColumnRow>,
    /// Counts what the key has sealed; it comes after the change that adds the key.
    pub(super) counted: Change,
}

/// The key `id` for `owner`, whose workspace has `keys` and `columns`, wrapped by the KEK of `owner`'s cluster.
pub(super) async fn next_key(
    world: &World,
    id: AekId,
    owner: AekOwner<'_>,
    keys: &[AekRow],
    columns: &[ColumnRow],
) -> Result<NextKey, StepError> {
    let generation = keys.last().map_or(0, |key| key.generation) + 1;
    let aek = world.keyring.new_aek(id, owner, generation, &kek_of(owner.cluster)?).await?;
    let columns = world.keyring.reseal(columns, &aek).await?;
    let counted = Change::ReserveAekWraps(AekWrapsRow { aek: id, wraps: columns.len() as u64 });
    Ok(NextKey { aek, columns, counted })
}

fn kek_of(cluster: &ClusterRow) -> Result<KeyId, StepError> {
    let bad = |error: logseal_vault::KeyIdError| StepError::failed("KeyDamaged", error.to_string());
    Ok(KeyId {
        vault_uri: cluster.kek.vault_uri.as_str().into(),
        name: KeyName::parse(&cluster.kek.name).map_err(bad)?,
        version: KeyVersion::parse(&cluster.kek.version).map_err(bad)?,
    })
}

async fn finish(operation: &Operation, world: &World) -> Result<Effects, StepError> {
    let (row, mut document) = resource::<WorkspaceDocument>(world, operation.row.resource).await?;
    let now = world.clock.now();
    document.provisioning_state = ProvisioningState::Succeeded;
    match &operation.document.intent {
        Intent::CreateWorkspace(CreateWorkspace { settings, .. })
        | Intent::RecoverWorkspace(RecoverWorkspace { settings, .. }) => {
            document.settings = settings.clone();
            let next = row.version + 1;
            settings::tell(world, row.id.workspace(), settings, next);
        }
        Intent::MoveWorkspace(_) => {
            document.link = document.link.map(|link| Link { state: ProvisioningState::Succeeded, ..link });
            remove_copies_of_before(row.id.workspace(), world).await?;
        }
        Intent::DeleteWorkspace(_) => {
            return Ok(vec![put_deleted(&row, &document, now, Some(now))]);
        }
        Intent::PurgeWorkspace(_) => {
            return Ok(vec![Change::RemoveResource { id: row.id, expected: row.version }]);
        }
        _ => {}
    }
    Ok(vec![put(&row, &document, now)])
}
