//! The forms a result is returned in.

use arrow::ipc::reader::StreamReader;
use logseal_query::{QueryResult, format};

use crate::fixture::{Fixture, Value, record};

async fn sample() -> QueryResult {
    let mut fixture = Fixture::new();
    fixture
        .segment(&[
            record(
                0,
                9,
                "plain",
                &[
                    ("i", Value::Int(9_007_199_254_740_993)),
                    ("s", Value::Str("x\"y")),
                    ("b", Value::Bytes(b"\x00\x01\xff")),
                ],
            ),
            record(1, 13, "line\nbreak, \"quoted\" \u{1b}[31m", &[("d", Value::Double(0.5)), ("t", Value::Bool(true))]),
        ])
        .await;
    fixture
        .run(
            "SELECT time, severity_number, body, attributes, attributes['i'] AS i, attributes['d'] AS d, attributes['t'] AS t, \
             attributes['b'] AS b, attributes['none'] AS none, flags FROM logs ORDER BY time",
        )
        .await
        .expect("a result")
}

#[tokio::test]
async fn json_rows() {
    let expected = r#"[
{"time":"2024-01-01T00:00:00.000000000Z","severity_number":9,"body":"plain","attributes":{"b":"AAH/","i":9007199254740993,"s":"x\"y"},"i":9007199254740993,"d":null,"t":null,"b":"AAH/","none":null,"flags":null},
{"time":"2024-01-01T00:00:01.000000000Z","severity_number":13,"body":"line\nbreak, \"quoted\" \u001b[31m","attributes":{"d":0.5,"t":true},"i":null,"d":0.5,"t":true,"b":null,"none":null,"flags":null}
]
"#;
    assert_eq!(format::json(&sample().await).expect("renders"), expected);
}

#[tokio::test]
async fn azure_tables() {
    let expected = concat!(
        r#"{"tables":[{"name":"PrimaryResult","columns":[{"name":"time","type":"datetime"},{"name":"severity_number","type":"int"},"#,
        r#"{"name":"body","type":"string"},{"name":"attributes","type":"dynamic"},{"name":"i","type":"long"},{"name":"d","type":"real"},"#,
        r#"{"name":"t","type":"bool"},{"name":"b","type":"string"},{"name":"none","type":"dynamic"},{"name":"flags","type":"long"}],"#,
        r#""rows":[["2024-01-01T00:00:00.000000000Z",9,"plain",{"b":"AAH/","i":9007199254740993,"s":"x\"y"},9007199254740993,null,null,"AAH/",null,null],"#,
        r#"["2024-01-01T00:00:01.000000000Z",13,"line\nbreak, \"quoted\" \u001b[31m",{"d":0.5,"t":true},null,0.5,true,null,null,null]]}]}"#,
    );
    let body = format::azure_json(&sample().await).expect("renders");
    assert_eq!(body, expected);
    let body: serde_json::Value = serde_json::from_str(&body).expect("valid JSON");
    assert_eq!(body["tables"][0]["rows"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn csv_lines() {
    let expected = "time,severity_number,body,attributes,i,d,t,b,none,flags\n\
        2024-01-01T00:00:00.000000000Z,9,plain,\"{\"\"b\"\":\"\"AAH/\"\",\"\"i\"\":9007199254740993,\"\"s\"\":\"\"x\\\"\"y\"\"}\",9007199254740993,,,AAH/,,\n\
        2024-01-01T00:00:01.000000000Z,13,\"line\nbreak, \"\"quoted\"\" \u{1b}[31m\",\"{\"\"d\"\":0.5,\"\"t\"\":true}\",,0.5,true,,,\n";
    assert_eq!(format::csv(&sample().await).expect("renders"), expected);
}

#[tokio::test]
async fn table_text_obeys_no_escape_sequence() {
    let table = format::table(&sample().await).expect("renders");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert!(table.contains("\\u{1b}[31m"), "{table}");
    assert!(table.starts_with("+--"), "{table}");
}

#[tokio::test]
async fn arrow_stream_round_trips() {
    let result = sample().await;
    let bytes = format::arrow_stream(&result).expect("renders");
    let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    assert_eq!(reader.schema(), result.schema);
    let batches: Vec<_> = reader.collect::<Result<_, _>>().expect("batches");
    assert_eq!(batches, result.batches);
}

#[tokio::test]
async fn unusual_values_have_a_form() {
    let fixture = Fixture::new();
    let sql = "SELECT make_array(1, NULL, 3) AS list, 'NaN'::double AS nan, '-inf'::double AS inf, 1.5::decimal(10,2) AS dec, \
               date '2024-02-03' AS day, interval '1 day' AS gap, arrow_cast('a', 'Dictionary(Int32, Utf8)') AS dict, \
               map(['k'], [1]) AS map, struct(1 AS a, NULL AS b) AS s, 18446744073709551615::bigint unsigned AS big, \
               arrow_cast('v', 'Utf8View') AS view, 1 AS same";
    let result = fixture.run(sql).await.expect("a result");
    let json = format::json(&result).expect("renders");
    assert_eq!(
        json,
        "[\n{\"list\":[1,null,3],\"nan\":\"NaN\",\"inf\":\"-Infinity\",\"dec\":1.50,\"day\":\"2024-02-03\",\"gap\":\"1 days\",\
         \"dict\":\"a\",\"map\":{\"k\":1},\"s\":{\"a\":1},\"big\":18446744073709551615,\"view\":\"v\",\"same\":1}\n]\n"
    );
    format::table(&result).expect("renders");
    format::csv(&result).expect("renders");
    format::azure_json(&result).expect("renders");
    let twice = fixture
        .run("SELECT a.value, b.value FROM generate_series(1,1) a, generate_series(2,2) b")
        .await
        .expect("a result");
    assert_eq!(format::json(&twice).expect("renders"), "[\n{\"value\":1,\"value_2\":2}\n]\n");
    let none = fixture.run("SELECT 1 AS n WHERE false").await.expect("a result");
    assert_eq!(format::json(&none).expect("renders"), "[]\n");
    assert_eq!(format::csv(&none).expect("renders"), "n\n");
}
