//! What the control plane keeps: resources, operations and the audit trail.

use logseal_core::{OperationId, ResourceId, UnixNanos};

use super::Authenticated;

/// What a resource is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ResourceKind {
    /// A cluster.
    Cluster,
    /// A workspace.
    Workspace,
}

impl ResourceKind {
    /// The number in the row.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Cluster => 1,
            Self::Workspace => 2,
        }
    }

    /// The kind with this number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Cluster, Self::Workspace].into_iter().find(|kind| kind.code() == code)
    }
}

/// A resource as its owner named and described it. Subscription, group and name compare without ASCII case: one kind of resource has
/// one row for them. Numbers are at most `i64::MAX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceRow {
    /// The id of the cluster or workspace.
    pub id: ResourceId,
    /// What it is.
    pub kind: ResourceKind,
    /// The subscription, as it was given first.
    pub subscription: String,
    /// The resource group, as it was given first.
    pub group: String,
    /// The name, as it was given first.
    pub name: String,
    /// Its properties as JSON, at most 256 KiB; the catalog does not look into them.
    pub document: String,
    /// Counted from 1, one more at each change: what an ETag is made of.
    pub version: u64,
    /// When it was made.
    pub created: UnixNanos,
    /// When it last changed.
    pub changed: UnixNanos,
    /// Since when it is deleted; the row stays while the name is reserved or the resource can be recovered.
    pub deleted: Option<UnixNanos>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OperationState {
    /// It goes on, or waits; one at a time for a resource.
    Running,
    /// It did what it was to do.
    Succeeded,
    /// It did not, and says why.
    Failed,
    /// It was called off.
    Canceled,
}

impl OperationState {
    /// Whether an operation in this state has ended and never changes again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self != Self::Running
    }

    /// The number in the row.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Running => 1,
            Self::Succeeded => 2,
            Self::Failed => 3,
            Self::Canceled => 4,
        }
    }

    /// The state with this number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Running, Self::Succeeded, Self::Failed, Self::Canceled].into_iter().find(|state| state.code() == code)
    }
}

/// The durable record of one asynchronous change. Numbers are at most `i64::MAX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OperationRow {
    /// Its id; ids are ordered by the time at which they were made.
    pub id: OperationId,
    /// What it does.
    pub kind: String,
    /// The resource that it changes.
    pub resource: ResourceId,
    /// The resource's path.
    pub target: String,
    /// The resource's subscription; compares without ASCII case.
    pub subscription: String,
    /// The location that its status is asked for at.
    pub location: String,
    /// How far it is.
    pub state: OperationState,
    /// What it was asked for, its steps and its outcome as JSON, at most 256 KiB; the catalog does not look into it.
    pub document: String,
    /// When it was accepted.
    pub created: UnixNanos,
    /// When it last changed.
    pub changed: UnixNanos,
    /// When it ended: exactly when its state is a terminal one.
    pub ended: Option<UnixNanos>,
    /// Counted from 1, one more at each change.
    pub version: u64,
}

/// Something that somebody did, for the audit trail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: UnixNanos,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// The path of what it was done to.
    pub resource: String,
    /// The operation that does it, or did.
    pub operation: Option<OperationId>,
    /// What came of it.
    pub outcome: String,
    /// How the resource was, as JSON of at most 256 KiB; without secrets.
    pub before: String,
    /// How it is now, likewise.
    pub after: String,
}

/// An entry in its place in the audit trail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditRow {
    /// Counted from 1 without gaps.
    pub sequence: u64,
    /// What was done.
    pub entry: AuditEntry,
    /// The MAC of the row before, 32 bytes; zeros for the first one.
    pub previous: Vec<u8>,
    /// The row's own MAC, which covers all the fields above.
    pub mac: Vec<u8>,
}

/// The end of the audit trail. A copy that is kept elsewhere anchors the trail: what it names must be there for ever.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditHead {
    /// The last row's number.
    pub sequence: u64,
    /// The last row's MAC.
    pub mac: Vec<u8>,
}

/// A time that may be missing: an empty field then, which no time is.
fn maybe(time: Option<UnixNanos>) -> Vec<u8> {
    time.map_or_else(Vec::new, |time| time.0.to_le_bytes().to_vec())
}

authenticated!(
    ResourceRow,
    "resource",
    |r| format!("{}/{}/{}", r.subscription, r.group, r.name),
    [
        r.id.as_bytes(),
        [r.kind.code()],
        r.subscription.as_bytes(),
        r.group.as_bytes(),
        r.name.as_bytes(),
        r.document.as_bytes(),
        r.version.to_le_bytes(),
        r.created.0.to_le_bytes(),
        r.changed.0.to_le_bytes(),
        maybe(r.deleted),
    ]
);
authenticated!(
    OperationRow,
    "operation",
    |r| r.id.to_string(),
    [
        r.id.as_bytes(),
        r.kind.as_bytes(),
        r.resource.as_bytes(),
        r.target.as_bytes(),
        r.subscription.as_bytes(),
        r.location.as_bytes(),
        [r.state.code()],
        r.document.as_bytes(),
        r.created.0.to_le_bytes(),
        r.changed.0.to_le_bytes(),
        maybe(r.ended),
        r.version.to_le_bytes(),
    ]
);
authenticated!(
    AuditRow,
    "audit record",
    |r| r.sequence.to_string(),
    [
        r.sequence.to_le_bytes(),
        r.entry.at.0.to_le_bytes(),
        r.entry.actor.as_bytes(),
        r.entry.action.as_bytes(),
        r.entry.resource.as_bytes(),
        r.entry.operation.as_ref().map_or(&[][..], |id| id.as_bytes()),
        r.entry.outcome.as_bytes(),
        r.entry.before.as_bytes(),
        r.entry.after.as_bytes(),
        r.previous,
    ]
);
authenticated!(AuditHead, "audit head", |r| r.sequence.to_string(), [r.sequence.to_le_bytes(), r.mac]);
