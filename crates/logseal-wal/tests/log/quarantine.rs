//! What is set aside can be read and opened later, still sealed until then.

use std::path::Path;

use logseal_testkit::disk::Operation;
use logseal_wal::{Damage, DamageCause, Disk, Evidence, FileKeys, FileReader, Item, WalError, quarantine, survey_file};

use crate::fixture::{Log, entry, path_of, request, unwrap};

const ASIDE: &str = "quarantine";

/// A file of nine entries of three workspaces: keys at 1, 2, 4, 5, 7, 8; entries at 3, 6, 9, 10 to 15.
fn log() -> (Log, std::path::PathBuf) {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    for n in 0..9 {
        writer.append(&entry(n)).unwrap();
    }
    writer.sync().unwrap();
    let path = path_of(writer.file().unwrap());
    writer.close().unwrap();
    (log, path)
}

/// What a quarantined file holds.
#[derive(Default)]
struct Inside {
    /// The slots of its key frames.
    slots: Vec<u16>,
    /// Its entries, opened, with their sequences.
    entries: Vec<(u64, Vec<u8>)>,
    damages: Vec<Damage>,
}

fn inside(log: &Log, path: &Path) -> Inside {
    let mut reader = FileReader::open(&log.disk, path).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let mut inside = Inside::default();
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => {
                keys.add(&key, &unwrap).unwrap();
                inside.slots.push(key.slot);
            }
            Item::Entry(entry) => inside.entries.push((entry.sequence, entry.open(&keys).unwrap())),
            Item::Damage(damage) => inside.damages.push(damage),
            Item::Attestation(_) | Item::Torn(_) => {}
        }
    }
    inside
}

#[test]
fn frames_are_set_aside_with_their_keys_and_open_later() {
    let (log, path) = log();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    for (first, last, slots, numbers) in [
        (3, 3, vec![1, 1], vec![0]),
        (11, 11, vec![2, 2], vec![4]),
        (10, 11, vec![1, 1, 2, 2], vec![3, 4]),
        (9, 12, vec![1, 1, 2, 2, 3, 3], vec![2, 3, 4, 5]),
    ] {
        let aside = quarantine(&log.disk, &path, &Evidence::Frames { first, last }, Path::new(ASIDE)).unwrap();
        assert_eq!(aside, Path::new(ASIDE).join(format!("{stem}.{first}-{last}.wal")));
        let Inside { slots: found, entries, damages } = inside(&log, &aside);
        assert_eq!(found, slots, "{first} to {last}: no keys but those needed");
        let expected: Vec<_> = (first..=last).zip(numbers.iter().map(|n| request(*n))).collect();
        assert_eq!(entries, expected, "{first} to {last}");
        assert!(damages.iter().all(|damage| damage.cause == DamageCause::Gap), "only what was left out is missing");
    }
    let (log, path) = self::log();
    for request in 0..9 {
        let canary = format!("request {request}:");
        let aside = quarantine(&log.disk, &path, &Evidence::Frames { first: 1, last: 16 }, Path::new(ASIDE)).unwrap();
        let bytes = log.disk.bytes(&aside).unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()), "it stays sealed");
    }
}

#[test]
fn a_damaged_range_is_set_aside_as_it_is() {
    let (log, path) = log();
    let mut bytes = log.disk.bytes(&path).unwrap();
    let whole = survey_file(&log.disk, &path, &Default::default()).unwrap();
    assert!(whole.is_intact());
    // The body of entry 11 and the head of entry 13.
    let (body, head) = (offset_of(&log, &path, 12) - 1, offset_of(&log, &path, 13) as usize);
    bytes[body as usize] ^= 1;
    bytes[head + 3] ^= 1;
    log.disk.put(&path, bytes.clone());
    let survey = survey_file(&log.disk, &path, &Default::default()).unwrap();
    assert_eq!(survey.damages.len(), 2);
    for (damage, slots) in survey.damages.iter().zip([vec![2, 2], vec![1, 1, 2, 2, 3, 3]]) {
        let aside = quarantine(&log.disk, &path, &Evidence::Damage(damage.clone()), Path::new(ASIDE)).unwrap();
        let range = damage.offset as usize..(damage.offset + damage.bytes) as usize;
        assert!(log.disk.bytes(&aside).unwrap().ends_with(&bytes[range]), "the very bytes");
        assert_eq!(inside(&log, &aside).slots, slots, "all keys when it is not known whose the frame was");
    }
}

fn offset_of(log: &Log, path: &Path, sequence: u64) -> u64 {
    let mut reader = FileReader::open(&log.disk, path).unwrap();
    loop {
        match reader.next_item().unwrap() {
            Some(Item::Entry(entry)) if entry.sequence == sequence => return entry.offset,
            Some(_) => {}
            None => panic!("no entry {sequence}"),
        }
    }
}

#[test]
fn setting_aside_again_gives_the_same_file_also_after_half_of_it() {
    let (log, path) = log();
    let evidence = Evidence::Frames { first: 10, last: 12 };
    let aside = quarantine(&log.disk, &path, &evidence, Path::new(ASIDE)).unwrap();
    let once = log.disk.bytes(&aside).unwrap();
    assert_eq!(quarantine(&log.disk, &path, &evidence, Path::new(ASIDE)).unwrap(), aside);
    assert_eq!(log.disk.bytes(&aside).unwrap(), once);
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir] {
        log.disk.remove(&aside).unwrap();
        log.disk.fail(operation, 0, std::io::ErrorKind::Other);
        assert!(quarantine(&log.disk, &path, &evidence, Path::new(ASIDE)).is_err(), "{operation:?}");
        quarantine(&log.disk, &path, &evidence, Path::new(ASIDE)).unwrap();
        assert_eq!(log.disk.bytes(&aside).unwrap(), once, "{operation:?}");
    }
    log.disk.crash(1);
    assert_eq!(log.disk.bytes(&aside).unwrap(), once, "it is durable");
}

#[test]
fn what_is_not_there_cannot_be_set_aside() {
    let (log, path) = log();
    for evidence in [
        Evidence::Frames { first: 17, last: 20 },
        Evidence::Frames { first: 5, last: 4 },
        Evidence::Damage(Damage {
            cause: DamageCause::Truncated,
            first: 17,
            last: 18,
            offset: 10,
            bytes: 0,
            kind: None,
            slot: None,
            parts: Vec::new(),
        }),
        Evidence::Damage(Damage {
            cause: DamageCause::Head,
            first: 17,
            last: 18,
            offset: u64::MAX,
            bytes: 9,
            kind: None,
            slot: None,
            parts: Vec::new(),
        }),
    ] {
        let result = quarantine(&log.disk, &path, &evidence, Path::new(ASIDE));
        assert!(matches!(result, Err(WalError::NoEvidence { .. })), "{evidence:?}: {result:?}");
    }
}
