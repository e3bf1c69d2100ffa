//! The catalog is lost, or an older copy takes its place: no acknowledged record is lost or doubled, and nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value, json};

use crate::Deployment;
use crate::cli::{done, json as shown};
use crate::lifecycle::metrics;

/// No batch is cut by its age: what is acknowledged is in the log alone.
const NO_SEGMENTS: [&str; 1] = ["segment.max_age_ms=600000"];

/// Everything that was acknowledged: the attribute column and value of each record, by table and body.
#[derive(Default)]
struct Acknowledged(BTreeMap<&'static str, BTreeMap<String, (&'static str, String)>>);

impl Acknowledged {
    /// Ships two requests of three records to `table`, each record with the attribute `column`.
    async fn ship(&mut self, server: &Server, table: &'static str, column: &'static str) {
        for _ in 0..2 {
            let records = self.0.entry(table).or_default();
            let start = records.len();
            let mut log_records = Vec::new();
            for number in start..start + 3 {
                let (body, value) = (format!("{table} record {number}"), format!("{column} {number}"));
                log_records.push(LogRecord {
                    time_unix_nano: 1 + number as u64,
                    body: Some(ship::text(&body)),
                    attributes: vec![ship::attribute(column, ship::text(&value))],
                    ..LogRecord::default()
                });
                records.insert(body, (column, value));
            }
            let attributes = vec![ship::attribute("logseal.table", ship::text(table))];
            let resource = ResourceLogs {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            };
            ship::export(server, &ExportLogsServiceRequest { resource_logs: vec![resource] }).await.expect("accepted");
        }
    }

    /// Each record is there once, in its table, with its attribute in its column.
    fn check(&self, server: &Server, when: &str) {
        for (table, records) in &self.0 {
            let counted = server.query(&format!("SELECT body, count(*) AS n FROM {table} GROUP BY body")).expect(when);
            let counted: BTreeMap<_, _> =
                counted.iter().map(|row| (row["body"].as_str().expect(when), &row["n"])).collect();
            let one = json!(1);
            let expected: BTreeMap<_, _> = records.keys().map(|body| (body.as_str(), &one)).collect();
            assert_eq!(counted, expected, "{when}: table {table}");
            for column in records.values().map(|(column, _)| *column).collect::<BTreeSet<_>>() {
                let sql = format!(
                    "SELECT body, attributes['{column}'] AS value FROM {table} WHERE attributes['{column}'] IS NOT NULL"
                );
                let rows = server.query(&sql).expect(when);
                let found: BTreeMap<_, _> =
                    rows.iter().map(|row| (row["body"].as_str(), row["value"].as_str())).collect();
                let in_column = records.iter().filter(|(_, (of, _))| *of == column);
                let expected: BTreeMap<_, _> =
                    in_column.map(|(body, (_, value))| (Some(body.as_str()), Some(value.as_str()))).collect();
                assert_eq!(found, expected, "{when}: table {table}, column {column}");
            }
        }
    }
}

impl Deployment {
    /// A command on the files of the stopped server.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
        command.args(arguments).arg("--data-dir").arg(self.data_dir()).output().expect("the binary starts")
    }

    /// The JSON that a command prints.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a command says when it fails.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The files of the store with their contents.
    fn store(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = files_below(&self.data_dir().join("store"));
        files.into_iter().map(|file| (file.clone(), fs::read(file).expect("a file of the store"))).collect()
    }

    fn move_catalog(&self, to: &Path) {
        fs::create_dir_all(to).expect("a folder of the test");
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("catalog.sqlite{suffix}");
            let from = self.data_dir().join(&name);
            if from.exists() {
                fs::rename(from, to.join(name)).expect("moved");
            }
        }
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder of the test");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(path, target).expect("copied");
        }
    }
}

