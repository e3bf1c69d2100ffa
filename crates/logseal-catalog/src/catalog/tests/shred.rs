//! What is destroyed leaves nothing, is known to be destroyed, and does not come back.

use super::*;
use crate::GenerationSize;

fn aek_of(id: u8, workspace: WorkspaceId, generation: u32) -> AekRow {
    AekRow {
        id: AekId::from_bytes([id; 16]),
        workspace,
        cluster: cluster().id,
        generation,
        kek: kek(),
        wrapped: vec![id; 256],
        commitment: vec![8; 32],
        created: UnixNanos(8),
    }
}

fn shred(ids: &[u8]) -> Change {
    Change::ShredAeks { aeks: ids.iter().map(|id| AekId::from_bytes([*id; 16])).collect(), at: UnixNanos(70) }
}

/// A segment of the AEK `aek`, with a column and coverage of its own.
fn sealed(id: u8, aek: u8) -> Change {
    let mut change =
        commit(id, table(4, "logs"), vec![ColumnRow { aek: AekId::from_bytes([aek; 16]), ..column(u32::from(id)) }]);
    if let Change::CommitSegment(commit) = &mut change {
        commit.segment.aek = AekId::from_bytes([aek; 16]);
        commit.segment.created = UnixNanos(i64::from(id));
        commit.coverage =
            vec![CoverageRow { aek: commit.segment.aek, ..coverage(1, u64::from(id), u64::from(id), Some(id)) }];
    }
    change
}

/// One row of each kind.
pub(super) async fn fill(catalog: &Catalog) {
    catalog.apply(Change::AddAek(aek_of(0x21, WORKSPACE, 2))).await.unwrap();
    catalog.apply(shred(&[0x21])).await.unwrap();
    catalog.apply(Change::AddGarbage { paths: vec!["an/object".into()], at: UnixNanos(9) }).await.unwrap();
    let usage = UsageRow { workspace: WORKSPACE, day: 20_000, bytes: 9, reached: true };
    catalog.apply(Change::PutUsage(vec![usage])).await.unwrap();
}

async fn paths(catalog: &Catalog) -> Vec<(String, i64)> {
    let rows = catalog.garbage(UnixNanos(i64::MAX), 100).await.unwrap();
    rows.into_iter().map(|row| (row.path, row.since.0)).collect()
}

/// Scenario: of two generations one is shredded, twice. Guarantee: its key, segments, columns and coverage go, their objects are
/// garbage, it is known to be shredded, the other generation has all that it had, and what comes late for the shredded one is
/// refused as unknown.
#[tokio::test]
async fn a_shredded_generation_goes_with_all_that_it_sealed_and_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(Change::AddAek(aek_of(5, WORKSPACE, 2))).await.unwrap();
    for (id, aek) in [(6, 3), (7, 5), (8, 5)] {
        catalog.apply(sealed(id, aek)).await.unwrap();
    }
    let sizes = catalog.generation_sizes(cluster().id).await.unwrap();
    let size = |aek, segments| GenerationSize {
        aek: AekId::from_bytes([aek; 16]),
        workspace: WORKSPACE,
        segments,
        rows: 10 * segments,
        bytes: 1000 * segments,
    };
    assert_eq!(sizes, [size(3, 1), size(5, 2)]);
    let shredded = AekId::from_bytes([5; 16]);
    assert!(!catalog.is_shredded(shredded).await.unwrap());

    for _ in 0..2 {
        catalog.apply(shred(&[5])).await.unwrap();
    }
    let refused = catalog.apply(shred(&[3, 99])).await;
    assert!(matches!(refused, Err(CatalogError::Unknown { kind: "AEK", .. })), "{refused:?}");
    assert_eq!(catalog.generation_sizes(cluster().id).await.unwrap(), [size(3, 1)]);
    let left = catalog.snapshot(WORKSPACE).await.unwrap();
    let ids: Vec<_> = left.segments.iter().map(|row| row.id.as_bytes()[0]).collect();
    assert_eq!((ids, left.columns.len(), left.coverage.len()), (vec![6], 1, 1));
    assert_eq!(catalog.coverage().await.unwrap().len(), 1);
    let expected = ShreddedRow { aek: shredded, workspace: WORKSPACE, at: UnixNanos(70) };
    assert_eq!(catalog.shredded().await.unwrap(), [expected]);
    assert!(catalog.is_shredded(shredded).await.unwrap());
    assert_eq!(paths(&catalog).await, [("clusters/c/7.parquet".into(), 70), ("clusters/c/8.parquet".into(), 70)]);

    let late = [
        sealed(9, 5),
        Change::AddTable { table: table(4, "logs"), columns: vec![ColumnRow { aek: shredded, ..column(99) }] },
    ];
    for change in late {
        match catalog.apply(change).await {
            Err(error @ CatalogError::Unknown { kind: "AEK", .. }) => assert!(error.is_decision()),
            other => panic!("{other:?}"),
        }
    }
    let mut adopted = sealed(9, 3);
    if let Change::CommitSegment(commit) = &mut adopted {
        commit.segment.path = "clusters/c/8.parquet".into();
    }
    let refused = catalog.apply(adopted).await;
    assert!(
        matches!(refused, Err(CatalogError::Conflict { kind: "garbage", .. })),
        "its object will be deleted: {refused:?}"
    );
}

