//! The catalog: clusters, workspaces, wrapped keys, tables and segments in SQL (SQLite).
//!
//! It holds no log content. Attribute names are sealed under the workspace's account key; counts, sizes, time ranges and the
//! names of clusters, workspaces and tables are in clear. Every row that decides which key opens which data carries a MAC
//! under the root key and is checked when it is read, so that who can write the file can neither plant a key nor swap a
//! segment. A row that was removed, or an older copy of the whole file, is not noticed by a MAC.
//!
//! It also knows the files of the write-ahead log and which of their frames are settled: in a segment that was committed in the
//! same transaction, or quarantined. Ranges of one stream in one file never overlap, so no record gets into two segments.
//!
//! And it keeps what the control plane has to know: resources, operations, what was destroyed, what is to be deleted from the store,
//! and the audit trail, in which each record names the one before it: there a record that was removed is noticed.
//!
//! All changes go through one task and one connection, which groups waiting changes into one transaction
//! ([`writer`]); reads use read-only connections. `synchronous=FULL` makes a commit durable when it returns.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`rows`] | the rows as values, and what their MACs cover |
//! | [`catalog`] | [`Catalog`]: opening and reading |
//! | [`snapshot`] | [`Snapshot`]: what one workspace has, at one moment |
//! | [`control`] | resources and operations |
//! | [`audit`] | the audit trail, and whether it is whole |
//! | [`retention`] | what is to go, and what went |
//! | [`tokens`] | tokens of the management API |
//! | [`usage`] | what workspaces have sent on a day |
//! | [`key_uses`] | when access keys were last presented |
//! | [`scrub`] | [`Catalog::scrub`]: no trace of what was deleted |
//! | [`change`] | [`Change`]: what can be changed |
//! | [`writer`] | the task that applies changes |
//! | `changes` | what each change does, in SQL |
//! | [`mod@backup`] | [`backup()`]: a copy while a server runs |
//! | [`coverage`] | [`coverage_of`]: settled frames of some files, for who only looks |
//! | [`wraps`] | how often account keys may have sealed |
//! | [`kek_use`] | [`KekUse`]: which key versions wrap how many account keys |
//! | `schema` | the SQL of the tables |

pub mod audit;
pub mod backup;
pub mod catalog;
pub mod change;
mod changes;
mod codec;
pub mod control;
pub mod coverage;
pub mod error;
pub mod kek_use;
pub mod key_uses;
pub mod retention;
pub mod rows;
mod schema;
pub mod scrub;
pub mod snapshot;
pub mod tokens;
pub mod usage;
pub mod wraps;
pub mod writer;

pub use audit::{AuditFault, AuditVerdict};
pub use backup::backup;
pub use catalog::Catalog;
pub use change::{Change, SegmentCommit};
pub use control::{OperationFilter, ResourceFilter};
pub use coverage::coverage_of;
pub use error::CatalogError;
pub use kek_use::KekUse;
pub use retention::GenerationSize;
pub use rows::{
    AekRow, AekWrapsRow, AuditEntry, AuditHead, AuditRow, ClusterRow, ColumnRow, CoverageRow, GarbageRow, KekRow,
    KekVersionRow, OperationRow, OperationState, ResourceKind, ResourceRow, SegmentRow, ShreddedRow, TableRow,
    TokenRow, UsageRow, WalFileRow, WalFileState, WorkspaceKeyRow, WorkspaceKeyUseRow, WorkspaceRow,
};
pub use snapshot::Snapshot;
pub use tokens::RefusedToken;
