//! One log record's fields, borrowed from the request, before anything is appended to a column.
//!
//! A record may be rejected for its last byte; collecting its fields first means that nothing has to be taken back. The
//! list of attributes is reused from record to record, and its keys are what the next record is expected to have.

use crate::value::{Findings, Flaw, Source, Value, check, check_key_value, read};
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
}

/// Limits that the check of a record needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many values may lie inside the outermost one.
    pub(crate) nesting: usize,
    /// Attributes of one container.
    pub(crate) attributes: usize,
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
    pub(crate) findings: Findings,
}

impl<'a> Record<'a> {
    /// Replaces the content by that of `message`.
    pub(crate) fn parse(&mut self, message: &'a [u8], bounds: Bounds) -> Result<(), WireError> {
        let mut attributes = std::mem::take(&mut self.attributes);
        let mut count = 0;
        let mut record = Self::default();
        let mut bodies = 0;
        let mut wire = Wire::new(message);
        while let Some(field) = wire.next_key()? {
            match field.0 {
                TIME => record.time = wire.fixed64()?,
                OBSERVED_TIME => record.observed_time = wire.fixed64()?,
                SEVERITY_NUMBER => record.severity_number = wire.int32()?,
                SEVERITY_TEXT => record.severity_text = wire.bytes()?,
                BODY => {
                    record.body = Some(check(wire.bytes()?, bounds.nesting, &mut record.findings)?);
                    bodies += 1;
                }
                ATTRIBUTES => {
                    let before = attributes.get(count).map_or("", |attribute| attribute.key);
                    let attribute = check_attribute(wire.bytes()?, before, bounds, &mut record.findings)?;
                    if count >= bounds.attributes {
                        record.findings.reject(Flaw::TooManyAttributes);
                        continue;
                    }
                    match attributes.get_mut(count) {
                        Some(place) => *place = attribute,
                        None => attributes.push(attribute),
                    }
                    count += 1;
                }
                DROPPED_ATTRIBUTES_COUNT => record.dropped_attributes_count = wire.uint32()?,
                FLAGS => record.flags = wire.fixed32()?,
                TRACE_ID => record.trace_id = wire.bytes()?,
                SPAN_ID => record.span_id = wire.bytes()?,
                EVENT_NAME => record.event_name = wire.bytes()?,
                _ if field.number() == RESERVED_NUMBER => wire.skip(field)?,
                _ => wire.unknown(field, 1..=12)?,
            }
        }
        if bodies > 1 {
            // Each part was checked on its own; together they may mean something else.
            record.body = Some(read(Source::Split { bytes: message, field: BODY_NUMBER }));
        }
        attributes.truncate(count);
        *self = Self { attributes, ..record };
        Ok(())
    }
}

/// Checks a `KeyValue` and adds it, unless there are too many already.
pub(crate) fn push_attribute<'a>(
    attributes: &mut Vec<Attribute<'a>>,
    message: &'a [u8],
    bounds: Bounds,
    findings: &mut Findings,
) -> Result<(), WireError> {
    let attribute = check_attribute(message, "", bounds, findings)?;
    if attributes.len() < bounds.attributes {
        attributes.push(attribute);
    } else {
        findings.reject(Flaw::TooManyAttributes);
    }
    Ok(())
}

#[inline]
fn check_attribute<'a>(
    message: &'a [u8],
    expected: &'a str,
    bounds: Bounds,
    findings: &mut Findings,
) -> Result<Attribute<'a>, WireError> {
    let (key, value) = check_key_value(message, expected, bounds.nesting, findings)?;
    Ok(Attribute { key, value, slot: NO_SLOT })
}
