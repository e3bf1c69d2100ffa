//! The write-ahead log from outside: what a killed server leaves, and what `logseal wal` says of it.

use std::path::PathBuf;

use logseal_testkit::canary::files_below;
use logseal_testkit::ship;
use serde_json::Value;

use crate::Deployment;
use crate::lifecycle::request;

fn log_files(deployment: &Deployment) -> Vec<PathBuf> {
    let mut files = files_below(&deployment.data_dir().join("wal"));
    files.sort();
    files
}

/// A killed server whose log holds two requests with three records.
async fn killed() -> Deployment {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["segment.max_age_ms=600000"]);
    ship::export(&server, &request(&["one", "two"])).await.expect("accepted");
    ship::export(&server, &request(&["three"])).await.expect("accepted");
    server.kill();
    deployment
}

/// Scenario: a server is killed before its records are in a segment. Guarantee: `wal inspect` counts them without any key, `wal verify`
/// opens them with keys, the next start has them, and a clean stop leaves no log behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_servers_log_is_inspected_verified_and_replayed() {
    let deployment = killed().await;
    let server = deployment.start_with(&["segment.max_age_ms=600000"]);
    let dir = deployment.data_dir().join("wal");
    let dir = dir.to_str().expect("a path in UTF-8");
    let inspected = server.run(&["wal", "inspect", dir, "--json"]);
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let files: Vec<Value> = serde_json::from_slice(&inspected.stdout).expect("JSON");
    let sum = |field: &str| files.iter().filter_map(|file| file[field].as_u64()).sum::<u64>();
    assert_eq!((sum("entries"), sum("records")), (2, 3), "{files:?}");
    assert_eq!(files[0]["coverage"][0]["records"], 3, "{files:?}");
    assert!(files[0]["keys"][0]["aekId"].is_string(), "{files:?}");

    let verified = server.run(&["wal", "verify", dir, "--with-keys"]);
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && told.contains("2 entries opened, 0 problems"), "{told}");

    assert_eq!(server.value("SELECT count(*) FROM logs"), 3);
    assert!(server.stop().success());
    assert_eq!(log_files(&deployment), Vec::<PathBuf>::new(), "all is in segments");
    assert_eq!(deployment.start().value("SELECT count(*) FROM logs"), 3, "each once");
}

/// Scenario: a file of the log is gone, or another one lies in its place. Guarantee: the start says so, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_and_an_exchanged_file_are_noticed() {
    let (missing, exchanged) = (killed().await, killed().await);
    let (lost, in_place) = (log_files(&missing).remove(0), log_files(&exchanged).remove(0));
    std::fs::rename(&lost, &in_place).expect("renamed");
    for (deployment, says) in [(&missing, "is missing"), (&exchanged, "another cluster's")] {
        let server = deployment.start();
        assert!(server.log().contains(says), "{says}: {}", server.log());
        assert_eq!(server.value("SELECT count(*) FROM logs"), 0);
        ship::export(&server, &request(&["later"])).await.expect("accepted");
        assert_eq!(server.value("SELECT count(*) FROM logs"), 1, "it goes on");
        assert!(server.stop().success());
    }
}

/// Scenario: one bit of a frame is flipped. Guarantee: `wal verify` fails and names the frame.
#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_flipped_bit() {
    let deployment = killed().await;
    let file = log_files(&deployment).remove(0);
    let mut bytes = std::fs::read(&file).expect("the log");
    // Behind two header copies (512 bytes each) and two key frames (172 each): the first request's frame.
    bytes[1_450] ^= 4;
    std::fs::write(&file, bytes).expect("written");
    let dir = deployment.data_dir().join("wal");
    let verified = std::process::Command::new(env!("CARGO_BIN_EXE_logseal")).args(["wal", "verify"]).arg(dir).output();
    let verified = verified.expect("the binary starts");
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(!verified.status.success() && told.contains("is lost"), "{told}");
}
