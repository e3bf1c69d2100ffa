//! How many records a request has, by its framing alone.

use crate::wire::{LENGTH_DELIMITED, Wire, WireError, key};

const RESOURCE_LOGS: u32 = key(1, LENGTH_DELIMITED);
const SCOPE_LOGS: u32 = key(2, LENGTH_DELIMITED);
const LOG_RECORDS: u32 = key(2, LENGTH_DELIMITED);

/// The number of records of an `ExportLogsServiceRequest`, whose contents are not looked at; nothing when its framing is broken.
///
/// Requests for which this is something can be put together: protobuf merges a message out of its parts one after the other (Encoding,
/// "Last One Wins" and repeated fields), and each of these ends where its last field does.
#[must_use]
pub fn framed_records(request: &[u8]) -> Option<u64> {
    let mut records = 0;
    each(request, RESOURCE_LOGS, &mut |resource_logs| {
        each(resource_logs, SCOPE_LOGS, &mut |scope_logs| {
            each(scope_logs, LOG_RECORDS, &mut |_| {
                records += 1;
                Ok(())
            })
        })
    })
    .ok()?;
    Some(records)
}

fn each(message: &[u8], wanted: u32, visit: &mut dyn FnMut(&[u8]) -> Result<(), WireError>) -> Result<(), WireError> {
    let mut wire = Wire::new(message);
    while let Some(field) = wire.next_key()? {
        if field.0 == wanted { visit(wire.bytes()?)? } else { wire.skip(field)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_and_broken_framing_is_noticed() {
        // Two resources; one with two scopes of two and no records, and one with a scope of one, and an unknown field.
        let scope = |records: &[u8]| [&[0x12, records.len() as u8][..], records].concat();
        let first = [scope(&[0x12, 0, 0x12, 0]), scope(&[])].concat();
        let second = scope(&[0x12, 2, 0xFF, 0xFF]);
        let mut request = Vec::new();
        for resource in [&first, &second] {
            request.extend([0x0A, resource.len() as u8]);
            request.extend(resource);
        }
        request.extend([0x18, 1]);
        assert_eq!(framed_records(&request), Some(3));
        assert_eq!(framed_records(&[request.clone(), request.clone()].concat()), Some(6));
        assert_eq!(framed_records(&[]), Some(0));
        for broken in [&request[..3], &request[..request.len() - 1], &[0x0A, 4, 0x12, 2, 0x12, 9][..], &[0x0C]] {
            assert_eq!(framed_records(broken), None, "{broken:x?}");
        }
    }
}
