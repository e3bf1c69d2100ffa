//! The bytes of a wrapped segment DEK, as they stand in the catalog and in a segment's footer.
//!
//! ```text
//! version 1 | AEK id 16 | workspace id 16 | segment id 16 | nonce 12 | ciphertext 32 | tag 16      = 109 bytes
//! ```
//!
//! Self-describing: the AAD of the wrap can be rebuilt from it. The ids in it are claims until the wrap opens.

use logseal_core::{AekId, SegmentId, WorkspaceId};
use subtle::ConstantTimeEq;

use crate::seal::OVERHEAD_BYTES;

const VERSION: u8 = 1;
const SEALED_BYTES: usize = 32 + OVERHEAD_BYTES;

/// Bytes of a wrapped DEK.
pub const WRAPPED_DEK_BYTES: usize = 1 + 3 * 16 + SEALED_BYTES;

/// A segment's DEK, wrapped by its workspace's AEK.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrappedDek {
    /// The AEK that wrapped it.
    pub aek: AekId,
    /// The workspace that owns the AEK.
    pub workspace: WorkspaceId,
    /// The segment that the DEK encrypts.
    pub segment: SegmentId,
    pub(crate) sealed: [u8; SEALED_BYTES],
}

impl WrappedDek {
    /// The bytes to store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION], self.aek.as_bytes().as_slice(), self.workspace.as_bytes(), self.segment.as_bytes(), &self.sealed]
            .concat()
    }

    /// Reads stored bytes; `None` when length or version is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (aek, rest) = rest.split_first_chunk()?;
        let (workspace, rest) = rest.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let sealed = rest.try_into().ok()?;
        (*version == VERSION).then_some(Self {
            aek: AekId::from_bytes(*aek),
            workspace: WorkspaceId::from_bytes(*workspace),
            segment: SegmentId::from_bytes(*segment),
            sealed,
        })
    }

    /// Whether both are the same wrap, in constant time: who presents one must not learn by trial how much of it is right.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.to_bytes().ct_eq(&other.to_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wraps_are_the_same_only_if_every_byte_is() {
        let bytes: Vec<u8> = [VERSION].into_iter().chain(2..=109).collect();
        let wrap = WrappedDek::from_bytes(&bytes).unwrap();
        assert!(wrap.ct_eq(&wrap.clone()));
        for index in 1..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            assert!(!wrap.ct_eq(&WrappedDek::from_bytes(&altered).unwrap()), "byte {index}");
        }
    }
}
