//! What a sealed segment shows without any key: its layout and the ids of its keys.
//!
//! ```text
//! "PARE" | module ... module | FileCryptoMetaData (Thrift, in clear) | encrypted footer | length 4 LE | "PARE"
//! module = length 4 LE | nonce 12 | ciphertext | tag 16
//! ```
//!
//! Everything here is read from an untrusted file: each length is checked against the file's size before it is followed.

use std::io::{self, Read, Seek, SeekFrom};

use data_encoding::HEXLOWER;
use logseal_crypto::WrappedDek;
use parquet::file::reader::ChunkReader;
use serde::Serialize;

use crate::SegmentError;
use crate::key_metadata::KeyMetadata;

const MAGIC: &[u8; 4] = b"PARE";

/// A footer larger than this is not ours; it bounds what is read into memory.
const FOOTER_BYTES: u64 = 64 * 1024 * 1024;

const NO_KEY_METADATA: &str = "its footer does not state AES_GCM_V1 and key metadata";

/// The layout of a segment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The file's size in bytes.
    pub bytes: u64,
    /// The encryption algorithm.
    pub algorithm: &'static str,
    /// The AAD prefix, hexadecimal.
    pub aad_prefix: String,
    /// The random part of the file's AAD, hexadecimal.
    pub aad_file_unique: String,
    /// The AEK that wraps the DEK.
    pub aek_id: String,
    /// The workspace that the wrapped DEK names.
    pub workspace_id: String,
    /// The segment that the wrapped DEK names.
    pub segment_id: String,
    /// The key metadata as they stand in the footer.
    pub key_metadata: KeyMetadata,
    /// Encrypted modules before the footer: pages, page headers and indexes.
    pub modules: u64,
    /// The bytes of the largest module.
    pub largest_module_bytes: u64,
    /// The bytes of the encrypted footer.
    pub encrypted_footer_bytes: u64,
}

/// Reads the layout of `file`.
///
/// # Errors
///
/// [`io::Error`] when the file cannot be read; its inner error is a [`SegmentError::NotASegment`] when the content is not a
/// sealed segment.
pub fn inspect(file: &mut (impl Read + Seek)) -> io::Result<Inspection> {
    let bytes = file.seek(SeekFrom::End(0))?;
    let not = |why| io::Error::new(io::ErrorKind::InvalidData, SegmentError::NotASegment(why));
    if bytes < SHORTEST {
        return Err(not(TOO_SHORT));
    }
    let mut head = [0; 4];
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut tail)?;
    let footer_bytes = footer_bytes(bytes, head, tail).map_err(not)?;
    let footer_start = bytes - 8 - footer_bytes;
    let mut footer = vec![0; usize::try_from(footer_bytes).unwrap_or(0)];
    file.seek(SeekFrom::Start(footer_start))?;
    file.read_exact(&mut footer)?;
    let mut thrift = Thrift(&footer);
    let crypto = thrift.crypto_metadata().ok_or_else(|| not(NO_KEY_METADATA))?;
    let encrypted_footer_bytes = thrift.0.len() as u64;
    let (key_metadata, wrapped) =
        KeyMetadata::parse(crypto.key_metadata).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let WrappedDek { aek, workspace, segment, .. } = wrapped;
    let (modules, largest_module_bytes) =
        modules(file, footer_start)?.ok_or_else(|| not("its modules do not fill it"))?;
    Ok(Inspection {
        bytes,
        algorithm: "AES_GCM_V1",
        aad_prefix: HEXLOWER.encode(crypto.aad_prefix),
        aad_file_unique: HEXLOWER.encode(crypto.aad_file_unique),
        aek_id: aek.to_string(),
        workspace_id: workspace.to_string(),
        segment_id: segment.to_string(),
        key_metadata,
        modules,
        largest_module_bytes,
        encrypted_footer_bytes,
    })
}

/// Two marks and a length: nothing shorter is looked into.
const SHORTEST: u64 = 12;
const TOO_SHORT: &str = "it is shorter than 12 bytes";

/// The length of the footer of a file of `bytes` bytes, from its first four and its last eight bytes.
fn footer_bytes(bytes: u64, head: [u8; 4], tail: [u8; 8]) -> Result<u64, &'static str> {
    let [a, b, c, d, mark @ ..] = tail;
    if &head != MAGIC || &mark != MAGIC {
        return Err("it does not begin and end with PARE, the mark of an encrypted footer");
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > bytes.saturating_sub(SHORTEST).min(FOOTER_BYTES) {
        return Err("its footer is longer than the file or 64 MiB");
    }
    Ok(length)
}

