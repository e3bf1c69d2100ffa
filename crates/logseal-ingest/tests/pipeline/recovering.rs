//! Starts on a log that is not as it was left.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logseal_catalog::WalFileState;
use logseal_core::{UnixNanos, WalFileId};
use logseal_ingest::meter;
use logseal_testkit::disk::Operation;
use logseal_wal::{Bound, Disk as _, FileHeader, FileReader, Item, Predecessor, SealedEntry, survey_file};

use crate::counters::{alone, counted};
use crate::life::{Life, Parts};
use crate::records::Id;
use crate::settings::Settings;
use crate::world::{World, cluster, until};

/// Counts of damage, of lost files and of what went into quarantine.
pub(crate) fn counts() -> [u64; 3] {
    [meter::WAL_DAMAGE, meter::WAL_LOST, meter::QUARANTINED].map(counted)
}

pub(crate) fn since(before: [u64; 3]) -> [u64; 3] {
    let now = counts();
    [0, 1, 2].map(|index| now[index] - before[index])
}

/// A life that took three requests for one stream and was killed; its file and the records.
pub(crate) fn killed(world: &Arc<World>) -> (PathBuf, Vec<Id>) {
    let life = world.start(&Settings::default());
    let records = life.run(async |parts| {
        let mut records = Vec::new();
        for _ in 0..3 {
            let id = Id { table: 0, ..parts.new_records(0, 1)[0] };
            parts.send(&[id], 0).await.unwrap();
            records.push(id);
        }
        records
    });
    life.kill();
    let files = world.log_files(cluster(0));
    assert_eq!(files.len(), 1);
    (files[0].clone(), records)
}

pub(crate) fn sealed_entries(world: &World, file: &Path) -> Vec<SealedEntry> {
    let mut reader = FileReader::open(&world.disk, file).unwrap();
    let mut entries = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Entry(entry) = item {
            entries.push(entry);
        }
    }
    entries
}

/// Where the entries of `file` begin, and how long they are.
fn entries(world: &World, file: &Path) -> Vec<(u64, usize)> {
    sealed_entries(world, file).iter().map(|entry| (entry.offset, entry.frame_bytes())).collect()
}

fn entry_sequences(world: &World, file: &Path) -> Vec<u64> {
    sealed_entries(world, file).iter().map(|entry| entry.sequence).collect()
}

async fn states(parts: &Parts) -> Vec<WalFileState> {
    parts.log_rows(cluster(0)).await.iter().map(|row| row.state).collect()
}

/// What was lost is not owed any more, and the log goes on.
fn goes_on(world: &Arc<World>, life: &Life, lost: &[Id]) {
    world.ledger.lock().unwrap().acknowledged.retain(|id| !lost.contains(id));
    life.run(async |parts| {
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
        let seen = parts.check("after the start").await;
        assert!(seen.sealed.iter().all(|id| !lost.contains(id)), "{seen:?}");
    });
}

/// Scenario: a file of the log is gone. Guarantee: it is counted and `Lost` in the catalog, and the log goes on; the next start does not
/// report it again.
#[test]
fn a_missing_file_is_reported_once() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    world.disk.remove(&file).unwrap();
    world.disk.sync_dir(file.parent().unwrap()).unwrap();
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(life.run(states), [WalFileState::Lost]);
    assert_eq!(since(before), [0, 1, 0]);
    goes_on(&world, &life, &records);
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(since(before), [0, 1, 0], "reported once");
    life.stop();
}

/// Scenario: another file lies in the place of one of the log's. Guarantee: damage and loss are counted, nothing of it is read, it stays
/// for whoever looks into it.
#[test]
fn an_exchanged_file_is_not_believed() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let mut bytes = world.disk.bytes(&file).unwrap();
    let header = FileHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let other = FileHeader { created: UnixNanos(header.created.0 + 1), ..header }.encode();
    bytes[..1024].copy_from_slice(&[other, other].concat());
    world.disk.put(&file, bytes);
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(life.run(states), [WalFileState::Lost]);
    assert_eq!(since(before), [1, 1, 0]);
    goes_on(&world, &life, &records);
    assert!(world.log_files(cluster(0)).contains(&file));
    life.stop();
}

