//! Round trips: what was synced is read back, by a second reader too, and files follow each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logseal_core::limit::REQUEST_BYTES;
use logseal_core::{Clock, IdGenerator, SystemClock};
use logseal_crypto::{Lease, OsRandom};
use logseal_testkit::disk::Operation;
use logseal_wal::{
    Attestation, Bound, CompressedBody, Disk, Entry, FileKeys, FileReader, Item, OpenError, SystemDisk, WalError,
    Writer, WriterParts, WriterSettings, survey_file,
};

use crate::fixture::{
    CLUSTER, Log, NODE, TestRegistry, aek, entry, judge, part, path_of, read, request, unwrap, workspace,
};

const LARGE: u64 = 1 << 30;

#[test]
fn synced_entries_are_read_back_with_all_that_was_said_of_them() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let positions: Vec<_> = (0..6).map(|n| writer.append(&entry(n)).unwrap()).collect();
    assert_eq!(writer.position(), None, "nothing is durable before the sync");
    writer.sync().unwrap();
    // Three workspaces: two key frames each, before the first entry of each.
    assert_eq!(positions.iter().map(|p| p.sequence).collect::<Vec<_>>(), [3, 6, 9, 10, 11, 12]);
    assert_eq!(writer.position(), Some(positions[5]));

    let path = path_of(positions[0].file);
    let mut reader = FileReader::open(&log.disk, &path).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let (mut entries, mut copies) = (0, 0);
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => {
                copies += 1;
                keys.add(&key, &unwrap).unwrap();
                assert_eq!(unwrap(key.aek).map(|aek| aek.workspace()), Some(key.workspace));
            }
            Item::Entry(sealed) => {
                let expected = entry(entries);
                assert_eq!(sealed.sequence, positions[entries as usize].sequence);
                assert_eq!((sealed.received, sealed.scan_version), (expected.received, expected.scan_version));
                assert_eq!((&sealed.parts, sealed.raw_bytes as usize), (&expected.parts, request(entries).len()));
                assert_eq!(keys.workspace_of(sealed.slot), Some(expected.aek.workspace()));
                assert_eq!(keys.aek_of(sealed.slot), Some(expected.aek.id()));
                assert_eq!(sealed.open(&keys).unwrap(), request(entries));
                entries += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((entries, copies), (6, 6));
}

#[test]
fn the_request_is_not_on_the_disk_in_clear() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let canary = b"canary-4f1c";
    let position =
        writer.append(&Entry { body: CompressedBody::compress(&canary.to_vec().into()), ..entry(0) }).unwrap();
    writer.close().unwrap();
    let bytes = log.disk.bytes(&path_of(position.file)).unwrap();
    assert!(!bytes.windows(canary.len()).any(|window| window == canary));
    assert_eq!(read(&log.disk, &path_of(position.file), 3).entries[0].1, canary);
}

