//! `AnyValue`: what a value is after last-one-wins and merging, and whether all of it is well formed.
//!
//! Protobuf lets a sender split an embedded message into several fields that the receiver must merge. Here that never
//! copies: a split value is a [`Source`] that is walked again from its first byte when it is needed, at a cost of one
//! pass over the keys and lengths of that level.

use crate::wire::{FIXED64, Key, LENGTH_DELIMITED, Messages, VARINT, Wire, WireError, key};

// The fields of `AnyValue`.
const STRING: u32 = key(1, LENGTH_DELIMITED);
const BOOL: u32 = key(2, VARINT);
const INT: u32 = key(3, VARINT);
const DOUBLE: u32 = key(4, FIXED64);
const ARRAY: u32 = key(5, LENGTH_DELIMITED);
const KVLIST: u32 = key(6, LENGTH_DELIMITED);
const BYTES: u32 = key(7, LENGTH_DELIMITED);
const STRING_REFERENCE: u32 = key(8, VARINT);

// The fields of `KeyValue`.
const KEY: u32 = key(1, LENGTH_DELIMITED);
const VALUE: u32 = key(2, LENGTH_DELIMITED);
const KEY_REFERENCE: u32 = key(3, VARINT);

// The one field of `ArrayValue` and of `KeyValueList`.
const ELEMENT: u32 = key(1, LENGTH_DELIMITED);

/// Where an `AnyValue` is: the message itself, or all fields `field` of `bytes`, which merge into one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Whole(&'a [u8]),
    Split { bytes: &'a [u8], field: u32 },
}

impl<'a> Source<'a> {
    fn fragments(self) -> impl Iterator<Item = &'a [u8]> {
        let (whole, split) = match self {
            Self::Whole(bytes) => (Some(bytes), None),
            Self::Split { bytes, field } => (None, Some(Messages::new(bytes, field))),
        };
        whole.into_iter().chain(split.into_iter().flatten())
    }
}

/// The elements of an array or of a key-value list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List<'a> {
    /// The one `ArrayValue` or `KeyValueList`.
    Whole(&'a [u8]),
    /// Several that merge: the fields of `source` from ordinal `first` on.
    Merged { source: Source<'a>, first: usize },
}

impl<'a> List<'a> {
    /// The elements: `AnyValue` messages of an array, `KeyValue` messages of a key-value list.
    pub(crate) fn elements(self) -> impl Iterator<Item = &'a [u8]> {
        let (whole, merged) = match self {
            Self::Whole(bytes) => (Some(bytes), None),
            Self::Merged { source, first } => (None, Some(Payloads::new(source).skip(first))),
        };
        let merged = merged.into_iter().flatten().flatten();
        whole.into_iter().chain(merged).flat_map(|list| Messages::new(list, 1))
    }
}

/// When the texts of records are looked at: whether they are UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TextCheck {
    /// One by one, so that each that is not UTF-8 can be kept as bytes.
    Now,
    /// With the whole column that they are in, which costs a fraction of that. When one is not UTF-8 the request is scanned again with `Now`.
    Later,
}

/// A value, its text and bytes borrowed from the request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Empty,
    String(&'a str),
    /// A string that was not looked at yet; only the value of an attribute or body as a whole, never one inside another.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(List<'a>),
    Kvlist(List<'a>),
}

/// Why a record with this content is rejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    KeyNotUtf8,
    TooDeep,
    TooManyAttributes,
}

/// What was noticed besides errors while a message was checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Findings {
    /// The first reason to reject.
    pub(crate) flaw: Option<Flaw>,
    /// Strings that are not UTF-8 and are kept as bytes.
    pub(crate) replaced_utf8: u64,
    /// References into a string table that log requests do not have.
    pub(crate) string_references: u64,
}

impl Findings {
    pub(crate) fn reject(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }
}

