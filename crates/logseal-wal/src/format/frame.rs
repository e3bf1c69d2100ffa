//! Frames: their fixed head and the metadata in clear of each kind.

use logseal_core::{AekId, TableId, UnixNanos, WorkspaceId};

use super::{BODY_BYTES, BOUND_HEAD_BYTES, Fields, HEAD_BYTES, METADATA_BYTES};
use crate::{Compression, Part};

/// Bytes of a key frame's body: the sealed DEK and its commitment.
pub const KEY_BODY_BYTES: usize = logseal_crypto::aek::SEALED_DEK_BYTES + 32;

/// Bytes of a key frame's metadata.
pub const KEY_METADATA_BYTES: usize = 32;

const ENTRY_FIXED_BYTES: usize = 18;
const PART_BYTES: usize = 20;

/// Most parts of an entry: as many as its metadata has room for.
pub const PARTS: usize = (METADATA_BYTES - ENTRY_FIXED_BYTES) / PART_BYTES;

/// What a frame is; the number is part of the format and never reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    /// A DEK, wrapped.
    Key = 1,
    /// A request, sealed.
    Entry = 2,
    /// Only its `durable` counts.
    Attestation = 3,
}

/// The head of a frame without its marker and checksums.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHead {
    /// Its number in the file, from 1.
    pub sequence: u64,
    /// The highest sequence that was durable when it was made; less than `sequence`.
    pub durable: u64,
    /// Bytes of metadata.
    pub metadata_bytes: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// What it is.
    pub kind: FrameKind,
    /// The key slot; 0 for an attestation.
    pub slot: u16,
}

/// The checksums of what follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Checksums {
    pub(crate) metadata: u32,
    pub(crate) body: u32,
}

impl FrameHead {
    /// The part of a head that the AAD of its body binds.
    #[must_use]
    pub fn encode_bound(&self, marker: [u8; 8]) -> [u8; BOUND_HEAD_BYTES] {
        let mut out = [0; BOUND_HEAD_BYTES];
        out[..8].copy_from_slice(&marker);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable.to_le_bytes());
        out[24..28].copy_from_slice(&self.metadata_bytes.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[32] = self.kind as u8;
        out[34..].copy_from_slice(&self.slot.to_le_bytes());
        out
    }

    /// A whole head; `metadata` and `body` are what follows it.
    #[must_use]
    pub fn encode(&self, marker: [u8; 8], metadata: &[u8], body: &[u8]) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..BOUND_HEAD_BYTES].copy_from_slice(&self.encode_bound(marker));
        out[36..40].copy_from_slice(&crc32fast::hash(metadata).to_le_bytes());
        out[40..44].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let crc = crc32fast::hash(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a head; `None` unless the marker, the checksum, the kind and the lengths are those of an intact one.
    #[must_use]
    pub fn decode(bytes: &[u8; HEAD_BYTES], marker: [u8; 8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if !content.starts_with(&marker) || crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(&content[marker.len()..]);
        let (sequence, durable) = (fields.u64()?, fields.u64()?);
        let (metadata_bytes, body_bytes) = (fields.u32()?, fields.u32()?);
        let kind = match fields.u8()? {
            1 => FrameKind::Key,
            2 => FrameKind::Entry,
            3 => FrameKind::Attestation,
            _ => return None,
        };
        let (zero, slot) = (fields.u8()?, fields.u16()?);
        let (metadata, body) = (usize::try_from(metadata_bytes).ok()?, usize::try_from(body_bytes).ok()?);
        let lengths_fit = match kind {
            FrameKind::Key => (metadata, body) == (KEY_METADATA_BYTES, KEY_BODY_BYTES),
            FrameKind::Entry => (ENTRY_FIXED_BYTES..=METADATA_BYTES).contains(&metadata) && body <= BODY_BYTES,
            FrameKind::Attestation => (metadata, body) == (0, 0),
        };
        // No writer counts to the last number: what follows a frame always has one.
        let numbers_fit = durable < sequence && sequence < u64::MAX;
        let valid = zero == 0 && numbers_fit && lengths_fit && (slot == 0) == (kind == FrameKind::Attestation);
        valid.then_some(Self { sequence, durable, metadata_bytes, body_bytes, kind, slot })
    }

    pub(crate) fn checksums(bytes: &[u8; HEAD_BYTES]) -> Checksums {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Checksums { metadata: word(36), body: word(40) }
    }
}

/// Metadata of a key frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyMetadata {
    /// The workspace that the slot serves.
    pub workspace: WorkspaceId,
    /// The AEK that wrapped the DEK.
    pub aek: AekId,
}

