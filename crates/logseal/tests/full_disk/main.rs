//! The real binary on a disk that fills up while clients ship.
//!
//! A full disk must not end the server, nor make it acknowledge what it cannot keep: clients are told to come back, and
//! taking in goes on by itself once there is space. All of the server's files are on a tmpfs of 64 MiB in a mount
//! namespace of the test's own; its log is there too. A ballast file takes what is free. Ledgers as in the test `crash`
//! tell at the end what must be there.
//!
//! Where namespaces or mounts are not permitted the test says so on stderr and checks nothing.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use logseal_testkit::compare::{compare, count_all};
use logseal_testkit::fleet::{Fleet, Progress};
use logseal_testkit::record::seed_of_run;

const SHIPPERS: u32 = 4;

const DISK: &str = "64m";

/// Cuts happen all the time, files of the log come and go, and nothing is kept free: the disk is to be full to the last
/// byte. Calls are not held back long, so that refusals come soon.
const SETTINGS: [&str; 10] = [
    "--set",
    "ingest.hold_ms=200",
    "--set",
    "segment.max_age_ms=300",
    "--set",
    "segment.target_bytes=65536",
    "--set",
    "wal.file_bytes=1048576",
    "--set",
    "wal.reserve_bytes=0",
];

/// Longest time from space on the disk to the first acknowledgement. Clients are told to come back within 5 s.
const RESUME: Duration = Duration::from_secs(10);

/// Longest time for anything else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Variable with the folder where the small disk is mounted; set for the process inside the namespace.
const MOUNTED: &str = "LOGSEAL_FULL_DISK_MOUNT";

