//! gzip, deflate and zstd with bounded memory.
//!
//! Output grows in steps that are each asked of the budget, up to one byte beyond the limit: more is a refusal, so a
//! bomb costs no more memory than the largest request. zstd's window, which the sender chooses, is read from the frame
//! headers before a decoder exists; most bodies need none, since they are decoded in one step. The first 64 KiB of a small body are decoded in place; the rest crosses to the
//! compute threads, because how much will come out of a stream cannot be told from its size. What came stays beside what came out of it, for the log.

use std::fmt::{self, Debug};
use std::io::{Cursor, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use logseal_wal::{CompressedBody, Compression};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::find_frame_compressed_size;

use crate::admission::{BudgetPermit, over_budget};
use crate::cpu::{self, Awaited};
use crate::door::Refusal;
use crate::expansion::Expansion;

/// Encoding of a request body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// None.
    Identity,
    /// RFC 1952, any number of members up to [`MEMBERS`].
    Gzip,
    /// RFC 1950, which HTTP and gRPC mean by this name, or bare RFC 1951, which some clients send.
    Deflate,
    /// RFC 8878, any number of frames up to [`MEMBERS`], windows up to [`ZSTD_WINDOW_BYTES`].
    Zstd,
}

impl Encoding {
    /// What is accepted, as headers list it.
    pub const NAMES: &'static str = "identity,gzip,deflate,zstd";

    /// The encoding with this name in `grpc-encoding` or `content-encoding`.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        const ALL: [(&str, Encoding); 4] = [
            ("identity", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("zstd", Encoding::Zstd),
        ];
        let known = ALL.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        known.map(|(_, encoding)| *encoding)
    }
}

/// Largest zstd window, 8 MiB: what RFC 8878 (section 3.1.1.1.2) asks every decoder to support.
pub const ZSTD_WINDOW_BYTES: u64 = 1 << ZSTD_WINDOW_LOG;
const ZSTD_WINDOW_LOG: u32 = 23;

/// Most gzip members or zstd frames of a body. Each costs a new decoder state, and an empty one has only 20 bytes.
pub const MEMBERS: usize = 1_024;

/// Output that is decoded in place: about 0.2 ms of gzip. Also the largest body that is begun in place.
const IN_PLACE: usize = 64 * 1024;

/// State of a decoder beside its window: miniature against the rest, but not nothing for many small requests.
const STATE_BYTES: usize = 64 * 1024;

/// Least first step of the output.
const LEAST_STEP: usize = 4 * 1024;

/// Largest first step of the output, unless the body says how long it will be.
const FIRST_STEP: usize = 1024 * 1024;

/// Output of zstd that is decoded in one step, in place and on a compute thread: without a window, which for most bodies is larger than they are.
const AT_ONCE_IN_PLACE: usize = 2 * IN_PLACE;
const AT_ONCE: usize = 8 * 1024 * 1024;

/// A body that says that it will become more than so many times its size is not believed: it is what deflate can become at the most (zlib's technical
/// details), and far more than logs do.
const BELIEVED_RATIO: usize = 1032;

/// Usual ratio of compression of logs. A call waits for budget once, before its size is known: with this guess most
/// calls need not ask again, where they could only be refused.
const USUAL_RATIO: usize = 10;

/// Budget to wait for before a body of `wire` bytes is read.
pub(crate) fn expected_bytes(encoding: Encoding, wire: usize, limit: usize, expansion: Expansion) -> usize {
    match encoding {
        Encoding::Identity => wire.saturating_add(expansion.chunk_bytes(wire)),
        Encoding::Gzip | Encoding::Deflate | Encoding::Zstd => {
            let output = wire.saturating_mul(USUAL_RATIO).min(limit);
            (wire + STATE_BYTES + output).saturating_add(expansion.chunk_bytes(output))
        }
    }
}

/// Least budget with which every request up to `limit` can be served when it is alone.
///
/// The worst moment of one request is its body on the wire, its output, the copy of the output that growth makes, and a
/// decoder; or its body on the wire, its output and the estimate of its chunk.
pub(crate) fn least_budget(limit: usize) -> usize {
    3 * limit + limit.max(ZSTD_WINDOW_BYTES as usize + 2 * STATE_BYTES)
}

/// The body, the same as it came, and what both take.
type Decompressed = (Bytes, Option<CompressedBody>, BudgetPermit);