/// Scenario: records in segments and, after a kill, in the log alone, one table and some columns only there; then the catalog is gone.
/// Guarantee: a start is refused and says what to do; after `catalog rebuild` each record is there once, and shippers go on with the
/// key that they have.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_rebuilt_from_store_vault_and_root_key() {
    let deployment = Deployment::new();
    let mut records = Acknowledged::default();
    let server = deployment.start();
    records.ship(&server, "logs", "first").await;
    records.ship(&server, "audit", "first").await;
    assert!(server.stop().success());
    let server = deployment.start();
    records.ship(&server, "logs", "second").await;
    assert!(server.stop().success());
    let server = deployment.start_with(&NO_SEGMENTS);
    records.ship(&server, "logs", "third").await;
    records.ship(&server, "unsealed", "fourth").await;
    let key = server.workspace_key().to_owned();
    drop(server); // SIGKILL

    let refused = deployment.refusal(&["catalog", "rebuild"]);
    assert!(refused.contains("never replaces another one") && refused.contains("-wal"), "{refused}");
    deployment.move_catalog(&deployment.dir.path().join("lost"));
    let refused = deployment.refusal(&[
        "serve",
        "--otlp-grpc",
        "127.0.0.1:0",
        "--otlp-http",
        "127.0.0.1:0",
        "--management",
        "127.0.0.1:0",
        "--vault",
        "127.0.0.1:0",
    ]);
    assert!(refused.contains("catalog restore FILE") && refused.contains("catalog rebuild"), "{refused}");
    let store = deployment.store();
    let root_key = deployment.data_dir().join("vault/root.key");
    fs::rename(&root_key, deployment.dir.path().join("root.key")).expect("moved");
    let refused = deployment.refusal(&["catalog", "rebuild"]);
    assert!(refused.contains("no root key") && !root_key.exists(), "{refused}");
    fs::rename(deployment.dir.path().join("root.key"), &root_key).expect("moved");

    let summary = deployment.json(&["catalog", "rebuild"]);
    assert_eq!(summary["workspaces"][0]["name"], "default", "{summary}");
    assert_eq!(summary["workspaces"][0]["primaryKeyKept"], true, "{summary}");
    assert_eq!(summary["clusters"][0]["name"], "local", "{summary}");
    assert_eq!((&summary["adoptedRecords"], &summary["logRecords"]), (&json!(18), &json!(12)), "{summary}");
    assert_eq!((&summary["kept"], &summary["logProblems"]), (&json!([]), &json!([])), "{summary}");
    assert_eq!(deployment.store(), store);

    let server = deployment.start();
    records.check(&server, "after the rebuild");
    assert_eq!(server.workspace_key(), key);
    records.ship(&server, "logs", "fifth").await;
    records.ship(&server, "unsealed", "fifth").await;
    records.check(&server, "with new records");
    assert!(server.stop().success());
    let server = deployment.start();
    records.check(&server, "after another start");
    assert!(!server.log().contains("quarantine"), "{}", server.log());
}

/// Scenario: a copy is made while the server runs and records come in; then more segments, tables and columns, a kill, and the copy takes
/// the catalog's place. Guarantee: each record is there once, all segments are still there, the replaced catalog is kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_goes_on_with_what_came_after_it() {
    let deployment = Deployment::new();
    let copy = deployment.dir.path().join("copy.sqlite");
    let copy = copy.to_str().expect("text");
    let mut records = Acknowledged::default();
    let server = deployment.start();
    records.ship(&server, "logs", "first").await;
    assert!(server.stop().success());
    let server = deployment.start_with(&NO_SEGMENTS);
    records.ship(&server, "logs", "second").await;
    assert!(server.run(&["catalog", "backup", copy]).status.success());
    let again = server.run(&["catalog", "backup", copy]);
    assert!(!again.status.success(), "a copy is never overwritten");
    let running = server.run(&["catalog", "restore", copy]);
    assert!(String::from_utf8_lossy(&running.stderr).contains("is in use"), "{running:?}");
    records.ship(&server, "logs", "third").await;
    records.ship(&server, "later", "third").await;
    assert!(server.stop().success());
    let server = deployment.start();
    records.ship(&server, "later", "fourth").await;
    assert!(server.stop().success());
    let server = deployment.start_with(&NO_SEGMENTS);
    records.ship(&server, "logs", "fifth").await;
    records.ship(&server, "last", "fifth").await;
    drop(server); // SIGKILL

    let store = deployment.store();
    let summary = deployment.json(&["catalog", "restore", copy]);
    assert_eq!((&summary["adoptedRecords"], &summary["logRecords"]), (&json!(24), &json!(12)), "{summary}");
    assert!(summary["known"].as_u64() > Some(0) && summary["goneLogFiles"].as_u64() > Some(0), "{summary}");
    assert_eq!((&summary["kept"], &summary["logProblems"]), (&json!([]), &json!([])), "{summary}");
    let replaced = summary["replaced"].as_str().expect("the catalog from before");
    assert!(Path::new(replaced).is_file() && replaced.contains("catalog-replaced-"), "{replaced}");
    assert_eq!(deployment.store(), store);

    let server = deployment.start();
    records.check(&server, "after the restore");
    records.ship(&server, "later", "sixth").await;
    records.ship(&server, "last", "sixth").await;
    assert!(server.stop().success());
    let server = deployment.start();
    records.check(&server, "after another start");
    for trouble in ["quarantine", "is missing"] {
        assert!(!server.log().contains(trouble), "{}", server.log());
    }
    assert!(store.keys().all(|file| file.is_file()), "no segment was deleted");
}

