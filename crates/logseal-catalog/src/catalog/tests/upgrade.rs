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

/// Scenario: the catalog is of the next format. Guarantee: it is refused in words that name both, and nothing in it is changed.
#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    filled(&dir).await.close().await.unwrap();
    let newer = schema::FORMAT + 1;
    run_sql(&file, &format!("PRAGMA user_version = {newer}")).await;
    let before = schema_of(&file).await;
    for _ in 0..2 {
        let refused = Catalog::open(&file, mac_key(1)).await.unwrap_err();
        let says = format!("has format {newer}, this version of logseal knows formats 1 to {}", schema::FORMAT);
        assert!(refused.to_string().contains(&says), "{refused}");
    }
    assert_eq!(schema_of(&file).await, before);
    run_sql(&file, &format!("PRAGMA user_version = {}", schema::FORMAT)).await;
    let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
    assert_eq!(catalog.clusters().await.unwrap(), [cluster()]);
}

/// How many rows of `kind` there are, and how many are in one of two catalogs and not in the other.
async fn compared(file: &Path, other: &Path, kind: &str) -> (i64, i64) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    let attach = sqlx::AssertSqlSafe(format!("ATTACH '{}' AS other", other.display()));
    sqlx::raw_sql(attach).execute(&mut connection).await.unwrap();
    let (here, there) = (format!("SELECT * FROM main.{kind}"), format!("SELECT * FROM other.{kind}"));
    let sql = format!(
        "SELECT (SELECT count(*) FROM ({here})), \
         (SELECT count(*) FROM ({here} EXCEPT {there})) + (SELECT count(*) FROM ({there} EXCEPT {here}))"
    );
    let row = connection.fetch_one(sqlx::query(sqlx::AssertSqlSafe(sql))).await.unwrap();
    (row.get(0), row.get(1))
}

/// Scenario: a catalog of each older format, with rows of every kind that there was. Guarantee: all of them are there, as they were and with
/// valid MACs, and its tables are those of a new catalog.
#[tokio::test]
async fn a_catalog_of_every_older_format_is_brought_up_with_all_its_rows() {
    for format in 1..schema::FORMAT {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old.sqlite"), dir.path().join("catalog.sqlite"));
        with_every_kind(&dir).await.close().await.unwrap();
        let kinds: Vec<_> = KINDS.iter().filter(|(since, _)| *since <= format).collect();
        let kinds: Vec<_> = kinds.into_iter().flat_map(|(_, kinds)| kinds.split_whitespace()).collect();
        let steps = schema::STEPS[..usize::try_from(format).unwrap()].concat();
        copy_to(&old, &steps, format, &new, &kinds).await;

        let catalog = Catalog::open(&old, mac_key(1)).await.unwrap();
        read_everything(&catalog).await.unwrap();
        catalog.close().await.unwrap();
        for kind in kinds {
            let (rows, differing) = compared(&old, &new, kind).await;
            assert!(rows > 0 && differing == 0, "format {format}: {rows} rows of {kind}, {differing} differ");
        }
        assert_eq!(schema_of(&old).await, schema_of(&new).await, "format {format}");
    }
}

/// Scenario: the catalogs of stored data directories, which earlier versions made. Guarantee: the steps up to their format still make the same tables,
/// so none was edited after it was released.
#[tokio::test]
async fn steps_still_make_the_tables_that_they_made() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data-directory");
    let mut compared = 0;
    for entry in std::fs::read_dir(stored).unwrap() {
        let from = entry.unwrap().path().join("data");
        if !from.is_dir() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (found, made) = (dir.path().join("catalog.sqlite"), dir.path().join("made.sqlite"));
        for end in ["", "-wal"] {
            let name = format!("catalog.sqlite{end}");
            if from.join(&name).exists() {
                std::fs::copy(from.join(&name), dir.path().join(name)).unwrap();
            }
        }
        // Indexes that need no format of their own.
        run_sql(&found, schema::INDEXES).await;
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", found.display())).await.unwrap();
        let format = format(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let steps = schema::STEPS[..usize::try_from(format).unwrap()].concat() + schema::INDEXES;
        copy_to(&made, &steps, format, &found, &[]).await;
        assert_eq!(schema_of(&found).await, schema_of(&made).await, "{}", from.display());
        compared += 1;
    }
    assert!(compared > 0, "there are stored catalogs");
}

/// Scenario: the last step to the present format fails. Guarantee: the catalog keeps the format that it had, and its tables.
#[tokio::test]
async fn a_catalog_that_cannot_be_brought_up_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.sqlite"), dir.path().join("catalog.sqlite"));
    with_every_kind(&dir).await.close().await.unwrap();
    let in_the_way = [schema::STEPS[0], "CREATE TABLE workspace_key_uses (mine TEXT);"].concat();
    copy_to(&old, &in_the_way, 1, &new, &["clusters", "workspaces"]).await;
    let before = schema_of(&old).await;
    let refused = Catalog::open(&old, mac_key(1)).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Sql { .. }), "{refused:?}");
    assert_eq!(schema_of(&old).await, before);
    run_sql(&old, "DROP TABLE workspace_key_uses").await;
    let catalog = Catalog::open(&old, mac_key(1)).await.expect("nothing of the attempt is in the way");
    assert_eq!(catalog.clusters().await.unwrap(), [cluster()]);
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
