//! What a resource or a scope gives to each of its records: parsed once, appended as a run of equal rows.

use crate::columns::FixedColumns;
use crate::json;
use crate::overflow;
use crate::record::{Attribute, Bounds, NO_SLOT, push_attribute};
use crate::schema::AttributeContainer;
use crate::table::{Budget, Table};
use crate::value::{Findings, Value};
use crate::wire::{LENGTH_DELIMITED, VARINT, Wire, WireError, key};

// The fields of `Resource`.
const RESOURCE_ATTRIBUTES: u32 = key(1, LENGTH_DELIMITED);
const RESOURCE_DROPPED: u32 = key(2, VARINT);
const RESOURCE_ENTITY_REFS: u32 = key(3, LENGTH_DELIMITED);

// The fields of `InstrumentationScope`.
const SCOPE_NAME: u32 = key(1, LENGTH_DELIMITED);
const SCOPE_VERSION: u32 = key(2, LENGTH_DELIMITED);
const SCOPE_ATTRIBUTES: u32 = key(3, LENGTH_DELIMITED);
const SCOPE_DROPPED: u32 = key(4, VARINT);

// The fields of `EntityRef`.
const ENTITY_SCHEMA_URL: u32 = key(1, LENGTH_DELIMITED);
const ENTITY_TYPE: u32 = key(2, LENGTH_DELIMITED);
const ENTITY_ID_KEYS: u32 = key(3, LENGTH_DELIMITED);
const ENTITY_DESCRIPTION_KEYS: u32 = key(4, LENGTH_DELIMITED);

/// What an attribute cell of a fixed width costs in a row; the charge for each repeated cell besides its text.
const CELL_BYTES: u64 = 8;

/// A resource or a scope.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    container: AttributeContainer,
    pub(crate) attributes: Vec<Attribute<'a>>,
    pub(crate) dropped_attributes_count: u32,
    pub(crate) name: &'a [u8],
    pub(crate) version: &'a [u8],
    pub(crate) schema_url: &'a [u8],
    /// The elements of `entityRefs` as JSON.
    entity_refs: String,
    pub(crate) findings: Findings,
    bound: Option<Bound>,
}

/// A resource or a scope in the open chunk of a table.
#[derive(Debug)]
struct Bound {
    /// The table's first row that belongs to it.
    first_row: usize,
    /// How many attribute columns it fills.
    columns: usize,
    /// What one more row of it adds.
    row_bytes: u64,
    /// Its members of the overflow object.
    members: String,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(container: AttributeContainer) -> Self {
        Self {
            container,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            name: &[],
            version: &[],
            schema_url: &[],
            entity_refs: String::new(),
            findings: Findings::default(),
            bound: None,
        }
    }

    /// Forgets the content, for the next resource or scope.
    pub(crate) fn clear(&mut self) {
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.clear();
        *self = Self { attributes, ..Self::new(self.container) };
    }

