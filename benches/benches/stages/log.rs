//! The log's stage: a group of requests compressed, sealed, appended to a real file and synced.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use logseal_bench::Payload;
use logseal_benches::{IDENTITY, aek, request};
use logseal_core::{IdGenerator, NodeId, SystemClock, UnixNanos};
use logseal_crypto::{Aek, OsRandom};
use logseal_wal::{
    CompressedBody, Disk, DiskFile, Entry, FileHeader, FileRegistry, Part, Space, SystemDisk, Writer, WriterParts,
    WriterSettings,
};

/// Requests that wait for one sync.
const GROUP: u64 = 8;

/// For each payload once with the sync, which waits for the disk, and once without it, which is the CPU's part.
pub(crate) fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append to the log");
    group.sample_size(20);
    for payload in [Payload::A, Payload::B, Payload::C] {
        let requests: Vec<Bytes> = (0..GROUP).map(|index| request(payload, index).into()).collect();
        group.throughput(Throughput::Elements(GROUP * payload.default_batch() as u64));
        let disks: [(&str, Arc<dyn Disk>); 2] = [("fsync", Arc::new(SystemDisk)), ("no fsync", Arc::new(Unsynced))];
        for (name, disk) in disks {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut log = Log::new(disk, folder.path());
            group.bench_function(format!("{payload}, {name}"), |bencher| bencher.iter(|| log.write(&requests)));
        }
    }
    group.finish();
}

struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    aek: Arc<Aek>,
    writer: Writer,
}

impl Log {
    fn new(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        let clock = Arc::new(SystemClock);
        let ids = IdGenerator::new(Arc::<SystemClock>::clone(&clock), Arc::new(OsRandom));
        let writer = Writer::new(WriterParts {
            disk: Arc::clone(&disk),
            folder: folder.to_owned(),
            cluster: IDENTITY.cluster,
            node: NodeId::from_bytes([6; 16]),
            predecessor: None,
            registry: Arc::new(Unregistered),
            ids,
            clock,
            settings: WriterSettings::default(),
        });
        Self { disk, folder: folder.to_owned(), aek: Arc::new(aek()), writer }
    }

    /// Writes one group; files that are full are removed, as they are when their records are in segments.
    fn write(&mut self, requests: &[Bytes]) {
        for request in requests {
            let records = logseal_otlp::framed_records(request).unwrap_or_default();
            let entry = Entry {
                aek: Arc::clone(&self.aek),
                received: UnixNanos(0),
                scan_version: 1,
                parts: vec![Part { table: IDENTITY.table, records: records as u32 }],
                body: CompressedBody::compress(request),
            };
            self.writer.append(&entry).expect("a disk with room");
        }
        self.writer.sync().expect("a disk with room");
        for closed in self.writer.take_closed() {
            self.disk.remove(&self.folder.join(format!("{}.wal", closed.file))).expect("a file of ours");
        }
    }
}

/// Nobody asks for the files here.
#[derive(Debug)]
struct Unregistered;

impl FileRegistry for Unregistered {
    fn register(&self, _: &FileHeader, _: [u8; 32]) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// The operating system's file system, but what is written is never waited for.
#[derive(Debug)]
struct Unsynced;

#[derive(Debug)]
struct UnsyncedFile(Box<dyn DiskFile>);

impl Disk for Unsynced {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(SystemDisk.create_new(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        SystemDisk.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        SystemDisk.create_dir_all(folder)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }

    fn remove_dir(&self, folder: &Path) -> io::Result<()> {
        SystemDisk.remove_dir(folder)
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        SystemDisk.space(folder)
    }
}

impl DiskFile for UnsyncedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, out)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}
