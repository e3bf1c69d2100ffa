//! Rows of one workspace's keys are altered: the others are served, and nothing of it is lost.

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use logseal_catalog::Catalog;
use logseal_crypto::{Key256, RootKey};
use logseal_testkit::Server;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tonic::{Code, Request};

use crate::cli::done;
use crate::lifecycle::request;
use crate::revocation::until;
use crate::{Deployment, tenants};

/// What `key` is answered for one record.
async fn ship(server: &Server, key: &str) -> Code {
    let mut client = LogsServiceClient::connect(server.otlp_grpc().to_owned()).await.expect("a listener");
    let mut message = Request::new(request(&["a record"]));
    message.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("a header value"));
    client.export(message).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn count(server: &Server, workspace: &str) -> Result<serde_json::Value, String> {
    server.query_in(workspace, "SELECT count(*) AS n FROM logs").map(|rows| rows[0]["n"].clone())
}

/// The wrapped account key of one workspace and the sealed primary access key of another one: bytes of their rows.
async fn needles(data_dir: &Path, account: &str, access: &str) -> [Vec<u8>; 2] {
    let text = fs::read_to_string(data_dir.join("vault/root.key")).expect("a generated root key");
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).expect("hexadecimal digits");
    let root = RootKey::new(Key256::copy_from_slice(&bytes).expect("256 bits"));
    let catalog = Catalog::open(&data_dir.join("catalog.sqlite"), root.catalog_mac()).await.expect("the catalog");
    let workspaces = catalog.workspaces().await.expect("workspaces");
    let id = |name| workspaces.iter().find(|row| row.name == name).expect("a workspace").id;
    let aek = catalog.aeks_of(id(account)).await.expect("genuine rows").remove(0);
    let keys = catalog.workspace_keys().await.expect("genuine rows");
    let key = keys.into_iter().find(|row| row.workspace == id(access) && row.slot == "primary").expect("a key");
    catalog.close().await.expect("closed");
    [aek.wrapped, key.sealed]
}

/// Flips a bit wherever `needle` is in `file`; a second time undoes it.
fn flip(file: &Path, needle: &mut [u8]) {
    let mut bytes = fs::read(file).expect("the catalog");
    let places: Vec<_> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty(), "it is in the catalog");
    places.iter().for_each(|at| bytes[at + 20] ^= 1);
    fs::write(file, bytes).expect("the catalog");
    needle[20] ^= 1;
}

/// Scenario: of three workspaces with records one's account key and another one's access key are altered while the server is stopped; then
/// they are repaired. Guarantee: the server starts both times. In between the third workspace is served, the first one's requests and
/// queries fail as unavailable, the queries with the reason, and no shipper is told that its key is unknown. After the repair all is there.
#[tokio::test(flavor = "multi_thread")]
async fn altered_keys_of_one_workspace_leave_the_others_served() {
    let deployment = Deployment::new();
    let start = || {
        let server = deployment.start();
        let own = server.workspace_key().to_owned();
        (server, own)
    };
    assert!(start().0.stop().success());
    let made = tenants::make(&deployment.data_dir(), 2).await;
    let [broken, healthy] = &made[..] else { panic!("two were asked for") };
    let (server, own) = start();
    for key in [&own, &broken.key, &healthy.key] {
        assert_eq!(ship(&server, key).await, Code::Ok);
    }
    assert_eq!(ship(&server, "nobody's").await, Code::Unauthenticated);
    assert!(server.stop().success());

    let catalog = deployment.data_dir().join("catalog.sqlite");
    let mut altered = needles(&deployment.data_dir(), &broken.name, "default").await;
    altered.iter_mut().for_each(|needle| flip(&catalog, needle));
    let (server, kept) = start();
    assert_eq!(kept, own, "the file keeps a key whose row was altered");
    assert_eq!(ship(&server, &healthy.key).await, Code::Ok);
    for key in [&broken.key, &own, "nobody's"] {
        assert_eq!(ship(&server, key).await, Code::Unavailable);
    }
    assert_eq!(count(&server, &healthy.name).expect("served"), 2);
    assert_eq!(count(&server, "default").expect("served, but for its shippers"), 1);
    let refused = count(&server, &broken.name).expect_err("its account key was altered");
    assert!(refused.contains("is not available") && refused.contains("integrity"), "{refused}");
    let log = server.log();
    assert!(log.contains("a workspace is not available") && log.contains(&broken.name), "{log}");
    assert!(server.stop().success());

    altered.iter_mut().for_each(|needle| flip(&catalog, needle));
    let (server, _) = start();
    for (workspace, key, records) in
        [(broken.name.as_str(), &broken.key, 1), (&healthy.name, &healthy.key, 2), ("default", &own, 1)]
    {
        assert_eq!(count(&server, workspace).expect("served"), records, "{workspace}");
        assert_eq!(ship(&server, key).await, Code::Ok, "{workspace}");
    }
    assert_eq!(ship(&server, "nobody's").await, Code::Unauthenticated);
    assert!(server.stop().success());
}

/// Scenario: the record of a revocation is altered while the server is stopped. Guarantee: the server starts and serves as if the record were not
/// there; who verifies the trail is told.
#[test]
fn an_altered_record_of_a_revocation_keeps_nobody_from_being_served() {
    let deployment = Deployment::new();
    let settings = ["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"];
    let server = deployment.start_with(&settings);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    assert!(server.stop().success());

    let mut record = *br#""code":"KeyDisabled","state":"Revoked""#;
    flip(&deployment.data_dir().join("catalog.sqlite"), &mut record);
    let server = deployment.start_with(&settings);
    assert_eq!(until(&server, "Active")["code"], serde_json::Value::Null);
    assert!(server.log().contains("the audit trail does not tell"), "{}", server.log());
    let verified = server.run(&["audit", "verify", "--json"]);
    let verdict: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert!(verdict["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{verdict}");
    assert!(server.stop().success());
}
