//! What a run is asked to do, and why it may refuse.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logseal_core::UnixNanos;
use logseal_tls::Connector;
use thiserror::Error;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataValue};

use crate::Payload;

/// Most connections and most calls in flight on one of them; a larger number is a mistake in the command line.
const MOST_CONNECTIONS: usize = 1_024;

/// Most workspaces: as many as a deployment has.
const MOST_WORKSPACES: usize = 10_000;

/// Highest rate: three orders of magnitude above what a machine can send.
const HIGHEST_RATE: u64 = 1_000_000_000;

/// Settings of one run.
#[derive(Clone, Debug)]
pub struct BenchSettings {
    /// The OTLP/gRPC endpoint, `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// What opens connections to it; without one they are plain.
    pub connector: Option<Connector>,
    /// `Bearer <workspace key>` of each workspace, which take turns; marked sensitive so that they are never printed.
    pub authorizations: Vec<MetadataValue<Ascii>>,
    /// Which records to send.
    pub payload: Payload,
    /// Requests with the number of their records, to be sent in turn instead of generated ones.
    pub requests: Option<Arc<[(Bytes, u64)]>>,
    /// How requests are compressed on the wire; not at all by default.
    pub compression: Option<CompressionEncoding>,
    /// No request is begun after so long, however many records are left; no limit by default.
    pub stop_after: Option<Duration>,
    /// Seed of the payload's generator.
    pub seed: u64,
    /// Time of the first record; the command line passes the current time.
    pub base_time: UnixNanos,
    /// Records to send in all. 1,000,000: some seconds on a small server.
    pub records: u64,
    /// Records a second, at an open pace: each request has a time at which it starts, whether or not those before it
    /// were answered. `None`, the default: a closed loop, as fast as answers come.
    pub rate: Option<u64>,
    /// Records a request; the last request may hold fewer. The payload's own number.
    pub batch: usize,
    /// TCP connections. 4: more than the cores of a small server, so that no connection's task is the limit.
    pub connections: usize,
    /// Requests waiting for their acknowledgement, on each connection. 8: with 4 connections of 1,000 records enough to
    /// saturate a server that acknowledges after an fsync. One that acknowledges late (after a segment, say) needs
    /// `rate * latency / batch` over all connections. At an open pace a request that finds none free starts late.
    pub in_flight: usize,
    /// Encoded requests kept in memory and sent in turn. 96 MiB: about 275,000 records of payload a, far more than a
    /// row group holds, so that repeats do not flatter the compression.
    pub pool_bytes: usize,
    /// After this time without an answer a call counts as lost and is sent again. 60 s.
    pub call_timeout: Duration,
    /// Longest wait before a resend, whatever the server asks for. 30 s.
    pub longest_wait: Duration,
    /// From its first attempt on a request is sent again for this long, then counted in `errors`. 300 s, as a default
    /// OpenTelemetry Collector does.
    pub retry_for: Duration,
}

impl BenchSettings {
    /// Default settings for `payload`, sent to `endpoint` with `workspace_key`.
    ///
    /// # Errors
    ///
    /// When the key holds characters that a header cannot carry.
    pub fn new(
        endpoint: &str,
        workspace_key: &str,
        payload: Payload,
        base_time: UnixNanos,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            endpoint: endpoint.to_owned(),
            connector: None,
            authorizations: vec![authorization(workspace_key)?],
            payload,
            requests: None,
            compression: None,
            stop_after: None,
            seed: 1,
            base_time,
            records: 1_000_000,
            rate: None,
            batch: payload.default_batch(),
            connections: 4,
            in_flight: 8,
            pool_bytes: 96 * 1024 * 1024,
            call_timeout: Duration::from_secs(60),
            longest_wait: Duration::from_secs(30),
            retry_for: Duration::from_secs(300),
        })
    }

    /// Sends to the workspaces with these keys in turn, instead of to one.
    ///
    /// # Errors
    ///
    /// When a key holds characters that a header cannot carry.
    pub fn with_workspace_keys(self, keys: &[String]) -> Result<Self, BenchError> {
        Ok(Self { authorizations: keys.iter().map(|key| authorization(key)).collect::<Result<_, _>>()?, ..self })
    }

    /// What the `index`th request presents.
    pub(crate) fn authorization(&self, index: u64) -> &MetadataValue<Ascii> {
        &self.authorizations[(index % self.authorizations.len() as u64) as usize]
    }

    pub(crate) fn validate(&self) -> Result<(), BenchError> {
        let check = |setting, value: u64, most: u64| {
            if (1..=most).contains(&value) { Ok(()) } else { Err(BenchError::OutOfRange { setting, value, most }) }
        };
        check("records", self.records, u64::MAX)?;
        // The largest request that any server of ours accepts holds fewer records than this.
        check("workspaces", self.authorizations.len() as u64, MOST_WORKSPACES as u64)?;
        check("batch", self.batch as u64, 1_000_000)?;
        check("connections", self.connections as u64, MOST_CONNECTIONS as u64)?;
        if let Some(rate) = self.rate {
            check("rate", rate, HIGHEST_RATE)?;
        }
        check("in_flight", self.in_flight as u64, MOST_CONNECTIONS as u64)
    }
}

fn authorization(workspace_key: &str) -> Result<MetadataValue<Ascii>, BenchError> {
    let mut authorization: MetadataValue<Ascii> =
        format!("Bearer {workspace_key}").parse().map_err(|_| BenchError::InvalidKey)?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

/// Why a run could not be made. What goes wrong with single requests is counted in the report instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The workspace key cannot be a header's value. The key itself is not shown.
    #[error("the workspace key holds characters that a header cannot carry")]
    InvalidKey,
    /// A number in the settings makes no sense.
    #[error("`{setting}` is {value}, outside 1 to {most}")]
    OutOfRange {
        /// Name of the setting.
        setting: &'static str,
        /// What it was set to.
        value: u64,
        /// Its largest value.
        most: u64,
    },
    /// The endpoint is no URL that a channel can be made for.
    #[error("`{endpoint}` is not a gRPC endpoint")]
    InvalidEndpoint {
        /// The endpoint as given.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The first connection failed, so nothing was measured.
    #[error("cannot connect to `{endpoint}`")]
    Connect {
        /// The endpoint as given.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A task of the run panicked or was canceled.
    #[error("a task of the load driver ended early")]
    Task(#[from] tokio::task::JoinError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> BenchSettings {
        BenchSettings::new("http://127.0.0.1:4317", "s3cret-key", Payload::C, UnixNanos(0)).expect("valid")
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        assert!(!format!("{:?}", settings()).contains("s3cret"));
        let error = BenchSettings::new("x", "s3cret\nkey", Payload::A, UnixNanos(0)).expect_err("a line break");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn zero_and_absurd_numbers_are_refused() {
        assert!(settings().validate().is_ok());
        let edits: [fn(&mut BenchSettings); 8] = [
            |s| s.records = 0,
            |s| s.authorizations.clear(),
            |s| s.batch = 0,
            |s| s.connections = 0,
            |s| s.in_flight = 0,
            |s| s.connections = 100_000,
            |s| s.rate = Some(0),
            |s| s.rate = Some(u64::MAX),
        ];
        for edit in edits {
            let mut bad = settings();
            edit(&mut bad);
            assert!(matches!(bad.validate(), Err(BenchError::OutOfRange { .. })));
        }
    }
}
