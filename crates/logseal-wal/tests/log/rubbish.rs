//! Arbitrary bytes in place of a file: no panic, no hang, no memory beyond what is there.

use std::path::Path;

use logseal_core::{ClusterId, NodeId, UnixNanos, WalFileId};
use logseal_testkit::SimulatedDisk;
use logseal_testkit::disk::Operation;
use logseal_wal::format::{FileHeader, FrameHead, FrameKind, HEAD_BYTES, Predecessor};
use logseal_wal::{Bound, Evidence, FileKeys, FileReader, FileSurvey, Item, quarantine, survey_file};
use proptest::prelude::*;

use crate::fixture::{folder, unwrap};

const MARKER: [u8; 8] = [0x4D; 8];

fn header() -> FileHeader {
    FileHeader {
        version: logseal_wal::format::VERSION,
        file: WalFileId::from_bytes([1; 16]),
        cluster: ClusterId::from_bytes([2; 16]),
        node: NodeId::from_bytes([3; 16]),
        ordinal: 0,
        created: UnixNanos(0),
        marker: MARKER,
        nonce_field: [4; 4],
        predecessor: None,
    }
}

/// Does everything with a file that can be done; `None` when its header says that it is none.
fn exercise(bytes: Vec<u8>, end: u64, skip: u64) -> Option<FileSurvey> {
    let disk = SimulatedDisk::new();
    let path = folder().join("rubbish.wal");
    let length = bytes.len() as u64;
    disk.put(&path, bytes);
    let survey = survey_file(&disk, &path, &Bound { attested: end / 3, ..Bound::default() }).ok()?;
    let successor = Predecessor { file: survey.header.file, ordinal: 0, end, chain: [0; 32] };
    survey_file(&disk, &path, &Bound { successor: Some(successor), ..Bound::default() }).unwrap();
    for end in [None, Some(end)] {
        let mut reader = FileReader::open(&disk, &path).unwrap();
        reader.skip_below(skip);
        if let Some(end) = end {
            reader.until(end);
        }
        let mut keys = FileKeys::new(reader.header());
        let mut items = 0;
        while let Some(item) = reader.next_item().unwrap() {
            items += 1;
            assert!(items <= 2 * length / HEAD_BYTES as u64 + 4, "it comes to an end");
            match item {
                Item::Key(key) => {
                    let _ = keys.add(&key, &unwrap);
                }
                Item::Entry(entry) => assert!(entry.open(&keys).is_err(), "a forged entry does not open"),
                Item::Damage(damage) => {
                    let _ = quarantine(&disk, &path, &Evidence::Damage(damage), Path::new("q"));
                }
                Item::Attestation(_) | Item::Torn(_) => {}
            }
        }
    }
    let _ = quarantine(&disk, &path, &Evidence::Frames { first: skip, last: end }, Path::new("q"));
    Some(survey)
}

/// Pieces of which files are made: frames with right checksums and arbitrary numbers, and noise.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(FrameKind::Key), Just(FrameKind::Entry), Just(FrameKind::Attestation)];
    let sequence = prop_oneof![4 => 0..40_u64, 1 => any::<u64>()];
    let length = prop_oneof![4 => 0..200_u32, 1 => any::<u32>()];
    let fields = (kind, sequence, any::<u64>(), length.clone(), length, any::<u16>());
    let frame = (fields, prop::collection::vec(any::<u8>(), 0..160), any::<bool>());
    let frame = frame.prop_map(|((kind, sequence, durable, metadata_bytes, body_bytes, slot), content, honest)| {
        let durable = if durable % 4 == 0 { durable } else { sequence.saturating_sub(durable % 4) };
        let (metadata_bytes, body_bytes) = match kind {
            _ if !honest => (metadata_bytes, body_bytes),
            FrameKind::Key => (32, 92),
            FrameKind::Entry => (18, content.len().saturating_sub(18) as u32),
            FrameKind::Attestation => (0, 0),
        };
        let slot = if honest { u16::from(kind != FrameKind::Attestation) } else { slot };
        let head = FrameHead { sequence, durable, metadata_bytes, body_bytes, kind, slot };
        let (metadata, body) = content.split_at_checked(metadata_bytes as usize).unwrap_or_default();
        [head.encode(MARKER, metadata, body).as_slice(), &content].concat()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![4 => frame, 1 => noise, 1 => Just(MARKER.to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(exercise(bytes.clone(), 10, 0).is_none());
        let framed = [header().encode().as_slice(), &header().encode(), &bytes].concat();
        let survey = exercise(framed, 10, 5).unwrap();
        prop_assert_eq!((survey.frames, survey.end), (0, 3));
    }

    #[test]
    fn arbitrary_frames(pieces in prop::collection::vec(piece(), 0..40), end in prop_oneof![0..50_u64, any::<u64>()], skip in 0..50_u64) {
        let bytes = [header().encode().as_slice(), &header().encode(), &pieces.concat()].concat();
        let survey = exercise(bytes, end, skip).unwrap();
        let lost: u128 = survey.damages.iter().map(|damage| u128::from(damage.frames())).sum();
        // Every sequence that counts is intact or reported.
        prop_assert!(u128::from(survey.frames) + lost >= u128::from(survey.end), "{:?}", survey);
    }
}

/// Bytes that the walk reads from the disk, for each byte of the file.
fn reads_per_block(bytes: Vec<u8>) -> f64 {
    let disk = SimulatedDisk::new();
    let path = folder().join("rubbish.wal");
    let blocks = bytes.len().div_ceil(256 * 1024) as f64;
    disk.put(&path, bytes);
    let before = disk.calls(Operation::Read);
    survey_file(&disk, &path, &Bound { attested: u64::MAX, ..Bound::default() }).unwrap();
    (disk.calls(Operation::Read) - before) as f64 / blocks
}

/// Heads that contain one another, each with a right checksum and a large wrong body, and blocks of nothing but markers: the
/// work stays proportional to the length.
#[test]
fn forged_files_cannot_make_the_walk_quadratic() {
    let front = [header().encode(), header().encode()].concat();
    let length: usize = 8 << 20;
    let heads = (length / HEAD_BYTES) as u64;
    let nested = |body_of: &dyn Fn(u64) -> u64| {
        let frames = (0..heads).flat_map(|n| {
            let body = u32::try_from(body_of(n).min(4 << 20)).unwrap();
            let head = FrameHead {
                sequence: n + 1,
                durable: n,
                metadata_bytes: 18,
                body_bytes: body,
                kind: FrameKind::Entry,
                slot: 1,
            };
            head.encode(MARKER, &[], &[])
        });
        front.iter().copied().chain(frames).collect::<Vec<u8>>()
    };
    // Bodies that end with the file, bodies that go beyond it, bodies of a fixed length that end nowhere.
    let to_the_end = nested(&|n| (heads - n - 1) * HEAD_BYTES as u64 - 18);
    let beyond = nested(&|n| (heads - n) * HEAD_BYTES as u64);
    let fixed = nested(&|_| 1 << 20);
    let markers: Vec<u8> = front.iter().copied().chain(std::iter::repeat_n(MARKER[0], length)).collect();
    for (what, bytes) in [("to the end", to_the_end), ("beyond", beyond), ("fixed", fixed), ("markers", markers)] {
        let reads = reads_per_block(bytes);
        assert!(reads < 40.0, "{what}: {reads} reads for each block of the file");
    }
}
