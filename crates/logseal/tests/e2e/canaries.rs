//! No plaintext at rest: unique texts in every field, and a search through everything that the server wrote.

use logseal_testkit::canary::{Canary, files_below};
use logseal_testkit::ship::{self, attribute, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::Deployment;

/// Every text field of a request, each with a text of its own that `field` makes.
fn request(field: &mut dyn FnMut(&str) -> String, record: usize) -> ExportLogsServiceRequest {
    let any = |value| AnyValue { value: Some(value) };
    let pair = |field: &mut dyn FnMut(&str) -> String, what: &str| {
        attribute(field(&format!("{what} key")), text(field(&format!("{what} value"))))
    };
    let array = any(Value::ArrayValue(ArrayValue { values: vec![text(field("array"))] }));
    let nested = any(Value::KvlistValue(KeyValueList {
        values: vec![pair(field, "kvlist"), attribute(field("array key"), array)],
    }));
    let log = LogRecord {
        time_unix_nano: 1_767_225_600_000_000_000 + record as u64,
        severity_text: field("severity"),
        event_name: field("event"),
        body: Some(text(field("body"))),
        attributes: vec![
            pair(field, "attribute"),
            attribute(field("nested key"), nested),
            attribute(field("bytes key"), any(Value::BytesValue(field("bytes").into_bytes()))),
            // A type other than its column's: the value goes to `overflow`.
            attribute(
                "mixed",
                if record.is_multiple_of(2) { any(Value::IntValue(1)) } else { text(field("overflow")) },
            ),
        ],
        ..LogRecord::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![pair(field, "resource"), attribute("service.name", text(field("service")))],
                entity_refs: vec![EntityRef { r#type: field("entity"), ..EntityRef::default() }],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: field("scope"),
                    version: field("version"),
                    attributes: vec![pair(field, "scope")],
                    ..InstrumentationScope::default()
                }),
                log_records: vec![log],
                schema_url: field("scope schema"),
            }],
            schema_url: field("resource schema"),
        }],
    }
}

/// Scenario: records are acknowledged and in no segment yet when the server is killed; then the log is damaged. Guarantee: neither the
/// log, nor the catalog's journal, nor the quarantine has a word of them in clear, and the frames around the damage are found again.
#[tokio::test(flavor = "multi_thread")]
async fn no_text_is_at_rest_in_log_journal_and_quarantine() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["segment.max_age_ms=600000", "log.level=trace"]);
    let mut texts = Vec::new();
    for record in 0..4 {
        let mut field = |what: &str| {
            let what: String = what.chars().filter(char::is_ascii_alphabetic).collect();
            texts.push(format!(
                "{what}Word{:08x}y{:04}",
                0x85eb_ca6b_u32.wrapping_mul(texts.len() as u32 + 1),
                texts.len()
            ));
            texts.last().cloned().expect("just pushed")
        };
        ship::export(&server, &request(&mut field, record)).await.unwrap();
    }
    assert_eq!(server.value("SELECT count(*) FROM logs"), 4, "found before they are in a segment");
    let log = server.log();
    server.kill();
    let log_files: Vec<_> = files_below(&deployment.data_dir())
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "wal"))
        .collect();
    assert_eq!(log_files.len(), 1, "{log_files:?}");
    assert!(files_below(&deployment.data_dir()).iter().any(|file| file.ends_with("catalog.sqlite-wal")));
    for canary in texts.iter().map(|text| Canary::new(text)) {
        assert!(!canary.is_in(log.as_bytes()), "in the server's output: {canary:?}");
        let found = canary.files_with_it(deployment.dir.path());
        assert!(found.is_empty(), "{canary:?} is at rest in {found:?}");
    }

    // One altered byte in the first request's frame, which the ones after it attest.
    let mut bytes = std::fs::read(&log_files[0]).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&log_files[0], bytes).unwrap();
    let server = deployment.start_with(&["log.level=trace"]);
    let found = server.value("SELECT count(*) FROM logs").as_u64().expect("a number");
    assert_eq!(found, 3, "one frame is damaged, the others are there; its log:\n{}", server.log());
    let log = server.log();
    assert!(server.stop().success());
    let quarantined = files_below(&deployment.data_dir().join("quarantine"));
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    for canary in texts.iter().map(|text| Canary::new(text)) {
        assert!(!canary.is_in(log.as_bytes()), "in the server's output: {canary:?}");
        let found = canary.files_with_it(deployment.dir.path());
        assert!(found.is_empty(), "{canary:?} is at rest in {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_any_field_is_at_rest_and_every_text_is_found_by_a_query() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["query.memory_bytes=4000000", "log.level=trace"]);
    let mut texts = Vec::new();
    for record in 0..4 {
        let mut field = |what: &str| {
            let what: String = what.chars().filter(char::is_ascii_alphabetic).collect();
            let canary =
                format!("{what}Canary{:08x}x{:04}", 0x9e37_79b9_u32.wrapping_mul(texts.len() as u32 + 1), texts.len());
            texts.push(canary.clone());
            canary
        };
        let answer = ship::export(&server, &request(&mut field, record)).await.unwrap();
        assert!(answer.partial_success.is_none(), "{answer:?}");
    }
    assert!(texts.len() > 80, "{} texts", texts.len());

    // Sorts and aggregations, also beyond the memory limit: nothing may be spilled.
    let ships = "logseal_canary_filler".repeat(50);
    let filler: Vec<String> = (0..20_000).map(|n| format!("{ships}{n}")).collect();
    let filler: Vec<&str> = filler.iter().map(String::as_str).collect();
    ship::export(&server, &crate::lifecycle::request(&filler)).await.unwrap();
    texts.push("logseal_canary_filler".to_owned());
    // From here on all of it is in segments, which are read column by column.
    assert!(server.stop().success());
    let server = deployment.start_with(&["query.memory_bytes=4000000", "log.level=trace"]);
    server.query("SELECT body, count(*) FROM logs WHERE length(body) < 100 GROUP BY body ORDER BY body").unwrap();
    let error = server.query("SELECT body, count(*) FROM logs GROUP BY body ORDER BY body DESC").unwrap_err();
    assert!(error.contains("query.memory_bytes"), "{error}");
    let severity = texts.iter().find(|text| text.starts_with("severity")).unwrap();
    assert_eq!(server.value(&format!("SELECT count(*) FROM logs WHERE severity_text = '{severity}'")), 1);
    let error = server.query(&format!("SELECT nothing FROM logs WHERE body = '{}'", texts[0])).unwrap_err();
    assert!(error.contains("nothing"), "{error}");

    // Every text comes back, attribute names included (they are names of columns).
    let rows = server.query("SELECT * FROM logs WHERE length(body) < 100").unwrap();
    let shown = serde_json::to_string(&rows).unwrap();
    for canary in &texts[..texts.len() - 1] {
        let base64 = Canary::new(canary);
        assert!(shown.contains(canary.as_str()) || base64.is_in(shown.as_bytes()), "{canary} is lost");
    }
    let log = server.log();
    assert!(server.stop().success());

    let searched = files_below(deployment.dir.path());
    assert!(searched.iter().any(|file| file.extension().is_some_and(|extension| extension == "parquet")));
    for canary in &texts {
        let canary = Canary::new(canary);
        assert!(!canary.is_in(log.as_bytes()), "in the server's output: {canary:?}");
        let found = canary.files_with_it(deployment.dir.path());
        assert!(found.is_empty(), "{canary:?} is at rest in {found:?}");
    }
    // The search itself works: a name that is documented to be in clear is found.
    assert!(!Canary::new("service-managed").files_with_it(deployment.dir.path()).is_empty());
}
