//! The catalog against its contract: what is committed is read back, what was altered is refused.

use logseal_core::{ClusterId, NodeId, TableId, TableName, UnixNanos, WalFileId};
use logseal_crypto::Key256;

use super::*;
use crate::rows::{KekRow, WalFileState};
use crate::{
    AekWrapsRow, AuditHead, AuditRow, CoverageRow, GarbageRow, KekVersionRow, OperationRow, ResourceRow, SegmentCommit,
    SegmentRow, ShreddedRow, TokenRow, UsageRow, WorkspaceKeyUseRow,
};

mod control;
mod links;
mod shred;
mod upgrade;
mod wal;

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

pub(crate) fn mac_key(byte: u8) -> MacKey {
    MacKey::new(Key256::copy_from_slice(&[byte; 32]).unwrap())
}

fn kek() -> KekRow {
    KekRow { vault_uri: "https://127.0.0.1:8420".into(), name: "kek".into(), version: "0".repeat(32) }
}

fn cluster() -> ClusterRow {
    ClusterRow { id: ClusterId::from_bytes([1; 16]), name: "local".into(), created: UnixNanos(5), kek: kek() }
}

/// A version that the cluster used at `used`.
pub(crate) fn kek_version(used: i64) -> KekVersionRow {
    KekVersionRow { cluster: cluster().id, kek: kek(), probe: vec![1, 2], commitment: vec![3], used: UnixNanos(used) }
}

fn workspace() -> Change {
    let cluster = cluster().id;
    Change::AddWorkspace {
        workspace: WorkspaceRow { id: WORKSPACE, name: "default".into(), cluster, created: UnixNanos(6) },
        keys: vec![WorkspaceKeyRow {
            workspace: WORKSPACE,
            slot: "primary".into(),
            lookup: vec![1; 32],
            sealed: vec![2; 60],
            created: UnixNanos(7),
        }],
        aek: AekRow {
            id: AekId::from_bytes([3; 16]),
            workspace: WORKSPACE,
            cluster,
            generation: 1,
            kek: kek(),
            wrapped: vec![9; 256],
            commitment: vec![8; 32],
            created: UnixNanos(8),
        },
        tables: vec![table(4, "logs")],
    }
}

pub(crate) fn table(id: u8, name: &str) -> TableRow {
    TableRow {
        id: TableId::from_bytes([id; 16]),
        workspace: WORKSPACE,
        name: TableName::parse(name).unwrap(),
        created: UnixNanos(9),
    }
}

fn column(ordinal: u32) -> ColumnRow {
    ColumnRow {
        table: TableId::from_bytes([4; 16]),
        ordinal,
        container: 0,
        kind: 2,
        aek: AekId::from_bytes([3; 16]),
        name_sealed: vec![7; 40],
        name_fingerprint: vec![u8::try_from(ordinal).unwrap(); 32],
    }
}

pub(crate) fn commit(id: u8, table: TableRow, columns: Vec<ColumnRow>) -> Change {
    let segment = SegmentRow {
        id: SegmentId::from_bytes([id; 16]),
        workspace: WORKSPACE,
        table: table.id,
        aek: AekId::from_bytes([3; 16]),
        path: format!("clusters/c/{id}.parquet"),
        bytes: 1000,
        rows: 10,
        min_time: UnixNanos(-5),
        max_time: UnixNanos(i64::MAX),
        created: UnixNanos(10),
        wrapped_dek: vec![1; 109],
        dek_commitment: vec![2; 32],
    };
    Change::CommitSegment(Box::new(SegmentCommit { segment, table, columns, coverage: vec![], attested: vec![] }))
}

/// Frames of the stream of the table 4.
pub(crate) fn coverage(file: u8, first: u64, last: u64, segment: Option<u8>) -> CoverageRow {
    CoverageRow {
        file: WalFileId::from_bytes([file; 16]),
        table: TableId::from_bytes([4; 16]),
        aek: AekId::from_bytes([3; 16]),
        first,
        last,
        segment: segment.map(|id| SegmentId::from_bytes([id; 16])),
    }
}

