//! One workspace's rows among those of others.

use logseal_core::{AekId, SegmentId, TableId, UnixNanos};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Executor as _, Row as _};

use super::*;
use crate::catalog::tests::{WORKSPACE, checkpointed, coverage, filled, mac_key, run_sql};
use crate::{AekRow, Change, SegmentCommit, WorkspaceRow};

const OTHER: WorkspaceId = WorkspaceId::from_bytes([0x22; 16]);

/// The ids of [`OTHER`]'s rows are those of [`WORKSPACE`]'s with this added.
const SHIFT: u8 = 0x20;

fn shifted(id: &[u8; 16]) -> [u8; 16] {
    id.map(|byte| byte + SHIFT)
}

/// A second workspace with the same rows as the first one.
fn other(first: &AekRow, table: &TableRow) -> Change {
    let workspace = WorkspaceRow { id: OTHER, name: "other".into(), cluster: first.cluster, created: UnixNanos(6) };
    let aek = AekRow { id: AekId::from_bytes(shifted(first.id.as_bytes())), workspace: OTHER, ..first.clone() };
    let table = TableRow { id: TableId::from_bytes(shifted(table.id.as_bytes())), workspace: OTHER, ..table.clone() };
    Change::AddWorkspace { workspace, keys: vec![], aek, tables: vec![table] }
}

/// A segment of the table, with a column and coverage.
fn commit(table: &TableRow, aek: AekId, id: u8) -> Change {
    let segment = SegmentRow {
        id: SegmentId::from_bytes([id; 16]),
        workspace: table.workspace,
        table: table.id,
        aek,
        path: format!("{id}.parquet"),
        bytes: 1000,
        rows: 10,
        min_time: UnixNanos(0),
        max_time: UnixNanos(1),
        created: UnixNanos(10),
        wrapped_dek: vec![1; 109],
        dek_commitment: vec![2; 32],
    };
    let column = ColumnRow {
        table: table.id,
        ordinal: 0,
        container: 0,
        kind: 2,
        aek,
        name_sealed: vec![7; 40],
        name_fingerprint: vec![id; 32],
    };
    let covered = CoverageRow { table: table.id, aek, ..coverage(1, 1, 9, Some(id)) };
    Change::CommitSegment(Box::new(SegmentCommit {
        segment,
        table: table.clone(),
        columns: vec![column],
        coverage: vec![covered],
        attested: vec![],
    }))
}

/// Two workspaces with one table, column, segment and coverage row each.
async fn two_workspaces(dir: &tempfile::TempDir) -> Catalog {
    let catalog = filled(dir).await;
    let aek = catalog.aeks().await.unwrap().remove(0);
    let table = catalog.schema(WORKSPACE).await.unwrap().tables.remove(0);
    catalog.apply(other(&aek, &table)).await.unwrap();
    let others = catalog.schema(OTHER).await.unwrap().tables.remove(0);
    catalog.apply(commit(&table, aek.id, 5)).await.unwrap();
    catalog.apply(commit(&others, AekId::from_bytes(shifted(aek.id.as_bytes())), 5 + SHIFT)).await.unwrap();
    catalog
}

fn counts(snapshot: &Snapshot) -> [usize; 4] {
    let Snapshot { tables, columns, segments, coverage } = snapshot;
    [tables.len(), columns.len(), segments.len(), coverage.len()]
}

