//! SQL over sealed segments: DataFusion reads the encrypted Parquet files of one workspace, and beside them the rows that
//! are acknowledged and in no segment yet.
//!
//! The crate knows neither the catalog nor the keys nor the write-ahead log: what it needs of them are ports,
//! [`SegmentCatalog`] (which tables, segments and unsealed rows are there), [`SegmentOpener`] (how one segment is
//! decrypted) and [`ParkedRows`] (rows that only the log has). A query takes one snapshot, plans against it, and reads
//! each segment that its predicates cannot exclude. Segments are never skipped silently: one that is missing, of the
//! wrong size, or does not decrypt fails the query by name. Neither are unsealed rows: a log that cannot be read fails it.
//!
//! Nothing a query reads is written anywhere: spilling is off, no metadata is kept beyond the query, the only object
//! store that a plan can name is the segments' own, and neither SQL text nor engine errors are logged.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`engine`] | [`QueryEngine`], [`QueryResult`], [`describe_metrics`] |
//! | [`error`] | [`QueryError`] and its [`QueryErrorKind`] |
//! | [`format`](mod@format) | results as text table, JSON, CSV, Arrow IPC and Azure's JSON tables |
//! | [`port`] | [`SegmentCatalog`], [`SegmentOpener`], [`ParkedRows`], [`Snapshot`], [`PortError`] |
//! | [`settings`] | [`QuerySettings`] |
//! | `statement` | SQL text to one allowed statement |
//! | `attribute` | `attributes['k']` for keys that no record has |
//! | `cooperation` | lets a canceled query stop inside a join |
//! | `classify` | DataFusion's errors in the caller's words |
//! | `wording` | DataFusion's sentences made readable |
//! | `listing` | SHOW TABLES and DESCRIBE |
//! | `session` | the DataFusion session: functions, catalog, options, memory |
//! | `table` | a table: its segments and its unsealed rows, pruned by time |
//! | `time_range` | time ranges for pruning and for exact statistics |
//! | `unsealed` | the scan of rows that are in no segment yet |
//! | `conform` | unsealed batches joined and brought under the table's schema |
//! | `source` | names the segment in every read error, contains panics |
//! | `reader` | opens one encrypted segment, sizes checked first |
//! | `runtime` | own threads for CPU work |

mod attribute;
mod classify;
mod conform;
mod cooperation;
mod listing;
mod reader;
mod runtime;
mod session;
mod source;
mod statement;
mod table;
mod time_range;
mod unsealed;
mod wording;

pub mod engine;
pub mod error;
pub mod format;
pub mod port;
pub mod settings;

pub use engine::{QueryEngine, QueryResult, describe_metrics};
pub use error::{Position, QueryError, QueryErrorKind, SegmentFault};
pub use port::{
    Lag, ParkedRows, PortError, PortErrorKind, SegmentCatalog, SegmentOpener, SegmentRef, Snapshot, TableSnapshot,
    Unsealed,
};
pub use settings::QuerySettings;
