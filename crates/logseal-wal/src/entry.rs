//! One request on its way into the log.

use std::fmt::{self, Debug};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
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

/// How the bytes of a request are compressed; the number is part of the format and never reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// One LZ4 block.
    Lz4 = 1,
    /// RFC 1952, any number of members.
    Gzip = 2,
    /// RFC 8878, any number of frames.
    Zstd = 3,
}

impl Compression {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Lz4, Self::Gzip, Self::Zstd].into_iter().find(|compression| *compression as u8 == number)
    }
}

/// Whether a compression makes bytes smaller by a third. LZ4 alone takes some ten times as long as sealing; less is not worth that.
fn is_worth_it(compressed: usize, raw: usize) -> bool {
    compressed <= raw / 3 * 2
}

/// What is compressed of a request to see whether it is worth it.
const SAMPLE_BYTES: usize = 16 * 1024;

/// The bytes of a request as the log keeps them.
///
/// `Debug` shows lengths only: the bytes are a client's log records.
#[derive(Clone, Eq, PartialEq)]
pub struct CompressedBody {
    compression: Compression,
    raw_bytes: usize,
    bytes: Bytes,
}

impl CompressedBody {
    /// Compresses a request's bytes by LZ4, if that makes them smaller by a third; of a large one its beginning tells.
    #[must_use]
    pub fn compress(raw: &Bytes) -> Self {
        let lz4 = || {
            if let Some(sample) = raw.get(..SAMPLE_BYTES).filter(|_| raw.len() >= 4 * SAMPLE_BYTES)
                && !is_worth_it(lz4_flex::block::compress(sample).len(), sample.len())
            {
                return None;
            }
            Some(lz4_flex::block::compress(raw)).filter(|compressed| is_worth_it(compressed.len(), raw.len()))
        };
        match lz4() {
            Some(compressed) => Self::of(Compression::Lz4, compressed.into(), raw.len()),
            None => Self::of(Compression::None, raw.clone(), raw.len()),
        }
    }

    /// Bytes that came compressed, which must decompress to `raw_bytes` bytes; nothing when that is not worth keeping.
    #[must_use]
    pub fn received(compression: Compression, bytes: Bytes, raw_bytes: usize) -> Option<Self> {
        is_worth_it(bytes.len(), raw_bytes).then(|| Self::of(compression, bytes, raw_bytes))
    }

    /// Bytes that were read, and the length of what they stand for.
    #[must_use]
    pub(crate) fn of(compression: Compression, bytes: Bytes, raw_bytes: usize) -> Self {
        Self { compression, raw_bytes, bytes }
    }

    /// The request's bytes.
    ///
    /// # Errors
    ///
    /// [`OpenError::Compression`] when the bytes do not decompress to exactly the stated length, or that is over 64 MiB.
    pub fn decompress(&self) -> Result<Vec<u8>, OpenError> {
        if self.raw_bytes > REQUEST_BYTES {
            return Err(OpenError::Compression);
        }
        if self.compression == Compression::None {
            return if self.bytes.len() == self.raw_bytes {
                Ok(self.bytes.to_vec())
            } else {
                Err(OpenError::Compression)
            };
        }
        // One byte more than is expected shows that there is more.
        let mut raw = vec![0; self.raw_bytes + 1];
        let length = match self.compression {
            Compression::None => None,
            Compression::Lz4 => lz4_flex::block::decompress_into(&self.bytes, &mut raw).ok(),
            Compression::Gzip => gunzip(&self.bytes, &mut raw),
            Compression::Zstd => zstd::zstd_safe::decompress(&mut raw[..], &self.bytes).ok(),
        };
        raw.truncate(self.raw_bytes);
        if length == Some(self.raw_bytes) { Ok(raw) } else { Err(OpenError::Compression) }
    }

