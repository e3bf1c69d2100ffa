//! The entry point: limits, result and error of a scan, and how its columns get into the shared schema.
//!
//! A scan assigns columns for itself, seeded from a snapshot of the shared schema. Only when the whole request has been
//! decoded are the new ones registered, so that an undecodable request changes nothing. If a concurrent scan was faster
//! with another kind, or took the last free column, the request is scanned again on a fresh snapshot; after a few such
//! races it is scanned without adding anything, and what has no column goes to `overflow`.
//!
//! # What a request can cost
//!
//! Time is proportional to the request's bytes plus the cells of its batches. Memory, with the default limits:
//!
//! | what | bound |
//! | --- | --- |
//! | fixed columns | about 100 bytes a record, `records_per_request` records |
//! | a record's own text, also as JSON | about 9 times its protobuf bytes; usually once |
//! | resource and scope values, repeated in each row | `repeated_bytes`; beyond it the record is rejected |
//! | null cells (rows times attribute columns, less the values) | `null_cells` of at most 8.125 bytes each; beyond it attributes go to `overflow` |
//! | columns | about a kilobyte for each attribute column of a chunk, `attribute_columns` of each table that the request names |
//! | slots, guesses | `attribute_columns` a table, `attributes_per_container` entries of 64 bytes |
//!
//! A column's nulls are only filled in when its next value comes, or at the end; the budget is charged at once. So 4,096
//! columns and a million records, which would be 4 billion cells, end after `null_cells` of them: the chunk is closed and
//! the rest of the table's rows go to a second chunk without attribute columns, their attributes in `overflow`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use logseal_core::{UnixNanos, limit};
use thiserror::Error;

use crate::request::Scanner;
use crate::value::TextCheck;
use crate::workspace::{TableSchema, WorkspaceSchema};

/// Most repeated bytes whatever the limits say: with nine times [`limit::REQUEST_BYTES`] of other text a column stays below
/// the 2 GiB that its 32-bit offsets reach.
const REPEATED_BYTES: u64 = 1 << 30;

/// Scans that may lose the race for a column before one gives up adding columns.
const ATTEMPTS: usize = 3;

/// Bounds on what one request can make a scan do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScanLimits {
    /// Deepest nesting of values, the outermost one included; never more than [`limit::VALUE_NESTING`].
    pub value_nesting: usize,
    /// Records accepted from one request; an empty one is two bytes on the wire and about a hundred in columns.
    pub records_per_request: u64,
    /// Attributes of one record, one resource or one scope.
    pub attributes_per_container: usize,
    /// Null cells in attribute columns that the chunks of one request may have.
    pub null_cells: u64,
    /// Bytes by which the values of resources and scopes may grow by being repeated in rows; never more than 1 GiB.
    pub repeated_bytes: u64,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self {
            value_nesting: limit::VALUE_NESTING,
            records_per_request: 1_000_000,
            attributes_per_container: 1 << 17,
            // 260 MiB of 64-bit numbers. 100,000 records that use 30 of 200 columns have 17 million.
            null_cells: 1 << 25,
            // A batch of the collector's default size, 8192 records, under a resource of 32 KiB.
            repeated_bytes: 256 * 1024 * 1024,
        }
    }
}

/// The rows that a request adds to one table.
#[derive(Clone, Debug)]
pub struct TableChunk {
    /// The table.
    pub schema: Arc<TableSchema>,
    /// The rows. Its schema has all fixed columns; the struct columns have only the children that occur in it, and a
    /// struct column without children is left out.
    pub batch: RecordBatch,
    /// The earliest value of the column `time`.
    pub min_time: UnixNanos,
    /// The latest value of the column `time`.
    pub max_time: UnixNanos,
}

