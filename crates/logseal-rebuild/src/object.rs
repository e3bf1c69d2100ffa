//! What a path in the store says.

use logseal_core::{ClusterId, SegmentId, TableId, WorkspaceId};
use object_store::path::Path;

/// The kind of an object, by its path alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ObjectKind {
    /// A segment.
    Segment(SegmentPlace),
    /// The copy of a wrapped account key.
    KeyCopy,
    /// Nothing of ours.
    Foreign,
}

/// The ids in a segment's path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentPlace {
    pub(crate) cluster: ClusterId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) table: TableId,
    pub(crate) segment: SegmentId,
}

impl ObjectKind {
    pub(crate) fn of(path: &Path) -> Self {
        let parts: Vec<_> = path.parts().collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        match parts.as_slice() {
            ["clusters", cluster, "workspaces", workspace, "tables", table, date, file] => {
                match segment(cluster, workspace, table, file).filter(|place| place.path(date) == path.as_ref()) {
                    Some(place) if is_date(date) => Self::Segment(place),
                    _ => Self::Foreign,
                }
            }
            ["clusters", _, "keys", _, file] if file.ends_with(".json") => Self::KeyCopy,
            _ => Self::Foreign,
        }
    }
}

impl SegmentPlace {
    /// The path as we write it: an id can be spelled in more than one way.
    fn path(&self, date: &str) -> String {
        let Self { cluster, workspace, table, segment } = self;
        format!("clusters/{cluster}/workspaces/{workspace}/tables/{table}/{date}/{segment}.parquet")
    }
}

fn segment(cluster: &str, workspace: &str, table: &str, file: &str) -> Option<SegmentPlace> {
    Some(SegmentPlace {
        cluster: cluster.parse().ok()?,
        workspace: workspace.parse().ok()?,
        table: table.parse().ok()?,
        segment: file.strip_suffix(".parquet")?.parse().ok()?,
    })
}

/// `date=YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let digits = |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.strip_prefix("date=").is_some_and(|date| date.len() == 10 && date.bytes().enumerate().all(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_as_we_write_them_are_ours() {
        let id = |byte: u8| ClusterId::from_bytes([byte; 16]).to_string();
        let good =
            format!("clusters/{}/workspaces/{}/tables/{}/date=2026-01-31/{}.parquet", id(1), id(2), id(3), id(0xab));
        let place = SegmentPlace {
            cluster: ClusterId::from_bytes([1; 16]),
            workspace: WorkspaceId::from_bytes([2; 16]),
            table: TableId::from_bytes([3; 16]),
            segment: SegmentId::from_bytes([0xab; 16]),
        };
        assert_eq!(ObjectKind::of(&Path::from(good.as_str())), ObjectKind::Segment(place));
        let key = format!("clusters/{}/keys/{}/v.json", id(1), id(2));
        assert_eq!(ObjectKind::of(&Path::from(key.as_str())), ObjectKind::KeyCopy);
        for foreign in [
            "notes.txt".to_owned(),
            good.replace("abab", "ABAB"),
            good.replace(".parquet", ".parquet.tmp"),
            good.replace("2026-01-31", "2026-1-310"),
            good.replace("date=2026-01-31/", ""),
            good.replace(&id(3), "logs"),
            format!("{good}/more"),
            key.replace(".json", ".txt"),
        ] {
            assert_eq!(ObjectKind::of(&Path::from(foreign.as_str())), ObjectKind::Foreign, "{foreign}");
        }
    }
}
