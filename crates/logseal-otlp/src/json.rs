//! Values as OTLP JSON: proto3's JSON mapping with 64-bit integers as strings and bytes as base64.
//!
//! Everything here appends to a string that the caller reuses. The text is at most about nine times as long as the
//! protobuf field that holds the value: a control character becomes six characters, the four bytes of an empty list
//! inside a list 29, the six bytes of a key-value pair with an empty list 49.

use std::fmt::Write;

use data_encoding::BASE64;

use crate::value::{List, Source, Value, read, read_key_value};

/// Appends `text` as a JSON string.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut written = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Only ASCII bytes are escaped, so both cuts lie between characters.
        out.push_str(&text[written..index]);
        written = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                out.push_str("\\u00");
                data_encoding::HEXLOWER.encode_append(&[other], out);
            }
        }
    }
    out.push_str(&text[written..]);
    out.push('"');
}

/// Appends `{"bytesValue":"..."}`, also the form of text that is not UTF-8.
pub(crate) fn bytes_value(out: &mut String, bytes: &[u8]) {
    out.push_str("{\"bytesValue\":\"");
    BASE64.encode_append(bytes, out);
    out.push_str("\"}");
}

/// Appends `text` as a JSON string, or as a `bytesValue` when it is not UTF-8.
pub(crate) fn text_or_bytes(out: &mut String, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(text) => string(out, text),
        Err(_) => bytes_value(out, text),
    }
}

/// Appends an `AnyValue`. Recursion is bounded: values nested deeper than the limit never get here.
pub(crate) fn any_value(out: &mut String, value: Value<'_>) {
    match value {
        Value::Empty => out.push_str("{}"),
        Value::String(text) => {
            out.push_str("{\"stringValue\":");
            string(out, text);
            out.push('}');
        }
        // Whoever has one of these looks at it first; what is not UTF-8 has the form of bytes.
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => any_value(out, Value::String(text)),
            Err(_) => bytes_value(out, text),
        },
        Value::Bool(true) => out.push_str("{\"boolValue\":true}"),
        Value::Bool(false) => out.push_str("{\"boolValue\":false}"),
        Value::Int(number) => {
            out.push_str("{\"intValue\":\"");
            decimal(out, number);
            out.push_str("\"}");
        }
        Value::Double(number) => {
            out.push_str("{\"doubleValue\":");
            double(out, number);
            out.push('}');
        }
        Value::Bytes(bytes) => bytes_value(out, bytes),
        Value::Array(list) => {
            out.push_str("{\"arrayValue\":{\"values\":[");
            separated(out, list, |out, element| any_value(out, read(Source::Whole(element))));
            out.push_str("]}}");
        }
        Value::Kvlist(list) => {
            out.push_str("{\"kvlistValue\":{\"values\":[");
            separated(out, list, |out, element| {
                let (key, value) = read_key_value(element);
                key_value(out, key, value);
            });
            out.push_str("]}}");
        }
    }
}

fn separated(out: &mut String, list: List<'_>, mut write: impl FnMut(&mut String, &[u8])) {
    for (index, element) in list.elements().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, element);
    }
}

/// Appends a `KeyValue`; an empty value is left out, as proto3's JSON leaves out what is not set.
pub(crate) fn key_value(out: &mut String, key: &str, value: Value<'_>) {
    out.push_str("{\"key\":");
    string(out, key);
    if !matches!(value, Value::Empty) {
        out.push_str(",\"value\":");
        any_value(out, value);
    }
    out.push('}');
}

/// Appends a whole number without quotes.
pub(crate) fn decimal(out: &mut String, number: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{number}");
}

fn double(out: &mut String, number: f64) {
    if number.is_finite() {
        // The `Debug` form is the shortest that reads back the same; unlike `Display` it has exponents, else the nine
        // bytes of 1e308 would become 309 digits.
        let _ = write!(out, "{number:?}");
    } else if number.is_nan() {
        out.push_str("\"NaN\"");
    } else if number > 0.0 {
        out.push_str("\"Infinity\"");
    } else {
        out.push_str("\"-Infinity\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_so_that_a_parser_gives_them_back() {
        let every_ascii: String = (0_u8..128).map(char::from).collect();
        for text in ["", "plain", "\u{e9}\u{1F600}\"\u{e9}", every_ascii.as_str()] {
            let mut out = String::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn scalars_have_the_forms_of_otlp_json() {
        for (value, expected) in [
            (Value::Empty, "{}"),
            (Value::String("a"), r#"{"stringValue":"a"}"#),
            (Value::Bool(true), r#"{"boolValue":true}"#),
            (Value::Int(i64::MIN), r#"{"intValue":"-9223372036854775808"}"#),
            (Value::Double(1.5), r#"{"doubleValue":1.5}"#),
            (Value::Double(-0.0), r#"{"doubleValue":-0.0}"#),
            (Value::Double(f64::MAX), r#"{"doubleValue":1.7976931348623157e308}"#),
            (Value::Double(5e-324), r#"{"doubleValue":5e-324}"#),
            (Value::Double(f64::NAN), r#"{"doubleValue":"NaN"}"#),
            (Value::Double(f64::INFINITY), r#"{"doubleValue":"Infinity"}"#),
            (Value::Double(f64::NEG_INFINITY), r#"{"doubleValue":"-Infinity"}"#),
            (Value::Bytes(&[0xFF, 0x00]), r#"{"bytesValue":"/wA="}"#),
            (Value::Array(List::Whole(&[])), r#"{"arrayValue":{"values":[]}}"#),
            (Value::Kvlist(List::Whole(&[])), r#"{"kvlistValue":{"values":[]}}"#),
        ] {
            let mut out = String::new();
            any_value(&mut out, value);
            assert_eq!(out, expected);
        }
    }
}
