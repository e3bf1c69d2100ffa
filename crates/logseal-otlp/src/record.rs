//! One log record's fields, borrowed from the request, before anything is put into a column.
//!
//! A record may be rejected for its last byte; collecting its fields first means that nothing has to be taken back. The
//! list of attributes is reused from record to record: senders repeat their keys in the same order, so the bytes that an attribute begins with
//! are first compared with those of the record before, and a record that has the same keys with values of the same kinds keeps its columns.

use std::mem::discriminant;

use crate::value::{
    Findings, Flaw, Source, TextCheck, Value, check, check_key_value, read, short_text, usual_head, value_after,
};
use crate::wire::{FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, Wire, WireError, key};

const TIME: u32 = key(1, FIXED64);
const SEVERITY_NUMBER: u32 = key(2, VARINT);
const SEVERITY_TEXT: u32 = key(3, LENGTH_DELIMITED);
const BODY: u32 = key(5, LENGTH_DELIMITED);
const ATTRIBUTES: u32 = key(6, LENGTH_DELIMITED);
const DROPPED_ATTRIBUTES_COUNT: u32 = key(7, VARINT);
const FLAGS: u32 = key(8, FIXED32);
const TRACE_ID: u32 = key(9, LENGTH_DELIMITED);
const SPAN_ID: u32 = key(10, LENGTH_DELIMITED);
const OBSERVED_TIME: u32 = key(11, FIXED64);
const EVENT_NAME: u32 = key(12, LENGTH_DELIMITED);

/// Field number of the body.
const BODY_NUMBER: u32 = 5;

/// Field number 4 was never released.
const RESERVED_NUMBER: u32 = 4;

/// The attribute has no column: it goes to `overflow`.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// An attribute and, once it is known, the slot of its column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Value<'a>,
    pub(crate) slot: u32,
    /// What its message begins with, as [`usual_head`] gives it.
    head: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Reads a `KeyValue` and checks all of it.
    fn read(message: &'a [u8], bounds: Bounds, findings: &mut Findings) -> Result<Self, WireError> {
        let (key, value) = check_key_value(message, bounds.nesting, bounds.texts, findings)?;
        // A key that is not UTF-8 rejects the record, but the next one may have it again.
        let head = if key.is_empty() { &[] } else { usual_head(message) };
        Ok(Self { key, value, slot: NO_SLOT, head })
    }

    /// Like [`read`](Self::read), in the place of the attribute at the same position of the record before. Whether key and kind are the
    /// same; then so is the slot.
    #[inline]
    fn replace(&mut self, message: &'a [u8], bounds: Bounds, findings: &mut Findings) -> Result<bool, WireError> {
        let Some(value) = value_after(self.head, message) else {
            *self = Self::read(message, bounds, findings)?;
            return Ok(false);
        };
        let before = discriminant(&self.value);
        self.value = match short_text(value) {
            Some(text) if bounds.texts == TextCheck::Later => Value::Text(text),
            _ => check(value, bounds.nesting, bounds.texts, findings)?,
        };
        Ok(discriminant(&self.value) == before)
    }
}

/// Limits that the check of a record needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many values may lie inside the outermost one.
    pub(crate) nesting: usize,
    /// Attributes of one container.
    pub(crate) attributes: usize,
    /// When texts are looked at.
    pub(crate) texts: TextCheck,
}

/// The fields of a `LogRecord`.
#[derive(Debug, Default)]
pub(crate) struct Record<'a> {
    pub(crate) time: u64,
    pub(crate) observed_time: u64,
    pub(crate) severity_number: i32,
    pub(crate) dropped_attributes_count: u32,
    pub(crate) flags: u32,
    pub(crate) severity_text: &'a [u8],
    pub(crate) event_name: &'a [u8],
    pub(crate) trace_id: &'a [u8],
    pub(crate) span_id: &'a [u8],
    pub(crate) body: Option<Value<'a>>,
    pub(crate) attributes: Vec<Attribute<'a>>,
    /// The table whose slots the attributes have, and how many of them have one; nothing when they are not assigned.
    pub(crate) assigned: Option<(usize, usize)>,
    pub(crate) findings: Findings,
}

impl<'a> Record<'a> {
    /// Replaces the content by that of `message`.
    pub(crate) fn parse(&mut self, message: &'a [u8], bounds: Bounds) -> Result<(), WireError> {
        self.clear();
        let mut repeats = true;
        let mut count = 0;
        let mut bodies = 0;
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                TIME => self.time = wire.fixed64()?,
                OBSERVED_TIME => self.observed_time = wire.fixed64()?,
                SEVERITY_NUMBER => self.severity_number = wire.int32()?,
                SEVERITY_TEXT => self.severity_text = wire.bytes()?,
                BODY => {
                    self.body = Some(check(wire.bytes()?, bounds.nesting, bounds.texts, &mut self.findings)?);
                    bodies += 1;
                }
                ATTRIBUTES => {
                    let attribute = wire.bytes()?;
                    if let Some(place) = self.attributes.get_mut(count) {
                        repeats &= place.replace(attribute, bounds, &mut self.findings)?;
                        count += 1;
                        continue;
                    }
                    repeats = false;
                    let attribute = Attribute::read(attribute, bounds, &mut self.findings)?;
                    if count < bounds.attributes {
                        self.attributes.push(attribute);
                        count += 1;
                    } else {
                        self.findings.reject(Flaw::TooManyAttributes);
                    }
                }
                DROPPED_ATTRIBUTES_COUNT => self.dropped_attributes_count = wire.uint32()?,
                FLAGS => self.flags = wire.fixed32()?,
                TRACE_ID => self.trace_id = wire.bytes()?,
                SPAN_ID => self.span_id = wire.bytes()?,
                EVENT_NAME => self.event_name = wire.bytes()?,
                _ if field.number() == RESERVED_NUMBER => wire.skip(field)?,
                _ => wire.unknown(field, 1..=12)?,
            }
        }
        if bodies > 1 {
            // Each part was checked on its own; together they may mean something else.
            self.body = Some(read(Source::Split { bytes: message, field: BODY_NUMBER }));
        }
        if !repeats || count < self.attributes.len() {
            self.attributes.truncate(count);
            self.assigned = None;
        }
        Ok(())
    }

    /// Forgets all but the attributes, which the next record's are compared with.
    fn clear(&mut self) {
        let Self { time, observed_time, severity_number, dropped_attributes_count, flags, .. } = self;
        (*time, *observed_time, *severity_number, *dropped_attributes_count, *flags) = (0, 0, 0, 0, 0);
        let Self { severity_text, event_name, trace_id, span_id, .. } = self;
        (*severity_text, *event_name, *trace_id, *span_id) = (&[], &[], &[], &[]);
        self.body = None;
        self.findings = Findings::default();
    }
}

/// Checks a `KeyValue` and adds it, unless there are too many already.
pub(crate) fn push_attribute<'a>(
    attributes: &mut Vec<Attribute<'a>>,
    message: &'a [u8],
    bounds: Bounds,
    findings: &mut Findings,
) -> Result<(), WireError> {
    // Each is repeated in many rows, which all have it looked at once.
    let attribute = Attribute::read(message, Bounds { texts: TextCheck::Now, ..bounds }, findings)?;
    if attributes.len() < bounds.attributes {
        attributes.push(attribute);
    } else {
        findings.reject(Flaw::TooManyAttributes);
    }
    Ok(())
}