pub(crate) fn wal_file(id: u8, ordinal: u64) -> WalFileRow {
    WalFileRow {
        id: WalFileId::from_bytes([id; 16]),
        node: NodeId::from_bytes([11; 16]),
        cluster: cluster().id,
        ordinal,
        header_hash: vec![id; 32],
        created: UnixNanos(20),
        state: WalFileState::Live,
        changed: UnixNanos(20),
        attested: 0,
    }
}

pub(crate) async fn filled(dir: &tempfile::TempDir) -> Catalog {
    let catalog = Catalog::open(&dir.path().join("catalog.sqlite"), mac_key(1)).await.unwrap();
    catalog.apply(Change::AddCluster(cluster())).await.unwrap();
    catalog.apply(workspace()).await.unwrap();
    catalog
}

/// The kinds of rows, by the format that brought them; those that others refer to come first.
const KINDS: [(i64, &str); 7] = [
    (1, "clusters workspaces workspace_keys aeks tables columns segments"),
    (2, "wal_files coverage"),
    (3, "resources operations audit audit_head shredded garbage usage"),
    (4, "kek_versions"),
    (5, "aek_wraps"),
    (6, "tokens"),
    (7, "workspace_key_uses"),
];

/// A catalog with rows of every kind.
async fn with_every_kind(dir: &tempfile::TempDir) -> Catalog {
    let catalog = filled(dir).await;
    catalog.apply(commit(5, table(4, "logs"), vec![column(0)])).await.unwrap();
    catalog.apply(Change::RegisterWalFile(WalFileRow { attested: 9, ..wal_file(1, 2) })).await.unwrap();
    catalog.apply(wal::covering(6, vec![coverage(1, 3, 5, Some(6))])).await.unwrap();
    catalog.apply(Change::PutKekVersion(kek_version(5))).await.unwrap();
    let wraps = AekWrapsRow { aek: AekId::from_bytes([3; 16]), wraps: 7 };
    catalog.apply(Change::ReserveAekWraps(wraps)).await.unwrap();
    catalog.apply(Change::AddToken(crate::tokens::tests::row("a", 1))).await.unwrap();
    let used =
        WorkspaceKeyUseRow { workspace: WORKSPACE, slot: "primary".into(), lookup: vec![1; 32], used: UnixNanos(7) };
    catalog.apply(Change::PutWorkspaceKeyUses(vec![used])).await.unwrap();
    control::fill(&catalog).await;
    shred::fill(&catalog).await;
    catalog
}

#[tokio::test]
async fn what_is_committed_is_read_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    catalog.apply(commit(5, table(4, "logs"), vec![column(0), column(1)])).await.unwrap();
    catalog.apply(commit(6, table(7, "other"), vec![])).await.unwrap();
    // The same columns again: the second segment of a table brings all columns it knows.
    catalog.apply(commit(8, table(4, "logs"), vec![column(0), column(1), column(2)])).await.unwrap();
    catalog.close().await.unwrap();
    assert!(!dir.path().join("catalog.sqlite-wal").exists(), "one file is left after a clean close");
    assert!(matches!(catalog.apply(commit(9, table(4, "logs"), vec![])).await, Err(CatalogError::Stopped)));

    let catalog = Catalog::open(&dir.path().join("catalog.sqlite"), mac_key(1)).await.unwrap();
    assert_eq!(catalog.clusters().await.unwrap(), [cluster()]);
    assert_eq!(catalog.workspaces().await.unwrap().len(), 1);
    assert_eq!(catalog.workspace_keys().await.unwrap()[0].slot, "primary");
    assert_eq!(catalog.aeks().await.unwrap()[0].wrapped, vec![9; 256]);
    let snapshot = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(snapshot.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["logs", "other"]);
    assert_eq!(snapshot.columns, [column(0), column(1), column(2)]);
    let ids: Vec<_> = snapshot.segments.iter().map(|s| s.id.as_bytes()[0]).collect();
    assert_eq!(ids, [5, 8, 6]);
    assert_eq!(snapshot.segments[0].max_time, UnixNanos(i64::MAX));
    assert_eq!(catalog.segment(SegmentId::from_bytes([6; 16])).await.unwrap().unwrap().rows, 10);
    assert!(catalog.segment(SegmentId::from_bytes([99; 16])).await.unwrap().is_none());
    assert!(catalog.snapshot(WorkspaceId::from_bytes([42; 16])).await.unwrap().tables.is_empty());
}

