//! The write-ahead log from outside: what a killed server leaves, and what `logseal wal` says of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logseal_testkit::canary::files_below;
use logseal_testkit::ship;
use logseal_wal::format::{HEADER_BYTES, VERSION};
use logseal_wal::{FileReader, Item, SealedEntry, SystemDisk};
use serde_json::{Value, json};
use tonic::Code;

use crate::Deployment;
use crate::lifecycle::request;

fn log_files(deployment: &Deployment) -> Vec<PathBuf> {
    let mut files = files_below(&deployment.data_dir().join("wal"));
    files.sort();
    files
}

/// A command on files, whether a server runs or not.
fn logseal(deployment: &Deployment, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    command.args(arguments).arg("--data-dir").arg(deployment.data_dir()).output().expect("the binary starts")
}

/// The array that a command prints, and what it tells beside it.
fn array(output: &Output) -> (Vec<Value>, String) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    (serde_json::from_slice(&output.stdout).expect("JSON alone"), told)
}

/// Asks again and again until the answer is there.
fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: this takes a moment, not a minute");
        std::thread::yield_now();
    }
}

fn entries(file: &Path) -> Vec<SealedEntry> {
    let mut reader = FileReader::open(&SystemDisk, file).expect("a file of the log");
    let items = std::iter::from_fn(|| reader.next_item().expect("readable"));
    items.filter_map(|item| if let Item::Entry(entry) = item { Some(entry) } else { None }).collect()
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    (!crc).to_le_bytes()
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

/// Scenario: a killed server's log is of a later version, as after an upgrade that was taken back. Guarantee: its cluster takes no records and
/// answers no queries, the reason names both versions, and nothing is changed or given up; with a version that knows it each record is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_later_version_is_neither_passed_over_nor_given_up() {
    let deployment = killed().await;
    let file = log_files(&deployment).remove(0);
    let known = std::fs::read(&file).expect("a file of the log");
    let mut later = known.clone();
    // Both copies of the header, each with its checksum at its end.
    for copy in later[..2 * HEADER_BYTES].chunks_mut(HEADER_BYTES) {
        copy[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let (content, sum) = copy.split_at_mut(HEADER_BYTES - 4);
        sum.copy_from_slice(&crc(content));
    }
    std::fs::write(&file, &later).expect("written");
    let server = deployment.start();
    assert!(server.ready_line.contains("cluster=local:Resuming"), "{}", server.ready_line);
    let both = format!("has format version {}, this version of logseal knows versions 1 to {VERSION}", VERSION + 1);
    assert!(server.log().contains(&both), "{}", server.log());
    let refused = ship::export(&server, &request(&["four"])).await.expect_err("the cluster is held");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    server.query("SELECT count(*) FROM logs").expect_err("never fewer rows");
    assert!(server.stop().success());
    assert!(std::fs::read(&file).expect("it is still there") == later);
    assert_eq!(log_files(&deployment), std::slice::from_ref(&file), "no other file was begun");

    std::fs::write(&file, known).expect("written");
    let server = deployment.start();
    assert!(!server.ready_line.contains("Resuming"), "{}", server.ready_line);
    assert_eq!(server.value("SELECT count(*) FROM logs"), 3);
    assert!(!server.log().contains("is missing"), "{}", server.log());
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
    let verified = Command::new(env!("CARGO_BIN_EXE_logseal")).args(["wal", "verify"]).arg(dir).output();
    let verified = verified.expect("the binary starts");
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(!verified.status.success() && told.contains("is lost"), "{told}");
}

/// Scenario: of three requests in a killed server's log one has a flipped bit and one was altered with right checksums; the server
/// starts twice and ends. Guarantee: `wal quarantine` lists both, with what is known of them, while a server runs, after it was killed,
/// and when their log is gone; `wal inspect` says which one the catalog knows; the second start has nothing new to report.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_quarantine_is_listed() {
    let deployment = Deployment::new();
    let keep = ["segment.max_age_ms=600000"];
    let server = deployment.start_with(&keep);
    for bodies in [["one", "two"].as_slice(), &["three"], &["four"]] {
        ship::export(&server, &request(bodies)).await.expect("accepted");
    }
    server.kill();
    let listed = || array(&logseal(&deployment, &["wal", "quarantine", "--json"])).0;
    assert_eq!(listed(), Vec::<Value>::new());

    let file = log_files(&deployment).remove(0);
    let (found, mut bytes) = (entries(&file), std::fs::read(&file).expect("the log"));
    let frame = |entry: &SealedEntry| entry.offset as usize..entry.offset as usize + entry.frame_bytes();
    bytes[frame(&found[0]).end - 1] ^= 1;
    let forged = &mut bytes[frame(&found[1])];
    let metadata_bytes = u32::from_le_bytes(forged[24..28].try_into().expect("four bytes"));
    let body = 48 + metadata_bytes as usize;
    forged[body] ^= 1;
    let body_crc = crc(&forged[body..]);
    forged[40..44].copy_from_slice(&body_crc);
    let head_crc = crc(&forged[..44]);
    forged[44..48].copy_from_slice(&head_crc);
    std::fs::write(&file, bytes).expect("written");

    let server = deployment.start_with(&keep);
    until("the replay", || server.log().contains("a frame of the log is in quarantine").then_some(()));
    let running = listed();
    let data_dir = deployment.data_dir();
    let (inspected, told) = array(&server.run(&["wal", "inspect", &data_dir.to_string_lossy(), "--json"]));
    assert!(!told.contains("not shown"), "{told}");
    let of_log = inspected.iter().find(|shown| shown["path"] == json!(file)).expect("the file");
    let stem = file.file_stem().expect("a name").to_string_lossy();
    let expect = |entry: &SealedEntry, records: u64, received: Value, reason: Value| {
        let path = data_dir.join(format!("quarantine/{stem}.{0}-{0}.wal", entry.sequence));
        let bytes = std::fs::metadata(&path).expect("the copy").len();
        json!({"path": path, "file": stem, "cluster": of_log["cluster"], "first": entry.sequence, "last": entry.sequence,
               "frames": 1, "records": records, "received": received, "bytes": bytes, "reason": reason})
    };
    let both = [
        expect(&found[0], 2, Value::Null, json!("damaged: its body")),
        expect(&found[1], 1, json!(found[1].received.0), Value::Null),
    ];
    assert_eq!(running, both);
    let settled = of_log["settled"].as_array().expect("the catalog was asked");
    assert_eq!(settled.len(), 1, "damage is in no stream that anybody could name: {settled:?}");
    let (first, last) = (&settled[0]["first"], &settled[0]["last"]);
    assert_eq!((first, last), (&json!(found[1].sequence), &json!(found[1].sequence)));
    assert_eq!((&settled[0]["segment"], &settled[0]["quarantined"]), (&Value::Null, &json!(true)));
    let table = logseal(&deployment, &["wal", "quarantine"]).stdout;
    let table = String::from_utf8_lossy(&table);
    assert!(table.contains("REASON") && table.contains("damaged: its body") && table.contains("intact"), "{table}");
    let table = server.run(&["wal", "inspect", &data_dir.to_string_lossy()]).stdout;
    let table = String::from_utf8_lossy(&table);
    assert!(table.contains("SETTLED FRAMES") && table.contains(": quarantine"), "{table}");

    let errors = |log: &str| log.lines().filter(|line| line.contains("ERROR")).count();
    let reported = errors(&server.log());
    server.kill();
    assert_eq!(listed(), both, "without a server");
    let server = deployment.start();
    until("the replay", || server.log().contains("the log is replayed").then_some(()));
    assert_eq!(errors(&server.log()), reported, "reported once: {}", server.log());
    assert!(server.stop().success());
    assert_eq!(log_files(&deployment), Vec::<PathBuf>::new());
    assert_eq!(listed(), both, "without their log");

    // What another tool put there, and what a crash left of a copy.
    let folder = data_dir.join("quarantine");
    let copy = std::fs::read(both[1]["path"].as_str().expect("a path")).expect("the copy");
    std::fs::write(folder.join("rubbish.wal"), b"rubbish").expect("written");
    std::fs::write(folder.join(format!("{stem}.{0}-{0}.wal", found[2].sequence)), &copy[..1100]).expect("written");
    let reasons: Vec<_> = listed().iter().map(|shown| shown["reason"].to_string()).collect();
    let has = |words: &str| reasons.iter().filter(|reason| reason.contains(words)).count();
    assert_eq!((reasons.len(), has("cannot be read"), has("half copied")), (4, 1, 1), "{reasons:?}");
}

