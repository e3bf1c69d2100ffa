//! Keys that are destroyed while records under them are everywhere.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use logseal_catalog::Change;
use logseal_core::{AekId, UnixNanos};
use logseal_ingest::BudgetPermit;
use logseal_vault::{KeyName, KeyVault as _};
use tokio::runtime::Runtime;
use tonic::Code;

use crate::counters::alone;
use crate::life::Parts;
use crate::recovering::{counts, since};
use crate::settings::{NEVER, Settings};
use crate::world::{World, cluster, soon, until, workspace};

/// Where records are when their key is destroyed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Waiting,
    Growing,
    Evicted,
    Stored,
    OnTheirWay,
    Parked,
}

const PLACES: [Place; 6] =
    [Place::Waiting, Place::Growing, Place::Evicted, Place::Stored, Place::OnTheirWay, Place::Parked];

impl Place {
    fn settings(self) -> Settings {
        let max_age = match self {
            Self::Waiting | Self::Growing | Self::Evicted => NEVER,
            Self::Stored | Self::OnTheirWay | Self::Parked => Duration::ZERO,
        };
        let row_group_bytes = if self == Self::Waiting { 1 << 20 } else { 1 };
        Settings { max_age, row_group_bytes, ..Settings::default() }
    }

    /// Brings records of workspaces 0 and 1 there; what must be kept for that.
    async fn fill(self, parts: &Parts) -> Option<BudgetPermit> {
        if matches!(self, Self::Evicted | Self::OnTheirWay | Self::Parked) {
            parts.world.script.set_down(true);
        }
        parts.ship_all(&[(0, 6), (1, 6), (0, 6), (1, 6)]).await;
        match self {
            Self::Waiting => None,
            Self::Growing => {
                until("sealed rows", async || parts.backlog.totals().growing_bytes > 0).await;
                None
            }
            Self::Evicted => {
                until("sealed rows", async || parts.backlog.totals().growing_bytes > 0).await;
                let short = RefCell::new(None);
                until("evicted rows", async || {
                    let rest = || parts.budget.try_take(parts.budget.free().saturating_sub(500_000));
                    let taken = short.take().or_else(rest);
                    short.replace(taken);
                    parts.query_one(0).await.parked.len() == 12
                })
                .await;
                short.into_inner()
            }
            Self::Stored => {
                parts.sealed().await;
                None
            }
            Self::OnTheirWay => {
                until("a failed put", async || parts.world.script.calls().puts > 3).await;
                None
            }
            Self::Parked => {
                until("a failed put", async || parts.world.script.calls().puts > 0).await;
                let short = parts.budget.try_take(parts.budget.total() / 2 - 200_000);
                for _ in 0..200 {
                    parts.ship_all(&[(0, 6), (1, 6)]).await;
                    if parts.query_one(0).await.parked.len() > 12 {
                        return short;
                    }
                }
                panic!("nothing is parked");
            }
        }
    }
}

/// The objects of workspace `n` that are in the store, without those that the catalog wants to be deleted.
async fn objects_of(parts: &Parts, n: u8) -> BTreeSet<String> {
    let garbage = parts.catalog.garbage(UnixNanos(i64::MAX), 10_000).await.unwrap();
    let garbage: BTreeSet<_> = garbage.into_iter().map(|row| row.path).collect();
    let all = parts.world.paths().await;
    all.into_iter().filter(|path| path.contains(&workspace(n).to_string()) && !garbage.contains(path)).collect()
}