/// Scenario: the catalog is an older copy, which does not know the newest file. Guarantee: its records are replayed.
#[test]
fn a_file_that_an_older_catalog_does_not_know_is_replayed() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::cut_at_once());
    // All tables and columns are there when the copy is made.
    life.run(async |parts| drop(parts.ship(0, 21).await.unwrap()));
    life.stop();
    let copy = std::fs::read(world.catalog_file()).unwrap();
    let life = world.start(&Settings::default());
    let newer = life.run(async |parts| parts.ship(0, 21).await.unwrap());
    life.kill();
    for journal in ["-wal", "-shm"] {
        let mut name = world.catalog_file().into_os_string();
        name.push(journal);
        let _ = std::fs::remove_file(name);
    }
    std::fs::write(world.catalog_file(), copy).unwrap();
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        until("the replay", async || parts.query().await.loaded.len() == newer.len()).await;
        parts.check("with the older catalog").await;
        assert_eq!(parts.log_rows(cluster(0)).await.iter().filter(|row| row.state == WalFileState::Live).count(), 1);
    });
    life.stop();
}

/// Scenario: a byte in the second of three requests' frames is altered after it was attested. Guarantee: damage is counted, the frame is
/// in quarantine, the ones around it are recovered.
#[test]
fn a_damaged_frame_is_reported_and_those_behind_it_are_recovered() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let (offset, frame_bytes) = entries(&world, &file)[1];
    let mut bytes = world.disk.bytes(&file).unwrap();
    bytes[offset as usize + frame_bytes - 1] ^= 1;
    world.disk.put(&file, bytes);
    let before = counts();
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        until("the replay", async || parts.query().await.loaded.len() == 2).await;
        assert_eq!(parts.query().await.loaded, [records[0], records[2]]);
    });
    assert_eq!(since(before), [1, 0, 1]);
    assert_eq!(world.quarantined().len(), 1);
    goes_on_after_flush(&world, life, &records[1..2]);
}

fn goes_on_after_flush(world: &Arc<World>, life: Life, lost: &[Id]) {
    life.run(async |parts| parts.cutter.flush().await);
    goes_on(world, &life, lost);
    life.stop();
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    (!crc).to_le_bytes()
}

/// Scenario: the second of three frames was altered with right checksums, so that only its seal tells; the quarantine cannot be written at
/// first. Guarantee: the replay does not go on without the copy; then the frame is in quarantine, noted and counted once, and the others
/// are recovered.
#[test]
fn a_forged_frame_is_set_aside_before_anything_behind_it_is_loaded() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let (offset, frame_bytes) = entries(&world, &file)[1];
    let mut bytes = world.disk.bytes(&file).unwrap();
    let frame = &mut bytes[offset as usize..offset as usize + frame_bytes];
    let field = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
    let body = 48 + field(24);
    frame[body] ^= 1;
    let body_crc = crc(&frame[body..]);
    frame[40..44].copy_from_slice(&body_crc);
    let head_crc = crc(&frame[..44]);
    frame[44..48].copy_from_slice(&head_crc);
    world.disk.put(&file, bytes);
    world.disk.fail(Operation::Create, 0, ErrorKind::Other);
    let before = counts();
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        until("the failed copy", async || world.disk.failures(Operation::Create) == 1).await;
        let seen = parts.query().await;
        assert_eq!(seen.loaded.len() + seen.parked.len(), 2, "queries go on");
        assert!(seen.loaded.len() < 2, "the replay waits");
        until("the replay", async || parts.query().await.loaded.len() == 2).await;
        assert_eq!(parts.query().await.loaded, [records[0], records[2]]);
        let noted = parts.catalog.coverage().await.unwrap();
        assert_eq!(noted.iter().filter(|row| row.segment.is_none()).count(), 1);
    });
    assert_eq!(since(before), [0, 0, 1]);
    assert_eq!(world.quarantined().len(), 1);
    goes_on_after_flush(&world, life, &records[1..2]);
}

