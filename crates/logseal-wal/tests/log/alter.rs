//! Alterations on purpose: who writes files with right checksums still cannot make or move entries.

use logseal_testkit::SimulatedDisk;
use logseal_wal::format::{EntryMetadata, FRAMES_OFFSET, FrameHead, FrameKind, HEAD_BYTES};
use logseal_wal::{Bound, FileHeader, FileKeys, FileReader, Item, OpenError, SealedEntry};

use crate::fixture::{Log, entry, path_of, put, unwrap};

struct Frame {
    head: FrameHead,
    metadata: Vec<u8>,
    body: Vec<u8>,
}

fn take_apart(log: &Log, header: &FileHeader) -> Vec<Frame> {
    let bytes = log.disk.bytes(&path_of(header.file)).unwrap();
    let mut rest = &bytes[FRAMES_OFFSET as usize..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let head = FrameHead::decode(rest.first_chunk().unwrap(), header.marker).unwrap();
        let (metadata, body) = rest[HEAD_BYTES..].split_at(head.metadata_bytes as usize);
        let body = &body[..head.body_bytes as usize];
        frames.push(Frame { head, metadata: metadata.to_vec(), body: body.to_vec() });
        rest = &rest[HEAD_BYTES + metadata.len().min(head.metadata_bytes as usize) + body.len()..];
    }
    frames
}

fn build(header: &FileHeader, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = [header.encode(), header.encode()].concat();
    for frame in frames {
        bytes.extend_from_slice(&frame.head.encode(header.marker, &frame.metadata, &frame.body));
        bytes.extend_from_slice(&frame.metadata);
        bytes.extend_from_slice(&frame.body);
    }
    bytes
}

/// What opening each entry of a file says; key frames may be refused.
fn open_all(header: &FileHeader, bytes: Vec<u8>) -> Vec<(u64, Result<Vec<u8>, OpenError>)> {
    let disk = SimulatedDisk::new();
    let path = put(&disk, header.file, bytes);
    let mut reader = FileReader::open(&disk, &path).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let mut opened = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => {
                let _ = keys.add(&key, &unwrap);
            }
            Item::Entry(entry) => opened.push((entry.sequence, SealedEntry::open(&entry, &keys))),
            other => panic!("{other:?}"),
        }
    }
    opened
}

fn sample() -> (Log, FileHeader, Vec<Frame>) {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    for n in 0..6 {
        writer.append(&entry(n)).unwrap();
    }
    writer.sync().unwrap();
    let header = FileReader::open(&log.disk, &path_of(writer.file().unwrap())).unwrap().header().clone();
    let frames = take_apart(&log, &header);
    assert_eq!(build(&header, &frames), log.disk.bytes(&path_of(header.file)).unwrap());
    (log, header, frames)
}

#[test]
fn altered_metadata_or_numbers_with_right_checksums_do_not_open() {
    type Change = fn(&mut Frame);
    let changes: [(&str, Change); 7] = [
        ("receive time", |frame| frame.metadata[0] ^= 1),
        ("raw length", |frame| frame.metadata[8] ^= 1),
        ("scan version", |frame| frame.metadata[12] ^= 1),
        ("table", |frame| frame.metadata[18] ^= 1),
        ("records", |frame| frame.metadata[34] ^= 1),
        ("durable", |frame| frame.head.durable = 1),
        ("slot", |frame| frame.head.slot = 1),
    ];
    for (what, change) in changes {
        let (_log, header, mut frames) = sample();
        // The second entry of workspace 2 (slot 2), sequence 11.
        let target = frames.iter_mut().find(|frame| frame.head.sequence == 11).unwrap();
        assert_eq!((target.head.kind, target.head.slot), (FrameKind::Entry, 2));
        change(target);
        for (sequence, opened) in open_all(&header, build(&header, &frames)) {
            if sequence == 11 {
                assert!(matches!(opened, Err(OpenError::Sealed { sequence: 11, .. })), "{what}: {opened:?}");
            } else {
                assert!(opened.is_ok(), "{what}: entry {sequence}");
            }
        }
    }
}

