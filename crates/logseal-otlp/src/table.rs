//! The rows of one table while a request is scanned: attribute slots, the open chunk, and the budget that bounds both.
//!
//! A slot is a key that has, or by this request gets, a column. Senders repeat their attributes in the same order, so the
//! slot of an attribute is first guessed from its position in the record before; a guess costs one comparison of keys
//! and a miss one hash look-up. Keys are borrowed from the request, nothing is allocated for a record.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StructArray};
use arrow::datatypes::{FieldRef, Fields};
use arrow::error::ArrowError;
use logseal_core::{TableName, UnixNanos};

use crate::columns::{Cells, FixedColumns, kind};
use crate::json;
use crate::overflow;
use crate::record::{Attribute, NO_SLOT, Record};
use crate::scan::TableChunk;
use crate::schema::{AttributeContainer, AttributeKind, attribute_field};
use crate::value::{TextCheck, Value};
use crate::workspace::{Columns, SchemaLimits, TableSchema, column_key};

/// Positions in a record whose slot is guessed; later ones are looked up.
const GUESSED_POSITIONS: usize = 1024;

/// Attribute columns of a chunk that reserve memory; a sender may make up thousands for a single row.
const RESERVING_COLUMNS: usize = 64;

/// What a request may still cost beyond its own size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Null cells of attribute columns.
    pub(crate) null_cells: u64,
    /// Bytes of resource and scope values that are repeated in further rows.
    pub(crate) repeated_bytes: u64,
}

impl Budget {
    fn take_nulls(&mut self, count: usize) -> bool {
        let left = u64::try_from(count).ok().and_then(|count| self.null_cells.checked_sub(count));
        self.null_cells = left.unwrap_or(self.null_cells);
        left.is_some()
    }
}

#[derive(Debug)]
struct Slot<'a> {
    container: AttributeContainer,
    key: &'a str,
    kind: AttributeKind,
    /// The field of a column that the shared schema has; nothing for one that this request wants to add.
    field: Option<FieldRef>,
    /// Whether any value was put into it.
    used: bool,
    /// The last pass of [`Table::assign`] that met the key, and the position where.
    met: (u64, usize),
    /// The column in the open chunk.
    cells: Option<Cells>,
}

/// Builders of a chunk and the times of its records.
#[derive(Debug)]
struct Chunk {
    fixed: FixedColumns,
    columns: Vec<(u32, Cells)>,
    rows: usize,
    min_time: i64,
    max_time: i64,
}

/// A table and its rows in the request.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    name: TableName,
    schema: Option<Arc<TableSchema>>,
    known: Arc<Columns>,
    limits: SchemaLimits,
    slots: Vec<Slot<'a>>,
    index: [HashMap<&'a str, u32>; 3],
    guesses: [Vec<u32>; 3],
    new_slots: usize,
    pass: u64,
    closed: Option<Chunk>,
    fixed: FixedColumns,
    open_columns: usize,
    expected: usize,
    rows: usize,
    min_time: i64,
    max_time: i64,
    members: String,
    scratch: String,
    texts: TextCheck,
    /// Whether a text that was to be looked at later, and that no column has, is not UTF-8.
    found_bytes: bool,
    built: Vec<Built>,
}

/// A chunk that is made, but for the table that it belongs to.
#[derive(Debug)]
struct Built {
    batch: RecordBatch,
    min_time: i64,
    max_time: i64,
}

impl<'a> Table<'a> {
    /// The table `name`; without `schema` it does not exist yet. Memory is reserved for `expected` rows.
    pub(crate) fn new(
        name: TableName,
        schema: Option<Arc<TableSchema>>,
        limits: SchemaLimits,
        expected: usize,
        texts: TextCheck,
    ) -> Self {
        let known = schema.as_ref().map(|schema| schema.snapshot()).unwrap_or_default();
        Self {
            name,
            schema,
            known,
            limits,
            slots: Vec::new(),
            index: Default::default(),
            guesses: Default::default(),
            new_slots: 0,
            pass: 0,
            closed: None,
            fixed: FixedColumns::new(expected, texts),
            texts,
            found_bytes: false,
            built: Vec::new(),
            open_columns: 0,
            expected,
            rows: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            members: String::new(),
            scratch: String::new(),
        }
    }

    pub(crate) fn name(&self) -> &TableName {
        &self.name
    }

