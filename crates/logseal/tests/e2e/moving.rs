//! Data moves with the resources: links under load, deletion, shredding, and operations that a kill interrupts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::BASE64;
use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use prost::Message as _;
use serde_json::Value;

use crate::Deployment;
use crate::lifecycle::{http_get, request};

fn run(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&run(server, &[arguments, &["--json"]].concat())).expect("JSON alone")
}

fn count(server: &Server, workspace: &str) -> u64 {
    let rows =
        server.query_in(workspace, "SELECT count(*) AS n, count(DISTINCT body) AS d FROM logs").expect("a query");
    assert_eq!(rows[0]["n"], rows[0]["d"], "no record is there twice");
    rows[0]["n"].as_u64().expect("a number")
}

/// The wrapped account keys that have their copy in the store now, as bytes.
fn wraps(deployment: &Deployment) -> Vec<Vec<u8>> {
    let copies = files_below(&deployment.data_dir().join("store"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"));
    let wrapped = |file: std::path::PathBuf| {
        let copy: Value = serde_json::from_slice(&std::fs::read(file).expect("a copy")).expect("JSON");
        BASE64.decode(copy["wrapped"].as_str().expect("a wrapped key").as_bytes()).expect("base64")
    };
    copies.map(wrapped).collect()
}

/// The files in which a wrapped key is found, raw or as text.
fn files_with(folder: &Path, wrap: &[u8]) -> Vec<std::path::PathBuf> {
    let text = BASE64.encode(wrap).into_bytes();
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let files = files_below(folder).into_iter();
    files.filter(|file| std::fs::read(file).is_ok_and(|bytes| has(&bytes, wrap) || has(&bytes, &text))).collect()
}

/// Ships numbered records with `key` until it is told to stop; returns how many were acknowledged. A refusal for a passing trouble is
/// answered by sending the same record again; any other fails the test.
async fn ship_until(server: &Server, key: &str, stop: &AtomicBool) -> u64 {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = request(&[&format!("record {acknowledged}")]).encode_to_vec();
        match ship::export_bytes_with_key(server, key, body.into()).await {
            Ok(_) => acknowledged += 1,
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
        }
    }
    acknowledged
}

/// Scenario: a workspace is unlinked, linked to a new cluster, and linked back while records come in; then the server is killed.
/// Guarantee: each acknowledged record is there exactly once, whichever key and log it went to, before the kill and after it.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_change_under_load_lose_and_double_nothing() {
    let deployment = Deployment::new();
    let server = Arc::new(deployment.start());
    run(&server, &["cluster", "create", "prod"]);
    let stop = Arc::new(AtomicBool::new(false));
    let shipping = {
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        tokio::spawn(async move { ship_until(&server, server.workspace_key(), &stop).await })
    };
    let moving = {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            for cluster in ["prod", "local", "prod"] {
                run(&server, &["workspace", "unlink", "default"]);
                run(&server, &["workspace", "link", "default", "--cluster", cluster]);
            }
        })
    };
    moving.await.expect("the links change");
    stop.store(true, Ordering::Relaxed);
    let acknowledged = shipping.await.expect("the shipper ends");
    assert!(acknowledged > 10, "records came in meanwhile: {acknowledged}");
    assert_eq!(count(&server, "default"), acknowledged);
    let shown = json(&server, &["workspace", "show", "default"]);
    let linked = shown["properties"]["features"]["clusterResourceId"].as_str().expect("a link");
    assert!(linked.ends_with("/clusters/prod"), "{linked}");
    Arc::into_inner(server).expect("nobody else uses it").kill();
    let server = deployment.start();
    assert_eq!(count(&server, "default"), acknowledged, "after a kill, too");
}

/// The metrics of `server` with this name, each with its labels and value.
fn metrics(server: &Server, name: &str) -> Vec<String> {
    let token = server.credential("/managementToken");
    let all = http_get(server.credential("/endpoints/management"), "/metrics", Some(token));
    all.lines().filter(|line| line.starts_with(&format!("{name}{{"))).map(str::to_owned).collect()
}

