//! The logs of all clusters: each is opened, and closed for good, while the others run.
//!
//! An open log is a folder that was recovered, a thread that writes it, and a task that replays what is only in it. It is closed in this
//! order: no request finds it any more; its thread ends after those that did; what it has is loaded and becomes segments, or is
//! shredded; its files are retired; its folder goes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::{Catalog, CatalogError, CoverageRow};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, NodeId};
use logseal_wal::{Writer, WriterParts, WriterSettings};
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Journals;
use super::backlog::Backlog;
use super::cutter::Cutter;
use super::frames::{Coverage, Frames};
use super::journal::{Ended, Journal, JournalThread, SpaceLimits};
use super::quarantine::Quarantine;
use super::recovery::{Recovered, RecoveryError, recover};
use super::registry::CatalogRegistry;
use super::replay::Replay;
use crate::admission::Budget;

/// What logs are made of.
#[derive(Debug)]
pub struct LogsParts {
    /// This node's folder; each cluster's log is in a folder below it.
    pub folder: PathBuf,
    /// This node.
    pub node: NodeId,
    /// How much of the disk each log may take.
    pub limits: SpaceLimits,
    /// Size at which a log goes on in a new file.
    pub file_bytes: u64,
    /// The register of files, and what is covered.
    pub catalog: Catalog,
    /// Where rows join.
    pub backlog: Arc<Backlog>,
    /// Reads frames again; its disk is the logs'.
    pub frames: Frames,
    /// Where frames go that give no rows.
    pub quarantine: Quarantine,
    /// Covers what is loaded.
    pub budget: Arc<Budget>,
    /// Where requests find the logs.
    pub journals: Arc<Journals>,
    /// Makes ids of files.
    pub ids: IdGenerator,
    /// Tells when files were made.
    pub clock: Arc<dyn Clock>,
}

/// A log could not be opened or closed.
#[derive(Debug, Error)]
pub enum LogError {
    /// What the folder has could not be recovered.
    #[error("cannot recover the write-ahead log of cluster `{cluster}`")]
    Recovery {
        /// Whose log it is.
        cluster: ClusterId,
        /// Why.
        #[source]
        source: RecoveryError,
    },
    /// The catalog did not say what is covered.
    #[error("cannot read what segments cover of the write-ahead log")]
    Catalog(#[from] CatalogError),
    /// The folder could not be made or removed, or no thread was started.
    #[error("cannot {operation} `{}`", .folder.display())]
    Folder {
        /// What was tried.
        operation: &'static str,
        /// The log's folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log is being closed, or closing it was given up: it can only be closed.
    #[error("the write-ahead log of cluster `{0}` is being closed")]
    Closing(ClusterId),
    /// Something of it is in no segment after the time that was given to it.
    #[error(
        "the write-ahead log of cluster `{cluster}` still has {files} files, with {records} records that are in no segment"
    )]
    NotSettled {
        /// Whose log it is.
        cluster: ClusterId,
        /// Records in no segment, as far as they were counted.
        records: u64,
        /// Files that are still there.
        files: usize,
    },
}

impl LogError {
    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Recovery { .. } | Self::Folder { .. } | Self::NotSettled { .. } => true,
            Self::Catalog(error) => !matches!(error, CatalogError::Integrity { .. }),
            Self::Closing(_) => false,
        }
    }
}

/// An open log.
#[derive(Debug)]
struct Log {
    ended: Ended,
    replay: JoinHandle<()>,
    replaying: watch::Receiver<bool>,
    closing: bool,
}

/// All logs of this node.
#[derive(Debug)]
pub struct Logs {
    parts: LogsParts,
    open: Mutex<HashMap<ClusterId, Log>>,
}

impl Logs {
    /// None yet.
    #[must_use]
    pub fn new(parts: LogsParts) -> Self {
        Self { parts, open: Mutex::default() }
    }

