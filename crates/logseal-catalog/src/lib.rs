//! The catalog: clusters, workspaces, wrapped keys, tables and segments in SQL (SQLite).
//!
//! It holds no log content. Attribute names are sealed under the workspace's account key; counts, sizes, time ranges and the
//! names of clusters, workspaces and tables are in clear. Every row that decides which key opens which data carries a MAC
//! under the root key and is checked when it is read, so that who can write the file can neither plant a key nor swap a
//! segment. A row that was removed, or an older copy of the whole file, is not noticed by a MAC.
//!
//! All changes go through one task and one connection, which groups waiting changes into one transaction
//! ([`writer`]); reads use read-only connections. `synchronous=FULL` makes a commit durable when it returns.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`rows`] | the rows as values, and what their MACs cover |
//! | [`catalog`] | [`Catalog`]: opening and reading |
//! | [`writer`] | [`Change`] and the task that applies them |
//! | `schema` | the SQL of the tables |

pub mod catalog;
mod codec;
pub mod error;
pub mod rows;
mod schema;
pub mod writer;

pub use catalog::Catalog;
pub use error::CatalogError;
pub use rows::{AekRow, ClusterRow, ColumnRow, KekRow, SegmentRow, TableRow, WorkspaceKeyRow, WorkspaceRow};
pub use writer::{Change, SegmentCommit};
