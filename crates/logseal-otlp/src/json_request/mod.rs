//! OTLP/JSON requests to protobuf: the JSON text of an `ExportLogsServiceRequest` becomes its protobuf bytes.
//!
//! So the scan, the log and its replay know protobuf alone. The text is read once and written as it is read, without a tree of it in
//! between; [`most_bytes`] says what that takes.
//!
//! The mapping is proto3's with OTLP's exceptions. Where they leave a choice:
//!
//! | in the text | is |
//! | --- | --- |
//! | a field's name | lowerCamelCase, or as in the .proto file |
//! | an unknown field, an unknown name of a severity | ignored: a newer sender has them |
//! | `null` | as if the field was not there; in a list, an empty element |
//! | a name that comes again | takes the place of the first one; of the kinds of one value only the last is kept |
//! | whole numbers | numbers or strings, also `1e3` and `1.0`; never rounded |
//! | `doubleValue` | numbers or strings, and `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `bytesValue` | base64 of either alphabet, with or without padding |
//! | `traceId`, `spanId` | hexadecimal digits of either case; which lengths are good the scan says |
//! | half a surrogate pair | U+FFFD |
//! | bytes that are not UTF-8 | copied: the scan has a rule for them |
//! | values nested deeper than [`limit::VALUE_NESTING`] | emptied at that depth, so that the scan rejects their record, as it does in protobuf |
//!
//! Anything else is refused as a whole, and [`JsonError`] says where.

mod fields;
mod lexer;
mod number;

use std::fmt::{self, Display};

use logseal_core::limit;
use thiserror::Error;

use self::fields::{Field, Kind, MOST_FIELDS, Message, REQUEST};
use self::lexer::{Fault, Lexer, Text, hex_digit};
use self::number::NoNumber;

/// Longest number in a string that has escapes.
const ESCAPED_NUMBER_BYTES: usize = 64;

/// Bytes that are left for the length of a message until it is known: enough for any text that is taken.
const LENGTH_BYTES: usize = 4;
const _: () = assert!(2 * limit::REQUEST_BYTES < 1 << (7 * LENGTH_BYTES));

/// A shorter message is moved up to its length; of longer ones the length is padded instead. Otherwise values that lie in one another
/// would be moved once for each level.
const MOVED_BYTES: usize = 1 << 14;

/// Most bytes of protobuf that `json` bytes of text become, and of memory that [`from_json`] takes beside the text.
///
/// A field's tag and length take at most five bytes, its name and the signs around it at least six in the text; hexadecimal digits,
/// base64 and escapes shrink; a list's elements have two signs and a comma each for tag and length. The one exception are long texts in
/// a list of strings, where a length takes one byte more from 16 KiB on, and one more from 2 MiB on.
#[must_use]
pub fn most_bytes(json: usize) -> usize {
    json + json / 8_192 + 16
}

/// A text that is not an `ExportLogsServiceRequest`. It names places and fields, and never quotes content.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the request is not decodable as OTLP/JSON at byte {offset}{path}: {fault}")]
pub struct JsonError {
    /// Where in the text.
    pub offset: usize,
    /// Which field that is.
    pub path: JsonPath,
    /// What is wrong there.
    pub fault: &'static str,
}

/// The way to a field, innermost step first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Field(&'static str),
    Element(usize),
}

impl Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().rev().enumerate() {
            match step {
                Step::Field(name) if index == 0 => write!(f, " (`{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Element(element) => write!(f, "[{element}]")?,
            }
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str("`)") }
    }
}

impl From<Fault> for Box<JsonError> {
    fn from(Fault { at, what }: Fault) -> Self {
        Self::new(JsonError { offset: at, path: JsonPath::default(), fault: what })
    }
}

type Written = Result<(), Box<JsonError>>;

/// The protobuf bytes of the request that `json` describes.
///
/// # Errors
///
/// [`JsonError`] for a text that is not JSON, whose fields have other types than the request's, or that is longer than any configuration
/// allows.
pub fn from_json(json: &[u8]) -> Result<Vec<u8>, JsonError> {
    if json.len() > limit::REQUEST_BYTES {
        let fault = Fault { at: limit::REQUEST_BYTES, what: "the text goes on beyond what any request may have" };
        return Err(*Box::from(fault));
    }
    let out = Vec::with_capacity(most_bytes(json.len()));
    let mut transcoder = Transcoder { lexer: Lexer::new(json), out };
    let done = transcoder.message(&REQUEST, 0).and_then(|()| Ok(transcoder.lexer.end()?));
    done.map_err(|error| *error)?;
    debug_assert!(transcoder.out.len() <= most_bytes(json.len()), "the documented bound");
    Ok(transcoder.out)
}

