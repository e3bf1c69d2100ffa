//! Clusters, workspaces and their keys.

use logseal_core::{AekId, ClusterId, UnixNanos, WorkspaceId};

use super::Authenticated;

/// The KEK version that a cluster uses or that wrapped an AEK.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KekRow {
    /// The vault's URI.
    pub vault_uri: String,
    /// The key's name.
    pub name: String,
    /// The key's version.
    pub version: String,
}

/// A cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterRow {
    /// Its id.
    pub id: ClusterId,
    /// Its name. Which names are taken is the resources' matter: two clusters or workspaces may share one.
    pub name: String,
    /// When it was made.
    pub created: UnixNanos,
    /// The KEK version in use.
    pub kek: KekRow,
}

/// A workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkspaceRow {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name. Which names are taken is the resources' matter: two clusters or workspaces may share one.
    pub name: String,
    /// The cluster that it is linked to.
    pub cluster: ClusterId,
    /// When it was made.
    pub created: UnixNanos,
}

/// One access key of a workspace; the key itself is not in the row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkspaceKeyRow {
    /// The workspace that it ships to.
    pub workspace: WorkspaceId,
    /// `primary` or `secondary`.
    pub slot: String,
    /// HMAC of the key under the root key: how a presented key is found.
    pub lookup: Vec<u8>,
    /// The key, sealed under the root key: how `workspace keys` can show it.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created: UnixNanos,
}

/// When an access key was last presented.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkspaceKeyUseRow {
    /// The workspace that it ships to.
    pub workspace: WorkspaceId,
    /// `primary` or `secondary`.
    pub slot: String,
    /// [`WorkspaceKeyRow::lookup`] of the key that was presented.
    pub lookup: Vec<u8>,
    /// When, to within a minute.
    pub used: UnixNanos,
}

/// An account encryption key, wrapped by a KEK version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AekRow {
    /// Its id.
    pub id: AekId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The cluster whose KEK wraps it.
    pub cluster: ClusterId,
    /// Counted from 1 within the workspace.
    pub generation: u32,
    /// The KEK version that wrapped it.
    pub kek: KekRow,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// What the key commits to.
    pub commitment: Vec<u8>,
    /// When it was made.
    pub created: UnixNanos,
}

/// How often an AEK may have sealed by now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AekWrapsRow {
    /// The AEK.
    pub aek: AekId,
    /// Wraps that are reserved for it, all those that it made among them. At most `i64::MAX`.
    pub wraps: u64,
}

/// A KEK version that a cluster uses or used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KekVersionRow {
    /// The cluster.
    pub cluster: ClusterId,
    /// The version.
    pub kek: KekRow,
    /// A random key that protects nothing, wrapped by the version: whoever unwraps it shows that the version can be used.
    pub probe: Vec<u8>,
    /// What that key commits to.
    pub commitment: Vec<u8>,
    /// When the version last unwrapped something, to within some minutes.
    pub used: UnixNanos,
}

authenticated!(
    ClusterRow,
    "cluster",
    |r| r.name.clone(),
    [
        r.id.as_bytes(),
        r.name.as_bytes(),
        r.created.0.to_le_bytes(),
        r.kek.vault_uri.as_bytes(),
        r.kek.name.as_bytes(),
        r.kek.version.as_bytes(),
    ]
);
authenticated!(
    WorkspaceRow,
    "workspace",
    |r| r.name.clone(),
    [r.id.as_bytes(), r.name.as_bytes(), r.cluster.as_bytes(), r.created.0.to_le_bytes(),]
);
authenticated!(
    WorkspaceKeyRow,
    "workspace key",
    |r| format!("{}/{}", r.workspace, r.slot),
    [r.workspace.as_bytes(), r.slot.as_bytes(), r.lookup, r.sealed, r.created.0.to_le_bytes(),]
);
authenticated!(
    WorkspaceKeyUseRow,
    "workspace key use",
    |r| format!("{}/{}", r.workspace, r.slot),
    [r.workspace.as_bytes(), r.slot.as_bytes(), r.lookup, r.used.0.to_le_bytes(),]
);
authenticated!(
    AekRow,
    "AEK",
    |r| r.id.to_string(),
    [
        r.id.as_bytes(),
        r.workspace.as_bytes(),
        r.cluster.as_bytes(),
        r.generation.to_le_bytes(),
        r.kek.vault_uri.as_bytes(),
        r.kek.name.as_bytes(),
        r.kek.version.as_bytes(),
        r.wrapped,
        r.commitment,
        r.created.0.to_le_bytes(),
    ]
);
authenticated!(AekWrapsRow, "AEK wraps", |r| r.aek.to_string(), [r.aek.as_bytes(), r.wraps.to_le_bytes()]);
authenticated!(
    KekVersionRow,
    "KEK version",
    |r| format!("{}/{}/{}", r.cluster, r.kek.name, r.kek.version),
    [
        r.cluster.as_bytes(),
        r.kek.vault_uri.as_bytes(),
        r.kek.name.as_bytes(),
        r.kek.version.as_bytes(),
        r.probe,
        r.commitment,
        r.used.0.to_le_bytes(),
    ]
);
