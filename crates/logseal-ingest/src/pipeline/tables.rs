//! The tables and columns of each workspace in memory: what scans assign, and what the catalog has of it.
//!
//! A table and its columns are in the catalog before a record that needs them goes to the log. So a replay finds the same ones, and
//! decides nothing anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use logseal_catalog::{Catalog, CatalogError, Change, ColumnRow, TableRow};
use logseal_core::{Clock, IdGenerator, TableId, TableName, WorkspaceId};
use logseal_crypto::{Aek, WrapError};
use logseal_keys::{KeyError, Keyring, schema};
use logseal_otlp::{AttributeColumn, AttributeContainer, AttributeKind, SchemaLimits, TableSchema, WorkspaceSchema};

use crate::expansion::Learned;

/// Links of a workspace that are followed while one request adds columns; each takes an operation, so a second one is rare.
const LINKS: u32 = 8;

/// All workspaces.
#[derive(Debug)]
pub struct Tables {
    limits: SchemaLimits,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
    workspaces: RwLock<HashMap<WorkspaceId, Arc<WorkspaceTables>>>,
}

/// The tables of one workspace: one object for as long as it is served, wherever it is linked to, so that its columns are assigned by one.
#[derive(Debug)]
pub struct WorkspaceTables {
    workspace: WorkspaceId,
    name: Arc<str>,
    schema: WorkspaceSchema,
    tables: Mutex<HashMap<TableName, Arc<Table>>>,
    learned: Learned,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// The name of its workspace.
    pub workspace_name: Arc<str>,
    /// Its row.
    pub row: TableRow,
    schema: Arc<TableSchema>,
    /// One more than the columns that the catalog has, from the first on; 0 when it does not have the table yet.
    durable: AtomicUsize,
    /// Held while missing rows are added, so that each is added once and in order.
    adding: tokio::sync::Mutex<()>,
}

impl Tables {
    /// No workspaces yet; each gets at most `limits`.
    #[must_use]
    pub fn new(limits: SchemaLimits, ids: IdGenerator, clock: Arc<dyn Clock>) -> Self {
        Self { limits, ids, clock, workspaces: RwLock::default() }
    }

    /// Loads a workspace from the catalog; nothing is done when it is loaded.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when its rows cannot be read or its column names do not open.
    pub async fn load(
        &self,
        catalog: &Catalog,
        keyring: &Keyring,
        workspace: WorkspaceId,
        name: &str,
    ) -> Result<(), KeyError> {
        if self.workspace(workspace).is_some() {
            return Ok(());
        }
        let snapshot = catalog.schema(workspace).await?;
        let loaded = WorkspaceTables {
            workspace,
            name: name.into(),
            schema: WorkspaceSchema::new(self.limits),
            tables: Mutex::default(),
            learned: Learned::default(),
            ids: self.ids.clone(),
            clock: Arc::clone(&self.clock),
        };
        for row in snapshot.tables {
            let mut columns = Vec::new();
            for column in snapshot.columns.iter().filter(|column| column.table == row.id) {
                // A column's position is how commits know it: a gap means that a row was removed.
                if column.ordinal as usize != columns.len() {
                    let id = format!("{}/{}", row.id, columns.len());
                    return Err(CatalogError::Integrity { kind: "column", id }.into());
                }
                let aek = keyring.aek(column.aek).await?;
                columns.push(open_column(&aek, column)?);
            }
            loaded.restore(row, columns);
        }
        let mut workspaces = self.workspaces.write().unwrap_or_else(PoisonError::into_inner);
        // The first one stays: requests may have assigned columns in it.
        workspaces.entry(workspace).or_insert_with(|| Arc::new(loaded));
        Ok(())
    }

    /// `workspace` is gone. Requests under way end with its tables as they were.
    pub fn remove(&self, workspace: WorkspaceId) {
        self.workspaces.write().unwrap_or_else(PoisonError::into_inner).remove(&workspace);
    }

    /// The tables of `workspace`; `None` until it is loaded.
    #[must_use]
    pub fn workspace(&self, workspace: WorkspaceId) -> Option<Arc<WorkspaceTables>> {
        self.workspaces.read().unwrap_or_else(PoisonError::into_inner).get(&workspace).map(Arc::clone)
    }
}

