//! Files of the write-ahead log and coverage: no frame gets into two segments, and a lost answer may be asked for again.

use super::*;

pub(crate) fn covering(segment: u8, coverage: Vec<CoverageRow>) -> Change {
    attesting(segment, coverage, vec![])
}

fn attesting(segment: u8, coverage: Vec<CoverageRow>, attested: Vec<(u8, u64)>) -> Change {
    let mut change = commit(segment, table(4, "logs"), vec![column(0)]);
    if let Change::CommitSegment(commit) = &mut change {
        commit.coverage = coverage;
        commit.attested = attested.into_iter().map(|(file, seq)| (WalFileId::from_bytes([file; 16]), seq)).collect();
    }
    change
}

fn set_state(file: u8, state: WalFileState, at: i64) -> Change {
    Change::SetWalFileState { file: WalFileId::from_bytes([file; 16]), state, at: UnixNanos(at) }
}

/// The numbers of covered frames: file, first, last, segment.
async fn covered(catalog: &Catalog) -> Vec<(u8, u64, u64, Option<u8>)> {
    let rows = catalog.coverage().await.unwrap();
    rows.iter()
        .map(|r| (r.file.as_bytes()[0], r.first, r.last, r.segment.map(|segment| segment.as_bytes()[0])))
        .collect()
}

#[tokio::test]
async fn a_range_that_meets_a_settled_one_is_refused_with_all_that_came_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(Change::RegisterWalFile(wal_file(1, 0))).await.unwrap();
    catalog.apply(covering(5, vec![coverage(1, 10, 20, Some(5)), coverage(1, 30, 30, Some(5))])).await.unwrap();
    catalog.apply(Change::Quarantine(vec![coverage(1, 40, 50, None)])).await.unwrap();
    let before = catalog.snapshot(WORKSPACE).await.unwrap();

    for (first, last) in
        [(10, 20), (5, 10), (20, 25), (12, 13), (1, 100), (30, 30), (29, 30), (30, 31), (45, 60), (40, 40), (50, 50)]
    {
        let commit = Change::CommitSegment(Box::new(SegmentCommit {
            table: table(9, "late"),
            segment: SegmentRow { table: TableId::from_bytes([4; 16]), ..segment_of(covering(6, vec![])) },
            columns: vec![column(1)],
            // The first range is free: it must go with the second.
            coverage: vec![coverage(1, 1000, 1001, Some(6)), coverage(1, first, last, Some(6))],
            attested: vec![(WalFileId::from_bytes([1; 16]), 999)],
        }));
        let free = coverage(1, 1000, 1001, None);
        for change in [commit, Change::Quarantine(vec![free, coverage(1, first, last, None)])] {
            match catalog.apply(change).await.unwrap_err() {
                error @ CatalogError::Covered { file, first: f, last: l } => {
                    assert_eq!((file, f, l), (WalFileId::from_bytes([1; 16]), first, last));
                    assert!(error.is_decision() && !error.is_storage());
                }
                other => panic!("{first}..={last}: {other:?}"),
            }
        }
    }
    let after = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(after.segments, before.segments);
    assert_eq!((after.tables, after.columns), (before.tables, before.columns));
    assert_eq!(after.coverage, before.coverage);
    assert_eq!(catalog.wal_files().await.unwrap()[0].attested, 0);

    // Between, before and behind, in another file, and of another stream.
    let mut other_stream = coverage(1, 10, 20, None);
    other_stream.aek = AekId::from_bytes([33; 16]);
    let free =
        [coverage(1, 21, 29, None), coverage(1, 0, 9, None), coverage(1, 51, 51, None), coverage(2, 10, 20, None)];
    catalog.apply(Change::Quarantine(free.into_iter().chain([other_stream]).collect())).await.unwrap();
    assert_eq!(covered(&catalog).await.len(), 8);
}

