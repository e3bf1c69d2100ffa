//! How a life of the pipeline is set up.

use std::time::Duration;

use logseal_ingest::DoorSettings;
use logseal_ingest::pipeline::journal::SpaceLimits;
use logseal_ingest::pipeline::stream::CutRule;

/// Settings of one life.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Age at which batches are cut.
    pub(crate) max_age: Duration,
    /// Rows in memory that are sealed together.
    pub(crate) row_group_bytes: usize,
    /// Size of a segment's file at which it is closed.
    pub(crate) segment_bytes: usize,
    /// Size at which the log goes on in a new file.
    pub(crate) file_bytes: u64,
    /// Room for the log.
    pub(crate) space: SpaceLimits,
    /// How long a call is held.
    pub(crate) hold: Duration,
}

/// Segments are closed by nothing but their age.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_age: NEVER,
            row_group_bytes: 1 << 20,
            segment_bytes: 1 << 20,
            file_bytes: 1 << 20,
            space: SpaceLimits { max_bytes: 1 << 30, reserve_bytes: Some(0) },
            hold: Duration::ZERO,
        }
    }
}

impl Settings {
    /// Batches are cut at once.
    pub(crate) fn cut_at_once() -> Self {
        Self { max_age: Duration::ZERO, ..Self::default() }
    }

    pub(crate) fn door(&self) -> DoorSettings {
        DoorSettings {
            max_request_bytes: 256 * 1024,
            memory_budget_bytes: 16 << 20,
            hold_ms: u64::try_from(self.hold.as_millis()).unwrap(),
            ..DoorSettings::default()
        }
    }

    pub(crate) fn rule(&self) -> CutRule {
        CutRule { max_age: self.max_age, target_file_bytes: self.segment_bytes, row_group_bytes: self.row_group_bytes }
    }
}
