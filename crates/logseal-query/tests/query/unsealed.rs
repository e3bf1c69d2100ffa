//! Acknowledged rows that are in no segment yet are part of every answer, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::stream::{self, StreamExt};
use logseal_otlp::WorkspaceSchema;
use logseal_query::{Lag, ParkedRows, PortError, PortErrorKind, QueryError, QueryErrorKind, QuerySettings, format};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::fixture::{Fixture, NEW_YEAR, WORKSPACE};
use crate::rows::{Row, attribute, batch, log, no_columns, parked, row};

/// Rows in memory and rows in the log, with the columns of `schema`.
fn put(fixture: &Fixture, schema: &WorkspaceSchema, memory: Vec<RecordBatch>, log: Vec<Arc<dyn ParkedRows>>) {
    fixture.edit("logs", |table| {
        table.columns = schema.tables()[0].columns();
        table.unsealed.batches = memory;
        table.unsealed.parked = log;
    });
}

/// Two small rows in memory beside `log`.
fn beside(log: Vec<Arc<dyn ParkedRows>>) -> Fixture {
    let (fixture, schema) = (Fixture::new(), no_columns());
    let memory = batch(&schema, &[row(1, "memory"), row(2, "memory")]);
    put(&fixture, &schema, vec![memory], log);
    fixture
}

/// A deterministic source of choices (xorshift64).
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn arbitrary_rows(choices: &mut Choices) -> Vec<Row> {
    let scopes = choices.one_in(2);
    let text = |text: &str| Value::StringValue(text.into());
    let row = |second: usize| {
        let mut row = row(i64::try_from(second).expect("small"), &format!("body {second}"));
        row.severity = [5, 9, 13, 17][choices.below(4)];
        for (key, value) in [
            ("status", Value::IntValue([200, 404, 500][choices.below(3)])),
            ("route", text(["/a", "/b", "/b/c"][choices.below(3)])),
            ("ok", Value::BoolValue(choices.one_in(2))),
            ("took", Value::DoubleValue([0.5, 1.5, -2.0][choices.below(3)])),
            ("raw", Value::BytesValue(vec![0, 255])),
        ] {
            if choices.one_in(2) {
                row.attributes.push(attribute(key, value));
            }
        }
        if choices.one_in(5) {
            row.attributes.push(attribute(&format!("rare{second}"), text("once")));
        }
        if choices.one_in(3) {
            row.resource.push(attribute("service.name", text(["web", "db"][choices.below(2)])));
        }
        if scopes && choices.one_in(4) {
            row.scope.push(attribute("lib", Value::IntValue(7)));
        }
        row
    };
    (0..60).map(row).collect()
}