/// Scenario: a workspace is destroyed while its records, and those of another workspace of its cluster, wait, grow, are evicted, are
/// stored, are on their way to a store that is away, or are parked; then the process is killed. Guarantee: the records no longer count
/// and are seen by nobody, their key is in no memory, their segments are not stored any more, and no attempt to is repeated; the other
/// workspace has each of its records once, then and after the restart; the log's files go as soon as that one's records are stored;
/// nothing is taken for damage.
#[test]
fn records_of_a_destroyed_key_go_wherever_they_are() {
    let _alone = alone();
    for place in PLACES {
        for restart in [false, true] {
            let case = format!("{place:?}, restart {restart}");
            let before = counts();
            let world = Arc::new(World::new());
            let life = world.start(&place.settings());
            life.run(async |parts| {
                let short = place.fill(parts).await;
                let aeks = parts.aeks_of(0).await;
                let count = parts.backlog.unsealed_of(&aeks);
                assert!(if place == Place::Stored { count == 0 } else { count >= 12 }, "{case}: {count}");
                parts.shred(0).await;
                assert_eq!(parts.backlog.unsealed_of(&aeks), 0, "{case}");
                assert_eq!(parts.ship(0, 3).await.unwrap_err().code(), Code::Unavailable, "{case}");
                let seen = parts.check(&case).await;
                assert!(seen.counts().keys().all(|id| id.workspace == 1), "{case}");
                if restart {
                    return;
                }
                drop(short);
                world.script.set_down(false);
                parts.ship(1, 3).await.unwrap();
                soon("the flush", parts.cutter.flush()).await;
                parts.sealed().await;
                parts.check(&case).await;
                assert_eq!(objects_of(parts, 0).await, BTreeSet::new(), "{case}");
                parts.logs.roll(&parts.aeks_of(1).await).await;
                until("the log's files to go", async || world.log_files(cluster(0)).is_empty()).await;
            });
            match restart {
                false => life.stop(),
                true => {
                    life.kill();
                    world.script.set_down(false);
                    let life = world.start(&Settings::cut_at_once());
                    life.run(async |parts| {
                        parts.sealed().await;
                        let seen = parts.check(&case).await;
                        assert!(seen.sealed.iter().all(|id| id.workspace == 1), "{case}");
                        let left = world.log_files(cluster(0));
                        until("the log's files to go", async || world.log_files(cluster(0)).is_empty()).await;
                        assert!(parts.keyring.refusal(workspace(1)).is_none(), "{case}: {left:?}");
                    });
                    life.stop();
                }
            }
            assert_eq!((since(before), world.quarantined()), ([0, 0, 0], vec![]), "{case}");
        }
    }
}

/// Scenario: clients ship to a workspace and to another one of its cluster, segments are cut at once, puts fail now and then; the first
/// workspace is destroyed in the catalog, and a little later the pipeline is told. Guarantee: every call is answered, each of the other
/// workspace's as if nothing were; after it was told the destroyed one takes nothing; no commit is repeated for it; what it had goes from
/// the log, also if the process is killed before it was told.
#[test]
fn what_is_under_way_when_a_key_is_destroyed_comes_to_its_end() {
    let _alone = alone();
    for told in [true, false] {
        let before = counts();
        let world = Arc::new(World::new());
        let life = world.start(&Settings { file_bytes: 10_000, row_group_bytes: 1, ..Settings::cut_at_once() });
        life.run(async |parts| {
            let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
            let client = async |n: u8| {
                while !stop.load(Ordering::Relaxed) && answered.load(Ordering::Relaxed) < 2_000 {
                    let outcome = parts.ship(n, 2).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    let refused = outcome.err().map(|status| status.code());
                    assert!(refused.is_none() || (n == 0 && refused == Some(Code::Unavailable)), "{refused:?}");
                }
            };
            world.script.fail_puts_with(0.2, 1);
            let destroy = async {
                until("some answers", async || answered.load(Ordering::Relaxed) > 60).await;
                let aeks = parts.aeks_of(0).await;
                let change = Change::ShredWorkspace { workspace: workspace(0), at: UnixNanos(1) };
                parts.catalog.apply(change).await.unwrap();
                parts.forget_acknowledged(0);
                let now = answered.load(Ordering::Relaxed);
                until("more answers", async || answered.load(Ordering::Relaxed) > now + 60).await;
                if told {
                    parts.follow(Some(0), &aeks).await;
                    assert_eq!(parts.ship(0, 2).await.unwrap_err().code(), Code::Unavailable);
                }
                stop.store(true, Ordering::Relaxed);
            };
            let clients = join_all([0, 0, 1, 1].map(client));
            soon("all of it", async { futures::join!(clients, destroy) }).await;
            parts.forget_acknowledged(0);
            world.script.fail_puts_with(0.0, 1);
            if told {
                parts.sealed().await;
                parts.check("it was told").await;
                assert_eq!(objects_of(parts, 0).await, BTreeSet::new());
            }
        });
        life.kill();
        let life = world.start(&Settings::cut_at_once());
        life.run(async |parts| {
            parts.sealed().await;
            parts.check(&format!("after the restart, told {told}")).await;
            until("the log's files to go", async || world.log_files(cluster(0)).is_empty()).await;
        });
        life.stop();
        assert_eq!((since(before), world.quarantined()), ([0, 0, 0], vec![]), "told {told}");
    }
}

