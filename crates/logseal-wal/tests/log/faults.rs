//! Failing disks and registries: nothing of the group counts, the file is abandoned, the log goes on in a new one.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use logseal_testkit::disk::Operation;
use logseal_wal::{Position, WalError, Writer};

use crate::fixture::{Log, entry, folder, path_of, read, request};

const LARGE: u64 = 1 << 30;

/// Everything that counts in the folder, in order.
fn recovered(log: &Log) -> Vec<(Position, Vec<u8>)> {
    let survey = log.survey();
    assert!(survey.files.iter().all(|file| file.is_intact()), "{survey:?}");
    survey.files.iter().flat_map(|file| read(&log.disk, &file.path, file.end).entries).collect()
}

/// A writer with one durable entry, and what that is.
fn started(log: &Log) -> (Writer, Vec<(Position, Vec<u8>)>) {
    let mut writer = log.writer(None, LARGE);
    let position = writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    (writer, vec![(position, request(0))])
}

fn put_through(writer: &mut Writer, n: u64) -> Result<(Position, Vec<u8>), WalError> {
    let position = writer.append(&entry(n))?;
    writer.sync()?;
    Ok((position, request(n)))
}

/// After a failed write or sync: the group is not durable, its file is left as it is for ever, and the next group is in a
/// new file with new keys, whose header makes the rest of the old one void.
#[test]
fn a_failed_write_or_sync_abandons_the_file() {
    for operation in [Operation::Write, Operation::Sync] {
        let log = Log::default();
        let (mut writer, mut durable) = started(&log);
        let old = writer.file().unwrap();
        log.disk.fail(operation, 0, ErrorKind::Other);
        let error = put_through(&mut writer, 3).unwrap_err();
        assert!(matches!(error, WalError::Io { .. }) && !error.is_out_of_space() && !error.is_entry(), "{error}");
        assert_eq!(writer.position(), Some(durable[0].0), "it is not durable");
        assert_eq!((writer.file(), writer.group_bytes()), (None, 0));
        let left = log.disk.bytes(&path_of(old)).unwrap();
        let closed = writer.take_closed();
        assert_eq!(closed.iter().map(|closed| (closed.file, closed.end)).collect::<Vec<_>>(), [(old, 3)]);
        assert_eq!(closed[0].bytes, left.len() as u64);

        for n in [6, 9] {
            durable.push(put_through(&mut writer, n).unwrap());
        }
        let new = writer.file().unwrap();
        assert_ne!(old, new);
        assert_eq!(log.disk.bytes(&path_of(old)).unwrap(), left, "nothing is written to it any more");
        writer.close().unwrap();
        // After a failed sync reads see the group, and it is void all the same.
        assert_eq!(recovered(&log), durable, "{operation:?}");
        let survey = log.survey();
        assert_eq!(survey.files[1].header.predecessor.map(|before| (before.file, before.end)), Some((old, 3)));
        let commitments: Vec<_> = survey.files.iter().map(|file| first_commitment(&log, file.header.file)).collect();
        assert_ne!(commitments[0], commitments[1], "new keys");
    }
}

