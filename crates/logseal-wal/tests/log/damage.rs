//! Damage by accident: torn tails, flipped bits, lost and foreign bytes.

use std::path::PathBuf;

use logseal_core::WalFileId;
use logseal_testkit::SimulatedDisk;
use logseal_wal::format::{FRAMES_OFFSET, FrameHead, FrameKind, HEAD_BYTES};
use logseal_wal::{Bound, DamageCause, FileReader, Item, Position, WalError, survey_file};

use crate::fixture::{Log, entry, judge, path_of, put, read, request};

/// A frame of a sample: where it is and what.
struct Frame {
    head: FrameHead,
    offset: usize,
    bytes: usize,
}

/// A small file of three workspaces, with what is in it.
struct Sample {
    file: WalFileId,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    entries: Vec<(Position, Vec<u8>)>,
    disk: SimulatedDisk,
}

impl Sample {
    /// `groups` gives the entries of each synced group; `attested`: whether the file is closed with an attestation.
    fn new(groups: &[u64], attested: bool) -> Self {
        let log = Log::default();
        let mut writer = log.writer(None, 1 << 30);
        let (mut entries, mut n) = (Vec::new(), 0);
        for group in groups {
            for _ in 0..*group {
                entries.push((writer.append(&entry(n)).unwrap(), request(n)));
                n += 1;
            }
            writer.sync().unwrap();
        }
        let file = writer.file().unwrap();
        if attested {
            writer.close().unwrap();
        }
        let bytes = log.disk.bytes(&path_of(file)).unwrap();
        let frames = frames_of(&log.disk, file, &bytes);
        Self { file, bytes, frames, entries, disk: SimulatedDisk::new() }
    }

    fn put(&self, bytes: Vec<u8>) -> PathBuf {
        put(&self.disk, self.file, bytes)
    }

    /// The entries without those whose sequences are in `lost`.
    fn without(&self, lost: std::ops::RangeInclusive<u64>) -> Vec<(Position, Vec<u8>)> {
        self.entries.iter().filter(|(position, _)| !lost.contains(&position.sequence)).cloned().collect()
    }

    fn last(&self) -> u64 {
        self.frames.len() as u64
    }
}

fn frames_of(disk: &SimulatedDisk, file: WalFileId, bytes: &[u8]) -> Vec<Frame> {
    let marker = FileReader::open(disk, &path_of(file)).unwrap().header().marker;
    let mut at = FRAMES_OFFSET as usize;
    let mut frames = Vec::new();
    while at < bytes.len() {
        let head = FrameHead::decode(bytes[at..].first_chunk().unwrap(), marker).unwrap();
        let length = HEAD_BYTES + head.metadata_bytes as usize + head.body_bytes as usize;
        frames.push(Frame { head, offset: at, bytes: length });
        at += length;
    }
    frames
}

/// A power failure may leave any prefix of the last group: what was synced before is whole, and nothing is made up.
#[test]
fn every_length_of_an_unsynced_last_group_leaves_what_was_before_whole() {
    let sample = Sample::new(&[3, 2, 2], false);
    // Nothing attests the last group; the frames of it say that the group before was durable.
    let durable = sample.frames[sample.frames.len() - 1].head.durable;
    let group = sample.frames.iter().find(|frame| frame.head.sequence > durable).unwrap().offset;
    for length in group..=sample.bytes.len() {
        let path = sample.put(sample.bytes[..length].to_vec());
        let (survey, given) = judge(&sample.disk, &path, &Bound::default());
        assert!(survey.is_intact(), "{length}: {:?}", survey.damages);
        let whole = sample.frames.iter().take_while(|frame| frame.offset + frame.bytes <= length).count() as u64;
        assert_eq!(survey.end, whole, "{length}");
        assert_eq!(given.entries, sample.without(whole + 1..=u64::MAX), "{length}");
        let boundary = sample.frames.iter().any(|frame| frame.offset == length) || length == sample.bytes.len();
        assert_eq!(survey.torn.is_none(), boundary, "{length}");
        if let Some(torn) = survey.torn {
            let offset = sample.frames[whole as usize].offset;
            assert_eq!((torn.sequence, torn.offset), (whole + 1, offset as u64), "{length}");
            assert_eq!(torn.bytes, (length - offset) as u64, "{length}");
        }
    }
}