#[test]
fn entries_of_a_workspace_without_its_key_say_so_and_the_others_open() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let position = (0..4).map(|n| writer.append(&entry(n)).unwrap()).last().unwrap();
    writer.sync().unwrap();
    let mut reader = FileReader::open(&log.disk, &path_of(position.file)).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let mut outcomes = Vec::new();
    // Workspace 2's AEK is away; workspace 3's is another one with the same id.
    let find = |id| match unwrap(id).filter(|aek| aek.workspace() != workspace(2)) {
        Some(found) if found.workspace() == workspace(3) => {
            let key = logseal_crypto::Key256::copy_from_slice(&[0xEE; 32]).unwrap();
            Some(Arc::new(logseal_crypto::Aek::new(id, workspace(3), 1, key, Lease::unlimited())))
        }
        found => found,
    };
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => {
                let _ = keys.add(&key, &find);
            }
            Item::Entry(entry) => outcomes.push((keys.workspace_of(entry.slot), entry.open(&keys))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcomes[0].1.as_ref().ok(), Some(&request(0)));
    assert!(matches!(outcomes[1], (Some(id), Err(OpenError::KeyUnavailable { slot: 2 })) if id == workspace(2)));
    assert!(matches!(outcomes[2], (Some(id), Err(OpenError::Key { slot: 3, .. })) if id == workspace(3)));
    assert_eq!(outcomes[3].1.as_ref().ok(), Some(&request(3)));
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    let before = [Operation::Write, Operation::Sync].map(|operation| log.disk.calls(operation));
    for n in 1..500 {
        writer.append(&entry(n)).unwrap();
    }
    assert!(writer.group_bytes() > 50_000);
    writer.sync().unwrap();
    writer.sync().unwrap();
    let after = [Operation::Write, Operation::Sync].map(|operation| log.disk.calls(operation));
    assert_eq!(
        after,
        before.map(|calls| calls + 1),
        "also the keys of two more workspaces; an empty group costs nothing"
    );
    assert_eq!(log.registry.calls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_reader_follows_a_file_that_is_being_written() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    let mut reader = FileReader::open(&log.disk, &path_of(writer.file().unwrap())).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let mut seen = 0;
    for round in 0..50 {
        for n in 0..round % 4 {
            writer.append(&entry(1 + n)).unwrap();
        }
        writer.sync().unwrap();
        let durable = writer.position().unwrap().sequence;
        reader.until(durable);
        while let Some(item) = reader.next_item().unwrap() {
            seen = match item {
                Item::Key(key) => {
                    keys.add(&key, &unwrap).unwrap();
                    key.sequence
                }
                Item::Entry(entry) => {
                    entry.open(&keys).unwrap();
                    entry.sequence
                }
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(seen, durable, "round {round}");
    }
}

#[test]
fn skipped_entries_are_not_given_and_their_keys_are() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    for n in 0..9 {
        writer.append(&entry(n)).unwrap();
    }
    writer.close().unwrap();
    let mut reader = FileReader::open(&log.disk, &path_of(log.survey().files[0].header.file)).unwrap();
    reader.skip_below(13);
    let mut items = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        items.push(match item {
            Item::Key(key) => format!("key {}", key.sequence),
            Item::Entry(entry) => format!("entry {}", entry.sequence),
            Item::Attestation(said) => format!("attestation {} of {}", said.sequence, said.durable),
            other => panic!("{other:?}"),
        });
    }
    let expected = "key 1,key 2,key 4,key 5,key 7,key 8,entry 13,entry 14,entry 15,attestation 16 of 15";
    assert_eq!(items.join(","), expected);
}

#[test]
fn an_attestation_is_written_once_when_something_is_not_attested() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    writer.attest().unwrap();
    assert_eq!(writer.file(), None, "nothing to attest makes no file");
    let position = writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    writer.attest().unwrap();
    writer.attest().unwrap();
    let path = path_of(position.file);
    let attested = |log: &Log| survey_file(&log.disk, &path, &Bound::default()).unwrap();
    assert_eq!((attested(&log).attested, attested(&log).frames), (3, 4));
    // A group that is not synced yet is synced by it, and attested.
    writer.append(&entry(3)).unwrap();
    writer.attest().unwrap();
    assert_eq!((attested(&log).attested, attested(&log).frames), (5, 6));
    let mut reader = FileReader::open(&log.disk, &path).unwrap();
    let mut last = None;
    while let Some(item) = reader.next_item().unwrap() {
        last = Some(item);
    }
    assert_eq!(last, Some(Item::Attestation(Attestation { sequence: 6, durable: 5 })));
}

