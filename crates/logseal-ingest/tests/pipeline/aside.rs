//! What goes into quarantine is copied, noted and counted once, however often that fails or is repeated.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use logseal_catalog::{Catalog, CoverageRow};
use logseal_core::{AekId, TableId};
use logseal_ingest::meter;
use logseal_ingest::pipeline::quarantine::{Quarantine, QuarantineError};
use logseal_ingest::pipeline::stream::StreamKey;
use logseal_testkit::disk::{Operation, SimulatedDisk};
use logseal_wal::{Disk, DiskFile, Position, SealedEntry, Space, WalError};
use tokio::runtime::Runtime;

use crate::counters::{alone, counted};
use crate::recovering::{counts, killed, sealed_entries, since};
use crate::settings::Settings;
use crate::world::{QUARANTINE, World, until};

/// The log of a killed life, and a quarantine for its frames.
struct Scene {
    world: Arc<World>,
    source: PathBuf,
    entries: Vec<SealedEntry>,
    catalog: Catalog,
    quarantine: Quarantine,
}

impl Scene {
    async fn new(world: Arc<World>, source: PathBuf, disk: Arc<dyn Disk>) -> Self {
        let catalog = world.catalog().await;
        let quarantine = Quarantine::new(disk, QUARANTINE.into(), catalog.clone());
        Self { entries: sealed_entries(&world, &source), source, catalog, quarantine, world }
    }

    fn position(&self, entry: usize) -> Position {
        let file = self.source.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        Position { file, sequence: self.entries[entry].sequence }
    }

    /// The one stream of `entry`: of the first workspace, whose AEK has this id in the test's world.
    fn stream(&self, entry: usize) -> StreamKey {
        StreamKey { table: self.entries[entry].parts[0].table, aek: AekId::from_bytes([0x40; 16]) }
    }

    async fn put(&self, entry: usize) -> Result<PathBuf, QuarantineError> {
        self.quarantine.frame(&self.source, self.position(entry), &[self.stream(entry)]).await
    }

    async fn noted(&self) -> Vec<CoverageRow> {
        self.catalog.coverage().await.unwrap()
    }
}

/// Scenario: copying a frame fails at its sync, then half a copy of an earlier life is in the way, then all is repeated. Guarantee: an
/// error each time until the copy is durable, and no note before; then one copy, one note, one count.
#[test]
fn a_frame_is_copied_noted_and_counted_once() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (source, _) = killed(&world);
    let before = counted(meter::QUARANTINED);
    Runtime::new().unwrap().block_on(async {
        let disk = Arc::new(world.disk.clone());
        let scene = Scene::new(world, source, disk).await;
        let disk = &scene.world.disk;
        disk.fail(Operation::Sync, 0, ErrorKind::Other);
        assert!(matches!(scene.put(0).await, Err(QuarantineError::Copy(WalError::Io { .. }))));
        assert_eq!((scene.noted().await, counted(meter::QUARANTINED)), (vec![], before));
        let aside = scene.put(0).await.unwrap();
        for attempt in 0..2 {
            let StreamKey { table, aek } = scene.stream(0);
            let Position { file, sequence } = scene.position(0);
            let row = CoverageRow { file, table, aek, first: sequence, last: sequence, segment: None };
            assert_eq!(scene.noted().await, [row], "attempt {attempt}");
            assert_eq!(counted(meter::QUARANTINED), before + 1, "attempt {attempt}");
            assert_eq!(scene.world.quarantined(), std::slice::from_ref(&aside), "attempt {attempt}");
            assert_eq!(scene.put(0).await.unwrap(), aside, "attempt {attempt}");
        }

        let Position { file, sequence } = scene.position(1);
        let half = Path::new(QUARANTINE).join(format!("{file}.{sequence}-{sequence}.wal"));
        disk.put(&half, disk.bytes(&aside).unwrap()[..700].to_vec());
        assert_eq!(scene.put(1).await.unwrap(), half);
        assert_eq!(counted(meter::QUARANTINED), before + 2);
        let copied: Vec<_> = sealed_entries(&scene.world, &half).iter().map(|entry| entry.sequence).collect();
        assert_eq!(copied, [sequence], "the copy is whole");
        assert!(scene.quarantine.has(file, sequence, sequence).await);
        assert!(!scene.quarantine.has(file, sequence + 100, sequence + 100).await);
        scene.catalog.close().await.unwrap();
    });
}