const QUERIES: [&str; 39] = [
    "SELECT count(*) AS n FROM logs",
    "SELECT count(1) AS n, min(time) AS a, max(time) AS b FROM logs",
    "SELECT min(time) AS a FROM logs WHERE severity_number > 9",
    "SELECT max(time) AS b FROM logs WHERE time < '2024-01-01T00:00:30Z'",
    "SELECT count(*) AS n FROM logs WHERE time >= '2024-01-01T00:00:20Z' AND time < '2024-01-01T00:00:40Z'",
    "SELECT count(*) AS n FROM logs WHERE time > '2030-01-01T00:00:00Z'",
    "SELECT count(*) AS n, count(body) AS b, count(attributes['status']) AS s, count(overflow) AS o FROM logs",
    "SELECT count(DISTINCT attributes['route']) AS n FROM logs",
    "SELECT count(*) AS n FROM (SELECT * FROM logs LIMIT 5) t",
    "SELECT count(*) AS n FROM (SELECT body FROM logs WHERE severity_number = 9 LIMIT 1000) t",
    "SELECT count(*) AS n FROM (SELECT 1 FROM logs OFFSET 7) t",
    "SELECT 'x' AS x FROM logs",
    "SELECT time, body FROM logs ORDER BY time LIMIT 7",
    "SELECT time, body FROM logs ORDER BY time DESC LIMIT 7",
    "SELECT body FROM logs ORDER BY time DESC LIMIT 3 OFFSET 5",
    "SELECT body FROM logs ORDER BY body",
    "SELECT body FROM logs WHERE body LIKE '%1%' AND severity_number <> 5 ORDER BY time",
    "SELECT severity_number, count(*) AS n, sum(attributes['status']) AS s FROM logs GROUP BY 1 ORDER BY 1",
    "SELECT attributes['route'] AS r, min(time) AS t, count(*) AS n FROM logs GROUP BY 1 ORDER BY 1 NULLS FIRST",
    "SELECT attributes['none'] AS x, scope_attributes['lib'] AS y, count(*) AS n FROM logs GROUP BY 1, 2 ORDER BY 2",
    "SELECT attributes['ok'] AS a, attributes['took'] AS b, attributes['raw'] AS c, service_name FROM logs ORDER BY time",
    "SELECT body FROM logs WHERE attributes['rare7'] = 'once' OR attributes['rare8'] IS NOT NULL ORDER BY 1",
    "SELECT attributes FROM logs ORDER BY time",
    "SELECT resource_attributes, scope_attributes FROM logs ORDER BY time",
    "SELECT * FROM logs ORDER BY time",
    "SELECT count(*) AS n FROM logs WHERE attributes IS NULL OR resource_attributes IS NULL",
    "SELECT count(*) AS n FROM logs WHERE scope_attributes IS NULL",
    "SELECT count(*) AS n FROM logs WHERE attributes['status'] = 500 OR attributes['route'] LIKE '/b%'",
    "SELECT count(*) AS n FROM logs WHERE attributes['ok'] IS NOT TRUE",
    "SELECT body FROM logs WHERE time = (SELECT max(time) FROM logs)",
    "SELECT a.attributes['route'] AS r, count(*) AS n FROM logs a JOIN logs b \
     ON a.attributes['route'] = b.attributes['route'] GROUP BY 1 ORDER BY 1",
    "SELECT count(*) AS n FROM logs a LEFT JOIN logs b ON a.time = b.time AND b.severity_number = 9 WHERE b.time IS NULL",
    "SELECT body, rank() OVER (PARTITION BY severity_number ORDER BY time) AS r FROM logs ORDER BY time",
    "SELECT body FROM logs UNION ALL SELECT body FROM logs ORDER BY 1",
    "SELECT DISTINCT service_name FROM logs ORDER BY 1",
    "WITH t AS (SELECT * FROM logs WHERE severity_number > 5) SELECT count(*) AS n, max(body) AS b FROM t",
    "DESCRIBE logs",
    "SHOW COLUMNS FROM logs",
    "SHOW TABLES",
];

async fn answers(fixture: &Fixture) -> Vec<String> {
    let mut answers = Vec::new();
    for sql in QUERIES {
        let result = fixture.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        answers.push(format::json(&result).expect("renders"));
    }
    answers
}

/// The same records are split at random into segments, batches in memory and batches in the log: no query can tell.
#[tokio::test]
async fn where_a_row_is_makes_no_difference() {
    // Which of the three places are in use; all seven mixtures, twice.
    for case in 0..14_u64 {
        let places: Vec<usize> = (0..3).filter(|place| (case % 7 + 1) & (1 << place) != 0).collect();
        let mut choices = Choices(0x9E37_79B9_7F4A_7C15 ^ (case + 1));
        let rows = arbitrary_rows(&mut choices);

        let mut sealed = Fixture::new();
        let schema = no_columns();
        let all = batch(&schema, &rows);
        let columns = schema.tables()[0].columns();
        sealed.seal("logs", &all, columns.clone(), 20).await;

        let mut split = Fixture::new();
        let mut rest = rows;
        let (mut memory, mut log_files) = (Vec::new(), vec![Vec::new(), Vec::new()]);
        while !rest.is_empty() {
            let most = if choices.one_in(4) { 20 } else { 3 };
            let part = (0..=choices.below(most)).map_while(|_| {
                let left = rest.len();
                (left > 0).then(|| rest.swap_remove(choices.below(left)))
            });
            let part = batch(&schema, &part.collect::<Vec<_>>());
            match places[choices.below(places.len())] {
                0 => drop(split.seal("logs", &part, columns.clone(), 5).await),
                1 => memory.push(part),
                _ => log_files[choices.below(2)].push(part),
            }
        }
        let mut log_files: Vec<_> =
            log_files.into_iter().zip([true, false]).map(|(file, slow)| log(file, slow)).collect();
        if !places.contains(&2) {
            log_files.clear();
        }
        put(&split, &schema, memory, log_files);

        for ((sql, expected), found) in QUERIES.iter().zip(answers(&sealed).await).zip(answers(&split).await) {
            assert_eq!(found, expected, "case {case}: {sql}");
        }
        for sql in ["EXPLAIN SELECT * FROM logs", "EXPLAIN ANALYZE SELECT body FROM logs WHERE time > '2024-01-01'"] {
            assert!(split.run(sql).await.expect("a plan").rows > 0, "case {case}");
        }
    }
}

