//! The management HTTP API: queries, segments, workspace keys, health and metrics.
//!
//! Everything but `/healthz` and `/readyz` needs the management token, which is checked before a body is read. Errors are
//! `{"error":{"code","message"}}`, as Azure Resource Manager writes them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`api`] | [`router`]: routes and what they share |
//! | [`auth`] | [`ManagementToken`] |
//! | [`port`] | what the API needs of queries and metrics |
//! | [`problem`] | the shape of errors |
//! | [`provision`] | the resources that exist from the first start |
//! | `query`, `resources`, `health` | the handlers |

pub mod api;
pub mod auth;
mod health;
pub mod port;
pub mod problem;
pub mod provision;
mod query;
mod resources;

pub use api::{Management, router};
pub use auth::ManagementToken;
pub use port::{MetricsText, Queries, QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat};
pub use problem::Problem;
