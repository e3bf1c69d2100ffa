//! The DataFusion session that a query runs in.
//!
//! Everything a plan could use to leave the segments is left out: no file formats, no table factories, no `file://` store,
//! no spilling.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;

use crate::attribute::UnknownKeyPlanner;
use crate::cooperation::YieldInJoins;
use crate::port::{SegmentOpener, Snapshot};
use crate::reader::SegmentReaderFactory;
use crate::settings::QuerySettings;
use crate::table::SnapshotTable;

/// The only catalog.
pub(crate) const CATALOG: &str = "logseal";
/// The schema with the tables of the workspace.
pub(crate) const SCHEMA: &str = "public";

/// What all queries of an engine share: memory, functions, options.
#[derive(Debug)]
pub(crate) struct SessionTemplate {
    state: SessionState,
    store_url: ObjectStoreUrl,
}

impl SessionTemplate {
    pub(crate) fn new(settings: &QuerySettings, store: Arc<dyn ObjectStore>) -> Result<Self> {
        let store_url = ObjectStoreUrl::parse("logseal://store")?;
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(UnknownKeyPlanner)];
        planners.extend(SessionStateDefaults::default_expr_planners());
        let state = SessionStateBuilder::new()
            .with_config(config(settings))
            .with_runtime_env(runtime(settings, &store_url, store)?)
            .with_expr_planners(planners)
            .with_scalar_functions(SessionStateDefaults::default_scalar_functions())
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_physical_optimizer_rule(Arc::new(YieldInJoins))
            // These make rows from arguments; none reads a file.
            .with_table_function_list(SessionStateDefaults::default_table_functions())
            .build();
        Ok(Self { state, store_url })
    }

    /// A session that sees the tables of `snapshot` and nothing else.
    pub(crate) fn session(
        &self,
        snapshot: Snapshot,
        store: Arc<dyn ObjectStore>,
        opener: Arc<dyn SegmentOpener>,
    ) -> Result<SessionState> {
        let readers = Arc::new(SegmentReaderFactory::new(store, opener));
        let schema = MemorySchemaProvider::new();
        for table in snapshot.tables {
            let name = table.name.to_string();
            let table = SnapshotTable::new(table, Arc::clone(&readers), self.store_url.clone());
            schema.register_table(name, Arc::new(table))?;
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::new(schema))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.into(), Arc::new(catalog));
        Ok(SessionStateBuilder::new_from_existing(self.state.clone()).with_catalog_list(Arc::new(catalogs)).build())
    }

    /// The memory that running queries hold, and its limit.
    pub(crate) fn runtime(&self) -> &Arc<RuntimeEnv> {
        self.state.runtime_env()
    }
}

fn config(settings: &QuerySettings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.partitions())
        .with_parquet_pruning(true)
        .with_parquet_page_index_pruning(true)
        // Our writer never makes them: Parquet writes them in plaintext.
        .with_parquet_bloom_filter_pruning(false);
    let options = config.options_mut();
    options.execution.parquet.pushdown_filters = true;
    options.sql_parser.collect_spans = true;
    // Results keep plain strings: not every reader of Arrow IPC knows string views.
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

fn runtime(settings: &QuerySettings, url: &ObjectStoreUrl, store: Arc<dyn ObjectStore>) -> Result<Arc<RuntimeEnv>> {
    let stores = DefaultObjectStoreRegistry::new();
    // It comes with the whole local file system.
    stores.deregister_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    stores.register_store(url.as_ref(), store);
    RuntimeEnvBuilder::new()
        // Spilled rows would be plaintext on disk.
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(settings.memory_bytes)))
        // Nothing of a segment outlives its query.
        .with_metadata_cache_limit(0)
        .with_file_statistics_cache_limit(0)
        .with_object_list_cache_limit(0)
        .with_object_store_registry(Arc::new(stores))
        .build_arc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_store_but_the_segments_is_known() {
        let template = SessionTemplate::new(&QuerySettings::default(), Arc::new(object_store::memory::InMemory::new()))
            .expect("default settings");
        let runtime = template.runtime();
        assert!(runtime.object_store(ObjectStoreUrl::local_filesystem()).is_err());
        assert!(runtime.object_store(ObjectStoreUrl::parse("logseal://other").expect("valid")).is_err());
        assert!(runtime.object_store(ObjectStoreUrl::parse("logseal://store").expect("valid")).is_ok());
        assert!(!runtime.disk_manager.tmp_files_enabled());
    }
}
