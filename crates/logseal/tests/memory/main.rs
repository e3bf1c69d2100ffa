//! What a revocation leaves in the memory of the real server: none of the cluster's keys, and nothing of its records (Linux).
//!
//! The process is searched from outside, through the kernel. The keys to look for come from where an owner's auditor would get them:
//! the vault unwraps the account keys, these unwrap the data keys of segments, of the files of the log, and of the segment that is growing. Of that one the wrap
//! lies nowhere but in memory itself.
#![cfg(target_os = "linux")]

mod keys;
mod records;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use logseal_testkit::memory::{Found, Secrets};
use serde_json::Value;

use self::keys::OwnersKeys;
use self::records::Records;

/// Within this time after a revocation nothing is left.
const BOUND: Duration = Duration::from_secs(60);

/// Time between two looks at a state that has to come.
const LOOK: Duration = Duration::from_millis(200);

/// Probes come soon, and a resumption need not keep a distance. Segments are closed by size alone, after a few requests of this test.
const SETTINGS: [&str; 5] = [
    "keys.probe_interval_ms=1000",
    "keys.min_state_interval_ms=0",
    "segment.max_age_ms=3600000",
    "segment.row_group_bytes=1048576",
    "segment.target_bytes=2097152",
];

fn run(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&run(server, &[arguments, &["--json"]].concat())).expect("JSON alone")
}

/// Waits until `done`, at most until `deadline`.
fn until(what: &str, deadline: Instant, mut done: impl FnMut() -> bool) {
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(LOOK);
    }
}

fn until_state(server: &Server, state: &str) {
    let shown = || json(server, &["cluster", "show", "local"])["properties"]["keyState"]["state"].clone();
    until(state, Instant::now() + BOUND, || shown() == state);
}

/// Everywhere that one of `secrets` is in the server's memory.
fn search(server: &Server, secrets: &Secrets) -> Vec<Found> {
    secrets
        .search(server.process_id())
        .expect("the memory of our own child can be read: without it this test proves nothing")
}

/// The secrets that are in the server's memory, each once.
fn names(found: &[Found]) -> Vec<&str> {
    let mut names: Vec<_> = found.iter().map(|found| found.secret.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn segments(server: &Server) -> u64 {
    let listed = json(server, &["segment", "list"]);
    listed.as_array().expect("an array").iter().filter(|segment| segment["rows"].as_u64() > Some(0)).count() as u64
}

/// Scenario: a cluster under a customer's key has records in segments, in one that is growing, and in rows that wait, all in the log; they are
/// queried; the key is rotated; then it is disabled, and enabled again. Guarantee: while the cluster is Active the search finds its keys and
/// texts; a minute after the key was disabled it finds none, in no form, while another cluster's key is still found; and after the
/// key is back every record is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_leaves_no_key_and_no_text_in_memory() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data_dir = dir.path().join("data");
    let settings: Vec<_> = SETTINGS.iter().flat_map(|setting| ["--set", *setting]).collect();
    let server = Server::start(env!("CARGO_BIN_EXE_logseal"), &data_dir, &settings);
    run(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    run(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    run(&server, &["workspace", "create", "elsewhere"]);

    let mut records = Records::default();
    records.ship_until(&server, "stored", || segments(&server) >= 2).await;
    run(&server, &["vault", "key", "rotate", "kek"]);
    run(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    records.ship(&server, "growing", 2).await;
    records.ship(&server, "waiting", 1).await;
    records.query(&server);

    let keys = OwnersKeys::of(&server, &data_dir, dir.path()).await;
    assert!(keys.segments >= 2 && keys.growing >= 1 && keys.log_files >= 1, "{keys:?}");
    let mut secrets = Secrets::default();
    keys.keys.iter().chain(&records.texts).for_each(|(name, secret)| secrets.add(name, secret));
    let mut control = Secrets::default();
    control.add(&keys.elsewhere.0, &keys.elsewhere.1);

    let found = search(&server, &secrets);
    report(&format!("while Active found at {} places:\n{}", found.len(), places(&found)));
    for kind in ["AEK", "DEK of the log", "DEK of a growing segment", "waiting body", "waiting value", "attribute name"]
    {
        assert!(found.iter().any(|found| found.secret.starts_with(kind)), "{kind} is not found in {:?}", names(&found));
    }
    assert!(!search(&server, &control).is_empty(), "the other cluster's key is in memory");

    let revoked = Instant::now();
    run(&server, &["vault", "key", "disable", "kek"]);
    until_state(&server, "Revoked");
    let mut left = search(&server, &secrets);
    report(&format!("{:?} after the revocation, when it is known, found at {} places", revoked.elapsed(), left.len()));
    while !left.is_empty() && revoked.elapsed() < BOUND {
        std::thread::sleep(LOOK);
        left = search(&server, &secrets);
    }
    report(&format!("{:?} after the revocation at {} places", revoked.elapsed(), left.len()));
    assert!(left.is_empty(), "{} secrets are left in memory:\n{}", names(&left).len(), places(&left));
    assert!(
        !search(&server, &control).is_empty(),
        "the other cluster's key is still there, and the search still finds"
    );

    run(&server, &["vault", "key", "enable", "kek"]);
    until_state(&server, "Active");
    assert_eq!(server.value("SELECT count(*) FROM logs"), records.count);
    assert!(!search(&server, &secrets).is_empty(), "what comes back is found again");
    assert!(server.stop().success());
}

#[expect(clippy::print_stdout, reason = "what is found at each stage is what this test is run for")]
fn report(line: &str) {
    println!("{line}");
}

/// How often which kind of secret was found in which form and mapping, with an address.
fn places(found: &[Found]) -> String {
    let mut kinds: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for Found { secret, form, address, mapping } in found {
        // The last word of a name is its number or id.
        let kind = secret.rsplit_once(' ').map_or(secret.as_str(), |(kind, _)| kind);
        kinds.entry(format!("{kind} ({form}) in {mapping}")).or_insert((0, *address)).0 += 1;
    }
    kinds.iter().map(|(kind, (times, address))| format!("{times} x {kind}, as at {address:#x}\n")).collect()
}