/// Decompresses `wire`, whose bytes `permit` covers, to at most `limit` bytes.
///
/// The bytes as they came are returned too, for the log, if they were compressed and are worth keeping. The permit comes back holding the memory of
/// all that is returned, and an estimate of the Arrow chunk.
///
/// # Errors
///
/// [`Refusal::Undecodable`] for a stream that is damaged, cut off or followed by something else; [`Refusal::TooLarge`]
/// over the limit or with a larger window than [`ZSTD_WINDOW_BYTES`]; [`Refusal::Unavailable`] when the budget is
/// exhausted or the decoder panicked.
pub async fn decompress(
    encoding: Encoding,
    wire: Bytes,
    permit: BudgetPermit,
    limit: usize,
    expansion: Expansion,
) -> Result<Decompressed, Refusal> {
    if encoding == Encoding::Identity {
        return Ok((wire, None, permit));
    }
    let result = if wire.len() > IN_PLACE {
        let begin = move || Work::begin(encoding, wire, permit, limit, AT_ONCE);
        cpu::run(move |awaited| begin()?.run_to_end(awaited, expansion)).await
    } else {
        let mut work = Work::begin(encoding, wire, permit, limit, AT_ONCE_IN_PLACE)?;
        if work.run(IN_PLACE, &Awaited::ALWAYS)? {
            return work.finish(expansion);
        }
        cpu::run(move |awaited| work.run_to_end(awaited, expansion)).await
    };
    result.unwrap_or_else(|_panic| Err(Refusal::unavailable("the request could not be decompressed now")))
}

/// A decompression under way: everything that it holds is counted by `permit`.
#[derive(Debug)]
struct Work {
    encoding: Encoding,
    wire: Bytes,
    source: Source,
    /// Memory of the source: body and decoder.
    source_bytes: usize,
    /// Initialized to its whole length, of which `filled` bytes are output.
    output: Vec<u8>,
    filled: usize,
    limit: usize,
    permit: BudgetPermit,
}

impl Work {
    /// Zstd output of up to `at_once` bytes is there when this returns.
    fn begin(
        encoding: Encoding,
        wire: Bytes,
        mut permit: BudgetPermit,
        limit: usize,
        at_once: usize,
    ) -> Result<Self, Refusal> {
        // One more byte than it says, for the read that finds the end.
        let first = match stated_bytes(encoding, &wire).filter(|bytes| *bytes <= limit) {
            Some(bytes) => (bytes + 1).max(LEAST_STEP).min(limit + 1),
            None => wire.len().saturating_mul(USUAL_RATIO).clamp(LEAST_STEP, FIRST_STEP).min(limit + 1),
        };
        let window = if encoding == Encoding::Zstd { largest_window(&wire)? } else { 0 };
        let mut source_bytes = wire.len() + STATE_BYTES;
        if !permit.try_cover(source_bytes + first) {
            return Err(over_budget());
        }
        let mut output = vec![0; first];
        if encoding == Encoding::Zstd && first <= at_once {
            // What does not come out whole is begun again, in steps, which also tell what is wrong with it.
            if let Ok(filled) = zstd::zstd_safe::decompress(&mut output[..], &wire)
                && filled <= limit
            {
                return Ok(Self { encoding, wire, source: Source::Ended, source_bytes, output, filled, limit, permit });
            }
        }
        source_bytes += window;
        if !permit.try_cover(source_bytes + first) {
            return Err(over_budget());
        }
        let source = match encoding {
            Encoding::Zstd => Source::Zstd(Zstd::new(wire.clone())?),
            Encoding::Deflate => Source::Deflate(Box::new(Deflate::new(wire.clone()))),
            Encoding::Identity | Encoding::Gzip => Source::Gzip(Box::new(Gzip::new(wire.clone()))),
        };
        Ok(Self { encoding, wire, source, source_bytes, output, filled: 0, limit, permit })
    }

    fn run_to_end(mut self, awaited: &Awaited<'_>, expansion: Expansion) -> Result<Decompressed, Refusal> {
        while !self.run(usize::MAX, awaited)? {}
        self.finish(expansion)
    }