fn segment_of(change: Change) -> SegmentRow {
    match change {
        Change::CommitSegment(commit) => commit.segment,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_segments_of_one_group_cannot_cover_one_frame() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let (first, second) = tokio::join!(
        catalog.apply(covering(5, vec![coverage(1, 1, 9, Some(5))])),
        catalog.apply(covering(6, vec![coverage(1, 9, 12, Some(6))])),
    );
    first.unwrap();
    assert!(matches!(second, Err(CatalogError::Covered { .. })), "{second:?}");
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().segments.len(), 1);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_succeeds_again_and_another_one_of_its_id_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let ranges = vec![coverage(2, 7, 9, Some(5)), coverage(1, 1, 9, Some(5))];
    let change = covering(5, ranges.clone());
    catalog.apply(change.clone()).await.unwrap();
    catalog.apply(change).await.expect("the very same");
    assert_eq!(covered(&catalog).await, [(1, 1, 9, Some(5)), (2, 7, 9, Some(5))]);

    let fewer = covering(5, ranges[..1].to_vec());
    let more = covering(5, [ranges.clone(), vec![coverage(3, 1, 1, Some(5))]].concat());
    let longer = covering(5, vec![ranges[0].clone(), coverage(1, 1, 10, Some(5))]);
    let mut other_size = covering(5, ranges);
    if let Change::CommitSegment(commit) = &mut other_size {
        commit.segment.bytes += 1;
    }
    for change in [fewer, more, longer, other_size] {
        let refused = catalog.apply(change.clone()).await;
        assert!(matches!(refused, Err(CatalogError::Conflict { kind: "segment", .. })), "{change:?}: {refused:?}");
    }
    assert_eq!(covered(&catalog).await.len(), 2);
}

#[tokio::test]
async fn coverage_that_is_not_the_segments_own_or_cannot_be_stored_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let own = coverage(1, 1, 9, Some(5));
    let wrong = [
        CoverageRow { segment: None, ..own.clone() },
        CoverageRow { segment: Some(SegmentId::from_bytes([6; 16])), ..own.clone() },
        CoverageRow { table: TableId::from_bytes([44; 16]), ..own.clone() },
        CoverageRow { aek: AekId::from_bytes([44; 16]), ..own.clone() },
        CoverageRow { first: 10, ..own.clone() },
        CoverageRow { last: u64::MAX, ..own.clone() },
    ];
    for row in wrong {
        let refused = catalog.apply(covering(5, vec![row])).await;
        assert!(matches!(refused, Err(CatalogError::Invalid { kind: "coverage", .. })), "{refused:?}");
    }
    let refused = catalog.apply(Change::Quarantine(vec![own.clone()])).await;
    assert!(matches!(refused, Err(CatalogError::Invalid { .. })), "quarantined, but in a segment: {refused:?}");
    let stray = CoverageRow { table: TableId::from_bytes([44; 16]), segment: None, ..own };
    let refused = catalog.apply(Change::Quarantine(vec![stray])).await.unwrap_err();
    assert!(refused.is_decision(), "of no table: {refused:?}");
    assert!(covered(&catalog).await.is_empty());
    catalog.apply(covering(5, vec![coverage(200, 0, i64::MAX as u64, Some(5))])).await.expect("a file without a row");
}

#[tokio::test]
async fn files_are_registered_once_listed_in_order_and_change_state() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let other_cluster = WalFileRow { cluster: ClusterId::from_bytes([200; 16]), ..wal_file(7, 0) };
    for row in [wal_file(9, 1), other_cluster.clone(), wal_file(8, 2), wal_file(10, 0)] {
        catalog.apply(Change::RegisterWalFile(row.clone())).await.unwrap();
        catalog.apply(Change::RegisterWalFile(row)).await.expect("the very same row");
    }
    assert_eq!(catalog.wal_files().await.unwrap(), [wal_file(10, 0), wal_file(9, 1), wal_file(8, 2), other_cluster]);
    let other = WalFileRow { header_hash: vec![0; 32], ..wal_file(9, 1) };
    assert!(matches!(catalog.apply(Change::RegisterWalFile(other)).await, Err(CatalogError::Conflict { .. })));
    let short = WalFileRow { header_hash: vec![0; 31], ..wal_file(12, 1) };
    assert!(matches!(catalog.apply(Change::RegisterWalFile(short)).await, Err(CatalogError::Invalid { .. })));

    catalog.apply(set_state(9, WalFileState::Lost, 50)).await.unwrap();
    catalog.apply(set_state(9, WalFileState::Lost, 60)).await.unwrap();
    let lost = WalFileRow { state: WalFileState::Lost, changed: UnixNanos(50), ..wal_file(9, 1) };
    assert_eq!(catalog.wal_files().await.unwrap()[1], lost, "found again and again, but since 50");
    assert!(matches!(
        catalog.apply(set_state(99, WalFileState::Retired, 1)).await,
        Err(CatalogError::Unknown { kind: "WAL file", .. })
    ));
}

