//! Copies of a catalog that is in use.

use std::time::Duration;

use super::*;
use crate::Catalog;
use crate::catalog::tests::{WORKSPACE, commit, coverage, filled, mac_key, read_everything, run_sql, table};

#[tokio::test]
async fn a_copy_of_a_catalog_in_use_is_one_whole_file_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    let catalog = filled(&dir).await;
    catalog.apply(commit(5, table(4, "logs"), vec![])).await.unwrap();
    assert!(dir.path().join("catalog.sqlite-wal").exists(), "the server runs, and its last changes are in the journal");

    // Segments are added all the while; a copy has each of them or not, but never half of one.
    let busy = {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            for id in 20..120 {
                catalog.apply(covering(id)).await.unwrap();
            }
        })
    };
    let backups = dir.path().join("it's a \"folder\"");
    fs::create_dir(&backups).unwrap();
    for name in ["one", "two", "three"] {
        let to = backups.join(name);
        backup(&file, &to).await.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    busy.await.unwrap();
    let mut names: Vec<_> = fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "three", "two"], "single files, nothing beside them");

    let mut last = 0;
    for name in ["one", "two", "three"] {
        let copy = Catalog::open(&backups.join(name), mac_key(1)).await.unwrap();
        read_everything(&copy).await.unwrap();
        let covered = copy.coverage().await.unwrap().len();
        assert_eq!(copy.snapshot(WORKSPACE).await.unwrap().segments.len(), covered + 1);
        assert!(covered >= last, "later copies know more");
        last = covered;
    }
    catalog.apply(commit(6, table(4, "logs"), vec![])).await.expect("the catalog goes on");
}

fn covering(id: u8) -> crate::Change {
    let mut change = commit(id, table(4, "logs"), vec![]);
    if let crate::Change::CommitSegment(commit) = &mut change {
        commit.coverage = vec![coverage(1, u64::from(id), u64::from(id), Some(id))];
    }
    change
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_leaves_nothing_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    let _catalog = filled(&dir).await;
    let to = dir.path().join("copy");
    let partial = dir.path().join("copy.partial");

    fs::write(&to, b"precious").unwrap();
    let refused = backup(&file, &to).await.unwrap_err();
    assert!(matches!(&refused, CatalogError::Exists(path) if *path == to), "{refused:?}");
    assert!(matches!(backup(&file, &file).await, Err(CatalogError::Exists(_))), "onto the catalog itself");
    assert_eq!(fs::read(&to).unwrap(), b"precious");
    fs::remove_file(&to).unwrap();

    fs::write(&partial, b"of another backup").unwrap();
    assert!(matches!(backup(&file, &to).await, Err(CatalogError::Exists(path)) if path == partial));
    assert_eq!(fs::read(&partial).unwrap(), b"of another backup");
    assert!(!to.exists());
    fs::remove_file(&partial).unwrap();

    let nowhere = dir.path().join("no folder").join("copy");
    assert!(matches!(backup(&file, &nowhere).await, Err(CatalogError::Backup { .. })));

    let other = dir.path().join("other.sqlite");
    assert!(matches!(backup(&other, &to).await, Err(CatalogError::Sql { .. })), "no catalog");
    assert!(!other.exists(), "and none is made");
    fs::write(&other, b"").unwrap();
    assert!(matches!(backup(&other, &to).await, Err(CatalogError::Format { found: 0, .. })), "an empty file");
    run_sql(&other, "PRAGMA user_version = 99").await;
    assert!(matches!(backup(&other, &to).await, Err(CatalogError::Format { found: 99, .. })), "a newer catalog");
    assert!(!to.exists() && !partial.exists());
}

#[tokio::test]
async fn a_damaged_catalog_gives_an_error_and_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    let catalog = filled(&dir).await;
    for id in 20..80 {
        catalog.apply(covering(id)).await.unwrap();
    }
    catalog.close().await.unwrap();
    let pristine = fs::read(&file).unwrap();
    let to = dir.path().join("copy");
    let page = 4096;
    let mut refused = 0;
    for start in (page..pristine.len()).step_by(page) {
        let mut damaged = pristine.clone();
        damaged[start..start + 64].fill(0xa5);
        fs::write(&file, &damaged).unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(20), backup(&file, &to)).await.unwrap();
        match outcome {
            Ok(()) => fs::remove_file(&to).unwrap(), // a page that holds nothing
            Err(error) => {
                assert!(matches!(error, CatalogError::Sql { .. } | CatalogError::Damaged(_)), "{error:?}");
                assert!(!to.exists() && !dir.path().join("copy.partial").exists());
                refused += 1;
            }
        }
    }
    assert!(refused > 5, "{refused} pages");
}