    /// Opens the logs of `clusters`, as [`Logs::open`] does.
    ///
    /// # Errors
    ///
    /// As [`Logs::open`], for the first one that fails.
    pub async fn open_all(&self, clusters: &[ClusterId]) -> Result<(), LogError> {
        // Read once for all of them.
        let coverage = self.parts.catalog.coverage().await?;
        for cluster in clusters {
            self.open_with(*cluster, Some(&coverage)).await?;
        }
        Ok(())
    }

    /// Opens the log of `cluster`: recovers its folder, starts its thread, replays what is only in it. Nothing is done when it is open.
    ///
    /// # Errors
    ///
    /// [`LogError`]; nothing was started then.
    pub async fn open(&self, cluster: ClusterId) -> Result<(), LogError> {
        self.open_with(cluster, None).await
    }

    async fn open_with(&self, cluster: ClusterId, coverage: Option<&[CoverageRow]>) -> Result<(), LogError> {
        let mut open = self.open.lock().await;
        match open.get(&cluster) {
            Some(log) if log.closing => return Err(LogError::Closing(cluster)),
            Some(_) => return Ok(()),
            None => {}
        }
        let parts = &self.parts;
        let (disk, folder) = (Arc::clone(&parts.frames.disk), self.folder(cluster));
        disk.create_dir_all(&folder).map_err(failed("make", &folder))?;
        let recovered = recover(&disk, &folder, cluster, parts.node, &parts.catalog, &*parts.clock).await;
        let Recovered { files, bounds, predecessor } =
            recovered.map_err(|source| LogError::Recovery { cluster, source })?;
        let of_log: HashSet<_> = bounds.iter().map(|(file, _)| *file).collect();
        let rows = match coverage {
            _ if of_log.is_empty() => Vec::new(),
            Some(rows) => rows.iter().filter(|row| of_log.contains(&row.file)).cloned().collect(),
            None => parts.catalog.coverage().await?.into_iter().filter(|row| of_log.contains(&row.file)).collect(),
        };
        let writer = Writer::new(WriterParts {
            disk: Arc::clone(&disk),
            folder: folder.clone(),
            cluster,
            node: parts.node,
            predecessor,
            registry: Arc::new(CatalogRegistry::new(parts.catalog.clone())),
            ids: parts.ids.clone(),
            clock: Arc::clone(&parts.clock),
            settings: WriterSettings { file_bytes: parts.file_bytes },
        });
        let (limits, backlog) = (parts.limits, Arc::clone(&parts.backlog));
        let thread = JournalThread { writer, cluster, folder: folder.clone(), disk, limits, backlog };
        parts.backlog.open(cluster, files);
        let (journal, ended) = Journal::start(thread)
            .inspect_err(|_| parts.backlog.close(cluster))
            .map_err(failed("start the thread that writes", &folder))?;
        let (replaying, is_replaying) = watch::channel(parts.backlog.cursor(cluster).is_some());
        let replay = Replay {
            cluster,
            backlog: Arc::clone(&parts.backlog),
            frames: parts.frames.clone(),
            coverage: Coverage::new(&rows),
            bounds,
            catalog: parts.catalog.clone(),
            quarantine: parts.quarantine.clone(),
            budget: Arc::clone(&parts.budget),
            replaying,
        };
        let replay = tokio::spawn(replay.run());
        open.insert(cluster, Log { ended, replay, replaying: is_replaying, closing: false });
        parts.journals.add(cluster, journal);
        Ok(())
    }