    /// How it is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
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

/// Decompresses into `raw` and returns how many bytes it was; nothing when the bytes are no gzip.
fn gunzip(bytes: &[u8], raw: &mut [u8]) -> Option<usize> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut filled = 0;
    while filled < raw.len() {
        match decoder.read(&mut raw[filled..]).ok()? {
            0 => break,
            read => filled += read,
        }
    }
    Some(filled)
}

impl Debug for CompressedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedBody({:?}, {} of {} bytes)", self.compression, self.bytes.len(), self.raw_bytes)
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
    use std::io::Write;

    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Compression; 4] = [Compression::None, Compression::Lz4, Compression::Gzip, Compression::Zstd];

    fn gzip(raw: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(raw).unwrap();
        encoder.finish().unwrap()
    }

    fn bodies(raw: &[u8]) -> [CompressedBody; 4] {
        let (head, tail) = raw.split_at(raw.len() / 3);
        let zstd = |part: &[u8]| zstd::bulk::compress(part, 1).unwrap();
        let bytes = [
            raw.to_vec(),
            lz4_flex::block::compress(raw),
            [gzip(head), gzip(b""), gzip(tail)].concat(),
            [zstd(head), zstd(tail)].concat(),
        ];
        let mut of = ALL.into_iter().zip(bytes).map(|(how, bytes)| CompressedBody::of(how, bytes.into(), raw.len()));
        std::array::from_fn(|_| of.next().unwrap())
    }

    #[test]
    fn a_body_of_another_length_or_with_altered_bytes_is_refused_and_shows_nothing() {
        let raw = b"secret secret secret secret secret".repeat(10);
        for body in bodies(&raw) {
            assert_eq!(body.decompress().as_deref().ok(), Some(raw.as_slice()), "{body:?}");
            assert!(!format!("{body:?}").contains("secret"));
            for raw_bytes in [0, raw.len() - 1, raw.len() + 1, REQUEST_BYTES + 1, usize::MAX] {
                let other = CompressedBody::of(body.compression, body.bytes.clone(), raw_bytes);
                assert!(other.decompress().is_err(), "{other:?}");
            }
            let cut = CompressedBody::of(body.compression, body.bytes.slice(..body.bytes.len() - 9), raw.len());
            assert!(cut.decompress().is_err(), "{cut:?}");
        }
    }

    #[test]
    fn only_what_becomes_smaller_by_a_third_is_compressed() {
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(100_000).collect();
        let text = b"a line like many others\n".repeat(5_000);
        for (raw, compression) in [
            (text.clone(), Compression::Lz4),
            (noise.clone(), Compression::None),
            (noise[..1_000].to_vec(), Compression::None),
            (text[..1_000].to_vec(), Compression::Lz4),
            // The beginning tells, and where it is wrong the whole does.
            ([noise.clone(), text.clone()].concat(), Compression::None),
            ([text[..20_000].to_vec(), noise].concat(), Compression::None),
            (Vec::new(), Compression::None),
        ] {
            let raw = Bytes::from(raw);
            let body = CompressedBody::compress(&raw);
            assert_eq!((body.compression, body.decompress().unwrap()), (compression, raw.to_vec()));
        }
        let wire = Bytes::from(gzip(&text));
        assert_eq!(CompressedBody::received(Compression::Gzip, wire.clone(), wire.len()), None);
        let kept = CompressedBody::received(Compression::Gzip, wire, text.len()).unwrap();
        assert_eq!(kept.decompress().unwrap(), text);
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), raw_bytes in 0..2000_usize) {
            let bytes = Bytes::from(bytes);
            for compression in ALL {
                let _ = CompressedBody::of(compression, bytes.clone(), raw_bytes).decompress();
            }
            prop_assert_eq!(CompressedBody::compress(&bytes).decompress().ok(), Some(bytes.to_vec()));
            for body in bodies(&bytes) {
                prop_assert_eq!(body.decompress().ok(), Some(bytes.to_vec()));
            }
        }
    }
}
