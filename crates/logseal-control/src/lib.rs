//! The management API and the operations that it begins.
//!
//! Resources have Azure Resource Manager's shape, so that its SDKs and command line can drive them; what changes them is an operation
//! with a status. Everything but `/healthz` and `/readyz` needs a token, whose role is checked before a body is read.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`api`] | the HTTP shell: [`router`] and its handlers |
//! | `gate` | who comes in: tokens and roles |
//! | [`grpc`] | the status of operations over gRPC |
//! | `request` | what a request to change a resource becomes |
//! | `resource` | clusters, workspaces and their parts as values: input, document, view |
//! | [`operation`] | operations: intent, steps, the tasks that run them |
//! | [`provision`] | the resources that exist from the first start |
//! | [`port`] | what this crate needs of the rest of the server |
//! | [`rotation`] | adopts newer versions of clusters' keys |
//! | [`upkeep`] | retention, and the end of what was deleted |
//! | [`audit`] | the audit trail |
//! | `key_release` | data keys of segments for readers outside of the server |
//! | `quota` | daily caps of workspaces |
//! | `settings` | what the running server has to know of workspaces' settings |
//! | `key_check` | whether keys of shippers that are to go are still in use |
//! | [`callers`] | as whom clusters ask their key vaults |
//! | `cluster_views` | clusters as they are shown, kept in memory |
//! | `json` | bodies, property by property |
//! | `meter` | names of metrics |

pub mod api;
pub mod audit;
pub mod callers;
mod cluster_views;
mod gate;
pub mod grpc;
mod json;
mod key_check;
mod key_release;
mod meter;
pub mod operation;
pub mod port;
pub mod provision;
mod quota;
mod request;
mod resource;
pub mod rotation;
mod settings;
#[cfg(test)]
mod testing;
pub mod upkeep;

pub use api::problem::Problem;
pub use api::{Management, router};
pub use audit::{AnchorStore, AuditTrail, Replacement};
pub use callers::{ClusterCallers, cluster_principals};
pub use gate::{Gate, GateParts, Role, is_token_name};
pub use meter::describe_metrics;
pub use operation::runner::Operations;
pub use operation::world::{Fault, Faults, NoFaults, Point, SERVICE_CLUSTER, World};
pub use port::{
    DataPlane, DataPlaneError, MetricsText, Objects, Queries, QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat,
    QuotaStatus, UserAssignedIdentity, Vaults,
};
pub use rotation::RotationCoordinator;
pub use upkeep::{Upkeep, UpkeepSettings};