impl KeyMetadata {
    /// The bytes in the frame.
    #[must_use]
    pub fn encode(&self) -> [u8; KEY_METADATA_BYTES] {
        let mut out = [0; KEY_METADATA_BYTES];
        out[..16].copy_from_slice(self.workspace.as_bytes());
        out[16..].copy_from_slice(self.aek.as_bytes());
        out
    }

    /// Reads what [`KeyMetadata::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (workspace, aek) = (fields.array()?, fields.array()?);
        fields.end()?;
        Some(Self { workspace: WorkspaceId::from_bytes(workspace), aek: AekId::from_bytes(aek) })
    }
}

/// Metadata of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EntryMetadata {
    /// When the request came.
    pub received: UnixNanos,
    /// Bytes of the request.
    pub raw_bytes: u32,
    /// The version of the rules by which the request was scanned; replay scans by the same.
    pub scan_version: u16,
    /// How the body is compressed.
    pub compression: Compression,
    /// How many records went to which table.
    pub parts: Vec<Part>,
}

impl EntryMetadata {
    /// Bytes of the metadata of an entry with so many parts.
    #[must_use]
    pub fn bytes(parts: usize) -> usize {
        ENTRY_FIXED_BYTES + parts * PART_BYTES
    }

    /// Whether [`EntryMetadata::decode`] can read the bytes.
    #[must_use]
    pub fn is_readable(bytes: &[u8]) -> bool {
        let count = bytes.get(16..18).map(|count| usize::from(u16::from_le_bytes([count[0], count[1]])));
        let known =
            matches!(bytes.get(14..16), Some([compression, 0]) if Compression::from_number(*compression).is_some());
        known && count.is_some_and(|count| Self::bytes(count) == bytes.len())
    }

    /// Reads what [`encode_entry_metadata`] wrote; `None` unless every byte is as it writes it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (received, raw_bytes, scan_version) = (UnixNanos(fields.i64()?), fields.u32()?, fields.u16()?);
        let (compression, zero, count) = (fields.u8()?, fields.u8()?, usize::from(fields.u16()?));
        let parts = fields.slice(count * PART_BYTES)?;
        fields.end()?;
        let compression = Compression::from_number(compression).filter(|_| zero == 0)?;
        let parts = parts.chunks_exact(PART_BYTES).map(|part| {
            let mut fields = Fields(part);
            Some(Part { table: TableId::from_bytes(fields.array()?), records: fields.u32()? })
        });
        Some(Self { received, raw_bytes, scan_version, compression, parts: parts.collect::<Option<_>>()? })
    }
}

