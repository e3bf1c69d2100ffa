//! What is opened of each workspace: its access keys at a start, its account keys and tables when its cluster's key can be used.
//!
//! A workspace of which something was altered, or whose key is disabled, is refused by name and takes none of the others with it. Its
//! shippers are told to come back (`UNAVAILABLE`), its queries fail with the reason, and the log keeps its records until a start finds
//! it repaired. What passes by itself, such as a disk that cannot be read, fails the start instead: the next one may succeed.

use logseal_catalog::{Catalog, WorkspaceRow};
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::{AccessKeys, KeyError, Keyring, Link};
use tracing::error;

use super::data_plane::Suspended;
use crate::error::{Chain, CommandError};

/// Takes up the access keys of all workspaces: the door knows them whatever becomes of their clusters. Workspaces that are deleted and can
/// be recovered are suspended: their records in the log still become segments.
pub(super) async fn accept_all(
    catalog: &Catalog,
    keyring: &Keyring,
    access: &AccessKeys,
    suspended: &Suspended,
) -> Result<(), CommandError> {
    let read = "read the catalog";
    keyring.learn_shredded().await.map_err(CommandError::start(read))?;
    for orphan in catalog.orphans().await.map_err(CommandError::start(read))? {
        error!(error = %Chain(&orphan), "a row of the catalog belongs to no workspace, and is left out");
    }
    let (keys, refused) = catalog.genuine_workspace_keys().await.map_err(CommandError::start(read))?;
    keys.iter().for_each(|row| access.accept(row));
    for refusal in &refused {
        error!(error = %Chain(refusal), "an access key cannot be used: until it is repaired and the server is started again, unknown keys are told to come back");
        access.set_incomplete();
    }
    for row in catalog.workspaces().await.map_err(CommandError::start(read))? {
        let resource = catalog.resource_by_id(row.id.into()).await.map_err(CommandError::start(read))?;
        if resource.is_some_and(|resource| resource.deleted.is_some()) {
            access.suspend(row.id);
            suspended.add(row.id);
        }
    }
    Ok(())
}

/// Opens the workspace of `row`, or takes up where it is linked to now.
pub(super) async fn open(
    catalog: &Catalog,
    keyring: &Keyring,
    tables: &Tables,
    row: &WorkspaceRow,
) -> Result<Link, KeyError> {
    let link = keyring.warm(row.id).await?;
    if link.cluster != row.cluster {
        // New data under this key would be in the hands of a cluster that the workspace has left.
        return Err(KeyError::Unlinked { workspace: row.id, cluster: link.cluster });
    }
    tables.load(catalog, keyring, row.id, &row.name).await?;
    Ok(link)
}
