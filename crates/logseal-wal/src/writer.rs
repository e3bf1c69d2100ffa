//! Writes the log of one cluster: groups of sealed frames, one sync each.

use std::error::Error;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use logseal_core::limit::REQUEST_BYTES;
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, NodeId, WalFileId};
use logseal_crypto::OsRandom;
use logseal_crypto::seal::TAG_BYTES;

use crate::active::ActiveFile;
use crate::format::frame::PARTS;
use crate::format::{BODY_BYTES, FileHeader, Predecessor, VERSION};
use crate::{Disk, Entry, Position, WalError};

/// Where a new file is made known before anything in it may be acknowledged, so that a missing file is noticed.
pub trait FileRegistry: Debug + Send + Sync {
    /// Makes the file known durably. Called on the writer's thread, which waits, after the header is durable and before the
    /// first frame is written. After an error it is called again for the same file: it must not mind knowing it already.
    ///
    /// # Errors
    ///
    /// Any reason why the file is not known; the group that needed it fails.
    fn register(&self, header: &FileHeader, header_hash: [u8; 32]) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Settings of a [`Writer`].
#[derive(Clone, Copy, Debug)]
pub struct WriterSettings {
    /// A file that has reached this size is followed by a new one, in bytes. A group is never split, so a file may exceed it
    /// by one group.
    pub file_bytes: u64,
}

impl Default for WriterSettings {
    fn default() -> Self {
        // Small enough that space comes back soon, large enough that the cost of a new file (two syncs, one row) vanishes.
        Self { file_bytes: 64 * 1024 * 1024 }
    }
}

/// What a [`Writer`] is made of.
#[derive(Clone, Debug)]
pub struct WriterParts {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The folder of the cluster's files: `DIR/wal/<node>/<cluster id>`. Made when needed.
    pub folder: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The newest file of the folder, judged; `None` if there is none.
    pub predecessor: Option<Predecessor>,
    /// Where new files are made known.
    pub registry: Arc<dyn FileRegistry>,
    /// Makes the files' ids.
    pub ids: IdGenerator,
    /// Tells when they were made.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub settings: WriterSettings,
}

/// A file that no more is written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClosedFile {
    /// The file.
    pub file: WalFileId,
    /// Its valid-to: the last sequence that counts.
    pub end: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes the log of one cluster on one node. One process life has one writer for it; one thread drives it.
///
/// Entries are sealed into a buffer by [`append`](Self::append) and become durable together by [`sync`](Self::sync). After an
/// error of either, unless [`WalError::is_entry`] says that only the entry was refused, everything appended since the last
/// `Ok` of `sync` is gone and must be refused to its senders; the file is abandoned, and the next append starts a new one.
///
/// A file's DEKs live as long as the file is open: [`close`](Self::close), as well as dropping the writer, wipes them.
#[derive(Debug)]
pub struct Writer {
    parts: WriterParts,
    active: Option<ActiveFile>,
    /// A file whose header is durable and whose registration failed: it is right for as long as the predecessor is.
    pending: Option<ActiveFile>,
    folder_ready: bool,
    position: Option<Position>,
    closed: Vec<ClosedFile>,
}

impl Writer {
    /// A writer; makes no file before the first append.
    #[must_use]
    pub fn new(parts: WriterParts) -> Self {
        Self { parts, active: None, pending: None, folder_ready: false, position: None, closed: Vec::new() }
    }

    /// Seals an entry into the group. Opens the first file, or the next one when the present is full, if the group is empty.
    ///
    /// The position counts only after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// [`WalError`]; see the type's documentation for what it means for the group.
    pub fn append(&mut self, entry: &Entry) -> Result<Position, WalError> {
        let (raw_bytes, compressed_bytes) = (entry.body.raw_bytes(), entry.body.compressed_bytes());
        if raw_bytes > REQUEST_BYTES || compressed_bytes + TAG_BYTES > BODY_BYTES {
            return Err(WalError::EntryTooLarge { raw_bytes, compressed_bytes });
        }
        if entry.parts.len() > PARTS {
            return Err(WalError::TooManyParts { parts: entry.parts.len() });
        }
        let sealed = self.file_for_group()?.append(entry);
        if sealed.as_ref().is_err_and(|error| !error.is_entry()) {
            self.retire();
        }
        sealed
    }

