//! Bombs, damage and members, decompressed against a real budget.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use zstd::stream::raw::CParameter;

use super::*;
use crate::Budget;

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 4 * MIB;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn bare_deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

/// `mib` MiB of zeros.
fn gzip_zeros(mib: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; MIB];
    (0..mib).for_each(|_| encoder.write_all(&zeros).expect("in memory"));
    encoder.finish().expect("in memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).expect("in memory")
}

fn zstd_zeros(mib: usize, window_log: Option<u32>) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    if let Some(log) = window_log {
        encoder.set_parameter(CParameter::WindowLog(log)).expect("a valid window");
    }
    let zeros = vec![0; MIB];
    (0..mib).for_each(|_| encoder.write_all(&zeros).expect("in memory"));
    encoder.finish().expect("in memory")
}

/// Log-like bytes that do not compress away.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"GET /index 0123456789abcdef"[(state >> 24) as usize % 27]
    };
    (0..length).map(|_| next()).collect()
}

async fn decode(encoding: Encoding, wire: Vec<u8>, budget: &Arc<Budget>) -> Result<Vec<u8>, Refusal> {
    let permit = budget.try_take(wire.len()).expect("the test leaves room");
    let result =
        decompress(encoding, wire.into(), permit, LIMIT, Expansion::default()).await.map(|(body, kept, permit)| {
            assert!(permit.bytes() >= 2 * body.len(), "body and chunk are covered: {} {}", permit.bytes(), body.len());
            if let Some(kept) = kept {
                assert!(permit.bytes() >= 2 * body.len() + kept.compressed_bytes(), "what is kept is covered");
                assert_eq!(kept.decompress().expect("what the log keeps can be read"), body);
            }
            body.to_vec()
        });
    // The compute thread may drop its part a moment after it answered.
    drop(budget.take(budget.total()).await);
    result
}

#[tokio::test]
async fn whole_bodies_come_out_as_they_went_in() {
    let budget = Budget::new(8 * LIMIT);
    for length in [0, 1, 1_000, IN_PLACE - 1, IN_PLACE, IN_PLACE + 1, 300_000, LIMIT - 1, LIMIT] {
        let data = sample(length);
        let (head, tail) = data.split_at(length / 3);
        let cases = [
            (Encoding::Gzip, gzip(&data)),
            (Encoding::Deflate, zlib(&data)),
            (Encoding::Deflate, bare_deflate(&data)),
            (Encoding::Gzip, [gzip(head), gzip(b""), gzip(tail)].concat()),
            (Encoding::Zstd, zstd(&data)),
            (Encoding::Zstd, [zstd(head), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(tail)].concat()),
            (Encoding::Zstd, zstd::bulk::compress(&data, 3).expect("in memory")),
        ];
        for (case, (encoding, wire)) in cases.into_iter().enumerate() {
            let decoded = decode(encoding, wire, &budget).await.expect("valid");
            assert!(decoded == data, "case {case}, {length} bytes");
        }
    }
}

#[derive(Debug, PartialEq)]
enum Kind {
    Undecodable,
    TooLarge,
    Unavailable,
    Other,
}

fn kind(result: Result<Vec<u8>, Refusal>) -> Kind {
    match result {
        Err(Refusal::Undecodable(_)) => Kind::Undecodable,
        Err(Refusal::TooLarge(_)) => Kind::TooLarge,
        Err(Refusal::Unavailable { .. }) => Kind::Unavailable,
        Ok(_) | Err(_) => Kind::Other,
    }
}

