//! Nothing but queries, and errors that say what and where.

use logseal_query::{PortError, PortErrorKind, Position, QueryError, QueryErrorKind};

use crate::fixture::{Fixture, Value, record};

#[tokio::test]
async fn only_queries_are_allowed() {
    let mut fixture = Fixture::new();
    fixture.segment(&[record(0, 9, "a", &[])]).await;
    for (sql, what) in [
        ("INSERT INTO logs SELECT * FROM logs", "INSERT"),
        ("INSERT INTO logs (body) VALUES ('x')", "INSERT"),
        ("UPDATE logs SET body = 'x'", "UPDATE"),
        ("DELETE FROM logs", "DELETE"),
        ("DROP TABLE logs", "DROP"),
        ("TRUNCATE TABLE logs", "TRUNCATE"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("CREATE VIEW v AS SELECT 1", "CREATE"),
        ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'", "CREATE EXTERNAL TABLE"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE"),
        ("COPY logs TO '/tmp/logs.csv' STORED AS CSV", "COPY"),
        ("COPY (SELECT 1) TO 'x.parquet'", "COPY"),
        ("SET datafusion.execution.target_partitions = 1", "SET"),
        ("RESET datafusion.execution.target_partitions", "RESET"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("BEGIN", "BEGIN"),
        ("EXPLAIN DELETE FROM logs", "DELETE"),
        ("EXPLAIN ANALYZE INSERT INTO logs SELECT * FROM logs", "INSERT"),
        ("EXPLAIN COPY logs TO '/tmp/x.csv'", "COPY"),
        ("SELECT * INTO t FROM logs", "SELECT INTO"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT 1; DROP TABLE logs", "several statements"),
    ] {
        let error = fixture.error(sql).await;
        assert_eq!(error.kind(), QueryErrorKind::Refused, "{sql}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(what), "{sql}: {text}");
        assert!(text.ends_with("only SELECT, SHOW TABLES, SHOW COLUMNS, DESCRIBE and EXPLAIN are allowed"), "{text}");
    }
    for sql in [
        "SELECT 1;",
        "EXPLAIN SELECT body FROM logs",
        "EXPLAIN ANALYZE SELECT body FROM logs",
        "VALUES (1)",
        "WITH x AS (SELECT 1 AS n) SELECT n FROM x",
        "SHOW TABLES",
        "DESCRIBE logs",
        "DESC logs",
    ] {
        fixture.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test]
async fn no_file_can_be_named() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret.csv");
    std::fs::write(&file, "a\nsecret\n").expect("writable");
    let file = file.display();
    for sql in [
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"{file}\""),
        format!("SELECT * FROM \"file://{file}\""),
        format!("SELECT * FROM read_csv('{file}')"),
        format!("SELECT * FROM read_parquet('{file}')"),
        format!("SELECT * FROM parquet_metadata('{file}')"),
        "SELECT * FROM '/etc/passwd'".to_owned(),
    ] {
        let error = fixture.error(&sql).await;
        assert_eq!(error.kind(), QueryErrorKind::Invalid, "{sql}: {error:?}");
        assert!(!error.to_string().contains("secret\n"), "{error}");
    }
}

#[tokio::test]
async fn mistakes_are_placed_and_explained() {
    let mut fixture = Fixture::new();
    fixture.table("Audit");
    fixture.segment(&[record(0, 9, "a", &[("k", Value::Int(1))])]).await;
    for (sql, part, place) in [
        ("SELEC 1", "syntax error", Some((1, 1))),
        ("SELECT body\nFROM logs\nWHERE", "syntax error", Some((3, 6))),
        ("SELECT 1 +", "found: EOF", Some((1, 11))),
        ("SELECT 1 +\n", "found: EOF", Some((1, 11))),
        ("SELECT attribute['x'] FROM logs", "attribute", Some((1, 8))),
        ("SELECT count(*) FROM logs GROUP BY nope", "nope", Some((1, 36))),
        ("EXPLAIN SELECT count(*) FROM logs GROUP BY nope", "nope", Some((1, 44))),
        ("SELECT * FROM logs\nORDER BY nope", "nope", Some((2, 10))),
        ("SELECT * FROM logs ORDER BY l.nope", "l.nope", Some((1, 29))),
        ("SELECT * FROM logs ORDER BY \"Time\", time", "Time", Some((1, 29))),
        ("SELECT body FRM logs x", "syntax error", Some((1, 17))),
        ("SELECT bdy FROM logs", "bdy", Some((1, 8))),
        ("SELECT time,\n       severity FROM logs", "severity", Some((2, 8))),
        ("SELECT * FROM log", "log", Some((1, 15))),
        ("SELECT * FROM audit", "\"Audit\"", Some((1, 15))),
        ("SELECT nosuch(body) FROM logs", "nosuch", None),
        ("SELECT body['x'] FROM logs", "", None),
        ("SELECT CAST(body AS BIGINT) FROM logs", "Cannot cast string 'a'", None),
        ("SELECT body FROM logs WHERE CAST(body AS BIGINT) = 1", "Cannot cast string 'a'", None),
        ("SELECT 1 / 0", "Divide by zero", None),
        ("SELECT l.body, m.body FROM logs l, logs m WHERE time > now()", "mbiguous", Some((1, 49))),
        ("", "empty", None),
        ("-- nothing", "empty", None),
    ] {
        let error = fixture.error(sql).await;
        let QueryError::Invalid { message, position } = &error else { panic!("{sql}: {error:?}") };
        assert!(message.contains(part), "{sql}: {message}");
        if let Some((line, column)) = place {
            assert_eq!(*position, Some(Position { line, column }), "{sql}: {error}");
        }
    }
    let error = fixture.error("SELECT bodi FROM logs").await.to_string();
    assert!(error.contains("body") && error.contains("(line 1, column 8)"), "{error}");
}

#[tokio::test]
async fn wrong_types_are_explained() {
    let mut fixture = Fixture::new();
    fixture.segment(&[record(0, 9, "abc", &[("code", Value::Str("x")), ("k", Value::Int(1))])]).await;
    for (sql, expected) in [
        ("SELECT sum(body) FROM logs", "function 'sum' does not take Utf8; there is sum(Decimal), "),
        ("SELECT sum(body) OVER () FROM logs", "function 'sum' does not take Utf8; there is sum(Decimal), "),
        ("SELECT sum(attributes) FROM logs", "function 'sum' does not take Struct; there is sum(Decimal), "),
        ("SELECT avg(time) FROM logs", "function 'avg' does not take Timestamp(ns, \"UTC\"); there is avg("),
        ("SELECT body FROM logs WHERE body = 5", "Cannot cast string 'abc' to value of Int64 type; compare text with"),
        ("SELECT body = 5 FROM logs", "Cannot cast string 'abc' to value of Int64 type; compare text with"),
        ("SELECT 1 FROM logs WHERE attributes['code'] = 200", "Cannot cast string 'x' to value of Int64 type; compare"),
        ("SELECT 1 FROM logs WHERE 1 / (severity_number - 9) = 1", "Divide by zero"),
        ("SELECT attributes[1] FROM logs", "a struct has no elements; write attributes['key']"),
        ("SELECT attributes[body] FROM logs", "a struct has no elements; write attributes['key']"),
        ("SELECT sum() FROM logs", "function 'sum' needs arguments; there is sum(Decimal), "),
        ("SELECT attributes + 1 FROM logs", "Cannot coerce arithmetic expression Struct + Int64"),
    ] {
        let error = fixture.error(sql).await;
        let QueryError::Invalid { message, .. } = &error else { panic!("{sql}: {error:?}") };
        assert!(message.starts_with(expected), "{sql}: {message}");
        for noise in ["DataFusion", "Internal", "ArrowError", "logseal.kind", "Some("] {
            assert!(!message.contains(noise), "{sql}: {message}");
        }
    }
}

#[tokio::test]
async fn the_nearest_table_is_suggested() {
    let mut fixture = Fixture::new();
    for name in ["LOGS", "Logs", "audits"] {
        fixture.table(name);
    }
    for (name, expected) in [
        ("logg", "table logg not found; did you mean logs?"),
        ("\"LOGG\"", "table LOGG not found; did you mean \"LOGS\" (with the quotes)?"),
        ("audit", "table audit not found; did you mean audits?"),
        ("public.logg", "table logg not found; did you mean logs?"),
        ("nosuch.logs", "table nosuch.logs not found; did you mean logs?"),
        ("other.nosuch.logs", "table other.nosuch.logs not found; did you mean logs?"),
        ("metrics", "table metrics not found; SHOW TABLES lists what there is"),
    ] {
        let error = fixture.error(&format!("SELECT * FROM {name}")).await;
        let QueryError::Invalid { message, .. } = &error else { panic!("{name}: {error:?}") };
        assert_eq!(message, expected);
    }
}

#[tokio::test]
async fn describe_shows_types_without_metadata() {
    let mut fixture = Fixture::new();
    fixture.segment(&[record(0, 9, "a", &[("code", Value::Str("x")), ("k", Value::Int(1))])]).await;
    for sql in ["DESCRIBE logs", "DESCRIBE SELECT attributes FROM logs"] {
        let csv = fixture.csv(sql).await;
        assert!(csv.contains(r#"attributes,"Struct(""code"": Utf8, ""k"": Int64)",YES"#), "{csv}");
    }
}

#[tokio::test]
async fn the_catalogs_refusal_is_passed_on() {
    let fixture = Fixture::new();
    let other = logseal_core::WorkspaceId::from_bytes([9; 16]);
    let error = fixture.engine.run(other, "SELECT 1", None).await.expect_err("an unknown workspace");
    assert_eq!(error.kind(), QueryErrorKind::NotFound);
    for (kind, expected) in [
        (PortErrorKind::Denied, QueryErrorKind::Denied),
        (PortErrorKind::Unavailable, QueryErrorKind::Unavailable),
        (PortErrorKind::Corrupt, QueryErrorKind::Internal),
    ] {
        *fixture.catalog.failure.lock().expect("no panic") = Some(PortError::new(kind, "cluster `c` is revoked"));
        let error = fixture.error("SELECT 1").await;
        assert_eq!(error.kind(), expected);
        assert!(error.to_string().contains("cluster `c` is revoked"));
    }
}

#[tokio::test]
async fn deep_and_long_queries_do_not_overflow_the_stack() {
    let mut fixture = Fixture::new();
    fixture.segment(&[record(0, 9, "a", &[])]).await;
    let wrap = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    for sql in [
        format!("SELECT {}", wrap("(", "1", ")", 10_000)),
        format!("SELECT * FROM {}", wrap("(", "logs", ")", 10_000)),
        format!("SELECT {}", wrap("NOT ", "true", "", 10_000)),
        format!("SELECT {}", wrap("abs(", "1", ")", 10_000)),
        format!("SELECT {}", wrap("CASE WHEN true THEN ", "1", " END", 2_000)),
        wrap("SELECT * FROM (", "SELECT 1", ")", 3_000),
        format!("SELECT {}", "(".repeat(10_000)),
        format!("SELECT * FROM {}", "(".repeat(10_000)),
        format!("SELECT {}", "[".repeat(10_000)),
        format!("SELECT {}", "- ".repeat(10_000) + "1"),
    ] {
        let error = fixture.error(&sql).await;
        assert_eq!(error.kind(), QueryErrorKind::Invalid, "{:?}: {error:?}", &sql[..40]);
    }
    // The parser's time must not explode below its nesting limit.
    for sql in [
        format!("SELECT * FROM {}", wrap("(", "logs", ")", 45)),
        format!("SELECT * FROM {}", wrap("(", "logs a CROSS JOIN logs b", ")", 45)),
        format!("SELECT * FROM {}", "(".repeat(45)),
        format!("SELECT {}", wrap("(", "1", ")", 45)),
        format!("SELECT {}", "(".repeat(45)),
        format!("SELECT {}", wrap("(", "SELECT 1", ")", 20)),
        format!("SELECT {}", wrap("abs(", "1", ")", 40)),
        format!("SELECT {}", wrap("[", "1", "]", 40)),
        format!("SELECT {}", wrap("CASE WHEN ", "true", " THEN true END", 40)),
        format!("SELECT {}", wrap("CAST(", "1", " AS INT)", 40)),
        format!("SELECT {}", wrap("x(", "1", ")", 45)),
        format!("SELECT {}", wrap("INTERVAL ", "1", "", 45)),
    ] {
        let started = std::time::Instant::now();
        // Most of them are queries, a few are not: only the time matters.
        let _ = fixture.run(&sql).await;
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{sql}");
    }
    // Chains are not nested for the parser; they are for what comes after it.
    for (sql, allowed) in [
        (format!("SELECT 1{} AS n", "+1".repeat(30_000)), false),
        (format!("SELECT 1{} AS n", "+1".repeat(900)), true),
        (
            format!("SELECT count(*) FROM logs WHERE severity_number = 1{}", " OR severity_number=2".repeat(2_500)),
            false,
        ),
        (format!("SELECT count(*) FROM logs WHERE severity_number = 1{}", " OR severity_number=2".repeat(900)), true),
        (format!("SELECT attributes['a']{} AS n FROM logs", "||attributes['a']".repeat(900)), true),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)), false),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(900)), true),
        (format!("SELECT count(*) FROM logs WHERE severity_number IN (1{})", ",2".repeat(20_000)), true),
    ] {
        match fixture.run(&sql).await {
            Ok(_) => assert!(allowed, "{:?}", &sql[..40]),
            Err(error) => {
                assert!(!allowed && error.to_string().contains("more than 1000"), "{:?}: {error}", &sql[..40])
            }
        }
    }
    let error = fixture.error(&format!("SELECT 1{}", "+1".repeat(100_000))).await;
    assert!(error.to_string().contains("query.max_sql_bytes"), "{error}");
}
