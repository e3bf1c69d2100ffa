//! The `[ingest]` table: plain data, checked once into [`DoorLimits`].

use std::time::Duration;

use logseal_core::limit;
use serde::{Deserialize, Serialize};

use crate::IngestError;
use crate::decompress::least_budget;

/// Settings of the door, as the configuration file has them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorSettings {
    /// Largest request, in bytes, as announced on the wire and again after decompression.
    pub max_request_bytes: usize,
    /// Bytes of memory that bodies, chunks and what grows out of them may take together.
    pub memory_budget_bytes: usize,
    /// Longest time, in milliseconds, that a call is held before it is told to come back.
    pub hold_ms: u64,
    /// Calls held at the same time.
    pub max_held_calls: usize,
    /// Time, in milliseconds, in which a body must have arrived once there is budget for it.
    pub body_read_ms: u64,
    /// Bytes a second that one workspace may send, counted after decompression; 0 is unlimited.
    pub workspace_bytes_per_second: u64,
    /// TCP connections at the same time.
    pub max_connections: usize,
    /// Calls at the same time on one connection.
    pub max_streams: u32,
    /// Time, in milliseconds, that calls under way get to finish at shutdown.
    pub drain_ms: u64,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            // The recommended default of the OTLP specification (v1.11.0).
            max_request_bytes: limit::REQUEST_BYTES,
            // Four times the largest request, which covers its worst moment; thousands of usual ones.
            memory_budget_bytes: 256 * 1024 * 1024,
            // Node's exporter never retries, so holding is all that saves its batch. Half of the Python exporter's 10 s
            // for a whole export leaves it one more try; a collector's 5 s attempt ends the hold at 4.5 s anyway.
            hold_ms: 5_000,
            // Each holds at most its stream's window (128 KiB): 32 MiB together outside the budget.
            max_held_calls: 256,
            // A collector gives an attempt 5 s and the Python exporter 10 s: later than this nobody waits any more, and
            // a body that trickles has budget which others want.
            body_read_ms: 30_000,
            // One tenant is the usual case; then the budget alone decides.
            workspace_bytes_per_second: 0,
            // Half of the common soft limit of 1,024 open files, the rest is for segments, WAL and management.
            max_connections: 512,
            // The upper end of what HTTP/2 stacks offer (100 to 256); a collector uses 10 consumers.
            max_streams: 256,
            // Stopping takes at most 30 s as a whole; what is acknowledged here must still be flushed after.
            drain_ms: 20_000,
        }
    }
}

/// Checked settings, in the types that the code uses.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    pub(crate) request_bytes: usize,
    pub(crate) budget_bytes: usize,
    pub(crate) hold: Duration,
    pub(crate) held_calls: usize,
    pub(crate) body_read: Duration,
    pub(crate) workspace_rate: Option<u64>,
    pub(crate) connections: usize,
    pub(crate) streams: u32,
    pub(crate) drain: Duration,
}

impl DoorSettings {
    /// Checks each value.
    ///
    /// # Errors
    ///
    /// [`IngestError::Setting`] for the first value that cannot work.
    pub fn check(&self) -> Result<DoorLimits, IngestError> {
        let &Self {
            max_request_bytes,
            memory_budget_bytes,
            hold_ms,
            max_held_calls,
            body_read_ms,
            workspace_bytes_per_second,
            max_connections,
            max_streams,
            drain_ms,
        } = self;
        within("ingest.max_request_bytes", max_request_bytes as u64, 1, limit::REQUEST_BYTES as u64)?;
        // With less, the largest request would be told to come back for ever.
        let least = least_budget(max_request_bytes) as u64;
        within("ingest.memory_budget_bytes", memory_budget_bytes as u64, least, u64::MAX >> 3)?;
        within("ingest.hold_ms", hold_ms, 0, 60_000)?;
        within("ingest.max_held_calls", max_held_calls as u64, 0, 65_536)?;
        within("ingest.body_read_ms", body_read_ms, 1, 600_000)?;
        within("ingest.max_connections", max_connections as u64, 1, 1_000_000)?;
        within("ingest.max_streams", u64::from(max_streams), 1, 65_536)?;
        within("ingest.drain_ms", drain_ms, 0, 600_000)?;
        Ok(DoorLimits {
            request_bytes: max_request_bytes,
            budget_bytes: memory_budget_bytes,
            hold: Duration::from_millis(hold_ms),
            held_calls: max_held_calls,
            body_read: Duration::from_millis(body_read_ms),
            workspace_rate: (workspace_bytes_per_second > 0).then_some(workspace_bytes_per_second),
            connections: max_connections,
            streams: max_streams,
            drain: Duration::from_millis(drain_ms),
        })
    }
}

fn within(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), IngestError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(IngestError::Setting { name, problem: format!("`{value}` is not between {least} and {most}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass() {
        assert!(DoorSettings::default().check().is_ok());
    }

    /// Scenario: one value at a time is out of its range. Guarantee: the error names that setting.
    #[test]
    fn a_value_out_of_range_is_named() {
        type Change = fn(&mut DoorSettings);
        let cases: [(&str, Change); 6] = [
            ("ingest.max_request_bytes", |s| s.max_request_bytes = limit::REQUEST_BYTES + 1),
            ("ingest.max_request_bytes", |s| s.max_request_bytes = 0),
            ("ingest.memory_budget_bytes", |s| s.memory_budget_bytes = 4 * s.max_request_bytes - 1),
            ("ingest.hold_ms", |s| s.hold_ms = 60_001),
            ("ingest.max_connections", |s| s.max_connections = 0),
            ("ingest.max_streams", |s| s.max_streams = 0),
        ];
        for (expected, change) in cases {
            let mut settings = DoorSettings::default();
            change(&mut settings);
            match settings.check() {
                Err(IngestError::Setting { name, .. }) => assert_eq!(name, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