#[tokio::test]
async fn attested_sequence_numbers_only_rise() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(Change::RegisterWalFile(wal_file(1, 0))).await.unwrap();
    let attested = async || catalog.wal_files().await.unwrap()[0].attested;
    catalog.apply(attesting(5, vec![], vec![(1, 7), (99, 3)])).await.expect("a file without a row is passed over");
    assert_eq!(attested().await, 7);
    catalog.apply(attesting(6, vec![], vec![(1, 6), (1, 3)])).await.unwrap();
    assert_eq!(attested().await, 7);
    catalog.apply(attesting(7, vec![], vec![(1, 8)])).await.unwrap();
    assert_eq!(attested().await, 8);
}

#[tokio::test]
async fn retired_files_are_forgotten_with_their_coverage_and_no_other_ones() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    for (id, state, at) in [
        (1, WalFileState::Retired, 99),
        (2, WalFileState::Retired, 100),
        (3, WalFileState::Lost, 50),
        (4, WalFileState::Live, 50),
    ] {
        let row = WalFileRow { state, changed: UnixNanos(at), ..wal_file(id, u64::from(id)) };
        catalog.apply(Change::RegisterWalFile(row)).await.unwrap();
        catalog.apply(Change::Quarantine(vec![coverage(id, 1, 1, None), coverage(id, 5, 9, None)])).await.unwrap();
    }
    catalog.apply(Change::ForgetWalFiles { retired_before: UnixNanos(100) }).await.unwrap();
    let left: Vec<_> = catalog.wal_files().await.unwrap().iter().map(|row| row.id.as_bytes()[0]).collect();
    assert_eq!(left, [2, 3, 4]);
    assert_eq!(covered(&catalog).await.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 2, 3, 3, 4, 4]);
}

#[tokio::test]
async fn what_was_altered_is_neither_built_upon_nor_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    let catalog = filled(&dir).await;
    catalog.apply(Change::RegisterWalFile(wal_file(1, 0))).await.unwrap();
    catalog.apply(covering(5, vec![coverage(1, 10, 20, Some(5))])).await.unwrap();
    run_sql(&file, "UPDATE wal_files SET state = 2, header_hash = zeroblob(32); UPDATE coverage SET last = 11").await;
    for change in [
        Change::ForgetWalFiles { retired_before: UnixNanos(i64::MAX) },
        set_state(1, WalFileState::Lost, 1),
        attesting(6, vec![], vec![(1, 1)]),
        covering(6, vec![coverage(1, 15, 15, Some(6))]),
    ] {
        let refused = catalog.apply(change.clone()).await;
        assert!(matches!(refused, Err(CatalogError::Integrity { .. })), "{change:?}: {refused:?}");
    }
    assert_eq!(catalog.segment(SegmentId::from_bytes([6; 16])).await.unwrap(), None);
}

#[tokio::test]
async fn a_snapshot_has_the_coverage_of_its_own_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(covering(5, vec![coverage(1, 10, 20, Some(5))])).await.unwrap();
    catalog.apply(Change::Quarantine(vec![coverage(1, 30, 31, None)])).await.unwrap();
    let snapshot = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(snapshot.coverage, [coverage(1, 10, 20, Some(5)), coverage(1, 30, 31, None)]);
    assert!(catalog.schema(WORKSPACE).await.unwrap().coverage.is_empty());
    assert!(catalog.snapshot(WorkspaceId::from_bytes([42; 16])).await.unwrap().coverage.is_empty());
}

#[tokio::test]
async fn a_table_is_added_once_and_its_name_and_id_stay_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(Change::AddTable { table: table(6, "other"), columns: Vec::new() }).await.unwrap();
    catalog.apply(Change::AddTable { table: table(6, "other"), columns: Vec::new() }).await.expect("that very table");
    let refused = [
        catalog.apply(Change::AddTable { table: table(7, "other"), columns: Vec::new() }).await,
        catalog.apply(Change::AddTable { table: table(6, "another"), columns: Vec::new() }).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(CatalogError::Conflict { kind: "table", .. })), "{refused:?}");
    }
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().tables.len(), 2);
}
