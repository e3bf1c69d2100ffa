//! The stages of a record's way, one after the other: scan, compress, append to the log, encode and seal, wrap.
//!
//! Throughput is counted in records (elements), for the last in wraps.

mod log;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use logseal_alloc::WipingAllocator;
use logseal_bench::Payload;
use logseal_benches::{IDENTITY, aek, chunks, footer, request, schema};
use logseal_core::{SegmentId, UnixNanos};
use logseal_crypto::OsRandom;
use logseal_otlp::ScanLimits;
use logseal_segment::{SegmentSettings, encode};
use logseal_wal::CompressedBody;

/// As in the server.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for payload in [Payload::A, Payload::B, Payload::C] {
        let (bytes, schema) = (request(payload, 0), schema());
        group.throughput(Throughput::Elements(payload.default_batch() as u64));
        group.bench_function(payload.as_str(), |bencher| {
            bencher.iter(|| logseal_otlp::scan(black_box(&bytes), &schema, UnixNanos(0), &ScanLimits::default()));
        });
    }
    group.finish();
}

/// What the log adds to a request before it is sealed.
fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress for the log");
    for payload in [Payload::A, Payload::B, Payload::C] {
        let bytes = request(payload, 0).into();
        group.throughput(Throughput::Elements(payload.default_batch() as u64));
        group.bench_function(payload.as_str(), |bencher| bencher.iter(|| CompressedBody::compress(black_box(&bytes))));
    }
    group.finish();
}

fn encode_and_seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode and seal");
    group.sample_size(10);
    for payload in [Payload::A, Payload::B] {
        let batches: Vec<_> = chunks(payload, 50).into_iter().map(|chunk| chunk.batch).collect();
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        group.throughput(Throughput::Elements(rows));
        for zstd_level in [1, 3] {
            let settings = SegmentSettings { zstd_level, ..SegmentSettings::default() };
            let aek = aek();
            let footer = footer(&aek, rows);
            group.bench_function(format!("{payload}, zstd {zstd_level}"), |bencher| {
                bencher.iter_batched(
                    || batches.clone(),
                    |batches| encode::seal(&IDENTITY, &aek, &batches, &footer, &settings, OsRandom),
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

fn wrap(criterion: &mut Criterion) {
    let aek = aek();
    let mut group = criterion.benchmark_group("wrap");
    group.throughput(Throughput::Elements(1));
    group.bench_function("new DEK", |bencher| {
        bencher.iter(|| aek.new_dek(black_box(SegmentId::from_bytes([9; 16])), OsRandom));
    });
    let (dek, wrapped) = aek.new_dek(IDENTITY.segment, OsRandom).expect("an unlimited lease");
    group.bench_function("unwrap DEK", |bencher| {
        bencher.iter(|| aek.unwrap_dek(IDENTITY.segment, black_box(&wrapped), dek.commitment()));
    });
    group.finish();
}

criterion_group!(stages, scan, compress, log::append, encode_and_seal, wrap);
criterion_main!(stages);
