//! What a start finds in the log's folder, held against the catalog.
//!
//! Only the newest file is read as a whole before records are taken: its end decides how the next file begins. The ends of the others
//! are in the headers of their successors; they are surveyed when they are replayed.
//!
//! What a creation of a file left unfinished is deleted: a file takes no frame before the catalog knows it, and the catalog is told after
//! its header is durable.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logseal_catalog::{Catalog, CatalogError, Change, WalFileRow, WalFileState};
use logseal_core::{Clock, ClusterId, NodeId, UnixNanos, WalFileId};
use logseal_wal::format::{FRAMES_OFFSET, HeaderError};
use logseal_wal::{Bound, Disk, FileHeader, Predecessor, WalError};
use metrics::counter;
use thiserror::Error;
use tracing::{error, info, warn};

use super::backlog::LogFile;
use crate::error::Chain;
use crate::meter;

/// The log could not be recovered.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The folder or its newest file cannot be read, or a later version wrote there.
    #[error("cannot read the write-ahead log")]
    Log(#[from] WalError),
    /// The catalog cannot be read or written.
    #[error("cannot compare the write-ahead log with the catalog")]
    Catalog(#[from] CatalogError),
    /// Reading broke off.
    #[error("reading the write-ahead log broke off")]
    Broken,
}

/// What is to be replayed, and how the log goes on.
#[derive(Debug)]
pub struct Recovered {
    /// Files of earlier lives, oldest first.
    pub files: Vec<LogFile>,
    /// How each of them is to be judged.
    pub bounds: Vec<(WalFileId, Bound)>,
    /// What the next file's header names.
    pub predecessor: Option<Predecessor>,
}

/// A file with its header.
struct Found {
    header: FileHeader,
    hash: [u8; 32],
    path: PathBuf,
    bytes: u64,
}

/// A file whose header cannot be read.
struct Unreadable {
    path: PathBuf,
    problem: WalError,
    /// Whether it ends before its first frame would begin.
    is_stub: bool,
}

impl Unreadable {
    fn is_of_later_version(&self) -> bool {
        matches!(&self.problem, WalError::Header { source: HeaderError::Version(_), .. })
    }
}

/// Reads the log of `cluster` in `folder`.
///
/// # Errors
///
/// [`RecoveryError`], also for a file that a later version of this program wrote. One that cannot be understood is no error: it is
/// reported, and the others go on.
pub async fn recover(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    cluster: ClusterId,
    node: NodeId,
    catalog: &Catalog,
    clock: &dyn Clock,
) -> Result<Recovered, RecoveryError> {
    let rows = catalog.wal_files().await?;
    let mut begun: HashSet<WalFileId> = rows.iter().map(|row| row.id).collect();
    let mut rows: HashMap<WalFileId, WalFileRow> =
        rows.into_iter().filter(|row| row.cluster == cluster).map(|row| (row.id, row)).collect();
    let (lister, listed) = (Arc::clone(disk), folder.to_owned());
    let (found, mut unreadable) = blocking(move || find(&*lister, &listed)).await??;
    // Before anything is changed. What this version cannot read is no damage and not lost, and a log that goes on without it would be one that the
    // later version does not expect.
    if let Some(at) = unreadable.iter().position(Unreadable::is_of_later_version) {
        return Err(unreadable.swap_remove(at).problem.into());
    }
    // A catalog that is an older copy may not know a file that its successor knows.
    begun.extend(found.iter().filter_map(|file| file.header.predecessor).map(|predecessor| predecessor.file));
    for Unreadable { path, problem, is_stub } in unreadable {
        if is_stub && id_of(&path).is_some_and(|id| !begun.contains(&id)) {
            info!(%cluster, file = %path.display(), "deleting a file of the log that was never begun: its header was not written");
            remove(disk, path).await?;
            continue;
        }
        counter!(meter::WAL_DAMAGE).increment(1);
        error!(%cluster, file = %path.display(), error = %Chain(&problem), "a file of the log has no readable header; it is left where it is");
    }
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    for file in found {
        let id = file.header.file;
        if file.header.cluster != cluster || !seen.insert(id) {
            // Whose file it is knows of it; replayed here, its records could be there twice.
            counter!(meter::WAL_DAMAGE).increment(1);
            error!(%cluster, file = %file.path.display(), "a file in the log's folder is another cluster's, or a copy of another one; it is left where it is");
            continue;
        }
        match rows.remove(&id) {
            Some(row) if row.state == WalFileState::Retired => {
                info!(%cluster, file = %id, "deleting a file of the log whose records are all in segments");
                remove(disk, file.path).await?;
            }
            Some(row) if row.header_hash != file.hash => {
                counter!(meter::WAL_DAMAGE).increment(1);
                error!(%cluster, file = %file.path.display(), "a file of the log was exchanged: it is not the one that the catalog knows");
                // The one that it knows is not there.
                rows.insert(id, row);
            }
            row => files.push((file, row)),
        }
    }
    report_missing(rows.into_values(), cluster, catalog, clock.now()).await?;
    files.sort_by_key(|(file, _)| file.header.ordinal);
    chain(disk, files, cluster, node, catalog, clock.now()).await
}

/// Files that the catalog knows and the folder does not have.
async fn report_missing(
    rows: impl Iterator<Item = WalFileRow>,
    cluster: ClusterId,
    catalog: &Catalog,
    at: UnixNanos,
) -> Result<(), CatalogError> {
    for row in rows.filter(|row| row.state == WalFileState::Live) {
        if row.attested == 0 {
            // It was registered and nothing in it was ever part of a segment: most likely no record came before the stop.
            warn!(%cluster, file = %row.id, "a file of the log that the catalog knows is missing");
        } else {
            error!(%cluster, file = %row.id, "a file of the log is missing: acknowledged records in it that are in no segment are lost");
        }
        counter!(meter::WAL_LOST).increment(1);
        catalog.apply(Change::SetWalFileState { file: row.id, state: WalFileState::Lost, at }).await?;
    }
    Ok(())
}

/// Orders the files and finds where each of them ends.
async fn chain(
    disk: &Arc<dyn Disk>,
    found: Vec<(Found, Option<WalFileRow>)>,
    cluster: ClusterId,
    node: NodeId,
    catalog: &Catalog,
    now: UnixNanos,
) -> Result<Recovered, RecoveryError> {
    let mut recovered = Recovered { files: Vec::new(), bounds: Vec::new(), predecessor: None };
    let mut successors: HashMap<WalFileId, Predecessor> = HashMap::new();
    for said in found.iter().filter_map(|(file, _)| file.header.predecessor) {
        let kept = successors.entry(said.file).or_insert(said);
        // Should two files name the same one, then nothing that may have been acknowledged is to be void.
        if said.end > kept.end {
            *kept = said;
        }
    }
    let newest = found.last().map(|(file, _)| file.header.file);
    for (file, row) in found {
        let id = file.header.file;
        let known = row.is_some();
        let bound = Bound {
            successor: successors.get(&id).copied(),
            attested: row.as_ref().map_or(0, |row| row.attested),
            header_hash: row.map(|_| file.hash),
        };
        let end = match &bound.successor {
            Some(successor) if Some(id) != newest => successor.end,
            _ => {
                let (reader, path) = (Arc::clone(disk), file.path.clone());
                let survey = blocking(move || {
                    // What a killed process wrote and did not sync must be durable before it is relied on.
                    logseal_wal::settle(&*reader, &path)?;
                    logseal_wal::survey_file(&*reader, &path, &bound)
                })
                .await??;
                if Some(id) == newest {
                    recovered.predecessor = Some(survey.predecessor());
                }
                let is_unfinished = survey.bytes <= FRAMES_OFFSET && survey.attested == 0;
                if survey.entries == 0 && !known && (survey.damages.is_empty() || is_unfinished) {
                    info!(%cluster, file = %id, "deleting a file of the log that never took a record");
                    // The next file says where the one before ends, as this one did.
                    if Some(id) == newest {
                        recovered.predecessor = file.header.predecessor;
                    }
                    remove(disk, file.path).await?;
                    continue;
                }
                survey.end
            }
        };
        if !known {
            warn!(%cluster, file = %id, "a file of the log is unknown to the catalog, which may be an older copy; it is replayed");
            let row = WalFileRow {
                id,
                node,
                cluster,
                ordinal: file.header.ordinal,
                header_hash: file.hash.to_vec(),
                created: file.header.created,
                state: WalFileState::Live,
                changed: now,
                attested: 0,
            };
            catalog.apply(Change::RegisterWalFile(row)).await?;
        }
        recovered.files.push(LogFile::new(id, file.path, file.bytes, Some(end)));
        recovered.bounds.push((id, bound));
    }
    Ok(recovered)
}

fn find(disk: &dyn Disk, folder: &Path) -> Result<(Vec<Found>, Vec<Unreadable>), WalError> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for path in disk.list(folder).map_err(WalError::io("list", folder))? {
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        match logseal_wal::FileReader::open(disk, &path) {
            Ok(reader) => {
                let bytes =
                    disk.open(&path).and_then(|file| file.size()).map_err(WalError::io("open", path.as_path()))?;
                let header = reader.header().clone();
                found.push(Found { hash: header.hash(), header, path, bytes });
            }
            Err(problem) => {
                // What the disk does not give may be there.
                let is_header = matches!(&problem, WalError::Header { .. });
                let size = disk.open(&path).and_then(|file| file.size());
                let is_stub = is_header && size.is_ok_and(|bytes| bytes <= FRAMES_OFFSET);
                unreadable.push(Unreadable { path, problem, is_stub });
            }
        }
    }
    // Of several copies of a file the one that has its name counts.
    found.sort_by_key(|file| !is_named_after(&file.path, file.header.file));
    Ok((found, unreadable))
}

fn is_named_after(path: &Path, id: WalFileId) -> bool {
    path.file_stem().and_then(|name| name.to_str()).is_some_and(|name| name == id.to_string())
}

/// The file that `path` is named after; `None` for a name that the log does not give.
fn id_of(path: &Path) -> Option<WalFileId> {
    let id = path.file_stem()?.to_str()?.parse().ok()?;
    is_named_after(path, id).then_some(id)
}

async fn remove(disk: &Arc<dyn Disk>, path: PathBuf) -> Result<(), RecoveryError> {
    let disk = Arc::clone(disk);
    let work = move || {
        disk.remove(&path).map_err(WalError::io("remove", path.as_path()))?;
        let folder = path.parent().unwrap_or(&path);
        disk.sync_dir(folder).map_err(WalError::io("sync", folder))
    };
    Ok(blocking(work).await??)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RecoveryError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RecoveryError::Broken)
}
