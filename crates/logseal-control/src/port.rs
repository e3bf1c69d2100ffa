//! What the API needs of others.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logseal_core::{AekId, ClusterId, WorkspaceId};
use logseal_keys::KeyStatus;
use logseal_vault::{Caller, KeyId, KeyVault, PrincipalId, VaultError};

/// The forms in which a query's result can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryFormat {
    /// `{"tables":[{"name","columns","rows"}]}`, as Azure Monitor's query API writes it.
    Tables,
    /// An array of row objects.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl QueryFormat {
    /// The media type of the form.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Tables | Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// A query's result.
#[derive(Clone, Debug)]
pub struct QueryAnswer {
    /// The result in the form that was asked for.
    pub body: Vec<u8>,
    /// Whether there were more rows than the limit.
    pub truncated: bool,
    /// Records of the workspace that are acknowledged, in memory and in no segment yet; the result has them.
    pub unsealed_records: u64,
    /// How long ago the oldest of them was received: how far segments are behind.
    pub lag: Duration,
}

/// Whose fault a failed query is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryFailureKind {
    /// The query is wrong or asks for something that is not offered.
    Invalid,
    /// The query needs more memory, time or rows than it may have.
    LimitExceeded,
    /// A segment cannot be read.
    Damaged,
    /// The key of a cluster whose records are asked for was revoked.
    KeyRefused,
    /// Passing trouble on our side.
    Unavailable,
}

/// A failed query. The message goes to the caller only: it may quote the query.
#[derive(Clone, Debug)]
pub struct QueryFailure {
    /// Whose fault it is.
    pub kind: QueryFailureKind,
    /// A code for programs.
    pub code: &'static str,
    /// A message for people.
    pub message: String,
}

/// Runs queries.
#[async_trait]
pub trait Queries: Debug + Send + Sync {
    /// Runs `sql` over the tables of `workspace` and gives at most `row_limit` rows.
    async fn run(
        &self,
        workspace: WorkspaceId,
        sql: &str,
        row_limit: Option<usize>,
        format: QueryFormat,
    ) -> Result<QueryAnswer, QueryFailure>;
}

/// Renders the metrics in Prometheus' text format.
pub trait MetricsText: Debug + Send + Sync {
    /// The text.
    fn render(&self) -> String;
}

/// The running part of the server: what follows when resources change. Every call may be repeated.
#[async_trait]
pub trait DataPlane: Debug + Send + Sync {
    /// Starts the log of `cluster`, which is in the catalog.
    async fn open_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError>;

    /// Ends the log of `cluster`, none of whose records is alive any more, and removes its files.
    async fn close_cluster(&self, cluster: ClusterId) -> Result<(), DataPlaneError>;

    /// Takes `workspace` as the catalog has it now: a new one, or one with another key or cluster. Records are taken from here on.
    async fn open_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError>;

    /// Takes no more records of `workspace` and answers no queries of it, until it is opened again. What was acknowledged still
    /// becomes segments.
    async fn suspend_workspace(&self, workspace: WorkspaceId) -> Result<(), DataPlaneError>;

    /// Forgets `keys`, which the catalog no longer has, and all records under them; with `workspace` also that workspace.
    async fn shred(&self, keys: &[AekId], workspace: Option<WorkspaceId>) -> Result<(), DataPlaneError>;

    /// How many records under `keys` are acknowledged and in no segment yet.
    fn unsealed_of(&self, keys: &[AekId]) -> u64;

    /// Takes at most `bytes` of `workspace` between two midnights (UTC); `None` for any number. `version` is that of the settings: what
    /// older ones say is passed over.
    fn set_daily_cap(&self, workspace: WorkspaceId, bytes: Option<u64>, version: u64);

    /// The state of the key of `cluster`; `None` when nobody watches it.
    fn key_status(&self, cluster: ClusterId) -> Option<KeyStatus>;

    /// A number that is another one whenever [`DataPlane::key_status`] says something else of some cluster.
    fn key_states_version(&self) -> u64;

    /// `workspace` has other access keys from now on: what the server wrote down of them for its owner follows. What fails is told in the log
    /// and mended by the next start.
    async fn access_keys_changed(&self, workspace: WorkspaceId);

    /// What the vault answers about the key of `cluster` may be something else from now on.
    fn key_changed(&self, cluster: ClusterId);

    /// How much of its daily cap `workspace` has used.
    fn quota_status(&self, workspace: WorkspaceId) -> QuotaStatus;
}

/// How much of its daily cap a workspace has used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QuotaStatus {
    /// Less than 80 %, or there is no cap.
    #[default]
    RespectQuota,
    /// 80 % or more.
    ApproachingQuota,
    /// All of it: requests are refused.
    OverQuota,
}

impl QuotaStatus {
    /// Azure's name of the status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RespectQuota => "RespectQuota",
            Self::ApproachingQuota => "ApproachingQuota",
            Self::OverQuota => "OverQuota",
        }
    }
}

/// The running part of the server did not follow.
#[derive(Clone, Debug)]
pub struct DataPlaneError {
    /// Trying again makes sense.
    pub is_passing: bool,
    /// What happened.
    pub message: String,
}

/// An identity that the configuration names, and that clusters can be given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserAssignedIdentity {
    /// Its resource id, as it was configured.
    pub id: String,
    /// What grants in the embedded vault name.
    pub principal: PrincipalId,
    /// The id of its application in the directory; as a rule a UUID.
    pub client_id: String,
}

/// The key vaults that a cluster may name, and as whom they can be asked.
#[async_trait]
pub trait Vaults: Debug + Send + Sync {
    /// The vault at `uri` as `caller` sees it, with its URI as keys' identifiers carry it. Nobody gets a vault that refuses every call.
    ///
    /// # Errors
    ///
    /// [`VaultError`] when this deployment reaches no such vault, and why.
    fn vault(&self, uri: &str, caller: &Caller) -> Result<(Box<str>, Arc<dyn KeyVault>), VaultError>;

    /// The user-assigned identity with this resource id, which compares without case; `None` when the configuration has no such one.
    fn user_assigned(&self, id: &str) -> Option<UserAssignedIdentity>;

    /// The key that protects what no customer's key protects.
    fn service_key(&self) -> KeyId;

    /// Whether a cluster may go back from a customer's key to that one. Otherwise it is one way, as Azure Monitor's is.
    fn may_return_to_service_key(&self) -> bool;

    /// Grants a new cluster's identity what the embedded vault's keys grant to every cluster. It may be repeated.
    ///
    /// # Errors
    ///
    /// [`VaultError`] when the vault cannot do that now.
    async fn welcome(&self, principal: &PrincipalId) -> Result<(), VaultError>;
}

/// The object store, as far as objects have to go.
#[async_trait]
pub trait Objects: Debug + Send + Sync {
    /// Deletes the object at `path`; that it is not there counts as deleted.
    async fn delete(&self, path: &str) -> Result<(), String>;

    /// The paths of all objects under `prefix`.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, String>;
}
