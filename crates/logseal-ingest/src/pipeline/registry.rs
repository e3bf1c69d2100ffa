//! The catalog as the register of the log's files: a file takes no record before the catalog knows it.

use std::error::Error;

use logseal_catalog::{Catalog, Change, WalFileRow, WalFileState};
use logseal_wal::{FileHeader, FileRegistry};
use tokio::runtime::Handle;

/// Registers files in the catalog, from the log's own thread.
#[derive(Debug)]
pub struct CatalogRegistry {
    catalog: Catalog,
    runtime: Handle,
}

impl CatalogRegistry {
    /// A register whose waiting is done by the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog, runtime: Handle::current() }
    }
}

impl FileRegistry for CatalogRegistry {
    fn register(&self, header: &FileHeader, header_hash: [u8; 32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let row = WalFileRow {
            id: header.file,
            node: header.node,
            cluster: header.cluster,
            ordinal: header.ordinal,
            header_hash: header_hash.to_vec(),
            created: header.created,
            state: WalFileState::Live,
            changed: header.created,
            attested: 0,
        };
        Ok(self.runtime.block_on(self.catalog.apply(Change::RegisterWalFile(row)))?)
    }
}