/// Scenario: a workspace gets three new account keys while records come in; then the server is killed. Guarantee: each acknowledged record is
/// there exactly once, before the kill and after it; every key has its copy in the store, all under the cluster's key version; how many
/// there are and how much the newest one sealed is shown; each rotation is in the audit trail.
#[tokio::test(flavor = "multi_thread")]
async fn new_account_keys_under_load_lose_and_double_nothing() {
    let deployment = Deployment::new();
    let server = Arc::new(deployment.start());
    let stop = Arc::new(AtomicBool::new(false));
    let shipping = {
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        tokio::spawn(async move { ship_until(&server, server.workspace_key(), &stop).await })
    };
    let rotating = {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            let shown = json(&server, &["workspace", "rotate-key", "default"]);
            assert_eq!(shown["properties"]["provisioningState"], "Succeeded", "{shown}");
            let printed = run(&server, &["workspace", "rotate-key", "default"]);
            assert!(printed.contains("provisioning state") && printed.contains("Succeeded"), "{printed}");
            let begun = json(&server, &["workspace", "rotate-key", "default", "--no-wait"]);
            assert_eq!(begun["kind"], "rotateWorkspaceKey", "{begun}");
            let ended = json(&server, &["operation", "wait", begun["name"].as_str().expect("an id")]);
            assert_eq!(ended["properties"]["generation"], 4, "{ended}");
        })
    };
    rotating.await.expect("the keys change");
    stop.store(true, Ordering::Relaxed);
    let acknowledged = shipping.await.expect("the shipper ends");
    assert!(acknowledged > 3, "records came in meanwhile: {acknowledged}");
    assert_eq!(count(&server, "default"), acknowledged);
    assert_eq!(wraps(&deployment).len(), 4);
    let audit = json(&server, &["audit", "list"]);
    let action = "Microsoft.OperationalInsights/workspaces/rotateKey/action";
    let ended = audit.as_array().expect("records").iter().filter(|record| record["action"] == action);
    assert_eq!(ended.filter(|record| record["outcome"] == "Succeeded").count(), 3, "{audit}");
    Arc::into_inner(server).expect("nobody else uses it").kill();

    // The coordinator looks at each start.
    let server = deployment.start();
    assert_eq!(count(&server, "default"), acknowledged, "after a kill, too");
    let versions = json(&server, &["cluster", "show", "local"])["properties"]["keyState"]["versions"].clone();
    assert_eq!(versions[0]["wrappedKeys"], 4, "{versions}");
    let version = versions[0]["version"].as_str().expect("a version");
    let expected = format!("logseal_key_aeks{{cluster=\"local\",version=\"{version}\"}} 4");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while metrics(&server, "logseal_key_aeks") != [expected.as_str()] {
        assert!(std::time::Instant::now() < deadline, "{:?}", metrics(&server, "logseal_key_aeks"));
    }
    let sealed = metrics(&server, "logseal_key_aek_wraps");
    let sealed = sealed.iter().find(|line| line.contains("\"local\"")).expect("a number of wraps");
    let sealed: f64 = sealed.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(sealed >= 1.0, "the newest key sealed a segment: {sealed}");
}