    /// Rows of the open chunk.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn fixed(&mut self) -> &mut FixedColumns {
        &mut self.fixed
    }

    /// Finds the slot of each attribute, [`NO_SLOT`] for those that go to `overflow`: of another kind than the column,
    /// repeated later in the list, or beyond the limits. Returns how many got one.
    pub(crate) fn assign(
        &mut self,
        container: AttributeContainer,
        attributes: &mut [Attribute<'a>],
        mint: bool,
    ) -> usize {
        self.pass += 1;
        let mut assigned = 0;
        for position in 0..attributes.len() {
            let Attribute { key, value, .. } = attributes[position];
            let kind = kind(value);
            attributes[position].slot = NO_SLOT;
            let Some(index) = self.slot(container, position, key, kind, mint) else { continue };
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            if slot.met.0 == self.pass {
                // The last of several with the same key is the one that counts.
                let earlier = &mut attributes[slot.met.1].slot;
                assigned -= usize::from(*earlier != NO_SLOT);
                *earlier = NO_SLOT;
            }
            slot.met = (self.pass, position);
            if let Some(kind) = kind {
                if slot.field.is_none() && !slot.used {
                    slot.kind = kind;
                }
                if slot.kind == kind {
                    attributes[position].slot = index;
                    assigned += 1;
                }
            }
        }
        assigned
    }

    #[inline]
    fn slot(
        &mut self,
        container: AttributeContainer,
        position: usize,
        key: &'a str,
        kind: Option<AttributeKind>,
        mint: bool,
    ) -> Option<u32> {
        let guess = self.guesses[container.index()].get(position).copied().unwrap_or(NO_SLOT);
        // The key of an expected attribute is the very text of the record before.
        if self.slots.get(guess as usize).is_some_and(|slot| std::ptr::eq(slot.key, key) || slot.key == key) {
            return Some(guess);
        }
        let found =
            self.index[container.index()].get(key).copied().or_else(|| self.add(container, key, kind?, mint))?;
        if position < GUESSED_POSITIONS {
            let guesses = &mut self.guesses[container.index()];
            if guesses.len() <= position {
                guesses.resize(position + 1, NO_SLOT);
            }
            guesses[position] = found;
        }
        Some(found)
    }

    #[cold]
    fn add(&mut self, container: AttributeContainer, key: &'a str, kind: AttributeKind, mint: bool) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok()?;
        let (kind, field) = if let Some(known) = self.known.get(container, key) {
            (known.kind, Some(Arc::clone(&known.field)))
        } else {
            let room = self.known.len() + self.new_slots < self.limits.attribute_columns;
            if !mint || !room || !column_key(key, &self.limits) {
                return None;
            }
            self.new_slots += 1;
            (kind, None)
        };
        self.slots.push(Slot { container, key, kind, field, used: false, met: (0, 0), cells: None });
        self.index[container.index()].insert(key, index);
        Some(index)
    }

    /// Makes sure that the open chunk has the slot's column; false when there is no budget for its nulls so far.
    #[inline]
    pub(crate) fn open_column(&mut self, slot: u32, budget: &mut Budget) -> bool {
        let Some(slot) = self.slots.get_mut(slot as usize) else { return false };
        if slot.cells.is_some() {
            return true;
        }
        // A second chunk is only begun when the budget is used up; it has no attribute columns.
        if self.closed.is_some() || !budget.take_nulls(self.rows) {
            return false;
        }
        let expected = if self.open_columns < RESERVING_COLUMNS { self.expected } else { 0 };
        slot.cells = Some(Cells::new(slot.kind, expected));
        slot.used = true;
        self.open_columns += 1;
        true
    }

    /// Puts `value` into `count` rows of an open column.
    pub(crate) fn fill_column(&mut self, slot: u32, first_row: usize, count: usize, value: Value<'_>) {
        if let Some(cells) = self.slots.get_mut(slot as usize).and_then(|slot| slot.cells.as_mut()) {
            cells.put_n(first_row, count, value, &mut self.scratch);
        }
    }

    /// The bytes that a cell of `value` takes besides its fixed width.
    pub(crate) fn text_bytes(&mut self, value: Value<'_>) -> u64 {
        let length = match value {
            Value::String(text) => text.len(),
            Value::Text(bytes) | Value::Bytes(bytes) => bytes.len(),
            Value::Array(_) | Value::Kvlist(_) => {
                self.scratch.clear();
                json::any_value(&mut self.scratch, value);
                self.scratch.len()
            }
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
        };
        u64::try_from(length).unwrap_or(u64::MAX / 2)
    }

    /// Takes from the budget the nulls of a row that fills `filled` attribute columns; false when it has not so many,
    /// then the chunk must be [`cut`](Self::cut).
    pub(crate) fn take_row_nulls(&self, filled: usize, budget: &mut Budget) -> bool {
        budget.take_nulls(self.open_columns.saturating_sub(filled))
    }

    /// Closes the open chunk and begins one without attribute columns: what was a null cell for each column becomes text
    /// in `overflow`, in proportion to the request again. Resource and scope must have been flushed.
    pub(crate) fn cut(&mut self) {
        let chunk = self.take_chunk();
        self.closed.get_or_insert(chunk);
    }

    fn take_chunk(&mut self) -> Chunk {
        let columns =
            (0..).zip(&mut self.slots).filter_map(|(index, slot)| Some((index, slot.cells.take()?))).collect();
        let chunk = Chunk {
            fixed: std::mem::replace(&mut self.fixed, FixedColumns::new(0, self.texts)),
            columns,
            rows: self.rows,
            min_time: self.min_time,
            max_time: self.max_time,
        };
        self.rows = 0;
        self.open_columns = 0;
        self.min_time = i64::MAX;
        self.max_time = i64::MIN;
        chunk
    }

    /// Appends a record whose attributes were assigned. `shared` are the overflow members of its resource and scope.
    pub(crate) fn append(&mut self, record: &Record<'a>, shared: [&str; 2], received: UnixNanos, budget: &mut Budget) {
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        let mut first = true;
        for attribute in &record.attributes {
            let slot = self.slots.get_mut(attribute.slot as usize);
            if let Some(cells) = slot.and_then(|slot| slot.cells.as_mut()) {
                cells.put(self.rows, attribute.value, &mut self.scratch);
            } else if attribute.slot != NO_SLOT && self.open_column(attribute.slot, budget) {
                self.fill_column(attribute.slot, self.rows, 1, attribute.value);
            } else {
                self.found_bytes |= matches!(attribute.value, Value::Text(text) if std::str::from_utf8(text).is_err());
                overflow::attribute(&mut members, &mut first, attribute.key, attribute.value);
            }
        }
        if !first {
            members.push(']');
        }
        let time = self.fixed.put_record(self.rows, record, received, &mut members, &mut self.scratch);
        self.fixed.put_overflow(self.rows, [&members, shared[0], shared[1]], &mut self.scratch);
        self.min_time = self.min_time.min(time);
        self.max_time = self.max_time.max(time);
        self.rows += 1;
        self.members = members;
    }

    /// Makes the batches of all rows: none, one, or two after a [`cut`](Self::cut). Nothing is added any more.
    ///
    /// # Errors
    ///
    /// When a text is not UTF-8 that was to be looked at [later](TextCheck::Later).
    pub(crate) fn build(&mut self, received: UnixNanos) -> Result<(), ArrowError> {
        let last = self.take_chunk();
        for chunk in self.closed.take().into_iter().chain([last]).filter(|chunk| chunk.rows > 0) {
            let built = self.build_chunk(chunk, received)?;
            self.built.push(built);
        }
        if self.found_bytes {
            return Err(ArrowError::InvalidArgumentError("a text is not UTF-8".to_owned()));
        }
        Ok(())
    }

    fn build_chunk(&self, chunk: Chunk, received: UnixNanos) -> Result<Built, ArrowError> {
        let mut structs: [Option<StructArray>; 3] = [None, None, None];
        let mut children: [Vec<_>; 3] = Default::default();
        for (index, cells) in chunk.columns {
            let slot = &self.slots[index as usize];
            children[slot.container.index()].push((slot, cells));
        }
        for (structure, mut children) in structs.iter_mut().zip(children) {
            if children.is_empty() {
                continue;
            }
            children.sort_unstable_by_key(|(slot, _)| slot.key);
            let field = |slot: &Slot<'_>| match &slot.field {
                Some(field) => Arc::clone(field),
                None => attribute_field(slot.key, slot.kind),
            };
            let fields: Fields = children.iter().map(|(slot, _)| field(slot)).collect();
            let arrays = children.into_iter().map(|(_, cells)| cells.finish(chunk.rows)).collect::<Result<_, _>>()?;
            *structure = Some(StructArray::try_new(fields, arrays, None)?);
        }
        let batch = chunk.fixed.finish(chunk.rows, received, structs)?;
        Ok(Built { batch, min_time: chunk.min_time, max_time: chunk.max_time })
    }

    /// Makes the shared schema have the table and the columns that this request added, once all is [built](Self::build); false when that is not
    /// possible any more, because another request added something else meanwhile.
    pub(crate) fn register(&mut self, create: impl FnOnce(&str) -> Arc<TableSchema>) -> bool {
        if self.built.is_empty() {
            return true;
        }
        let schema = self.schema.get_or_insert_with(|| create(self.name.as_str()));
        let new = self.slots.iter().filter(|slot| slot.field.is_none() && slot.used);
        let new: Vec<_> = new.map(|slot| (slot.container, slot.key, slot.kind)).collect();
        *schema.name() == self.name && (new.is_empty() || schema.register(&new))
    }

    /// Adds the chunks of a table that is registered to `chunks`.
    pub(crate) fn into_chunks(self, chunks: &mut Vec<TableChunk>) {
        let Some(schema) = self.schema else { return };
        chunks.extend(self.built.into_iter().map(|built| TableChunk {
            schema: Arc::clone(&schema),
            batch: built.batch,
            min_time: UnixNanos(built.min_time),
            max_time: UnixNanos(built.max_time),
        }));
    }
}
