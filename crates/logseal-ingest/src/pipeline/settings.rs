//! The `[wal]` table of the configuration.

use serde::{Deserialize, Serialize};

use super::journal::SpaceLimits;
use crate::IngestError;

/// Settings of the write-ahead log, as the configuration file has them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalSettings {
    /// Most bytes that the log of one cluster may take while its records wait to become segments.
    pub max_bytes: u64,
    /// Free bytes of the disk that are left to segments and catalog; -1 is the larger of 1 GiB and 5 % of the disk.
    pub reserve_bytes: i64,
    /// Size at which the log goes on in a new file.
    pub file_bytes: u64,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self {
            // Some ten minutes of what two cores take in while the store is away.
            max_bytes: 10 << 30,
            reserve_bytes: -1,
            // A file goes when its last frame is in a segment: some ten files for a minute of full load.
            file_bytes: 128 << 20,
        }
    }
}

impl WalSettings {
    /// Checks each value.
    ///
    /// # Errors
    ///
    /// [`IngestError::Setting`] for the first value that cannot work.
    pub fn check(&self) -> Result<SpaceLimits, IngestError> {
        let &Self { max_bytes, reserve_bytes, file_bytes } = self;
        let wrong = |name, problem: String| Err(IngestError::Setting { name, problem });
        if !(64 << 10..=1 << 40).contains(&file_bytes) {
            return wrong("wal.file_bytes", format!("`{file_bytes}` is not between 65536 and 1099511627776"));
        }
        if max_bytes < file_bytes {
            return wrong("wal.max_bytes", format!("`{max_bytes}` is less than `wal.file_bytes` (`{file_bytes}`)"));
        }
        if reserve_bytes < -1 {
            return wrong("wal.reserve_bytes", format!("`{reserve_bytes}` is neither -1 nor a number of bytes"));
        }
        Ok(SpaceLimits { max_bytes, reserve_bytes: u64::try_from(reserve_bytes).ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_is_named() {
        type Change = fn(&mut WalSettings);
        let cases: [(&str, Change); 3] = [
            ("wal.file_bytes", |s| s.file_bytes = 0),
            ("wal.max_bytes", |s| s.max_bytes = s.file_bytes - 1),
            ("wal.reserve_bytes", |s| s.reserve_bytes = -2),
        ];
        for (expected, change) in cases {
            let mut settings = WalSettings::default();
            assert!(settings.check().is_ok());
            change(&mut settings);
            match settings.check() {
                Err(IngestError::Setting { name, .. }) => assert_eq!(name, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
