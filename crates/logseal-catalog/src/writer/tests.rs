//! The writer when the storage fails: all of a group or nothing, and later changes go on.

use std::path::Path;
use std::time::Duration;

use logseal_crypto::Key256;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Row as _};

use super::*;
use crate::catalog::tests::{commit, filled, table};

fn mac_key() -> MacKey {
    MacKey::new(Key256::copy_from_slice(&[1; 32]).unwrap())
}

/// A connection as the writer's, that does not wait long for another one.
async fn connect(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(20));
    options.connect().await.unwrap()
}

async fn apply(connection: &mut SqliteConnection, changes: &[Change]) -> Vec<Result<(), CatalogError>> {
    let group: Vec<_> = changes.iter().map(|change| (change.clone(), oneshot::channel().0)).collect();
    let mut outcomes = Vec::new();
    let committed = commit_group(connection, &mac_key(), &group, &mut outcomes, &mut Concerned::default()).await;
    assert_eq!(outcomes.len(), changes.len());
    outcomes.into_iter().map(|outcome| committed.clone().and(outcome)).collect()
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> i64 {
    connection.fetch_one(sql).await.unwrap().get(0)
}

async fn segments(connection: &mut SqliteConnection) -> i64 {
    number(connection, "SELECT count(*) FROM segments").await
}

/// A segment whose row takes many pages.
fn large(id: u8) -> Change {
    let mut change = commit(id, table(4, "logs"), vec![]);
    if let Change::CommitSegment(commit) = &mut change {
        commit.segment.wrapped_dek = vec![7; 200_000];
    }
    change
}

fn small(id: u8) -> Change {
    commit(id, table(4, "logs"), vec![])
}

#[tokio::test]
async fn a_full_disk_refuses_the_whole_group_and_the_next_one_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir).await.close().await.unwrap();
    let mut connection = connect(&dir.path().join("catalog.sqlite")).await;
    let pages = number(&mut connection, "PRAGMA page_count").await;
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 4));
    connection.execute(sqlx::raw_sql(limit)).await.unwrap();

    for _ in 0..3 {
        let outcomes = apply(&mut connection, &[small(5), large(6), small(7)]).await;
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert!(error.is_storage() && !error.is_decision(), "{error:?}");
            assert!(format!("{error:?}").contains("full"), "{error:?}");
        }
        assert_eq!(segments(&mut connection).await, 0, "nothing of the group is there");
    }
    assert!(apply(&mut connection, &[small(8)]).await[0].is_ok(), "what fits is taken");
    connection.execute("PRAGMA max_page_count = 1073741823").await.unwrap();
    for outcome in apply(&mut connection, &[small(5), large(6), small(7)]).await {
        outcome.unwrap();
    }
    assert_eq!(segments(&mut connection).await, 4);
}

#[tokio::test]
async fn a_failed_begin_or_commit_leaves_no_transaction_open() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir).await.close().await.unwrap();
    let file = dir.path().join("catalog.sqlite");
    let (mut connection, mut other) = (connect(&file).await, connect(&file).await);

    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let outcomes = apply(&mut connection, &[small(5), small(6)]).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(CatalogError::is_storage)), "{outcomes:?}");
    other.execute("ROLLBACK").await.unwrap();
    assert!(apply(&mut connection, &[small(5)]).await[0].is_ok());

    connection.lock_handle().await.unwrap().set_commit_hook(|| false);
    let outcomes = apply(&mut connection, &[small(6), small(7)]).await;
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    connection.lock_handle().await.unwrap().remove_commit_hook();
    assert_eq!(segments(&mut other).await, 1);
    assert!(apply(&mut connection, &[small(6), small(7)]).await.iter().all(Result::is_ok));
    assert_eq!(segments(&mut other).await, 3);
}

#[tokio::test]
async fn a_transaction_that_someone_left_open_costs_one_group_only() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir).await.close().await.unwrap();
    let mut connection = connect(&dir.path().join("catalog.sqlite")).await;
    connection.execute("BEGIN IMMEDIATE").await.unwrap();
    assert!(apply(&mut connection, &[small(5)]).await[0].is_err());
    assert!(apply(&mut connection, &[small(5)]).await[0].is_ok());
}