    /// Closes the log of `cluster` for good, once all that it has is in segments, in quarantine or shredded. Nothing is done when it is not
    /// open but that its empty folder goes.
    ///
    /// # Errors
    ///
    /// [`LogError::NotSettled`] when that takes longer than `patience`: nothing is lost, the log takes no records any more, and closing it
    /// can be tried again.
    pub async fn close(&self, cluster: ClusterId, patience: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + patience;
        self.parts.journals.remove(cluster);
        let ended = self.open.lock().await.get_mut(&cluster).map(|log| {
            log.closing = true;
            log.ended.clone()
        });
        if let Some(mut ended) = ended {
            let backlog = &self.parts.backlog;
            let settled = async {
                ended.wait().await;
                backlog.drain(cluster);
                backlog.files_gone(cluster).await;
            };
            if timeout_at(deadline, settled).await.is_err() {
                let (records, files) = backlog.left(cluster);
                return Err(LogError::NotSettled { cluster, records, files });
            }
            // Not before its task has ended: it must not find the log gone.
            if let Some(log) = self.open.lock().await.remove(&cluster) {
                log.replay.abort();
                let _ = log.replay.await;
                backlog.close(cluster);
                info!(%cluster, "the log of a cluster is closed for good");
            }
        } else {
            // It may have been suspended.
            self.parts.backlog.close(cluster);
        }
        self.remove_folder(cluster).await
    }

    /// Takes the log of `cluster`, the lease of whose keys is over, out of memory; its files stay as they are. [`Logs::open`] brings it back as a
    /// start does. Nothing is done when it is not open.
    ///
    /// # Errors
    ///
    /// [`LogError::Closing`].
    pub async fn suspend(&self, cluster: ClusterId, cutter: &Cutter) -> Result<(), LogError> {
        let mut ended = match self.open.lock().await.get_mut(&cluster) {
            None => return Ok(()),
            Some(log) if log.closing => return Err(LogError::Closing(cluster)),
            Some(log) => log.ended.clone(),
        };
        // Requests that found the log before are refused, since nothing is sealed under their keys any more; then its thread ends.
        self.parts.journals.remove(cluster);
        ended.wait().await;
        if let Some(log) = self.open.lock().await.remove(&cluster) {
            log.replay.abort();
            let _ = log.replay.await;
            cutter.suspend(cluster).await;
            self.parts.backlog.suspend(cluster);
            info!(%cluster, "the log of a cluster is suspended");
        }
        Ok(())
    }

    async fn remove_folder(&self, cluster: ClusterId) -> Result<(), LogError> {
        let (disk, folder, above) =
            (Arc::clone(&self.parts.frames.disk), self.folder(cluster), self.parts.folder.clone());
        let path = folder.clone();
        let removed = tokio::task::spawn_blocking(move || match disk.remove_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| disk.sync_dir(&above)),
        });
        let removed = removed.await.map_err(std::io::Error::other).and_then(|removed| removed);
        match removed {
            // What is left there is none of the log's files, or was reported when it was found: it is evidence.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                warn!(%cluster, folder = %folder.display(), "the folder of a closed log is not empty, and is left where it is");
                Ok(())
            }
            removed => removed.map_err(failed("remove", &folder)),
        }
    }

    /// Whether the log of `cluster` is being replayed; `None` when it is not open.
    pub async fn replaying(&self, cluster: ClusterId) -> Option<watch::Receiver<bool>> {
        self.open.lock().await.get(&cluster).map(|log| log.replaying.clone())
    }

    /// Closes the present file of each log that has a data key under one of `aeks`, and so wipes it.
    pub async fn roll(&self, aeks: &[AekId]) {
        let open: Vec<_> = self.open.lock().await.keys().copied().collect();
        for journal in open.into_iter().filter_map(|cluster| self.parts.journals.of(cluster)) {
            journal.roll(aeks).await;
        }
    }

    /// The server stops: no log takes records any more, and all files are closed when this returns.
    pub async fn end(&self) {
        self.parts.journals.close();
        let ended: Vec<_> = self.open.lock().await.values().map(|log| log.ended.clone()).collect();
        for mut ended in ended {
            ended.wait().await;
        }
    }

    fn folder(&self, cluster: ClusterId) -> PathBuf {
        self.parts.folder.join(cluster.to_string())
    }
}

fn failed(operation: &'static str, folder: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let folder = folder.to_owned();
    move |source| LogError::Folder { operation, folder, source }
}
