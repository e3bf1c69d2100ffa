//! The whole server under load: starts a fresh one for each row, drives it, and writes tables and a plot.
//!
//! ```text
//! cargo build --release --locked && cargo bench --locked --workspace --bench end_to_end [-- [SECONDS] [NAME]...]
//! ```
//!
//! A name is that of a payload, `half` (latency of acknowledgements at half of the highest rate) or `scaling` (many workspaces, many attribute
//! keys); without one all rows are measured. The load of a row lasts 30 s unless told otherwise. The server and the load share the machine. The results
//! go to `target/end-to-end/`: `results.md` and `results.svg`.

#![expect(clippy::print_stderr, reason = "it says what it does meanwhile")]

mod bed;
mod load;
mod management;
mod scaling;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use logseal_benches::{SOURCES, plot};
use tokio::runtime::Runtime;

/// How long a row's load lasts.
const SECONDS: u64 = 30;

/// The names of rows that are not those of one payload.
const HALF: &str = "half";
const SCALING: &str = "scaling";

type Failed = Box<dyn Error + Send + Sync>;

/// What all rows have in common.
struct Bench {
    runtime: Runtime,
    binary: PathBuf,
    /// How long a load lasts.
    time: Duration,
    /// What is measured; everything if there is no name.
    names: Vec<String>,
}

impl Bench {
    fn of_process() -> Result<Self, Failed> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let binary = env::var_os("LOGSEAL_BIN").map_or_else(|| target.join("release/logseal"), PathBuf::from);
        if !binary.exists() {
            return Err(format!("{} is not there: `cargo build --release --locked` makes it", binary.display()).into());
        }
        let (mut seconds, mut names) = (SECONDS, Vec::new());
        // `cargo bench` adds a flag.
        for argument in env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
            let is_name = [HALF, SCALING].contains(&argument.as_str()) || SOURCES.iter().any(|s| s.name == argument);
            match argument.parse() {
                Ok(number) => seconds = number,
                Err(_) if is_name => names.push(argument),
                Err(_) => return Err(format!("`{argument}` is neither seconds nor a name of rows").into()),
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { runtime, binary, time: Duration::from_secs(seconds), names })
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

fn main() -> Result<(), Failed> {
    let bench = Bench::of_process()?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/end-to-end");
    fs::create_dir_all(&out)?;
    let mut text = machine(bench.time);
    let loads = load::measure(&bench)?;
    if !loads.is_empty() {
        text.push_str(&load::table(&loads));
        fs::write(out.join("results.svg"), plot::bars("Records per second of server CPU time", &load::bars(&loads)))?;
    }
    if bench.wants(SCALING) {
        text.push_str(if loads.is_empty() { "" } else { "\n" });
        text.push_str(&scaling::table(&scaling::measure(&bench)?));
    }
    fs::write(out.join("results.md"), &text)?;
    eprintln!("{text}\nwritten to {}", out.display());
    Ok(())
}

fn machine(time: Duration) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores of {}, commit {}, {} s a row, load on the same machine.\n\n",
        model.trim_start_matches(['\t', ' ', ':']),
        first_line("git", &["rev-parse", "--short", "HEAD"]),
        time.as_secs(),
    )
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