/// Scenario: one of two workspaces is shredded, twice; tables, segments, frames and keys of it come late. Guarantee: all rows of it
/// are gone, and none of the other one's; what comes late is refused as unknown; a workspace that never was is not taken for a
/// shredded one.
#[tokio::test]
async fn a_shredded_workspace_is_gone_and_no_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let other = WorkspaceId::from_bytes([0x22; 16]);
    let workspace = WorkspaceRow { id: other, name: "other".into(), cluster: cluster().id, created: UnixNanos(6) };
    let others = TableRow { id: TableId::from_bytes([0x24; 16]), workspace: other, ..table(4, "logs") };
    let added =
        Change::AddWorkspace { workspace, keys: vec![], aek: aek_of(0x23, other, 1), tables: vec![others.clone()] };
    catalog.apply(added).await.unwrap();
    catalog.apply(sealed(6, 3)).await.unwrap();
    catalog.apply(Change::Quarantine(vec![coverage(2, 1, 1, None)])).await.unwrap();
    catalog.apply(Change::Quarantine(vec![CoverageRow { table: others.id, ..coverage(2, 1, 1, None) }])).await.unwrap();

    for _ in 0..2 {
        catalog.apply(Change::ShredWorkspace { workspace: WORKSPACE, at: UnixNanos(70) }).await.unwrap();
    }
    assert_eq!(catalog.workspace(WORKSPACE).await.unwrap(), None);
    assert_eq!(catalog.workspace_keys().await.unwrap(), []);
    assert_eq!(catalog.aeks().await.unwrap(), [aek_of(0x23, other, 1)]);
    let left = catalog.snapshot(WORKSPACE).await.unwrap();
    assert!(left.tables.is_empty() && left.columns.is_empty() && left.segments.is_empty() && left.coverage.is_empty());
    assert_eq!(catalog.snapshot(other).await.unwrap().tables, [others]);
    assert_eq!(catalog.coverage().await.unwrap().len(), 1);
    assert!(catalog.orphans().await.unwrap().is_empty());
    assert_eq!(paths(&catalog).await, [("clusters/c/6.parquet".into(), 70)]);
    assert_eq!(catalog.shredded().await.unwrap().len(), 1);

    let late = [
        (sealed(9, 3), "AEK"),
        (Change::AddTable { table: table(9, "late"), columns: vec![] }, "workspace"),
        (Change::AddAek(aek_of(9, WORKSPACE, 2)), "workspace"),
        (Change::Quarantine(vec![coverage(3, 1, 1, None)]), "table"),
        (Change::ShredWorkspace { workspace: WorkspaceId::from_bytes([0xEE; 16]), at: UnixNanos(1) }, "workspace"),
    ];
    for (change, expected) in late {
        let refused = catalog.apply(change.clone()).await;
        assert!(
            matches!(refused, Err(CatalogError::Unknown { kind, .. }) if kind == expected),
            "{change:?}: {refused:?}"
        );
    }
}

