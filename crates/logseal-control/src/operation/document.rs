//! What is kept of an operation, and what is shown of it.

use logseal_catalog::{KekRow, OperationRow, OperationState};
use logseal_core::{AekId, TableId};
use logseal_keys::Slot;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::kinds;
use crate::Problem;
use crate::resource::cluster::ClusterSettings;
use crate::resource::identity::{DefaultIdentity, Identity};
use crate::resource::key::KeyReference;
use crate::resource::view::date;
use crate::resource::workspace::WorkspaceSettings;

/// Azure Resource Manager's names of actions, for audit records.
pub(crate) const WRITE_WORKSPACE: &str = "Microsoft.OperationalInsights/workspaces/write";
pub(crate) const REGENERATE: &str = "Microsoft.OperationalInsights/workspaces/regenerateSharedKey/action";

/// An operation: its row, and the row's document.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) row: OperationRow,
    pub(crate) document: OperationDocument,
}

/// What the catalog keeps as JSON. Fields may be added with defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationDocument {
    pub(crate) intent: Intent,
    /// How many steps are done; while it is undone: how many are left to undo.
    pub(crate) done: usize,
    /// Why it failed or is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    /// It is being undone because somebody canceled it.
    #[serde(default)]
    pub(crate) canceled: bool,
    /// What its caller should know of its success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
    /// Who asked for it.
    pub(crate) actor: String,
    /// The key references of the resource before.
    pub(crate) before: Value,
}

/// The reason of a failure.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// A code for programs; it never changes its meaning.
    pub code: String,
    /// A message for people that says what to do.
    pub message: String,
}

/// What is to be done, and what steps decided on the way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum Intent {
    CreateCluster(CreateCluster),
    UpdateCluster(UpdateCluster),
    DeleteCluster(DeleteCluster),
    CreateWorkspace(CreateWorkspace),
    RecoverWorkspace(RecoverWorkspace),
    DeleteWorkspace(DeleteWorkspace),
    PurgeWorkspace(PurgeWorkspace),
    MoveWorkspace(MoveWorkspace),
    RotateKey(RotateKey),
    RegenerateKeys(RegenerateKeys),
}

/// A new cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateCluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_identity: Option<DefaultIdentity>,
    pub(crate) key: Option<KeyReference>,
    pub(crate) resolved: Option<Kek>,
}

/// Other settings, another key, or both.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateCluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) key: Option<KeyReference>,
    pub(crate) resolved: Option<Kek>,
    /// Another identity than the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    /// Another default identity than the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_identity: Option<DefaultIdentity>,
    /// The service-managed key is to take the place of the customer's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) to_service_key: bool,
}

/// The end of a cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeleteCluster {
    /// Data that its keys protect is shredded.
    pub(crate) force: bool,
}

/// A new workspace.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateWorkspace {
    pub(crate) settings: WorkspaceSettings,
    pub(crate) aek: AekId,
    pub(crate) table: TableId,
}

/// The return of a deleted workspace.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RecoverWorkspace {
    pub(crate) settings: WorkspaceSettings,
    /// When it was deleted, in nanoseconds since 1970.
    pub(crate) deleted: i64,
}

/// A workspace goes, and can be recovered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct DeleteWorkspace {}

/// A workspace and its data go for good.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PurgeWorkspace {}

/// A workspace is linked to a cluster, or to none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MoveWorkspace {
    /// The cluster's path; `None` to unlink.
    pub(crate) cluster: Option<String>,
    /// The cluster's id as text; that of the cluster of workspaces without one, to unlink.
    pub(crate) to: logseal_core::ClusterId,
    /// The new account key.
    pub(crate) aek: AekId,
}

/// A workspace gets a new account key.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RotateKey {
    /// The new account key.
    pub(crate) aek: AekId,
}

/// A workspace gets other access keys.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegenerateKeys {
    /// Which ones.
    pub(crate) slots: Vec<Slot>,
    /// Whether they were to be replaced even if they are in use.
    pub(crate) skips_check: bool,
}

/// A KEK version.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kek {
    pub(crate) vault_uri: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

impl From<&KekRow> for Kek {
    fn from(row: &KekRow) -> Self {
        Self { vault_uri: row.vault_uri.clone(), name: row.name.clone(), version: row.version.clone() }
    }
}

impl Kek {
    pub(crate) fn row(&self) -> KekRow {
        KekRow { vault_uri: self.vault_uri.clone(), name: self.name.clone(), version: self.version.clone() }
    }

    /// As audit records and results name it.
    pub(crate) fn id(&self) -> String {
        format!("{}/keys/{}/{}", self.vault_uri, self.name, self.version)
    }
}

