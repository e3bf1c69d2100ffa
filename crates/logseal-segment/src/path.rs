//! Where a segment lies in the store.

use chrono::DateTime;
use logseal_core::{ClusterId, SegmentId, TableId, UnixNanos, WorkspaceId};
use object_store::path::Path;

/// `clusters/<cluster>/workspaces/<workspace>/tables/<table>/date=YYYY-MM-DD/<segment>.parquet`.
///
/// Made of ids that the server made, never of a client's text. The date is the UTC day of receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentPath(Path);

impl SegmentPath {
    /// The path of a segment that was received at `received`.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        workspace: WorkspaceId,
        table: TableId,
        segment: SegmentId,
        received: UnixNanos,
    ) -> Self {
        let date = DateTime::from_timestamp_nanos(received.0).format("%Y-%m-%d");
        Self(Path::from(format!(
            "clusters/{cluster}/workspaces/{workspace}/tables/{table}/date={date}/{segment}.parquet"
        )))
    }

    /// The object's path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_ids_and_the_utc_day() {
        let path = SegmentPath::new(
            ClusterId::from_bytes([1; 16]),
            WorkspaceId::from_bytes([2; 16]),
            TableId::from_bytes([3; 16]),
            SegmentId::from_bytes([4; 16]),
            UnixNanos(1_767_225_599_999_999_999),
        );
        assert_eq!(
            path.as_path().as_ref(),
            "clusters/01010101-0101-0101-0101-010101010101/workspaces/02020202-0202-0202-0202-020202020202/\
             tables/03030303-0303-0303-0303-030303030303/date=2025-12-31/04040404-0404-0404-0404-040404040404.parquet"
        );
    }
}