/// One field of the oneof.
enum Field<'a> {
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(&'a [u8]),
    Kvlist(&'a [u8]),
    Bytes(&'a [u8]),
    Reference,
}

#[inline]
fn next_field<'a>(wire: &mut Wire<'a>) -> Result<Option<Field<'a>>, WireError> {
    while let Some(Key(field)) = wire.next_key()? {
        return Ok(Some(match field {
            STRING => Field::String(wire.bytes()?),
            BOOL => Field::Bool(wire.varint()? != 0),
            INT => Field::Int(wire.varint()?.cast_signed()),
            DOUBLE => Field::Double(f64::from_bits(wire.fixed64()?)),
            ARRAY => Field::Array(wire.bytes()?),
            KVLIST => Field::Kvlist(wire.bytes()?),
            BYTES => Field::Bytes(wire.bytes()?),
            STRING_REFERENCE => {
                wire.varint()?;
                Field::Reference
            }
            other => {
                wire.unknown(Key(other), 1..=8)?;
                continue;
            }
        }));
    }
    Ok(None)
}

/// The list payload of each oneof field in turn, nothing for a field of another kind.
struct Payloads<'a, I> {
    fragments: I,
    wire: Wire<'a>,
}

impl<'a> Payloads<'a, ()> {
    #[expect(clippy::new_ret_no_self, reason = "the fragments' iterator has no name")]
    fn new(source: Source<'a>) -> impl Iterator<Item = Option<&'a [u8]>> {
        Payloads { fragments: source.fragments(), wire: Wire::new(&[]) }
    }
}

impl<'a, I: Iterator<Item = &'a [u8]>> Iterator for Payloads<'a, I> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match next_field(&mut self.wire).ok()? {
                Some(Field::Array(list) | Field::Kvlist(list)) => return Some(Some(list)),
                Some(_) => return Some(None),
                None => self.wire = Wire::new(self.fragments.next()?),
            }
        }
    }
}

/// The value of one message, with everything in it checked: wire format, keys' UTF-8, nesting; the text that it is itself as `texts` says.
#[inline]
pub(crate) fn check<'a>(
    message: &'a [u8],
    nesting: usize,
    texts: TextCheck,
    findings: &mut Findings,
) -> Result<Value<'a>, WireError> {
    let text = |bytes, findings: &mut Findings| match texts {
        TextCheck::Later => Value::Text(bytes),
        TextCheck::Now => text(bytes, findings),
    };
    if let Some(bytes) = short_text(message) {
        return Ok(text(bytes, findings));
    }
    let mut wire = Wire::new(message);
    // A value is nearly always a single field.
    let Some(field) = next_field(&mut wire)? else { return Ok(Value::Empty) };
    if wire.is_empty() {
        return Ok(match field {
            Field::String(bytes) => text(bytes, findings),
            Field::Bool(value) => Value::Bool(value),
            Field::Int(value) => Value::Int(value),
            Field::Double(value) => Value::Double(value),
            Field::Bytes(bytes) => Value::Bytes(bytes),
            Field::Array(list) => {
                check_array(list, nesting, findings)?;
                Value::Array(List::Whole(list))
            }
            Field::Kvlist(list) => {
                check_kvlist(list, nesting, findings)?;
                Value::Kvlist(List::Whole(list))
            }
            Field::Reference => {
                findings.string_references += 1;
                Value::Empty
            }
        });
    }
    check_all(Source::Whole(message), nesting, findings)
}

/// The text of a message that is nothing but a text of less than 128 bytes.
#[inline]
pub(crate) fn short_text(message: &[u8]) -> Option<&[u8]> {
    match short_field(message, STRING)? {
        (text, []) => Some(text),
        _ => None,
    }
}

#[inline]
fn text<'a>(bytes: &'a [u8], findings: &mut Findings) -> Value<'a> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text),
        Err(_) => {
            findings.replaced_utf8 += 1;
            Value::Bytes(bytes)
        }
    }
}