/// Scenario: a sync fails; the next file's header, which says so, is written but not registered when the process is killed; the start
/// after that deletes it as empty and begins another one. Guarantee: the records of the failed sync stay void.
#[test]
fn the_end_of_a_file_outlives_an_empty_successor() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    let refused = life.run(async |parts| {
        parts.ship(0, 3).await.unwrap();
        let syncs = world.disk.calls(Operation::Sync);
        until("the attestation", async || world.disk.calls(Operation::Sync) > syncs).await;
        // No other file is made in this life.
        (0..1000).for_each(|skip| world.disk.fail(Operation::Create, skip, ErrorKind::Other));
        world.disk.fail(Operation::Sync, 0, ErrorKind::Other);
        let refused = parts.new_records(0, 3);
        parts.send(&refused, 0).await.unwrap_err();
        refused
    });
    life.kill();
    world.disk.heal();
    let files = world.log_files(cluster(0));
    assert_eq!(files.len(), 1);
    let reader = FileReader::open(&world.disk, &files[0]).unwrap();
    let header = reader.header().clone();
    let void = entry_sequences(&world, &files[0])[1];
    let predecessor = Predecessor { file: header.file, ordinal: header.ordinal, end: void - 1, chain: [0; 32] };
    let next = WalFileId::from_bytes([9; 16]);
    let empty =
        FileHeader { file: next, ordinal: header.ordinal + 1, predecessor: Some(predecessor), ..header }.encode();
    let empty_path = files[0].with_file_name(format!("{next}.wal"));
    world.disk.put(&empty_path, [empty, empty].concat());

    let life = world.start(&Settings::default());
    assert!(!world.log_files(cluster(0)).contains(&empty_path), "it never took a record");
    life.run(async |parts| drop(parts.ship(0, 3).await.unwrap()));
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        let counts = parts.check("after two restarts").await.counts();
        assert!(refused.iter().all(|id| !counts.contains_key(id)), "{counts:?}");
    });
    life.stop();
}

/// Scenario: the creation of a file was cut short at any length, also with garbled headers or with one of their two copies intact; the
/// catalog does not know it. Guarantee: the start deletes it, counts no damage, and the log goes on behind the file before.
#[test]
fn a_file_that_was_never_begun_is_deleted_and_is_no_damage() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let survey = survey_file(&world.disk, &file, &Bound::default()).unwrap();
    let (header, predecessor) = (survey.header.clone(), survey.predecessor());
    let path_of = |id: WalFileId| file.with_file_name(format!("{id}.wal"));
    let stub = |n: u8, alter: &dyn Fn(&mut Vec<u8>)| {
        let id = WalFileId::from_bytes([n; 16]);
        let next =
            FileHeader { file: id, ordinal: header.ordinal + 1, predecessor: Some(predecessor), ..header.clone() };
        let mut bytes = next.encode().repeat(2);
        alter(&mut bytes);
        world.disk.put(&path_of(id), bytes);
        path_of(id)
    };
    let stubs = [
        stub(1, &|bytes| bytes.clear()),
        stub(2, &|bytes| bytes.truncate(511)),
        stub(3, &|bytes| bytes.truncate(700)),
        stub(4, &|bytes| bytes.fill(0)),
        stub(5, &|bytes| bytes[..512].fill(7)),
    ];
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(since(before), [0, 0, 0]);
    let left = world.log_files(cluster(0));
    assert!(stubs.iter().all(|stub| !left.contains(stub)), "{left:?}");
    life.run(async |parts| {
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
        let seen = parts.check("behind the deleted files").await;
        assert!(records.iter().all(|id| seen.sealed.contains(id)), "{seen:?}");
        let rows = parts.log_rows(cluster(0)).await;
        assert!(rows.iter().all(|row| stubs.iter().all(|stub| *stub != path_of(row.id))), "{rows:?}");
    });
    life.stop();
}