/// The first damaged byte in the header, heads, lengths, metadata, bodies, key frames: each is noticed, named rightly, and
/// costs no other entry.
#[test]
fn every_flipped_byte_of_an_attested_file_is_reported_and_costs_one_frame() {
    let sample = Sample::new(&[2, 3, 1], true);
    let last = sample.last();
    for at in 0..sample.bytes.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = sample.bytes.clone();
            bytes[at] ^= flip;
            let path = sample.put(bytes);
            let (survey, given) = judge(&sample.disk, &path, &Bound::default());
            let frame = sample.frames.iter().find(|frame| (frame.offset..frame.offset + frame.bytes).contains(&at));
            let Some(frame) = frame else {
                assert_eq!(survey.damages.len(), 1, "{at}");
                let damage = &survey.damages[0];
                let place = (damage.cause, damage.offset, damage.frames());
                assert_eq!(place, (DamageCause::HeaderCopy, (at as u64 / 512) * 512, 0), "{at}");
                assert_eq!((survey.end, &given.entries), (last, &sample.entries), "{at}");
                continue;
            };
            let sequence = frame.head.sequence;
            if sequence == last {
                // The attestation itself: nothing says that it was durable. All entries are before it.
                assert_eq!(survey.torn.map(|torn| torn.sequence), Some(last), "{at}");
                assert_eq!((survey.damages.len(), &given.entries), (0, &sample.entries), "{at}");
                continue;
            }
            assert_eq!(survey.damages.len(), 1, "{at}: {:?}", survey.damages);
            let damage = &survey.damages[0];
            assert_eq!((damage.first, damage.last), (sequence, sequence), "{at}");
            assert_eq!((damage.offset, damage.bytes), (frame.offset as u64, frame.bytes as u64), "{at}");
            let inside = at - frame.offset;
            let expected = match inside {
                0..HEAD_BYTES => DamageCause::Head,
                _ if inside < HEAD_BYTES + frame.head.metadata_bytes as usize => DamageCause::Metadata,
                _ => DamageCause::Body,
            };
            assert_eq!(damage.cause, expected, "{at}");
            let kind = if expected == DamageCause::Head { None } else { Some(frame.head.kind) };
            assert_eq!(damage.kind, kind, "{at}");
            let named = expected == DamageCause::Body && frame.head.kind == FrameKind::Entry;
            assert_eq!(!damage.parts.is_empty(), named, "{at}: what was lost is named when its metadata is intact");
            assert_eq!((survey.end, survey.attested), (last, last - 1), "{at}");
            assert_eq!(given.entries, sample.without(sequence..=sequence), "{at}");
            assert!(survey.torn.is_none(), "{at}");
        }
    }
}

/// Beyond what is attested the first bad frame starts the torn tail; what was before counts, what is behind does not.
#[test]
fn every_flipped_byte_of_an_unattested_file_is_a_torn_tail() {
    let sample = Sample::new(&[6], false);
    for at in FRAMES_OFFSET as usize..sample.bytes.len() {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 0x10;
        let path = sample.put(bytes);
        let (survey, given) = judge(&sample.disk, &path, &Bound::default());
        let frame = sample.frames.iter().find(|frame| at < frame.offset + frame.bytes).unwrap();
        assert!(survey.damages.is_empty() && survey.attested == 0, "{at}");
        let torn = survey.torn.unwrap();
        assert_eq!((torn.sequence, torn.offset), (frame.head.sequence, frame.offset as u64), "{at}");
        assert_eq!(survey.end, frame.head.sequence - 1, "{at}");
        assert_eq!(given.entries, sample.without(frame.head.sequence..=u64::MAX), "{at}");
    }
}

/// What the catalog attests makes damage of what would be a torn tail.
#[test]
fn the_catalog_s_attestation_counts_like_one_in_the_file() {
    let sample = Sample::new(&[6], false);
    let frame = &sample.frames[9];
    let mut bytes = sample.bytes.clone();
    bytes[frame.offset + frame.bytes - 1] ^= 1;
    let path = sample.put(bytes);
    for attested in 0..=sample.last() {
        let (survey, given) = judge(&sample.disk, &path, &Bound { attested, ..Bound::default() });
        let is_damage = attested >= 10;
        assert_eq!((survey.damages.len(), survey.torn.is_none()), (usize::from(is_damage), is_damage), "{attested}");
        let lost = if is_damage { 10..=10 } else { 10..=u64::MAX };
        assert_eq!(given.entries, sample.without(lost), "{attested}");
    }
}

