//! Frames of the log back to rows, by the same scan that read them first.
//!
//! Used by the replay and by queries. Files are read on blocking threads, scans run on the compute threads, and what is in memory at
//! a time is one bounded lot of frames.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use logseal_catalog::CoverageRow;
use logseal_core::{AekId, ClusterId, TableId, UnixNanos, WalFileId, WorkspaceId, stack};
use logseal_crypto::Aek;
use logseal_keys::{KeyError, Keyring};
use logseal_otlp::{ScanLimits, TableChunk};
use logseal_wal::{Disk, FileKeys, FileReader, Item, Part as FramePart, Position, SealedEntry, WalError};
use rayon::prelude::*;
use thiserror::Error;

use super::stream::{Stream, StreamKey, memory_bytes};
use super::tables::{Table, Tables};
use crate::cpu;

/// Bytes of requests, as they were before compression, that are read and scanned together: enough to keep the cores busy.
const LOT_BYTES: usize = 8 * 1024 * 1024;

/// Frames of a lot at the most: small ones weigh more in columns than in bytes.
const LOT_FRAMES: usize = 1024;

/// Which frames are in segments or in quarantine.
#[derive(Clone, Debug, Default)]
pub struct Coverage(HashMap<(WalFileId, StreamKey), Vec<(u64, u64)>>);

impl Coverage {
    /// What `rows` of the catalog say.
    #[must_use]
    pub fn new(rows: &[CoverageRow]) -> Self {
        let mut ranges: HashMap<_, Vec<(u64, u64)>> = HashMap::new();
        for row in rows {
            let stream = StreamKey { table: row.table, aek: row.aek };
            ranges.entry((row.file, stream)).or_default().push((row.first, row.last));
        }
        ranges.values_mut().for_each(|ranges| ranges.sort_unstable());
        Self(ranges)
    }

    /// Whether the rows that the frame at `position` has for `stream` are covered.
    #[must_use]
    pub fn covers(&self, position: Position, stream: StreamKey) -> bool {
        let Some(ranges) = self.0.get(&(position.file, stream)) else { return false };
        let after = ranges.partition_point(|(first, _)| *first <= position.sequence);
        after.checked_sub(1).is_some_and(|index| ranges[index].1 >= position.sequence)
    }
}

/// Which part of a file is read.
#[derive(Clone, Debug)]
pub struct Range {
    /// The file.
    pub file: WalFileId,
    /// Where it is.
    pub path: PathBuf,
    /// The first frame.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// What is needed to open and scan frames.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The log's disk.
    pub disk: Arc<dyn Disk>,
    /// Where AEKs come from.
    pub keyring: Arc<Keyring>,
    /// What scans assign; all of it is in the catalog already for frames of the log.
    pub tables: Arc<Tables>,
    /// Bounds of a scan, the same as for new requests.
    pub limits: Arc<ScanLimits>,
}

/// The rows of one frame for one stream.
#[derive(Debug)]
pub struct FrameRows {
    /// Where they belong.
    pub stream: Stream,
    /// The rows.
    pub chunks: Vec<TableChunk>,
}

impl FrameRows {
    /// Their size in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(memory_bytes).sum()
    }
}

/// A frame that was read.
#[derive(Debug)]
pub struct Frame {
    /// Its number in the file.
    pub sequence: u64,
    /// When the request was received.
    pub received: UnixNanos,
    /// The streams that were asked for.
    pub streams: Vec<StreamKey>,
    /// The others that it has rows for.
    pub unwanted: Vec<StreamKey>,
    /// The rows of `streams`.
    pub rows: Result<Vec<FrameRows>, BadFrame>,
}

impl Frame {
    fn without_streams(entry: &SealedEntry, unwanted: Vec<StreamKey>, rows: Result<Vec<FrameRows>, BadFrame>) -> Self {
        Self { sequence: entry.sequence, received: entry.received, streams: Vec::new(), unwanted, rows }
    }
}