/// Appends the metadata of an entry to `out`. There must be at most [`PARTS`] parts.
pub fn encode_entry_metadata(
    received: UnixNanos,
    raw_bytes: u32,
    scan_version: u16,
    compression: Compression,
    parts: &[Part],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&received.0.to_le_bytes());
    out.extend_from_slice(&raw_bytes.to_le_bytes());
    out.extend_from_slice(&scan_version.to_le_bytes());
    out.extend_from_slice(&[compression as u8, 0]);
    out.extend_from_slice(&u16::try_from(parts.len()).unwrap_or(u16::MAX).to_le_bytes());
    for part in parts {
        out.extend_from_slice(part.table.as_bytes());
        out.extend_from_slice(&part.records.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: [u8; 8] = [0xA1; 8];

    fn head() -> FrameHead {
        FrameHead {
            sequence: 0x0102,
            durable: 0x0101,
            metadata_bytes: 38,
            body_bytes: 3,
            kind: FrameKind::Entry,
            slot: 5,
        }
    }

    /// The layout is part of the format: it must not move.
    #[test]
    fn the_head_is_pinned() {
        let (metadata, body) = ([1; 38], [2, 3, 4]);
        let bytes = head().encode(MARKER, &metadata, &body);
        let mut expected = [
            MARKER.as_slice(),
            b"\x02\x01\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0",
            b"\x26\0\0\0\x03\0\0\0\x02\0\x05\0",
            &crc32fast::hash(&metadata).to_le_bytes(),
            &crc32fast::hash(&body).to_le_bytes(),
        ]
        .concat();
        expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(bytes.as_slice(), expected);
        assert_eq!(FrameHead::decode(&bytes, MARKER), Some(head()));
        assert_eq!(head().encode_bound(MARKER), expected[..36]);
    }

    #[test]
    fn a_flipped_bit_or_another_marker_is_no_head() {
        let bytes = head().encode(MARKER, &[1; 38], &[2]);
        assert_eq!(FrameHead::decode(&bytes, [0xA2; 8]), None);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHead::decode(&altered, MARKER), None, "bit {bit}");
        }
    }

    /// A checksum that holds does not make lengths or numbers possible that the format forbids.
    #[test]
    fn values_that_the_format_forbids_are_no_head() {
        let over = u32::try_from(BODY_BYTES + 1).unwrap();
        for (head, why) in [
            (FrameHead { durable: 0x0102, ..head() }, "durable before it was made"),
            (FrameHead { sequence: u64::MAX, ..head() }, "the number after which there is none"),
            (FrameHead { body_bytes: over, ..head() }, "a body over the limit"),
            (FrameHead { metadata_bytes: 65_537, ..head() }, "metadata over the limit"),
            (FrameHead { metadata_bytes: 17, ..head() }, "metadata too short"),
            (FrameHead { slot: 0, ..head() }, "an entry without a slot"),
            (FrameHead { kind: FrameKind::Key, ..head() }, "a key frame of another size"),
            (FrameHead { kind: FrameKind::Attestation, ..head() }, "an attestation with a body"),
        ] {
            assert_eq!(FrameHead::decode(&head.encode(MARKER, &[], &[]), MARKER), None, "{why}");
        }
    }

    #[test]
    fn metadata_is_pinned_and_refuses_what_it_does_not_write() {
        let parts = vec![Part { table: TableId::from_bytes([9; 16]), records: 7 }];
        let mut bytes = Vec::new();
        encode_entry_metadata(UnixNanos(-2), 0x0304, 6, Compression::Lz4, &parts, &mut bytes);
        let expected =
            [b"\xfe\xff\xff\xff\xff\xff\xff\xff\x04\x03\0\0\x06\0\x01\0\x01\0".as_slice(), &[9; 16], b"\x07\0\0\0"]
                .concat();
        assert_eq!(bytes, expected);
        assert_eq!(bytes.len(), EntryMetadata::bytes(1));
        let decoded = EntryMetadata {
            received: UnixNanos(-2),
            raw_bytes: 0x0304,
            scan_version: 6,
            compression: Compression::Lz4,
            parts,
        };
        assert!(EntryMetadata::is_readable(&bytes));
        assert_eq!(EntryMetadata::decode(&bytes), Some(decoded));
        let refused = |bytes: &[u8]| EntryMetadata::decode(bytes).is_none() && !EntryMetadata::is_readable(bytes);
        for length in 0..bytes.len() {
            assert!(refused(&bytes[..length]), "{length}");
        }
        assert!(refused(&[bytes.as_slice(), &[0]].concat()), "longer than it says");
        for (number, compression) in
            [(0, Compression::None), (1, Compression::Lz4), (2, Compression::Gzip), (3, Compression::Zstd)]
        {
            bytes[14] = number;
            assert_eq!(EntryMetadata::decode(&bytes).map(|metadata| metadata.compression), Some(compression));
            assert!(EntryMetadata::is_readable(&bytes));
        }
        bytes[14] = 4;
        assert!(refused(&bytes), "another compression");
        bytes[14..16].copy_from_slice(&[1, 1]);
        assert!(refused(&bytes), "a byte that is not used");

        let key = KeyMetadata { workspace: WorkspaceId::from_bytes([1; 16]), aek: AekId::from_bytes([2; 16]) };
        assert_eq!(key.encode().as_slice(), [[1_u8; 16], [2; 16]].concat());
        assert_eq!(KeyMetadata::decode(&key.encode()), Some(key));
        assert_eq!(KeyMetadata::decode(&[0; 33]), None);
    }

    #[test]
    fn as_many_parts_as_the_limit_allows_fit_the_metadata() {
        assert!(EntryMetadata::bytes(PARTS) <= METADATA_BYTES && EntryMetadata::bytes(PARTS + 1) > METADATA_BYTES);
        const { assert!(PARTS >= logseal_core::limit::TABLES_PER_WORKSPACE) };
    }
}
