//! A cluster whose customer's key is revoked, each way that a vault has, and what comes back with it.

use std::time::{Duration, Instant};

use logseal_testkit::{Server, ship};
use serde_json::Value;
use tonic::Code;

use crate::Deployment;
use crate::cli::{done, failed, json};
use crate::lifecycle::{ready, request};

/// Probes come soon, and resumptions need not keep a distance.
const SETTINGS: [&str; 2] = ["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"];

pub(crate) fn key_state(server: &Server) -> Value {
    json(server, &["cluster", "show", "local"])["properties"]["keyState"].clone()
}

/// Waits until the state of the key is `state`, a minute at most; what is shown then.
pub(crate) fn until(server: &Server, state: &str) -> Value {
    let started = Instant::now();
    loop {
        let shown = key_state(server);
        if shown["state"] == state {
            return shown;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "not {state} within a minute: {shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until the key is Degraded for the reason `code`, as long as `limit`; it serves all the time.
pub(crate) fn until_degraded(server: &Server, code: &str, limit: Duration) {
    let started = Instant::now();
    loop {
        let shown = key_state(server);
        assert!(shown["state"] == "Active" || shown["state"] == "Degraded", "keys in memory serve on: {shown}");
        if shown["state"] == "Degraded" && shown["code"] == code {
            return;
        }
        assert!(started.elapsed() < limit, "not Degraded for {code}: {shown}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn with_customers_key(deployment: &Deployment) -> Server {
    let server = deployment.start_with(&SETTINGS);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    server
}

pub(crate) fn count(server: &Server) -> Value {
    server.value("SELECT count(*) FROM logs")
}

/// Scenario: records are acknowledged, some still only in the log; the key is disabled; the server is killed and started while it is; the
/// key is enabled. Guarantee: within a minute nothing is taken or answered, and the refusals say why and to come back; what needs no key
/// works; another workspace is served all along; after the key is back every acknowledged record is there, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_stops_its_cluster_and_costs_no_record() {
    let deployment = Deployment::new();
    let server = with_customers_key(&deployment);
    let settings = [SETTINGS[0], SETTINGS[1], "segment.max_age_ms=600000"];
    ship::export(&server, &request(&["one", "two"])).await.unwrap();
    done(&server, &["workspace", "create", "elsewhere"]);
    server.kill();
    let server = deployment.start_with(&settings);
    // In the log only: its age is far away.
    ship::export(&server, &request(&["three"])).await.unwrap();
    assert_eq!(count(&server), 3);

    done(&server, &["vault", "key", "disable", "kek"]);
    let shown = until(&server, "Revoked");
    assert_eq!(shown["code"], "KeyDisabled");
    let refused = ship::export(&server, &request(&["four"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("KeyDisabled") && refused.message().contains("`local`"), "{refused}");
    assert!(refused.metadata().get_bin("google.rpc.retryinfo-bin").is_some(), "it says when to come back");
    let failure = server.query("SELECT count(*) FROM logs").unwrap_err();
    assert!(failure.contains("cluster `local`") && failure.contains("KeyDisabled"), "{failure}");

    let elsewhere = server.query_in("elsewhere", "SELECT count(*) AS n FROM logs").unwrap();
    assert_eq!(elsewhere[0]["n"], 0, "another cluster's workspace is served");
    let readiness = ready(&server);
    assert!(readiness.starts_with("HTTP/1.1 200"), "another cluster is served: {readiness}");
    assert!(readiness.contains("\ncluster local Revoked\n"), "{readiness}");
    let refusal = failed(&server, &["workspace", "link", "elsewhere", "--cluster", "local"]);
    assert!(refusal.contains("KeyDisabled"), "{refusal}");
    assert_eq!(json(&server, &["audit", "verify"])["faults"], serde_json::json!([]));
    assert!(json(&server, &["operation", "list"]).as_array().is_some_and(|listed| !listed.is_empty()));
    let status = json(&server, &["cluster", "show", "local"])["properties"]["customerManagedKeyStatus"].clone();
    assert!(status.as_str().is_some_and(|status| status.contains("4002")), "{status}");

    server.kill();
    let server = deployment.start_with(&settings);
    assert!(server.ready_line.contains("cluster=local:Resuming"), "{}", server.ready_line);
    assert_eq!(ship::export(&server, &request(&["five"])).await.unwrap_err().code(), Code::Unavailable);
    until(&server, "Revoked");
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    assert_eq!(server.value("SELECT string_agg(body, ' ' ORDER BY body) FROM logs"), "one three two");
    ship::export(&server, &request(&["six"])).await.unwrap();
    assert_eq!(count(&server), 4);
    assert!(server.stop().success());
}

/// Scenario: access to the key ends in each other way that a vault has, and is given back. Guarantee: each is told apart, and each time the
/// cluster comes back by itself with all of its records; an identity that was taken away comes back as one that needs a grant.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_revoke_is_told_apart_and_mended() {
    let deployment = Deployment::new();
    let server = with_customers_key(&deployment);
    let ways: [(&[&str], &str, &[&str]); 2] = [
        (
            &["vault", "revoke", "--key", "kek", "--cluster", "local"],
            "KeyAccessDenied",
            &["vault", "grant", "--key", "kek", "--cluster", "local"],
        ),
        (&["vault", "key", "delete", "kek"], "KeyNotFound", &["vault", "key", "recover", "kek"]),
    ];
    for (shipped, (revoke, code, mend)) in (1..).zip(ways) {
        ship::export(&server, &request(&["one"])).await.unwrap();
        done(&server, revoke);
        let shown = until(&server, "Revoked");
        assert_eq!(shown["code"], code);
        assert_eq!(ship::export(&server, &request(&["lost"])).await.unwrap_err().code(), Code::Unavailable);
        done(&server, mend);
        until(&server, "Active");
        assert_eq!(count(&server), shipped, "{code}");
    }
    assert!(server.stop().success());
}

/// Scenario: in automatic mode the key has three versions, of which the cluster uses the newest; that one is disabled. Guarantee: the cluster
/// is revoked, not put back to an older version. Then it is pinned to an older one while the version in use cannot unwrap. Guarantee: the
/// operation says that it must be enabled, and succeeds once it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_newest_version_is_a_revocation_and_no_rollback() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&SETTINGS);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["vault", "key", "rotate", "kek"]);
    done(&server, &["vault", "key", "rotate", "kek"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    let versions = json(&server, &["vault", "key", "versions", "kek"]);
    let version = |index: usize| versions[index]["version"].as_str().unwrap().to_owned();
    let (newest, oldest) = (version(0), version(2));
    assert_eq!(key_state(&server)["resolvedVersion"], newest.as_str());
    ship::export(&server, &request(&["one"])).await.unwrap();

    done(&server, &["vault", "key", "disable", "kek", "--version", &newest]);
    let shown = until(&server, "Revoked");
    assert_eq!((&shown["resolvedVersion"], &shown["code"]), (&newest.as_str().into(), &"KeyDisabled".into()));
    let update = ["cluster", "update", "local", "--key-name", "kek", "--key-version", &oldest];
    let refusal = failed(&server, &update);
    assert!(refusal.contains("OldKeyVersionUnusable") && refusal.contains("enable it"), "{refusal}");
    assert_eq!(key_state(&server)["resolvedVersion"], newest.as_str(), "the version in use stays");

    done(&server, &["vault", "key", "enable", "kek", "--version", &newest]);
    until(&server, "Active");
    done(&server, &update);
    let shown = key_state(&server);
    assert_eq!(shown["resolvedVersion"], oldest.as_str());
    let wrapped = shown["versions"].as_array().unwrap().iter().filter(|version| version["wrappedKeys"] != 0);
    assert_eq!(wrapped.map(|version| version["version"].as_str().unwrap()).collect::<Vec<_>>(), [oldest.as_str()]);
    done(&server, &["vault", "key", "disable", "kek", "--version", &newest]);
    assert_eq!(count(&server), 1, "the newest version is no longer needed");
    assert!(server.stop().success());
}

/// Scenario: a key is disabled and enabled twice. Guarantee: the first resumption comes at once; the next one not before its time, which the state
/// says; revocations are never held back, and no record is lost.
#[tokio::test(flavor = "multi_thread")]
async fn resumptions_of_a_flapping_key_keep_their_distance() {
    const DISTANCE: Duration = Duration::from_secs(40);
    let deployment = Deployment::new();
    let server = deployment.start_with(&["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=40000"]);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    ship::export(&server, &request(&["one"])).await.unwrap();
    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    done(&server, &["vault", "key", "enable", "kek"]);
    let enabled = Instant::now();
    until(&server, "Active");
    let first = Instant::now();
    assert!(first - enabled < DISTANCE / 2, "the first one is not held back");
    ship::export(&server, &request(&["two"])).await.unwrap();

    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    assert!(first.elapsed() < DISTANCE, "a revocation is not held back");
    done(&server, &["vault", "key", "enable", "kek"]);
    let held = until(&server, "Resuming");
    assert!(held["until"].as_str() > held["since"].as_str(), "it says when: {held}");
    assert_eq!(ship::export(&server, &request(&["lost"])).await.unwrap_err().code(), Code::Unavailable);
    until(&server, "Active");
    assert!(first.elapsed() + Duration::from_secs(2) > DISTANCE, "it came after {:?}", first.elapsed());
    assert_eq!(count(&server), 2);
    assert!(server.stop().success());
}