/// Why a frame that is intact gives no rows.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadFrame {
    /// It does not open under its file's key, or what it holds does not decompress.
    #[error("it does not open: it was altered, or its key frames are damaged")]
    Sealed,
    /// Its request cannot be scanned any more.
    #[error("its request cannot be read as records")]
    Undecodable,
    /// Its records are not those that were counted when it was acknowledged.
    #[error("its records are not those that were acknowledged")]
    Different,
    /// Its workspace is not loaded, or its key may not be used now. Nothing is wrong with the frame.
    #[error("its workspace is not available")]
    Unavailable,
}

/// The log could not be read.
#[derive(Debug, Error)]
pub enum FramesError {
    /// The file.
    #[error("cannot read the write-ahead log")]
    Log(#[from] WalError),
    /// A frame that was asked for is under a key that cannot be had.
    #[error("the account key `{aek}` of records in the write-ahead log cannot be had")]
    Key {
        /// The key.
        aek: AekId,
        /// Whose frame it is, as the file says.
        workspace: WorkspaceId,
        /// Why it cannot be had.
        #[source]
        source: KeyError,
    },
    /// A table or column of its records could not be added.
    #[error("cannot add a table of the write-ahead log to the catalog")]
    Table(#[source] KeyError),
    /// Reading broke off.
    #[error("reading the write-ahead log broke off")]
    Broken,
}

/// Reads one file, lot by lot.
#[derive(Debug)]
pub struct FrameReader {
    frames: Frames,
    file: WalFileId,
    /// Whose log the file is of, as its header says.
    cluster: ClusterId,
    first: u64,
    reader: Option<Box<FileReader>>,
    keys: Arc<FileKeys>,
    /// Keys that cannot be had: no trouble as long as nobody wants a frame under them.
    withheld: HashMap<AekId, KeyError>,
}

/// A part of a lot before it is opened.
struct Lot {
    entries: Vec<SealedEntry>,
    new_keys: Vec<logseal_wal::KeyFrame>,
    ended: bool,
}

impl FrameReader {
    /// Opens `range`.
    ///
    /// # Errors
    ///
    /// [`FramesError`] when the file cannot be opened.
    pub async fn open(frames: &Frames, range: &Range) -> Result<Self, FramesError> {
        let (disk, path) = (Arc::clone(&frames.disk), range.path.clone());
        let mut reader = blocking(move || FileReader::open(&*disk, &path)).await??;
        reader.skip_below(range.first);
        reader.until(range.last);
        let cluster = reader.header().cluster;
        let keys = Arc::new(FileKeys::new(reader.header()));
        let (first, file, reader) = (range.first, range.file, Some(Box::new(reader)));
        Ok(Self { frames: frames.clone(), file, cluster, first, reader, keys, withheld: HashMap::new() })
    }

    /// The next lot, every intact frame of it; `None` at the end. Only streams that `wanted` says yes to are opened, and none whose key was
    /// destroyed.
    ///
    /// Damaged frames are passed over: who must know of them surveys the file first.
    ///
    /// # Errors
    ///
    /// [`FramesError`]; the reader cannot go on after it.
    pub async fn next(
        &mut self,
        wanted: impl Fn(Position, WorkspaceId, StreamKey) -> bool,
    ) -> Result<Option<Vec<Frame>>, FramesError> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let first = self.first;
        let (reader, lot) = blocking(move || read_lot(&mut reader, first).map(|lot| (reader, lot))).await??;
        self.reader = (!lot.ended).then_some(reader);
        self.learn(&lot.new_keys).await?;
        let mut jobs = Vec::with_capacity(lot.entries.len());
        let mut opened = Vec::new();
        // Of this lot only: what reads a long file must not keep a key that is destroyed meanwhile.
        let mut aeks = HashMap::new();
        for entry in lot.entries {
            let position = Position { file: self.file, sequence: entry.sequence };
            let (Some(workspace), Some(aek)) = (self.keys.workspace_of(entry.slot), self.keys.aek_of(entry.slot))
            else {
                // Both copies of its key frame are damaged: without them nobody knows whose it is.
                opened.push(Frame::without_streams(&entry, Vec::new(), Err(BadFrame::Sealed)));
                continue;
            };
            let of_stream = |part: &FramePart| StreamKey { table: part.table, aek };
            let shredded = self.frames.keyring.is_shredded(aek);
            let (streams, unwanted): (Vec<_>, Vec<_>) =
                entry.parts.iter().map(of_stream).partition(|stream| !shredded && wanted(position, workspace, *stream));
            if streams.is_empty() {
                opened.push(Frame::without_streams(&entry, unwanted, Ok(Vec::new())));
                continue;
            }
            if let Entry::Vacant(vacant) = aeks.entry(aek) {
                vacant.insert(self.aek(aek, workspace).await?);
            }
            match &aeks[&aek] {
                Availability::Shredded => {
                    let unwanted = [streams, unwanted].concat();
                    opened.push(Frame::without_streams(&entry, unwanted, Ok(Vec::new())));
                }
                Availability::There(aek) => {
                    jobs.push(Job { aek: aek.as_ref().map(Arc::clone), entry, workspace, streams, unwanted });
                }
            }
        }
        drop(aeks);
        let (frames, keys, cluster) = (self.frames.clone(), Arc::clone(&self.keys), self.cluster);
        let work = move |_: &cpu::Awaited<'_>| {
            let open = |Job { entry, workspace, aek, streams, unwanted }: Job| {
                let rows = match aek {
                    Some(aek) => rows_of(&frames, &keys, &entry, (cluster, workspace), &aek, &streams),
                    None => Err(BadFrame::Sealed),
                };
                Frame { sequence: entry.sequence, received: entry.received, streams, unwanted, rows }
            };
            jobs.into_par_iter().map(open).collect()
        };
        let with_rows: Vec<Frame> = cpu::run(work).await.map_err(|_| FramesError::Broken)?;
        opened.extend(with_rows);
        opened.sort_by_key(|frame| frame.sequence);
        Ok(Some(opened))
    }

