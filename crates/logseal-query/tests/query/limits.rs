//! Memory, time, rows and bytes are bounded, and nothing is written to disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logseal_query::{QueryError, QueryErrorKind, QuerySettings};

use crate::fixture::{Fixture, WORKSPACE, record};

#[tokio::test]
async fn a_query_over_the_memory_limit_fails_and_spills_nothing() {
    let settings = QuerySettings { memory_bytes: 4 * 1024 * 1024, target_partitions: 2, ..QuerySettings::default() };
    let mut fixture = Fixture::with_settings(settings);
    let records: Vec<_> = (0..20_000).map(|i| record(i, 9, &format!("{i:0>400}"), &[])).collect();
    fixture.segment(&records).await;
    let before = files_in_temp();
    for sql in [
        "SELECT body FROM logs ORDER BY body",
        "SELECT body, count(*) FROM logs GROUP BY body",
        "SELECT a.body FROM logs a JOIN logs b ON a.body = b.body",
        "SELECT body FROM logs",
        "SELECT array_agg(body) FROM logs",
    ] {
        let error = fixture.error(sql).await;
        assert_eq!(error, QueryError::OverMemory { limit: 4 * 1024 * 1024 }, "{sql}");
        assert!(error.to_string().contains("`query.memory_bytes`"), "{error}");
    }
    assert_eq!(files_in_temp(), before);
    // The memory is free again.
    assert_eq!(fixture.csv("SELECT count(DISTINCT severity_number) AS n FROM logs").await, "n\n1");
}

/// DataFusion's spill folders are called `datafusion-*`.
fn files_in_temp() -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(std::env::temp_dir()).expect("readable");
    let names = entries.map(|e| e.expect("readable").file_name());
    let mut names: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("datafusion")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_query_ends_at_its_time_limit() {
    let settings =
        QuerySettings { timeout_ms: 500, target_partitions: 2, concurrent_queries: 2, ..QuerySettings::default() };
    let fixture = Fixture::with_settings(settings);
    for sql in [
        "SELECT count(*) FROM generate_series(1, 100000000000) a",
        "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT max(a.value) FROM generate_series(1, 1000000) a JOIN generate_series(1, 1000000) b ON a.value < b.value",
    ] {
        let started = Instant::now();
        let error = fixture.error(sql).await;
        let took = started.elapsed();
        assert!(matches!(error.kind(), QueryErrorKind::TimedOut | QueryErrorKind::OverLimit), "{sql}: {error:?}");
        assert!(took < Duration::from_secs(5), "{sql}: {took:?}");
    }
    // Both slots are free again, so all five have really stopped: the slowest, a join's build side, after some seconds of its own
    // work, which is longer where others work beside it.
    let settled = async { while fixture.run("SELECT 1").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), settled).await.expect("the slots come back");
}

#[tokio::test]
async fn dropping_the_future_cancels_the_query() {
    let settings = QuerySettings { target_partitions: 2, concurrent_queries: 1, ..QuerySettings::default() };
    let fixture = Fixture::with_settings(settings);
    let endless = fixture.run("SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b");
    assert!(tokio::time::timeout(Duration::from_millis(200), endless).await.is_err());
    let next = tokio::time::timeout(Duration::from_secs(10), fixture.run("SELECT 1")).await;
    assert_eq!(next.expect("the only slot is free").expect("a result").rows, 1);
}

#[tokio::test]
async fn rows_are_cut_at_the_callers_limit_and_refused_at_ours() {
    let settings = QuerySettings {
        max_result_rows: 100,
        max_result_bytes: 10_000,
        target_partitions: 2,
        ..QuerySettings::default()
    };
    let fixture = Fixture::with_settings(settings);
    let series = |n: usize| format!("SELECT * FROM generate_series(1, {n})");
    for (rows, limit, expected) in [
        (10, Some(20), Ok((10, false))),
        (10, Some(10), Ok((10, false))),
        (11, Some(10), Ok((10, true))),
        (1_000_000_000, Some(10), Ok((10, true))),
        (5, Some(0), Ok((0, true))),
        (100, None, Ok((100, false))),
        (101, None, Err("query.max_result_rows")),
        (101, Some(100), Ok((100, true))),
        (101, Some(101), Err("query.max_result_rows")),
    ] {
        let found = match fixture.engine.run(WORKSPACE, &series(rows), limit).await {
            Ok(result) => Ok((result.rows, result.truncated)),
            Err(QueryError::ResultTooLarge { setting, .. }) => Err(setting),
            Err(other) => panic!("{rows} rows, limit {limit:?}: {other:?}"),
        };
        assert_eq!(found, expected, "{rows} rows, limit {limit:?}");
    }
    let error = fixture.error("SELECT repeat('x', 20000)").await;
    assert_eq!(error, QueryError::ResultTooLarge { setting: "query.max_result_bytes", limit: 10_000 });
    // Plans are not cut.
    assert!(fixture.engine.run(WORKSPACE, "EXPLAIN SELECT 1", Some(10)).await.expect("a plan").rows >= 1);
}

#[test]
fn settings_are_checked() {
    for bad in [
        QuerySettings { memory_bytes: 0, ..QuerySettings::default() },
        QuerySettings { timeout_ms: 0, ..QuerySettings::default() },
        QuerySettings { concurrent_queries: 0, ..QuerySettings::default() },
    ] {
        let store = Arc::new(object_store::memory::InMemory::new());
        let fixture = Fixture::new();
        let engine = logseal_query::QueryEngine::new(
            bad,
            store,
            Arc::clone(&fixture.catalog) as _,
            Arc::clone(&fixture.opener) as _,
        );
        assert!(engine.expect_err("refused").to_string().contains("must be above 0"));
    }
}