#[tokio::test]
async fn a_refused_change_leaves_nothing_and_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let (first, again, other) = tokio::join!(
        catalog.apply(commit(5, table(4, "logs"), vec![])),
        catalog.apply(commit(5, table(9, "late"), vec![])), // another segment of that id
        catalog.apply(commit(6, table(4, "logs"), vec![])),
    );
    first.unwrap();
    assert!(matches!(again, Err(CatalogError::Conflict { kind: "segment", .. })), "{again:?}");
    other.unwrap();
    let snapshot = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!((snapshot.tables.len(), snapshot.segments.len()), (1, 2), "the refused change's table is gone too");
}

#[tokio::test]
async fn every_altered_column_of_every_kind_of_row_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    with_every_kind(&dir).await.close().await.unwrap();
    let pristine = checkpointed(&file).await;

    let mut tried = 0;
    for table in KINDS.iter().flat_map(|(_, kinds)| kinds.split_whitespace()) {
        for (column, kind) in columns_of(&file, table).await {
            std::fs::write(&file, &pristine).unwrap();
            let altered = match kind.as_str() {
                "INTEGER" => format!("{column} - 1"),
                "TEXT" => format!("'x' || {column}"),
                _ => format!("CAST(x'ff' || substr({column}, 2) AS BLOB)"),
            };
            run_sql(&file, &format!("PRAGMA foreign_keys = OFF; UPDATE {table} SET {column} = {altered}")).await;
            let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
            let refused = read_everything(&catalog).await;
            assert!(matches!(refused, Err(CatalogError::Integrity { .. })), "{table}.{column}: {refused:?}");
            tried += 1;
        }
    }
    assert!(tried > 130, "{tried} columns tried");

    std::fs::write(&file, &pristine).unwrap();
    read_everything(&Catalog::open(&file, mac_key(1)).await.unwrap()).await.expect("the pristine file is fine");
    let foreign = read_everything(&Catalog::open(&file, mac_key(2)).await.unwrap()).await;
    assert!(matches!(foreign, Err(CatalogError::Integrity { .. })), "another root key");
}

