//! Clusters, workspaces, operations and audit: what the management API changes and shows.

use clap::{Args, Subcommand, ValueEnum};

use super::names::{cluster, daily_cap, resource_name, tag, uuid};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// List the clusters of the resource group
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a cluster: its key, its state, its workspaces
    Show {
        /// The cluster
        #[arg(value_parser = resource_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a cluster; without --key-name the service-managed key protects it
    Create {
        /// The new cluster
        #[arg(value_parser = resource_name)]
        name: String,
        /// Any name; a cluster cannot leave it
        #[arg(long, value_name = "NAME", default_value = "local")]
        location: String,
        #[command(flatten)]
        key: ClusterKey,
        #[command(flatten)]
        identity: ClusterIdentity,
        #[command(flatten)]
        settings: ClusterSettings,
        #[command(flatten)]
        following: Following,
    },
    /// Give a cluster another key or version of it, or other settings
    ///
    /// Until the operation has ended with success, the old key version serves and has to stay enabled.
    Update {
        /// The cluster
        #[arg(value_parser = resource_name)]
        name: String,
        #[command(flatten)]
        key: ClusterKey,
        #[command(flatten)]
        identity: ClusterIdentity,
        #[command(flatten)]
        settings: ClusterSettings,
        #[command(flatten)]
        following: Following,
    },
    /// Delete a cluster
    Delete {
        /// The cluster
        #[arg(value_parser = resource_name)]
        name: String,
        /// Also when it protects data, which nobody can read any more then
        #[arg(long)]
        force_delete: bool,
        #[command(flatten)]
        following: Following,
    },
}

/// A customer's key.
#[derive(Args, Debug, Default)]
pub(crate) struct ClusterKey {
    /// The vault [default: the embedded one]
    #[arg(long, value_name = "URI", requires = "key_name")]
    pub(crate) key_vault_uri: Option<String>,
    /// Vault and key in one, as https://VAULT/keys/NAME; the newest version is used
    #[arg(long, value_name = "URI", conflicts_with = "key_name")]
    pub(crate) key_vault_key_uri: Option<String>,
    /// The key in the vault
    #[arg(long, value_name = "NAME")]
    pub(crate) key_name: Option<String>,
    /// Pin this version of the key [default: automatic, the newest one]
    #[arg(long, value_name = "VERSION", requires = "key_name")]
    pub(crate) key_version: Option<String>,
    /// Bits that the key has
    #[arg(long, value_name = "N", requires = "key_name")]
    pub(crate) key_rsa_size: Option<u32>,
}

/// As whom a cluster asks its key vault. Identity and key change one after the other.
#[derive(Args, Debug, Default)]
pub(crate) struct ClusterIdentity {
    /// Type of the identity; without one the cluster can use no customer's key
    #[arg(long, value_name = "TYPE", value_parser = ["SystemAssigned", "UserAssigned", "None"])]
    pub(crate) identity: Option<String>,
    /// The user-assigned identity, one of those that the server's configuration names
    #[arg(long, value_name = "RESOURCE ID", conflicts_with = "identity")]
    pub(crate) user_assigned_identity: Option<String>,
    /// FirstPartyIdentity, SystemAssignedIdentity or UserAssignedIdentity=ID [default: the cluster's own]
    #[arg(long, value_name = "FORM")]
    pub(crate) default_identity: Option<String>,
}

/// What else a cluster has.
#[derive(Args, Debug, Default)]
pub(crate) struct ClusterSettings {
    /// A tag, may be repeated; together they replace those that are there
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub(crate) tag: Vec<(String, String)>,
    /// Commitment tier in GB a day, as Azure's clusters have it; it limits nothing
    #[arg(long, value_name = "N")]
    pub(crate) capacity: Option<i64>,
}

