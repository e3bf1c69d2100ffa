//! Workspaces that are linked to another cluster while records come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use logseal_core::{AekId, ClusterId};
use logseal_ingest::pipeline::journal::{SpaceLimits, Trouble};
use logseal_wal::{FileReader, Item};

use crate::counters::alone;
use crate::life::Parts;
use crate::settings::{NEVER, Settings};
use crate::world::{World, cluster, soon, until, workspace};

/// Whose log has frames under each account key, as the files that are on the disk say.
pub(crate) fn logs_of_keys(world: &World) -> HashMap<AekId, Vec<ClusterId>> {
    let mut logs: HashMap<AekId, Vec<ClusterId>> = HashMap::new();
    for cluster in [0, 1].map(cluster) {
        for path in world.log_files(cluster) {
            let Ok(mut file) = FileReader::open(&world.disk, &path) else { continue };
            let of = file.header().cluster;
            while let Some(item) = file.next_item().unwrap() {
                if let Item::Key(key) = item {
                    logs.entry(key.aek).or_default().push(of);
                }
            }
        }
    }
    logs
}

/// Ships records of workspace 0 until told to stop, or twenty requests, ever new columns among them: seven at first, seven more after ten requests. How many there
/// were.
pub(crate) async fn ship_until(parts: &Parts, stop: &AtomicBool, name: &str) -> usize {
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) && requests < 20 {
        let records = parts.new_records(0, 3);
        // What is refused may be sent again by a client; here it is only held against the guarantee that nothing is there twice.
        let _ = parts.send_with(&records, &format!("{name}{}x", requests / 10), 0).await;
        requests += 1;
    }
    requests
}

/// Scenario: clients ship records with ever new columns while their workspace is linked to and fro between two clusters, six times;
/// segments are cut at once, or never; then the process is killed. Guarantee: at each moment a query sees every acknowledged record once,
/// from whatever log; frames under a key are in the log of the cluster that the key was made for, and no other; in the catalog the
/// columns are those in memory, in their order and without a gap, and after the last link all under the newest key; after the restart each
/// record is in exactly one segment and the logs are empty.
#[test]
fn a_link_loses_and_doubles_nothing() {
    let _alone = alone();
    for max_age in [NEVER, Duration::ZERO] {
        let world = Arc::new(World::new());
        let life = world.start(&Settings { max_age, file_bytes: 20_000, ..Settings::default() });
        let made_for = life.run(async |parts| {
            parts.ship(0, 3).await.unwrap();
            for round in 0..6_u8 {
                let stop = AtomicBool::new(false);
                let names = ["a", "b", "c"].map(|name| format!("{name}{round}."));
                let clients = join_all(names.iter().map(|name| ship_until(parts, &stop, name)));
                let link = async {
                    parts.link(0, cluster(1 - round % 2)).await;
                    parts.ship(0, 3).await.unwrap();
                    parts.check(&format!("{max_age:?}, link {round}")).await;
                    stop.store(true, Ordering::Relaxed);
                };
                let (requests, ()) = futures::join!(clients, link);
                assert!(requests.iter().all(|requests| *requests > 0), "{requests:?}");
            }
            let refused = world.ledger.lock().unwrap().refused.len();
            assert_eq!(refused, 0, "a link refuses nobody");
            let seen = parts.check("all links are done").await;
            assert!(max_age == Duration::ZERO || seen.loaded.len() > 100, "{} in memory", seen.loaded.len());
            columns_are_whole(parts).await;
            let aeks = parts.catalog.aeks_of(workspace(0)).await.unwrap();
            assert_eq!(aeks.len(), 7);
            aeks.into_iter().map(|row| (row.id, row.cluster)).collect::<HashMap<_, _>>()
        });
        life.kill();
        let logs = logs_of_keys(&world);
        let (of_workspace, strays): (Vec<_>, Vec<_>) = logs
            .into_iter()
            .filter_map(|(aek, logs)| Some((logs, *made_for.get(&aek)?)))
            .partition(|(logs, cluster)| logs.iter().all(|log| log == cluster));
        assert!(strays.is_empty(), "{max_age:?}: {strays:?}");
        assert!(max_age == Duration::ZERO || of_workspace.len() == 7, "each key was used: {of_workspace:?}");

        let life = world.start(&Settings::cut_at_once());
        life.run(async |parts| {
            parts.sealed().await;
            let seen = parts.check("after the restart").await;
            assert_eq!((seen.loaded.len(), seen.parked.len()), (0, 0));
            parts.ship(0, 3).await.unwrap();
            parts.sealed().await;
        });
        life.stop();
        assert!([0, 1].map(cluster).iter().all(|cluster| world.log_files(*cluster).is_empty()));
    }
}