    /// Merges a `Resource` message.
    pub(crate) fn merge_resource(&mut self, message: &'a [u8], bounds: Bounds) -> Result<(), WireError> {
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                RESOURCE_ATTRIBUTES => {
                    push_attribute(&mut self.attributes, wire.bytes()?, bounds, &mut self.findings)?;
                }
                RESOURCE_DROPPED => self.dropped_attributes_count = wire.uint32()?,
                RESOURCE_ENTITY_REFS => self.push_entity_ref(wire.bytes()?)?,
                _ => wire.unknown(field, 1..=3)?,
            }
        }
        Ok(())
    }

    /// Merges an `InstrumentationScope` message.
    pub(crate) fn merge_scope(&mut self, message: &'a [u8], bounds: Bounds) -> Result<(), WireError> {
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                SCOPE_NAME => self.name = wire.bytes()?,
                SCOPE_VERSION => self.version = wire.bytes()?,
                SCOPE_ATTRIBUTES => push_attribute(&mut self.attributes, wire.bytes()?, bounds, &mut self.findings)?,
                SCOPE_DROPPED => self.dropped_attributes_count = wire.uint32()?,
                _ => wire.unknown(field, 1..=4)?,
            }
        }
        Ok(())
    }

    fn push_entity_ref(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let (mut schema_url, mut kind): (&[u8], &[u8]) = (&[], &[]);
        let (mut ids, mut descriptions) = (String::new(), String::new());
        let push = |list: &mut String, key| {
            if !list.is_empty() {
                list.push(',');
            }
            json::text_or_bytes(list, key);
        };
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                ENTITY_SCHEMA_URL => schema_url = wire.bytes()?,
                ENTITY_TYPE => kind = wire.bytes()?,
                ENTITY_ID_KEYS => push(&mut ids, wire.bytes()?),
                ENTITY_DESCRIPTION_KEYS => push(&mut descriptions, wire.bytes()?),
                _ => wire.unknown(field, 1..=4)?,
            }
        }
        let mut members = String::new();
        for (name, text) in [("schemaUrl", schema_url), ("type", kind)] {
            if !text.is_empty() {
                overflow::member(&mut members, name);
                json::text_or_bytes(&mut members, text);
            }
        }
        for (name, list) in [("idKeys", ids), ("descriptionKeys", descriptions)] {
            if !list.is_empty() {
                overflow::member(&mut members, name);
                members.extend(["[", &list, "]"]);
            }
        }
        if !self.entity_refs.is_empty() {
            self.entity_refs.push(',');
        }
        self.entity_refs.extend(["{", &members, "}"]);
        Ok(())
    }

    /// The value of the last attribute `key`, when it is a string.
    pub(crate) fn string(&self, key: &str) -> Option<&'a str> {
        match self.attributes.iter().rev().find(|attribute| attribute.key == key)?.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Ties the attributes to columns of the table's open chunk, unless that was done before.
    pub(crate) fn bind(&mut self, table: &mut Table<'a>, mint: bool, budget: &mut Budget) {
        if self.bound.is_some() {
            return;
        }
        table.assign(self.container, &mut self.attributes, mint);
        let (mut columns, mut row_bytes) = (0, 0);
        let (mut attributes, mut first) = (String::new(), true);
        for attribute in &mut self.attributes {
            if attribute.slot != NO_SLOT && table.open_column(attribute.slot, budget) {
                columns += 1;
                row_bytes += CELL_BYTES + table.text_bytes(attribute.value);
            } else {
                attribute.slot = NO_SLOT;
                overflow::attribute(&mut attributes, &mut first, attribute.key, attribute.value);
            }
        }
        if !first {
            attributes.push(']');
        }
        let members = self.members(attributes);
        let service_name = if self.is_resource() { self.string("service.name").unwrap_or_default() } else { "" };
        let texts = self.name.len() + self.version.len() + self.schema_url.len() + service_name.len() + members.len();
        row_bytes += u64::try_from(texts).unwrap_or(u64::MAX / 2);
        self.bound = Some(Bound { first_row: table.rows(), columns, row_bytes, members });
    }

    fn is_resource(&self) -> bool {
        self.container == AttributeContainer::Resource
    }

    /// The members of the overflow object, given the member `attributes` of the inner one.
    fn members(&self, mut inner: String) -> String {
        let mut members = String::new();
        let (name, schema_url) =
            if self.is_resource() { ("resource", "resourceSchemaUrl") } else { ("scope", "scopeSchemaUrl") };
        if !self.entity_refs.is_empty() {
            overflow::member(&mut inner, "entityRefs");
            inner.extend(["[", &self.entity_refs, "]"]);
        }
        for (name, text) in [("name", self.name), ("version", self.version)] {
            if std::str::from_utf8(text).is_err() {
                overflow::invalid_text(&mut inner, name, text);
            }
        }
        if !inner.is_empty() {
            overflow::member(&mut members, name);
            members.extend(["{", &inner, "}"]);
        }
        if std::str::from_utf8(self.schema_url).is_err() {
            overflow::invalid_text(&mut members, schema_url, self.schema_url);
        }
        members
    }

    /// What one more row repeats; the first row is no repetition.
    pub(crate) fn repeated_bytes(&self, rows: usize) -> u64 {
        self.bound.as_ref().map_or(0, |bound| if rows > bound.first_row { bound.row_bytes } else { 0 })
    }

    /// How many attribute columns each row fills.
    pub(crate) fn filled_columns(&self) -> usize {
        self.bound.as_ref().map_or(0, |bound| bound.columns)
    }

    /// The members of the overflow object, the same for each row.
    pub(crate) fn overflow_members(&self) -> &str {
        self.bound.as_ref().map_or("", |bound| &bound.members)
    }

    /// Appends the values for all rows since [`bind`](Self::bind), and whether there were any.
    pub(crate) fn flush(&mut self, table: &mut Table<'a>) -> bool {
        let Some(bound) = self.bound.take() else { return false };
        let count = table.rows() - bound.first_row;
        for attribute in &self.attributes {
            if attribute.slot != NO_SLOT {
                table.fill_column(attribute.slot, bound.first_row, count, attribute.value);
            }
        }
        let fixed: &mut FixedColumns = table.fixed();
        if self.is_resource() {
            let service_name = self.string("service.name").unwrap_or_default();
            fixed.put_resource(bound.first_row, count, self.dropped_attributes_count, self.schema_url, service_name);
        } else {
            let texts = [self.name, self.version, self.schema_url];
            fixed.put_scope(bound.first_row, count, self.dropped_attributes_count, texts);
        }
        count > 0
    }
}