    /// Decodes until at least `until` bytes came out in all. True when the stream has ended.
    fn run(&mut self, until: usize, awaited: &Awaited<'_>) -> Result<bool, Refusal> {
        if matches!(self.source, Source::Ended) {
            return Ok(true);
        }
        while self.filled < until {
            if !awaited.get() {
                return Err(Refusal::Disconnected);
            }
            if self.filled == self.output.len() {
                self.grow()?;
            }
            // One step is a small one, so that a caller who has gone is noticed soon.
            let end = self.output.len().min(self.filled + IN_PLACE);
            let written = self.source.read(&mut self.output[self.filled..end])?;
            if written == 0 {
                return Ok(true);
            }
            self.filled += written;
            if self.filled > self.limit {
                return Err(Refusal::too_large("the decompressed request", self.limit));
            }
        }
        Ok(false)
    }

    /// Doubles the output, up to one byte beyond the limit; the copy is asked of the budget like the rest.
    fn grow(&mut self) -> Result<(), Refusal> {
        let old = self.output.len();
        let new = (old * 2).min(self.limit + 1);
        if !self.permit.try_cover(self.source_bytes + old + new) {
            return Err(over_budget());
        }
        let mut output = vec![0; new];
        output[..old].copy_from_slice(&self.output);
        self.output = output;
        Ok(())
    }

    fn finish(self, expansion: Expansion) -> Result<Decompressed, Refusal> {
        let Self { encoding, wire, source, mut output, filled, mut permit, .. } = self;
        drop(source);
        output.truncate(filled);
        let kept = match encoding {
            Encoding::Gzip => CompressedBody::received(Compression::Gzip, wire, filled),
            Encoding::Zstd => CompressedBody::received(Compression::Zstd, wire, filled),
            Encoding::Identity | Encoding::Deflate => None,
        };
        let kept_bytes = kept.as_ref().map_or(0, CompressedBody::compressed_bytes);
        let needed = output.capacity() + kept_bytes + expansion.chunk_bytes(filled);
        if !permit.try_cover(needed) {
            return Err(over_budget());
        }
        permit.shrink_to(needed);
        Ok((Bytes::from(output), kept, permit))
    }
}

enum Source {
    /// All of it is in the output.
    Ended,
    Gzip(Box<Gzip>),
    Deflate(Box<Deflate>),
    Zstd(Zstd),
}

impl Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "ended",
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Zstd(_) => "zstd",
        })
    }
}

impl Source {
    /// Writes to `out`, which is not empty; 0 is the end of the whole body.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Refusal> {
        match self {
            Self::Ended => Ok(0),
            Self::Gzip(gzip) => gzip.read(out),
            Self::Deflate(deflate) => deflate.read(out),
            Self::Zstd(zstd) => zstd.read(out),
        }
    }
}

/// How many bytes a body says that it will become, if it does and is to be believed.
fn stated_bytes(encoding: Encoding, wire: &[u8]) -> Option<usize> {
    let bytes = match encoding {
        Encoding::Identity | Encoding::Deflate => None,
        // ISIZE, the last four bytes of a member (RFC 1952, section 2.3.1): of a single one that is all.
        Encoding::Gzip => Some(u32::from_le_bytes(*wire.last_chunk()?) as usize),
        Encoding::Zstd => usize::try_from(zstd::zstd_safe::get_frame_content_size(wire).ok()??).ok(),
    };
    bytes.filter(|bytes| bytes / BELIEVED_RATIO <= wire.len())
}

fn broken(name: &str) -> Refusal {
    Refusal::Undecodable(format!("the request is not valid {name}").into())
}

fn too_many_members() -> Refusal {
    Refusal::Undecodable(format!("the request has more than {MEMBERS} compressed members").into())
}

struct Gzip {
    /// Absent only while one member follows another.
    member: Option<GzDecoder<Cursor<Bytes>>>,
    members: usize,
}

