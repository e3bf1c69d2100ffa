//! The tables and columns of each workspace in memory: what scans assign, and what commits have made durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use logseal_catalog::{Catalog, CatalogError, ColumnRow, TableRow};
use logseal_core::{Clock, ClusterId, IdGenerator, TableId, TableName, WorkspaceId};
use logseal_crypto::Aek;
use logseal_keys::{KeyError, Keyring, schema};
use logseal_otlp::{AttributeColumn, AttributeContainer, AttributeKind, SchemaLimits, TableSchema, WorkspaceSchema};

/// All workspaces.
#[derive(Debug)]
pub struct Tables {
    limits: SchemaLimits,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
    workspaces: RwLock<HashMap<WorkspaceId, Arc<WorkspaceTables>>>,
}

/// The tables of one workspace.
#[derive(Debug)]
pub struct WorkspaceTables {
    workspace: WorkspaceId,
    cluster: ClusterId,
    schema: WorkspaceSchema,
    tables: Mutex<HashMap<TableName, Arc<Table>>>,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// The cluster whose keys protect it.
    pub cluster: ClusterId,
    /// Its row, which the first commit adds to the catalog.
    pub row: TableRow,
    schema: Arc<TableSchema>,
    /// How many columns the catalog has, from the first on.
    durable_columns: AtomicUsize,
}

impl Tables {
    /// No workspaces yet; each gets at most `limits`.
    #[must_use]
    pub fn new(limits: SchemaLimits, ids: IdGenerator, clock: Arc<dyn Clock>) -> Self {
        Self { limits, ids, clock, workspaces: RwLock::default() }
    }

    /// Loads a workspace of `cluster` from the catalog.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when its rows cannot be read or its column names do not open.
    pub async fn load(
        &self,
        catalog: &Catalog,
        keyring: &Keyring,
        workspace: WorkspaceId,
        cluster: ClusterId,
    ) -> Result<(), KeyError> {
        let snapshot = catalog.schema(workspace).await?;
        let loaded = WorkspaceTables {
            workspace,
            cluster,
            schema: WorkspaceSchema::new(self.limits),
            tables: Mutex::default(),
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
        workspaces.insert(workspace, Arc::new(loaded));
        Ok(())
    }

    /// The tables of `workspace`; `None` until it is loaded.
    #[must_use]
    pub fn workspace(&self, workspace: WorkspaceId) -> Option<Arc<WorkspaceTables>> {
        self.workspaces.read().unwrap_or_else(PoisonError::into_inner).get(&workspace).map(Arc::clone)
    }
}

impl WorkspaceTables {
    /// What scans write into.
    #[must_use]
    pub fn schema(&self) -> &WorkspaceSchema {
        &self.schema
    }

    /// The table that `schema` describes, with a new id when it is new.
    #[must_use]
    pub fn table(&self, schema: &Arc<TableSchema>) -> Arc<Table> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(schema.name().clone()).or_insert_with(|| {
            let row = TableRow {
                id: TableId::from(self.ids.next()),
                workspace: self.workspace,
                name: schema.name().clone(),
                created: self.clock.now(),
            };
            Arc::new(Table { cluster: self.cluster, row, schema: Arc::clone(schema), durable_columns: 0.into() })
        });
        Arc::clone(table)
    }

    fn restore(&self, row: TableRow, columns: Vec<AttributeColumn>) {
        let durable_columns = columns.len().into();
        self.schema.restore(&row.name, columns);
        if let Some(schema) = self.schema.table(&row.name) {
            let table = Table { cluster: self.cluster, row, schema, durable_columns };
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.insert(table.row.name.clone(), Arc::new(table));
        }
    }
}

impl Table {
    /// The columns that the catalog does not have yet, their names sealed by `aek`.
    #[must_use]
    pub fn new_columns(&self, aek: &Aek) -> Vec<ColumnRow> {
        let first = self.durable_columns.load(Ordering::Acquire);
        let seal = |(index, column): (usize, AttributeColumn)| {
            let ordinal = u32::try_from(first + index).unwrap_or(u32::MAX);
            schema::seal_column(aek, self.row.id, ordinal, column.container.code(), column.kind.code(), &column.key)
        };
        self.schema.columns_from(first).into_iter().enumerate().map(seal).collect()
    }

    /// The catalog now has `columns`.
    pub fn columns_are_durable(&self, columns: &[ColumnRow]) {
        if let Some(last) = columns.last() {
            // Commits may finish in any order, and each brings all columns from the then durable ones on.
            self.durable_columns.fetch_max(last.ordinal as usize + 1, Ordering::AcqRel);
        }
    }
}

/// An attribute column from its catalog row.
///
/// # Errors
///
/// [`KeyError::ColumnName`] when the name does not open or a code is unknown.
pub fn open_column(aek: &Aek, row: &ColumnRow) -> Result<AttributeColumn, KeyError> {
    let key = schema::open_column_name(aek, row)?.into_boxed_str();
    let container = AttributeContainer::from_code(row.container);
    let kind = AttributeKind::from_code(row.kind);
    let (Some(container), Some(kind)) = (container, kind) else { return Err(KeyError::ColumnName(aek.workspace())) };
    Ok(AttributeColumn { container, key, kind })
}