#[test]
fn a_full_file_is_followed_by_one_with_other_keys_that_vouches_for_it() {
    let log = Log::default();
    let mut writer = log.writer(None, 4_000);
    let mut appended = Vec::new();
    for n in 0..200 {
        appended.push((writer.append(&entry(n)).unwrap(), request(n)));
        if n % 5 == 0 {
            writer.sync().unwrap();
        }
    }
    writer.close().unwrap();
    let closed = writer.take_closed();
    assert!(writer.take_closed().is_empty());

    let survey = log.survey();
    assert!(survey.problems.is_empty() && survey.files.len() > 5, "{survey:?}");
    assert_eq!(closed.len(), survey.files.len());
    let mut previous = None;
    let mut given = Vec::new();
    for ((ordinal, file), closed) in (0..).zip(&survey.files).zip(closed) {
        assert!(file.is_intact() && file.torn.is_none(), "{file:?}");
        assert_eq!((file.header.ordinal, file.header.predecessor), (ordinal, previous));
        assert_eq!((closed.file, closed.end, closed.bytes), (file.header.file, file.end, file.bytes));
        assert_eq!(file.attested, if ordinal as usize + 1 < survey.files.len() { file.end } else { file.end - 1 });
        // The limit is looked at between groups, and a group is at most five entries here.
        assert!(file.bytes < 4_000 + 5 * 1_200, "{}", file.bytes);
        given.extend(read(&log.disk, &file.path, file.end).entries);
        previous = Some(file.predecessor());
    }
    assert_eq!(given, appended, "every entry, in order, once");
    assert_eq!(previous, survey.predecessor());
    let known = log.registry.known.lock().unwrap();
    assert!(survey.files.iter().all(|file| known.get(&file.header.file) == Some(&file.header_hash)));
}

#[test]
fn counts_of_a_survey_are_those_of_what_was_appended() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let mut records = 0;
    for n in 0..20 {
        records += entry(n).parts.iter().map(|part| u64::from(part.records)).sum::<u64>();
        writer.append(&entry(n)).unwrap();
    }
    writer.close().unwrap();
    let survey = log.survey().files.remove(0);
    assert_eq!((survey.entries, survey.records, survey.frames), (20, records, 20 + 6 + 1));
    assert_eq!(survey.first_received, Some(entry(0).received));
    assert_eq!(survey.bytes, log.disk.bytes(&survey.path).unwrap().len() as u64);
}

#[test]
fn requests_of_every_size_up_to_the_limit_fit_and_larger_ones_harm_no_other() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    // Incompressible, so that the stored body is larger than the request.
    let mut random = logseal_testkit::disk::Seeded::new(1);
    let noise: Vec<u8> = (0..REQUEST_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let sizes = [0, 1, 255 * 1024, 256 * 1024, 257 * 1024, REQUEST_BYTES];
    let with = |body: &[u8]| Entry { body: CompressedBody::compress(&body.to_vec().into()), ..entry(0) };
    for size in sizes {
        writer.append(&with(&noise[..size])).unwrap();
    }
    let over = writer.append(&with(&vec![0; REQUEST_BYTES + 1])).unwrap_err();
    assert!(matches!(over, WalError::EntryTooLarge { .. }) && over.is_entry(), "{over}");
    let tables = writer.append(&Entry { parts: vec![part(1, 1); 4_000], ..entry(0) }).unwrap_err();
    assert!(matches!(tables, WalError::TooManyParts { parts: 4_000 }) && tables.is_entry(), "{tables}");
    writer.append(&with(b"after")).unwrap();
    writer.close().unwrap();
    let (survey, given) = judge(&log.disk, &log.survey().files[0].path, &Bound::default());
    assert!(survey.is_intact());
    let bodies: Vec<_> = given.entries.iter().map(|(_, body)| body.as_slice()).collect();
    assert_eq!(bodies.len(), sizes.len() + 1);
    assert!(bodies.iter().zip(sizes).all(|(body, size)| **body == noise[..size]));
    assert_eq!(bodies[sizes.len()], b"after");
}

