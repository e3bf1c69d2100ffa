//! The tables of a workspace and their attribute columns, shared by all scans.
//!
//! Columns are only ever added, in one order, so that who stores them can ask for those from a position on. A scan works
//! on a snapshot and registers the columns it needs in one step that either takes them all or none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::datatypes::FieldRef;
use logseal_core::{TableName, limit};

use crate::schema::{AttributeColumn, AttributeContainer, AttributeKind, attribute_field};

/// Bounds on what senders can make a workspace's schema grow to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SchemaLimits {
    /// Tables; records for one more land in `logs`.
    pub tables: usize,
    /// Attribute columns of a table, over its three containers together; further attributes stay in `overflow`.
    pub attribute_columns: usize,
    /// Longest key in bytes that becomes a column.
    pub key_bytes: usize,
}

impl Default for SchemaLimits {
    fn default() -> Self {
        Self {
            tables: limit::TABLES_PER_WORKSPACE,
            attribute_columns: limit::ATTRIBUTE_COLUMNS,
            key_bytes: limit::COLUMN_KEY_BYTES,
        }
    }
}

/// The tables of one workspace. The table `logs` is always there.
#[derive(Debug)]
pub struct WorkspaceSchema {
    limits: SchemaLimits,
    logs: Arc<TableSchema>,
    tables: RwLock<BTreeMap<Box<str>, Arc<TableSchema>>>,
}

impl WorkspaceSchema {
    /// A workspace with the table `logs`, which has no attribute columns yet.
    #[must_use]
    pub fn new(limits: SchemaLimits) -> Self {
        let logs = Arc::new(TableSchema::new(TableName::logs(), limits));
        let tables = BTreeMap::from([(Box::from("logs"), Arc::clone(&logs))]);
        Self { limits, logs, tables: RwLock::new(tables) }
    }

    /// Adds what was stored: the table `name` and its columns in their order of assignment. Limits do not apply, for
    /// they may have been lowered since; a column that exists already stays as it is.
    pub fn restore(&self, name: &TableName, columns: Vec<AttributeColumn>) {
        let table = {
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            let entry = tables.entry(name.as_str().into());
            Arc::clone(entry.or_insert_with(|| Arc::new(TableSchema::new(name.clone(), self.limits))))
        };
        let mut known = table.columns.write().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::make_mut(&mut known);
        for column in columns {
            if known.get(column.container, &column.key).is_none() {
                known.push(column.container, &column.key, column.kind);
            }
        }
    }

    /// The table `name`, if there is one.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<Arc<TableSchema>> {
        self.find(name.as_str())
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<TableSchema>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    /// The table that records asking for `requested` land in: that table, created up to the limit, else `logs`.
    #[must_use]
    pub fn table_or_logs(&self, requested: &str) -> Arc<TableSchema> {
        if let Some(table) = self.find(requested) {
            return table;
        }
        let Ok(name) = TableName::parse(requested) else { return Arc::clone(&self.logs) };
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(requested) {
            return Arc::clone(table);
        }
        if tables.len() >= self.limits.tables {
            return Arc::clone(&self.logs);
        }
        let table = Arc::new(TableSchema::new(name, self.limits));
        tables.insert(requested.into(), Arc::clone(&table));
        table
    }

    /// All tables, sorted by name.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<TableSchema>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// How many tables more there may be.
    pub(crate) fn free_tables(&self) -> usize {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner).len();
        self.limits.tables.saturating_sub(tables)
    }

    pub(crate) fn limits(&self) -> SchemaLimits {
        self.limits
    }
}

/// A table's name and its attribute columns.
#[derive(Debug)]
pub struct TableSchema {
    name: TableName,
    limits: SchemaLimits,
    columns: RwLock<Arc<Columns>>,
}

impl TableSchema {
    fn new(name: TableName, limits: SchemaLimits) -> Self {
        Self { name, limits, columns: RwLock::default() }
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// The attribute columns in order of assignment; the list only ever grows at its end.
    #[must_use]
    pub fn columns(&self) -> Vec<AttributeColumn> {
        self.columns_from(0)
    }

    /// How many attribute columns there are.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns.read().unwrap_or_else(PoisonError::into_inner).list.len()
    }

    /// The attribute columns from position `first` on.
    #[must_use]
    pub fn columns_from(&self, first: usize) -> Vec<AttributeColumn> {
        self.snapshot().list.get(first..).unwrap_or_default().to_vec()
    }

    /// The kind of the column for `key`: that of the existing one, else `kind`, which it then has for ever. Nothing when
    /// the key is empty or too long, or the table has all the columns it may have.
    pub fn assign(&self, container: AttributeContainer, key: &str, kind: AttributeKind) -> Option<AttributeKind> {
        let mut columns = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(column) = columns.get(container, key) {
            return Some(column.kind);
        }
        if !column_key(key, &self.limits) || columns.list.len() >= self.limits.attribute_columns {
            return None;
        }
        Arc::make_mut(&mut columns).push(container, key, kind);
        Some(kind)
    }