impl Gzip {
    fn new(wire: Bytes) -> Self {
        Self { member: Some(GzDecoder::new(Cursor::new(wire))), members: 1 }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Refusal> {
        while let Some(member) = &mut self.member {
            let written = member.read(out).map_err(|_| broken("gzip"))?;
            if written > 0 {
                return Ok(written);
            }
            let Some(rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            if rest.position() < rest.get_ref().len() as u64 {
                self.members += 1;
                if self.members > MEMBERS {
                    return Err(too_many_members());
                }
                // What is no member fails in its header.
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// One stream: unlike gzip's members and zstd's frames, nothing may follow it.
struct Deflate {
    decoder: Decompress,
    wire: Bytes,
    position: usize,
    ended: bool,
}

impl Deflate {
    fn new(wire: Bytes) -> Self {
        Self { decoder: Decompress::new(has_zlib_header(&wire)), wire, position: 0, ended: false }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Refusal> {
        while !self.ended {
            let before = (self.decoder.total_in(), self.decoder.total_out());
            let input = &self.wire[self.position..];
            let status = self.decoder.decompress(input, out, FlushDecompress::None).map_err(|_| broken("deflate"))?;
            // At most what was handed over, which was in memory.
            let consumed = (self.decoder.total_in() - before.0) as usize;
            let written = (self.decoder.total_out() - before.1) as usize;
            self.position += consumed;
            self.ended = status == Status::StreamEnd;
            if self.ended && self.position < self.wire.len() {
                return Err(broken("deflate"));
            }
            if written > 0 {
                return Ok(written);
            }
            if consumed == 0 && !self.ended {
                return Err(broken("deflate"));
            }
        }
        Ok(0)
    }
}

/// Whether `wire` begins as RFC 1950 says (section 2.2). A bare stream hardly does: its first block would be a stored one, of a length
/// that its second half contradicts.
fn has_zlib_header(wire: &[u8]) -> bool {
    wire.first_chunk().is_some_and(|&[method, flags]| {
        method & 0x0F == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
    })
}

struct Zstd {
    decoder: ZstdDecoder<'static>,
    wire: Bytes,
    position: usize,
    /// The last frame has ended and all its output was written.
    between_frames: bool,
}

impl Zstd {
    fn new(wire: Bytes) -> Result<Self, Refusal> {
        let prepared = ZstdDecoder::new().and_then(|mut decoder| {
            // Checked before by `largest_window`; this is the library's own belt to our braces.
            decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
            Ok(decoder)
        });
        let decoder = prepared.map_err(|_| Refusal::unavailable("the zstd decoder could not be made"))?;
        Ok(Self { decoder, wire, position: 0, between_frames: true })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Refusal> {
        while !(self.between_frames && self.position == self.wire.len()) {
            let mut input = InBuffer::around(&self.wire[self.position..]);
            let mut output = OutBuffer::around(out);
            let hint = self.decoder.run(&mut input, &mut output).map_err(|_| broken("zstd"))?;
            let (consumed, written) = (input.pos(), output.pos());
            self.position += consumed;
            self.between_frames = hint == 0;
            if written > 0 {
                return Ok(written);
            }
            if consumed == 0 && hint > 0 {
                return Err(broken("zstd"));
            }
        }
        Ok(0)
    }
}

/// The largest window that a frame of `wire` asks for, in bytes. Walks all frames by their block headers.
fn largest_window(wire: &[u8]) -> Result<usize, Refusal> {
    let (mut rest, mut largest, mut frames) = (wire, 0, 0);
    if wire.is_empty() {
        return Err(broken("zstd"));
    }
    while !rest.is_empty() {
        let size = find_frame_compressed_size(rest).map_err(|_| broken("zstd"))?;
        let window = frame_window(rest).ok_or_else(|| broken("zstd"))?;
        if window > ZSTD_WINDOW_BYTES {
            return Err(Refusal::TooLarge(format!(
                "a zstd window of {window} bytes exceeds the limit of {ZSTD_WINDOW_BYTES} bytes"
            )));
        }
        largest = largest.max(window);
        frames += 1;
        if frames > MEMBERS {
            return Err(too_many_members());
        }
        rest = rest.get(size..).ok_or_else(|| broken("zstd"))?;
    }
    // At most 8 MiB, checked above.
    Ok(largest as usize)
}

/// The window that the frame at the start of `frame` asks for (RFC 8878, section 3.1.1.1); 0 for a skippable frame.
fn frame_window(frame: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    let (magic, header) = frame.split_first_chunk::<4>()?;
    if *magic != MAGIC {
        return Some(0);
    }
    let (&descriptor, fields) = header.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = *fields.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // Without a window descriptor the window is the content, whose size comes after the dictionary's id.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = fields.get(dictionary..)?;
    match descriptor >> 6 {
        0 => content.first().map(|&size| u64::from(size)),
        1 => content.first_chunk().map(|&size| u64::from(u16::from_le_bytes(size)) + 256),
        2 => content.first_chunk().map(|&size| u64::from(u32::from_le_bytes(size))),
        _ => content.first_chunk().map(|&size| u64::from_le_bytes(size)),
    }
}

#[cfg(test)]
mod tests;