/// One DEK for each workspace and AEK generation in a file, however often it is used.
#[test]
fn a_new_generation_of_an_aek_gets_a_slot_of_its_own() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let next = logseal_crypto::Key256::copy_from_slice(&[0x77; 32]).unwrap();
    let next = logseal_crypto::Aek::new(
        logseal_core::AekId::from_bytes([0x77; 16]),
        workspace(1),
        2,
        next,
        Lease::unlimited(),
    );
    let next = Arc::new(next);
    for _ in 0..3 {
        writer.append(&Entry { aek: aek(1), ..entry(0) }).unwrap();
        writer.append(&Entry { aek: Arc::clone(&next), ..entry(0) }).unwrap();
    }
    writer.sync().unwrap();
    let mut reader = FileReader::open(&log.disk, &path_of(writer.file().unwrap())).unwrap();
    let mut keys = FileKeys::new(reader.header());
    let mut opened = 0;
    let find = |id| if id == next.id() { Some(Arc::clone(&next)) } else { unwrap(id) };
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => keys.add(&key, &find).unwrap(),
            Item::Entry(entry) => {
                assert_eq!(entry.slot, opened % 2 + 1);
                assert_eq!(entry.open(&keys).unwrap(), request(0));
                opened += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, 6);
}

/// Scenario: in a group there is an entry under a key that may wrap nothing more; later it may. Guarantee: that entry alone is refused, for a
/// reason that passes; what came before it in the group is written, and later the entry is, too.
#[test]
fn an_entry_whose_key_may_wrap_nothing_is_refused_alone() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    let wraps = logseal_crypto::WrapCount::unreserved();
    let key = logseal_crypto::Key256::copy_from_slice(&[0x77; 32]).unwrap();
    let id = logseal_core::AekId::from_bytes([0x77; 16]);
    let counted = logseal_crypto::Aek::new(id, workspace(1), 2, key, Lease::unlimited());
    let counted = Arc::new(counted.counted_by(Arc::clone(&wraps)));
    writer.append(&entry(0)).unwrap();
    let refused = writer.append(&Entry { aek: Arc::clone(&counted), ..entry(0) }).unwrap_err();
    assert!(matches!(refused, WalError::KeyWraps(_)) && refused.is_entry(), "{refused:?}");
    writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    wraps.reserve(0, 1);
    for _ in 0..3 {
        writer.append(&Entry { aek: Arc::clone(&counted), ..entry(0) }).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(wraps.left(), 0, "one data key for all entries of a file");
    let mut reader = FileReader::open(&log.disk, &path_of(writer.file().unwrap())).unwrap();
    let mut entries = 0;
    while let Some(item) = reader.next_item().unwrap() {
        entries += usize::from(matches!(item, Item::Entry(_)));
    }
    assert_eq!(entries, 5);
}

#[test]
fn it_works_on_the_system_s_disk() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("wal").join(NODE.to_string()).join(CLUSTER.to_string());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut writer = Writer::new(WriterParts {
        disk: Arc::new(SystemDisk),
        folder: folder.clone(),
        cluster: CLUSTER,
        node: NODE,
        predecessor: None,
        registry: Arc::new(TestRegistry::default()),
        ids: IdGenerator::new(Arc::clone(&clock), Arc::new(OsRandom)),
        clock,
        settings: WriterSettings { file_bytes: 20_000 },
    });
    let mut appended = Vec::new();
    for n in 0..300 {
        appended.push((writer.append(&entry(n)).unwrap(), request(n)));
        writer.sync().unwrap();
    }
    writer.close().unwrap();
    let survey = logseal_wal::survey_folder(&SystemDisk, &folder, &|_| logseal_wal::Known::default()).unwrap();
    assert!(survey.problems.is_empty() && survey.files.iter().all(logseal_wal::FileSurvey::is_intact));
    let given: Vec<_> = survey.files.iter().flat_map(|file| read(&SystemDisk, &file.path, file.end).entries).collect();
    assert_eq!(given, appended);
    logseal_wal::settle(&SystemDisk, &survey.files[0].path).unwrap();
    assert!(SystemDisk.space(&folder).unwrap().available > 0);
}
