//! The walk over a request: resources, scopes, records; which of them are accepted, and into which table.
//!
//! Resource and scope are read before the records that share them, wherever they are in their message, so each such
//! message is walked twice; the first walk only looks at keys and lengths of records.

use std::collections::HashMap;

use logseal_core::{TableName, UnixNanos};

use crate::record::{Bounds, Record};
use crate::scan::ScanLimits;
use crate::schema::AttributeContainer;
use crate::shared::Shared;
use crate::table::{Budget, Table};
use crate::value::{Flaw, TextCheck};
use crate::wire::{LENGTH_DELIMITED, Messages, Wire, WireError, key};
use crate::workspace::WorkspaceSchema;

const RESOURCE_LOGS: u32 = key(1, LENGTH_DELIMITED);

// The fields of `ResourceLogs` and, with the scope in the resource's place, of `ScopeLogs`.
const OWNER: u32 = key(1, LENGTH_DELIMITED);
const CHILDREN: u32 = key(2, LENGTH_DELIMITED);
const CHILDREN_NUMBER: u32 = 2;
const SCHEMA_URL: u32 = key(3, LENGTH_DELIMITED);

/// Most rejections that the message describes one by one.
const DESCRIBED: usize = 3;

/// Resource attribute that names the table.
const TABLE_ATTRIBUTE: &str = "logseal.table";

/// Why a record is rejected.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Flaw(&'static str, Flaw),
    TooManyRecords,
    Repeated,
}

impl Reason {
    fn describe(self, limits: &ScanLimits) -> String {
        match self {
            Self::Flaw(place, Flaw::KeyNotUtf8) => {
                format!("a key in its {place} is not UTF-8; send keys as UTF-8 text")
            }
            Self::Flaw(place, Flaw::TooDeep) => {
                format!("a value in its {place} is nested deeper than {}; flatten it", limits.value_nesting)
            }
            Self::Flaw(place, Flaw::TooManyAttributes) => {
                format!("its {place} has more than {} attributes; send fewer", limits.attributes_per_container)
            }
            Self::TooManyRecords => {
                format!("the request has more than {} records; send smaller requests", limits.records_per_request)
            }
            Self::Repeated => format!(
                "the values of its resource and scope, repeated for each record, take more than {} bytes; \
                 send smaller requests or smaller resources",
                limits.repeated_bytes
            ),
        }
    }
}

/// The state of one scan.
#[derive(Debug)]
pub(crate) struct Scanner<'a, 's> {
    schema: &'s WorkspaceSchema,
    received: UnixNanos,
    limits: &'s ScanLimits,
    bounds: Bounds,
    /// Whether columns and tables may be added.
    mint: bool,
    budget: Budget,
    free_tables: usize,
    pub(crate) tables: Vec<Table<'a>>,
    table_index: HashMap<&'a str, usize>,
    resource: Shared<'a>,
    scope: Shared<'a>,
    record: Record<'a>,
    /// The table of the current resource, once one of its records was accepted.
    target: Option<usize>,
    /// Records of the current scope.
    expected: usize,
    pub(crate) accepted: u64,
    rejections: Vec<(u64, Reason)>,
    pub(crate) rejected: u64,
    pub(crate) replaced_utf8: u64,
    pub(crate) string_references: u64,
}

impl<'a, 's> Scanner<'a, 's> {
    pub(crate) fn new(
        schema: &'s WorkspaceSchema,
        received: UnixNanos,
        limits: &'s ScanLimits,
        mint: bool,
        texts: TextCheck,
    ) -> Self {
        Self {
            schema,
            received,
            limits,
            bounds: Bounds {
                nesting: limits.value_nesting.saturating_sub(1),
                attributes: limits.attributes_per_container,
                texts,
            },
            mint,
            budget: Budget { null_cells: limits.null_cells, repeated_bytes: limits.repeated_bytes },
            free_tables: if mint { schema.free_tables() } else { 0 },
            tables: Vec::new(),
            table_index: HashMap::new(),
            resource: Shared::new(AttributeContainer::Resource),
            scope: Shared::new(AttributeContainer::Scope),
            record: Record::default(),
            target: None,
            expected: 0,
            accepted: 0,
            rejections: Vec::new(),
            rejected: 0,
            replaced_utf8: 0,
            string_references: 0,
        }
    }

