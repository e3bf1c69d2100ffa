//! What can be changed, as values.

use std::collections::BTreeSet;

use logseal_core::{AekId, ClusterId, ResourceId, SegmentId, UnixNanos, WalFileId, WorkspaceId};

use crate::{
    AekRow, AekWrapsRow, AuditEntry, ClusterRow, ColumnRow, CoverageRow, KekRow, KekVersionRow, OperationRow,
    ResourceRow, SegmentRow, TableRow, TokenRow, UsageRow, WalFileRow, WalFileState, WorkspaceKeyRow,
    WorkspaceKeyUseRow, WorkspaceRow,
};

/// A change of the catalog.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a cluster.
    AddCluster(ClusterRow),
    /// Adds a workspace with its access keys, its first AEK and its tables.
    AddWorkspace {
        /// The workspace.
        workspace: WorkspaceRow,
        /// Its access keys.
        keys: Vec<WorkspaceKeyRow>,
        /// Its first AEK.
        aek: AekRow,
        /// Its tables.
        tables: Vec<TableRow>,
    },
    /// Adds a further AEK of a workspace.
    AddAek(AekRow),
    /// Adds a table and attribute columns of it; what is there already stays as it is. [`CatalogError::Stale`](crate::CatalogError::Stale)
    /// when a column is sealed under another AEK than the workspace's newest one.
    AddTable {
        /// The table.
        table: TableRow,
        /// Columns, from some position on.
        columns: Vec<ColumnRow>,
    },
    /// Makes a segment visible; nothing is changed when that very segment, with the same coverage, is there.
    CommitSegment(Box<SegmentCommit>),
    /// Adds a file of the write-ahead log; nothing is changed when the very row is there.
    RegisterWalFile(WalFileRow),
    /// Changes what is known of a file of the write-ahead log; nothing is changed when it is in that state already.
    SetWalFileState {
        /// The file.
        file: WalFileId,
        /// Its state from now on.
        state: WalFileState,
        /// When that was found.
        at: UnixNanos,
    },
    /// Settles damaged frames: rows without a segment.
    Quarantine(Vec<CoverageRow>),
    /// Removes the rows of retired files of the write-ahead log with their coverage.
    ForgetWalFiles {
        /// Files retired at this time or later stay.
        retired_before: UnixNanos,
    },
    /// Several changes, in this order: all of them or none. They cannot hold further ones of this kind.
    All(Vec<Change>),
    /// Adds or replaces a resource; nothing is changed when the very row is there.
    PutResource {
        /// The row. Its version is one more than `expected`, or 1.
        row: ResourceRow,
        /// The version of the stored row; `None` when there must be none of this id or name.
        expected: Option<u64>,
    },
    /// Removes a resource's row; nothing is changed when it is not there.
    RemoveResource {
        /// The resource.
        id: ResourceId,
        /// The version of the stored row.
        expected: u64,
    },
    /// Adds or replaces an operation; nothing is changed when the very row is there. One that has ended never changes again.
    PutOperation {
        /// The row. Its version is one more than `expected`, or 1.
        row: OperationRow,
        /// The version of the stored row; `None` when there must be none of this id.
        expected: Option<u64>,
    },
    /// Removes the operations that ended first, at most 1,000 at a time.
    ForgetOperations {
        /// Operations that ended at this time or later stay.
        ended_before: UnixNanos,
    },
    /// Puts all AEKs of a cluster, and the cluster itself, under another KEK version.
    SwitchKek {
        /// The cluster.
        cluster: ClusterId,
        /// The KEK version from now on.
        kek: KekRow,
        /// Exactly the AEKs that the cluster has, wrapped by `kek` and otherwise as they are.
        aeks: Vec<AekRow>,
    },
    /// Links a workspace to another cluster; nothing is changed when all of this is so already. When `from` and `to` are the same it only
    /// gets its next generation.
    MoveWorkspace {
        /// The workspace.
        workspace: WorkspaceId,
        /// The cluster that it is linked to.
        from: ClusterId,
        /// The cluster that it is to be linked to.
        to: ClusterId,
        /// Its next generation, under the KEK version that `to` uses.
        aek: AekRow,
        /// AEKs of the workspace that were `from`'s, now under that KEK version of `to`; those that are not here stay where they are.
        rewrapped: Vec<AekRow>,
        /// Exactly the columns that the workspace's tables have, sealed under `aek` and otherwise as they are.
        columns: Vec<ColumnRow>,
    },
    /// Gives a workspace the access key in one slot, in the place of the one that it has there, whatever became of that one's row.
    /// Nothing is known of the new one's use.
    ReplaceWorkspaceKey(WorkspaceKeyRow),
    /// Removes a cluster that no workspace and no AEK refers to; nothing is changed when it is not there.
    RemoveCluster {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Destroys AEKs with all rows of what they sealed: columns, segments (whose objects become garbage) and coverage. Takes a while
    /// when there are many segments; [`Change::RemoveSegments`] can take them away in smaller parts before.
    ShredAeks {
        /// The AEKs; one that is shredded already is passed over.
        aeks: Vec<AekId>,
        /// When they were destroyed.
        at: UnixNanos,
    },
    /// Destroys all AEKs of a workspace likewise, and removes its tables, its access keys and itself; nothing is changed when that is
    /// so already.
    ShredWorkspace {
        /// The workspace.
        workspace: WorkspaceId,
        /// When it was destroyed.
        at: UnixNanos,
    },
    /// Removes segments whose time is over: their objects become garbage. Their coverage stays as long as the log's files may, so that
    /// no record comes back out of those.
    RemoveSegments {
        /// The segments; one that is not there is passed over.
        segments: Vec<SegmentId>,
        /// When they were removed.
        at: UnixNanos,
    },
    /// Notes that nothing refers to objects in the store any more; what is noted already stays as it is.
    AddGarbage {
        /// The objects' paths.
        paths: Vec<String>,
        /// Since when.
        at: UnixNanos,
    },
    /// Removes the notes of objects that are gone from the store.
    ForgetGarbage {
        /// The objects' paths.
        paths: Vec<String>,
    },
    /// Notes what workspaces have sent on one day, in the place of what was noted of them before, and removes what was noted of earlier
    /// days. Workspaces that are not there are passed over.
    PutUsage(Vec<UsageRow>),
    /// Notes when access keys were last presented, in the place of what was noted of them before. Keys that were replaced are passed over.
    PutWorkspaceKeyUses(Vec<WorkspaceKeyUseRow>),
    /// Notes a KEK version of a cluster, in the place of what was noted of it before; a cluster that is not there is passed over.
    PutKekVersion(KekVersionRow),
    /// Raises the number of wraps that an AEK may have made; one that is not lower already stays. An AEK that is not there is passed over.
    ReserveAekWraps(AekWrapsRow),
    /// Adds a token of the management API; nothing is changed when the very row is there.
    AddToken(TokenRow),
    /// Removes the token of this name; nothing is changed when it is not there.
    RemoveToken {
        /// Its name.
        name: String,
    },
    /// Adds an entry at the end of the audit trail; nothing is changed when it is among the last hundred.
    Audit(AuditEntry),
}

