//! Clusters end.

use std::time::Duration;

use logseal_catalog::{Change, WalFileState};
use logseal_core::{AekId, ClusterId, ResourceId};

use super::super::document::{DeleteCluster, Intent};
use super::super::runner::Context;
use super::super::world::World;
use super::super::{Effects, Operation, StepError};
use super::{FINISH, document, put_deleted, remove_copies, resource, shredded};
use crate::Problem;
use crate::request;
use crate::resource::ProvisioningState;
use crate::resource::cluster::ClusterDocument;

/// How long the operation that unlinks a workspace is waited for at a time.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    operation: &mut Operation,
    step: &'static str,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    let (world, id) = (context.world, operation.row.resource);
    let cluster = id.cluster();
    let Intent::DeleteCluster(DeleteCluster { force }) = operation.document.intent else { return Ok(Effects::new()) };
    match step {
        "unlink-workspaces" => {
            unlink_all(context, cluster, &operation.document.actor).await?;
            Ok(Effects::new())
        }
        "shred-keys" => {
            if !force {
                refuse_live_data(world, cluster).await?;
            }
            let keys = world.catalog.aeks_of_cluster(cluster).await?;
            operation.document.result = Some(shredded(&keys));
            let aeks: Vec<AekId> = keys.iter().map(|key| key.id).collect();
            // Before the rows go, which say where the copies are: what is repeated finds none.
            let copies: Vec<_> = aeks.iter().map(|aek| (cluster, *aek)).collect();
            remove_copies(world, &copies).await?;
            Ok(vec![Change::ShredAeks { aeks, at: world.clock.now() }])
        }
        "close-log" => {
            world.catalog.scrub().await?;
            // Those of other resources are forgotten already; once more does no harm.
            let aeks: Vec<AekId> = world.catalog.shredded().await?.iter().map(|row| row.aek).collect();
            world.data.shred(&aeks, None).await?;
            world.data.close_cluster(cluster).await?;
            Ok(Effects::new())
        }
        "remove-cluster" => Ok(vec![Change::RemoveCluster { cluster }]),
        FINISH => {
            let (row, mut document) = resource::<ClusterDocument>(world, id).await?;
            document.provisioning_state = ProvisioningState::Succeeded;
            let now = world.clock.now();
            // Its name is reserved for a while.
            Ok(vec![put_deleted(&row, &document, now, Some(now))])
        }
        _ => Ok(Effects::new()),
    }
}

/// Refuses while keys of the cluster protect records.
pub(crate) async fn refuse_live_data(world: &World, cluster: ClusterId) -> Result<(), Problem> {
    let sizes = world.catalog.generation_sizes(cluster).await?;
    let aeks: Vec<AekId> = sizes.iter().map(|size| size.aek).collect();
    let (segments, rows): (u64, u64) = sizes.iter().fold((0, 0), |(s, r), size| (s + size.segments, r + size.rows));
    let unsealed = world.data.unsealed_of(&aeks);
    // Of a log that is not in memory nobody knows how many records it has.
    let unread = match world.keyring.suspension(cluster) {
        None => false,
        Some(_) => world
            .catalog
            .wal_files()
            .await?
            .iter()
            .any(|file| file.cluster == cluster && file.state != WalFileState::Retired),
    };
    if segments == 0 && unsealed == 0 && !unread {
        return Ok(());
    }
    let mut workspaces: Vec<_> = sizes.iter().filter(|size| size.segments > 0).map(|size| size.workspace).collect();
    workspaces.sort_unstable();
    workspaces.dedup();
    Err(Problem::conflict(
        "ClusterHasData",
        format!(
            "the cluster's keys protect {rows} records in {segments} segments of {} workspaces, and {} that are \
             in no segment yet: delete with `forceDelete=true` to shred them, or keep the cluster until retention has removed them",
            workspaces.len(),
            if unread { "an unknown number of records".to_owned() } else { format!("{unsealed} records") },
        ),
    ))
}

async fn unlink_all(context: &Context<'_>, cluster: ClusterId, actor: &str) -> Result<(), StepError> {
    let world = context.world;
    let linked = world.catalog.workspaces_of(cluster).await?;
    for (index, workspace) in linked.iter().enumerate() {
        context.within.set(index, linked.len());
        let Some(row) = world.catalog.resource_by_id(ResourceId::from(workspace.id)).await? else { continue };
        let document = document(&row)?;
        let unlink = request::unlink(context.operations, row, document, actor).await;
        match unlink {
            Ok(operation) => {
                context.operations.wait(operation.row.id, PATIENCE).await?;
            }
            // Something else happens to it: that comes first.
            Err(problem) if problem.code() == "OperationInProgress" || problem.code() == "Conflict" => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    match world.catalog.workspaces_of(cluster).await?.len() {
        0 => Ok(()),
        left => Err(StepError::Passing(format!("{left} workspaces are still linked"))),
    }
}
