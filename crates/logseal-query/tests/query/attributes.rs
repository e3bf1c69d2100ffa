//! Attributes are typed values wherever SQL allows a value, and NULL where nobody sent them.

use logseal_query::format;

use crate::fixture::{Fixture, Record, Value, WORKSPACE, record};

/// Three segments with different attributes, one of them without any.
async fn shop() -> Fixture {
    let mut fixture = Fixture::new();
    fixture
        .segment(&[
            record(0, 9, "get", &[("http.route", Value::Str("/a")), ("status", Value::Int(200))]),
            record(1, 9, "get", &[("http.route", Value::Str("/b")), ("status", Value::Int(404))]),
        ])
        .await;
    fixture
        .segment(&[
            record(2, 17, "slow", &[("took", Value::Double(1.5)), ("ok", Value::Bool(false))]),
            Record {
                resource: vec![("host", Value::Str("h1"))],
                ..record(3, 9, "get", &[("http.route", Value::Str("/a")), ("raw", Value::Bytes(b"\x00\xff"))])
            },
        ])
        .await;
    fixture.segment(&[record(4, 5, "bare", &[])]).await;
    fixture
}

#[tokio::test]
async fn queries_answer_as_written() {
    let fixture = shop().await;
    let cases = [
        // Values have the type they were sent with, and NULL where a segment does not have the key.
        (
            "SELECT body, attributes['http.route'], attributes['status'] + 1 AS next FROM logs ORDER BY time",
            "body,attributes['http.route'],next\nget,/a,201\nget,/b,405\nslow,,\nget,/a,\nbare,,",
        ),
        ("SELECT attributes['took'] FROM logs WHERE attributes['ok'] = false", "attributes['took']\n1.5"),
        ("SELECT attributes['raw'] FROM logs WHERE attributes['raw'] IS NOT NULL", "attributes['raw']\nAP8="),
        ("SELECT arrow_typeof(attributes['status']) AS t FROM logs LIMIT 1", "t\nInt64"),
        ("SELECT body FROM logs WHERE attributes['status'] >= 400", "body\nget"),
        ("SELECT body FROM logs WHERE attributes['http.route'] LIKE '/b%'", "body\nget"),
        ("SELECT time FROM logs WHERE attributes['status'] = 404", "time\n2024-01-01T00:00:01.000000000Z"),
        (
            "SELECT attributes['http.route'], count(*) AS n FROM logs GROUP BY attributes['http.route'] ORDER BY n DESC, 1",
            "attributes['http.route'],n\n/a,2\n,2\n/b,1",
        ),
        (
            "SELECT attributes['http.route'] AS r FROM logs GROUP BY 1 HAVING count(attributes['status']) > 0 ORDER BY r",
            "r\n/a\n/b",
        ),
        ("SELECT body FROM logs ORDER BY attributes['status'] DESC NULLS LAST, time LIMIT 2", "body\nget\nget"),
        ("SELECT resource_attributes['host'] AS h FROM logs WHERE resource_attributes['host'] IS NOT NULL", "h\nh1"),
        (
            "SELECT max(attributes['status']), count(attributes['http.route']) FROM logs",
            "max(attributes['status']),count(attributes['http.route'])\n404,3",
        ),
        // Unknown keys, and containers that no record has anything in.
        ("SELECT attributes['none'] FROM logs WHERE body = 'bare'", "attributes['none']\n\"\""),
        ("SELECT scope_attributes['none'] IS NULL AS n FROM logs LIMIT 1", "n\ntrue"),
        ("SELECT count(*) AS n FROM logs WHERE attributes['none'] = 'x'", "n\n0"),
        ("SELECT count(*) AS n FROM logs WHERE attributes['none'] IS NULL", "n\n5"),
        ("SELECT count(*) AS n FROM logs WHERE attributes['none'] > 5 OR attributes['status'] = 200", "n\n1"),
        ("SELECT attributes['none'] AS a, count(*) AS n FROM logs GROUP BY attributes['none']", "a,n\n,5"),
        ("SELECT body FROM logs ORDER BY attributes['none'], time LIMIT 1", "body\nget"),
        (
            "SELECT max(attributes['none']) AS m, sum(attributes['none']) AS s, avg(attributes['none']) AS a FROM logs",
            "m,s,a\n,,",
        ),
        (
            "SELECT coalesce(attributes['none'], attributes['http.route'], '-') AS r FROM logs ORDER BY time",
            "r\n/a\n/b\n-\n/a\n-",
        ),
        (
            "SELECT upper(attributes['none']) AS u, attributes['none'] || 'x' AS c, attributes['none'] + 1 AS p FROM logs LIMIT 1",
            "u,c,p\n,,",
        ),
        (
            "SELECT count(*) AS n FROM logs WHERE attributes['none'] LIKE 'a%' OR attributes['none'] IN ('a', 'b')",
            "n\n0",
        ),
        // Through aliases, joins, CTEs and subqueries.
        (
            "SELECT l.attributes['http.route'] FROM logs l WHERE l.attributes['status'] = 404",
            "l.attributes['http.route']\n/b",
        ),
        ("SELECT logs.attributes['status'] AS s FROM logs WHERE logs.attributes['http.route'] = '/b'", "s\n404"),
        (
            "SELECT a.attributes['status'], b.attributes['status'] FROM logs a JOIN logs b \
             ON a.attributes['http.route'] = b.attributes['http.route'] AND a.time < b.time",
            "a.attributes['status'],b.attributes['status']\n200,",
        ),
        ("SELECT count(*) AS n FROM logs a LEFT JOIN logs b ON a.attributes['none'] = b.attributes['none']", "n\n5"),
        (
            "WITH x AS (SELECT attributes AS a, time FROM logs) SELECT x.a['status'] AS s FROM x ORDER BY time LIMIT 2",
            "s\n200\n404",
        ),
        ("WITH x AS (SELECT * FROM logs) SELECT attributes['none'] IS NULL AS n FROM x LIMIT 1", "n\ntrue"),
        (
            "SELECT \"attributes['status']\" AS s FROM (SELECT attributes['status'] FROM logs) WHERE \"attributes['status']\" > 300",
            "s\n404",
        ),
        (
            "SELECT body FROM logs o WHERE EXISTS (SELECT 1 FROM logs i WHERE i.attributes['status'] = 404 \
             AND i.attributes['http.route'] = o.attributes['http.route'])",
            "body\nget",
        ),
        (
            "SELECT body, row_number() OVER (PARTITION BY attributes['http.route'] ORDER BY time) AS n FROM logs \
             WHERE attributes['http.route'] = '/a' ORDER BY time",
            "body,n\nget,1\nget,2",
        ),
        ("SELECT DISTINCT attributes['http.route'] AS r FROM logs ORDER BY r NULLS FIRST", "r\n\"\"\n/a\n/b"),
        (
            "SELECT CASE WHEN attributes['status'] >= 400 THEN 'bad' ELSE 'fine' END AS c FROM logs ORDER BY time LIMIT 2",
            "c\nfine\nbad",
        ),
        (
            "SELECT attributes['status'] AS s FROM logs UNION ALL SELECT attributes['none'] FROM logs ORDER BY s LIMIT 2",
            "s\n200\n404",
        ),
        // Whole containers.
        ("SELECT attributes FROM logs WHERE body = 'slow'", "attributes\n\"{\"\"ok\"\":false,\"\"took\"\":1.5}\""),
        ("SELECT attributes FROM logs WHERE body = 'bare'", "attributes\n{}"),
        ("SELECT count(*) AS n FROM logs WHERE attributes IS NULL", "n\n0"),
        ("SELECT count(*) AS n FROM logs", "n\n5"),
        (
            "SELECT count(*) AS n, min(time) AS a, max(time) AS b FROM logs",
            "n,a,b\n5,2024-01-01T00:00:00.000000000Z,2024-01-01T00:00:04.000000000Z",
        ),
        (
            "SELECT date_trunc('minute', time) AS m, count(*) AS n FROM logs GROUP BY 1",
            "m,n\n2024-01-01T00:00:00.000000000Z,5",
        ),
    ];
    let mut wrong = String::new();
    for (sql, expected) in cases {
        let found = match fixture.run(sql).await {
            Ok(result) => format::csv(&result).expect("renders").trim_end().to_owned(),
            Err(error) => format!("{error:?}"),
        };
        if found != expected {
            wrong += &format!("{sql}\n expected {expected:?}\n found    {found:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn a_table_without_segments_answers() {
    let mut fixture = Fixture::new();
    fixture.table("Audit");
    for (sql, expected) in [
        ("SELECT count(*) AS n FROM logs", "n\n0"),
        ("SELECT attributes['x'], body FROM logs", "attributes['x'],body"),
        ("SELECT count(*) AS n FROM logs WHERE attributes['x'] = 1 AND time > now()", "n\n0"),
        ("SELECT attributes FROM logs ORDER BY time", "attributes"),
        ("SELECT count(*) AS n FROM \"Audit\"", "n\n0"),
        (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
            "table_name\nAudit\nlogs",
        ),
    ] {
        assert_eq!(fixture.csv(sql).await, expected, "{sql}");
    }
    let all = fixture.run("SELECT * FROM logs").await.expect("an empty result");
    assert_eq!((all.rows, all.schema.fields().len()), (0, 23));
    format::arrow_stream(&all).expect("renders");
    assert_eq!(
        fixture.csv("SHOW TABLES").await,
        "table_catalog,table_schema,table_name,table_type\nlogseal,public,Audit,BASE TABLE\nlogseal,public,logs,BASE TABLE"
    );
    assert!(fixture.csv("DESCRIBE logs").await.contains("\ntime,"));
    assert!(fixture.csv("SHOW COLUMNS FROM logs").await.contains(",severity_number,Int32,"));
}

#[tokio::test]
async fn every_column_of_different_segments_is_shown_together() {
    let fixture = shop().await;
    let all = fixture.run("SELECT * FROM logs ORDER BY time").await.expect("a result");
    assert_eq!(all.rows, 5);
    format::arrow_stream(&all).expect("renders");
    let json = format::json(&all).expect("renders");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).expect("valid JSON");
    assert_eq!(rows[3]["attributes"], serde_json::json!({"http.route": "/a", "raw": "AP8="}));
    assert_eq!(rows[3]["resource_attributes"], serde_json::json!({"host": "h1"}));
    assert_eq!(rows[4]["attributes"], serde_json::json!({}));
    assert_eq!(rows[4]["scope_attributes"], serde_json::Value::Null);
}

#[tokio::test]
async fn concurrent_queries_each_see_their_own_snapshot() {
    let fixture = shop().await;
    let queries = (0..16).map(|i| {
        fixture.engine.run(
            WORKSPACE,
            if i % 2 == 0 { "SELECT count(body) FROM logs" } else { "SELECT body FROM logs" },
            None,
        )
    });
    for result in futures::future::join_all(queries).await {
        assert!(matches!(result.expect("a result").rows, 1 | 5));
    }
}

/// Whatever can be done with a value can be done with one that nobody sent.
#[tokio::test]
async fn unknown_keys_fit_every_expression() {
    let fixture = shop().await;
    let mut wrong = String::new();
    for (expression, expected) in [
        ("attributes['x'] || attributes['y']", ""),
        ("attributes['x'] + attributes['y']", ""),
        ("attributes['x'] * 2 - attributes['y']", ""),
        ("attributes['x'] = attributes['y']", ""),
        ("attributes['x'] < 1.5", ""),
        ("attributes['x'] > time", ""),
        ("attributes['x'] LIKE 'a'", ""),
        ("attributes['x'] LIKE attributes['y']", ""),
        ("attributes['x'] ~ 'a'", ""),
        ("attributes['x'] BETWEEN 1 AND 2", ""),
        ("attributes['x'] IN (1, 2)", ""),
        ("NOT attributes['x']", ""),
        ("- attributes['x']", ""),
        ("attributes['x'] AND attributes['y']", ""),
        ("CAST(attributes['x'] AS BIGINT)", ""),
        ("attributes['x']::double / 2", ""),
        ("length(attributes['x'])", ""),
        ("lower(attributes['x'])", ""),
        ("substr(attributes['x'], 2)", ""),
        ("split_part(attributes['x'], '/', 2)", ""),
        ("round(attributes['x'])", ""),
        ("abs(attributes['x'])", ""),
        ("to_timestamp(attributes['x'])", ""),
        ("attributes['x'] IS DISTINCT FROM 1", "true"),
        ("nullif(attributes['x'], 1)", ""),
        ("CASE attributes['x'] WHEN 1 THEN 'a' ELSE 'b' END", "b"),
        ("attributes['x']['y']", ""),
        ("count(attributes['x'])", "0"),
        ("count(DISTINCT attributes['x'])", "0"),
        ("min(attributes['x'])", ""),
        ("sum(attributes['x'])", ""),
        ("avg(attributes['x'])", ""),
        ("median(attributes['x'])", ""),
        ("stddev(attributes['x'])", ""),
        ("string_agg(attributes['x'], ',')", ""),
        ("bool_or(attributes['x'])", ""),
        ("approx_distinct(attributes['x'])", "0"),
        ("array_length(array_agg(attributes['x']))", "5"),
        ("first_value(attributes['x'] ORDER BY time)", ""),
        ("count(*) FILTER (WHERE attributes['x'])", "0"),
        ("sum(attributes['x'] + 1)", ""),
        ("sum(attributes['x']) OVER ()", ""),
        ("avg(attributes['x']) OVER (PARTITION BY body ORDER BY time)", ""),
        ("lag(attributes['x']) OVER (ORDER BY time)", ""),
    ] {
        let sql = format!("SELECT {expression} AS v FROM logs LIMIT 1");
        let found = match fixture.run(&sql).await {
            Ok(result) => {
                format::csv(&result).expect("renders").trim_start_matches("v\n").trim_end().replace("\"\"", "")
            }
            Err(error) => error.to_string(),
        };
        if found != expected {
            wrong += &format!("{expression}: expected {expected:?}, found {found:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for condition in
        ["attributes['x']", "attributes['x'] = attributes['y']", "time > attributes['x']", "attributes['x'] + 1 > 2"]
    {
        let sql = format!("SELECT body FROM logs WHERE {condition}");
        assert_eq!(fixture.csv(&sql).await, "body", "{sql}");
    }
}

/// The scan evaluates predicates itself, adapted to each file's columns; whatever it does must be what the same expression
/// gives outside a WHERE.
#[tokio::test]
async fn predicates_mean_the_same_in_every_file() {
    let fixture = shop().await;
    for predicate in [
        "attributes['status'] IS NULL",
        "attributes['status'] IS NOT NULL",
        "NOT (attributes['status'] = 200)",
        "attributes['status'] = 200 OR attributes['ok'] IS NULL",
        "attributes['ok'] IS NOT TRUE",
        "coalesce(attributes['status'], 0) = 0",
        "coalesce(attributes['http.route'], body) = body",
        "upper(attributes['http.route']) = '/A'",
        "upper(coalesce(attributes['http.route'], 'x')) = 'X'",
        "resource_attributes['host'] = 'h1' OR attributes['http.route'] = '/b'",
        "resource_attributes['host'] IS NULL AND attributes['took'] IS NULL",
        "scope_attributes['none'] IS NULL AND severity_number = 9",
        "attributes['took'] > attributes['status'] OR attributes['took'] > 1",
        "CASE WHEN attributes['ok'] IS NULL THEN severity_number < 9 ELSE true END",
        "attributes['http.route'] IN ('/a', '/c') AND attributes['raw'] IS NULL",
        "attributes['http.route'] NOT IN ('/a', '/c')",
        "attributes['status'] BETWEEN 100 AND 300 OR body = 'bare'",
        "attributes['raw'] = X'00FF'",
        "attributes['status']::varchar LIKE '4%'",
        "attributes IS NOT NULL AND attributes['http.route'] = '/a'",
        "attributes IS NULL OR resource_attributes IS NULL",
        "attributes['none'] IS NULL AND attributes['status'] > 1",
        "length(attributes['http.route']) + severity_number = 11",
        "time > '2024-01-01T00:00:02Z' AND attributes['status'] IS NULL",
        "attributes['ok']",
        "NOT attributes['ok']",
        "attributes['status'] % 2 = 0 AND attributes['http.route'] <> body",
    ] {
        let filtered = fixture.csv(&format!("SELECT count(*) AS n FROM logs WHERE {predicate}")).await;
        let counted = fixture.csv(&format!("SELECT sum(CASE WHEN {predicate} THEN 1 ELSE 0 END) AS n FROM logs")).await;
        assert_eq!(filtered, counted, "{predicate}");
    }
}
