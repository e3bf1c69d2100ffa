//! Which KEK protects which keys: all keys of a cluster are switched at once, and a workspace moves with all that it has.

use super::*;

const OTHER: ClusterId = ClusterId::from_bytes([0x41; 16]);

fn kek_version(byte: char) -> KekRow {
    KekRow { version: byte.to_string().repeat(32), ..kek() }
}

fn aek(id: u8, generation: u32) -> AekRow {
    AekRow {
        id: AekId::from_bytes([id; 16]),
        workspace: WORKSPACE,
        cluster: cluster().id,
        generation,
        kek: kek(),
        wrapped: vec![9; 256],
        commitment: vec![8; 32],
        created: UnixNanos(8),
    }
}

/// Two generations, two columns, and a second cluster.
async fn linked(dir: &tempfile::TempDir) -> Catalog {
    let catalog = filled(dir).await;
    let other = ClusterRow { id: OTHER, name: "other".into(), kek: kek_version('b'), ..cluster() };
    catalog.apply(Change::AddCluster(other)).await.unwrap();
    catalog.apply(Change::AddAek(aek(5, 2))).await.unwrap();
    catalog.apply(commit(6, table(4, "logs"), vec![column(0), column(1)])).await.unwrap();
    catalog
}

/// Scenario: the workspace got a second key; a column is added under the first one, as by a request that took it before. Guarantee: refused as
/// stale, for the first key may be destroyed before the column is; under the newest one it is taken, and a table without columns always.
#[tokio::test]
async fn a_column_is_only_added_under_the_newest_key() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let add = |id: u8| {
        let column = ColumnRow { aek: AekId::from_bytes([id; 16]), ..column(7) };
        catalog.apply(Change::AddTable { table: table(4, "logs"), columns: vec![column] })
    };
    let before = catalog.schema(WORKSPACE).await.unwrap().columns;
    let refused = add(3).await;
    assert!(matches!(refused, Err(CatalogError::Stale { kind: "column", .. })), "{refused:?}");
    assert_eq!(catalog.schema(WORKSPACE).await.unwrap().columns, before);
    catalog.apply(Change::AddTable { table: table(4, "logs"), columns: vec![] }).await.unwrap();
    add(5).await.unwrap();
    assert_eq!(catalog.schema(WORKSPACE).await.unwrap().columns.len(), before.len() + 1);
}

fn switched(row: &AekRow) -> AekRow {
    AekRow { kek: kek_version('a'), wrapped: vec![row.id.as_bytes()[0]; 256], ..row.clone() }
}

fn switch(aeks: Vec<AekRow>) -> Change {
    Change::SwitchKek { cluster: cluster().id, kek: kek_version('a'), aeks }
}

/// Scenario: a cluster's KEK is switched with too few, too many or altered AEKs, and with exactly its own, twice. Guarantee: nothing
/// changes until all AEKs of the cluster are there, each with a new wrapping only; then no row names the old version.
#[tokio::test]
async fn a_kek_is_switched_for_all_keys_of_a_cluster_or_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let rows = catalog.aeks_of_cluster(cluster().id).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.generation).collect::<Vec<_>>(), [1, 2]);
    let new: Vec<_> = rows.iter().map(switched).collect();
    let stale = [
        switch(new[..1].to_vec()),
        switch(vec![]),
        switch([new.clone(), vec![AekRow { kek: kek_version('a'), ..aek(99, 3) }]].concat()),
        switch([new.clone(), new[..1].to_vec()].concat()),
    ];
    for change in stale {
        let refused = catalog.apply(change).await;
        assert!(matches!(refused, Err(CatalogError::Stale { kind: "cluster", .. })), "{refused:?}");
    }
    for wrong in [
        AekRow { commitment: vec![1; 32], ..new[0].clone() },
        AekRow { kek: kek(), ..new[0].clone() },
        AekRow { cluster: OTHER, ..new[0].clone() },
        AekRow { generation: 7, ..new[0].clone() },
    ] {
        let refused = catalog.apply(switch(vec![new[1].clone(), wrong])).await;
        assert!(matches!(refused, Err(CatalogError::Invalid { kind: "AEK", .. })), "{refused:?}");
    }
    assert_eq!(catalog.aeks_of_cluster(cluster().id).await.unwrap(), rows);
    assert_eq!(catalog.cluster(cluster().id).await.unwrap(), Some(cluster()));
    for _ in 0..2 {
        catalog.apply(switch(vec![new[1].clone(), new[0].clone()])).await.unwrap();
    }
    assert_eq!(catalog.aeks_of_cluster(cluster().id).await.unwrap(), new);
    assert_eq!(catalog.cluster(cluster().id).await.unwrap().unwrap().kek, kek_version('a'));
    assert_eq!(catalog.cluster(OTHER).await.unwrap().unwrap().kek, kek_version('b'), "no other cluster is switched");
}