#[tokio::test]
async fn the_lag_of_the_snapshot_comes_with_the_result() {
    let fixture = beside(Vec::new());
    let lag = Lag { records: 2, age: Duration::from_millis(1_500) };
    fixture.catalog.snapshot.lock().expect("no panic").lag = lag;
    for sql in ["SELECT body FROM logs", "SELECT 1", "SHOW TABLES"] {
        assert_eq!(fixture.run(sql).await.expect("a result").lag, lag, "{sql}");
    }
    assert_eq!(Lag::default(), Lag { records: 0, age: Duration::ZERO });
}

/// Rows in memory are counted already; nobody has counted those of the log.
#[tokio::test]
async fn counts_are_only_believed_where_they_are_known() {
    let mut fixture = beside(Vec::new());
    let from_statistics = "PlaceholderRowExec";
    for sql in ["EXPLAIN SELECT count(*) FROM logs", "EXPLAIN SELECT min(time), max(time) FROM logs"] {
        let plan = fixture.csv(sql).await;
        assert!(plan.contains(from_statistics), "{plan}");
    }
    let schema = no_columns();
    fixture.seal("logs", &batch(&schema, &[row(0, "segment")]), Vec::new(), 10).await;
    let plan = fixture.csv("EXPLAIN SELECT count(*) FROM logs").await;
    assert!(plan.contains(from_statistics), "{plan}");
    assert_eq!(fixture.csv("SELECT count(*) AS n FROM logs").await, "n\n3");

    let more = batch(&schema, &[row(-5, "log"), row(500, "log")]);
    fixture.edit("logs", |table| table.unsealed.parked.push(log(vec![more], false)));
    let plan = fixture.csv("EXPLAIN SELECT count(*) FROM logs").await;
    assert!(!plan.contains(from_statistics), "{plan}");
    assert_eq!(
        fixture.csv("SELECT count(*) AS n, min(time) AS a, max(time) AS b FROM logs").await,
        "n,a,b\n5,2023-12-31T23:59:55.000000000Z,2024-01-01T00:08:20.000000000Z"
    );
}

#[tokio::test]
async fn batches_outside_the_asked_time_are_left_out() {
    let (fixture, schema) = (Fixture::new(), no_columns());
    let batches = (0..10).map(|i| batch(&schema, &[row(i * 10, "a"), row(i * 10 + 9, "b")])).collect();
    put(&fixture, &schema, batches, Vec::new());
    for (predicate, batches, rows) in [
        ("time >= '2024-01-01T00:01:30Z'", Some(1), 2),
        ("time = '2024-01-01T00:00:05Z'", Some(1), 0),
        ("time < '2024-01-01T00:00:10Z' OR time = '2024-01-01T00:00:50Z'", Some(2), 3),
        ("body = 'a'", Some(10), 10),
        ("time > '2025-01-01'", None, 0),
    ] {
        let plan = fixture.csv(&format!("EXPLAIN SELECT body FROM logs WHERE {predicate}")).await;
        match batches {
            Some(batches) => assert!(plan.contains(&format!("batches={batches} in")), "{predicate}: {plan}"),
            None => assert!(plan.contains("EmptyExec"), "{predicate}: {plan}"),
        }
        let result = fixture.run(&format!("SELECT body FROM logs WHERE {predicate}")).await.expect(predicate);
        assert_eq!(result.rows, rows, "{predicate}");
    }
}

/// A request may have ten records; a plan that had a partition for each, or operators that saw them one by one, would
/// spend its time on everything but the rows.
#[tokio::test]
async fn many_small_batches_are_few_partitions_and_few_batches() {
    let (fixture, schema) = (Fixture::new(), no_columns());
    let rows: Vec<Row> = (0..10)
        .map(|i| Row { attributes: vec![attribute(&format!("k{i}"), Value::IntValue(i))], ..row(i, "small") })
        .collect();
    let small = batch(&schema, &rows);
    put(&fixture, &schema, vec![small.clone(); 2_000], vec![log(vec![small; 2_000], false)]);

    let plan = fixture.csv("EXPLAIN SELECT body FROM logs").await;
    assert!(plan.contains("batches=2000 in 2 partitions, parked=1"), "{plan}");
    let result = fixture.run("SELECT body, attributes FROM logs").await.expect("a result");
    assert_eq!(result.rows, 40_000);
    assert!(result.batches.len() <= 8, "{}", result.batches.len());
    assert!(result.batches.iter().all(|batch| batch.num_rows() <= 8_192));
    assert_eq!(
        fixture.csv("SELECT attributes['k3'] AS k, count(*) AS n FROM logs GROUP BY 1 ORDER BY 1").await,
        "k,n\n3,4000\n,36000"
    );
}

