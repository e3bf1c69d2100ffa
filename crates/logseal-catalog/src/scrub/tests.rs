//! The bytes of deleted keys, looked for in all files beside the catalog.

use std::path::Path;

use logseal_core::{AekId, ClusterId, UnixNanos};

use super::*;
use crate::catalog::tests::{WORKSPACE, filled};
use crate::{AekRow, Change, ClusterRow, KekRow};

/// Numbers that look like chance and are the same in each run (xorshift, as in Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }

    /// As RSA keys of 2048, 3072 and 4096 bits wrap.
    fn wrapped(&mut self) -> Vec<u8> {
        let len = [256, 384, 512][self.roll(3)];
        self.bytes(len)
    }
}

/// How many of the keys have left a trace: any 32 bytes in a row, from a multiple of 32 on.
fn traces(dir: &Path, keys: &[Vec<u8>]) -> usize {
    let files: Vec<Vec<u8>> =
        std::fs::read_dir(dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    let seen: std::collections::HashSet<&[u8]> = files.iter().flat_map(|file| file.windows(32)).collect();
    keys.iter().filter(|key| key.chunks_exact(32).any(|part| seen.contains(part))).count()
}

/// Scenario: hundreds of keys of several sizes come, are wrapped anew and are shredded in no order, while the catalog is read; then
/// it is scrubbed. Guarantee: each wrapped key was there, nothing of a deleted or replaced one is in any file afterwards, and all
/// others are whole.
///
/// With SQLite 3.51 two of these keys stay in the file when the journal is folded and the tables are not written anew.
#[tokio::test]
async fn a_scrubbed_catalog_has_no_trace_of_deleted_keys() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let cluster = ClusterId::from_bytes([0x51; 16]);
    let kek = KekRow { vault_uri: "https://vault".into(), name: "kek".into(), version: "1".into() };
    let row = ClusterRow { id: cluster, name: "c".into(), created: UnixNanos(1), kek: kek.clone() };
    catalog.apply(Change::AddCluster(row)).await.unwrap();
    let (mut dice, mut live, mut dead) = (Dice(0x9E37_79B9_7F4A_7C15), Vec::<AekRow>::new(), Vec::new());
    for round in 0..60_u32 {
        let mut changes = Vec::new();
        for step in 0..12 {
            let row = AekRow {
                id: AekId::from_bytes(dice.bytes(16).try_into().unwrap()),
                workspace: WORKSPACE,
                cluster,
                generation: 100 + round * 20 + step,
                kek: KekRow { vault_uri: "u".repeat(dice.roll(200)), ..kek.clone() },
                wrapped: dice.wrapped(),
                commitment: dice.bytes(32),
                created: UnixNanos(1),
            };
            live.push(row.clone());
            changes.push(Change::AddAek(row));
        }
        let gone: Vec<_> = (0..6).map(|_| live.swap_remove(dice.roll(live.len()))).collect();
        changes.push(Change::ShredAeks { aeks: gone.iter().map(|row| row.id).collect(), at: UnixNanos(2) });
        dead.extend(gone.into_iter().map(|row| row.wrapped));
        if round % 20 == 19 {
            let kek = KekRow { version: format!("{round}"), vault_uri: "v".repeat(dice.roll(200)), ..kek.clone() };
            dead.extend(live.iter().map(|row| row.wrapped.clone()));
            for row in &mut live {
                row.kek = kek.clone();
                row.wrapped = dice.wrapped();
            }
            changes.push(Change::SwitchKek { cluster, kek, aeks: live.clone() });
        }
        catalog.apply(Change::All(changes)).await.unwrap();
        assert_eq!(catalog.aeks_of_cluster(cluster).await.unwrap().len(), live.len());
    }
    assert!(traces(dir.path(), &dead) > 500, "they were there");
    catalog.scrub().await.unwrap();
    assert_eq!(traces(dir.path(), &dead), 0);
    let kept: Vec<_> = live.iter().map(|row| row.wrapped.clone()).collect();
    assert_eq!(traces(dir.path(), &kept), live.len());
    live.sort_by_key(|row| row.generation);
    assert_eq!(catalog.aeks_of_cluster(cluster).await.unwrap(), live);
    assert_eq!(catalog.workspace_keys().await.unwrap().len(), 1);
    let stray = AekRow { id: AekId::from_bytes([1; 16]), cluster: ClusterId::from_bytes([9; 16]), ..live.remove(0) };
    assert!(catalog.apply(Change::AddAek(stray)).await.is_err());
    let refused = catalog.apply(Change::RemoveCluster { cluster }).await;
    assert!(matches!(refused, Err(CatalogError::Invalid { .. })), "references are heeded again: {refused:?}");
}

/// Scenario: something reads an older state of the catalog for as long as it is being scrubbed; then it ends. Guarantee: the scrub
/// fails as one to be repeated, changes go on meanwhile, and the next one succeeds.
#[tokio::test]
async fn a_reader_that_stays_lets_a_scrub_fail_but_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let mut moment = catalog.readers.begin().await.unwrap();
    moment.fetch_all("SELECT * FROM aeks").await.unwrap();
    let add = |path: &str| Change::AddGarbage { paths: vec![path.to_owned()], at: UnixNanos(1) };
    catalog.apply(add("a")).await.unwrap();
    let (scrubbed, applied) = tokio::join!(catalog.scrub_within(Duration::from_millis(300)), catalog.apply(add("b")));
    let error = scrubbed.unwrap_err();
    assert!(matches!(error, CatalogError::Unscrubbed) && error.is_storage() && !error.is_decision(), "{error:?}");
    applied.unwrap();
    moment.rollback().await.unwrap();
    catalog.scrub().await.unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("catalog.sqlite-wal")).unwrap().len(), 0);
    assert_eq!(catalog.garbage(UnixNanos(2), 10).await.unwrap().len(), 2);
}