/// Scenario: a record is in a segment and its file of the log still there; the log's folder is inspected, the data directory is, and it is
/// with another root key. Guarantee: the segment is named where there is a catalog; where there is none, or its rows do not hold, that
/// is said and nothing made up.
#[tokio::test(flavor = "multi_thread")]
async fn inspect_names_the_segment_of_settled_frames() {
    let deployment = Deployment::new();
    let server = deployment.start();
    ship::export(&server, &request(&["one"])).await.expect("accepted");
    let segment = until("a segment", || array(&server.run(&["segment", "list", "--json"])).0.pop());
    let (data_dir, log) = (deployment.data_dir(), deployment.data_dir().join("wal"));
    let inspect = |dir: &Path| ["wal", "inspect", &dir.to_string_lossy(), "--json"].map(str::to_owned);
    let asked = |dir: &Path| {
        let arguments = inspect(dir);
        array(&logseal(&deployment, &arguments.each_ref().map(String::as_str)))
    };
    let mut server = Some(server);
    for when in ["while it runs", "after it was killed"] {
        let (files, told) = asked(&data_dir);
        let settled = &files[0]["settled"][0];
        assert_eq!(
            (&settled["segment"], &settled["quarantined"]),
            (&segment["id"], &json!(false)),
            "{when}: {files:?}"
        );
        assert_eq!((&settled["first"], &settled["table"]), (&json!(3), &files[0]["coverage"][0]["table"]), "{when}");
        assert_eq!(told, "", "{when}");
        let (files, told) = asked(&log);
        assert_eq!(files[0]["settled"], Value::Null, "{when}");
        assert!(told.contains("has no catalog"), "{when}: {told}");
        if let Some(server) = server.take() {
            server.kill();
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    let wrong =
        command.args(inspect(&data_dir)).env("LOGSEAL_ROOT_KEY", "5".repeat(64)).output().expect("the binary starts");
    let (files, told) = array(&wrong);
    assert_eq!(files[0]["settled"], Value::Null);
    assert!(told.contains("integrity"), "{told}");
}