/// A request may also have very many records; the sort's memory is that of the rows, once.
#[tokio::test]
async fn a_big_batch_is_sorted_within_its_own_size() {
    let settings = QuerySettings { memory_bytes: 64 << 20, target_partitions: 1, ..QuerySettings::default() };
    let (fixture, schema) = (Fixture::with_settings(settings), no_columns());
    let rows: Vec<Row> = (0..50_000).map(|i| row(i, &format!("{i:0>200}"))).collect();
    put(&fixture, &schema, vec![batch(&schema, &rows)], Vec::new());
    let result = fixture.run("SELECT body FROM logs ORDER BY body DESC").await.expect("a result");
    assert_eq!(result.rows, 50_000);
}

/// Bodies of a megabyte: rows alone would let a batch grow to gigabytes.
#[tokio::test]
async fn joined_batches_are_bounded_by_bytes() {
    let (fixture, schema) = (Fixture::new(), no_columns());
    let big = batch(&schema, &[row(0, &"x".repeat(1 << 20))]);
    put(&fixture, &schema, vec![big.clone(); 20], vec![log(vec![big; 20], false)]);
    let result = fixture.run("SELECT body FROM logs").await.expect("a result");
    assert_eq!(result.rows, 40);
    assert!(result.batches.iter().all(|batch| batch.num_rows() <= 8));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_fails_the_query_with_its_reason() {
    for (kind, expected) in [
        (PortErrorKind::Denied, QueryErrorKind::Denied),
        (PortErrorKind::Unavailable, QueryErrorKind::Unavailable),
        (PortErrorKind::Corrupt, QueryErrorKind::Damaged),
        (PortErrorKind::NotFound, QueryErrorKind::Damaged),
    ] {
        let schema = no_columns();
        let first = batch(&schema, &[row(3, "log")]);
        let fixture = beside(vec![parked(move || {
            let error = PortError::new(kind, "file `7` of the write-ahead log: the reason");
            stream::iter([Ok(first.clone()), Err(error)]).boxed()
        })]);
        for sql in [
            "SELECT body FROM logs",
            "SELECT count(*) FROM logs",
            "SELECT body FROM logs ORDER BY time LIMIT 1",
            "SELECT severity_number, count(*) FROM logs GROUP BY 1",
            "SELECT count(*) FROM logs a JOIN logs b ON a.time = b.time",
        ] {
            let error = fixture.error(sql).await;
            assert_eq!(error.kind(), expected, "{sql}: {error:?}");
            assert_eq!(error.to_string(), "file `7` of the write-ahead log: the reason", "{sql}");
        }
        // What does not read the table does not need its log.
        assert_eq!(fixture.csv("SELECT 1 AS n").await, "n\n1");
    }
}

#[tokio::test]
async fn a_panic_while_the_log_is_read_fails_only_its_query() {
    let calls = Arc::new(AtomicUsize::new(0));
    let fixture = beside(vec![parked(move || match calls.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("SECRET in the first call"),
        1 => stream::once(async { panic!("SECRET in the stream") }).boxed(),
        _ => stream::empty().boxed(),
    })]);
    for _ in 0..2 {
        let error = fixture.error("SELECT body FROM logs").await;
        assert_eq!(error, QueryError::Internal { message: "reading rows from the write-ahead log panicked".into() });
    }
    assert_eq!(fixture.csv("SELECT body FROM logs").await, "body\nmemory\nmemory");
}

#[tokio::test]
async fn rows_that_do_not_fit_their_table_fail_the_query() {
    let time = arrow::array::TimestampNanosecondArray::from(vec![NEW_YEAR]).with_timezone("UTC");
    let body = arrow::array::Int64Array::from(vec![7]);
    let odd = RecordBatch::try_from_iter([("time", Arc::new(time) as _), ("body", Arc::new(body) as _)]);
    let odd = odd.expect("columns of one length");
    let timeless = odd.project(&[1]).expect("a column");
    let fixture = beside(vec![log(vec![odd.clone()], false)]);
    let error = fixture.error("SELECT body FROM logs").await;
    assert_eq!(error.kind(), QueryErrorKind::Internal, "{error:?}");
    assert!(error.to_string().contains("do not fit their table"), "{error}");
    for batch in [odd, timeless] {
        let fixture = Fixture::new();
        fixture.edit("logs", |table| table.unsealed.batches.push(batch));
        assert_eq!(fixture.error("SELECT body FROM logs").await.kind(), QueryErrorKind::Internal);
    }
}