struct Transcoder<'a> {
    lexer: Lexer<'a>,
    out: Vec<u8>,
}

/// What one field of a message has written.
#[derive(Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Transcoder<'_> {
    /// Writes the fields of the object that comes next; it lies in `depth` values.
    fn message(&mut self, message: &'static Message, depth: usize) -> Written {
        let start = self.out.len();
        let mut spans = [Span::default(); MOST_FIELDS];
        let mut expected = 0;
        self.lexer.expect(b'{', "expected an object")?;
        let mut more = !self.lexer.take(b'}');
        while more {
            let name = self.lexer.name()?;
            match message.find(name, expected) {
                None => self.lexer.skip()?,
                Some(index) => {
                    expected = index + 1;
                    let field = &message.fields[index];
                    let is_null = self.lexer.word(b"null");
                    if message.is_value && (!is_null || spans[index].end > 0) {
                        self.out.truncate(start);
                        spans = Default::default();
                    } else if field.merges() {
                        self.forget(&mut spans, index);
                    } else if is_null && spans[index].end > 0 {
                        self.default(field);
                    }
                    if !is_null {
                        let start = self.out.len();
                        self.field(field, depth).map_err(|error| within(error, Step::Field(field.name)))?;
                        spans[index] = Span { start, end: self.out.len() };
                    }
                }
            }
            more = self.lexer.more(b'}')?;
        }
        Ok(())
    }

    /// Takes back what the field at `index` has written. A reader would not let a second one take its place, but merge both.
    fn forget(&mut self, spans: &mut [Span; MOST_FIELDS], index: usize) {
        let Span { start, end } = std::mem::take(&mut spans[index]);
        self.out.drain(start..end);
        for span in spans.iter_mut().filter(|span| span.start >= end) {
            span.start -= end - start;
            span.end -= end - start;
        }
    }

    /// Writes the default of a field that does not merge: what comes last counts.
    fn default(&mut self, field: &Field) {
        let bytes = match field.kind {
            Kind::Fixed64 | Kind::Double => 8,
            Kind::Fixed32 => 4,
            _ => 1,
        };
        self.out.push(field.tag());
        self.out.extend_from_slice(&[0; 8][..bytes]);
    }

    fn field(&mut self, field: &Field, depth: usize) -> Written {
        if !field.repeated {
            return self.value(field, depth);
        }
        self.lexer.expect(b'[', "expected a list")?;
        let mut more = !self.lexer.take(b']');
        let mut element = 0;
        while more {
            if self.lexer.word(b"null") {
                self.out.extend_from_slice(&[field.tag(), 0]);
            } else {
                self.value(field, depth).map_err(|error| within(error, Step::Element(element)))?;
            }
            element += 1;
            more = self.lexer.more(b']')?;
        }
        Ok(())
    }

    /// Writes one value of `field`, with its tag.
    fn value(&mut self, field: &Field, depth: usize) -> Written {
        self.out.push(field.tag());
        // The place of what comes next, for what is wrong with it.
        self.lexer.peek();
        let here = self.lexer.at();
        let wrong = |what| Box::<JsonError>::from(Fault { at: here, what });
        match field.kind {
            Kind::Message(message) => self.nested(message, depth)?,
            Kind::Text => {
                let text = self.lexer.string()?;
                self.text(text);
            }
            Kind::Hex => {
                let text = self.lexer.string()?;
                self.decoded(text, hex).ok_or_else(|| wrong("expected an even number of hexadecimal digits"))?;
            }
            Kind::Base64 => {
                let text = self.lexer.string()?;
                self.decoded(text, base64).ok_or_else(|| wrong("expected base64"))?;
            }
            Kind::Bool => {
                let value = self.lexer.word(b"true");
                if !value && !self.lexer.word(b"false") {
                    return Err(wrong("expected true or false"));
                }
                self.out.push(u8::from(value));
            }
            Kind::Int64 => {
                let value: i64 = self.whole().map_err(wrong)?;
                self.varint(value.cast_unsigned());
            }
            Kind::Int32 => {
                let value: i32 = self.whole().map_err(wrong)?;
                self.varint(i64::from(value).cast_unsigned());
            }
            Kind::Uint32 => {
                let value: u32 = self.whole().map_err(wrong)?;
                self.varint(u64::from(value));
            }
            Kind::Fixed64 => {
                let value: u64 = self.whole().map_err(wrong)?;
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Fixed32 => {
                let value: u32 = self.whole().map_err(wrong)?;
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Double => {
                let value = self.double().map_err(wrong)?;
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Severity => {
                let value = self.severity().map_err(wrong)?;
                self.varint(i64::from(value).cast_unsigned());
            }
        }
        Ok(())
    }

    /// Writes a message behind its length.
    fn nested(&mut self, message: &'static Message, depth: usize) -> Written {
        let depth = depth + usize::from(message.is_value);
        let at = self.out.len();
        self.out.resize(at + LENGTH_BYTES, 0);
        if depth > limit::VALUE_NESTING {
            self.lexer.skip()?;
        } else {
            self.message(message, depth)?;
        }
        let content = at + LENGTH_BYTES;
        let length = self.out.len() - content;
        if length < MOVED_BYTES {
            let size = 1 + usize::from(length >= 1 << 7);
            self.out.copy_within(content.., at + size);
            self.out.truncate(at + size + length);
            put_varint(&mut self.out[at..at + size], length as u64);
        } else {
            put_varint(&mut self.out[at..content], length as u64);
        }
        Ok(())
    }

    /// Writes `text` behind its length.
    fn text(&mut self, text: Text<'_>) {
        if let Some(plain) = text.plain() {
            self.varint(plain.len() as u64);
            self.out.extend_from_slice(plain);
        } else {
            // An escape is longer than what it stands for, so this has room for the whole length.
            self.content(|out| {
                text.append_to(out);
                Some(())
            });
        }
    }

    /// Writes what `decode` makes of `text`, in its place, behind its length.
    fn decoded(&mut self, text: Text<'_>, decode: fn(&mut Vec<u8>, usize) -> Option<()>) -> Option<()> {
        self.content(|out| {
            let start = out.len();
            text.append_to(out);
            decode(out, start)
        })
    }

    /// Writes what `append` appends behind its length.
    fn content(&mut self, append: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
        let at = self.out.len();
        append(&mut self.out)?;
        let length = self.out.len() - at;
        let size = varint_bytes(length as u64);
        self.out.resize(at + length + size, 0);
        self.out.copy_within(at..at + length, at + size);
        put_varint(&mut self.out[at..at + size], length as u64);
        Some(())
    }

    fn varint(&mut self, value: u64) {
        let at = self.out.len();
        self.out.resize(at + varint_bytes(value), 0);
        put_varint(&mut self.out[at..], value);
    }

    /// A whole number, or one in a string.
    fn whole<T: TryFrom<i128>>(&mut self) -> Result<T, &'static str> {
        let value = self.number(number::whole).map_err(|no| match no {
            NoNumber::Malformed => "expected a whole number, or a string with one",
            NoNumber::NotWhole => "expected a whole number",
            NoNumber::OutOfRange => OUT_OF_RANGE,
        })?;
        T::try_from(value).map_err(|_| OUT_OF_RANGE)
    }

    fn double(&mut self) -> Result<f64, &'static str> {
        const WORDS: [(&[u8], f64); 3] =
            [(b"NaN", f64::NAN), (b"Infinity", f64::INFINITY), (b"-Infinity", f64::NEG_INFINITY)];
        let read = |text: &[u8]| match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => number::double(text),
        };
        self.number(read).map_err(|no| match no {
            NoNumber::OutOfRange => OUT_OF_RANGE,
            _ => "expected a number, or a string with one, `NaN`, `Infinity` or `-Infinity`",
        })
    }

    fn severity(&mut self) -> Result<i32, &'static str> {
        if self.lexer.peek() == Some(b'"') {
            let mut buffer = [0; ESCAPED_NUMBER_BYTES];
            let text = self.lexer.clone().string().map_err(|fault| fault.what)?;
            let name = text.short(&mut buffer).unwrap_or_default();
            if !name.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-') {
                self.lexer.string().map_err(|fault| fault.what)?;
                return Ok(fields::severity(name).unwrap_or(0));
            }
        }
        self.whole()
    }

    /// What `read` makes of the number that comes next, or of the one in a string.
    fn number<T>(&mut self, read: impl FnOnce(&[u8]) -> Result<T, NoNumber>) -> Result<T, NoNumber> {
        match self.lexer.peek() {
            Some(b'"') => {
                let text = self.lexer.string().map_err(|_| NoNumber::Malformed)?;
                let mut buffer = [0; ESCAPED_NUMBER_BYTES];
                read(text.short(&mut buffer).ok_or(NoNumber::Malformed)?)
            }
            _ => read(self.lexer.number().map_err(|_| NoNumber::Malformed)?),
        }
    }
}