/// What a decodable request gave.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The accepted records. Usually one chunk a table; two when a table had very many columns and rows.
    pub chunks: Vec<TableChunk>,
    /// How many records are in the chunks.
    pub accepted: u64,
    /// How many records were rejected.
    pub rejected: u64,
    /// Why, for the first of them: their positions in the request and what to do; never text from a record.
    pub rejection: Option<String>,
    /// Strings that are not UTF-8 and were kept as bytes.
    pub replaced_utf8: u64,
    /// References into a string table, which log requests do not have; they were taken as absent.
    pub ignored_string_references: u64,
}

/// The request as a whole was refused; the shared schema is as it was.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The bytes are not an `ExportLogsServiceRequest`.
    #[error("the request is not decodable as protobuf at byte {offset}: {fault}")]
    Undecodable {
        /// Where in the request.
        offset: usize,
        /// What is wrong there.
        fault: &'static str,
    },
    /// Longer than any configuration allows; columns could reach 2 GiB, where 32-bit offsets end.
    #[error("the request has {bytes} bytes, more than {max}", max = limit::REQUEST_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The columns do not fit together: a defect of this crate.
    #[error("the columns do not form a batch")]
    Columns(#[source] ArrowError),
}

/// Reads an `ExportLogsServiceRequest` into columns, adding tables and attribute columns to `schema` as needed.
///
/// # Errors
///
/// When the request as a whole is refused; then `schema` is unchanged.
pub fn scan(
    request: &[u8],
    schema: &WorkspaceSchema,
    received: UnixNanos,
    limits: &ScanLimits,
) -> Result<Scanned, ScanError> {
    if request.len() > limit::REQUEST_BYTES {
        return Err(ScanError::TooLarge { bytes: request.len() });
    }
    let limits = ScanLimits {
        value_nesting: limits.value_nesting.min(limit::VALUE_NESTING),
        repeated_bytes: limits.repeated_bytes.min(REPEATED_BYTES),
        ..*limits
    };
    let mut texts = TextCheck::Later;
    let mut races = 0;
    loop {
        // Without adding anything there is nothing to register, so the last scan cannot fail for a race.
        let mint = races < ATTEMPTS;
        match attempt(request, schema, received, &limits, mint, texts)? {
            Attempt::Scanned(scanned) => return Ok(scanned),
            Attempt::NotUtf8 => texts = TextCheck::Now,
            Attempt::Raced if mint => races += 1,
            Attempt::Raced => {
                return Err(ScanError::Columns(ArrowError::SchemaError("a race without new columns".to_owned())));
            }
        }
    }
}

/// How a scan ended.
enum Attempt {
    Scanned(Scanned),
    /// The columns that it needs could not be registered.
    Raced,
    /// A text that was to be looked at later is not UTF-8.
    NotUtf8,
}

fn attempt(
    request: &[u8],
    schema: &WorkspaceSchema,
    received: UnixNanos,
    limits: &ScanLimits,
    mint: bool,
    texts: TextCheck,
) -> Result<Attempt, ScanError> {
    let mut scanner = Scanner::new(schema, received, limits, mint, texts);
    scanner.request(request).map_err(|error| ScanError::Undecodable {
        offset: error.address.saturating_sub(request.as_ptr().addr()),
        fault: error.fault.text(),
    })?;
    for table in &mut scanner.tables {
        match (table.build(received), texts) {
            (Ok(()), _) => (),
            (Err(_), TextCheck::Later) => return Ok(Attempt::NotUtf8),
            (Err(error), TextCheck::Now) => return Err(ScanError::Columns(error)),
        }
    }
    for table in &mut scanner.tables {
        if !table.register(|name| schema.table_or_logs(name)) {
            return Ok(Attempt::Raced);
        }
    }
    let rejection = scanner.rejection();
    let mut chunks = Vec::with_capacity(scanner.tables.len());
    for table in scanner.tables {
        table.into_chunks(&mut chunks);
    }
    Ok(Attempt::Scanned(Scanned {
        chunks,
        accepted: scanner.accepted,
        rejected: scanner.rejected,
        rejection,
        replaced_utf8: scanner.replaced_utf8,
        ignored_string_references: scanner.string_references,
    }))
}
