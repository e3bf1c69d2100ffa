//! OTLP protobuf bytes to Arrow columns.
//!
//! [`scan()`] reads the bytes of an `ExportLogsServiceRequest` once and puts what it finds into growing Arrow columns, with no
//! message structs in between: those cost more than the whole scan. A request is either undecodable, then it is
//! refused and leaves no trace ([`ScanError`]), or it becomes [`TableChunk`]s plus a count of records that were
//! rejected one by one ([`Scanned`]).
//!
//! How each field of OTLP maps to a column is documented in [`schema`], and nowhere else.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`schema`] | the table's columns: [`AttributeContainer`], [`AttributeKind`], [`AttributeColumn`], [`arrow_schema`] |
//! | [`workspace`] | the tables of a workspace and their attribute columns: [`WorkspaceSchema`], [`TableSchema`] |
//! | [`scan`](mod@scan) | the entry point [`scan()`], its limits, its result; how columns are assigned |
//! | [`json_request`] | requests in OTLP/JSON, made protobuf: [`from_json`] |
//! | `count` | [`framed_records`]: how many records a request has |
//! | [`merge`](mod@merge) | chunks with different attribute columns made into one batch: [`merge()`] |
//! | `request` | the walk over request, resources and scopes |
//! | `record` | one log record's fields |
//! | `shared` | what a resource or a scope gives to each of its records |
//! | `value` | `AnyValue`: checks, last-one-wins, merging |
//! | `wire` | protobuf's framing, by the rules that prost applies |
//! | `json` | values as OTLP JSON |
//! | `overflow` | the column `overflow`: what no other column holds exactly |
//! | `table` | the rows of one table while a request is scanned |
//! | `columns` | the fixed and the attribute columns while they are made |
//! | `build` | arrays that grow row by row |

mod build;
mod columns;
mod count;
mod json;
pub mod json_request;
pub mod merge;
mod overflow;
mod record;
mod request;
pub mod scan;
pub mod schema;
mod shared;
mod table;
mod value;
mod wire;
pub mod workspace;

pub use count::framed_records;
pub use json_request::{JsonError, from_json};
pub use merge::merge;
pub use scan::{ScanError, ScanLimits, Scanned, TableChunk, scan};
pub use schema::{AttributeColumn, AttributeContainer, AttributeKind, arrow_schema};
pub use workspace::{SchemaLimits, TableSchema, WorkspaceSchema};
