//! A write or sync of the log that fails: its records are nowhere, whatever comes after.

use std::io::ErrorKind;
use std::sync::Arc;

use logseal_testkit::disk::Operation;
use tonic::Code;

use crate::counters::alone;
use crate::life::{Life, Parts};
use crate::records::Id;
use crate::settings::Settings;
use crate::world::{World, cluster, soon, until};

/// Waits until the log of the first cluster is idle and attested: then no sync comes but that of the next request.
async fn attested(parts: &Parts, syncs: u64) {
    until("the attestation", async || parts.world.disk.calls(Operation::Sync) > syncs).await;
}

/// Ships records around a failure of `operation`; those that were refused.
fn fail_once(life: &Life, operation: Operation) -> Vec<Id> {
    life.run(async |parts| {
        let disk = &parts.world.disk;
        parts.ship(0, 3).await.unwrap();
        attested(parts, disk.calls(Operation::Sync)).await;
        let files = parts.world.log_files(cluster(0));

        disk.fail(operation, 0, ErrorKind::Other);
        let refused = parts.new_records(0, 3);
        let status = parts.send(&refused, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(disk.failures(operation), 1, "the failure is the one that was planted");
        nowhere(parts, &refused, "after the refusal").await;

        soon("taking again", parts.log(cluster(0)).taking()).await;
        parts.ship(0, 3).await.unwrap();
        nowhere(parts, &refused, "after a later success").await;
        let later: Vec<_> =
            parts.world.log_files(cluster(0)).into_iter().filter(|file| !files.contains(file)).collect();
        assert_eq!((files.len(), later.len()), (1, 1), "the next request went to a new file");
        assert_eq!(parts.backlog.totals().records, 6);
        refused
    })
}

async fn nowhere(parts: &Parts, refused: &[Id], when: &str) {
    let seen = parts.check(when).await;
    let counts = seen.counts();
    assert!(refused.iter().all(|id| !counts.contains_key(id)), "{when}: refused records are seen: {seen:?}");
}

/// Scenario: a write or a sync fails with a group already scanned, a later one succeeds, then the process is killed or the power
/// fails. Guarantee: `UNAVAILABLE`; the group's records are neither pinned for queries nor in a segment, then and after the
/// restart; the log goes on in a new file.
#[test]
fn records_of_a_failed_write_or_sync_are_nowhere() {
    let _alone = alone();
    for operation in [Operation::Write, Operation::Sync] {
        for power_fails in [None, Some(1), Some(2), Some(3)] {
            let world = Arc::new(World::new());
            let life = world.start(&Settings::default());
            let refused = fail_once(&life, operation);
            match power_fails {
                None => life.kill(),
                Some(seed) => life.power_failure(seed),
            }
            let life = world.start(&Settings::cut_at_once());
            life.run(async |parts| {
                parts.sealed().await;
                nowhere(parts, &refused, &format!("{operation:?}, {power_fails:?}, after a restart")).await;
                assert_eq!(parts.query().await.sealed.len(), 6);
            });
            life.stop();
        }
    }
}

/// Scenario: the only sync of a file fails, again and again. Guarantee: the files without a single record do not stay on the disk.
#[test]
fn files_that_never_took_a_record_are_deleted() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        // The first write is that of a header, before the first request and then no more: the log has made a file by itself.
        for header_writes in [1, 0, 0] {
            soon("taking", parts.log(cluster(0)).taking()).await;
            world.disk.fail(Operation::Write, header_writes, ErrorKind::Other);
            assert_eq!(parts.ship(0, 1).await.unwrap_err().code(), Code::Unavailable);
        }
        soon("taking", parts.log(cluster(0)).taking()).await;
        until("one file", async || world.log_files(cluster(0)).len() == 1).await;
        parts.ship(0, 1).await.unwrap();
        parts.sealed().await;
        parts.check("at the end").await;
    });
    life.stop();
}
