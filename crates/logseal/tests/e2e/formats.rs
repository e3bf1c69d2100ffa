//! What other versions of the program wrote: the data directory of an earlier one goes on, the catalog of a later one is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Deployment;
use crate::catalog_loss::copy_folder;
use crate::cli::{done, json as shown};
use crate::lifecycle::request;
use crate::roles::may;

/// What `make.sh` says of a data directory that it made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expected {
    catalog_format: u32,
    records: Vec<Sent>,
    workspace_keys: BTreeMap<String, String>,
    reader_token: String,
    /// Status by id.
    operations: BTreeMap<String, String>,
    audit_records: usize,
    /// Of the key `customer`, newest first; the cluster `prod` is under the first one.
    key_versions: Vec<String>,
}

/// `count` records with the bodies `TEXT 1`, `TEXT 2` and so on.
#[derive(Deserialize)]
struct Sent {
    workspace: String,
    table: String,
    text: String,
    count: u64,
}

/// Every record is there once, with its attributes.
fn check(server: &Server, records: &[Sent], when: &str) {
    let mut expected: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
    for sent in records {
        let rows = (1..=sent.count).map(
            |number| json!({"body": format!("{} {number}", sent.text), "n": 1, "number": number, "origin": sent.text}),
        );
        expected.entry((&sent.workspace, &sent.table)).or_default().extend(rows);
    }
    for ((workspace, table), mut expected) in expected {
        let sql = format!(
            "SELECT body, count(*) AS n, min(attributes['number']) AS number, min(attributes['origin']) AS origin \
             FROM {table} WHERE attributes['origin'] IS NOT NULL GROUP BY body ORDER BY body"
        );
        expected.sort_by_key(|row| row["body"].as_str().map(str::to_owned));
        assert_eq!(server.query_in(workspace, &sql).expect(when), expected, "{when}: {workspace}, {table}");
    }
}

/// The folders that [`Expected`] is of.
fn stored() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data-directory");
    let entries = fs::read_dir(folder).expect("stored data directories").map(|entry| entry.expect("an entry").path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "there are stored data directories");
    folders
}

