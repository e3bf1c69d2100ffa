//! Protobuf's framing: a cursor that accepts what prost 0.14 accepts and refuses what it refuses.
//!
//! A nested message is read from its own subslice, so that no length can reach beyond the message that states it. An
//! error remembers the address of the byte it happened at; the entry point subtracts the request's address to get an
//! offset, which spares every cursor a second word.

/// Most groups that an unknown field may nest, prost's own recursion limit.
const GROUP_NESTING: usize = 100;

pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const LENGTH_DELIMITED: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
pub(crate) const FIXED32: u32 = 5;

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    Truncated,
    Varint,
    Key,
    WireType,
    Group,
    GroupNesting,
}

impl Fault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Truncated => "a length reaches beyond the message that holds it",
            Self::Varint => "a variable-length integer is cut off or longer than 64 bits",
            Self::Key => "a field key with number 0, beyond 32 bits or of an unknown wire type",
            Self::WireType => "a known field has the wrong wire type",
            Self::Group => "a group ends that did not begin",
            Self::GroupNesting => "groups are nested too deep",
        }
    }
}

/// A fault and the address of the byte where it was noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WireError {
    pub(crate) address: usize,
    pub(crate) fault: Fault,
}

/// A field's key as it is on the wire: number and wire type in one integer, so that a match on both is one comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key(pub(crate) u32);

impl Key {
    pub(crate) fn number(self) -> u32 {
        self.0 >> 3
    }

    pub(crate) fn wire_type(self) -> u32 {
        self.0 & 7
    }
}

/// The key of field `number` with `wire_type`, for patterns.
pub(crate) const fn key(number: u32, wire_type: u32) -> u32 {
    (number << 3) | wire_type
}

/// A cursor over one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    #[inline]
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[cold]
    fn error(&self, fault: Fault) -> WireError {
        WireError { address: self.rest.as_ptr().addr(), fault }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(first))
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.rest = rest;
                Ok(u64::from(first & 0x7F) | (u64::from(second) << 7))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().copied().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                // The tenth byte holds bit 63 alone.
                if index == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(self.error(Fault::Varint))
    }

    /// The next field's key, or nothing at the end of the message.
    #[inline]
    pub(crate) fn next_key(&mut self) -> Result<Option<Key>, WireError> {
        if self.rest.is_empty() { Ok(None) } else { self.key().map(Some) }
    }

    #[inline]
    fn key(&mut self) -> Result<Key, WireError> {
        let start = *self;
        match u32::try_from(self.varint()?) {
            Ok(key) if key >= 8 && key & 7 <= FIXED32 => Ok(Key(key)),
            _ => Err(start.error(Fault::Key)),
        }
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        match usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length)) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.error(Fault::Truncated)),
        }
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else { return Err(self.error(Fault::Truncated)) };
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn fixed32(&mut self) -> Result<u32, WireError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else { return Err(self.error(Fault::Truncated)) };
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// A `uint32`; like prost, the low 32 bits of a longer integer.
    #[inline]
    pub(crate) fn uint32(&mut self) -> Result<u32, WireError> {
        let [a, b, c, d, ..] = self.varint()?.to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    /// An `int32` or an enumeration; like prost, the low 32 bits.
    #[inline]
    pub(crate) fn int32(&mut self) -> Result<i32, WireError> {
        Ok(self.uint32()?.cast_signed())
    }

    /// Steps over a field whose key and wire type this message does not have. `known` are the numbers it does have: one
    /// of them here means that the wire type is wrong.
    #[cold]
    pub(crate) fn unknown(&mut self, key: Key, known: std::ops::RangeInclusive<u32>) -> Result<(), WireError> {
        if known.contains(&key.number()) { Err(self.error(Fault::WireType)) } else { self.skip(key) }
    }

    /// Steps over the content of any field.
    pub(crate) fn skip(&mut self, key: Key) -> Result<(), WireError> {
        match key.wire_type() {
            START_GROUP => self.skip_group(key.number()),
            END_GROUP => Err(self.error(Fault::Group)),
            wire_type => self.skip_scalar(wire_type),
        }
    }

    fn skip_scalar(&mut self, wire_type: u32) -> Result<(), WireError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            FIXED32 => self.fixed32().map(drop),
            _ => self.bytes().map(drop),
        }
    }

    /// Groups nest on a fixed array and not on the call stack: the nesting is the sender's choice.
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = [0; GROUP_NESTING];
        open[0] = number;
        let mut depth = 1;
        while depth > 0 {
            let key = self.key()?;
            match key.wire_type() {
                END_GROUP if open[depth - 1] == key.number() => depth -= 1,
                END_GROUP => return Err(self.error(Fault::Group)),
                START_GROUP => {
                    let Some(slot) = open.get_mut(depth) else { return Err(self.error(Fault::GroupNesting)) };
                    *slot = key.number();
                    depth += 1;
                }
                wire_type => self.skip_scalar(wire_type)?,
            }
        }
        Ok(())
    }
}

