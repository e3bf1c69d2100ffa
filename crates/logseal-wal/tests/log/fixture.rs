//! What the tests share: fixed ids and keys, a registry that can fail, requests that follow from a number.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use logseal_core::{AekId, Clock, ClusterId, IdGenerator, NodeId, TableId, UnixNanos, WalFileId, WorkspaceId};
use logseal_crypto::{Aek, Key256, Lease, OsRandom};
use logseal_testkit::SimulatedDisk;
use logseal_wal::{
    Bound, CompressedBody, Damage, Disk, Entry, FileHeader, FileKeys, FileReader, FileRegistry, FileSurvey,
    FolderSurvey, Item, Known, Part, Position, Predecessor, Writer, WriterParts, WriterSettings, survey_file,
    survey_folder,
};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xC1; 16]);
pub(crate) const NODE: NodeId = NodeId::from_bytes([0xA0; 16]);

/// The folder of [`CLUSTER`] on [`NODE`].
pub(crate) fn folder() -> PathBuf {
    folder_of(CLUSTER)
}

pub(crate) fn folder_of(cluster: ClusterId) -> PathBuf {
    Path::new("wal").join(NODE.to_string()).join(cluster.to_string())
}

/// The AEK of workspace `n`.
pub(crate) fn aek(n: u8) -> Arc<Aek> {
    let key = Key256::copy_from_slice(&[n; 32]).unwrap();
    Arc::new(Aek::new(AekId::from_bytes([n ^ 0x40; 16]), workspace(n), 1, key, Lease::unlimited()))
}

pub(crate) fn workspace(n: u8) -> WorkspaceId {
    WorkspaceId::from_bytes([n; 16])
}

/// Unwraps for the workspaces 1 to 9.
pub(crate) fn unwrap(id: AekId) -> Option<Arc<Aek>> {
    (1..10).map(aek).find(|aek| aek.id() == id)
}

/// The bytes of request `n`.
pub(crate) fn request(n: u64) -> Vec<u8> {
    let words = (0..n % 23).map(|word| format!("request {n} word {word} of a log line; "));
    format!("request {n}: {}", words.collect::<String>()).into_bytes()
}

/// Request `n`, of one of three workspaces.
pub(crate) fn entry(n: u64) -> Entry {
    let parts = (0..=n % 2).map(|table| part(table as u8 + 1, n as u32 + 1));
    Entry {
        aek: aek(1 + (n % 3) as u8),
        received: UnixNanos(1_000 + n as i64),
        scan_version: 7,
        parts: parts.collect(),
        body: CompressedBody::compress(&request(n).into()),
    }
}

pub(crate) fn part(table: u8, records: u32) -> Part {
    Part { table: TableId::from_bytes([table; 16]), records }
}

#[derive(Debug, Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> UnixNanos {
        UnixNanos(1_700_000_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The catalog's part: survives crashes, refuses on command.
#[derive(Debug, Default)]
pub(crate) struct TestRegistry {
    pub(crate) known: Mutex<HashMap<WalFileId, [u8; 32]>>,
    pub(crate) refuse: AtomicI64,
    pub(crate) calls: AtomicI64,
}

impl FileRegistry for TestRegistry {
    fn register(&self, header: &FileHeader, header_hash: [u8; 32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.refuse.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Err("the catalog is away".into());
        }
        let before = self.known.lock().unwrap().insert(header.file, header_hash);
        assert!(before.is_none_or(|before| before == header_hash), "a file is registered with one header only");
        Ok(())
    }
}

/// A disk, a registry, and writers over them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) disk: SimulatedDisk,
    pub(crate) registry: Arc<TestRegistry>,
}

impl Log {
    pub(crate) fn writer(&self, predecessor: Option<Predecessor>, file_bytes: u64) -> Writer {
        self.writer_of(CLUSTER, predecessor, file_bytes)
    }

    pub(crate) fn writer_of(&self, cluster: ClusterId, predecessor: Option<Predecessor>, file_bytes: u64) -> Writer {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        Writer::new(WriterParts {
            disk: Arc::new(self.disk.clone()),
            folder: folder_of(cluster),
            cluster,
            node: NODE,
            predecessor,
            registry: Arc::clone(&self.registry) as Arc<dyn FileRegistry>,
            ids: IdGenerator::new(Arc::clone(&clock), Arc::new(OsRandom)),
            clock,
            settings: WriterSettings { file_bytes },
        })
    }

    /// What the registry knows of a file, and that `attested` was durable.
    pub(crate) fn known(&self, file: WalFileId, attested: u64) -> Known {
        Known { attested, header_hash: self.registry.known.lock().unwrap().get(&file).copied() }
    }

    pub(crate) fn survey(&self) -> FolderSurvey {
        survey_folder(&self.disk, &folder(), &|file| self.known(file, 0)).unwrap()
    }
}

/// What a file gives: its entries, opened, and the damages.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Given {
    pub(crate) entries: Vec<(Position, Vec<u8>)>,
    pub(crate) damages: Vec<Damage>,
}

/// Reads a file up to `end` and opens every entry.
pub(crate) fn read(disk: &dyn Disk, path: &Path, end: u64) -> Given {
    let mut reader = FileReader::open(disk, path).unwrap();
    reader.until(end);
    let mut keys = FileKeys::new(reader.header());
    let file = reader.header().file;
    let mut given = Given::default();
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Key(key) => keys.add(&key, &unwrap).unwrap(),
            Item::Entry(entry) => {
                let position = Position { file, sequence: entry.sequence };
                given.entries.push((position, entry.open(&keys).unwrap()));
            }
            Item::Attestation(_) => {}
            Item::Damage(damage) => given.damages.push(damage),
            Item::Torn(_) => panic!("with an end there is no torn tail"),
        }
    }
    given
}

/// Surveys a file and reads what counts in it; both must find the same damages.
pub(crate) fn judge(disk: &dyn Disk, path: &Path, bound: &Bound) -> (FileSurvey, Given) {
    let survey = survey_file(disk, path, bound).unwrap();
    let given = read(disk, path, survey.end);
    assert_eq!(given.damages, survey.damages, "reader and survey agree");
    assert_eq!(given.entries.len() as u64, survey.entries, "reader and survey agree");
    (survey, given)
}

/// A place of its own for a file, so that surveys of alterations do not disturb each other.
pub(crate) fn put(disk: &SimulatedDisk, file: WalFileId, bytes: Vec<u8>) -> PathBuf {
    let path = folder().join(format!("{file}.wal"));
    disk.put(&path, bytes);
    path
}

/// Path of a file of the folder.
pub(crate) fn path_of(file: WalFileId) -> PathBuf {
    folder().join(format!("{file}.wal"))
}