/// Scenario: data directories that earlier versions left behind when they were killed, with records in segments and in the log alone, under the
/// service-managed key and under two versions of a customer's, are started by this one, however long ago that was. Guarantee: each record is there once;
/// keys of shippers and tokens are good; operations and the audit trail can be read; the customer's key opens what it protects and can be rotated;
/// after a clean stop all is in segments.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_an_earlier_version_goes_on() {
    for folder in stored() {
        let text = fs::read_to_string(folder.join("expected.json")).expect("what is in it");
        let expected: Expected = serde_json::from_str(&text).expect("as `make.sh` writes it");
        let deployment = Deployment::new();
        copy_folder(&folder.join("data"), &deployment.data_dir());
        let before: Value =
            serde_json::from_slice(&fs::read(deployment.data_dir().join("credentials.json")).expect("a file"))
                .expect("JSON");
        let root_key = deployment.dir.path().join("root.key");
        fs::copy(folder.with_file_name("root.key"), &root_key).expect("copied");
        fs::set_permissions(&root_key, fs::Permissions::from_mode(0o644)).expect("a file of ours");
        let root_key_file = format!("vault.root_key_file={}", root_key.display());
        // What ended a week ago would be forgotten, and account keys of a year ago replaced.
        let settings = [&*root_key_file, "operations.retention_hours=4000000", "keys.aek_max_age_days=0"];

        let server = deployment.start_with(&settings);
        check(&server, &expected.records, "after the start");
        for credential in ["managementToken", "vaultToken", "workspaceKey", "workspaceId"] {
            assert_eq!(server.credentials[credential], before[credential], "{credential}");
        }
        for (workspace, key) in &expected.workspace_keys {
            assert_eq!(shown(&server, &["workspace", "keys", workspace])["primarySharedKey"], *key.as_str());
            let body = request(&["later"]).encode_to_vec().into();
            ship::export_bytes_with_key(&server, key, body).await.expect("an old key ships");
            let later = server.query_in(workspace, "SELECT count(*) AS n FROM logs WHERE body = 'later'");
            assert_eq!(later.expect("a query")[0]["n"], 1, "{workspace}");
        }
        let query = ["query", "SELECT body FROM logs", "--workspace", "team", "--format", "json"];
        let read: Vec<Value> =
            serde_json::from_str(&may(&deployment, &server, &expected.reader_token, &query)).expect("JSON");
        assert!(read.len() > 1, "{read:?}");
        for (id, status) in &expected.operations {
            assert_eq!(shown(&server, &["operation", "show", id])["status"], *status.as_str(), "{id}");
        }
        assert!(expected.operations.values().any(|status| status == "Failed"), "one has failed");
        done(&server, &["audit", "verify"]);
        let records = shown(&server, &["audit", "list", "--limit", "10000"]);
        assert!(records.as_array().expect("records").len() >= expected.audit_records, "{records}");

        let version = |server: &Server| {
            let state = shown(server, &["cluster", "show", "prod"])["properties"]["keyState"].take();
            assert_eq!(state["state"], "Active", "{state}");
            state["resolvedVersion"].as_str().expect("a version").to_owned()
        };
        assert_eq!(version(&server), expected.key_versions[0]);
        let versions = |server: &Server| -> Vec<String> {
            let listed = shown(server, &["vault", "key", "versions", "customer"]);
            let versions = listed.as_array().expect("versions").iter();
            versions.map(|version| version["version"].as_str().expect("a version").to_owned()).collect()
        };
        assert_eq!(versions(&server), expected.key_versions);
        done(&server, &["vault", "key", "rotate", "customer"]);
        done(&server, &["cluster", "update", "prod", "--key-name", "customer"]);
        assert_eq!(version(&server), versions(&server)[0], "wrapped anew, which takes the version from before");
        let log = server.log();
        assert!(log.contains("chmod go-w,o="), "a root key that others can read is warned of: {log}");
        for trouble in [" ERROR ", "quarantine", "is missing", "lacks records", "panic"] {
            assert!(!log.contains(trouble), "{trouble}: {log}");
        }
        assert!(server.stop().success());
        assert!(files_below(&deployment.data_dir().join("wal")).is_empty(), "all is in segments");
        check(&deployment.start_with(&settings), &expected.records, "after another start");
        assert!(expected.catalog_format <= catalog_format(&deployment), "never an older one");
    }
}

/// `user_version` in the header of the database (sqlite.org/fileformat.html, section 1.3.15).
const USER_VERSION: std::ops::Range<usize> = 60..64;

fn catalog_format(deployment: &Deployment) -> u32 {
    let bytes = fs::read(deployment.data_dir().join("catalog.sqlite")).expect("a catalog");
    u32::from_be_bytes(bytes[USER_VERSION].try_into().expect("four bytes"))
}

/// Scenario: the catalog was written by a later version. Guarantee: a start is refused, names the format that it has and those that this version knows,
/// and changes nothing in it.
#[test]
fn the_catalog_of_a_later_version_is_refused_and_not_touched() {
    let deployment = Deployment::new();
    assert!(deployment.start().stop().success());
    let known = catalog_format(&deployment);
    let file = deployment.data_dir().join("catalog.sqlite");
    let pristine = fs::read(&file).expect("one file after a clean stop");
    let mut later = pristine.clone();
    later[USER_VERSION].copy_from_slice(&(known + 1).to_be_bytes());
    fs::write(&file, &later).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    command.arg("serve").arg("--data-dir").arg(deployment.data_dir());
    for listener in ["--otlp-grpc", "--otlp-http", "--management", "--vault"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    let refused = command.output().expect("the binary starts");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    let both = format!("the catalog has format {}, this version of logseal knows formats 1 to {known}", known + 1);
    assert!(message.contains(&both), "{message}");
    assert!(fs::read(&file).expect("a catalog") == later, "nothing was changed");
    fs::write(&file, pristine).expect("written");
    assert!(deployment.start().stop().success());
}
