//! The header of a file: who wrote it, when, and what came before it.

use logseal_core::{ClusterId, NodeId, UnixNanos, WalFileId};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Fields, HEADER_BYTES, VERSION};

const MAGIC: &[u8; 8] = b"LOGSEALW";
const CRC_OFFSET: usize = HEADER_BYTES - 4;
const HAS_PREDECESSOR: u32 = 1;

/// What a file's header says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileHeader {
    /// The version of the format, [`VERSION`] for a new file.
    pub version: u16,
    /// The file.
    pub file: WalFileId,
    /// The cluster whose workspaces it serves.
    pub cluster: ClusterId,
    /// The node that wrote it.
    pub node: NodeId,
    /// Its place among the cluster's files of that node: 0 for the first, else the predecessor's and one.
    pub ordinal: u64,
    /// When it was made.
    pub created: UnixNanos,
    /// Random bytes with which each of its frames begins.
    pub marker: [u8; 8],
    /// Random bytes with which the nonce of each of its entries begins.
    pub nonce_field: [u8; 4],
    /// The file before it, if there was one.
    pub predecessor: Option<Predecessor>,
}

/// The file before another: which it was, and how far it counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Predecessor {
    /// The file.
    pub file: WalFileId,
    /// Its ordinal.
    pub ordinal: u64,
    /// Its valid-to: the last sequence of it that counts; what lies behind is void.
    pub end: u64,
    /// Its chain hash after frame `end`.
    pub chain: [u8; 32],
}

/// Why bytes are not a header of this version.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum HeaderError {
    /// The magic is another: it is no file of a log.
    #[error("the file does not begin like a log file")]
    Magic,
    /// A log file of a version that this program does not know.
    #[error(
        "it has format version {0}, this version of logseal knows versions 1 to {known}: start the version that wrote it",
        known = VERSION
    )]
    Version(u16),
    /// The checksum or a field is wrong.
    #[error("the header is damaged")]
    Damaged,
}

impl FileHeader {
    /// One copy of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        let length = u16::try_from(HEADER_BYTES).expect("512 fits 16 bits");
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.predecessor.map_or(0, |_| HAS_PREDECESSOR).to_le_bytes());
        out.extend_from_slice(self.file.as_bytes());
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(&self.ordinal.to_le_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&self.marker);
        out.extend_from_slice(&self.nonce_field);
        out.extend_from_slice(&[0; 4]);
        if let Some(predecessor) = &self.predecessor {
            out.extend_from_slice(predecessor.file.as_bytes());
            out.extend_from_slice(&predecessor.end.to_le_bytes());
            out.extend_from_slice(&predecessor.chain);
        }
        out.resize(CRC_OFFSET, 0);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.try_into().expect("the fields and their padding are 512 bytes")
    }

    /// Reads one copy.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] unless every byte is as [`FileHeader::encode`] writes it.
    pub fn decode(copy: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        if !copy.starts_with(MAGIC) {
            return Err(HeaderError::Magic);
        }
        let (content, crc) = copy.split_last_chunk::<4>().ok_or(HeaderError::Damaged)?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err(HeaderError::Damaged);
        }
        let mut fields = Fields(&content[MAGIC.len()..]);
        let version = fields.u16().ok_or(HeaderError::Damaged)?;
        if !(1..=VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        let header = Self::fields(version, &mut fields).ok_or(HeaderError::Damaged)?;
        // Unused bytes must be zero and flags known; comparing with the encoding says all of it at once.
        if header.encode() == *copy { Ok(header) } else { Err(HeaderError::Damaged) }
    }

    fn fields(version: u16, fields: &mut Fields<'_>) -> Option<Self> {
        let _length = fields.u16()?;
        let flags = fields.u32()?;
        let file = WalFileId::from_bytes(fields.array()?);
        let cluster = ClusterId::from_bytes(fields.array()?);
        let node = NodeId::from_bytes(fields.array()?);
        let ordinal = fields.u64()?;
        let created = UnixNanos(fields.i64()?);
        let marker = fields.array()?;
        let nonce_field = fields.array()?;
        let _zero = fields.u32()?;
        let predecessor = if flags & HAS_PREDECESSOR == 0 {
            None
        } else {
            Some(Predecessor {
                file: WalFileId::from_bytes(fields.array()?),
                ordinal: ordinal.checked_sub(1)?,
                end: fields.u64()?,
                chain: fields.array()?,
            })
        };
        Some(Self { version, file, cluster, node, ordinal, created, marker, nonce_field, predecessor })
    }

    /// SHA-256 of one copy: what the catalog keeps of the file.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            version: VERSION,
            file: WalFileId::from_bytes([1; 16]),
            cluster: ClusterId::from_bytes([2; 16]),
            node: NodeId::from_bytes([3; 16]),
            ordinal: 4,
            created: UnixNanos(5),
            marker: [6; 8],
            nonce_field: [7; 4],
            predecessor: Some(Predecessor {
                file: WalFileId::from_bytes([8; 16]),
                ordinal: 3,
                end: 9,
                chain: [10; 32],
            }),
        }
    }

    /// The layout is part of the format: it must not move.
    #[test]
    fn the_layout_is_pinned() {
        let mut expected = [
            b"LOGSEALW\x02\0\0\x02\x01\0\0\0".as_slice(),
            &[1; 16],
            &[2; 16],
            &[3; 16],
            b"\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0",
            &[6; 8],
            &[7; 4],
            &[0; 4],
            &[8; 16],
            b"\x09\0\0\0\0\0\0\0",
            &[10; 32],
        ]
        .concat();
        expected.resize(508, 0);
        expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(header().encode().as_slice(), expected);
        assert_eq!(header().hash().as_slice(), Sha256::digest(&expected).as_slice());
    }

    #[test]
    fn a_header_round_trips_with_and_without_predecessor() {
        for header in [header(), FileHeader { ordinal: 0, predecessor: None, ..header() }] {
            assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let copy = header().encode();
        for bit in 0..copy.len() * 8 {
            let mut altered = copy;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&altered).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_and_unknown_flags_are_refused_even_with_a_right_checksum() {
        let altered = |at: usize, value: u8| {
            let mut copy = header().encode();
            copy[at] = value;
            let crc = crc32fast::hash(&copy[..CRC_OFFSET]);
            copy[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
            FileHeader::decode(&copy)
        };
        assert_eq!(altered(8, 3), Err(HeaderError::Version(3)));
        assert_eq!(altered(8, 0), Err(HeaderError::Version(0)));
        assert_eq!(altered(8, 1), Ok(FileHeader { version: 1, ..header() }));
        assert_eq!(altered(12, 3), Err(HeaderError::Damaged), "a flag of the future");
        assert_eq!(altered(300, 1), Err(HeaderError::Damaged), "padding");
        assert_eq!(altered(64, 0), Err(HeaderError::Damaged), "a first file with a predecessor");
    }
}