#[test]
fn a_full_disk_loses_nothing_and_taking_in_resumes_by_itself() {
    if let Some(disk) = std::env::var_os(MOUNTED) {
        return on_small_disk(Path::new(&disk));
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (disk, ledgers) = (dir.path().join("disk"), dir.path().join("ledgers"));
    std::fs::create_dir(&disk).expect("a folder of our own");
    std::fs::create_dir(&ledgers).expect("a folder of our own");
    // Root needs no user namespace, others do.
    let namespaces = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let Some(namespace) = namespaces.into_iter().find(|namespace| in_namespace(namespace, &disk, "true").is_ok())
    else {
        return report("checked nothing: this machine permits neither mount namespaces nor tmpfs in them");
    };
    let test = "a_full_disk_loses_nothing_and_taking_in_resumes_by_itself";
    let run = in_namespace(namespace, &disk, &format!("exec \"$2\" --exact {test} --nocapture"));
    let output = run.unwrap_or_else(|output| panic!("in the namespace:\n{}", text(&output)));
    report(&text(&output));
}

/// Runs `command` with a small disk mounted at `disk`. The namespace and its mount end with it.
fn in_namespace(options: &[&str], disk: &Path, command: &str) -> Result<Output, Output> {
    let script = format!("mount -t tmpfs -o size={DISK},mode=700 none \"$1\" && {command}");
    let this_test = std::env::current_exe().expect("a running test");
    let mut unshare = Command::new("unshare");
    unshare.args(options).args(["sh", "-c", &script, "sh"]).arg(disk).arg(this_test).env(MOUNTED, disk);
    let nothing = |error: std::io::Error| Output {
        status: std::process::ExitStatus::default(),
        stdout: Vec::new(),
        stderr: error.to_string().into_bytes(),
    };
    let output = unshare.output().map_err(nothing)?;
    if output.status.success() { Ok(output) } else { Err(output) }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[expect(clippy::print_stderr, reason = "a test that checks nothing must say so, and one that runs tells its seed")]
fn report(text: &str) {
    eprintln!("{text}");
}

fn on_small_disk(disk: &Path) {
    let seed = seed_of_run("LOGSEAL_FULL_DISK_SEED");
    report(&format!("LOGSEAL_FULL_DISK_SEED={seed}"));
    let start = || Server::start(env!("CARGO_BIN_EXE_logseal"), &disk.join("data"), &SETTINGS);
    let mut server = start();
    let fleet = Fleet::start(seed, SHIPPERS, &disk.with_file_name("ledgers"));
    fleet.aim(&server);
    let ballast = Ballast(disk.join("ballast"));

    // The disk fills up, and there is space again.
    let is_under_way = |progress: &Progress| progress.acknowledged_requests >= 20;
    assert!(fleet.wait_until(PATIENCE, is_under_way), "{:?}", fleet.progress());
    fill_until_refused(&fleet, &ballast, &server);
    assert!(server.is_running(), "{}", server.log());
    let acknowledged = fleet.progress().acknowledged_records;
    let counted = count_all(&server).expect("queries need no space");
    let sent = fleet.progress().sent_records;
    assert!((acknowledged..=sent).contains(&counted), "{acknowledged} acknowledged, {counted} there, {sent} sent");
    let first_pause = resume(&fleet, &ballast);

    // The disk fills up, and the server dies before there is space.
    fill_until_refused(&fleet, &ballast, &server);
    assert!(server.is_running(), "{}", server.log());
    drop(server); // SIGKILL
    ballast.remove();
    let mut server = start();
    fleet.aim(&server);
    let at_restart = fleet.progress().acknowledged_requests;
    assert!(fleet.wait_until(PATIENCE, |progress| progress.acknowledged_requests >= at_restart + 20), "it goes on");

    // A disk that is full at the stop, too.
    fill_until_refused(&fleet, &ballast, &server);
    assert!(server.is_running(), "{}", server.log());
    let second_pause = resume(&fleet, &ballast);
    let (progress, ledger) = fleet.finish();
    let findings = compare(&server, seed, ledger).expect("a server that is ready answers queries");
    ballast.fill();
    let log = server.log();
    let stop_began = Instant::now();
    let stopped = server.stop();
    let stop_took = stop_began.elapsed();
    ballast.remove();
    let server = start();
    let after_stop = count_all(&server).expect("a server that is ready answers queries");

    report(&format!(
        "seed {seed}: {} refusals, {} connections broke, resumed after {first_pause:?} and {second_pause:?}, stop with a \
         full disk {stop_took:?}\n{findings}",
        progress.refusals, progress.broken
    ));
    assert!(findings.is_faultless(), "{findings}");
    assert_eq!(progress.violations, [""; 0], "every refusal is UNAVAILABLE and says when to come back");
    assert_eq!(after_stop, findings.stored, "a stop with a full disk neither loses nor adds");
    assert!(stopped.success(), "SIGTERM ends with exit code 0");
    assert!(!log.contains("panicked"), "{log}");
}

/// Takes all free space again and again, since the server frees some when it seals, until every shipper was refused.
fn fill_until_refused(fleet: &Fleet, ballast: &Ballast, server: &Server) {
    let enough = fleet.progress().refusals + 2 * u64::from(SHIPPERS);
    let deadline = Instant::now() + PATIENCE;
    while !fleet.wait_until(Duration::from_millis(50), |progress| progress.refusals >= enough) {
        ballast.fill();
        assert!(Instant::now() < deadline, "nobody is refused: {:?}\n{}", fleet.progress(), server.log());
    }
}

/// Makes space, and returns how long it took until a request was acknowledged.
fn resume(fleet: &Fleet, ballast: &Ballast) -> Duration {
    let before = fleet.progress().acknowledged_requests;
    ballast.remove();
    let began = Instant::now();
    assert!(fleet.wait_until(RESUME, |progress| progress.acknowledged_requests > before), "{:?}", fleet.progress());
    began.elapsed()
}

/// A file that takes all space that is left.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(&self.0).expect("an entry of a folder");
        for chunk in [vec![0; 256 << 10], vec![0; 4 << 10]] {
            loop {
                match file.write(&chunk) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn remove(&self) {
        std::fs::remove_file(&self.0).expect("it was filled before");
    }
}
