//! The bytes of a file, as the crate's documentation draws them: pure functions, values in and values out.

pub mod frame;
pub mod header;

use logseal_core::limit::REQUEST_BYTES;
use sha2::{Digest, Sha256};

pub use frame::{EntryMetadata, FrameHead, FrameKind, KeyMetadata};
pub use header::{FileHeader, HeaderError, Predecessor};

/// Version of the format that this crate writes. It reads all from 1 on.
pub const VERSION: u16 = 2;

/// Bytes of one copy of the header.
pub const HEADER_BYTES: usize = 512;

/// Bytes of both copies: where the first frame begins.
pub const FRAMES_OFFSET: u64 = 2 * HEADER_BYTES as u64;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 48;

/// Bytes of a head that the AAD of its body binds: all but the checksums, which are known only after sealing.
pub const BOUND_HEAD_BYTES: usize = 36;

/// Most bytes of a frame's metadata.
pub const METADATA_BYTES: usize = 64 * 1024;

/// Most bytes of a frame's body: a request that does not compress, with LZ4's and GCM's overhead and room to spare.
pub const BODY_BYTES: usize = REQUEST_BYTES + 1024 * 1024;

/// The running hash over a file's header and frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// The chain before the first frame: the hash of one copy of the header.
    #[must_use]
    pub fn start(header_copy: &[u8; HEADER_BYTES]) -> Self {
        Self(Sha256::digest(header_copy).into())
    }

    /// The chain after one more frame.
    #[must_use]
    pub fn after(self, head: &[u8; HEAD_BYTES], body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(head);
        hash.update(&body[body.len().saturating_sub(16)..]);
        Self(hash.finalize().into())
    }
}

/// Bytes are read through this cursor, so that no index can be out of range: each method is `None` at the end.
#[derive(Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// `Some` when nothing is left.
    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_the_documented_hash() {
        let header = [7; HEADER_BYTES];
        let start = Chain::start(&header);
        assert_eq!(start.0, <[u8; 32]>::from(Sha256::digest(header)));
        let head = [1; HEAD_BYTES];
        let long: Vec<u8> = (0..40).collect();
        let expected = Sha256::digest([start.0.as_slice(), &head, &long[24..]].concat());
        assert_eq!(start.after(&head, &long).0, <[u8; 32]>::from(expected));
        let expected = Sha256::digest([start.0.as_slice(), &head, &[9, 9]].concat());
        assert_eq!(start.after(&head, &[9, 9]).0, <[u8; 32]>::from(expected));
    }
}
