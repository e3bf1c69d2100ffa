//! What a catalog got back, and what it did not, with reasons.

use logseal_core::{AekId, ClusterId, WorkspaceId};
use object_store::path::Path;
use serde::{Serialize, Serializer};

/// The outcome of [`Rebuild::take_in`](crate::Rebuild::take_in). Names and ids only, never content.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Clusters that the catalog lacked.
    pub clusters: Vec<TakenCluster>,
    /// Workspaces that the catalog lacked.
    pub workspaces: Vec<TakenWorkspace>,
    /// Account keys that the catalog lacked.
    pub account_keys: u64,
    /// Segments that the catalog lacked.
    pub adopted: u64,
    /// Records in them.
    pub adopted_records: u64,
    /// Segments that the catalog had.
    pub known: u64,
    /// Objects that were not taken in. They stay where they are.
    pub kept: Vec<KeptObject>,
    /// Segments that the catalog has and the store has not: paths.
    pub missing: Vec<String>,
    /// Account keys that segments name and that neither the catalog nor the store has in a usable form.
    pub missing_keys: Vec<MissingKey>,
}

/// A cluster that the catalog lacked.
#[derive(Clone, Debug, Serialize)]
pub struct TakenCluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
}

/// A workspace that the catalog lacked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Whether its primary access key is the one from before; else both are new and its shippers need them.
    pub primary_key_kept: bool,
}

/// An object that was not taken in.
#[derive(Clone, Debug, Serialize)]
pub struct KeptObject {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub path: Path,
    /// What it is.
    pub outcome: Outcome,
    /// Why it was not taken in.
    pub reason: String,
}

/// Why an object was not taken in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// A segment whose records are all in other segments.
    Orphan,
    /// A segment some of whose records are in other segments: as a whole it would show those twice.
    Partial,
    /// A segment or key copy that cannot be read or does not open.
    Unreadable,
    /// A segment that disagrees with what the catalog says about its table.
    Conflict,
    /// No object of ours, by its path.
    Foreign,
}

impl Outcome {
    /// One word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Partial => "partial",
            Self::Unreadable => "unreadable",
            Self::Conflict => "conflict",
            Self::Foreign => "foreign",
        }
    }
}

/// An account key without which segments stay closed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingKey {
    /// The key.
    pub id: AekId,
    /// The workspace that the segments' paths name.
    pub workspace: WorkspaceId,
    /// That workspace's name, where the catalog has it.
    pub workspace_name: Option<String>,
    /// How many segments stay closed.
    pub segments: u64,
}

impl Report {
    pub(crate) fn keep(&mut self, path: &Path, outcome: Outcome, reason: impl Into<String>) {
        self.kept.push(KeptObject { path: path.clone(), outcome, reason: reason.into() });
    }

    /// How many objects were not taken in for this reason.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.kept.iter().filter(|object| object.outcome == outcome).count()
    }
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_ref())
}
