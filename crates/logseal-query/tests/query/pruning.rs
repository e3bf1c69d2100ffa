//! What a query does not need is not opened and not read.

use crate::fixture::{Fixture, Record, Value, record};
use logseal_core::SegmentId;

/// Records whose wide columns are big and do not compress.
fn wide(from: i64, count: i64) -> Vec<Record> {
    let noise = |i: i64, n: usize| -> String {
        let mut state = u64::try_from(i).expect("positive").wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(b'a' + u8::try_from(state % 26).expect("below 26"))
            })
            .collect()
    };
    (from..from + count)
        .map(|i| {
            let big: &'static str = Box::leak(noise(i + 1_000_000, 400).into_boxed_str());
            record(i, 9, &noise(i + 1, 400), &[("big", Value::Str(big)), ("small", Value::Int(i % 7))])
        })
        .collect()
}

fn ids(numbers: &[u8]) -> Vec<SegmentId> {
    numbers.iter().map(|n| SegmentId::from_bytes([*n; 16])).collect()
}

#[tokio::test]
async fn only_segments_of_the_asked_time_are_opened() {
    let mut fixture = Fixture::new();
    for minute in 0..10 {
        fixture
            .segment(&[
                record(minute * 60, 9, "a", &[("m", Value::Int(minute))]),
                record(minute * 60 + 59, 9, "b", &[]),
            ])
            .await;
    }
    for (predicate, opened, rows) in [
        ("time >= '2024-01-01T00:09:00Z'", &[10][..], 2),
        ("time < '2024-01-01T00:01:00Z'", &[1], 2),
        ("time = '2024-01-01T00:03:59Z'", &[4], 1),
        ("time BETWEEN '2024-01-01T00:02:30Z' AND '2024-01-01T00:04:30Z'", &[3, 4, 5], 4),
        ("time > timestamp '2024-01-01 00:08:00' AND body = 'b'", &[9, 10], 2),
        ("time >= now() - interval '1 hour'", &[], 0),
        ("time >= '2024-01-01T00:09:00Z' OR time < '2024-01-01T00:01:00Z'", &[1, 10], 4),
        ("time IN ('2024-01-01T00:00:00Z', '2024-01-01T00:05:00Z')", &[1, 6], 2),
        ("date_trunc('minute', time) = '2024-01-01T00:05:00Z'", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 2),
        ("body = 'a'", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 10),
        ("false", &[], 0),
    ] {
        fixture.opener.take_opened();
        let result = fixture.run(&format!("SELECT body FROM logs WHERE {predicate}")).await.expect(predicate);
        assert_eq!(result.rows, rows, "{predicate}");
        let found = fixture.opener.take_opened();
        assert_eq!(found, ids(opened), "{predicate}");
    }
    // Through a CTE and below a join, where the predicate has to travel.
    fixture
        .run("WITH x AS (SELECT * FROM logs) SELECT body FROM x WHERE time >= '2024-01-01T00:09:00Z'")
        .await
        .expect("runs");
    assert_eq!(fixture.opener.take_opened(), ids(&[10]));
    // Top-k: the newest segment is read first and its times exclude the others, but for one that another thread had opened by then.
    let top = fixture.csv("SELECT time FROM logs ORDER BY time DESC LIMIT 1").await;
    assert!(top.ends_with("00:09:59.000000000Z"), "{top}");
    let opened = fixture.opener.take_opened();
    assert!(opened.ends_with(&ids(&[10])) && opened.len() <= 2, "{opened:?}");
    // Counts and bounds come from the catalog.
    fixture.csv("SELECT count(*), min(time), max(time) FROM logs").await;
    assert_eq!(fixture.opener.take_opened(), ids(&[]));
    // One segment in each partition is enough.
    fixture.run("SELECT body FROM logs LIMIT 1").await.expect("runs");
    assert!(fixture.opener.take_opened().len() <= 2);
}

#[tokio::test]
async fn only_the_needed_columns_are_read() {
    let mut fixture = Fixture::new();
    let segment = fixture.segment(&wide(0, 2_000)).await;
    let mut read = Vec::new();
    for (sql, at_most) in [
        ("SELECT count(severity_number) FROM logs", 10),
        ("SELECT body FROM logs", 60),
        ("SELECT sum(attributes['small']) FROM logs", 10),
        ("SELECT attributes['small'] FROM logs", 10),
        ("SELECT attributes['small'], count(*) FROM logs GROUP BY attributes['small']", 10),
        ("SELECT severity_number FROM logs WHERE attributes['small'] = 3", 10),
        ("SELECT count(*) FROM logs WHERE attributes['small'] = 3", 10),
        ("SELECT attributes['small'] + 1 FROM logs WHERE severity_number = 9 ORDER BY attributes['small'] LIMIT 3", 10),
        ("SELECT attributes['big'] FROM logs", 60),
        ("SELECT attributes['none'] FROM logs", 10),
        ("SELECT a.attributes['small'] FROM logs a JOIN logs b ON a.attributes['small'] = b.severity_number", 20),
        ("SELECT * FROM logs", 110),
    ] {
        fixture.store.take_read();
        fixture.run(sql).await.expect(sql);
        let percent = fixture.store.take_read() * 100 / segment.bytes;
        read.push((sql, percent, at_most));
    }
    assert!(read.iter().all(|(_, percent, at_most)| percent <= at_most), "{read:#?}");
}

#[tokio::test]
async fn row_groups_and_pages_are_pruned() {
    let mut fixture = Fixture::new();
    let segment = fixture.segment_of("logs", &wide(0, 4_000), 1_000).await;
    let mut read = Vec::new();
    for (sql, rows, at_most) in [
        // One row group of four, in it one page of ten.
        ("SELECT body FROM logs WHERE time = '2024-01-01T00:25:00Z'", 1, 12),
        ("SELECT * FROM logs WHERE time >= '2024-01-01T00:50:00Z'", 1_000, 35),
        ("SELECT count(*) FROM logs WHERE time < '2024-01-01T00:00:30Z'", 1, 12),
    ] {
        fixture.store.take_read();
        assert_eq!(fixture.run(sql).await.expect(sql).rows, rows, "{sql}");
        let percent = fixture.store.take_read() * 100 / segment.bytes;
        read.push((sql, percent, at_most));
    }
    assert!(read.iter().all(|(_, percent, at_most)| percent <= at_most), "{read:#?}");
    assert_eq!(fixture.csv("SELECT count(*) AS n FROM logs WHERE time < '2024-01-01T00:00:30Z'").await, "n\n30");
}

#[tokio::test]
async fn a_big_segment_is_scanned_in_parts() {
    let mut fixture = Fixture::new();
    let segment = fixture.segment_of("logs", &wide(0, 16_000), 1_000).await;
    assert!(segment.bytes > 10 * 1024 * 1024, "large enough for DataFusion to split: {}", segment.bytes);
    let plan = fixture.csv("EXPLAIN SELECT count(body) FROM logs").await;
    assert!(plan.contains("file_groups={2 groups:"), "{plan}");
    assert_eq!(fixture.csv("SELECT count(body) AS n FROM logs").await, "n\n16000");
}
