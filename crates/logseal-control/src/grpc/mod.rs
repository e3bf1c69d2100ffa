//! `logseal.v1.Operations`: the status of operations over gRPC, for clients that await many of them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`v1`] | messages, client and service, generated from `proto/logseal/v1` |
//! | `service` | the methods |
//! | `watch` | the stream of an operation's changes |
//! | `message` | operations as messages |
//! | `listing` | filters and pages |
//! | `status` | refusals as statuses |

mod listing;
mod message;
mod service;
mod status;
mod watch;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::sync::watch::Receiver;
use tonic::Status;
use tonic::service::Routes;

use self::service::{Bounds, OperationsService};
use self::v1::operations_server::OperationsServer;
use crate::Management;
use crate::api::auth::{peer, prove};
use crate::gate::Role::{self, Auditor, KeyOfficer, Operator};

/// The generated messages, client and service.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("logseal.v1");
}

/// The descriptors of the service and of all that its file imports, for reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/operations.descriptors"));

/// Largest request: ids, a resource's path and a page's token.
const REQUEST_BYTES: usize = 16 * 1024;

/// For which roles each method is, beside who has the management token; one that is not here is for nobody else.
const METHODS: &[(&str, &[Role])] = &[
    ("/logseal.v1.Operations/GetOperation", &[Operator, KeyOfficer, Auditor]),
    ("/logseal.v1.Operations/ListOperations", &[Operator, KeyOfficer, Auditor]),
    ("/logseal.v1.Operations/WaitOperation", &[Operator, KeyOfficer, Auditor]),
    ("/logseal.v1.Operations/WatchOperation", &[Operator, KeyOfficer, Auditor]),
    ("/logseal.v1.Operations/CancelOperation", &[Operator]),
];

/// The service, to be served until `shutdown` becomes true: calls that wait or watch then end. It checks token and role before anything else of a
/// call is looked at.
#[must_use]
pub fn routes(api: &Arc<Management>, shutdown: Receiver<bool>) -> Routes {
    let service = OperationsService::new(Arc::clone(&api.operations), shutdown, Bounds::default());
    let server = OperationsServer::new(service).max_decoding_message_size(REQUEST_BYTES);
    Routes::new(server).into_axum_router().route_layer(from_fn_with_state(Arc::clone(api), guard)).into()
}

async fn guard(State(api): State<Arc<Management>>, call: Request, next: Next) -> Response {
    let principal = match api.gate.enter(call.headers(), peer(call.extensions())).await {
        Ok(principal) => principal,
        Err(problem) => return Status::from(problem).into_http(),
    };
    prove(call.extensions());
    let path = call.uri().path();
    let roles = METHODS.iter().find(|(method, _)| *method == path).map_or(&[][..], |(_, roles)| roles);
    match principal.admit(roles) {
        Ok(()) => next.run(call).await,
        Err(problem) => {
            let path = path.to_owned();
            api.gate.denied(&principal, "gRPC", &path).await;
            Status::from(problem).into_http()
        }
    }
}

#[cfg(test)]
mod tests;