impl Intent {
    /// The kind's name.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CreateCluster(_) => "createCluster",
            Self::UpdateCluster(_) => "updateCluster",
            Self::DeleteCluster(_) => "deleteCluster",
            Self::CreateWorkspace(_) => "createWorkspace",
            Self::RecoverWorkspace(_) => "recoverWorkspace",
            Self::DeleteWorkspace(_) => "deleteWorkspace",
            Self::PurgeWorkspace(_) => "purgeWorkspace",
            Self::MoveWorkspace(intent) if intent.cluster.is_none() => "unlinkWorkspace",
            Self::MoveWorkspace(_) => "linkWorkspace",
            Self::RotateKey(_) => "rotateWorkspaceKey",
            Self::RegenerateKeys(_) => "regenerateWorkspaceKeys",
        }
    }

    /// What the status says while it runs.
    fn running(&self) -> &'static str {
        match self {
            Self::CreateCluster(_) | Self::CreateWorkspace(_) | Self::RecoverWorkspace(_) => "InProgress",
            Self::UpdateCluster(_) | Self::MoveWorkspace(_) | Self::RotateKey(_) | Self::RegenerateKeys(_) => {
                "Updating"
            }
            Self::DeleteCluster(_) | Self::DeleteWorkspace(_) | Self::PurgeWorkspace(_) => "Deleting",
        }
    }

    /// Whether the resource goes: then there is nothing to show when it is done.
    pub(crate) fn deletes(&self) -> bool {
        self.running() == "Deleting"
    }

    /// Azure Resource Manager's name of the action, for audit records.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::CreateCluster(_) | Self::UpdateCluster(_) => "Microsoft.OperationalInsights/clusters/write",
            Self::DeleteCluster(_) => "Microsoft.OperationalInsights/clusters/delete",
            Self::CreateWorkspace(_) | Self::RecoverWorkspace(_) => WRITE_WORKSPACE,
            Self::DeleteWorkspace(_) | Self::PurgeWorkspace(_) => "Microsoft.OperationalInsights/workspaces/delete",
            Self::MoveWorkspace(intent) if intent.cluster.is_none() => {
                "Microsoft.OperationalInsights/workspaces/linkedServices/delete"
            }
            Self::MoveWorkspace(_) => "Microsoft.OperationalInsights/workspaces/linkedServices/write",
            Self::RotateKey(_) => "Microsoft.OperationalInsights/workspaces/rotateKey/action",
            Self::RegenerateKeys(_) => REGENERATE,
        }
    }
}

impl Operation {
    /// The operation of `row`.
    pub(crate) fn read(row: OperationRow) -> Result<Self, Problem> {
        let document = serde_json::from_str(&row.document).map_err(|error| {
            tracing::error!(operation = %row.id, %error, "an operation cannot be read: a later version wrote it");
            Problem::unavailable(format!("operation `{}` was written by a later version of logseal", row.id))
        })?;
        Ok(Self { row, document })
    }

    /// The row with the document as it is now.
    pub(crate) fn written(&self) -> OperationRow {
        let document = serde_json::to_string(&self.document).expect("a document has string keys only");
        OperationRow { document, ..self.row.clone() }
    }

    /// Its path.
    pub(crate) fn path(&self) -> String {
        format!(
            "/subscriptions/{}/providers/Microsoft.OperationalInsights/locations/{}/operationStatuses/{}",
            self.row.subscription, self.row.location, self.row.id
        )
    }

    /// `InProgress`, `Updating`, `Deleting`, or how it ended.
    pub(crate) fn status(&self) -> &'static str {
        match self.row.state {
            OperationState::Running => self.document.intent.running(),
            OperationState::Succeeded => "Succeeded",
            OperationState::Failed => "Failed",
            OperationState::Canceled => "Canceled",
        }
    }

    /// How much of it is done, in percent; `within` is the share of the present step.
    pub(crate) fn percent_complete(&self, within: f64) -> f64 {
        if self.row.state != OperationState::Running {
            return 100.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
        let (done, all) = (self.document.done as f64, kinds::steps(&self.document.intent).len() as f64);
        // A hundred percent are for what has ended.
        ((done + within.clamp(0.0, 1.0)) / all * 100.0).min(99.0).round()
    }

    /// The status document of Azure Resource Manager's asynchronous operations.
    pub(crate) fn view(&self, within: f64) -> Value {
        let mut view = Map::new();
        view.insert("id".to_owned(), self.path().into());
        view.insert("name".to_owned(), self.row.id.to_string().into());
        view.insert("status".to_owned(), self.status().into());
        view.insert("startTime".to_owned(), date(self.row.created).into());
        if let Some(ended) = self.row.ended {
            view.insert("endTime".to_owned(), date(ended).into());
        }
        view.insert("percentComplete".to_owned(), self.percent_complete(within).into());
        if let (OperationState::Failed | OperationState::Canceled, Some(failure)) =
            (self.row.state, &self.document.failure)
        {
            view.insert("error".to_owned(), json!({"code": failure.code, "message": failure.message}));
        }
        if let (OperationState::Succeeded, Some(result)) = (self.row.state, &self.document.result) {
            view.insert("properties".to_owned(), result.clone());
        }
        view.into()
    }

    /// The status document with what it is about, for listings of our own.
    pub(crate) fn listed(&self, within: f64) -> Value {
        let mut view = self.view(within);
        view["kind"] = self.row.kind.as_str().into();
        view["resourceId"] = self.row.target.as_str().into();
        if self.row.state == OperationState::Running {
            view["step"] = kinds::steps(&self.document.intent).get(self.document.done).copied().unwrap_or("end").into();
        }
        view
    }
}