/// Scenario: both workspaces of a cluster have records in its log, and then, linked to another cluster, in that one's; the store is away.
/// The keys of the first cluster are destroyed, its log is closed, it is removed. Guarantee: closing does not wait for the store; the
/// records under the newer keys are all there, once, and so are the columns that came before and after the link, then and after a restart.
#[test]
fn a_cluster_is_deleted_and_its_workspaces_go_on_elsewhere() {
    let _alone = alone();
    let before = counts();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        world.script.set_down(true);
        parts.ship_all(&[(0, 6), (1, 6)]).await;
        let mut aeks: Vec<AekId> = parts.aeks_of(0).await;
        aeks.extend(parts.aeks_of(1).await);
        parts.forget_acknowledged(0);
        parts.forget_acknowledged(1);
        for n in [0, 1] {
            parts.link(n, cluster(1)).await;
            let records = parts.new_records(n, 6);
            parts.send_with(&records, "later", 0).await.unwrap();
        }
        parts.catalog.apply(Change::ShredAeks { aeks: aeks.clone(), at: UnixNanos(1) }).await.unwrap();
        parts.follow(None, &aeks).await;
        soon("closing", parts.logs.close(cluster(0), Duration::from_secs(30))).await.unwrap();
        parts.catalog.apply(Change::RemoveCluster { cluster: cluster(0) }).await.unwrap();
        parts.ship_all(&[(0, 3), (1, 3), (2, 3)]).await;
        let seen = parts.check("the cluster is gone").await;
        assert_eq!(seen.counts().len(), 21);
        world.script.set_down(false);
        parts.sealed().await;
        parts.check("the store is back").await;
    });
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        assert!([0, 1, 2].iter().all(|n| parts.frames.tables.workspace(workspace(*n)).is_some()), "all are loaded");
        parts.sealed().await;
        assert_eq!(parts.check("after the restart").await.sealed.len(), 21);
        parts.ship_all(&[(0, 3), (1, 3), (2, 3)]).await;
        parts.sealed().await;
        parts.check("at the end").await;
    });
    life.stop();
    assert_eq!((since(before), world.quarantined()), ([0, 0, 0], vec![]));
}

/// Scenario: at a start the KEK is disabled, so that the frames of all workspaces are passed over and their files held; then the two
/// workspaces of one cluster are destroyed. Guarantee: the held files of that cluster go, without the key; the other one's stay.
#[test]
fn a_file_that_is_held_for_a_destroyed_key_goes() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| parts.ship_all(&[(0, 3), (1, 3), (2, 3)]).await);
    life.kill();
    let kek = KeyName::parse("kek").unwrap();
    let newest = Runtime::new().unwrap().block_on(world.client().key(&kek, None)).unwrap().id.version;
    world.vault().set_enabled(&kek, &newest, false).unwrap();
    let before = counts();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        let refused = || [0, 1, 2].iter().all(|n| parts.keyring.refusal(workspace(*n)).is_some());
        until("the frames to be passed over", async || refused()).await;
        parts.sealed().await;
        let files = world.log_files(cluster(0));
        assert_eq!(files.len(), 1);
        parts.shred(0).await;
        parts.logs.roll(&[]).await;
        assert_eq!(world.log_files(cluster(0)), files, "the other workspace's frames hold it");
        parts.shred(1).await;
        until("the held file to go", async || world.log_files(cluster(0)).is_empty()).await;
        assert_eq!(world.log_files(cluster(1)).len(), 1);
    });
    life.stop();
    assert_eq!((since(before), world.quarantined()), ([0, 0, 0], vec![]));
}