/// What to do while the change is under way, and what to print.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Following {
    /// Return when the operation has begun, and print it
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// List the workspaces of the resource group
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a workspace
    Show {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a workspace, or bring a deleted one back
    Create {
        /// The new workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// Any name; a workspace cannot leave it
        #[arg(long, value_name = "NAME", default_value = "local")]
        location: String,
        #[command(flatten)]
        settings: WorkspaceSettings,
        #[command(flatten)]
        following: Following,
    },
    /// Change settings of a workspace
    Update {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        #[command(flatten)]
        settings: WorkspaceSettings,
        #[command(flatten)]
        following: Following,
    },
    /// Put a workspace under the key of a cluster
    Link {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// The cluster: a name of the same resource group, or a whole id
        #[arg(long, value_name = "CLUSTER", value_parser = cluster)]
        cluster: String,
        #[command(flatten)]
        following: Following,
    },
    /// Put what a workspace takes from now on under the service-managed key
    Unlink {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        #[command(flatten)]
        following: Following,
    },
    /// Have a workspace go on under a new account key; what it has stays as it is sealed
    RotateKey {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        #[command(flatten)]
        following: Following,
    },
    /// Delete a workspace; `workspace create` brings it back for some time
    Delete {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// For good: its keys are destroyed, and nobody can read its data any more
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        following: Following,
    },
    /// Show the two keys that shippers of a workspace may present
    Keys {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a workspace another key in the place of one, which is refused from then on, and show both
    RegenerateKey {
        /// The workspace
        #[arg(value_parser = resource_name)]
        name: String,
        /// The key that is to go; the other one stays
        #[arg(long, value_enum)]
        key: WorkspaceKey,
        /// Also when the key was used recently and the workspace has keys in use kept
        #[arg(long)]
        skip_last_usage_check: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum WorkspaceKey {
    /// The first one, which `credentials.json` has of the default workspace
    Primary,
    /// The other one
    Secondary,
}

impl WorkspaceKey {
    /// As the management API calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// What a workspace has.
#[derive(Args, Debug, Default)]
pub(crate) struct WorkspaceSettings {
    /// Days after which data is removed
    #[arg(long, value_name = "DAYS")]
    pub(crate) retention: Option<u32>,
    /// Most gigabytes that are taken a day, or `none`
    #[arg(long, value_name = "GB", value_parser = daily_cap)]
    pub(crate) daily_cap: Option<f64>,
    /// Turn the workspace's keys off, or on again: with `true` no shipper is let in by one
    #[arg(long, value_name = "BOOL")]
    pub(crate) disable_local_auth: Option<bool>,
    /// Keep keys in use from being regenerated, unless somebody insists
    #[arg(long, value_name = "BOOL")]
    pub(crate) key_check_before_regeneration: Option<bool>,
    /// Keep keys in use from being turned off, unless somebody insists
    #[arg(long, value_name = "BOOL")]
    pub(crate) key_check_before_disable_local_auth: Option<bool>,
    /// Turn keys off also when one was used recently
    #[arg(long, requires = "disable_local_auth")]
    pub(crate) skip_last_usage_check: bool,
    /// A tag, may be repeated; together they replace those that are there
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub(crate) tag: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations, newest first
    List {
        /// Only those in this state
        #[arg(long, value_enum)]
        status: Option<OperationStatus>,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an operation
    Show {
        /// The operation
        #[arg(value_parser = uuid)]
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until an operation has ended; fails when it did not succeed
    Wait {
        /// The operation
        #[arg(value_parser = uuid)]
        id: String,
        /// Give up after this many seconds; the operation goes on
        #[arg(long, value_name = "S")]
        timeout: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Cancel an operation that has done nothing yet that cannot be undone
    Cancel {
        /// The operation
        #[arg(value_parser = uuid)]
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OperationStatus {
    /// Under way
    Running,
    /// Done
    Succeeded,
    /// Failed, and undone as far as that goes
    Failed,
    /// Canceled, and undone
    Canceled,
}

impl OperationStatus {
    /// As the management API calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List the records of changes, newest first
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that no record was altered, added or removed; fails when one was
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
