//! The resources that exist from the first start: cluster `local`, workspace `default` linked to it, table `logs`.

use logseal_catalog::{Catalog, CatalogError, Change, ClusterRow, KekRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, TableId, TableName, WorkspaceId};
use logseal_keys::access::SLOTS;
use logseal_keys::{AccessKeys, AekOwner, KeyError, Keyring};
use logseal_vault::KeyId;
use thiserror::Error;
use tracing::info;

/// The name of the first cluster.
pub const DEFAULT_CLUSTER: &str = "local";

/// The name of the first workspace.
pub const DEFAULT_WORKSPACE: &str = "default";

/// The default resources could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The catalog refused.
    #[error("cannot add the default resources to the catalog")]
    Catalog(#[from] CatalogError),
    /// The first account key could not be made.
    #[error("cannot make the first account key")]
    Key(#[from] KeyError),
}

/// Makes what is missing of the default resources; a start that was interrupted is taken up where it stopped.
///
/// # Errors
///
/// [`ProvisionError`]; what was made stays, and the next start goes on from there.
pub async fn provision(
    catalog: &Catalog,
    keyring: &Keyring,
    access: &AccessKeys,
    kek: &KeyId,
    ids: &IdGenerator,
    clock: &dyn Clock,
) -> Result<(), ProvisionError> {
    let cluster = match catalog.clusters().await?.into_iter().find(|row| row.name == DEFAULT_CLUSTER) {
        Some(cluster) => cluster,
        None => add_cluster(catalog, kek, ids, clock).await?,
    };
    if catalog.workspaces().await?.iter().any(|row| row.name == DEFAULT_WORKSPACE) {
        return Ok(());
    }
    let (id, created) = (WorkspaceId::from(ids.next()), clock.now());
    let keys = SLOTS.map(|slot| access.generate(id, slot, created).row).to_vec();
    let tables = vec![TableRow { id: TableId::from(ids.next()), workspace: id, name: TableName::logs(), created }];
    let workspace = WorkspaceRow { id, name: DEFAULT_WORKSPACE.to_owned(), cluster: cluster.id, created };
    let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
    let aek = keyring.new_aek(AekId::from(ids.next()), owner, 1, kek).await?;
    catalog.apply(Change::AddWorkspace { workspace, keys, aek, tables }).await?;
    info!(workspace = %id, "workspace `default` made");
    Ok(())
}

async fn add_cluster(
    catalog: &Catalog,
    kek: &KeyId,
    ids: &IdGenerator,
    clock: &dyn Clock,
) -> Result<ClusterRow, ProvisionError> {
    let cluster = ClusterRow {
        id: ClusterId::from(ids.next()),
        name: DEFAULT_CLUSTER.to_owned(),
        created: clock.now(),
        kek: KekRow {
            vault_uri: kek.vault_uri.to_string(),
            name: kek.name.to_string(),
            version: kek.version.to_string(),
        },
    };
    catalog.apply(Change::AddCluster(cluster.clone())).await?;
    info!(cluster = %cluster.id, kek = %kek, "cluster `local` made");
    Ok(cluster)
}