/// Scenario: a cluster whose key protects records is deleted, first politely. Guarantee: it is refused with counts; with force, the records
/// are gone, their wrapped key is in no file, and the workspace, unlinked, takes records and keeps them over a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_data_is_deleted_by_force_only_and_its_data_is_shredded() {
    let deployment = Deployment::new();
    let server = deployment.start();
    ship::export(&server, &request(&["doomed"])).await.expect("accepted");
    let before = wraps(&deployment);
    let refused = server.run(&["cluster", "delete", "local"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("ClusterHasData") && told.contains("1 "), "{told}");
    run(&server, &["cluster", "delete", "local", "--force-delete"]);
    assert_eq!(count(&server, "default"), 0);
    for wrap in &before {
        assert_eq!(files_with(&deployment.data_dir(), wrap), Vec::<std::path::PathBuf>::new());
    }
    ship::export(&server, &request(&["after"])).await.expect("the workspace goes on");
    assert_eq!(count(&server, "default"), 1);
    assert!(server.stop().success());
    let server = deployment.start();
    assert_eq!(count(&server, "default"), 1, "and nothing of what was shredded is taken for damage: {}", server.log());
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Scenario: a workspace is deleted, recovered, and purged, while its KEK stays enabled. Guarantee: deleted, it takes nothing and answers
/// nothing; recovered, it has everything; purged, its wrapped keys are in no file of catalog, journal and store, so that no key is left to
/// decrypt with, and a kill right after does not bring anything back.
#[tokio::test(flavor = "multi_thread")]
async fn a_purged_workspace_cannot_be_decrypted_any_more() {
    let deployment = Deployment::new();
    let server = deployment.start();
    run(&server, &["workspace", "create", "work"]);
    let others = wraps(&deployment);
    let key = json(&server, &["workspace", "keys", "work"])["primarySharedKey"].as_str().expect("a key").to_owned();
    let body = || request(&["secret"]).encode_to_vec().into();
    ship::export_bytes_with_key(&server, &key, body()).await.expect("accepted");

    run(&server, &["workspace", "delete", "work"]);
    let refused = ship::export_bytes_with_key(&server, &key, body()).await.expect_err("it is deleted");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    assert!(server.query_in("work", "SELECT 1").is_err());
    run(&server, &["workspace", "create", "work"]);
    ship::export_bytes_with_key(&server, &key, body()).await.expect("it is back, with its keys");
    assert_eq!(server.query_in("work", "SELECT count(*) AS n FROM logs").expect("a query")[0]["n"], 2);

    let own: Vec<_> =
        wraps(&deployment).into_iter().filter(|wrap| !files_with(&deployment.data_dir(), wrap).is_empty()).collect();
    assert_eq!(own.len(), others.len(), "the default workspace's and this one's");
    run(&server, &["workspace", "delete", "work", "--force"]);
    let left = wraps(&deployment);
    assert_eq!(left.len(), 1, "the default workspace's");
    for wrap in own.iter().filter(|wrap| !left.contains(wrap)) {
        assert_eq!(files_with(&deployment.data_dir(), wrap), Vec::<std::path::PathBuf>::new());
    }
    server.kill();
    let server = deployment.start();
    assert!(server.query_in("work", "SELECT 1").is_err(), "it is gone");
    let refused = ship::export_bytes_with_key(&server, &key, body()).await.expect_err("its keys are nobody's");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Scenario: the server is killed right after it accepted a change, again and again. Guarantee: after each start the operation goes on by
/// itself and ends, and what it was to make is there.
#[test]
fn operations_survive_kills() {
    let deployment = Deployment::new();
    for round in 0..4 {
        let name = format!("work-{round}");
        let server = deployment.start();
        run(&server, &["workspace", "create", &name, "--no-wait"]);
        server.kill();
        let server = deployment.start();
        let operations = json(&server, &["operation", "list"]);
        let id = operations[0]["name"].as_str().expect("an operation").to_owned();
        run(&server, &["operation", "wait", &id, "--timeout", "60"]);
        assert_eq!(json(&server, &["workspace", "show", &name])["properties"]["provisioningState"], "Succeeded");
        run(&server, &["workspace", "link", &name, "--cluster", "local", "--no-wait"]);
        server.kill();
        let server = deployment.start();
        let id = json(&server, &["operation", "list"])[0]["name"].as_str().expect("an operation").to_owned();
        run(&server, &["operation", "wait", &id, "--timeout", "60"]);
        let shown = json(&server, &["cluster", "show", "local"]);
        let linked = shown["properties"]["associatedWorkspaces"].as_array().expect("an array").len();
        assert_eq!(linked, round + 2, "the default workspace and one a round");
        assert_eq!(count(&server, &name), 0, "it can be queried");
    }
    let server = deployment.start();
    let audit = json(&server, &["audit", "verify"]);
    assert_eq!(audit["faults"], serde_json::json!([]));
    assert!(audit["records"].as_u64() >= Some(16), "{audit}");
}
