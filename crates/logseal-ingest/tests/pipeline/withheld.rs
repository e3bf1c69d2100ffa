//! A workspace of which a row in the catalog was altered: its records wait in the log, and everybody else's go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use logseal_core::WalFileId;
use logseal_ingest::pipeline::frames::{FrameReader, FramesError, Range};
use tokio::runtime::Runtime;
use tonic::Code;

use crate::counters::alone;
use crate::life::Parts;
use crate::records::Id;
use crate::recovering::{counts, since};
use crate::settings::Settings;
use crate::world::{World, cluster, soon, until, workspace};

/// What is altered of the first workspace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Altered {
    Key,
    Column,
}

impl Altered {
    /// Bytes that are in its row and nowhere else.
    async fn needle(self, parts: &Parts) -> Vec<u8> {
        match self {
            Self::Key => parts.catalog.aeks_of(workspace(0)).await.unwrap().remove(0).wrapped,
            Self::Column => parts.catalog.schema(workspace(0)).await.unwrap().columns.remove(0).name_sealed,
        }
    }
}

/// Puts `to` in the place of `from` in the catalog's file, which no life has open.
pub(crate) fn exchange(world: &World, from: &[u8], to: &[u8]) {
    let journal = world.catalog_file().with_extension("sqlite-wal");
    let folded = until("the journal in the file", async || {
        world.catalog().await.close().await.unwrap();
        !journal.exists()
    });
    Runtime::new().unwrap().block_on(soon("the catalog", folded));
    let mut file = std::fs::read(world.catalog_file()).unwrap();
    let places: Vec<_> = (0..file.len() - from.len()).filter(|at| file[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "it is in the file");
    places.iter().for_each(|at| file[*at..*at + to.len()].copy_from_slice(to));
    std::fs::write(world.catalog_file(), file).unwrap();
}

/// The records of one file that `wanted` workspaces have in it.
async fn read(parts: &Parts, path: &Path, wanted: &[u8]) -> Result<usize, FramesError> {
    let file: WalFileId = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let range = Range { file, path: path.to_owned(), first: 1, last: u64::MAX };
    let mut reader = FrameReader::open(&parts.frames, &range).await?;
    let wanted: Vec<_> = wanted.iter().map(|n| workspace(*n)).collect();
    let mut records = 0;
    while let Some(lot) = reader.next(|_, of, _| wanted.contains(&of)).await? {
        let rows = lot.into_iter().filter_map(|frame| frame.rows.ok()).flatten();
        records += rows.flat_map(|rows| rows.chunks).map(|chunk| chunk.batch.num_rows()).sum::<usize>();
    }
    Ok(records)
}

/// Scenario: two workspaces of one cluster have records in the log, in one file or in several, when the process is killed; then the row of
/// one's account key, or of one of its columns, is altered; two starts later it is repaired. Guarantee: the other workspace's records are
/// loaded and sealed, and its new ones taken, at each start; requests of the altered one are told to come back; its records are neither in
/// quarantine nor settled, and the start after the repair has each of them, once. Then the log's files go.
#[test]
fn records_of_a_workspace_that_is_not_available_wait_in_the_log() {
    let _alone = alone();
    for (altered, file_bytes) in
        [Altered::Key, Altered::Column].into_iter().flat_map(|what| [(what, 1), (what, 1 << 20)])
    {
        let case = format!("{altered:?}, {file_bytes}");
        let world = Arc::new(World::new());
        let life = world.start(&Settings { file_bytes, ..Settings::default() });
        let needle = life.run(async |parts| {
            for n in [0, 1, 0, 1] {
                parts.ship(n, 3).await.unwrap();
            }
            altered.needle(parts).await
        });
        life.kill();
        let files = world.log_files(cluster(0));
        assert_eq!(files.len(), if file_bytes == 1 { 4 } else { 1 }, "{case}");
        let mut wrong = needle.clone();
        wrong[20] ^= 1;
        exchange(&world, &needle, &wrong);

        let before = counts();
        for start in ["first", "second"] {
            let life = world.start(&Settings { file_bytes, ..Settings::cut_at_once() });
            life.run(async |parts| {
                parts.sealed().await;
                let refused = parts.ship(0, 3).await.unwrap_err();
                assert_eq!(refused.code(), Code::Unavailable, "{case}, {start}");
                parts.ship(1, 3).await.unwrap();
                parts.sealed().await;
                parts.cutter.flush().await;
                let seen: BTreeSet<Id> = parts.query_one(1).await.sealed.into_iter().collect();
                let acknowledged = world.ledger.lock().unwrap().acknowledged.clone();
                let others: BTreeSet<Id> = acknowledged.into_iter().filter(|id| id.workspace == 1).collect();
                assert_eq!(seen, others, "{case}, {start}");
                let coverage = parts.catalog.coverage().await.unwrap();
                assert!(coverage.iter().all(|row| row.segment.is_some()), "{case}, {start}: {coverage:?}");
                if altered == Altered::Key {
                    assert!(parts.keyring.refusal(workspace(0)).is_some(), "{case}, {start}");
                    read(parts, &files[0], &[1]).await.expect("a key that nobody needs does not matter");
                    let needed = read(parts, &files[0], &[0, 1]).await;
                    assert!(matches!(needed, Err(FramesError::Key { .. })), "{case}, {start}: {needed:?}");
                }
            });
            let left = world.log_files(cluster(0));
            assert!(files.iter().all(|file| left.contains(file)), "{case}, {start}: {left:?}");
            life.stop();
        }
        assert_eq!((since(before), world.quarantined()), ([0, 0, 0], vec![]), "{case}");

        exchange(&world, &wrong, &needle);
        let life = world.start(&Settings { file_bytes, ..Settings::cut_at_once() });
        life.run(async |parts| {
            parts.sealed().await;
            let seen = parts.check(&case).await;
            assert_eq!(seen.sealed.iter().filter(|id| id.workspace == 0).count(), 6, "{case}");
            parts.ship(0, 3).await.unwrap();
            until("the old files to go", async || world.log_files(cluster(0)).iter().all(|file| !files.contains(file)))
                .await;
        });
        life.stop();
    }
}