/// Like [`check`], for a value of several fields or several messages.
#[cold]
pub(crate) fn check_all<'a>(
    source: Source<'a>,
    nesting: usize,
    findings: &mut Findings,
) -> Result<Value<'a>, WireError> {
    resolve(source, |field| match field {
        Field::Array(list) => check_array(list, nesting, findings),
        Field::Kvlist(list) => check_kvlist(list, nesting, findings),
        Field::String(bytes) => {
            // Also of a field that a later one replaces: the count is a warning to the sender.
            text(bytes, findings);
            Ok(())
        }
        Field::Reference => {
            findings.string_references += 1;
            Ok(())
        }
        Field::Bool(_) | Field::Int(_) | Field::Double(_) | Field::Bytes(_) => Ok(()),
    })
}

/// The value at `source`, which was checked before; a fault would make it empty.
pub(crate) fn read(source: Source<'_>) -> Value<'_> {
    resolve(source, |_| Ok(())).unwrap_or(Value::Empty)
}

fn resolve<'a>(
    source: Source<'a>,
    mut visit: impl FnMut(&Field<'a>) -> Result<(), WireError>,
) -> Result<Value<'a>, WireError> {
    let mut value = Value::Empty;
    let mut ordinal = 0;
    // Where the run of arrays or of key-value lists began that the value is made of: only a run merges.
    let mut run = (0, 0);
    for fragment in source.fragments() {
        let mut wire = Wire::new(fragment);
        while let Some(field) = next_field(&mut wire)? {
            visit(&field)?;
            let continues =
                matches!((&field, &value), (Field::Array(_), Value::Array(_)) | (Field::Kvlist(_), Value::Kvlist(_)));
            run = if continues { (run.0, run.1 + 1) } else { (ordinal, 1) };
            let list = |bytes| {
                if run.1 == 1 { List::Whole(bytes) } else { List::Merged { source, first: run.0 } }
            };
            value = match field {
                Field::String(bytes) => std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::String),
                Field::Bool(value) => Value::Bool(value),
                Field::Int(value) => Value::Int(value),
                Field::Double(value) => Value::Double(value),
                Field::Bytes(bytes) => Value::Bytes(bytes),
                Field::Array(bytes) => Value::Array(list(bytes)),
                Field::Kvlist(bytes) => Value::Kvlist(list(bytes)),
                Field::Reference => Value::Empty,
            };
            ordinal += 1;
        }
    }
    Ok(value)
}

/// Checks the elements of an `ArrayValue`. `nesting` is how many more values may lie inside one another.
fn check_array(list: &[u8], nesting: usize, findings: &mut Findings) -> Result<(), WireError> {
    let mut wire = Wire::new(list);
    while let Some(field) = wire.next_key()? {
        if field.0 == ELEMENT {
            let element = wire.bytes()?;
            match nesting.checked_sub(1) {
                Some(nesting) => check(element, nesting, TextCheck::Now, findings).map(drop)?,
                None => findings.reject(Flaw::TooDeep),
            }
        } else {
            wire.unknown(field, 1..=1)?;
        }
    }
    Ok(())
}

/// Checks the elements of a `KeyValueList`.
fn check_kvlist(list: &[u8], nesting: usize, findings: &mut Findings) -> Result<(), WireError> {
    let mut wire = Wire::new(list);
    while let Some(field) = wire.next_key()? {
        if field.0 == ELEMENT {
            let element = wire.bytes()?;
            match nesting.checked_sub(1) {
                Some(nesting) => check_key_value(element, nesting, TextCheck::Now, findings).map(drop)?,
                None => findings.reject(Flaw::TooDeep),
            }
        } else {
            wire.unknown(field, 1..=1)?;
        }
    }
    Ok(())
}