    /// Opens a file if none is open: shows whether the disk and the registry work again after an error, without an entry.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), without those of the entry.
    pub fn ensure_file(&mut self) -> Result<(), WalError> {
        self.file_for_group().map(drop)
    }

    /// Makes the group durable: one write, one sync. Does nothing if the group is empty.
    ///
    /// # Errors
    ///
    /// [`WalError::Io`]: nothing of the group counts.
    pub fn sync(&mut self) -> Result<(), WalError> {
        let Some(active) = self.active.as_mut().filter(|active| !active.group_is_empty()) else { return Ok(()) };
        match active.flush() {
            Ok(position) => {
                self.position = Some(position);
                Ok(())
            }
            Err(error) => {
                self.retire();
                Err(error)
            }
        }
    }

    /// Writes down what is durable, if the file does not say so yet: then damage to the last frames is told from a torn tail.
    /// Called when the log goes idle. Syncs the group first.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn attest(&mut self) -> Result<(), WalError> {
        self.sync()?;
        match self.active.as_mut() {
            Some(active) if active.has_unattested() => active.append_attestation(),
            _ => return Ok(()),
        }
        self.sync()
    }

    /// Syncs, attests and closes the file. A later append starts a new one.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync); the file is closed all the same.
    pub fn close(&mut self) -> Result<(), WalError> {
        let attested = self.attest();
        self.retire();
        attested
    }

    /// The last durable frame; `None` before the first.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The present file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<WalFileId> {
        self.active.as_ref().map(|active| active.header().file)
    }

    /// Whether the present file has a data key under `aek` in memory.
    #[must_use]
    pub fn has_key_under(&self, aek: AekId) -> bool {
        self.active.as_ref().is_some_and(|active| active.has_key_under(aek))
    }

    /// Durable bytes of the present file; 0 if there is none.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, ActiveFile::durable_bytes)
    }

    /// Bytes that wait in the group for [`sync`](Self::sync).
    #[must_use]
    pub fn group_bytes(&self) -> usize {
        self.active.as_ref().map_or(0, ActiveFile::group_bytes)
    }

    /// The files that were rolled, abandoned or closed since this was last asked.
    pub fn take_closed(&mut self) -> Vec<ClosedFile> {
        std::mem::take(&mut self.closed)
    }

    fn file_for_group(&mut self) -> Result<&mut ActiveFile, WalError> {
        let limit = self.parts.settings.file_bytes;
        if self.active.as_ref().is_some_and(|active| active.group_is_empty() && active.is_full(limit)) {
            self.close()?;
        }
        let active = match self.active.take() {
            Some(active) => active,
            None => self.open_next()?,
        };
        Ok(self.active.insert(active))
    }

    fn open_next(&mut self) -> Result<ActiveFile, WalError> {
        let file = match self.pending.take() {
            Some(pending) => pending,
            None => self.create()?,
        };
        match self.parts.registry.register(file.header(), file.header().hash()) {
            Ok(()) => Ok(file),
            Err(source) => {
                let error = WalError::Register { file: file.header().file, source };
                self.pending = Some(file);
                Err(error)
            }
        }
    }

    fn create(&mut self) -> Result<ActiveFile, WalError> {
        let WriterParts { disk, folder, .. } = &self.parts;
        if !self.folder_ready {
            disk.create_dir_all(folder).map_err(WalError::io("create", folder.as_path()))?;
            self.folder_ready = true;
        }
        let header = FileHeader {
            version: VERSION,
            file: self.parts.ids.next().into(),
            cluster: self.parts.cluster,
            node: self.parts.node,
            ordinal: self.parts.predecessor.map_or(0, |predecessor| predecessor.ordinal + 1),
            created: self.parts.clock.now(),
            marker: OsRandom.array(),
            nonce_field: OsRandom.array(),
            predecessor: self.parts.predecessor,
        };
        ActiveFile::create(disk.as_ref(), folder, header).inspect_err(|_| self.folder_ready = false)
    }

    /// Lets go of the present file for ever. What its last sync did not confirm is void: the next file's header says so.
    fn retire(&mut self) {
        if let Some(active) = self.active.take() {
            self.parts.predecessor = Some(active.as_predecessor());
            self.closed.push(active.closed());
        }
    }
}