fn resealed(ordinal: u32) -> ColumnRow {
    ColumnRow { aek: AekId::from_bytes([7; 16]), name_sealed: vec![1; 40], ..column(ordinal) }
}

/// The AEK 7 is the new generation, 3 is taken along, 5 stays behind.
fn relink(change: impl FnOnce(&mut ClusterId, &mut AekRow, &mut Vec<AekRow>, &mut Vec<ColumnRow>)) -> Change {
    let taken = AekRow { cluster: OTHER, kek: kek_version('b'), ..aek(7, 3) };
    let mut from = cluster().id;
    let mut new = taken.clone();
    let mut rewrapped =
        vec![AekRow { wrapped: vec![4; 256], ..AekRow { id: AekId::from_bytes([3; 16]), generation: 1, ..taken } }];
    let mut columns = vec![resealed(1), resealed(0)];
    change(&mut from, &mut new, &mut rewrapped, &mut columns);
    Change::MoveWorkspace { workspace: WORKSPACE, from, to: OTHER, aek: new, rewrapped, columns }
}

/// Scenario: a workspace moves to another cluster with what it had some time ago, then with exactly what it has, twice. Guarantee:
/// it moves only when no generation or column was added meanwhile and the new cluster's KEK is the one that wrapped; then it, its
/// columns and the keys that come along belong to the new cluster, and the others stay with the old one.
#[tokio::test]
async fn a_workspace_moves_with_all_its_columns_or_stays() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let before = catalog.snapshot(WORKSPACE).await.unwrap();
    let stale = [
        relink(|_, _, _, columns| drop(columns.pop())),
        relink(|_, _, _, columns| columns.push(resealed(2))),
        relink(|_, aek, _, _| aek.generation = 2),
        relink(|_, aek, _, _| aek.generation = 4),
        relink(|_, aek, _, _| aek.kek = kek_version('c')),
        relink(|from, _, _, _| *from = OTHER),
        relink(|_, _, rewrapped, _| rewrapped[0].id = AekId::from_bytes([99; 16])),
    ];
    for change in stale {
        let refused = catalog.apply(change.clone()).await;
        assert!(matches!(refused, Err(CatalogError::Stale { kind: "workspace", .. })), "{change:?}: {refused:?}");
    }
    let invalid = [
        relink(|_, aek, _, _| aek.workspace = WorkspaceId::from_bytes([99; 16])),
        relink(|_, _, rewrapped, _| rewrapped[0].commitment = vec![1; 32]),
        relink(|_, _, rewrapped, _| rewrapped[0].kek = kek()),
        relink(|_, _, _, columns| columns[0].aek = AekId::from_bytes([3; 16])),
        relink(|_, _, _, columns| columns[0].kind = 9),
    ];
    for change in invalid {
        let refused = catalog.apply(change.clone()).await;
        assert!(matches!(refused, Err(CatalogError::Invalid { .. })), "{change:?}: {refused:?}");
    }
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().columns, before.columns);
    assert_eq!(catalog.aeks_of(WORKSPACE).await.unwrap(), [aek(3, 1), aek(5, 2)]);
    assert_eq!(catalog.workspaces_of(OTHER).await.unwrap(), []);

    for _ in 0..2 {
        catalog.apply(relink(|_, _, _, _| {})).await.unwrap();
    }
    assert_eq!(catalog.workspace(WORKSPACE).await.unwrap().unwrap().cluster, OTHER);
    assert_eq!(catalog.workspaces_of(OTHER).await.unwrap().len(), 1);
    assert_eq!(catalog.workspaces_of(cluster().id).await.unwrap(), []);
    let ids = async |cluster| {
        let rows = catalog.aeks_of_cluster(cluster).await.unwrap();
        rows.iter().map(|row| (row.id.as_bytes()[0], row.generation, row.wrapped[0])).collect::<Vec<_>>()
    };
    assert_eq!(ids(OTHER).await, [(3, 1, 4), (7, 3, 9)]);
    assert_eq!(ids(cluster().id).await, [(5, 2, 9)]);
    let after = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(after.columns, [resealed(0), resealed(1)]);
    assert_eq!(after.segments, before.segments);
    let repeated = catalog.apply(relink(|_, _, _, columns| columns[0].name_sealed = vec![2; 40])).await;
    assert!(matches!(repeated, Err(CatalogError::Stale { .. })), "not the very same: {repeated:?}");
}