fn first_commitment(log: &Log, file: logseal_core::WalFileId) -> Vec<u8> {
    let mut reader = logseal_wal::FileReader::open(&log.disk, &path_of(file)).unwrap();
    match reader.next_item().unwrap() {
        Some(logseal_wal::Item::Key(key)) => key.commitment.as_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A file that cannot be made, synced or named durably leaves nothing behind; the log works again when the disk does.
#[test]
fn a_file_that_cannot_be_made_leaves_nothing_behind() {
    for (operation, skip) in [
        (Operation::CreateDir, 0),
        (Operation::Create, 0),
        (Operation::Write, 0),
        (Operation::Sync, 0),
        (Operation::SyncDir, 0),
    ] {
        let log = Log::default();
        let mut writer = log.writer(None, LARGE);
        log.disk.fail(operation, skip, ErrorKind::Other);
        assert!(put_through(&mut writer, 0).is_err(), "{operation:?}");
        assert_eq!(log.survey().files.len(), 0, "{operation:?}");
        assert_eq!(
            log.registry.calls.load(Ordering::Relaxed),
            0,
            "{operation:?}: it is registered only when it is durable"
        );
        assert!(writer.take_closed().is_empty());
        let durable = vec![put_through(&mut writer, 3).unwrap()];
        writer.close().unwrap();
        assert_eq!(recovered(&log), durable, "{operation:?}");
        assert_eq!(log.survey().files[0].header.ordinal, 0);
    }
}

/// The registry's trouble neither loses a file nor litters: the very same file is registered when the registry is back.
#[test]
fn a_failed_registration_keeps_the_file_for_the_next_try() {
    let log = Log::default();
    let (mut writer, mut durable) = started(&log);
    writer.close().unwrap();
    log.registry.refuse.store(3, Ordering::Relaxed);
    for _ in 0..3 {
        let error = put_through(&mut writer, 3).unwrap_err();
        assert!(matches!(error, WalError::Register { .. }), "{error}");
        assert_eq!(writer.file(), None);
        assert_eq!(log.survey().files.len(), 2, "one file waits, not one for each try");
    }
    let waiting = log.survey().files[1].header.file;
    assert!(!log.registry.known.lock().unwrap().contains_key(&waiting));
    assert_eq!(log.survey().files[1].frames, 0, "no frame before the registry knows the file");
    durable.push(put_through(&mut writer, 6).unwrap());
    assert_eq!(writer.file(), Some(waiting));
    writer.close().unwrap();
    assert_eq!(recovered(&log), durable);
}

/// A full disk refuses, says that it is full, and is not made fuller by trying; when room comes back the log goes on.
#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    for room in [0, 1, 100, 900, 1_500] {
        let log = Log::default();
        let (mut writer, mut durable) = started(&log);
        log.disk.set_available(Some(room));
        let mut files = 0;
        for n in 0..20 {
            match put_through(&mut writer, 21 + n) {
                Ok(entry) => durable.push(entry),
                Err(error) => assert!(error.is_out_of_space(), "{room}: {error}"),
            }
            files = log.survey().files.len();
        }
        assert!(files <= 3, "{room}: {files} files");
        log.disk.set_available(None);
        durable.push(put_through(&mut writer, 3).unwrap());
        writer.close().unwrap();
        assert_eq!(recovered(&log), durable, "{room}");
    }
}

/// With a full disk, idle attempts show when it works again without an entry at hand.
#[test]
fn making_a_file_shows_whether_the_disk_works_again() {
    let log = Log::default();
    let mut writer = log.writer(None, LARGE);
    log.disk.set_available(Some(0));
    assert!(writer.ensure_file().unwrap_err().is_out_of_space());
    log.disk.set_available(None);
    writer.ensure_file().unwrap();
    let file = writer.file();
    assert!(file.is_some());
    let position = writer.append(&entry(0)).unwrap();
    assert_eq!(Some(position.file), file);
    writer.sync().unwrap();
}

/// Trouble while a full file is closed does not lose what was durable in it.
#[test]
fn a_roll_that_fails_keeps_what_was_durable() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create, Operation::SyncDir] {
        for skip in 0..2 {
            let log = Log::default();
            let mut writer = log.writer(None, 1_100);
            let mut durable = Vec::new();
            for n in 0..3 {
                durable.push(put_through(&mut writer, n).unwrap());
            }
            log.disk.fail(operation, skip, ErrorKind::Other);
            let mut failures = 0;
            for n in 3..8 {
                match put_through(&mut writer, n) {
                    Ok(entry) => durable.push(entry),
                    Err(_) => failures += 1,
                }
            }
            assert_eq!(failures, 1, "{operation:?} {skip}");
            writer.close().unwrap();
            assert_eq!(recovered(&log), durable, "{operation:?} {skip}");
            assert!(log.survey().problems.is_empty());
        }
    }
}

#[test]
fn a_folder_that_was_taken_away_is_made_again() {
    let log = Log::default();
    let (mut writer, durable) = started(&log);
    writer.close().unwrap();
    log.disk.fail(Operation::Create, 0, ErrorKind::NotFound);
    assert!(put_through(&mut writer, 3).is_err());
    let made = log.disk.calls(Operation::CreateDir);
    put_through(&mut writer, 3).unwrap();
    assert_eq!(log.disk.calls(Operation::CreateDir), made + 1);
    assert_eq!(recovered(&log)[0], durable[0]);
    assert!(log.survey().files.iter().all(|file| file.path.starts_with(folder())));
}

#[test]
fn a_failed_attestation_abandons_the_file_and_loses_nothing() {
    let log = Log::default();
    let (mut writer, mut durable) = started(&log);
    let old = writer.file();
    log.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    assert!(writer.attest().is_err());
    durable.push(put_through(&mut writer, 3).unwrap());
    assert_ne!(writer.file(), old);
    log.disk.fail(Operation::Write, 0, ErrorKind::Other);
    assert!(writer.close().is_err());
    assert_eq!((writer.file(), writer.take_closed().len()), (None, 2), "closed all the same");
    assert_eq!(recovered(&log), durable);
}