/// Scenario: the catalog is put back to a copy of earlier date, and later made anew, each time without records of the audit trail that its anchor knows.
/// Guarantee: the new trail is whole and goes on, also over further starts; whoever verifies it is told what took place, and how far the trail had been.
#[test]
fn a_replaced_catalog_tells_of_the_audit_trail_before() {
    let deployment = Deployment::new();
    let copy = deployment.dir.path().join("copy.sqlite");
    let copy = copy.to_str().expect("text");
    let server = deployment.start();
    done(&server, &["token", "create", "--name", "first", "--role", "auditor"]);
    done(&server, &["catalog", "backup", copy]);
    done(&server, &["token", "create", "--name", "second", "--role", "auditor"]);
    let last = shown(&server, &["audit", "verify"])["lastSequence"].clone();
    assert!(server.stop().success());

    // Each goes on with records of its own, the last one's number comes back.
    let starts = |what: &str, mut last: Value| {
        let before = format!("had a record {last}");
        for name in ["first-start", "another-start"] {
            let server = deployment.start();
            done(&server, &["token", "create", "--name", name, "--role", "auditor"]);
            let verdict = shown(&server, &["audit", "verify"]);
            assert_eq!(verdict["faults"], json!([]), "{name}");
            let notices = verdict["notices"].as_array().expect("a list");
            let notice = notices[0].as_str().expect("text");
            assert!(notices.len() == 1 && notice.contains(what) && notice.contains(&before), "{name}: {notices:?}");
            assert!(done(&server, &["audit", "verify"]).contains(notice), "{name}");
            assert!(!metrics(&server).contains("logseal_audit_faults_total{"), "{name}: {}", metrics(&server));
            assert!(server.stop().success());
            last = verdict["lastSequence"].clone();
        }
        last
    };
    let summary = deployment.json(&["catalog", "restore", copy]);
    assert_eq!(summary["auditProblem"], Value::Null, "{summary}");
    let last = starts("restored from a copy", last);
    deployment.move_catalog(&deployment.dir.path().join("lost"));
    let summary = deployment.json(&["catalog", "rebuild"]);
    assert_eq!(summary["auditRecord"], json!(1), "{summary}");
    starts("made anew", last);
}

/// Scenario: a copy that is none, damaged, or of another deployment. Guarantee: it is refused, and the present catalog stays in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_believed_changes_nothing() {
    let (deployment, other) = (Deployment::new(), Deployment::new());
    let mut records = Acknowledged::default();
    let server = deployment.start();
    records.ship(&server, "logs", "first").await;
    let (copy, foreign) = (deployment.dir.path().join("copy.sqlite"), deployment.dir.path().join("foreign.sqlite"));
    assert!(server.run(&["catalog", "backup", copy.to_str().expect("text")]).status.success());
    assert!(server.stop().success());
    let stranger = other.start();
    assert!(stranger.run(&["catalog", "backup", foreign.to_str().expect("text")]).status.success());
    assert!(stranger.stop().success());
    let genuine = fs::read(&copy).expect("a copy");
    let text = deployment.dir.path().join("text");
    fs::write(&text, "no database").expect("written");
    let altered = deployment.dir.path().join("altered.sqlite");
    let places: Vec<_> = (0..genuine.len()).filter(|at| genuine[*at..].starts_with(b"default")).collect();
    assert!(!places.is_empty(), "the workspace's name is in the copy");
    let mut bytes = genuine.clone();
    places.into_iter().for_each(|at| bytes[at] = b'D');
    fs::write(&altered, bytes).expect("written");
    let present = fs::read(deployment.data_dir().join("catalog.sqlite")).expect("a catalog");
    for (file, why) in [
        (&foreign, "another root key"),
        (&altered, "integrity check"),
        (&text, "take the copy"),
        (&deployment.dir.path().join("nothing"), "there is no file"),
    ] {
        let refused = deployment.refusal(&["catalog", "restore", file.to_str().expect("text")]);
        assert!(refused.contains(why), "{}: {refused}", file.display());
        assert_eq!(fs::read(deployment.data_dir().join("catalog.sqlite")).expect("a catalog"), present);
    }
    records.check(&deployment.start(), "with the present catalog");
}

