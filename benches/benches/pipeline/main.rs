//! The whole pipeline in one process without a network, on one core and on two: whether the second one doubles what it takes in.
//!
//! `cargo bench --workspace --bench pipeline -- [SECONDS]`: requests of payload a, encoded before, go straight to the pipeline; each is logged with its
//! fsync and acknowledged, and its rows become segments in a local object store. The clock runs until every record is in a segment. Each run is a
//! process of its own with so many threads for async tasks, for requests and for sealing, and on so many cores (`taskset`); the variants take turns, and
//! the medians count. `pipeline run THREADS MILLISECONDS` is what such a process does.

#![expect(clippy::print_stdout, reason = "the table is the program's output")]

mod world;

use std::env;
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use logseal_alloc::{WipingAllocator, keep_freed_pages};
use logseal_bench::ServerProbe;
use logseal_core::stack;

use crate::world::World;

/// As in the server.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

/// How long all runs take together, starts and ends aside.
const SECONDS: u64 = 20;

/// Runs of each variant.
const ROUNDS: usize = 5;

/// What an async thread of the server wipes of its stack when it has nothing to do, and how long the server keeps freed pages.
const WIPED_BYTES: usize = 64 * 1024;
const FREED_PAGES_KEPT_MS: u16 = 50;

type Failed = Box<dyn Error + Send + Sync>;

/// Threads of each kind, and cores.
struct Variant {
    threads: usize,
    cores: usize,
}

/// The second shows what the threads that are there in any case (of the log and of the catalog) gain by another core.
const VARIANTS: [Variant; 3] =
    [Variant { threads: 1, cores: 1 }, Variant { threads: 1, cores: 2 }, Variant { threads: 2, cores: 2 }];

/// What a run gave.
#[derive(Clone, Copy, Default)]
struct Outcome {
    records_per_s: f64,
    cpu_per_s: f64,
    cpu_us_a_record: f64,
}

fn main() -> Result<(), Failed> {
    // `cargo bench` adds a flag.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", threads, milliseconds] => run(threads.parse()?, Duration::from_millis(milliseconds.parse()?)),
        [] => compare(SECONDS),
        [seconds] => compare(seconds.parse()?),
        _ => Err("usage: pipeline [SECONDS]".into()),
    }
}

/// One run, which prints its records, its seconds, and its seconds of CPU time.
fn run(threads: usize, time: Duration) -> Result<(), Failed> {
    keep_freed_pages(FREED_PAGES_KEPT_MS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .on_thread_park(stack::wipe::<WIPED_BYTES>)
        .enable_all()
        .build()?;
    let cpu = || ServerProbe::new(std::process::id()).cpu_seconds().ok_or("no CPU time in /proc");
    let world = runtime.block_on(World::start())?;
    let (before, started) = (cpu()?, Instant::now());
    let records = runtime.block_on(world.take_in(time))?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu()? - before);
    println!("{records} {seconds} {cpu}");
    runtime.block_on(world.end());
    Ok(())
}

fn compare(seconds: u64) -> Result<(), Failed> {
    let cores = cores()?;
    let time = Duration::from_secs(seconds) / (ROUNDS * VARIANTS.len()) as u32;
    let mut outcomes = [[Outcome::default(); ROUNDS]; VARIANTS.len()];
    for round in 0..ROUNDS {
        for (variant, outcomes) in VARIANTS.iter().zip(&mut outcomes) {
            let on = cores.get(..variant.cores).ok_or("the machine has fewer than two cores")?;
            outcomes[round] = measure(variant, on, time)?;
        }
    }
    println!(
        "Payload a, {} runs of {:.1} s each in turn, medians; least and most of them in brackets.\n",
        ROUNDS,
        time.as_secs_f64()
    );
    println!("| threads of each kind | cores | records/s | to the first row | CPU s a second | CPU us a record |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    let first = median(&outcomes[0], |outcome| outcome.records_per_s);
    for (variant, outcomes) in VARIANTS.iter().zip(&outcomes) {
        let rate = median(outcomes, |outcome| outcome.records_per_s);
        let least = outcomes.iter().map(|outcome| outcome.records_per_s).fold(f64::MAX, f64::min);
        let most = outcomes.iter().map(|outcome| outcome.records_per_s).fold(0.0, f64::max);
        println!(
            "| {} | {} | {rate:.0} ({least:.0} to {most:.0}) | {:.2} | {:.2} | {:.2} |",
            variant.threads,
            variant.cores,
            rate / first,
            median(outcomes, |outcome| outcome.cpu_per_s),
            median(outcomes, |outcome| outcome.cpu_us_a_record),
        );
    }
    Ok(())
}

fn median(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    let mut values: Vec<f64> = outcomes.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `variant` on the cores `on`.
fn measure(variant: &Variant, on: &[usize], time: Duration) -> Result<Outcome, Failed> {
    let cores: Vec<String> = on.iter().map(ToString::to_string).collect();
    let output = Command::new("taskset")
        .args(["-c", &cores.join(",")])
        .arg(env::current_exe()?)
        .args(["run", &variant.threads.to_string(), &time.as_millis().to_string()])
        // The threads for requests and those for sealing: both pools are rayon's, and made once in a process.
        .env("RAYON_NUM_THREADS", variant.threads.to_string())
        .output()
        .map_err(|error| format!("taskset cannot be run ({error}); it is a part of util-linux"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = told.split_whitespace().map_while(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [records, seconds, cpu] if output.status.success() => Ok(Outcome {
            records_per_s: records / seconds,
            cpu_per_s: cpu / seconds,
            cpu_us_a_record: cpu * 1e6 / records,
        }),
        _ => Err(format!("a run failed:\n{told}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The cores that this process may use, from a list like `0-3,6`.
fn cores() -> Result<Vec<usize>, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).ok_or("no list of cores")?;
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}
