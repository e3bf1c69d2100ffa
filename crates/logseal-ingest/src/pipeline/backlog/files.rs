//! The files of one cluster's log.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use logseal_core::{AekId, UnixNanos, WalFileId, WorkspaceId};
use logseal_wal::Position;

use crate::pipeline::stream::{Run, StreamKey};

/// A file of the log.
#[derive(Debug)]
pub struct LogFile {
    /// Its id.
    pub id: WalFileId,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its last frame; `None` while it is written.
    pub end: Option<u64>,
    /// The last durable frame.
    pub(super) durable: u64,
    /// Loaded parts that are in no segment yet.
    pub(super) pending: u64,
    /// Who has frames in it; `None` until a file of an earlier life is surveyed.
    pub(super) workspaces: Option<HashSet<WorkspaceId>>,
    /// Held by queries that read the file.
    pub(super) pins: Arc<()>,
    pub(super) retiring: bool,
}

impl LogFile {
    /// A file of `bytes` with frames up to `end`, `None` while it is written.
    #[must_use]
    pub fn new(id: WalFileId, path: PathBuf, bytes: u64, end: Option<u64>) -> Self {
        Self {
            id,
            path,
            bytes,
            end,
            durable: end.unwrap_or(0),
            pending: 0,
            workspaces: None,
            pins: Arc::new(()),
            retiring: false,
        }
    }

    pub(super) fn pin(&self) -> FilePin {
        FilePin { _pins: Arc::clone(&self.pins) }
    }

    /// Whether frames of `workspace` may be in it.
    fn may_have(&self, workspace: WorkspaceId) -> bool {
        self.workspaces.as_ref().is_none_or(|workspaces| workspaces.contains(&workspace))
    }
}

/// Keeps a file of the log from being retired.
#[derive(Clone, Debug)]
pub struct FilePin {
    _pins: Arc<()>,
}

/// The next frame to replay.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The frame.
    pub next: Position,
    /// Its file.
    pub path: PathBuf,
    /// The last frame of the file that may be read now.
    pub durable: u64,
    /// Whether the file has ended there.
    pub ended: bool,
    /// The file after it.
    pub following: Option<WalFileId>,
}

/// Frames of one file whose rows are only in the log.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The file.
    pub file: WalFileId,
    /// Where it is.
    pub path: PathBuf,
    /// The first of the frames.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Whose rows; `None` for all streams'.
    pub of: Option<ParkedRun>,
    _pin: FilePin,
}

/// What is known of parked frames of one stream.
#[derive(Clone, Copy, Debug)]
pub struct ParkedRun {
    /// The stream.
    pub stream: StreamKey,
    /// Their records.
    pub records: u64,
    /// When the first of them was received.
    pub received: UnixNanos,
}

#[derive(Debug, Default)]
pub(super) struct Feed {
    pub(super) files: VecDeque<LogFile>,
    /// From this frame on nothing is loaded.
    pub(super) parked_from: Option<Position>,
    /// Records of parked frames by key, as far as they were counted.
    pub(super) parked: HashMap<AekId, u64>,
    pub(super) parked_since: Option<UnixNanos>,
}

impl Feed {
    /// Frames with `records` under `aek` are parked.
    pub(super) fn park(&mut self, aek: AekId, records: u64) {
        *self.parked.entry(aek).or_default() += records;
    }

    /// They are loaded.
    pub(super) fn unpark(&mut self, aek: AekId, records: u64) {
        if let Some(parked) = self.parked.get_mut(&aek) {
            *parked = parked.saturating_sub(records);
        }
    }

    /// Nothing under `aek` counts any more.
    pub(super) fn forget_parked(&mut self, aek: AekId) {
        self.parked.remove(&aek);
    }

    pub(super) fn parked_of(&self, aek: AekId) -> u64 {
        self.parked.get(&aek).copied().unwrap_or(0)
    }

    pub(super) fn parked_records(&self) -> u64 {
        self.parked.values().sum()
    }

    /// Nothing is parked any more.
    pub(super) fn caught_up(&mut self) {
        (self.parked_from, self.parked_since) = (None, None);
        self.parked.clear();
    }

    pub(super) fn file(&self, id: WalFileId) -> Option<&LogFile> {
        self.files.iter().rev().find(|file| file.id == id)
    }

    pub(super) fn file_mut(&mut self, id: WalFileId) -> Option<&mut LogFile> {
        self.files.iter_mut().rev().find(|file| file.id == id)
    }

    pub(super) fn index(&self, id: WalFileId) -> Option<usize> {
        self.files.iter().position(|file| file.id == id)
    }

    /// What is parked from the cursor on and may be of `workspace`.
    pub(super) fn parked(&self, workspace: WorkspaceId) -> impl Iterator<Item = Parked> {
        let next = self.parked_from;
        let first_file = next.map_or(usize::MAX, |next| self.index(next.file).unwrap_or(0));
        let parked = self.files.iter().skip(first_file);
        let files = parked.filter(move |file| file.durable > 0 && file.may_have(workspace));
        files.filter_map(move |file| {
            let first = next.filter(|next| next.file == file.id).map_or(1, |next| next.sequence);
            let (id, path, last) = (file.id, file.path.clone(), file.durable);
            (first <= last).then(|| Parked { file: id, path, first, last, of: None, _pin: file.pin() })
        })
    }

    /// `run` of `stream`, whose rows are only in the log.
    pub(super) fn parked_run(&self, run: &Run, stream: StreamKey) -> Option<Parked> {
        let file = self.file(run.file)?;
        Some(Parked {
            file: run.file,
            path: file.path.clone(),
            first: run.first,
            last: run.last,
            of: Some(ParkedRun { stream, records: run.records, received: run.received }),
            _pin: file.pin(),
        })
    }

    pub(super) fn settled(&mut self, file: WalFileId, parts: u64) {
        if let Some(file) = self.file_mut(file) {
            file.pending = file.pending.saturating_sub(parts);
        }
    }

    /// See [`super::Backlog::retirable`].
    pub(super) fn retirable(&mut self) -> Vec<(WalFileId, PathBuf)> {
        let replayed = match self.parked_from {
            None => self.files.len(),
            Some(next) => self.index(next.file).unwrap_or(0),
        };
        let mut retirable = Vec::new();
        for file in self.files.iter_mut().take(replayed) {
            let unused = Arc::strong_count(&file.pins) == 1;
            if file.end.is_none() || file.pending > 0 || !unused {
                break;
            }
            if !file.retiring {
                file.retiring = true;
                retirable.push((file.id, file.path.clone()));
            }
        }
        retirable
    }
}
