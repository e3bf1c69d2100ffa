//! Health and reflection: what the listener says about itself, without credentials.

use std::collections::HashMap;
use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::Services;
use crate::IngestError;
use crate::connection::{OPEN_CALLS, Remote};

/// The service's name in health and reflection.
pub(super) const LOGS_SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";

/// The file that declares it.
const LOGS_FILE: &str = "opentelemetry/proto/collector/logs/v1/logs_service.proto";

/// Names that health is asked about: the server as a whole, and the service.
const HEALTH_NAMES: [&str; 2] = ["", LOGS_SERVICE];

/// Largest request to health and reflection. They ask for names only, and tonic's codec reserves what is announced
/// before anybody has shown credentials.
const REQUEST_BYTES: usize = 4 * 1024;

/// `services` with health and reflection, v1 and v1alpha.
pub(super) fn routes(health: &HealthReporter, services: Services) -> Result<Routes, IngestError> {
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let logs = logs_descriptors()?;
    let reflection = || {
        let configured =
            services.descriptors.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            });
        configured
            .register_encoded_file_descriptor_set(&logs)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Both versions list the same services, whichever of them is asked.
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    let failed = |error| IngestError::Descriptors(Box::new(error));
    let v1 = reflection().build_v1().map_err(failed)?;
    let v1alpha = reflection().build_v1alpha().map_err(failed)?;
    Ok(services
        .routes
        .add_service(health.max_decoding_message_size(REQUEST_BYTES))
        .add_service(v1.max_decoding_message_size(REQUEST_BYTES))
        .add_service(v1alpha.max_decoding_message_size(REQUEST_BYTES))
        .prepare())
}

/// Lets a call of health or reflection in, if `path` is one of theirs: nobody shows credentials for them, and a message that does not end holds some
/// kilobytes for as long as its connection stays.
///
/// # Errors
///
/// `RESOURCE_EXHAUSTED` when as many are under way on the connection as may be.
pub(super) fn admit(remote: &Remote, path: &str) -> Result<Option<OwnedSemaphorePermit>, Status> {
    if !path.starts_with("/grpc.health.") && !path.starts_with("/grpc.reflection.") {
        return Ok(None);
    }
    Arc::clone(&remote.open_calls).try_acquire_owned().map(Some).map_err(|_| {
        let reason =
            format!("{OPEN_CALLS} calls of health and reflection are under way on this connection; end one first");
        Status::resource_exhausted(reason)
    })
}

/// Counts a call until its answer has ended.
pub(super) fn hold(admitted: Option<OwnedSemaphorePermit>, answer: Response<Body>) -> Response<Body> {
    let Some(admitted) = admitted else { return answer };
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &admitted;
            frame
        }))
    })
}

/// OTLP's descriptors for logs and all that they import; the crate has those of traces and metrics in the same set,
/// which are not served here.
fn logs_descriptors() -> Result<Vec<u8>, IngestError> {
    let all = FileDescriptorSet::decode(opentelemetry_proto::DESCRIPTORS)
        .map_err(|error| IngestError::Descriptors(Box::new(error)))?;
    let mut by_name: HashMap<String, FileDescriptorProto> =
        all.file.into_iter().map(|file| (file.name().to_owned(), file)).collect();
    let mut wanted = vec![LOGS_FILE.to_owned()];
    let mut served = FileDescriptorSet::default();
    while let Some(name) = wanted.pop() {
        // A file that is gone was taken for an earlier import.
        if let Some(file) = by_name.remove(&name) {
            wanted.extend(file.dependency.iter().cloned());
            served.file.push(file);
        }
    }
    Ok(served.encode_to_vec())
}

/// Keeps health at what `ready` says, until it is dropped.
pub(super) async fn follow(health: &HealthReporter, mut ready: watch::Receiver<bool>) {
    loop {
        let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        set(health, status).await;
        if ready.changed().await.is_err() {
            // Nobody will say anything else any more.
            return std::future::pending().await;
        }
    }
}

/// Says `NOT_SERVING` for good, and ends the streams of those who watch: they would hold up the shutdown.
pub(super) async fn stop(health: &mut HealthReporter) {
    set(health, ServingStatus::NotServing).await;
    for name in HEALTH_NAMES {
        health.clear_service_status(name).await;
    }
    set(health, ServingStatus::NotServing).await;
}

async fn set(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_hold_the_service_and_its_imports_alone() {
        let set = FileDescriptorSet::decode(&logs_descriptors().expect("valid")[..]).expect("valid");
        let mut names: Vec<_> = set.file.iter().map(|file| file.name().to_owned()).collect();
        names.sort();
        let expected = ["collector/logs/v1/logs_service", "common/v1/common", "logs/v1/logs", "resource/v1/resource"];
        assert_eq!(names, expected.map(|name| format!("opentelemetry/proto/{name}.proto")));
    }
}