/// The contents of all length-delimited fields `number` of a message that was checked before; ends at a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages<'a> {
    wire: Wire<'a>,
    key: u32,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(message: &'a [u8], number: u32) -> Self {
        Self { wire: Wire::new(message), key: key(number, LENGTH_DELIMITED) }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Ok(Some(key)) = self.wire.next_key() {
            if key.0 == self.key {
                return self.wire.bytes().ok();
            }
            self.wire.skip(key).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_like_prost_does() {
        let ten = |last: u8| [&[0xFF; 9][..], &[last]].concat();
        let cases: &[(&[u8], Option<u64>)] = &[
            (&[0], Some(0)),
            (&[0x7F], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0x80, 0x00], Some(0)), // longer than needed is allowed
            (&[0xAC, 0x82, 0x80, 0x00], Some(300)),
            (&ten(0x01), Some(u64::MAX)),
            (&ten(0x02), None), // beyond 64 bits
            (&ten(0x81), None), // eleven bytes
            (&[], None),
            (&[0x80], None),
            (&[0xFF, 0xFF], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Wire::new(bytes).varint().ok(), *expected, "{bytes:x?}");
            assert_eq!(prost::decode_length_delimiter(*bytes).ok().map(|n| n as u64), *expected, "prost {bytes:x?}");
        }
    }

    #[test]
    fn keys_are_refused_with_number_zero_beyond_32_bits_or_of_unknown_wire_type() {
        for (bytes, good) in [
            (&[0x08][..], true),
            (&[0x88, 0x00], true),
            (&[0xFA, 0xFF, 0xFF, 0xFF, 0x0F], true),
            (&[0x02], false),
            (&[0x0E], false),
            (&[0x0F], false),
            (&[0xFA, 0xFF, 0xFF, 0xFF, 0x1F], false),
        ] {
            assert_eq!(Wire::new(bytes).key().is_ok(), good, "{bytes:x?}");
        }
    }

    #[test]
    fn groups_are_stepped_over_when_they_are_balanced() {
        let skip = |bytes: &[u8]| {
            let mut wire = Wire::new(bytes);
            let key = wire.key()?;
            wire.skip(key).map(|()| wire.is_empty())
        };
        // Field 2: a group; inside fields 1 (varint), 3 (a group), 4 (bytes).
        assert_eq!(skip(&[0x13, 0x08, 0x05, 0x1B, 0x1C, 0x22, 0x01, 0x00, 0x14]), Ok(true));
        for bad in [&[0x13][..], &[0x14], &[0x13, 0x1C], &[0x13, 0x1B, 0x14], &[0x13, 0x08, 0x14]] {
            assert!(skip(bad).is_err(), "{bad:x?}");
        }
        let deep = [vec![0x13; 10_000], vec![0x14; 10_000]].concat();
        assert_eq!(skip(&deep).map_err(|e| e.fault), Err(Fault::GroupNesting));
        let allowed = [vec![0x13; 100], vec![0x14; 100]].concat();
        assert_eq!(skip(&allowed), Ok(true));
    }

    #[test]
    fn lengths_stay_inside_their_message() {
        for bytes in [&[0x02, 0x00][..], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]] {
            assert_eq!(Wire::new(bytes).bytes().map_err(|e| e.fault), Err(Fault::Truncated));
        }
        assert!(Wire::new(&[0; 7]).fixed64().is_err());
        assert!(Wire::new(&[0; 3]).fixed32().is_err());
    }
}
