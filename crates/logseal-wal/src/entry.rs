//! One request on its way into the log.

use std::fmt::{self, Debug};
use std::sync::Arc;

use logseal_core::limit::REQUEST_BYTES;
use logseal_core::{TableId, UnixNanos, WalFileId};
use logseal_crypto::Aek;

use crate::OpenError;

/// Where a frame is: a file and its number there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The file.
    pub file: WalFileId,
    /// The frame's sequence in it, from 1.
    pub sequence: u64,
}

/// How many records of a request went to one table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    /// The table, of the request's workspace.
    pub table: TableId,
    /// Accepted records.
    pub records: u32,
}

/// The bytes of a request, compressed (one LZ4 block).
///
/// `Debug` shows lengths only: the bytes are a client's log records.
#[derive(Clone, Eq, PartialEq)]
pub struct CompressedBody {
    raw_bytes: usize,
    bytes: Vec<u8>,
}

impl CompressedBody {
    /// Compresses a request's bytes.
    #[must_use]
    pub fn compress(raw: &[u8]) -> Self {
        Self { raw_bytes: raw.len(), bytes: lz4_flex::block::compress(raw) }
    }

    /// Compressed bytes that were read, and the length of what they stand for.
    #[must_use]
    pub(crate) fn from_parts(bytes: Vec<u8>, raw_bytes: usize) -> Self {
        Self { raw_bytes, bytes }
    }

    /// The request's bytes.
    ///
    /// # Errors
    ///
    /// [`OpenError::Compression`] when the bytes are not an LZ4 block of exactly the stated length, or that is over 64 MiB.
    pub fn decompress(&self) -> Result<Vec<u8>, OpenError> {
        if self.raw_bytes > REQUEST_BYTES {
            return Err(OpenError::Compression);
        }
        let mut raw = vec![0; self.raw_bytes];
        match lz4_flex::block::decompress_into(&self.bytes, &mut raw) {
            Ok(length) if length == self.raw_bytes => Ok(raw),
            _ => Err(OpenError::Compression),
        }
    }

    /// Bytes of the request.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// Bytes after compression.
    #[must_use]
    pub fn compressed_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Debug for CompressedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedBody({} of {} bytes)", self.bytes.len(), self.raw_bytes)
    }
}

/// One request for the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The AEK of its workspace, under which it is sealed.
    pub aek: Arc<Aek>,
    /// When it came.
    pub received: UnixNanos,
    /// The version of the rules by which it was scanned.
    pub scan_version: u16,
    /// How many of its records were accepted for which table.
    pub parts: Vec<Part>,
    /// Its bytes.
    pub body: CompressedBody,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_of_another_length_or_with_altered_bytes_is_refused_and_shows_nothing() {
        let raw = b"secret secret secret secret secret".repeat(10);
        let body = CompressedBody::compress(&raw);
        assert_eq!(body.decompress().as_deref().ok(), Some(raw.as_slice()));
        assert!(!format!("{body:?}").contains("secret"));
        for raw_bytes in [0, raw.len() - 1, raw.len() + 1, REQUEST_BYTES + 1, usize::MAX] {
            assert!(CompressedBody::from_parts(body.bytes.clone(), raw_bytes).decompress().is_err(), "{raw_bytes}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), raw_bytes in 0..2000_usize) {
            let _ = CompressedBody::from_parts(bytes.clone(), raw_bytes).decompress();
            let body = CompressedBody::compress(&bytes);
            prop_assert_eq!(body.decompress().ok(), Some(bytes));
        }
    }
}
