//! What a start opens of each workspace: its access keys, its account keys, its tables.
//!
//! A workspace of which something was altered, or whose key is disabled, is refused by name and takes none of the others with it. Its
//! shippers are told to come back (`UNAVAILABLE`), its queries fail with the reason, and the log keeps its records until a start finds
//! it repaired. What passes by itself, such as a disk that cannot be read, fails the start instead: the next one may succeed.

use logseal_catalog::{Catalog, WorkspaceRow};
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::{AccessKeys, KeyError, Keyring};
use tracing::error;

use crate::error::{Chain, CommandError};

/// Opens all workspaces of `catalog` that can be opened, into `access`, `keyring` and `tables`.
pub(super) async fn open_all(
    catalog: &Catalog,
    keyring: &Keyring,
    access: &AccessKeys,
    tables: &Tables,
) -> Result<(), CommandError> {
    let read = "read the catalog";
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
        match open(catalog, keyring, tables, &row).await {
            Err(error) if error.is_lasting() => {
                keyring.refuse(row.id, &error);
                error!(workspace = %row.name, id = %row.id, error = %Chain(&error), "a workspace is not available until it is repaired and the server is started again");
            }
            opened => opened.map_err(CommandError::start("open a workspace"))?,
        }
    }
    Ok(())
}

async fn open(catalog: &Catalog, keyring: &Keyring, tables: &Tables, row: &WorkspaceRow) -> Result<(), KeyError> {
    keyring.warm(row.id).await?;
    tables.load(catalog, keyring, row.id, &row.name).await
}