/// Scenario: bodies that are damaged, cut off, followed by something, or over a limit. Guarantee: the right refusal, and
/// the whole budget is free after (`decode` waits for it).
#[tokio::test]
async fn what_is_wrong_is_refused() {
    use Kind::{TooLarge, Undecodable};
    let budget = Budget::new(8 * LIMIT);
    let data = sample(200_000);
    let flipped = |mut wire: Vec<u8>| {
        let middle = wire.len() / 2;
        wire[middle] ^= 0x55;
        wire
    };
    let cut = |wire: Vec<u8>| wire[..wire.len() - 5].to_vec();
    let cases = [
        ("gzip over the limit by one byte", Encoding::Gzip, gzip(&sample(LIMIT + 1)), TooLarge),
        ("zstd over the limit by one byte", Encoding::Zstd, zstd(&sample(LIMIT + 1)), TooLarge),
        ("gzip of nothing at all", Encoding::Gzip, vec![], Undecodable),
        ("deflate over the limit by one byte", Encoding::Deflate, zlib(&sample(LIMIT + 1)), TooLarge),
        ("deflate of nothing at all", Encoding::Deflate, vec![], Undecodable),
        ("flipped deflate", Encoding::Deflate, flipped(zlib(&data)), Undecodable),
        ("cut deflate", Encoding::Deflate, cut(zlib(&data)), Undecodable),
        ("cut bare deflate", Encoding::Deflate, cut(bare_deflate(&data)), Undecodable),
        ("deflate and garbage", Encoding::Deflate, [zlib(&data), b"garbage".to_vec()].concat(), Undecodable),
        ("two of deflate", Encoding::Deflate, zlib(&data).repeat(2), Undecodable),
        ("gzip as deflate", Encoding::Deflate, gzip(&data), Undecodable),
        ("zstd of nothing at all", Encoding::Zstd, vec![], Undecodable),
        ("flipped gzip", Encoding::Gzip, flipped(gzip(&data)), Undecodable),
        ("cut gzip", Encoding::Gzip, cut(gzip(&data)), Undecodable),
        ("cut zstd", Encoding::Zstd, cut(zstd(&data)), Undecodable),
        ("gzip and garbage", Encoding::Gzip, [gzip(&data), b"garbage".to_vec()].concat(), Undecodable),
        ("zstd and garbage", Encoding::Zstd, [zstd(&data), b"garbage".to_vec()].concat(), Undecodable),
        ("zstd as gzip", Encoding::Gzip, zstd(&data), Undecodable),
        ("gzip as zstd", Encoding::Zstd, gzip(&data), Undecodable),
        ("too many gzip members", Encoding::Gzip, gzip(b"").repeat(MEMBERS + 1), Undecodable),
        ("too many zstd frames", Encoding::Zstd, zstd(b"").repeat(MEMBERS + 1), Undecodable),
        ("window of 16 MiB", Encoding::Zstd, zstd_zeros(1, Some(24)), TooLarge),
        // 1 << (10 + 21) = 2 GiB, and an empty last block.
        ("window of 2 GiB", Encoding::Zstd, b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0".to_vec(), TooLarge),
        ("the window of a second frame", Encoding::Zstd, [zstd(&data), zstd_zeros(1, Some(27))].concat(), TooLarge),
        ("single segment of 4 GiB", Encoding::Zstd, b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff\x01\0\0".to_vec(), TooLarge),
    ];
    for (name, encoding, wire, expected) in cases {
        assert_eq!(kind(decode(encoding, wire, &budget).await), expected, "{name}");
    }
}

/// Scenario: 256 MiB of zeros in little. Guarantee: the memory taken stays near the limit, not near the content; a
/// budget of five limits is enough to come to the refusal.
#[tokio::test]
async fn bombs_take_no_more_than_the_limit() {
    let budget = Budget::new(5 * LIMIT + ZSTD_WINDOW_BYTES as usize);
    for (encoding, wire) in [(Encoding::Gzip, gzip_zeros(256)), (Encoding::Zstd, zstd_zeros(256, None))] {
        assert!(wire.len() < 8 * MIB, "a bomb of {} bytes", wire.len());
        assert_eq!(kind(decode(encoding, wire, &budget).await), Kind::TooLarge, "{encoding:?}");
    }
}

/// Scenario: the budget ends while output grows, which would grow beyond the limit if it could. Guarantee: growth is what
/// stops, with a refusal that says try again, and everything is given back.
#[tokio::test]
async fn an_exhausted_budget_is_unavailable() {
    let budget = Budget::new(LIMIT);
    for (encoding, wire) in [(Encoding::Gzip, gzip_zeros(8)), (Encoding::Zstd, zstd_zeros(8, None))] {
        assert_eq!(kind(decode(encoding, wire, &budget).await), Kind::Unavailable, "{encoding:?}");
    }
}

/// Scenario: bodies that say how long they are, truly, not at all, and falsely. Guarantee: the first step is what they say, and what comes out does not
/// depend on it; a size that cannot be is not believed.
#[tokio::test]
async fn what_a_body_says_of_its_size_is_believed_within_reason() {
    let data = sample(300_000);
    let stated = |encoding, wire: &[u8]| stated_bytes(encoding, wire);
    let known = zstd::bulk::compress(&data, 3).expect("in memory");
    assert_eq!(stated(Encoding::Zstd, &known), Some(300_000));
    assert_eq!(stated(Encoding::Zstd, &zstd(&data)), None, "a stream does not say it");
    assert_eq!(stated(Encoding::Gzip, &gzip(&data)), Some(300_000));
    let two = [gzip(&data), gzip(&data[..70_000])].concat();
    assert_eq!(stated(Encoding::Gzip, &two), Some(70_000), "that of the last member");
    let lie = |bytes: u32| [&gzip(&data)[..], &bytes.to_le_bytes()].concat();
    assert_eq!(stated(Encoding::Gzip, &lie(u32::MAX)), None);
    assert_eq!([stated(Encoding::Gzip, b"abc"), stated(Encoding::Zstd, b"abc")], [None, None]);

    let budget = Budget::new(8 * LIMIT);
    let decoded = decode(Encoding::Gzip, two, &budget).await.expect("valid");
    assert!(decoded == [&data[..], &data[..70_000]].concat());
    for bytes in [0, 1, LIMIT as u32 + 1] {
        assert_eq!(kind(decode(Encoding::Gzip, lie(bytes), &budget).await), Kind::Undecodable, "{bytes}");
    }
}

/// Scenario: a body of zstd whose window is as large as it may be. Guarantee: it needs no memory for the window when it is decoded in one step.
#[tokio::test]
async fn one_step_needs_no_window() {
    let data = sample(400_000);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG)).expect("a valid window");
    encoder.write_all(&data).expect("in memory");
    let wire = encoder.finish().expect("in memory");
    assert_eq!(largest_window(&wire), Ok(ZSTD_WINDOW_BYTES as usize));
    let budget = Budget::new(4 * MIB);
    assert!(decode(Encoding::Zstd, wire, &budget).await.expect("valid") == data);
}

/// Scenario: windows that real encoders write. Guarantee: our reading of the header is the library's.
#[test]
fn windows_are_read_as_written() {
    for log in 10..=27 {
        assert_eq!(frame_window(&zstd_zeros(1, Some(log))), Some(1 << log), "window log {log}");
    }
    assert_eq!(frame_window(&zstd::bulk::compress(&[0; 200], 1).expect("in memory")), Some(200));
    assert_eq!(frame_window(&zstd::bulk::compress(&[0; 300], 1).expect("in memory")), Some(300));
    assert_eq!(frame_window(&zstd::bulk::compress(&[0; 70_000], 1).expect("in memory")), Some(70_000));
    assert_eq!(frame_window(b"\x50\x2a\x4d\x18\x03\0\0\0abc"), Some(0), "skippable");
    for cut in 0..6 {
        assert_eq!(frame_window(&b"\x28\xb5\x2f\xfd\x00\xa8"[..cut]), None, "{cut}");
    }
}