/// The catalog has the columns of workspace 0 that memory has, in their order; those that were there at the last link under its key.
pub(crate) async fn columns_are_whole(parts: &Parts) {
    let schema = parts.catalog.schema(workspace(0)).await.unwrap();
    let tables = parts.frames.tables.workspace(workspace(0)).unwrap();
    let newest = parts.catalog.aeks_of(workspace(0)).await.unwrap().pop().unwrap().id;
    assert!(schema.columns.iter().all(|column| column.aek == newest), "a column is under an older key");
    let mut columns = 0;
    for table in &schema.tables {
        let rows: Vec<_> = schema.columns.iter().filter(|column| column.table == table.id).collect();
        let known: Vec<_> = tables.by_id(table.id).unwrap().schema().columns();
        assert_eq!(rows.len(), known.len(), "{}", table.name);
        for (ordinal, (row, column)) in rows.iter().zip(known).enumerate() {
            let opened = logseal_ingest::pipeline::tables::open_column(&parts.keyring.aek(row.aek).await.unwrap(), row);
            let opened = opened.unwrap();
            assert_eq!(row.ordinal as usize, ordinal);
            assert_eq!((&*opened.key, opened.kind, opened.container), (&*column.key, column.kind, column.container));
        }
        columns += rows.len();
    }
    assert!(columns > 30, "{columns} columns");
}

/// Scenario: a call is held because its cluster's log is full; meanwhile its workspace is linked to another cluster, and others ship there;
/// then there is room. Guarantee: the held call goes on where its workspace is by then, under its present key, and is acknowledged.
#[test]
fn a_held_call_follows_its_workspace() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let space = SpaceLimits { max_bytes: 20_000, reserve_bytes: Some(0) };
    let hold = Duration::from_secs(20);
    let life = world.start(&Settings { file_bytes: 2_000, space, hold, ..Settings::cut_at_once() });
    let first = life.run(async |parts| {
        let first = parts.keyring.current(workspace(0)).await.unwrap().aek;
        let users = Arc::strong_count(&first);
        world.script.set_down(true);
        until("a full log", async || {
            // The last one comes when it is full.
            let _ = parts.ship(1, 10).await;
            parts.log(cluster(0)).trouble() == Some(Trouble::LogFull)
        })
        .await;
        let held = async { parts.ship(0, 3).await.expect("it is acknowledged") };
        let link = async {
            until("a held call", async || Arc::strong_count(&first) > users).await;
            parts.link(0, cluster(1)).await;
            parts.ship(0, 3).await.expect("the other log has room");
            let seen = parts.query_one(0).await;
            assert_eq!(seen.loaded.len() + seen.parked.len(), 3, "the held one is not acknowledged yet");
            world.script.set_down(false);
        };
        let (records, ()) = soon("the held call", Box::pin(async { futures::join!(held, link) })).await;
        let seen = parts.check("both are taken").await;
        assert!(records.iter().all(|id| seen.counts().contains_key(id)));
        first.id()
    });
    life.run(async |parts| {
        parts.sealed().await;
        let segments = parts.catalog.snapshot(workspace(0)).await.unwrap().segments;
        assert_eq!(segments.iter().map(|row| row.rows).sum::<u64>(), 6);
        assert!(segments.iter().all(|row| row.aek != first), "none is under the key that the call began with");
        let folder = cluster(1).to_string();
        assert!(segments.iter().all(|row| row.path.contains(&folder)), "all are in the present cluster's folder");
        parts.check("at the end").await;
    });
    life.stop();
}
