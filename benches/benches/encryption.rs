//! What encryption costs: a record's way with AES-256-GCM and with a null cipher, in turn.
//!
//! `cargo bench --workspace --bench encryption -- [ROUNDS] [PAYLOAD]...`: one thread scans requests, compresses them for the log, seals them as frames of
//! the log, and makes their rows a sealed segment. With the null cipher, which is a value of this program alone, a frame is copied instead of sealed, and
//! pages are counted instead of sealed. All times are CPU times of the thread, so that other programs disturb little; each round measures both variants,
//! and begins with the other one than the round before.

#![expect(clippy::print_stdout, reason = "the tables are the program's output")]

use std::hint::black_box;
use std::time::Duration;

use arrow::array::RecordBatch;
use logseal_alloc::WipingAllocator;
use logseal_benches::{IDENTITY, SOURCES, Source, aek, footer, schema};
use logseal_core::{UnixNanos, WalFileId};
use logseal_crypto::{Aek, FrameSealer, OsRandom, aad};
use logseal_otlp::ScanLimits;
use logseal_segment::encode::count_unsealed_bytes;
use logseal_segment::{SegmentSettings, encode};
use logseal_wal::CompressedBody;
use logseal_wal::format::frame::EntryMetadata;
use logseal_wal::format::{FrameHead, FrameKind};
use rustix::time::{ClockId, clock_gettime};

/// As in the server.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

/// Records of a round: some row groups.
const RECORDS: usize = 60_000;

/// Rounds of each payload.
const ROUNDS: usize = 15;

const FILE: WalFileId = WalFileId::from_bytes([7; 16]);

/// What becomes of frames and pages.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Cipher {
    Aes256Gcm,
    Null,
}

/// CPU time of each stage.
#[derive(Clone, Copy, Default)]
struct Times {
    scan: Duration,
    compress: Duration,
    frames: Duration,
    pages: Duration,
}

impl Times {
    fn whole(&self) -> Duration {
        self.scan + self.compress + self.frames + self.pages
    }
}

fn main() {
    let (mut rounds, mut names) = (ROUNDS, Vec::new());
    // `cargo bench` adds a flag.
    for argument in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        match argument.parse() {
            Ok(number) => rounds = number,
            Err(_) => names.push(argument),
        }
    }
    // Columns are encoded on the threads of a pool: this one thread here, so that its time is the whole time.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    println!(
        "ns a record, medians of {rounds} rounds; the cost of encryption in percent of the whole with the null cipher.\n"
    );
    println!(
        "| payload | scan | compress | frames, AES | frames, null | pages, AES | pages, null | whole, AES | whole, null | cost of medians | cost of minima | part of the whole |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for source in SOURCES.iter().filter(|source| names.is_empty() || names.iter().any(|name| name == source.name)) {
        pool.install(|| row(source, rounds));
    }
}

fn row(source: &Source, rounds: usize) {
    let (requests, aek) = (source.requests(RECORDS), aek());
    let (mut sealed, mut null) = (Vec::new(), Vec::new());
    // The first of each only warms up.
    for round in 0..=rounds {
        let ciphers = [Cipher::Aes256Gcm, Cipher::Null];
        for turn in 0..ciphers.len() {
            let cipher = ciphers[(round + turn) % ciphers.len()];
            let times = measure(&requests, &aek, cipher);
            match cipher {
                _ if round == 0 => {}
                Cipher::Aes256Gcm => sealed.push(times),
                Cipher::Null => null.push(times),
            }
        }
    }
    let records: u64 = requests.iter().filter_map(|request| logseal_otlp::framed_records(request)).sum();
    let of = |times: &[Times], part: fn(&Times) -> Duration| {
        let mut values: Vec<f64> = times.iter().map(|times| part(times).as_nanos() as f64 / records as f64).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[0])
    };
    let both: Vec<Times> = sealed.iter().chain(&null).copied().collect();
    let (whole, whole_null) = (of(&sealed, Times::whole), of(&null, Times::whole));
    println!(
        "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} % | {:.1} % | {:.1} % |",
        source.name,
        of(&both, |times| times.scan).0,
        of(&both, |times| times.compress).0,
        of(&sealed, |times| times.frames).0,
        of(&null, |times| times.frames).0,
        of(&sealed, |times| times.pages).0,
        of(&null, |times| times.pages).0,
        whole.0,
        whole_null.0,
        (whole.0 / whole_null.0 - 1.0) * 100.0,
        (whole.1 / whole_null.1 - 1.0) * 100.0,
        (1.0 - whole_null.0 / whole.0) * 100.0,
    );
}

/// The way of `requests`, stage by stage.
fn measure(requests: &[Vec<u8>], aek: &Aek, cipher: Cipher) -> Times {
    let (schema, limits, mut times) = (schema(), ScanLimits::default(), Times::default());
    let (dek, _) = aek.new_wal_dek(FILE, OsRandom).expect("an unlimited lease");
    let mut sealer = FrameSealer::new(&dek, [8; 4]).expect("an unlimited lease");
    let mut chunks: Vec<RecordBatch> = Vec::new();
    let mut group: Vec<u8> = Vec::new();
    for (sequence, request) in (1..).zip(requests) {
        let started = cpu_time();
        let scanned = logseal_otlp::scan(request, &schema, UnixNanos(0), &limits).expect("requests are well-formed");
        let scan_ended = cpu_time();
        let compressed = CompressedBody::compress(request);
        let compress_ended = cpu_time();
        frame(cipher, &mut sealer, sequence, &request[..compressed.compressed_bytes().min(request.len())], &mut group);
        let frame_ended = cpu_time();
        times.scan += scan_ended - started;
        times.compress += compress_ended - scan_ended;
        times.frames += frame_ended - compress_ended;
        chunks.extend(scanned.chunks.into_iter().map(|chunk| chunk.batch));
    }
    let footer = footer(aek, chunks.iter().map(|chunk| chunk.num_rows() as u64).sum());
    let settings = SegmentSettings::default();
    let started = cpu_time();
    match cipher {
        Cipher::Aes256Gcm => {
            let sealed = encode::seal(&IDENTITY, aek, &chunks, &footer, &settings, OsRandom);
            black_box(sealed.expect("rows that can be sealed"));
        }
        Cipher::Null => {
            let counted = count_unsealed_bytes(&IDENTITY, aek, &chunks, &footer, &settings, OsRandom);
            black_box(counted.expect("rows that can be sealed"));
        }
    }
    times.pages = cpu_time() - started;
    times
}

/// A frame's body of as many bytes as the compressed request, as the log makes it: how long AES takes depends on nothing else.
fn frame(cipher: Cipher, sealer: &mut FrameSealer, sequence: u64, body: &[u8], group: &mut Vec<u8>) {
    // As many as the log has in one group.
    if group.len() > 4 << 20 {
        group.clear();
    }
    match cipher {
        Cipher::Aes256Gcm => {
            let head = FrameHead {
                sequence,
                durable: 0,
                metadata_bytes: EntryMetadata::bytes(1) as u32,
                body_bytes: body.len() as u32,
                kind: FrameKind::Entry,
                slot: 1,
            };
            let aad = aad::wal_frame(FILE, &head.encode_bound([9; 8]), &[0; 38]);
            sealer.seal(sequence, &aad, body, group).expect("rising sequences, an unlimited lease");
        }
        Cipher::Null => group.extend_from_slice(body),
    }
    black_box(&group);
}

/// CPU time of this thread so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