    /// The key of a frame that is wanted.
    async fn aek(&mut self, id: AekId, workspace: WorkspaceId) -> Result<Availability, FramesError> {
        let found = match self.withheld.remove(&id) {
            Some(error) => Err(error),
            None => self.frames.keyring.aek(id).await,
        };
        match found {
            Ok(aek) => Ok(Availability::There(Some(aek))),
            // Its frames are reported one by one as not opening.
            Err(KeyError::UnknownAek(_)) => Ok(Availability::There(None)),
            Err(KeyError::Shredded(_)) => Ok(Availability::Shredded),
            Err(source) => Err(FramesError::Key { aek: id, workspace, source }),
        }
    }

    /// Takes up key frames, whose AEKs may have to be asked of the vault.
    async fn learn(&mut self, new_keys: &[logseal_wal::KeyFrame]) -> Result<(), FramesError> {
        for key in new_keys {
            let aek = match self.withheld.entry(key.aek) {
                Entry::Occupied(_) => None,
                Entry::Vacant(vacant) => match self.frames.keyring.aek(key.aek).await {
                    Ok(aek) => Some(aek),
                    Err(KeyError::UnknownAek(_) | KeyError::Shredded(_)) => None,
                    Err(error) => {
                        vacant.insert(error);
                        None
                    }
                },
            };
            let keys = Arc::get_mut(&mut self.keys).ok_or(FramesError::Broken)?;
            // A key that does not open is reported by each of its frames.
            let _ = keys.add(key, &|_| aek.as_ref().map(Arc::clone));
        }
        Ok(())
    }
}

/// What is known of a key that is needed.
enum Availability {
    /// `None` when nobody knows it.
    There(Option<Arc<Aek>>),
    /// It was destroyed.
    Shredded,
}

/// A frame to be opened.
struct Job {
    entry: SealedEntry,
    workspace: WorkspaceId,
    aek: Option<Arc<Aek>>,
    streams: Vec<StreamKey>,
    unwanted: Vec<StreamKey>,
}

fn read_lot(reader: &mut FileReader, first: u64) -> Result<Lot, WalError> {
    let mut lot = Lot { entries: Vec::new(), new_keys: Vec::new(), ended: false };
    let mut bytes = 0;
    while bytes < LOT_BYTES && lot.entries.len() < LOT_FRAMES {
        match reader.next_item()? {
            None => {
                lot.ended = true;
                break;
            }
            Some(Item::Key(key)) => lot.new_keys.push(key),
            Some(Item::Entry(entry)) if entry.sequence >= first => {
                bytes += entry.raw_bytes as usize;
                lot.entries.push(entry);
            }
            Some(_) => {}
        }
    }
    Ok(lot)
}

