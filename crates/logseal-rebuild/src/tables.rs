//! Tables and columns as the catalog has them, while segments add theirs.

use std::collections::HashMap;

use logseal_catalog::{Catalog, ColumnRow, TableRow};
use logseal_core::{TableId, TableName, WorkspaceId};
use logseal_crypto::Aek;
use logseal_keys::{KeyError, Keyring, schema};
use logseal_segment::SegmentFooter;

/// The tables of one workspace.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    by_id: HashMap<TableId, Columns>,
    ids: HashMap<TableName, TableId>,
}

/// The columns of one table. Not `Debug`: keys are log content.
#[derive(Default)]
struct Columns {
    name: Option<TableName>,
    /// Kind by container and key.
    kinds: HashMap<(u8, String), u8>,
    next_ordinal: u32,
}

impl std::fmt::Debug for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Columns").field("name", &self.name).field("count", &self.kinds.len()).finish_non_exhaustive()
    }
}

/// What a segment's commit adds to its table.
#[derive(Debug)]
pub(crate) struct Additions {
    pub(crate) table: TableRow,
    pub(crate) columns: Vec<ColumnRow>,
    /// The table's next free ordinal after them.
    pub(crate) next_ordinal: u32,
}

impl Tables {
    /// Reads the tables of `workspace`.
    pub(crate) async fn load(catalog: &Catalog, keyring: &Keyring, workspace: WorkspaceId) -> Result<Self, KeyError> {
        let snapshot = catalog.schema(workspace).await?;
        let mut tables = Self::default();
        for row in snapshot.tables {
            tables.ids.insert(row.name.clone(), row.id);
            tables.by_id.insert(row.id, Columns { name: Some(row.name), ..Columns::default() });
        }
        for row in snapshot.columns {
            let key = schema::open_column_name(&*keyring.aek(row.aek).await?, &row)?;
            let columns = tables.by_id.entry(row.table).or_default();
            columns.kinds.insert((row.container, key), row.kind);
            columns.next_ordinal = columns.next_ordinal.max(row.ordinal.saturating_add(1));
        }
        Ok(tables)
    }

    /// What the catalog lacks of what `footer` says about its table.
    ///
    /// Columns are matched by container and key. Their ordinals are the order in which this catalog came to know them and nothing in a
    /// segment depends on it: after the log was replayed into an older catalog they may have come in another order. Their kinds must
    /// agree, since a segment's values are of the kind that its footer says.
    ///
    /// # Errors
    ///
    /// Why the two do not agree.
    pub(crate) fn additions(&self, footer: &SegmentFooter, aek: &Aek) -> Result<Additions, &'static str> {
        match (self.by_id.get(&footer.table), self.ids.get(&footer.table_name)) {
            (_, Some(other)) if *other != footer.table => {
                return Err("the catalog has another table of the same name in this workspace");
            }
            (Some(known), _) if known.name.as_ref() != Some(&footer.table_name) => {
                return Err("the catalog has this table under another name");
            }
            _ => {}
        }
        let known = self.by_id.get(&footer.table);
        let mut next = known.map_or(0, |known| known.next_ordinal);
        let mut columns = Vec::new();
        for column in &footer.columns {
            let kind = known.and_then(|known| known.kinds.get(&(column.container, column.key.clone())));
            match kind {
                Some(kind) if *kind == column.kind => {}
                Some(_) => return Err("the catalog has one of its columns with another type"),
                None => {
                    let (container, kind) = (column.container, column.kind);
                    let sealed = schema::seal_column(aek, footer.table, next, container, kind, &column.key);
                    columns.push(sealed.map_err(|_| "its key may not be used")?);
                    next = next.checked_add(1).ok_or("it has more columns than can be counted")?;
                }
            }
        }
        let (id, workspace, name) = (footer.table, footer.workspace, footer.table_name.clone());
        let table = TableRow { id, workspace, name, created: footer.created };
        Ok(Additions { table, columns, next_ordinal: next })
    }

    /// Notes that the catalog has taken what [`Tables::additions`] gave for `footer`.
    pub(crate) fn added(&mut self, footer: &SegmentFooter, next_ordinal: u32) {
        self.ids.insert(footer.table_name.clone(), footer.table);
        let columns = self.by_id.entry(footer.table).or_default();
        columns.name = Some(footer.table_name.clone());
        for column in &footer.columns {
            columns.kinds.insert((column.container, column.key.clone()), column.kind);
        }
        columns.next_ordinal = next_ordinal;
    }
}
