//! How a life of the pipeline is set up.

use std::time::Duration;

use logseal_ingest::DoorSettings;
use logseal_ingest::pipeline::batch::CutRule;
use logseal_ingest::pipeline::journal::SpaceLimits;

/// Settings of one life.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Age at which batches are cut.
    pub(crate) max_age: Duration,
    /// Size at which the log goes on in a new file.
    pub(crate) file_bytes: u64,
    /// Room for the log.
    pub(crate) space: SpaceLimits,
    /// How long a call is held.
    pub(crate) hold: Duration,
}

/// Batches are cut by nothing but their age.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_age: NEVER,
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
        CutRule { max_age: self.max_age, target_file_bytes: 1 << 30, max_arrow_bytes: 1 << 30 }
    }
}