/// Scenario: files as short as one that was never begun, of which something says that they were: the catalog, their successor, room for a
/// frame, a name that the log did not give. Guarantee: they are reported at each start and stay for whoever
/// looks into them.
#[test]
fn a_short_file_that_may_have_held_records_is_reported_and_not_deleted() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let header = FileReader::open(&world.disk, &file).unwrap().header().clone();
    let name = |n: u8| file.with_file_name(format!("{}.wal", WalFileId::from_bytes([n; 16])));
    let put = |path: PathBuf, bytes: Vec<u8>| {
        world.disk.put(&path, bytes);
        path
    };
    let named = Predecessor { file: WalFileId::from_bytes([1; 16]), ordinal: 7, end: 3, chain: [0; 32] };
    let successor =
        FileHeader { file: WalFileId::from_bytes([2; 16]), ordinal: 8, predecessor: Some(named), ..header.clone() };
    put(name(2), successor.encode().repeat(2));
    let kept = [
        put(file.clone(), header.encode()[..300].to_vec()),
        put(name(1), Vec::new()),
        put(name(3), vec![0; 1025]),
        put(file.with_file_name("mine.wal"), Vec::new()),
    ];
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(since(before), [4, 1, 0], "all are reported; the one that the catalog knows is lost");
    goes_on(&world, &life, &records);
    life.kill();
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(since(before), [4, 0, 0], "reported again");
    let left = world.log_files(cluster(0));
    assert!(kept.iter().all(|path| left.contains(path)), "{left:?}");
    life.stop();
}

/// Scenario: a copy of a file under another name, and a file of another cluster, lie in the folder. Guarantee: the start succeeds, they
/// are reported and left alone, and no record is there twice.
#[test]
fn foreign_files_and_copies_are_left_alone() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, _) = killed(&world);
    let life = world.start(&Settings::default());
    life.run(async |parts| drop(parts.ship(2, 3).await.unwrap()));
    life.kill();
    let copy = |from: &Path, name: &str| {
        let to = file.with_file_name(name);
        world.disk.put(&to, world.disk.bytes(from).unwrap());
        to
    };
    let foreign = world.log_files(cluster(1));
    // One sorts before what it is a copy of, one behind it.
    let strays = [copy(&file, "0-copy.wal"), copy(&file, "z-copy.wal"), copy(&foreign[0], "foreign.wal")];
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    assert_eq!(since(before), [3, 0, 0]);
    goes_on(&world, &life, &[]);
    assert!(strays.iter().all(|stray| world.log_files(cluster(0)).contains(stray)));
    life.stop();
}

/// Scenario: the log begins a new file with each request, and all become segments. Guarantee: only the live file stays on the disk; the
/// catalog has the others as `Retired`.
#[test]
fn files_whose_records_are_stored_are_retired() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings { file_bytes: 1, ..Settings::cut_at_once() });
    life.run(async |parts| {
        for _ in 0..5 {
            parts.ship(0, 3).await.unwrap();
        }
        parts.sealed().await;
        until("one file", async || world.log_files(cluster(0)).len() == 1).await;
        let states = states(parts).await;
        assert_eq!(states.len(), 5);
        assert_eq!(states.iter().filter(|state| **state == WalFileState::Live).count(), 1);
        assert_eq!(states.iter().filter(|state| **state == WalFileState::Retired).count(), 4);
        parts.check("after the retirement").await;
    });
    life.stop();
    assert!(world.log_files(cluster(0)).is_empty());
}
