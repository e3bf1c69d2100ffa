//! Workspaces that get new account keys while records come, and what those keys seal is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use logseal_catalog::{AekWrapsRow, Change};
use tonic::Code;

use crate::counters::alone;
use crate::moving::{columns_are_whole, logs_of_keys, ship_until};
use crate::settings::{NEVER, Settings};
use crate::withheld::exchange;
use crate::world::{World, cluster, until, workspace};

/// Scenario: clients ship records with ever new columns while their workspace gets three new account keys; segments are cut at once, or never;
/// then the process is killed. Guarantee: nobody is refused; at each moment a query sees every acknowledged record once, whatever key it is
/// under; each key was used in the log, and sealed no more than is counted of it, before the kill and after it; all columns are under the
/// newest key; after the restart segments of all generations are read together.
#[test]
fn a_new_account_key_loses_and_doubles_nothing() {
    let _alone = alone();
    for max_age in [NEVER, Duration::ZERO] {
        let world = Arc::new(World::new());
        let life = world.start(&Settings { max_age, file_bytes: 20_000, ..Settings::default() });
        let (aeks, segments, counted) = life.run(async |parts| {
            for round in 0..3_u8 {
                let stop = AtomicBool::new(false);
                let names = ["a", "b", "c"].map(|name| format!("{name}{round}."));
                let clients = join_all(names.iter().map(|name| ship_until(parts, &stop, name)));
                let rotation = async {
                    parts.rotate_key(0).await;
                    parts.ship(0, 3).await.unwrap();
                    parts.check(&format!("{max_age:?}, key {round}")).await;
                    stop.store(true, Ordering::Relaxed);
                };
                let (requests, ()) = futures::join!(clients, rotation);
                assert!(requests.iter().all(|requests| *requests > 0), "{requests:?}");
            }
            let refused = world.ledger.lock().unwrap().refused.len();
            assert_eq!(refused, 0, "a new key refuses nobody");
            parts.check("all keys are there").await;
            columns_are_whole(parts).await;
            let segments = parts.catalog.snapshot(workspace(0)).await.unwrap().segments;
            (parts.aeks_of(0).await, segments, parts.keyring.wraps().await.unwrap())
        });
        assert_eq!(aeks.len(), 4);
        life.kill();
        let logs = logs_of_keys(&world);
        let life = world.start(&Settings::cut_at_once());
        life.run(async |parts| {
            let restarted = parts.keyring.wraps().await.unwrap();
            // The first one was made without a count.
            for aek in &aeks[1..] {
                // Each data key of the log stands twice.
                let files = logs.get(aek).map_or(0, |frames| frames.len() / 2);
                let sealed = files + segments.iter().filter(|segment| segment.aek == *aek).count();
                assert!(max_age == Duration::ZERO || files > 0, "each key was used");
                assert!(counted.of(*aek) >= sealed as u64, "{} of {sealed}", counted.of(*aek));
                assert!(restarted.of(*aek) >= counted.of(*aek), "{} of {}", restarted.of(*aek), counted.of(*aek));
            }
            parts.sealed().await;
            let seen = parts.check("after the restart").await;
            assert_eq!((seen.loaded.len(), seen.parked.len()), (0, 0));
            let segments = parts.catalog.snapshot(workspace(0)).await.unwrap().segments;
            let of = |aek| segments.iter().filter(|segment| segment.aek == aek).count();
            assert!(aeks.iter().all(|aek| of(*aek) > 0), "{:?}", aeks.iter().map(|aek| of(*aek)).collect::<Vec<_>>());
        });
        life.stop();
    }
}

/// Scenario: a key has sealed all that was reserved for it. Guarantee: the next request and the next segment reserve more, and nobody notices.
#[test]
fn a_key_that_has_nothing_left_gets_more() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings { file_bytes: 1, ..Settings::cut_at_once() });
    life.run(async |parts| {
        for _ in 0..3 {
            let aek = parts.keyring.current(workspace(0)).await.unwrap().aek;
            while aek.wraps().take().is_ok() {}
            parts.ship(0, 3).await.unwrap();
            while aek.wraps().take().is_ok() {}
            parts.sealed().await;
        }
        let seen = parts.check("all is in segments").await;
        assert_eq!(seen.sealed.len(), 9);
    });
    life.stop();
}

/// Scenario: records are in the log when the process is killed; then the count of their key is altered in the catalog, and repaired after the
/// next start. Guarantee: with the altered count nothing is sealed under the key and its workspace's requests are told to come back, while
/// its records are still found and others' go on; nothing is in quarantine; after the repair each record is in a segment, once.
#[test]
fn nothing_is_sealed_under_a_key_whose_count_was_altered() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        parts.ship(0, 3).await.unwrap();
        parts.ship(1, 3).await.unwrap();
        let row = AekWrapsRow { aek: parts.aeks_of(0).await[0], wraps: 0x4B3C_2D1E_0F11 };
        parts.catalog.apply(Change::ReserveAekWraps(row)).await.unwrap();
    });
    life.kill();
    let (count, lower) = ([0x4B, 0x3C, 0x2D, 0x1E, 0x0F, 0x11], [0x4B, 0x3C, 0x2D, 0x1E, 0x0F, 0x10]);
    exchange(&world, &count, &lower);
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.ship(1, 3).await.unwrap();
        until("the others' segments", async || parts.query_one(1).await.sealed.len() == 6).await;
        let refused = parts.ship(0, 3).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let seen = parts.query_one(0).await;
        assert_eq!((seen.sealed.len(), seen.loaded.len() + seen.parked.len()), (0, 3));
    });
    life.kill();
    assert!(world.quarantined().is_empty() && !world.log_files(cluster(0)).is_empty());
    exchange(&world, &lower, &count);
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        let seen = parts.check("after the repair").await;
        assert_eq!(seen.sealed.len(), 9);
        parts.ship(0, 3).await.unwrap();
    });
    life.stop();
}
