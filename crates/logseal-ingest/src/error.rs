//! Failures of the ingestor itself; what a caller is told is [`crate::door::Refusal`].

use std::error::Error;
use std::io;

pub(crate) use logseal_core::Chain;
use thiserror::Error;

/// The ingestor could not start or go on.
#[derive(Debug, Error)]
pub enum IngestError {
    /// A setting has a value that cannot work.
    #[error("setting `{name}`: {problem}")]
    Setting {
        /// Its full name, as in the configuration file.
        name: &'static str,
        /// What is wrong, with the value.
        problem: String,
    },
    /// The listener's own address could not be read.
    #[error("the gRPC listener is unusable")]
    Listener(#[source] io::Error),
    /// The descriptors that reflection serves do not decode: the build is broken.
    #[error("the protobuf descriptors for reflection are unusable")]
    Descriptors(#[source] Box<dyn Error + Send + Sync>),
    /// The HTTP/2 transport stopped.
    #[error("the gRPC server stopped")]
    Transport(#[source] tonic::transport::Error),
}