/// Scenario: catalog and log are put back by hand, so that the server makes segments of the same records again; in the store also lie a
/// damaged segment and a file of somebody else's. Guarantee: all three are named with their reason, nothing is taken in twice or deleted.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_rubbish_and_foreign_files_are_named_and_kept() {
    let deployment = Deployment::new();
    let mut records = Acknowledged::default();
    let server = deployment.start_with(&NO_SEGMENTS);
    records.ship(&server, "logs", "first").await;
    drop(server); // SIGKILL: all is in the log
    let (data, saved) = (deployment.data_dir(), deployment.dir.path().join("saved"));
    copy_folder(&data.join("wal"), &saved.join("wal"));
    deployment.move_catalog(&saved);
    let put_back = || {
        for entry in fs::read_dir(&saved).expect("saved files").map(|entry| entry.expect("an entry").path()) {
            if entry.is_file() {
                fs::copy(&entry, data.join(entry.file_name().expect("a name"))).expect("copied");
            }
        }
        if data.join("wal").exists() {
            fs::remove_dir_all(data.join("wal")).expect("removed");
        }
        copy_folder(&saved.join("wal"), &data.join("wal"));
    };
    let segments = || {
        let files = deployment.store().into_keys().filter(|file| file.extension().is_some_and(|end| end == "parquet"));
        files.collect::<BTreeSet<_>>()
    };
    let replay = || {
        deployment.move_catalog(&deployment.dir.path().join("discarded"));
        put_back();
        let server = deployment.start();
        let sealed = || {
            let listed: Vec<Value> =
                serde_json::from_slice(&server.run(&["segment", "list", "--json"]).stdout).expect("JSON");
            listed.iter().filter_map(|segment| segment["rows"].as_u64()).sum::<u64>()
        };
        while sealed() < 6 {
            std::thread::yield_now();
        }
        assert!(server.stop().success());
    };
    replay();
    let orphans = segments();
    replay();
    let good = segments().len() - orphans.len();
    assert!(!orphans.is_empty() && good > 0, "each replay makes segments of its own");
    let orphan = orphans.first().expect("one at least");
    let name = orphan.file_name().and_then(|name| name.to_str()).expect("text");
    let other_digit = if name.as_bytes()[35] == b'0' { '1' } else { '0' };
    let damaged = orphan.with_file_name(format!("{}{other_digit}.parquet", &name[..35]));
    fs::write(&damaged, &fs::read(orphan).expect("a segment")[..1000]).expect("written");
    fs::write(data.join("store/notes.txt"), "somebody else's").expect("written");
    let store = deployment.store();

    let summary = deployment.json(&["segment", "adopt"]);
    assert_eq!((&summary["adopted"], &summary["known"]), (&json!(0), &json!(good)), "{summary}");
    let kept = summary["kept"].as_array().expect("a list");
    let by_outcome = |outcome: &str| {
        let of = kept.iter().filter(|kept| kept["outcome"] == outcome && kept["reason"] != "");
        of.map(|kept| data.join("store").join(kept["path"].as_str().expect("a path"))).collect::<BTreeSet<_>>()
    };
    assert_eq!(by_outcome("orphan"), orphans);
    assert_eq!(by_outcome("unreadable"), BTreeSet::from([damaged]));
    assert_eq!(by_outcome("foreign"), BTreeSet::from([data.join("store/notes.txt")]));
    assert_eq!(kept.len(), orphans.len() + 2);
    assert_eq!(deployment.store(), store, "nothing was deleted");
    let text = String::from_utf8_lossy(&deployment.run(&["segment", "adopt"]).stdout).into_owned();
    assert!(text.contains(&format!("{} orphans", orphans.len())) && text.contains("notes.txt"), "{text}");
    records.check(&deployment.start(), "each record once");
}
