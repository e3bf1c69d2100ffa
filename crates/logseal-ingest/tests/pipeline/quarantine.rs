//! Records that the encoder breaks on.

use std::path::Path;
use std::sync::Arc;

use logseal_catalog::CoverageRow;
use logseal_ingest::meter;
use logseal_wal::{FileReader, Item};

use crate::counters::{alone, counted};
use crate::life::Parts;
use crate::records::Id;
use crate::settings::Settings;
use crate::world::{World, until};

/// One record for the same stream in a frame of its own.
async fn ship_one(parts: &Parts) -> Id {
    let id = Id { table: 0, ..parts.new_records(0, 1)[0] };
    parts.send(&[id], 0).await.unwrap();
    id
}

/// The frame that `path` keeps.
fn kept_entry(world: &World, path: &Path) -> u64 {
    let mut reader = FileReader::open(&world.disk, path).unwrap();
    let mut entries = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Entry(entry) = item {
            entries.push(entry.sequence);
        }
    }
    assert_eq!(entries.len(), 1, "the frame alone is in quarantine");
    entries[0]
}

async fn in_quarantine(parts: &Parts) -> Vec<CoverageRow> {
    let coverage = parts.catalog.coverage().await.unwrap();
    coverage.into_iter().filter(|row| row.segment.is_none()).collect()
}

/// Scenario: the encoder panics over one record of a batch of nine requests. Guarantee: the others are in segments, the request is in
/// quarantine as a readable file of the log, noted and counted once; queries go on; a restart neither loses nor reports it again.
#[test]
fn a_frame_that_breaks_the_encoder_is_set_aside_alone() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    let before = counted(meter::QUARANTINED);
    let (poisoned, others) = life.run(async |parts| {
        let mut others = Vec::new();
        for _ in 0..5 {
            others.push(ship_one(parts).await);
        }
        let poisoned = ship_one(parts).await;
        world.encoder.poison(poisoned.number);
        for _ in 0..3 {
            others.push(ship_one(parts).await);
        }
        assert_eq!(parts.check("before the cut").await.loaded.len(), 9);
        parts.cutter.flush().await;
        (poisoned, others)
    });
    world.ledger.lock().unwrap().acknowledged.remove(&poisoned);
    let check = async |parts: &Parts, when: &str| {
        let mut seen = parts.check(when).await;
        seen.sealed.sort();
        assert_eq!((&seen.sealed, seen.loaded.len(), seen.parked.len()), (&others, 0, 0), "{when}");
        assert_eq!(counted(meter::QUARANTINED), before + 1, "{when}");
        let files = world.quarantined();
        assert_eq!(files.len(), 1, "{when}");
        let rows = in_quarantine(parts).await;
        let sequence = kept_entry(&world, &files[0]);
        assert_eq!(rows.iter().map(|row| (row.first, row.last)).collect::<Vec<_>>(), [(sequence, sequence)], "{when}");
    };
    life.run(async |parts| check(parts, "after the cut").await);
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        check(parts, "after a restart").await;
    });
    life.stop();
}

/// Scenario: of three requests the middle one is put into quarantine while the store is away; then the process is killed.
/// Guarantee: the two around it, which are in one batch after the restart, become segments although what lies between them is
/// settled already.
#[test]
fn what_lies_around_a_settled_frame_is_not_taken_for_settled() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::cut_at_once());
    let (first, last) = life.run(async |parts| {
        world.script.set_down(true);
        let first = ship_one(parts).await;
        until("the first one's put", async || world.script.calls().puts > 0).await;
        world.encoder.poison(first.number + 1);
        let poisoned = ship_one(parts).await;
        until("quarantine", async || !in_quarantine(parts).await.is_empty()).await;
        world.ledger.lock().unwrap().acknowledged.remove(&poisoned);
        let last = ship_one(parts).await;
        parts.check("the store is down").await;
        (first, last)
    });
    life.kill();
    world.script.set_down(false);
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        until("the replay", async || parts.query().await.loaded.len() == 2).await;
        parts.cutter.flush().await;
        let seen = parts.check("after the restart").await;
        assert_eq!((seen.sealed, seen.loaded.len()), (vec![first, last], 0));
    });
    life.stop();
}