#[test]
fn entries_cannot_change_places_within_a_file_or_between_files() {
    let (_log, header, mut frames) = sample();
    // Entries of one workspace, hence one key, change bodies and metadata: each keeps its number.
    let at = |sequence: u64| frames.iter().position(|frame| frame.head.sequence == sequence).unwrap();
    let (first, second) = (at(3), at(10));
    assert_eq!(frames[first].head.slot, frames[second].head.slot);
    let (low, high) = frames.split_at_mut(second);
    std::mem::swap(&mut low[first].metadata, &mut high[0].metadata);
    std::mem::swap(&mut low[first].body, &mut high[0].body);
    let lengths = (low[first].head.metadata_bytes, low[first].head.body_bytes);
    (low[first].head.metadata_bytes, low[first].head.body_bytes) =
        (high[0].head.metadata_bytes, high[0].head.body_bytes);
    (high[0].head.metadata_bytes, high[0].head.body_bytes) = lengths;
    let refused: Vec<_> =
        open_all(&header, build(&header, &frames)).into_iter().filter(|(_, r)| r.is_err()).map(|(s, _)| s).collect();
    assert_eq!(refused, [3, 10]);

    // All frames of one file under the header of another: the keys do not open, since their wraps name the file.
    let (_, _, frames) = sample();
    let (_, other, _) = sample();
    let opened = open_all(&other, build(&other, &frames));
    assert!(opened.iter().all(|(_, result)| matches!(result, Err(OpenError::Key { .. }))), "{opened:?}");
}

#[test]
fn a_key_frame_of_another_workspace_or_with_an_altered_commitment_is_refused() {
    let (_log, header, _) = sample();
    for (what, byte) in [("workspace", 0), ("AEK id", 16)] {
        let (_log, header, mut frames) = sample();
        for frame in frames.iter_mut().filter(|frame| frame.head.kind == FrameKind::Key && frame.head.slot == 2) {
            // Workspace 2 becomes workspace 1 (or its AEK that of workspace 1), which exists.
            frame.metadata[byte..byte + 16].iter_mut().for_each(|b| *b ^= 3);
        }
        let refused = open_all(&header, build(&header, &frames)).into_iter().filter(|(_, result)| result.is_err());
        assert_eq!(refused.map(|(sequence, _)| sequence).collect::<Vec<_>>(), [6, 11], "{what}");
    }
    let (_, other, mut frames) = sample();
    assert_ne!(header.file, other.file);
    for frame in frames.iter_mut().filter(|frame| frame.head.kind == FrameKind::Key && frame.head.slot == 2) {
        frame.body[91] ^= 1;
    }
    let refused = open_all(&other, build(&other, &frames)).into_iter().filter(|(_, result)| result.is_err());
    assert_eq!(refused.map(|(sequence, _)| sequence).collect::<Vec<_>>(), [6, 11], "commitment");
}

/// One intact copy of a key frame is enough, whichever it is.
#[test]
fn either_copy_of_a_key_frame_opens_its_slot() {
    for copy in 0..2 {
        let (_log, header, mut frames) = sample();
        let mut copies = frames.iter_mut().filter(|frame| frame.head.kind == FrameKind::Key && frame.head.slot == 2);
        copies.nth(copy).unwrap().body[5] ^= 1;
        assert!(open_all(&header, build(&header, &frames)).iter().all(|(_, result)| result.is_ok()), "copy {copy}");
    }
}

/// An authentic entry whose stated length is not that of its content cannot exist; a forged one is refused before it is
/// decompressed. Metadata that this version cannot read is damage, although its checksum holds.
#[test]
fn an_unknown_compression_is_damage() {
    let (_log, header, mut frames) = sample();
    let target = frames.iter_mut().find(|frame| frame.head.sequence == 11).unwrap();
    target.metadata[14] = 9;
    assert_eq!(EntryMetadata::decode(&target.metadata), None);
    let disk = SimulatedDisk::new();
    let path = put(&disk, header.file, build(&header, &frames));
    let bound = Bound { attested: 12, ..Bound::default() };
    let survey = logseal_wal::survey_file(&disk, &path, &bound).unwrap();
    assert_eq!(survey.damages.iter().map(|damage| (damage.first, damage.last)).collect::<Vec<_>>(), [(11, 11)]);
    let mut reader = FileReader::open(&disk, &path).unwrap();
    reader.until(12);
    let mut damaged = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Damage(damage) = item {
            damaged.push(damage);
        }
    }
    assert_eq!(damaged, survey.damages);
}