    /// The columns as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Columns> {
        Arc::clone(&self.columns.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds all of `new` or, when one of them exists with another kind or there is no room for all, none.
    pub(crate) fn register(&self, new: &[(AttributeContainer, &str, AttributeKind)]) -> bool {
        let mut columns = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        let mut missing = 0;
        for (container, key, kind) in new {
            match columns.get(*container, key) {
                Some(column) if column.kind == *kind => {}
                Some(_) => return false,
                None => missing += 1,
            }
        }
        if missing == 0 {
            return true;
        }
        if columns.list.len() + missing > self.limits.attribute_columns {
            return false;
        }
        let columns = Arc::make_mut(&mut columns);
        for (container, key, kind) in new {
            if columns.get(*container, key).is_none() {
                columns.push(*container, key, *kind);
            }
        }
        true
    }
}

/// Whether `key` may be a column's name.
pub(crate) fn column_key(key: &str, limits: &SchemaLimits) -> bool {
    !key.is_empty() && key.len() <= limits.key_bytes
}

/// What is known about one column.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) kind: AttributeKind,
    pub(crate) field: FieldRef,
}

/// The attribute columns of a table at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    list: Vec<AttributeColumn>,
    index: [HashMap<Box<str>, Known>; 3],
}

impl Columns {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn get(&self, container: AttributeContainer, key: &str) -> Option<&Known> {
        self.index[container.index()].get(key)
    }

    fn push(&mut self, container: AttributeContainer, key: &str, kind: AttributeKind) {
        self.index[container.index()].insert(key.into(), Known { kind, field: attribute_field(key, kind) });
        self.list.push(AttributeColumn { container, key: key.into(), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttributeContainer::{Record, Resource};

    fn small() -> WorkspaceSchema {
        WorkspaceSchema::new(SchemaLimits { tables: 2, attribute_columns: 2, key_bytes: 3 })
    }

    #[test]
    fn tables_are_created_up_to_the_limit_and_invalid_names_are_logs() {
        let schema = small();
        assert_eq!(schema.table_or_logs("not a name").name().as_str(), "logs");
        assert_eq!(schema.table_or_logs("audit").name().as_str(), "audit");
        assert_eq!(schema.table_or_logs("third").name().as_str(), "logs");
        assert_eq!(schema.table_or_logs("audit").name().as_str(), "audit");
        assert!(schema.table(&TableName::parse("third").unwrap()).is_none());
        assert_eq!(schema.tables().iter().map(|t| t.name().to_string()).collect::<Vec<_>>(), ["audit", "logs"]);
    }

    #[test]
    fn the_first_kind_stays_and_limits_hold() {
        let schema = small();
        let logs = schema.table_or_logs("logs");
        assert_eq!(logs.assign(Record, "a", AttributeKind::Int), Some(AttributeKind::Int));
        assert_eq!(logs.assign(Record, "a", AttributeKind::Bool), Some(AttributeKind::Int));
        assert_eq!(logs.assign(Record, "", AttributeKind::Int), None);
        assert_eq!(logs.assign(Record, "long", AttributeKind::Int), None);
        assert_eq!(logs.assign(Resource, "a", AttributeKind::Bool), Some(AttributeKind::Bool));
        assert_eq!(logs.assign(Record, "b", AttributeKind::Int), None, "the table is full");
        assert_eq!(logs.columns_from(1), logs.columns()[1..]);
        assert_eq!(logs.columns_from(9), []);
    }

    #[test]
    fn registering_takes_all_or_nothing() {
        let schema = small();
        let logs = schema.table_or_logs("logs");
        logs.assign(Record, "a", AttributeKind::Int);
        let string = AttributeKind::String;
        assert!(!logs.register(&[(Record, "b", string), (Record, "a", string)]), "another kind");
        assert!(!logs.register(&[(Record, "b", string), (Record, "c", string)]), "no room for both");
        assert_eq!(logs.columns().len(), 1);
        assert!(logs.register(&[(Record, "a", AttributeKind::Int), (Record, "b", string)]));
        assert_eq!(logs.columns().len(), 2);
    }

    #[test]
    fn restored_columns_keep_their_order() {
        let schema = small();
        let column = |key: &str| AttributeColumn { container: Record, key: key.into(), kind: AttributeKind::Int };
        let stored = vec![column("z"), column("a"), column("beyond the limits")];
        schema.restore(&TableName::parse("old").unwrap(), stored.clone());
        assert_eq!(schema.table(&TableName::parse("old").unwrap()).unwrap().columns(), stored);
    }
}