impl Change {
    /// The clusters of which it may change what [`Catalog::cluster_version`](crate::Catalog::cluster_version) is about.
    pub(crate) fn concerned(&self) -> Concerned {
        match self {
            Self::All(changes) => {
                let mut concerned = Concerned::default();
                changes.iter().for_each(|change| concerned.add(change.concerned()));
                concerned
            }
            Self::AddCluster(cluster) => Concerned::one(cluster.id),
            Self::AddWorkspace { workspace, .. } => Concerned::one(workspace.cluster),
            Self::AddAek(aek) => Concerned::one(aek.cluster),
            Self::SwitchKek { cluster, .. } | Self::RemoveCluster { cluster } => Concerned::one(*cluster),
            Self::MoveWorkspace { from, to, .. } => Concerned::Only(BTreeSet::from([*from, *to])),
            Self::PutKekVersion(version) => Concerned::one(version.cluster),
            // They do not say whose keys and workspaces they take away.
            Self::RemoveResource { .. } | Self::ShredAeks { .. } | Self::ShredWorkspace { .. } => Concerned::All,
            // A workspace's resource comes before its row, changes its link together with a move, and never changes its name; a cluster's
            // resource has a version of its own. That one is deleted or recovered is found when the change is applied.
            Self::PutResource { .. }
            | Self::AddTable { .. }
            | Self::CommitSegment(_)
            | Self::RegisterWalFile(_)
            | Self::SetWalFileState { .. }
            | Self::Quarantine(_)
            | Self::ForgetWalFiles { .. }
            | Self::PutOperation { .. }
            | Self::ForgetOperations { .. }
            | Self::ReplaceWorkspaceKey(_)
            | Self::RemoveSegments { .. }
            | Self::AddGarbage { .. }
            | Self::ForgetGarbage { .. }
            | Self::PutUsage(_)
            | Self::PutWorkspaceKeyUses(_)
            | Self::ReserveAekWraps(_)
            | Self::AddToken(_)
            | Self::RemoveToken { .. }
            | Self::Audit(_) => Concerned::default(),
        }
    }
}

/// Clusters of which a change may change what they show: themselves, their keys or their links.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Concerned {
    /// These, and no other.
    Only(BTreeSet<ClusterId>),
    /// Whichever there are.
    All,
}

impl Concerned {
    pub(crate) fn one(cluster: ClusterId) -> Self {
        Self::Only(BTreeSet::from([cluster]))
    }

    pub(crate) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Only(these), Self::Only(more)) => these.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::Only(_)) => {}
        }
    }
}

impl Default for Concerned {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// A segment with what must become visible with it.
#[derive(Clone, Debug)]
pub struct SegmentCommit {
    /// The segment.
    pub segment: SegmentRow,
    /// The table, added when it is not there yet.
    pub table: TableRow,
    /// Attribute columns, added when they are not there yet.
    pub columns: Vec<ColumnRow>,
    /// The frames of the write-ahead log that the segment holds: rows of its table and AEK that name the segment.
    pub coverage: Vec<CoverageRow>,
    /// Sequence numbers that are known to have been durable, by file; they raise [`WalFileRow::attested`] and never lower it.
    /// Files without a row are passed over.
    pub attested: Vec<(WalFileId, u64)>,
}