/// Scenario: any column of any row of one workspace is altered, be it into the other workspace's id. Guarantee: that workspace's snapshot
/// is refused; the other one's is whole, or refused where a row was moved into it, and never has a row too many.
#[tokio::test]
async fn an_altered_row_disturbs_the_snapshot_of_its_own_workspace_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    two_workspaces(&dir).await.close().await.unwrap();
    let pristine = checkpointed(&file).await;
    let blob = |id: [u8; 16]| format!("x'{}'", id.map(|byte| format!("{byte:02x}")).concat());
    let [own_aek, own_table, own_segment, nobody] = [[3; 16], [4; 16], [5; 16], [0xEE; 16]].map(blob);
    let [workspace, table, aek, segment] =
        [*OTHER.as_bytes(), shifted(&[4; 16]), shifted(&[3; 16]), shifted(&[5; 16])].map(blob);
    let own = blob(*WORKSPACE.as_bytes());
    // Set what, in the other workspace's row of what; whether that moves the row into this workspace.
    let cases = [
        ("tables", "id", &workspace, "name = 'x'", false),
        ("tables", "id", &workspace, &format!("workspace_id = {nobody}"), false),
        ("tables", "id", &workspace, &format!("workspace_id = {own}, name = 'x'"), true),
        ("columns", "table_id", &table, "kind = 3", false),
        ("columns", "table_id", &table, &format!("table_id = {nobody}"), false),
        ("columns", "table_id", &table, &format!("table_id = {own_table}, ordinal = 1"), true),
        ("columns", "table_id", &table, &format!("aek_id = {own_aek}"), true),
        ("segments", "id", &segment, "bytes = 1", false),
        ("segments", "id", &segment, &format!("workspace_id = {nobody}"), false),
        ("segments", "id", &segment, &format!("workspace_id = {own}"), true),
        ("segments", "id", &segment, &format!("table_id = {own_table}"), true),
        ("coverage", "table_id", &table, "last = 99", false),
        ("coverage", "table_id", &table, &format!("table_id = {nobody}"), false),
        ("coverage", "table_id", &table, &format!("table_id = {own_table}, first = 0"), true),
        ("coverage", "table_id", &table, &format!("segment_id = {own_segment}"), true),
        ("aeks", "id", &aek, "created = 1", false),
    ];
    for (kind, key, id, change, moves) in cases {
        std::fs::write(&file, &pristine).unwrap();
        let what =
            format!("UPDATE {kind} SET {change} WHERE {} = {id}", if kind == "tables" { "workspace_id" } else { key });
        run_sql(&file, &format!("PRAGMA foreign_keys = OFF; {what}")).await;
        let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
        let (here, there) = (catalog.snapshot(WORKSPACE).await, catalog.snapshot(OTHER).await);
        // AEKs are no part of a snapshot.
        assert_eq!(matches!(there, Err(CatalogError::Integrity { .. })), kind != "aeks", "{what}: {there:?}");
        match here {
            Ok(here) => assert!(!moves && counts(&here) == [1, 1, 1, 1], "{what}: {here:?}"),
            Err(error) => assert!(moves && matches!(error, CatalogError::Integrity { .. }), "{what}: {error:?}"),
        }
        let schema = catalog.schema(WORKSPACE).await;
        let in_schema = kind == "tables" || kind == "columns";
        assert_eq!(schema.is_ok(), !(moves && in_schema), "{what}: {schema:?}");
        catalog.close().await.unwrap();
    }
    std::fs::write(&file, &pristine).unwrap();
    let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
    for workspace in [WORKSPACE, OTHER] {
        let snapshot = catalog.snapshot(workspace).await.unwrap();
        assert_eq!(counts(&snapshot), [1, 1, 1, 1]);
        assert!(snapshot.tables.iter().all(|table| table.workspace == workspace));
    }
}

/// Scenario: a catalog that was made before there were these indexes. Guarantee: it gets them, and no part of a snapshot walks through
/// rows of all workspaces.
#[tokio::test]
async fn a_snapshot_finds_its_rows_through_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    two_workspaces(&dir).await.close().await.unwrap();
    run_sql(&file, "DROP INDEX segments_by_table; DROP INDEX columns_by_aek").await;
    Catalog::open(&file, mac_key(1)).await.unwrap().close().await.unwrap();
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await.unwrap();
    for sql in [TABLES, COLUMNS, STRAY_COLUMNS, SEGMENTS, STRAY_SEGMENTS, COVERAGE, STRAY_COVERAGE] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let query = sqlx::query(explain).bind(WORKSPACE.as_bytes().as_slice());
        let steps: Vec<String> =
            connection.fetch_all(query).await.unwrap().iter().map(|row| row.get("detail")).collect();
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
    }
}
