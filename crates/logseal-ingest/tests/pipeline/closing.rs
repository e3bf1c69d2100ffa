//! Clusters that come and go while others run.

use std::sync::Arc;
use std::time::Duration;

use logseal_core::ClusterId;
use logseal_ingest::pipeline::logs::LogError;
use logseal_wal::Disk as _;
use tokio::runtime::Handle;
use tonic::Code;

use crate::counters::alone;
use crate::settings::Settings;
use crate::world::{World, cluster, folder, node_folder, soon, until};

/// Long enough for everything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Threads of this process that write logs.
fn log_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "logseal-wal").count()
}

/// Scenario: a cluster is opened twice, a workspace is linked to it, records come, the workspace is linked back, the cluster is closed
/// twice; a hundred times, each time another one. Guarantee: no record is lost or doubled, and neither threads, tasks, files nor folders
/// are left.
#[test]
fn a_hundred_clusters_come_and_go_and_leave_nothing() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let mut before = None;
        for n in 10..110 {
            let id = ClusterId::from_bytes([n; 16]);
            parts.add_cluster(id).await;
            for _ in 0..2 {
                parts.logs.open(id).await.unwrap();
            }
            // Most of them never get a record; making keys takes long.
            if n % 10 == 0 {
                parts.link(0, id).await;
                parts.ship(0, 3).await.unwrap();
                assert!(!world.log_files(id).is_empty());
                parts.link(0, cluster(0)).await;
            }
            for _ in 0..2 {
                soon("closing", parts.logs.close(id, PATIENCE)).await.unwrap();
            }
            assert!(parts.logs.replaying(id).await.is_none());
            if n == 10 {
                // What the first one left would be left by each.
                before = Some((log_threads(), tasks(), world.disk.list(&node_folder()).unwrap().len()));
            }
        }
        let (threads, tasks_before, folders) = before.unwrap();
        assert_eq!((threads, folders), (2, 2), "the logs of the two other clusters");
        assert_eq!((log_threads(), world.disk.list(&node_folder()).unwrap().len()), (threads, folders));
        until("the tasks to end", async || tasks() <= tasks_before).await;
        let seen = parts.check("all are gone").await;
        assert_eq!((seen.sealed.len(), seen.loaded.len()), (30, 0), "what was in their logs is in segments");
    });
    life.stop();
}

/// Scenario: a cluster with records in memory and in its log is closed while the store is away, and again when it is back. Guarantee: the
/// first try says what is left and loses nothing; meanwhile the cluster takes no records and cannot be opened, others go on; the second try
/// ends with all records in segments and the folder gone.
#[test]
fn a_log_is_not_closed_before_its_records_are_in_segments() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        parts.ship_all(&[(0, 5), (1, 4), (2, 3)]).await;
        world.script.set_down(true);
        let closed = parts.logs.close(cluster(0), Duration::from_millis(300)).await;
        assert!(
            matches!(&closed, Err(error @ LogError::NotSettled { records: 9, files: 1, .. }) if error.is_passing()),
            "{closed:?}"
        );
        assert!(matches!(parts.logs.open(cluster(0)).await, Err(LogError::Closing(id)) if id == cluster(0)));
        assert_eq!(parts.ship(0, 3).await.unwrap_err().code(), Code::Unavailable);
        parts.ship(2, 3).await.expect("another cluster goes on");
        parts.check("the store is away").await;
        world.script.set_down(false);
        soon("closing", parts.logs.close(cluster(0), PATIENCE)).await.unwrap();
        assert!(!world.disk.list(&node_folder()).unwrap().contains(&folder(cluster(0))));
        let seen = parts.check("it is closed").await;
        assert_eq!((seen.sealed.len(), seen.loaded.len()), (9, 6));
        assert_eq!(parts.ship(0, 3).await.unwrap_err().code(), Code::Unavailable);
        // The same id again is a log like any other.
        parts.logs.open(cluster(0)).await.unwrap();
        parts.ship(0, 3).await.unwrap();
    });
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        parts.check("after a restart").await;
        soon("closing after a restart", parts.logs.close(cluster(0), PATIENCE)).await.unwrap();
        parts.check("closed after a restart").await;
    });
    life.stop();
}

/// Scenario: a cluster is closed right after a start, while its log is still to be replayed. Guarantee: the replay comes to its end first.
#[test]
fn a_log_is_replayed_before_it_is_closed() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| parts.ship_all(&[(0, 5), (1, 4), (0, 3)]).await);
    life.kill();
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        soon("closing", parts.logs.close(cluster(0), PATIENCE)).await.unwrap();
        let seen = parts.check("it is closed").await;
        assert_eq!(seen.sealed.len(), 12);
    });
    life.stop();
}