/// Key and value of a `KeyValue`, all of it checked. A key that is not UTF-8 is a flaw, and empty here.
#[inline]
pub(crate) fn check_key_value<'a>(
    message: &'a [u8],
    nesting: usize,
    texts: TextCheck,
    findings: &mut Findings,
) -> Result<(&'a str, Value<'a>), WireError> {
    let (name, value) = match usual_key_value(message) {
        Some((name, value)) => (name, check(value, nesting, texts, findings)?),
        None => check_fields(message, nesting, texts, findings)?,
    };
    match std::str::from_utf8(name) {
        Ok(name) => Ok((name, value)),
        Err(_) => {
            findings.reject(Flaw::KeyNotUtf8);
            Ok(("", value))
        }
    }
}

/// The content of a length-delimited field at the front of `message`, and what follows; nothing when another field is there, or its length
/// takes more than one byte.
#[inline]
fn short_field(message: &[u8], key: u32) -> Option<(&[u8], &[u8])> {
    match message {
        [first, length, rest @ ..] if u32::from(*first) == key && *length < 0x80 => {
            rest.split_at_checked(usize::from(*length))
        }
        _ => None,
    }
}

/// Key and value of a `KeyValue` as nearly every sender writes it: each once, in this order, the key short.
#[inline]
fn usual_key_value(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = short_field(message, KEY)?;
    let [field, rest @ ..] = rest else { return None };
    if u32::from(*field) != VALUE {
        return None;
    }
    Some((name, only_field(rest)?))
}

/// The bytes of the length-delimited field whose length `rest` begins with, when it ends where `rest` ends.
#[inline]
fn only_field(rest: &[u8]) -> Option<&[u8]> {
    let mut wire = Wire::new(rest);
    let bytes = wire.bytes().ok()?;
    wire.is_empty().then_some(bytes)
}

/// What a `KeyValue` begins with when it is written as [`usual_key_value`] reads it: everything before the length of the value. Empty for any
/// other one.
pub(crate) fn usual_head(message: &[u8]) -> &[u8] {
    let head = short_field(message, KEY).map_or(0, |(name, _)| 2 + name.len() + 1);
    if usual_key_value(message).is_some() { message.get(..head).unwrap_or_default() } else { &[] }
}

/// The value of a `KeyValue` that begins with `head`, which [`usual_head`] gave for another one: so it has the same key.
#[inline]
pub(crate) fn value_after<'a>(head: &[u8], message: &'a [u8]) -> Option<&'a [u8]> {
    if head.is_empty() { None } else { only_field(message.strip_prefix(head)?) }
}

/// Key and value of any other `KeyValue`; the key's UTF-8 is not looked at.
fn check_fields<'a>(
    message: &'a [u8],
    nesting: usize,
    texts: TextCheck,
    findings: &mut Findings,
) -> Result<(&'a [u8], Value<'a>), WireError> {
    let mut wire = Wire::new(message);
    let mut name: &[u8] = &[];
    let mut value = Value::Empty;
    let mut values = 0;
    while let Some(field) = wire.next_key()? {
        match field.0 {
            KEY => name = wire.bytes()?,
            VALUE => {
                let bytes = wire.bytes()?;
                value = check(bytes, nesting, texts, findings)?;
                values += 1;
            }
            KEY_REFERENCE => findings.string_references += u64::from(wire.int32()? != 0),
            _ => wire.unknown(field, 1..=3)?,
        }
    }
    if values > 1 {
        // Each part was checked on its own; together they may mean something else.
        value = read(Source::Split { bytes: message, field: 2 });
    }
    Ok((name, value))
}

/// Key and value of a `KeyValue` that was checked before.
pub(crate) fn read_key_value(message: &[u8]) -> (&str, Value<'_>) {
    let name = Messages::new(message, 1).last().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    let mut values = Messages::new(message, 2);
    let value = match (values.next(), values.next()) {
        (None, _) => Value::Empty,
        (Some(value), None) => read(Source::Whole(value)),
        (Some(_), Some(_)) => read(Source::Split { bytes: message, field: 2 }),
    };
    (name, value)
}