impl WorkspaceTables {
    /// The table with the id `id`.
    #[must_use]
    pub fn by_id(&self, id: TableId) -> Option<Arc<Table>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.values().find(|table| table.row.id == id).map(Arc::clone)
    }

    /// What its requests were seen to become in memory.
    #[must_use]
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What scans write into.
    #[must_use]
    pub fn schema(&self) -> &WorkspaceSchema {
        &self.schema
    }

    /// The table that `schema` describes, with a new id when it is new.
    #[must_use]
    pub fn table(&self, schema: &Arc<TableSchema>) -> Arc<Table> {
        self.table_or_new(schema, None)
    }

    /// The table that `schema` describes and a frame of the log calls `id`. A catalog that is older than the frame lacks the table:
    /// then it gets this id, so that what is known of the frame by its id stays true. A table that is there keeps its own.
    #[must_use]
    pub fn table_of_frame(&self, schema: &Arc<TableSchema>, id: TableId) -> Arc<Table> {
        self.table_or_new(schema, Some(id))
    }

    fn table_or_new(&self, schema: &Arc<TableSchema>, id: Option<TableId>) -> Arc<Table> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let free = id.filter(|id| tables.values().all(|table| table.row.id != *id));
        let table = tables.entry(schema.name().clone()).or_insert_with(|| {
            let row = TableRow {
                id: free.unwrap_or_else(|| TableId::from(self.ids.next())),
                workspace: self.workspace,
                name: schema.name().clone(),
                created: self.clock.now(),
            };
            Arc::new(self.make(row, Arc::clone(schema), 0))
        });
        Arc::clone(table)
    }

    fn make(&self, row: TableRow, schema: Arc<TableSchema>, durable: usize) -> Table {
        Table {
            workspace_name: Arc::clone(&self.name),
            row,
            schema,
            durable: durable.into(),
            adding: tokio::sync::Mutex::default(),
        }
    }

    fn restore(&self, row: TableRow, columns: Vec<AttributeColumn>) {
        let durable = columns.len() + 1;
        self.schema.restore(&row.name, columns);
        if let Some(schema) = self.schema.table(&row.name) {
            let table = self.make(row, schema, durable);
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.insert(table.row.name.clone(), Arc::new(table));
        }
    }
}

impl Table {
    /// Its attribute columns.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Adds to the catalog what it does not have yet of the table and its columns, their names sealed by `aek`, or by the key that the
    /// workspace got since. Usually it has all and nothing is done.
    ///
    /// # Errors
    ///
    /// [`KeyError::Catalog`] when the catalog cannot take the rows, [`KeyError::LeaseOver`], and as [`Keyring::newest`] and
    /// [`Keyring::reserve_wraps`].
    pub async fn make_durable(&self, catalog: &Catalog, keyring: &Keyring, aek: &Arc<Aek>) -> Result<(), KeyError> {
        let needed = self.schema.column_count() + 1;
        if self.durable.load(Ordering::Acquire) >= needed {
            return Ok(());
        }
        let _one_at_a_time = self.adding.lock().await;
        let first = self.durable.load(Ordering::Acquire).saturating_sub(1);
        let columns = self.schema.columns_from(first);
        let mut aek = Arc::clone(aek);
        let mut links = 0;
        loop {
            keyring.reserve_wraps(&aek, columns.len() as u64).await?;
            let seal = |(index, column): (usize, &AttributeColumn)| {
                let ordinal = u32::try_from(first + index).unwrap_or(u32::MAX);
                schema::seal_column(
                    &aek,
                    self.row.id,
                    ordinal,
                    column.container.code(),
                    column.kind.code(),
                    &column.key,
                )
            };
            let rows: Vec<ColumnRow> = columns.iter().enumerate().map(seal).collect::<Result<_, WrapError>>()?;
            match catalog.apply(Change::AddTable { table: self.row.clone(), columns: rows }).await {
                // The workspace was linked to another cluster since the request took its key.
                Err(CatalogError::Stale { .. }) if links < LINKS => {
                    aek = keyring.newest(self.row.workspace).await?;
                    links += 1;
                }
                added => {
                    added?;
                    self.durable.store(first + columns.len() + 1, Ordering::Release);
                    return Ok(());
                }
            }
        }
    }
}

/// An attribute column from its catalog row.
///
/// # Errors
///
/// [`KeyError::LeaseOver`], and [`KeyError::ColumnName`] when the name does not open or a code is unknown.
pub fn open_column(aek: &Aek, row: &ColumnRow) -> Result<AttributeColumn, KeyError> {
    let key = schema::open_column_name(aek, row)?.into_boxed_str();
    let container = AttributeContainer::from_code(row.container);
    let kind = AttributeKind::from_code(row.kind);
    let (Some(container), Some(kind)) = (container, kind) else { return Err(KeyError::ColumnName(aek.workspace())) };
    Ok(AttributeColumn { container, key, kind })
}

#[cfg(test)]
impl WorkspaceTables {
    /// A workspace that no catalog knows.
    pub(crate) fn for_test(workspace: WorkspaceId) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(logseal_core::SystemClock);
        Self {
            workspace,
            name: "w".into(),
            schema: WorkspaceSchema::new(SchemaLimits::default()),
            tables: Mutex::default(),
            learned: Learned::default(),
            ids: IdGenerator::new(Arc::clone(&clock), Arc::new(logseal_crypto::OsRandom)),
            clock,
        }
    }
}
