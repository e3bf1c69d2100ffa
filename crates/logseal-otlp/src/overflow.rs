//! The column `overflow`: one JSON object per record with what no other column holds exactly.
//!
//! Members are collected without the outer braces, so that those of the record, of its resource and of its scope are
//! written apart and joined by a comma.

use crate::json;
use crate::value::Value;

/// Begins the member `name`.
pub(crate) fn member(members: &mut String, name: &str) {
    if !members.is_empty() {
        members.push(',');
    }
    members.push('"');
    members.push_str(name);
    members.push_str("\":");
}

/// Adds text that is not UTF-8.
pub(crate) fn invalid_text(members: &mut String, name: &str, text: &[u8]) {
    member(members, name);
    json::bytes_value(members, text);
}

/// Adds a 64-bit number as a decimal string.
pub(crate) fn number(members: &mut String, name: &str, number: u64) {
    member(members, name);
    members.push('"');
    json::decimal(members, number);
    members.push('"');
}

/// Adds bytes in lower-case hex.
pub(crate) fn hex(members: &mut String, name: &str, bytes: &[u8]) {
    member(members, name);
    members.push('"');
    data_encoding::HEXLOWER.encode_append(bytes, members);
    members.push('"');
}

/// Adds one element to the member `attributes`. The caller closes the list when `first` has become false.
pub(crate) fn attribute(members: &mut String, first: &mut bool, key: &str, value: Value<'_>) {
    if *first {
        member(members, "attributes");
        members.push('[');
        *first = false;
    } else {
        members.push(',');
    }
    json::key_value(members, key, value);
}