/// Scenario: a workspace gets a new generation without moving: first made from what it had some time ago, then from exactly what it has, twice;
/// then another one is made from what it had before. Guarantee: it stays where it is, with all its generations, and its columns are under the
/// newest one; what is out of date is refused and changes nothing.
#[tokio::test]
async fn a_workspace_gets_its_next_generation_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let id = cluster().id;
    let next = |aek: AekRow, columns| Change::MoveWorkspace {
        workspace: WORKSPACE,
        from: id,
        to: id,
        aek,
        rewrapped: Vec::new(),
        columns,
    };
    let under = |byte: u8, ordinal| ColumnRow { aek: AekId::from_bytes([byte; 16]), ..resealed(ordinal) };
    let stale = [
        next(aek(7, 3), vec![under(7, 0)]),
        next(aek(7, 2), vec![under(7, 0), under(7, 1)]),
        next(AekRow { kek: kek_version('c'), ..aek(7, 3) }, vec![under(7, 0), under(7, 1)]),
    ];
    for change in stale {
        let refused = catalog.apply(change.clone()).await;
        assert!(matches!(refused, Err(CatalogError::Stale { kind: "workspace", .. })), "{change:?}: {refused:?}");
    }
    assert_eq!(catalog.aeks_of(WORKSPACE).await.unwrap(), [aek(3, 1), aek(5, 2)]);
    for _ in 0..2 {
        catalog.apply(next(aek(7, 3), vec![under(7, 0), under(7, 1)])).await.unwrap();
    }
    let refused = catalog.apply(next(aek(8, 3), vec![under(8, 0), under(8, 1)])).await;
    assert!(matches!(refused, Err(CatalogError::Stale { .. })), "{refused:?}");
    assert_eq!(catalog.workspace(WORKSPACE).await.unwrap().unwrap().cluster, id);
    assert_eq!(catalog.aeks_of_cluster(id).await.unwrap(), [aek(3, 1), aek(5, 2), aek(7, 3)]);
    assert_eq!(catalog.schema(WORKSPACE).await.unwrap().columns, [under(7, 0), under(7, 1)]);
}

