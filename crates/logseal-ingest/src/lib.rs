//! OTLP/gRPC and OTLP/HTTP receivers, admission, batching and acknowledgement.
//!
//! A call walks through the door in one direction, and each stage costs the server more than the one before it:
//! credentials, then the daily cap, then pace, then the announced length, then budget for it, then the body, then decompression, then the
//! [`Intake`]. Whatever is refused is refused at the cheapest stage that can tell.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`door`] | the ports of the door, and the words of its answers |
//! | [`settings`] | the `[ingest]` table |
//! | [`admission`] | the byte budget, held calls, the pace of a workspace |
//! | [`expansion`] | how much memory a request's columns will take |
//! | [`quota`] | daily caps of workspaces, and what they have used |
//! | [`decompress`] | gzip, deflate and zstd with bounded memory |
//! | `json` | OTLP/JSON made protobuf under the budget |
//! | [`cpu`] | the one bridge from async tasks to compute threads |
//! | `passage` | the stages above, for every protocol |
//! | `status` | codes and texts of answers, for every protocol |
//! | `connection` | connections: how many, how long, and what each may take |
//! | [`grpc`] | OTLP over gRPC, health and reflection |
//! | [`http`] | OTLP over HTTP |
//! | [`pipeline`] | scan, log, acknowledge, batch, seal, store, catalog |
//! | [`meter`] | names of metrics |
//! | [`error`] | what can go wrong on our own side |

pub mod admission;
mod connection;
pub mod cpu;
pub mod decompress;
pub mod door;
pub mod error;
pub mod expansion;
pub mod grpc;
pub mod http;
mod json;
pub mod meter;
mod passage;
pub mod pipeline;
pub mod quota;
pub mod settings;
mod status;

pub use admission::{Budget, BudgetPermit, Hold, HoldEnded};
pub use door::{Accepted, AuthError, Authenticator, Door, Intake, IntakeError, IntakeRequest, Refusal};
pub use error::IngestError;
pub use expansion::Expansion;
pub use quota::{DailyCaps, QuotaStatus};
pub use settings::{DoorLimits, DoorSettings};