    pub(crate) fn request(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                RESOURCE_LOGS => self.resource_logs(wire.bytes()?)?,
                _ => wire.unknown(field, 1..=1)?,
            }
        }
        Ok(())
    }

    fn resource_logs(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        self.resource.clear();
        self.target = None;
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                OWNER => self.resource.merge_resource(wire.bytes()?, self.bounds)?,
                SCHEMA_URL => self.resource.schema_url = wire.bytes()?,
                CHILDREN => wire.bytes().map(drop)?,
                _ => wire.unknown(field, 1..=3)?,
            }
        }
        for scope_logs in Messages::new(message, CHILDREN_NUMBER) {
            self.scope_logs(scope_logs)?;
        }
        if let Some(table) = self.target.and_then(|target| self.tables.get_mut(target))
            && self.resource.flush(table)
        {
            self.replaced_utf8 += self.resource.findings.replaced_utf8;
            self.string_references += self.resource.findings.string_references;
        }
        Ok(())
    }

    fn scope_logs(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        self.scope.clear();
        self.expected = 0;
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                OWNER => self.scope.merge_scope(wire.bytes()?, self.bounds)?,
                SCHEMA_URL => self.scope.schema_url = wire.bytes()?,
                CHILDREN => {
                    wire.bytes()?;
                    self.expected += 1;
                }
                _ => wire.unknown(field, 1..=3)?,
            }
        }
        for record in Messages::new(message, CHILDREN_NUMBER) {
            self.record.parse(record, self.bounds)?;
            match self.accept() {
                Ok(()) => {
                    self.accepted += 1;
                    self.replaced_utf8 += self.record.findings.replaced_utf8;
                    self.string_references += self.record.findings.string_references;
                }
                Err(reason) => {
                    if self.rejections.len() < DESCRIBED {
                        self.rejections.push((self.accepted + self.rejected, reason));
                    }
                    self.rejected += 1;
                }
            }
        }
        if let Some(table) = self.target.and_then(|target| self.tables.get_mut(target))
            && self.scope.flush(table)
        {
            self.replaced_utf8 += self.scope.findings.replaced_utf8;
            self.string_references += self.scope.findings.string_references;
        }
        Ok(())
    }

    /// Appends the current record to its table, or says why not; then nothing has changed.
    fn accept(&mut self) -> Result<(), Reason> {
        let findings = [
            ("attributes or body", &self.record.findings),
            ("resource", &self.resource.findings),
            ("scope", &self.scope.findings),
        ];
        if let Some(reason) = findings.into_iter().find_map(|(place, f)| Some(Reason::Flaw(place, f.flaw?))) {
            return Err(reason);
        }
        if self.accepted >= self.limits.records_per_request {
            return Err(Reason::TooManyRecords);
        }
        let target = self.target.unwrap_or_else(|| self.open_table());
        self.target = Some(target);
        let Some(table) = self.tables.get_mut(target) else { return Err(Reason::TooManyRecords) };
        let (resource, scope, budget) = (&mut self.resource, &mut self.scope, &mut self.budget);
        resource.bind(table, self.mint, budget);
        scope.bind(table, self.mint, budget);
        let repeated = resource.repeated_bytes(table.rows()).saturating_add(scope.repeated_bytes(table.rows()));
        let Some(left) = budget.repeated_bytes.checked_sub(repeated) else { return Err(Reason::Repeated) };
        budget.repeated_bytes = left;

        let own = match self.record.assigned {
            Some((table, own)) if table == target => own,
            _ => table.assign(AttributeContainer::Record, &mut self.record.attributes, self.mint),
        };
        self.record.assigned = Some((target, own));
        let filled = own + resource.filled_columns() + scope.filled_columns();
        if !table.take_row_nulls(filled, budget) {
            resource.flush(table);
            scope.flush(table);
            table.cut();
            resource.bind(table, self.mint, budget);
            scope.bind(table, self.mint, budget);
        }
        let shared = [resource.overflow_members(), scope.overflow_members()];
        table.append(&self.record, shared, self.received, budget);
        Ok(())
    }

    /// The table of the current resource, as an index into `tables`.
    fn open_table(&mut self) -> usize {
        let requested = self.resource.string(TABLE_ATTRIBUTE).unwrap_or("logs");
        if let Some(index) = self.table_index.get(requested) {
            return *index;
        }
        let index = self.find_table(requested);
        // Names that end up in `logs` are not remembered: a sender may make up any number of them.
        if self.tables.get(index).is_some_and(|table| table.name().as_str() == requested) {
            self.table_index.insert(requested, index);
        }
        index
    }

    fn find_table(&mut self, requested: &str) -> usize {
        let existing = self.schema.find(requested);
        let name = TableName::parse(requested).ok().filter(|_| {
            existing.is_some() || {
                let room = self.free_tables > 0;
                self.free_tables = self.free_tables.saturating_sub(1);
                room
            }
        });
        let (name, existing) = match name {
            Some(name) => (name, existing),
            None => (TableName::logs(), self.schema.find("logs")),
        };
        if let Some(index) = self.tables.iter().position(|table| *table.name() == name) {
            return index;
        }
        self.tables.push(Table::new(name, existing, self.schema.limits(), self.expected, self.bounds.texts));
        self.tables.len() - 1
    }

    /// What the sender is told about the rejected records; never their content.
    pub(crate) fn rejection(&self) -> Option<String> {
        let mut described = self.rejections.iter().map(|(index, reason)| {
            format!("log record {index} of the request (counted from 0) was rejected: {}", reason.describe(self.limits))
        });
        let mut text = described.next()?;
        for more in described {
            text.push_str(". ");
            text.push_str(&more);
        }
        let more = self.rejected.saturating_sub(u64::try_from(self.rejections.len()).unwrap_or(0));
        if more > 0 {
            text.push_str(&format!(". {more} more were rejected"));
        }
        Some(text)
    }
}