fn rows_of(
    frames: &Frames,
    keys: &FileKeys,
    entry: &SealedEntry,
    (cluster, workspace): (ClusterId, WorkspaceId),
    aek: &Arc<Aek>,
    wanted: &[StreamKey],
) -> Result<Vec<FrameRows>, BadFrame> {
    let tables = frames.tables.workspace(workspace).ok_or(BadFrame::Unavailable)?;
    let request =
        entry.open(keys).map_err(|error| if error.is_of_lease() { BadFrame::Unavailable } else { BadFrame::Sealed })?;
    let scanned = logseal_otlp::scan(&request, tables.schema(), entry.received, &frames.limits);
    drop(request);
    let mut rows: HashMap<TableId, FrameRows> = HashMap::new();
    // A frame names its tables in the order in which the scan of its request meets them.
    let mut named = entry.parts.iter().map(|part| part.table);
    let mut met: Vec<Arc<Table>> = Vec::with_capacity(entry.parts.len());
    for chunk in scanned.map_err(|_| BadFrame::Undecodable)?.chunks {
        let table = match met.iter().find(|table| table.row.name == *chunk.schema.name()) {
            Some(table) => Arc::clone(table),
            None => {
                let table = match named.next() {
                    Some(id) => tables.table_of_frame(&chunk.schema, id),
                    None => return Err(BadFrame::Different),
                };
                met.push(Arc::clone(&table));
                table
            }
        };
        let stream = || Stream { cluster, table: Arc::clone(&table), aek: Arc::clone(aek) };
        let of_table = rows.entry(table.row.id).or_insert_with(|| FrameRows { stream: stream(), chunks: Vec::new() });
        of_table.chunks.push(chunk);
    }
    let count = |rows: &FrameRows| rows.chunks.iter().map(|chunk| chunk.batch.num_rows() as u64).sum::<u64>();
    let same = |part: &FramePart| rows.get(&part.table).is_some_and(|rows| count(rows) == u64::from(part.records));
    if rows.len() != entry.parts.len() || !entry.parts.iter().all(same) {
        return Err(BadFrame::Different);
    }
    Ok(wanted.iter().filter_map(|stream| rows.remove(&stream.table)).collect())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FramesError> {
    tokio::task::spawn_blocking(|| stack::wiped(work)).await.map_err(|_| FramesError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_covered_by_a_range_of_its_own_stream_and_file() {
        let stream =
            |table, aek| StreamKey { table: TableId::from_bytes([table; 16]), aek: AekId::from_bytes([aek; 16]) };
        let file = |n| WalFileId::from_bytes([n; 16]);
        let row = |n, of: StreamKey, first, last| CoverageRow {
            file: file(n),
            table: of.table,
            aek: of.aek,
            first,
            last,
            segment: None,
        };
        let (a, b, next_key) = (stream(1, 1), stream(2, 1), stream(1, 2));
        // Not in order: the catalog's order is no part of the contract.
        let coverage = Coverage::new(&[row(1, a, 20, 20), row(1, a, 5, 9), row(1, b, 12, 15), row(2, a, 1, 3)]);
        let cases = [
            (1, a, 4, false),
            (1, a, 5, true),
            (1, a, 7, true),
            (1, a, 9, true),
            (1, a, 10, false),
            (1, a, 12, false),
            (1, a, 20, true),
            (1, a, 21, false),
            (1, b, 12, true),
            (1, b, 5, false),
            (1, next_key, 5, false),
            (2, a, 1, true),
            (2, a, 5, false),
            (3, a, 5, false),
        ];
        for (n, stream, sequence, expected) in cases {
            let covered = coverage.covers(Position { file: file(n), sequence }, stream);
            assert_eq!(covered, expected, "file {n}, {stream:?}, frame {sequence}");
        }
        assert!(!Coverage::default().covers(Position { file: file(1), sequence: 5 }, a));
    }
}