/// Scenario: an access key is replaced, also by one that another workspace has; clusters are removed. Guarantee: the old key is
/// gone, a key belongs to one slot, and a cluster goes only when nothing is left that its KEK protects.
#[tokio::test]
async fn access_keys_are_replaced_and_only_empty_clusters_removed() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let old = catalog.workspace_keys_of(WORKSPACE).await.unwrap().remove(0);
    let new = WorkspaceKeyRow { lookup: vec![3; 32], sealed: vec![4; 60], created: UnixNanos(70), ..old.clone() };
    for _ in 0..2 {
        catalog.apply(Change::ReplaceWorkspaceKey(new.clone())).await.unwrap();
    }
    assert_eq!(catalog.workspace_keys_of(WORKSPACE).await.unwrap(), std::slice::from_ref(&new));
    let same = WorkspaceKeyRow { slot: "secondary".into(), ..new.clone() };
    let refused = catalog.apply(Change::ReplaceWorkspaceKey(same)).await;
    assert!(matches!(refused, Err(CatalogError::Conflict { kind: "workspace key", .. })), "{refused:?}");
    let nobodys =
        WorkspaceKeyRow { workspace: WorkspaceId::from_bytes([0xEE; 16]), lookup: vec![9; 32], ..new.clone() };
    let refused = catalog.apply(Change::ReplaceWorkspaceKey(nobodys)).await;
    assert!(matches!(refused, Err(CatalogError::Unknown { kind: "workspace", .. })), "{refused:?}");
    let lost = WorkspaceKeyRow { slot: "secondary".into(), lookup: vec![5; 32], ..new.clone() };
    catalog.apply(Change::ReplaceWorkspaceKey(lost.clone())).await.unwrap();
    assert_eq!(catalog.workspace_keys_of(WORKSPACE).await.unwrap(), [new, lost], "a slot that lost its key gets one");

    catalog.apply(relink(|_, _, _, _| {})).await.unwrap();
    let refused = catalog.apply(Change::RemoveCluster { cluster: cluster().id }).await;
    assert!(matches!(refused, Err(CatalogError::Invalid { kind: "cluster", .. })), "an AEK is left: {refused:?}");
    catalog.apply(Change::ShredAeks { aeks: vec![AekId::from_bytes([5; 16])], at: UnixNanos(1) }).await.unwrap();
    for _ in 0..2 {
        catalog.apply(Change::RemoveCluster { cluster: cluster().id }).await.unwrap();
    }
    assert_eq!(catalog.cluster(cluster().id).await.unwrap(), None);
}

/// Scenario: of two clusters, one changes its key, a workspace of it is deleted and recovered, and then moves to the other. Guarantee: the
/// version of a cluster rises when a change may concern it, and stays when it concerns the other one alone.
#[tokio::test]
async fn the_version_of_a_cluster_rises_with_its_own_changes_only() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = linked(&dir).await;
    let versions = || [cluster().id, OTHER].map(|id| catalog.cluster_version(id));
    let resource = control::resource(WORKSPACE.as_bytes()[0], "work");
    let resource = ResourceRow { id: logseal_core::ResourceId::from(WORKSPACE), ..resource };
    catalog.apply(Change::PutResource { row: resource.clone(), expected: None }).await.unwrap();
    let mut before = versions();
    let mut rose = async |change: Change| {
        catalog.apply(change).await.unwrap();
        let now = versions();
        let rose = [0, 1].map(|index| now[index] > before[index]);
        before = now;
        rose
    };
    let noted = KekVersionRow { cluster: OTHER, ..super::kek_version(1) };
    assert_eq!(rose(Change::PutKekVersion(noted)).await, [false, true]);
    let tagged = ResourceRow { version: 2, document: "{\"a\": 1}".into(), ..resource };
    assert_eq!(rose(Change::PutResource { row: tagged.clone(), expected: Some(1) }).await, [false, false]);
    let deleted = ResourceRow { version: 3, deleted: Some(UnixNanos(9)), ..tagged };
    assert_eq!(rose(Change::PutResource { row: deleted.clone(), expected: Some(2) }).await, [true, false]);
    let recovered = ResourceRow { version: 4, deleted: None, ..deleted };
    assert_eq!(rose(Change::PutResource { row: recovered, expected: Some(3) }).await, [true, false]);
    assert_eq!(rose(relink(|_, _, _, _| ())).await, [true, true]);
    assert_eq!(rose(Change::ShredWorkspace { workspace: WORKSPACE, at: UnixNanos(9) }).await, [true, true]);
}