/// Neither a reader that always has rows, nor one that never has any, nor one that waits for ever outlives its query.
#[tokio::test]
async fn an_endless_log_stops_with_its_query() {
    let settings =
        QuerySettings { timeout_ms: 300, target_partitions: 2, concurrent_queries: 1, ..QuerySettings::default() };
    let schema = no_columns();
    let (full, empty) = (batch(&schema, &[row(0, "a")]), batch(&schema, &[row(0, "a")]).slice(0, 0));
    let endless = |batch: RecordBatch| parked(move || stream::repeat(batch.clone()).map(Ok).boxed());
    for log in [endless(full.clone()), endless(empty), parked(|| stream::pending().boxed())] {
        let fixture = Fixture::with_settings(settings.clone());
        put(&fixture, &schema, vec![full.clone()], vec![Arc::clone(&log)]);
        for sql in ["SELECT count(*) FROM logs", "SELECT severity_number, count(*) FROM logs GROUP BY 1"] {
            assert_eq!(fixture.error(sql).await, QueryError::TimedOut { limit_ms: 300 }, "{sql}");
            // The only slot is free again, so the query has really stopped.
            let settled = async { while fixture.run("SELECT 1").await.is_err() {} };
            tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the slot comes back");
        }
        let dropped =
            tokio::time::timeout(Duration::from_millis(50), fixture.run("SELECT count(body) FROM logs")).await;
        assert!(dropped.is_err());
        let settled = async { while fixture.run("SELECT 1").await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the slot comes back");
    }
}

/// A limit ends the reading, and rows that are there are not held back for more that may come.
#[tokio::test]
async fn a_limit_reads_no_more_than_it_needs() {
    let schema = no_columns();
    let rows = batch(&schema, &[row(0, "log"), row(1, "log"), row(2, "log")]);
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let endless = rows.clone();
    let endless = parked(move || {
        let count = Arc::clone(&count);
        let batches = stream::repeat(endless.clone());
        let counted = move |batch| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(batch)
        };
        batches.map(counted).boxed()
    });
    let fixture = Fixture::new();
    put(&fixture, &schema, Vec::new(), vec![endless]);
    assert_eq!(fixture.run("SELECT body FROM logs LIMIT 7").await.expect("a result").rows, 7);
    assert!(pulled.load(Ordering::SeqCst) <= 6, "{pulled:?}");
    let result = fixture.engine.run(WORKSPACE, "SELECT body FROM logs", Some(5)).await.expect("a result");
    assert_eq!((result.rows, result.truncated), (5, true));

    let stuck = parked(move || stream::iter([Ok(rows.clone())]).chain(stream::pending()).boxed());
    put(&fixture, &schema, Vec::new(), vec![stuck]);
    assert_eq!(fixture.run("SELECT body FROM logs LIMIT 3").await.expect("a result").rows, 3);
}

/// What is not asked for is not looked at: a query of another table needs no log of this one.
#[tokio::test]
async fn each_table_has_its_own_rows() {
    let mut fixture = beside(vec![parked(|| panic!("not asked for"))]);
    fixture.table("audit");
    let schema = no_columns();
    let rows = batch(&schema, &[row(0, "audit")]);
    fixture.edit("audit", |table| table.unsealed.batches.push(rows));
    assert_eq!(fixture.csv("SELECT body FROM audit").await, "body\naudit");
    assert_eq!(fixture.csv("SHOW TABLES").await.lines().count(), 3);
}

/// Snapshots are values that somebody may print while looking for a fault.
#[tokio::test]
async fn the_debug_text_of_a_snapshot_has_no_log_content() {
    let (fixture, schema) = (Fixture::new(), no_columns());
    put(&fixture, &schema, vec![batch(&schema, &[row(0, "SECRET")])], Vec::new());
    let snapshot = fixture.catalog.snapshot.lock().expect("no panic").clone();
    let text = format!("{snapshot:?}");
    assert!(text.contains("batches: 1") && !text.contains("SECRET"), "{text}");
}