/// Scenario: rows of keys and tables are altered, and some so that they belong to nobody. Guarantee: one key is found by its id or
/// owner whatever became of others; of the access keys the genuine ones are found; what belongs to nobody is told of.
#[tokio::test]
async fn single_keys_are_found_among_altered_ones_and_rows_of_nobody_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    let catalog = filled(&dir).await;
    let row = catalog.aeks().await.unwrap().remove(0);
    let second = AekRow { id: AekId::from_bytes([5; 16]), generation: 2, ..row.clone() };
    catalog.apply(Change::AddAek(second.clone())).await.unwrap();
    catalog.apply(Change::AddTable { table: table(6, "empty"), columns: vec![] }).await.unwrap();
    let other = WorkspaceId::from_bytes([0x22; 16]);
    let workspace = WorkspaceRow { id: other, name: "other".into(), cluster: cluster().id, created: UnixNanos(6) };
    let key = |slot: &str, byte| WorkspaceKeyRow {
        workspace: other,
        slot: slot.into(),
        lookup: vec![byte; 32],
        sealed: vec![2; 60],
        created: UnixNanos(7),
    };
    let aek = AekRow { id: AekId::from_bytes([9; 16]), workspace: other, ..row.clone() };
    let keys = vec![key("primary", 8), key("secondary", 9)];
    let added =
        Change::AddWorkspace { workspace: workspace.clone(), keys: keys.clone(), aek: aek.clone(), tables: vec![] };
    catalog.apply(added).await.unwrap();
    assert_eq!(catalog.aeks_of(WORKSPACE).await.unwrap(), [row.clone(), second.clone()]);
    assert_eq!(catalog.aek(row.id).await.unwrap(), Some(row.clone()));
    assert_eq!(catalog.aek(AekId::from_bytes([0xEE; 16])).await.unwrap(), None);
    assert_eq!(catalog.workspace(other).await.unwrap(), Some(workspace.clone()));
    assert_eq!(catalog.workspace(WorkspaceId::from_bytes([0xEE; 16])).await.unwrap(), None);
    let (all, refused) = catalog.genuine_workspace_keys().await.unwrap();
    assert_eq!((all.len(), refused.len()), (3, 0));
    assert!(catalog.orphans().await.unwrap().is_empty());

    let altered = "PRAGMA foreign_keys = OFF; UPDATE aeks SET wrapped = x'00' WHERE generation = 2; \
        UPDATE workspace_keys SET sealed = x'00' WHERE workspace_id <> x'22222222222222222222222222222222'; \
        UPDATE tables SET workspace_id = x'EE' WHERE name = 'empty'; UPDATE workspaces SET created = 1 WHERE name = 'default'";
    run_sql(&file, altered).await;
    assert_eq!(catalog.aek(row.id).await.unwrap(), Some(row));
    assert!(matches!(catalog.aek(second.id).await, Err(CatalogError::Integrity { kind: "AEK", .. })));
    assert!(matches!(catalog.aeks_of(WORKSPACE).await, Err(CatalogError::Integrity { .. })));
    assert_eq!(catalog.aeks_of(other).await.unwrap(), [aek]);
    assert_eq!(catalog.workspace(other).await.unwrap(), Some(workspace));
    assert!(matches!(catalog.workspace(WORKSPACE).await, Err(CatalogError::Integrity { .. })));
    let (genuine, refused) = catalog.genuine_workspace_keys().await.unwrap();
    assert_eq!(genuine, keys);
    assert!(matches!(&refused[..], [CatalogError::Integrity { kind: "workspace key", .. }]), "{refused:?}");
    let orphans = catalog.orphans().await.unwrap();
    assert!(matches!(&orphans[..], [CatalogError::Integrity { kind: "table", .. }]), "{orphans:?}");
}

pub(crate) async fn read_everything(catalog: &Catalog) -> Result<(), CatalogError> {
    catalog.clusters().await?;
    catalog.workspaces().await?;
    catalog.workspace_keys().await?;
    catalog.aeks().await?;
    catalog.wal_files().await?;
    catalog.coverage().await?;
    catalog.snapshot(WORKSPACE).await?;
    catalog.all::<ResourceRow>(sqlx::query("SELECT * FROM resources")).await?;
    catalog.all::<OperationRow>(sqlx::query("SELECT * FROM operations")).await?;
    catalog.all::<AuditRow>(sqlx::query("SELECT * FROM audit")).await?;
    catalog.all::<AuditHead>(sqlx::query("SELECT * FROM audit_head")).await?;
    catalog.all::<GarbageRow>(sqlx::query("SELECT * FROM garbage")).await?;
    catalog.all::<ShreddedRow>(sqlx::query("SELECT * FROM shredded")).await?;
    catalog.all::<UsageRow>(sqlx::query("SELECT * FROM usage")).await?;
    catalog.all::<AekWrapsRow>(sqlx::query("SELECT * FROM aek_wraps")).await?;
    catalog.all::<KekVersionRow>(sqlx::query("SELECT * FROM kek_versions")).await?;
    catalog.all::<TokenRow>(sqlx::query("SELECT * FROM tokens")).await?;
    catalog.all::<WorkspaceKeyUseRow>(sqlx::query("SELECT * FROM workspace_key_uses")).await?;
    Ok(())
}

pub(crate) async fn run_sql(file: &Path, sql: &str) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The database as one file, without a journal beside it.
pub(crate) async fn checkpointed(file: &Path) -> Vec<u8> {
    run_sql(file, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE").await;
    std::fs::read(file).unwrap()
}

async fn columns_of(file: &Path, table: &str) -> Vec<(String, String)> {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    let sql = sqlx::AssertSqlSafe(format!("SELECT name, type FROM pragma_table_info('{table}')"));
    let rows = connection.fetch_all(sqlx::query(sql)).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