const OUT_OF_RANGE: &str = "the number is beyond what the field can hold";

#[cold]
fn within(mut error: Box<JsonError>, step: Step) -> Box<JsonError> {
    error.path.0.push(step);
    error
}

fn varint_bytes(value: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes `value` as a varint that fills `place`.
fn put_varint(place: &mut [u8], mut value: u64) {
    let Some((last, before)) = place.split_last_mut() else { return };
    for byte in before {
        *byte = (value & 0x7F) as u8 | 0x80;
        value >>= 7;
    }
    *last = (value & 0x7F) as u8;
}

/// Replaces the hexadecimal digits from `start` on by the bytes that they stand for.
fn hex(out: &mut Vec<u8>, start: usize) -> Option<()> {
    let digits = out.len() - start;
    if !digits.is_multiple_of(2) {
        return None;
    }
    for index in 0..digits / 2 {
        let (high, low) = (out[start + 2 * index], out[start + 2 * index + 1]);
        out[start + index] = hex_digit(high)? << 4 | hex_digit(low)?;
    }
    out.truncate(start + digits / 2);
    Some(())
}

/// Replaces the base64 from `start` on, of either alphabet, by the bytes that it stands for.
fn base64(out: &mut Vec<u8>, start: usize) -> Option<()> {
    let padding = out[start..].iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = out.len() - start - padding;
    // Padding fills the last group of four or is not there at all; a group of one digit is none.
    if digits % 4 == 1 || (padding > 0 && (padding > 2 || !(digits + padding).is_multiple_of(4))) {
        return None;
    }
    let (mut bits, mut count, mut written) = (0_u32, 0, start);
    for index in start..start + digits {
        bits = bits << 6 | u32::from(base64_digit(out[index])?);
        count += 6;
        if count >= 8 {
            count -= 8;
            out[written] = (bits >> count) as u8;
            written += 1;
            bits &= (1 << count) - 1;
        }
    }
    out.truncate(written);
    // What is left of the last digit belongs to no byte.
    (bits == 0).then_some(())
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_taken_in_each_form_and_nothing_else() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("AA==", Some(&[0])),
            ("AA", Some(&[0])),
            ("//79/A==", Some(&[0xFF, 0xFE, 0xFD, 0xFC])),
            ("__79_A", Some(&[0xFF, 0xFE, 0xFD, 0xFC])),
            ("AQID", Some(&[1, 2, 3])),
            ("A", None),
            ("AA=", None),
            ("AAA==", None),
            ("AQID====", None),
            ("=", None),
            ("A=A=", None),
            ("AB==", None), // bits that belong to no byte
            ("AQ ID", None),
        ] {
            let mut out = [b"before", text.as_bytes()].concat();
            let decoded = base64(&mut out, 6).map(|()| &out[6..]);
            assert_eq!(decoded, expected, "{text}");
        }
    }

    #[test]
    fn varints_fill_their_place() {
        for (value, size) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            assert_eq!(varint_bytes(value), size);
            let mut place = vec![0; size];
            put_varint(&mut place, value);
            assert_eq!(prost::encoding::decode_varint(&mut &place[..]).unwrap(), value);
        }
        let mut padded = [0; 4];
        put_varint(&mut padded, 300);
        assert_eq!(padded, [0xAC, 0x82, 0x80, 0x00]);
    }
}
