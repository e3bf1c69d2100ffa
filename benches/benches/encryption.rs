//! What encryption costs: a record's way with AES-256-GCM and with a null cipher, in turn.
//!
//! `cargo bench --workspace --bench encryption -- [ROUNDS] [PAYLOAD]...`: one thread scans requests, compresses them for the log, seals them as frames of
//! the log, and makes their rows a sealed segment. With the null cipher, which is a value of this program alone, a frame is copied instead of sealed, and
//! pages are counted instead of sealed. All times are CPU times of the thread. Each round measures both variants, one right after the other and in turns
//! which is the first; the cost is the median of the differences within a round of the two stages that encrypt.

#![expect(clippy::print_stdout, reason = "the tables are the program's output")]

use std::hint::black_box;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use logseal_alloc::{WipingAllocator, keep_freed_pages};
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

/// Records of a round: a row group of the usual size.
const RECORDS: usize = 30_000;

/// Rounds of each payload.
const ROUNDS: usize = 40;

/// Bytes of frames that the log has in one group.
const GROUP_BYTES: usize = 4 << 20;

/// How long the server keeps freed pages.
const FREED_PAGES_KEPT_MS: u16 = 50;

const FILE: WalFileId = WalFileId::from_bytes([7; 16]);

/// What becomes of frames and pages.
#[derive(Clone, Copy)]
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
    fn whole(&self) -> f64 {
        (self.scan + self.compress + self.frames + self.pages).as_nanos() as f64
    }

    /// The stages that encrypt.
    fn encrypting(&self) -> f64 {
        (self.frames + self.pages).as_nanos() as f64
    }
}

/// A round: with the cipher, and without.
#[derive(Clone, Copy)]
struct Round {
    sealed: Times,
    null: Times,
}

fn main() {
    keep_freed_pages(FREED_PAGES_KEPT_MS);
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
        "CPU ns a record, medians of {rounds} rounds; in percent of the whole with the null cipher.\n\n\
         | payload | scan | compress | frames, AES | frames, null | pages, AES | pages, null | whole, null | cost of encryption | in percent | by minima |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for source in SOURCES.iter().filter(|source| names.is_empty() || names.iter().any(|name| name == source.name)) {
        pool.install(|| row(source, rounds.max(1)));
    }
}

fn row(source: &Source, rounds: usize) {
    let requests: Vec<Bytes> = source.requests(RECORDS).into_iter().map(Bytes::from).collect();
    let aek = aek();
    let mut group = Vec::with_capacity(2 * GROUP_BYTES);
    let mut measured = Vec::with_capacity(rounds);
    // The first round only warms up.
    for round in 0..=rounds {
        let mut measure = |cipher| measure(&requests, &aek, cipher, &mut group);
        let round = if round % 2 == 0 {
            let sealed = measure(Cipher::Aes256Gcm);
            Round { sealed, null: measure(Cipher::Null) }
        } else {
            let null = measure(Cipher::Null);
            Round { sealed: measure(Cipher::Aes256Gcm), null }
        };
        measured.push(round);
    }
    measured.remove(0);
    let records: u64 = requests.iter().filter_map(|request| logseal_otlp::framed_records(request)).sum();
    let sorted = |of: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = measured.iter().map(|round| of(round) / records as f64).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let median = |of: &dyn Fn(&Round) -> f64| sorted(of)[measured.len() / 2];
    let least = |of: &dyn Fn(&Round) -> f64| sorted(of)[0];
    let nanos = |duration: Duration| duration.as_nanos() as f64;
    let whole = median(&|round| round.null.whole());
    let cost = median(&|round| round.sealed.encrypting() - round.null.encrypting());
    let least_cost = least(&|round| round.sealed.encrypting()) - least(&|round| round.null.encrypting());
    println!(
        "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {whole:.0} | {cost:.0} | {:.1} % | {:.1} % |",
        source.name,
        median(&|round| nanos(round.null.scan)),
        median(&|round| nanos(round.null.compress)),
        median(&|round| nanos(round.sealed.frames)),
        median(&|round| nanos(round.null.frames)),
        median(&|round| nanos(round.sealed.pages)),
        median(&|round| nanos(round.null.pages)),
        cost / whole * 100.0,
        least_cost / least(&|round| round.null.whole()) * 100.0,
    );
}

/// The way of `requests`, stage by stage.
fn measure(requests: &[Bytes], aek: &Aek, cipher: Cipher, group: &mut Vec<u8>) -> Times {
    let (schema, limits, mut times) = (schema(), ScanLimits::default(), Times::default());
    let (dek, _) = aek.new_wal_dek(FILE, OsRandom).expect("an unlimited lease");
    let mut sealer = FrameSealer::new(&dek, [8; 4]).expect("an unlimited lease");
    let mut chunks: Vec<RecordBatch> = Vec::new();
    for (sequence, request) in (1..).zip(requests) {
        let started = cpu_time();
        let scanned = logseal_otlp::scan(request, &schema, UnixNanos(0), &limits).expect("requests are well-formed");
        let scan_ended = cpu_time();
        let compressed = CompressedBody::compress(request);
        let compress_ended = cpu_time();
        frame(cipher, &mut sealer, sequence, &request[..compressed.compressed_bytes().min(request.len())], group);
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
    if group.len() > GROUP_BYTES {
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
