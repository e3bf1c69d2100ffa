//! Instructions that the stages of a record's way take on fixed input, held against stored figures.
//!
//! Times vary with what else the machine does; how many instructions a program executes does not. Each stage runs once and twice in a process of its
//! own under valgrind's callgrind: the difference is what it takes, without start and preparation. `cargo bench --workspace --bench instructions`
//! compares with `benches/instructions.txt` and fails when a stage takes more than the tolerance allows; with `LOGSEAL_BLESS=1` it writes the
//! file. `instructions STAGE TIMES` is what runs under valgrind.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the comparison is the program's output")]

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use arrow::array::RecordBatch;
use logseal_bench::Payload;
use logseal_benches::{IDENTITY, SOURCES, aek, footer, request, schema};
use logseal_core::UnixNanos;
use logseal_crypto::OsRandom;
use logseal_otlp::ScanLimits;
use logseal_segment::{SegmentSettings, encode};
use logseal_wal::CompressedBody;

/// How much more a stage may take than is stored. Hash tables are seeded at random, and libraries choose their code by the processor: two parts in a
/// hundred were seen.
const TOLERANCE: f64 = 0.05;

/// Rows of the stages that encode: several pages, and quick enough under valgrind.
const ROWS: usize = 10_000;

/// The stages: what they are called, and their preparation, which gives what is measured.
type Stage = (&'static str, fn() -> Box<dyn Fn()>);

const STAGES: [Stage; 6] = [
    ("scan-a", || scan(Payload::A)),
    ("scan-b", || scan(Payload::B)),
    ("scan-c", || scan(Payload::C)),
    ("compress-a", || {
        let bytes = request(Payload::A, 0).into();
        Box::new(move || drop(black_box(CompressedBody::compress(&bytes))))
    }),
    ("encode-a", || encode("a")),
    ("encode-real", || encode("real")),
];

fn scan(payload: Payload) -> Box<dyn Fn()> {
    let (bytes, schema) = (request(payload, 0), schema());
    let limits = ScanLimits::default();
    // The columns are known, as they are to all requests but the first.
    drop(logseal_otlp::scan(&bytes, &schema, UnixNanos(0), &limits));
    Box::new(move || drop(black_box(logseal_otlp::scan(&bytes, &schema, UnixNanos(0), &limits))))
}

fn encode(source: &str) -> Box<dyn Fn()> {
    let source = SOURCES.iter().find(|known| known.name == source).expect("a source");
    let chunks = source.chunks(ROWS);
    let (aek, rows) = (aek(), chunks.iter().map(|chunk| chunk.num_rows() as u64).sum());
    let footer = footer(&aek, rows);
    let seal = move |chunks: &[RecordBatch]| {
        encode::seal(&IDENTITY, &aek, chunks, &footer, &SegmentSettings::default(), OsRandom)
    };
    Box::new(move || drop(black_box(seal(&chunks).expect("rows that can be sealed"))))
}

fn main() -> ExitCode {
    // `cargo bench` adds a flag.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let outcome = match arguments.as_slice() {
        [] => compare(),
        [stage, times] => run(stage, times),
        _ => Err("usage: instructions [STAGE TIMES]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("instructions: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(stage: &str, times: &str) -> Result<(), String> {
    let (_, prepare) = STAGES.iter().find(|(name, _)| *name == stage).ok_or("no such stage")?;
    let measured = prepare();
    for _ in 0..times.parse::<u32>().map_err(|error| error.to_string())? {
        measured();
    }
    Ok(())
}

fn compare() -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let stored = fs::read_to_string(&path).unwrap_or_default();
    let stored: BTreeMap<&str, u64> = stored
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, n)| Some((name, n.parse().ok()?)))
        .collect();
    let (mut figures, mut problems) = (String::new(), String::new());
    println!("| stage | instructions | stored | change |\n| --- | ---: | ---: | ---: |");
    for (stage, _) in STAGES {
        let counted = instructions(stage, 2)?.saturating_sub(instructions(stage, 1)?);
        let _ = writeln!(figures, "{stage} {counted}");
        let Some(before) = stored.get(stage) else {
            println!("| {stage} | {counted} | | |");
            let _ = writeln!(problems, "{stage} has no stored figure; LOGSEAL_BLESS=1 stores it");
            continue;
        };
        let change = counted as f64 / *before as f64 - 1.0;
        println!("| {stage} | {counted} | {before} | {:+.1} % |", change * 100.0);
        if change > TOLERANCE {
            let _ = writeln!(
                problems,
                "{stage} takes {counted} instructions, {:.1} % more than the stored {before}: find out why, or, if it is worth it, store the new \
                 figures with LOGSEAL_BLESS=1 and say in the commit what for",
                change * 100.0
            );
        }
    }
    if env::var_os("LOGSEAL_BLESS").is_some_and(|bless| bless == "1") {
        return fs::write(&path, figures).map_err(|error| error.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The instructions of a process that runs `stage` so many times.
fn instructions(stage: &str, times: u32) -> Result<u64, String> {
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([stage, &times.to_string()])
        // Everything on one thread: which of several does what is not fixed.
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}); install it"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let count = told.lines().find_map(|line| line.split_once("Collected :")).and_then(|(_, n)| n.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("{stage} did not run under valgrind:\n{told}")),
    }
}
