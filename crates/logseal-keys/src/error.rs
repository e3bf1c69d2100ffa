//! What can go wrong with keys.

use std::sync::Arc;

use logseal_catalog::CatalogError;
use logseal_core::{AekId, ClusterId, SegmentId, WorkspaceId};
use logseal_crypto::{LeaseOver, WrapError, WrapsExhausted};
use logseal_vault::{VaultError, VaultErrorClass};
use thiserror::Error;

use crate::keyring::Suspension;

/// A failed key operation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The vault refused or failed.
    #[error("the key vault cannot unwrap the account key `{aek}`")]
    Vault {
        /// The account key.
        aek: AekId,
        /// What the vault said.
        #[source]
        source: VaultError,
    },
    /// An unwrapped key is not the one that its row commits to.
    #[error("account key `{0}` is not the key that its catalog row commits to: the wrapped key was replaced")]
    Commitment(AekId),
    /// A segment's wrapped DEK does not open.
    #[error("the data key of segment `{0}` does not open: its catalog row was altered or belongs to another key")]
    SegmentKey(SegmentId),
    /// A sealed attribute name does not open.
    #[error("a column name of workspace `{0}` does not open: its catalog row was altered or belongs to another key")]
    ColumnName(WorkspaceId),
    /// A sealed access key does not open.
    #[error("the stored access key `{slot}` of workspace `{workspace}` does not open")]
    AccessKey {
        /// The workspace.
        workspace: WorkspaceId,
        /// `primary` or `secondary`.
        slot: String,
    },
    /// There is no such account key.
    #[error("account key `{0}` is not in the catalog")]
    UnknownAek(AekId),
    /// The account key was destroyed, and what it protects with it.
    #[error("account key `{0}` was destroyed")]
    Shredded(AekId),
    /// The workspace has no account key.
    #[error("workspace `{0}` has no account key")]
    NoAek(WorkspaceId),
    /// The newest account key is another cluster's than the one that the workspace is linked to: the one that belongs to the link is lost.
    #[error(
        "the newest account key of workspace `{workspace}` is one of cluster `{cluster}`, which the workspace is not linked to"
    )]
    Unlinked {
        /// The workspace.
        workspace: WorkspaceId,
        /// Whose key it is.
        cluster: ClusterId,
    },
    /// The key may not be used any more, or not now.
    #[error(transparent)]
    LeaseOver(#[from] LeaseOver),
    /// The key may not seal before more is reserved for it.
    #[error(transparent)]
    Wraps(#[from] WrapsExhausted),
    /// The cluster that the key belongs to does not serve.
    #[error("{0}")]
    Suspended(Arc<Suspension>),
    /// The workspace is not available until the server is started again.
    #[error("workspace `{workspace}` is not available: {why}")]
    Refused {
        /// The workspace.
        workspace: WorkspaceId,
        /// What cannot be had of it; an error with its causes, which are not at hand any more.
        why: Arc<str>,
    },
    /// The catalog failed.
    #[error("the catalog cannot give the keys")]
    Catalog(#[from] CatalogError),
    /// The copy of a wrapped key could not be stored.
    #[error("cannot store the copy of a wrapped account key")]
    Copy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The copy of a wrapped key in the store cannot be used.
    #[error("the copy of a wrapped account key `{path}` cannot be used: {why}")]
    BadCopy {
        /// The object's path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The copy of a wrapped key in the store was written by a later version of this program.
    #[error(
        "the copy of a wrapped account key `{path}` has format {format}, this version of logseal knows format {known}"
    )]
    NewerCopy {
        /// The object's path.
        path: String,
        /// Its format.
        format: u32,
        /// The format that this version knows.
        known: u32,
    },
    /// A row names a key that no vault can have.
    #[error("catalog row of account key `{0}` names an impossible key")]
    KekName(AekId),
}

impl From<WrapError> for KeyError {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::LeaseOver(source) => source.into(),
            WrapError::Exhausted(source) => source.into(),
        }
    }
}

impl KeyError {
    /// Whether this stays so until somebody repairs a row of the catalog, or what the vault has. What is not lasting may succeed when
    /// it is tried again.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Vault { source, .. } => {
                source.class() == VaultErrorClass::Refusal
                    || matches!(source, VaultError::BadWrap(_) | VaultError::Integrity { .. } | VaultError::Rsa(_))
            }
            Self::Catalog(error) => matches!(error, CatalogError::Integrity { .. }),
            Self::Copy(_) | Self::LeaseOver(_) | Self::Wraps(_) | Self::Suspended(_) => false,
            Self::Commitment(_)
            | Self::SegmentKey(_)
            | Self::ColumnName(_)
            | Self::AccessKey { .. }
            | Self::UnknownAek(_)
            | Self::Shredded(_)
            | Self::NoAek(_)
            | Self::Unlinked { .. }
            | Self::Refused { .. }
            | Self::BadCopy { .. }
            | Self::NewerCopy { .. }
            | Self::KekName(_) => true,
        }
    }
}
