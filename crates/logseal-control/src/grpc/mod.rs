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

use tokio::sync::watch::Receiver;
use tonic::service::Routes;

use self::service::{Bounds, OperationsService};
use self::v1::operations_server::OperationsServer;
use crate::Management;

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

/// The service, to be served until `shutdown` becomes true: calls that wait or watch then end. It checks the management token before
/// anything else of a call is looked at.
#[must_use]
pub fn routes(api: &Arc<Management>, shutdown: Receiver<bool>) -> Routes {
    let service = OperationsService::new(Arc::clone(&api.operations), shutdown, Bounds::default());
    let guard = Arc::clone(api);
    let server = OperationsServer::new(service).max_decoding_message_size(REQUEST_BYTES);
    Routes::new(tonic::service::interceptor::InterceptedService::new(server, move |call: tonic::Request<()>| {
        if guard.token.admits(call.metadata().as_ref()) { Ok(call) } else { Err(status::unauthenticated()) }
    }))
}

#[cfg(test)]
mod tests;