/// Scenario: the log's file is gone; copying panics; a table is not in the catalog. Guarantee: nothing is noted without a copy; what the
/// catalog refuses is told apart from what passes, and takes the frame's other streams not with it.
#[test]
fn no_frame_is_noted_without_its_copy() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (source, _) = killed(&world);
    let before = counted(meter::QUARANTINED);
    Runtime::new().unwrap().block_on(async {
        let disk = Arc::new(PanicsOnce { disk: world.disk.clone(), due: AtomicBool::new(true) });
        let scene = Scene::new(world, source, disk).await;
        let gone = scene.quarantine.frame(Path::new("wal/gone.wal"), scene.position(0), &[scene.stream(0)]).await;
        assert!(matches!(gone, Err(QuarantineError::Copy(_))), "{gone:?}");
        let broken = scene.put(0).await;
        assert!(matches!(broken, Err(QuarantineError::Broken)), "{broken:?}");
        assert_eq!((scene.noted().await, counted(meter::QUARANTINED)), (vec![], before));

        let unknown = StreamKey { table: TableId::from_bytes([0xEE; 16]), ..scene.stream(0) };
        let streams = [unknown, scene.stream(0)];
        let refused = scene.quarantine.frame(&scene.source, scene.position(0), &streams).await;
        let Err(QuarantineError::Note { aside, source }) = refused else { panic!("{refused:?}") };
        assert!(source.is_decision(), "{source:?}");
        assert_eq!(scene.world.quarantined(), [aside]);
        let noted: Vec<_> = scene.noted().await.iter().map(|row| row.table).collect();
        assert_eq!((noted, counted(meter::QUARANTINED)), (vec![scene.stream(0).table], before + 1));

        scene.catalog.close().await.unwrap();
        let stopped = scene.put(1).await;
        let Err(QuarantineError::Note { source, .. }) = stopped else { panic!("{stopped:?}") };
        assert!(!source.is_decision(), "a catalog that is closed decides nothing: {source:?}");
    });
}

/// Scenario: two frames are damaged; copying the second one fails at first; later the process is killed and starts again. Guarantee: both
/// damages and both copies are counted once through failure and restart, and the frame behind them is recovered each time.
#[test]
fn damage_is_counted_once_through_failures_and_restarts() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let (file, records) = killed(&world);
    let mut bytes = world.disk.bytes(&file).unwrap();
    for entry in &sealed_entries(&world, &file)[..2] {
        bytes[entry.offset as usize + entry.frame_bytes() - 1] ^= 1;
    }
    world.disk.put(&file, bytes);
    let before = counts();
    world.disk.fail(Operation::Create, 1, ErrorKind::Other);
    for start in ["with a failing copy", "again"] {
        let life = world.start(&Settings::default());
        life.run(async |parts| {
            until("the replay", async || parts.query().await.loaded.len() == 1).await;
            assert_eq!(parts.query().await.loaded, records[2..], "{start}");
        });
        assert_eq!(world.disk.failures(Operation::Create), 1, "{start}");
        assert_eq!(since(before), [2, 0, 2], "{start}");
        assert_eq!(world.quarantined().len(), 2, "{start}");
        life.kill();
    }
}

/// A disk on which making a file panics, once.
#[derive(Debug)]
struct PanicsOnce {
    disk: SimulatedDisk,
    due: AtomicBool,
}

#[deny(clippy::missing_trait_methods)]
impl Disk for PanicsOnce {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        assert!(!self.due.swap(false, Ordering::Relaxed), "as the test asked for");
        self.disk.create_new(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.disk.create_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_dir(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        self.disk.remove_dir(folder)
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        self.disk.space(folder)
    }
}