#[test]
fn both_header_copies_damaged_is_an_error_that_names_the_file() {
    let sample = Sample::new(&[1], true);
    let mut bytes = sample.bytes.clone();
    bytes[100] ^= 1;
    bytes[600] ^= 1;
    let path = sample.put(bytes);
    let error = FileReader::open(&sample.disk, &path).unwrap_err();
    assert!(matches!(&error, WalError::Header { .. }) && error.to_string().contains("wal"), "{error}");
    for length in [0, 1, 511, 512, 1023] {
        let path = sample.put(sample.bytes[..length].to_vec());
        assert_eq!(FileReader::open(&sample.disk, &path).is_ok(), length >= 512, "{length}: one copy is enough");
    }
}

/// Bytes cut out of the middle or put into it move everything behind: the marker finds the frames again.
#[test]
fn lost_and_foreign_bytes_in_the_middle_cost_only_the_frames_they_touch() {
    let sample = Sample::new(&[4, 4, 2], true);
    for cut in [1, 7, 48, 100, 300] {
        for frame in &sample.frames[..sample.frames.len() - 4] {
            for start in [frame.offset, frame.offset + 20, frame.offset + frame.bytes - 1] {
                let mut bytes = sample.bytes.clone();
                bytes.drain(start..start + cut);
                // What follows the cut may by chance be what was cut off.
                let mut from = FRAMES_OFFSET as usize;
                let whole = |frame: &&Frame| {
                    let wanted = &sample.bytes[frame.offset..frame.offset + frame.bytes];
                    let found = bytes[from..].windows(wanted.len()).position(|window| window == wanted);
                    from += found.map_or(0, |at| at + wanted.len());
                    found.is_some()
                };
                let (_, hit): (Vec<_>, Vec<_>) = sample.frames.iter().partition(whole);
                let keys = hit.iter().filter(|frame| frame.head.kind == FrameKind::Key);
                if keys.map(|frame| frame.head.slot).collect::<Vec<_>>().windows(2).any(|slots| slots[0] == slots[1]) {
                    continue; // both copies of a key: its entries do not open, which is another test's matter
                }
                let hit: Vec<_> = hit.iter().map(|frame| frame.head.sequence).collect();
                let path = sample.put(bytes);
                let (survey, given) = judge(&sample.disk, &path, &Bound::default());
                let lost = hit[0]..=hit[hit.len() - 1];
                assert_eq!(given.entries, sample.without(lost), "{cut} bytes at {start}");
                let reported: Vec<_> = survey.damages.iter().flat_map(|damage| damage.first..=damage.last).collect();
                assert_eq!(reported, hit, "{cut} bytes at {start}: {:?}", survey.damages);
                assert_eq!(survey.end, sample.last());
            }
        }
    }
    for frame in &sample.frames {
        let mut bytes = sample.bytes.clone();
        bytes.splice(frame.offset..frame.offset, vec![0xEE; 77]);
        let (survey, given) = judge(&sample.disk, &sample.put(bytes), &Bound::default());
        assert_eq!(given.entries, sample.entries, "no frame is lost");
        let last = frame.head.sequence == sample.last();
        // Before the attestation, which nothing attests, foreign bytes are a torn tail.
        assert_eq!((survey.damages.len(), survey.torn.is_some()), if last { (0, true) } else { (1, false) });
        assert!(survey.damages.iter().all(|damage| (damage.bytes, damage.frames()) == (77, 0)));
    }
}

/// A frame that comes again, or a frame of another file, is not taken for one of this file.
#[test]
fn repeated_and_foreign_frames_are_damage_and_never_entries() {
    let sample = Sample::new(&[4, 2], true);
    let other = Sample::new(&[4, 2], true);
    let at = sample.frames[8].offset;
    let repeated = &sample.bytes[sample.frames[5].offset..at];
    let foreign = &other.bytes[other.frames[2].offset..other.frames[8].offset];
    for inserted in [repeated, foreign] {
        let mut bytes = sample.bytes.clone();
        bytes.splice(at..at, inserted.iter().copied());
        let (survey, given) = judge(&sample.disk, &sample.put(bytes), &Bound::default());
        assert_eq!(given.entries, sample.entries);
        assert_eq!((survey.damages.len(), survey.damages[0].frames()), (1, 0), "{:?}", survey.damages);
    }
}

/// Whole frames cut out leave no bad bytes, only a gap in the numbers.
#[test]
fn a_gap_in_the_sequences_is_damage() {
    let sample = Sample::new(&[5, 3], true);
    let mut bytes = sample.bytes.clone();
    bytes.drain(sample.frames[9].offset..sample.frames[11].offset);
    let (survey, given) = judge(&sample.disk, &sample.put(bytes), &Bound::default());
    let damage = &survey.damages[0];
    assert_eq!((survey.damages.len(), damage.cause, damage.first, damage.last), (1, DamageCause::Gap, 10, 11));
    assert_eq!(given.entries, sample.without(10..=11));
}

