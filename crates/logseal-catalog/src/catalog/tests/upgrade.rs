//! Catalogs of other formats: older ones are brought up with all their rows, newer ones are left alone.

use super::*;

/// Makes the catalog `old` with these tables, and copies all rows of these kinds into it from `new`.
async fn copy_to(old: &Path, tables: &str, format: i64, new: &Path, kinds: &[&str]) {
    let options = SqliteConnectOptions::new().filename(old).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    let copies = kinds.iter().map(|kind| format!("INSERT INTO {kind} SELECT * FROM new.{kind};")).collect::<String>();
    let attach = format!("ATTACH '{}' AS new;", new.display());
    let end = format!("DETACH new; PRAGMA user_version = {format};");
    let sql = [tables, &attach, &copies, &end].concat();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    drop(filled(&dir).await);
    run_sql(&file, "PRAGMA user_version = 99").await;
    assert!(matches!(Catalog::open(&file, mac_key(1)).await, Err(CatalogError::Format { found: 99, .. })));
}

#[tokio::test]
async fn a_catalog_of_format_1_is_brought_up_with_all_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.sqlite"), dir.path().join("catalog.sqlite"));
    let catalog = filled(&dir).await;
    catalog.apply(commit(5, table(4, "logs"), vec![column(0), column(1)])).await.unwrap();
    let expected = catalog.snapshot(WORKSPACE).await.unwrap();
    catalog.close().await.unwrap();
    let kinds = ["clusters", "workspaces", "workspace_keys", "aeks", "tables", "columns", "segments"];
    copy_to(&old, include_str!("../format_1.sql"), 1, &new, &kinds).await;

    let catalog = Catalog::open(&old, mac_key(1)).await.unwrap();
    read_everything(&catalog).await.unwrap();
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().segments, expected.segments);
    assert_eq!(catalog.snapshot(WORKSPACE).await.unwrap().columns, expected.columns);
    assert!(catalog.wal_files().await.unwrap().is_empty() && catalog.coverage().await.unwrap().is_empty());
    catalog.apply(Change::RegisterWalFile(wal_file(1, 0))).await.unwrap();
    catalog.apply(wal::covering(6, vec![coverage(1, 1, 2, Some(6))])).await.unwrap();
    catalog.close().await.unwrap();
    assert_eq!(schema_of(&old).await, schema_of(&new).await, "the same tables as those of a new file");
    Catalog::open(&old, mac_key(1)).await.expect("and only once");
}

async fn schema_of(file: &Path) -> Vec<(String, String)> {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    let rows = connection.fetch_all("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Every kind of row that there was in format 2.
const KINDS_2: [&str; 9] =
    ["clusters", "workspaces", "workspace_keys", "aeks", "tables", "columns", "segments", "wal_files", "coverage"];

/// A catalog of format 2 in `dir`, with rows of each kind, and what it holds.
async fn format_2(dir: &tempfile::TempDir) -> (std::path::PathBuf, crate::Snapshot) {
    let (old, new) = (dir.path().join("old.sqlite"), dir.path().join("catalog.sqlite"));
    let catalog = filled(dir).await;
    catalog.apply(Change::RegisterWalFile(wal_file(1, 2))).await.unwrap();
    catalog.apply(wal::covering(6, vec![coverage(1, 3, 5, Some(6))])).await.unwrap();
    let expected = catalog.snapshot(WORKSPACE).await.unwrap();
    catalog.close().await.unwrap();
    copy_to(&old, include_str!("../format_2.sql"), 2, &new, &KINDS_2).await;
    (old, expected)
}

/// Scenario: a catalog of format 2 with rows of each kind is opened. Guarantee: all rows are there with valid MACs, its tables are
/// those of a new catalog, references between them are heeded, and two clusters or workspaces may have one name.
#[tokio::test]
async fn a_catalog_of_format_2_is_brought_up_with_all_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (old, expected) = format_2(&dir).await;
    let catalog = Catalog::open(&old, mac_key(1)).await.unwrap();
    read_everything(&catalog).await.unwrap();
    assert_eq!(catalog.clusters().await.unwrap(), [cluster()]);
    assert_eq!(catalog.workspaces().await.unwrap().len(), 1);
    assert_eq!(catalog.workspace_keys().await.unwrap().len(), 1);
    assert_eq!(catalog.aeks().await.unwrap().len(), 1);
    let found = catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!((found.tables, found.columns), (expected.tables, expected.columns));
    assert_eq!((found.segments, found.coverage), (expected.segments, expected.coverage));

    let namesake = ClusterRow { id: ClusterId::from_bytes([0x31; 16]), ..cluster() };
    catalog.apply(Change::AddCluster(namesake.clone())).await.expect("a cluster of the same name");
    let row = catalog.workspaces().await.unwrap().remove(0);
    let id = WorkspaceId::from_bytes([0x32; 16]);
    let aek = AekRow { id: AekId::from_bytes([0x33; 16]), workspace: id, ..catalog.aeks().await.unwrap().remove(0) };
    let workspace = WorkspaceRow { id, ..row };
    let namesake = Change::AddWorkspace { workspace, keys: vec![], aek: aek.clone(), tables: vec![] };
    catalog.apply(namesake).await.expect("a workspace of the same name");

    let nobody = WorkspaceId::from_bytes([0xEE; 16]);
    let stray = AekRow { id: AekId::from_bytes([0x34; 16]), workspace: nobody, ..aek };
    let refused = catalog.apply(Change::AddAek(stray)).await;
    assert!(matches!(refused, Err(CatalogError::Unknown { kind: "workspace", .. })), "{refused:?}");
    let refused = catalog.apply(Change::RemoveCluster { cluster: cluster().id }).await;
    assert!(matches!(refused, Err(CatalogError::Invalid { kind: "cluster", .. })), "{refused:?}");
    catalog.close().await.unwrap();
    assert_eq!(schema_of(&old).await, schema_of(&dir.path().join("catalog.sqlite")).await);
    Catalog::open(&old, mac_key(1)).await.expect("and only once");
}

/// Scenario: a catalog of format 2 in which a table was altered so that it belongs to nobody. Guarantee: it is brought up all the
/// same, and the table is told of.
#[tokio::test]
async fn a_row_of_nobody_does_not_keep_a_catalog_from_being_brought_up() {
    let dir = tempfile::tempdir().unwrap();
    let (old, _) = format_2(&dir).await;
    run_sql(&old, "PRAGMA foreign_keys = OFF; UPDATE tables SET workspace_id = x'EE'").await;
    let catalog = Catalog::open(&old, mac_key(1)).await.unwrap();
    assert!(!catalog.orphans().await.unwrap().is_empty());
    assert_eq!(catalog.clusters().await.unwrap(), [cluster()]);
}
