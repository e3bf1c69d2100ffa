//! What can go wrong with the log.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use logseal_core::WalFileId;
use logseal_crypto::{KeyUseError, LeaseOver, SealError, SequenceReused, WrapError, WrapsExhausted};
use thiserror::Error;

use crate::format::HeaderError;

/// An operation on the log failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalError {
    /// The disk refused an operation.
    #[error("cannot {operation} `{path}`", path = path.display())]
    Io {
        /// What was tried: `create`, `write`, `sync`, `read`, ...
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },
    /// A new file could not be registered; it stays unused until it is.
    #[error("cannot register log file `{file}`")]
    Register {
        /// The file.
        file: WalFileId,
        /// The registry's answer.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The request is larger than a frame may be.
    #[error("a request of {raw_bytes} bytes, {compressed_bytes} compressed, does not fit a frame")]
    EntryTooLarge {
        /// Its bytes.
        raw_bytes: usize,
        /// Its bytes after compression.
        compressed_bytes: usize,
    },
    /// The request names more tables than a frame's metadata has room for.
    #[error("a request with records for {parts} tables does not fit a frame")]
    TooManyParts {
        /// How many.
        parts: usize,
    },
    /// The file has a DEK for each of its 65,535 slots already; the next group goes to a new file.
    #[error("log file `{file}` has no room for one more key")]
    TooManyKeys {
        /// The file.
        file: WalFileId,
    },
    /// A frame would have repeated a nonce. It was not written, and the file is abandoned.
    #[error("log file `{file}` would repeat a nonce")]
    Sequence {
        /// The file.
        file: WalFileId,
        /// What was tried.
        #[source]
        source: SequenceReused,
    },
    /// The entry's key may not be used any more: nothing is wrong with the entry, which comes again.
    #[error("the key of the entry may not be used")]
    KeyLease(#[from] LeaseOver),
    /// The entry's account key may wrap no key for the file before its count is stored: nothing is wrong with the entry, which comes again.
    #[error("no key can be made for the entry now")]
    KeyWraps(#[from] WrapsExhausted),
    /// Neither copy of a file's header is intact.
    #[error("`{path}` has no intact header", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with the first copy.
        #[source]
        source: HeaderError,
    },
    /// What was to be set aside is not in the file.
    #[error("`{path}` has no such frames", path = path.display())]
    NoEvidence {
        /// The file.
        path: PathBuf,
    },
}

impl From<WrapError> for WalError {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::LeaseOver(source) => source.into(),
            WrapError::Exhausted(source) => source.into(),
        }
    }
}

impl WalError {
    /// Whether the disk has no room: more may come, and then the log works again by itself.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the entry itself cannot be written, on whatever disk, or not under its key: the group before it is unharmed.
    #[must_use]
    pub fn is_entry(&self) -> bool {
        matches!(
            self,
            Self::EntryTooLarge { .. }
                | Self::TooManyParts { .. }
                | Self::TooManyKeys { .. }
                | Self::KeyLease(_)
                | Self::KeyWraps(_)
        )
    }

    /// An adapter for `map_err`: what was tried, and where.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.into(), source }
    }
}

/// An entry could not be opened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// The slot's AEK is not available (or no key frame of the slot was read).
    #[error("the key of slot {slot} is not available")]
    KeyUnavailable {
        /// The slot.
        slot: u16,
    },
    /// The slot's AEK is available but does not open its DEK: the key frame was altered, or the AEK is another.
    #[error("the data key of slot {slot} does not open")]
    Key {
        /// The slot.
        slot: u16,
        /// What opening it said.
        #[source]
        source: SealError,
    },
    /// The slot's key may not be used any more. Nothing is wrong with the entry.
    #[error("the key of slot {slot} may not be used")]
    KeyLease {
        /// The slot.
        slot: u16,
        /// Why.
        #[source]
        source: LeaseOver,
    },
    /// The entry was altered, or belongs elsewhere.
    #[error("entry {sequence} does not open")]
    Sealed {
        /// Its sequence.
        sequence: u64,
        /// What opening it said.
        #[source]
        source: SealError,
    },
    /// The entry is authentic, but what it holds does not decompress.
    #[error("the entry does not decompress to its stated length")]
    Compression,
}

impl OpenError {
    /// The data key of `slot` could not be used.
    pub(crate) fn of_key(slot: u16, error: KeyUseError) -> Self {
        match error {
            KeyUseError::LeaseOver(source) => Self::KeyLease { slot, source },
            KeyUseError::Seal(source) => Self::Key { slot, source },
        }
    }

    /// The entry `sequence` of `slot` did not open.
    pub(crate) fn of_entry(sequence: u64, slot: u16, error: KeyUseError) -> Self {
        match error {
            KeyUseError::LeaseOver(source) => Self::KeyLease { slot, source },
            KeyUseError::Seal(source) => Self::Sealed { sequence, source },
        }
    }

    /// Whether the frame may be intact: it opens once its key may be used again.
    #[must_use]
    pub fn is_of_lease(self) -> bool {
        matches!(self, Self::KeyLease { .. })
    }
}