/// Without an end the reader gives all there is and says where intact bytes stop.
#[test]
fn a_reader_without_an_end_reports_the_torn_tail() {
    let sample = Sample::new(&[4], false);
    let path = sample.put(sample.bytes[..sample.bytes.len() - 1].to_vec());
    let mut reader = FileReader::open(&sample.disk, &path).unwrap();
    let mut items = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        items.push(item);
    }
    let torn = items.pop();
    let frame = sample.frames.last().unwrap();
    assert!(
        matches!(torn, Some(Item::Torn(torn)) if torn.sequence == sample.last() && torn.offset == frame.offset as u64)
    );
    assert_eq!(items.len() as u64, sample.last() - 1);
    assert!(reader.next_item().unwrap().is_none(), "nothing follows");
}

/// Also where the passed-over entries are damaged, so that their lengths lead astray, the keys and what comes after are found.
#[test]
fn skipping_over_damaged_entries_finds_what_is_behind() {
    let sample = Sample::new(&[9, 1], true);
    for frame in sample.frames[..10].iter().filter(|frame| frame.head.kind == FrameKind::Entry) {
        let inside = frame.offset + HEAD_BYTES;
        for at in [inside, inside + 10, frame.offset + frame.bytes - 30] {
            let mut bytes = sample.bytes.clone();
            bytes.drain(at..at + 30);
            let path = sample.put(bytes);
            let mut reader = FileReader::open(&sample.disk, &path).unwrap();
            reader.skip_below(13);
            reader.until(sample.last());
            let (mut keys, mut entries) = (Vec::new(), Vec::new());
            while let Some(item) = reader.next_item().unwrap() {
                match item {
                    Item::Key(key) => keys.push(key.sequence),
                    Item::Entry(entry) => entries.push(entry.sequence),
                    _ => {}
                }
            }
            assert_eq!((keys, entries), (vec![1, 2, 4, 5, 7, 8], vec![13, 14, 15, 16]), "30 bytes less at {at}");
        }
    }
}

/// An attestation that a shortened frame's length would jump over is found: the frame was durable, so it is damage.
#[test]
fn an_attestation_right_behind_a_shortened_frame_counts() {
    let sample = Sample::new(&[4], true);
    let frame = &sample.frames[sample.frames.len() - 2];
    let mut bytes = sample.bytes.clone();
    bytes.drain(frame.offset + 60..frame.offset + 90);
    let (survey, given) = judge(&sample.disk, &sample.put(bytes), &Bound::default());
    let sequence = frame.head.sequence;
    assert_eq!((survey.attested, survey.end, survey.torn), (sequence, sequence + 1, None));
    assert_eq!(
        survey.damages.iter().map(|damage| (damage.first, damage.last)).collect::<Vec<_>>(),
        [(sequence, sequence)]
    );
    assert_eq!(given.entries, sample.without(sequence..=sequence));
}

/// A disk that fails to read is an error, not damage, and the walk can go on later.
#[test]
fn a_read_error_is_not_damage() {
    use logseal_testkit::disk::Operation;
    let sample = Sample::new(&[6], true);
    let path = sample.put(sample.bytes.clone());
    for skip in 0..3 {
        sample.disk.fail(Operation::Read, skip, std::io::ErrorKind::Other);
        let result = survey_file(&sample.disk, &path, &Bound::default());
        assert!(matches!(result, Err(WalError::Io { operation: "read", .. })), "{skip}: {result:?}");
    }
    sample.disk.heal();
    let mut reader = FileReader::open(&sample.disk, &path).unwrap();
    reader.until(sample.last());
    let mut entries = 0;
    for step in 0..1_000 {
        if step % 3 == 0 {
            sample.disk.fail(Operation::Read, 0, std::io::ErrorKind::Other);
        }
        match reader.next_item() {
            Ok(None) => break,
            Ok(Some(Item::Entry(_))) => entries += 1,
            Ok(Some(Item::Damage(damage))) => panic!("{damage:?}"),
            Ok(Some(_)) | Err(_) => {}
        }
    }
    assert_eq!(entries, sample.entries.len());
    sample.disk.heal();
    assert_eq!(read(&sample.disk, &path, sample.last()).entries, sample.entries);
}
