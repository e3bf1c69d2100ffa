//! The catalog's rows as values, and what the MAC of each covers: every field.

/// A row with a MAC.
pub(crate) trait Authenticated {
    /// The kind of row: the MAC's domain, and the word in error messages.
    const KIND: &'static str;

    /// The row's id for error messages.
    fn label(&self) -> String;

    /// Every field of the row as bytes.
    fn fields(&self) -> Vec<Vec<u8>>;
}

macro_rules! authenticated {
    ($row:ty, $kind:literal, |$r:ident| $label:expr, [$($field:expr),+ $(,)?]) => {
        impl Authenticated for $row {
            const KIND: &'static str = $kind;
            fn label(&self) -> String {
                let $r = self;
                $label
            }
            fn fields(&self) -> Vec<Vec<u8>> {
                let $r = self;
                vec![$($field.to_vec()),+]
            }
        }
    };
}

mod accounts;
mod control;
mod data;
mod tokens;
mod wal;

pub use accounts::{
    AekRow, AekWrapsRow, ClusterRow, KekRow, KekVersionRow, WorkspaceKeyRow, WorkspaceKeyUseRow, WorkspaceRow,
};
pub use control::{AuditEntry, AuditHead, AuditRow, OperationRow, OperationState, ResourceKind, ResourceRow};
pub use data::{ColumnRow, GarbageRow, SegmentRow, ShreddedRow, TableRow, UsageRow};
pub use tokens::TokenRow;
pub use wal::{CoverageRow, WalFileRow, WalFileState};
