//! Crash safety of the real binary, shown by force.
//!
//! Four shippers send numbered, hashed records and note each acknowledgement in a ledger of their own, synced before
//! they go on. Meanwhile the server is killed with SIGKILL at random moments, also while it starts, and started again.
//! At the end ledgers and store are compared as multisets: no acknowledged record may be missing, altered or there
//! twice. What a client had to send again because it got no answer may be there twice; that is counted apart. After each
//! kill the files of the log are looked through, before they are covered and deleted: no key and nonce together may have
//! sealed two things.
//!
//! By default 20 kills with a fresh seed, as continuous integration runs it. The long form, and any seed again:
//!
//! ```text
//! LOGSEAL_CRASH_KILLS=200 LOGSEAL_CRASH_SEED=1 cargo test --release --workspace --test crash -- --nocapture
//! ```
//!
//! The seed decides records, sizes of requests and times of kills; it is printed at the start and again on failure.
//! What the threads and the disk do in between is not repeated by it.

mod nonces;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use logseal_testkit::compare::{compare, count_all};
use logseal_testkit::fleet::Fleet;
use logseal_testkit::record::{SeededRandom, seed_of_run};

use nonces::Nonces;

const SHIPPERS: u32 = 4;

/// Cuts and commits happen all the time, and files of the write-ahead log come and go.
const SETTINGS: [&str; 6] =
    ["--set", "segment.max_age_ms=300", "--set", "segment.target_bytes=65536", "--set", "wal.file_bytes=262144"];

/// Longest time from the start of the process to its ready line, after a kill.
const RESTART: Duration = Duration::from_secs(30);

#[test]
fn no_acknowledged_record_is_lost_altered_or_duplicated_by_kills() {
    let kills = std::env::var("LOGSEAL_CRASH_KILLS").map_or(20_u32, |text| text.parse().expect("a number of kills"));
    let seed = seed_of_run("LOGSEAL_CRASH_SEED");
    let run = Run::new(seed);
    let fleet = Fleet::start(seed, SHIPPERS, &run.ledgers());
    let mut server = run.start();
    let mut random = SeededRandom::new(seed, &[]);
    let (mut slowest, mut kills_in_start, mut counts) = (Duration::ZERO, 0, 0);
    let mut nonces = Nonces::default();
    for kill in 0..kills {
        fleet.aim(&server);
        if kill % 5 == 4 {
            counts += 1;
            let acknowledged = fleet.progress().acknowledged_records;
            let counted = count_all(&server).expect("a server that is ready answers queries");
            let sent = fleet.progress().sent_records;
            assert!(
                (acknowledged..=sent).contains(&counted),
                "{acknowledged} acknowledged, {counted} there, {sent} sent"
            );
        }
        thread::sleep(Duration::from_millis(random.between(20, 700)));
        assert!(server.is_running(), "it ended by itself:\n{}", server.log());
        drop(server); // SIGKILL
        nonces.look_at_log(&run.data_dir()).expect("no key and nonce seal two things");
        if kill % 4 == 3 {
            kills_in_start += 1;
            run.kill_during_start(Duration::from_millis(random.between(1, 150)));
            nonces.look_at_log(&run.data_dir()).expect("no key and nonce seal two things");
        }
        let began = Instant::now();
        server = run.start();
        slowest = slowest.max(began.elapsed());
    }
    fleet.aim(&server);
    let (progress, ledger) = fleet.finish();
    let findings = compare(&server, seed, ledger).expect("a server that is ready answers queries");
    assert!(server.stop().success(), "SIGTERM ends with exit code 0");
    nonces.look_at_log(&run.data_dir()).expect("no key and nonce seal two things");
    nonces.look_at_segments(&run.data_dir()).expect("each segment has a key of its own");
    let server = run.start();
    let after_stop = count_all(&server).expect("a server that is ready answers queries");

    let (frames, keys) = nonces.counts();
    report(&format!(
        "seed {seed}: {kills} kills and {kills_in_start} during a start, {counts} counts between, {} connections broke, \
         {} requests refused, slowest restart {slowest:?}, {frames} frames and {keys} keys each with a nonce of its own\n{findings}",
        progress.broken, progress.refusals,
    ));
    assert!(findings.is_faultless(), "{findings}");
    assert_eq!(after_stop, findings.stored, "a clean stop and start neither loses nor adds");
    assert_eq!(progress.violations, [""; 0], "answers that make stock clients drop records");
    assert!(slowest < RESTART, "{slowest:?}");
    // Otherwise nothing was tested: not one kill in the middle of a request, or hardly a record.
    assert!(progress.broken >= u64::from(kills) / 2, "{progress:?}");
    assert!(findings.acknowledged >= u64::from(kills) * 10, "{findings}");
    assert!(frames >= kills as usize && keys >= kills as usize, "{frames} frames, {keys} keys");
}

#[expect(clippy::print_stderr, reason = "who runs the long form wants to see what it found, and the seed")]
fn report(text: &str) {
    eprintln!("{text}");
}

/// Everything on the disk of one run. Kept when the run fails.
struct Run {
    seed: u64,
    dir: Option<tempfile::TempDir>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        report(&format!("LOGSEAL_CRASH_SEED={seed}"));
        let run = Self { seed, dir: Some(dir) };
        std::fs::create_dir(run.ledgers()).expect("a folder of our own");
        run
    }

    fn dir(&self) -> &Path {
        self.dir.as_ref().expect("taken in drop only").path()
    }

    fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn ledgers(&self) -> PathBuf {
        self.dir().join("ledgers")
    }

    fn start(&self) -> Server {
        Server::start(env!("CARGO_BIN_EXE_logseal"), &self.data_dir(), &SETTINGS)
    }

    /// Starts the server, and kills it `after` that, ready or not.
    fn kill_during_start(&self, after: Duration) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_logseal"))
            .args([
                "serve",
                "--otlp-grpc",
                "127.0.0.1:0",
                "--otlp-http",
                "127.0.0.1:0",
                "--management",
                "127.0.0.1:0",
                "--vault",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(self.data_dir())
            .args(SETTINGS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        thread::sleep(after);
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take().filter(|_| thread::panicking()) {
            report(&format!(
                "LOGSEAL_CRASH_SEED={} failed; data and ledgers are in {}",
                self.seed,
                dir.keep().display()
            ));
        }
    }
}
