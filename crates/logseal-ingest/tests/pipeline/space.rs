//! A log or a disk without room: refused, and taken again by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logseal_ingest::pipeline::journal::{SpaceLimits, Trouble};
use tonic::{Code, Status};

use crate::counters::alone;
use crate::life::Parts;
use crate::settings::Settings;
use crate::world::{World, cluster, soon, until};

/// Records are taken again this soon after there is room.
const SOON: Duration = Duration::from_secs(10);

async fn taking_soon(parts: &Parts) {
    let began = Instant::now();
    soon("taking again", parts.log(cluster(0)).taking()).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

fn refused_for(status: &Status, word: &str) {
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(word), "{status:?}");
}

/// Scenario: the store is away until the log has `wal.max_bytes`, in one file or in many; then it is back. Guarantee: refused with the
/// setting's name, nothing acknowledged is lost, and records are taken again by themselves.
#[test]
fn a_full_log_refuses_until_segments_are_stored() {
    let _alone = alone();
    for file_bytes in [2_000, 1 << 20] {
        let world = Arc::new(World::new());
        let space = SpaceLimits { max_bytes: 20_000, reserve_bytes: Some(0) };
        let life = world.start(&Settings { file_bytes, space, ..Settings::cut_at_once() });
        life.run(async |parts| {
            world.script.set_down(true);
            let status = soon("a refusal", async {
                loop {
                    if let Err(status) = parts.ship(0, 10).await {
                        break status;
                    }
                }
            })
            .await;
            refused_for(&status, "wal.max_bytes");
            assert_eq!(parts.log(cluster(0)).trouble(), Some(Trouble::LogFull));
            assert!(parts.backlog.log_bytes(cluster(0)) < 25_000, "it is refused at once");
            parts.ship(2, 3).await.unwrap();
            parts.check("full").await;

            world.script.set_down(false);
            taking_soon(parts).await;
            parts.ship(0, 10).await.unwrap();
            parts.sealed().await;
            parts.check("taken again").await;
        });
        life.stop();
    }
}

/// Scenario: less is free than `wal.reserve_bytes`, then more again. Guarantee: refused with the setting's name before anything is
/// written, and taken again by itself; the live file, whose records are all stored, is given back meanwhile.
#[test]
fn the_reserve_of_the_disk_is_kept() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let space = SpaceLimits { max_bytes: 1 << 30, reserve_bytes: Some(1 << 20) };
    let life = world.start(&Settings { space, ..Settings::cut_at_once() });
    life.run(async |parts| {
        world.disk.set_available(Some(2 << 20));
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
        world.disk.set_available(Some((1 << 20) - 1_000_000));
        refused_for(&parts.ship(0, 3).await.unwrap_err(), "wal.reserve_bytes");
        assert_eq!(parts.log(cluster(0)).trouble(), Some(Trouble::DiskReserved));
        until("the file's deletion", async || world.log_files(cluster(0)).is_empty()).await;
        parts.check("reserved").await;

        world.disk.set_available(Some(2 << 20));
        taking_soon(parts).await;
        parts.ship(0, 3).await.unwrap();
        parts.check("taken again").await;
    });
    life.stop();
}

/// Scenario: the disk runs full in the middle of a write, then there is room again; the process is killed later. Guarantee: refused,
/// taken again by itself, and what was half written is never seen and does not stay.
#[test]
fn a_write_that_fills_the_disk_is_refused_whole() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::cut_at_once());
    let refused = life.run(async |parts| {
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
        world.disk.set_available(Some(100));
        let refused = parts.new_records(0, 20);
        refused_for(&parts.send(&refused, 0).await.unwrap_err(), "disk");
        assert!(matches!(parts.log(cluster(0)).trouble(), Some(Trouble::DiskFull)));
        refused_for(&parts.ship(0, 3).await.unwrap_err(), "disk");
        parts.check("full").await;

        world.disk.set_available(Some(1 << 20));
        taking_soon(parts).await;
        parts.ship(0, 3).await.unwrap();
        parts.sealed().await;
        until("one file", async || world.log_files(cluster(0)).len() == 1).await;
        refused
    });
    life.kill();
    world.disk.set_available(None);
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        let counts = parts.check("after a restart").await.counts();
        assert!(refused.iter().all(|id| !counts.contains_key(id)));
    });
    life.stop();
}