/// Refuses `file` unless a footer that fits into it, in the clear part as we write it, is where its end says.
pub(crate) fn check_ends(file: &impl ChunkReader) -> Result<(), SegmentError> {
    wrapped_dek(file).map(drop)
}

/// The wrapped DEK that `file` states in clear: a claim until it opens. For a lost catalog; the reader of segments takes the
/// wrapped DEK from the catalog. Reads the first four bytes and the footer.
///
/// # Errors
///
/// [`SegmentError::NotASegment`] when the file has no footer as we write it, [`SegmentError::Open`] when it cannot be read.
pub fn wrapped_dek(file: &impl ChunkReader) -> Result<WrappedDek, SegmentError> {
    let bytes = file.len();
    if bytes < SHORTEST {
        return Err(SegmentError::NotASegment(TOO_SHORT));
    }
    let part = |start, length| file.get_bytes(start, length).map_err(SegmentError::Open);
    let odd = |_| SegmentError::NotASegment("it cannot be read in whole");
    let head = part(0, 4)?.as_ref().try_into().map_err(odd)?;
    let tail = part(bytes - 8, 8)?.as_ref().try_into().map_err(odd)?;
    let length = footer_bytes(bytes, head, tail).map_err(SegmentError::NotASegment)?;
    let footer = part(bytes - 8 - length, usize::try_from(length).unwrap_or(0))?;
    let stated = Thrift(&footer).crypto_metadata().ok_or(SegmentError::NotASegment(NO_KEY_METADATA))?;
    KeyMetadata::parse(stated.key_metadata).map(|(_, wrapped)| wrapped)
}

/// Counts the modules between the first magic and `end`; `None` when they do not end there.
fn modules(file: &mut (impl Read + Seek), end: u64) -> io::Result<Option<(u64, u64)>> {
    let (mut position, mut count, mut largest) = (4_u64, 0, 0);
    let mut file = io::BufReader::new(file);
    file.seek(SeekFrom::Start(position))?;
    while position < end {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        position += 4 + length;
        if position > end {
            return Ok(None);
        }
        file.seek_relative(i64::try_from(length).unwrap_or(i64::MAX))?;
        count += 1;
        largest = largest.max(length);
    }
    Ok(Some((count, largest)))
}

struct CryptoMetadata<'a> {
    aad_prefix: &'a [u8],
    aad_file_unique: &'a [u8],
    key_metadata: &'a [u8],
}

/// The little of Thrift's compact protocol that `FileCryptoMetaData` of our own files needs.
struct Thrift<'a>(&'a [u8]);

const BINARY: u8 = 8;
const STRUCT: u8 = 12;

impl<'a> Thrift<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let mut length = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let (value, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                return Some(value);
            }
        }
        None
    }

    /// The next field's number and type; the number is 0 at the end of the struct. Long-form numbers do not occur here.
    fn field(&mut self, last: u8) -> Option<(u8, u8)> {
        match self.byte()? {
            0 => Some((0, 0)),
            header if header >> 4 == 0 => None,
            header => Some((last.checked_add(header >> 4)?, header & 0x0f)),
        }
    }

    fn crypto_metadata(&mut self) -> Option<CryptoMetadata<'a>> {
        // 1: EncryptionAlgorithm (a union, 1: AES_GCM_V1), 2: key_metadata
        (self.field(0)? == (1, STRUCT) && self.field(0)? == (1, STRUCT)).then_some(())?;
        let (mut aad_prefix, mut aad_file_unique) = (None, None);
        let mut last = 0;
        loop {
            let (number, kind) = self.field(last)?;
            match (number, kind) {
                (0, _) => break,
                (1, BINARY) => aad_prefix = Some(self.binary()?),
                (2, BINARY) => aad_file_unique = Some(self.binary()?),
                (3, 1 | 2) => {} // supply_aad_prefix: a boolean is in the type itself
                _ => return None,
            }
            last = number;
        }
        (self.field(1)? == (0, 0) && self.field(1)? == (2, BINARY)).then_some(())?;
        let key_metadata = self.binary()?;
        (self.field(2)? == (0, 0)).then_some(())?;
        Some(CryptoMetadata { aad_prefix: aad_prefix?, aad_file_unique: aad_file_unique?, key_metadata })
    }
}