/// Scenario: segments whose time is over are removed, twice; later the files of the log that they came from are forgotten.
/// Guarantee: the oldest ones are found first; their objects are garbage; their frames stay settled for a commit and in snapshots
/// until the files go.
#[tokio::test]
async fn removed_segments_leave_their_frames_settled_until_the_log_forgets_them() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let retired = WalFileRow { state: WalFileState::Retired, ..wal_file(1, 0) };
    catalog.apply(Change::RegisterWalFile(retired)).await.unwrap();
    for id in [8, 6, 7, 9] {
        catalog.apply(sealed(id, 3)).await.unwrap();
    }
    let expired = async |before, limit| {
        let rows = catalog.expired_segments(WORKSPACE, UnixNanos(before), limit).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(expired(9, 2).await, [6, 7].map(|id| SegmentId::from_bytes([id; 16])));
    let segments = expired(9, 100).await;
    assert_eq!(segments.len(), 3);
    for at in [70, 71] {
        catalog.apply(Change::RemoveSegments { segments: segments.clone(), at: UnixNanos(at) }).await.unwrap();
    }
    assert_eq!(paths(&catalog).await, [6, 7, 8].map(|id| (format!("clusters/c/{id}.parquet"), 70)));
    let snapshot = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!((snapshot.segments.len(), snapshot.coverage.len()), (1, 4));
    let mut again = sealed(6, 3);
    if let Change::CommitSegment(commit) = &mut again {
        commit.segment.path = "another/path".into();
    }
    let refused = catalog.apply(again).await;
    assert!(matches!(refused, Err(CatalogError::Covered { .. })), "{refused:?}");
    catalog.apply(Change::ForgetWalFiles { retired_before: UnixNanos(100) }).await.unwrap();
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().coverage, []);
}

/// Scenario: objects are noted as garbage, some twice, and forgotten. Guarantee: each has one note, since the first time; the
/// longest first.
#[tokio::test]
async fn garbage_is_noted_once_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let add = |paths: &[&str], at| Change::AddGarbage {
        paths: paths.iter().map(|p| (*p).into()).collect(),
        at: UnixNanos(at),
    };
    catalog.apply(add(&["b", "a"], 20)).await.unwrap();
    catalog.apply(add(&["c", "a"], 10)).await.unwrap();
    assert_eq!(paths(&catalog).await, [("c".into(), 10), ("a".into(), 20), ("b".into(), 20)]);
    assert_eq!(catalog.garbage(UnixNanos(20), 100).await.unwrap().len(), 1);
    assert_eq!(catalog.garbage(UnixNanos(21), 2).await.unwrap().len(), 2);
    catalog.apply(Change::ForgetGarbage { paths: vec!["a".into(), "unknown".into()] }).await.unwrap();
    assert_eq!(paths(&catalog).await, [("c".into(), 10), ("b".into(), 20)]);
}

/// Scenario: a segment's path is altered to name another object, and then its AEK is shredded or it is removed. Guarantee: that
/// object does not become garbage.
#[tokio::test]
async fn a_planted_path_does_not_get_another_object_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(sealed(6, 3)).await.unwrap();
    run_sql(&dir.path().join("catalog.sqlite"), "UPDATE segments SET path = 'precious'").await;
    let segments = vec![SegmentId::from_bytes([6; 16])];
    for change in [
        shred(&[3]),
        Change::ShredWorkspace { workspace: WORKSPACE, at: UnixNanos(1) },
        Change::RemoveSegments { segments, at: UnixNanos(1) },
    ] {
        let refused = catalog.apply(change).await;
        assert!(matches!(refused, Err(CatalogError::Integrity { kind: "segment", .. })), "{refused:?}");
    }
    assert_eq!(paths(&catalog).await, []);
    assert_eq!(catalog.aeks().await.unwrap().len(), 1);
}
