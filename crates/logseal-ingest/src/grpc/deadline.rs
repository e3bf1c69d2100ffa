//! The client's patience: the `grpc-timeout` header.

use std::time::Duration;

use http::HeaderMap;

/// Header of gRPC over HTTP/2: at most 8 digits and a unit.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// How long the client waits, if it says so. A value that does not parse is ignored, as other servers do.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3_600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// When to answer a client that waits for `timeout`: a little earlier, since an answer has to travel.
///
/// That is also earlier than the timer that tonic's transport sets for the same header, whose answer is `CANCELLED`.
pub(super) fn patience(timeout: Duration) -> Duration {
    timeout - (timeout / 10).min(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_are_parsed_or_ignored() {
        let cases: [(&[u8], Option<Duration>); 14] = [
            (b"1H", Some(Duration::from_secs(3_600))),
            (b"2M", Some(Duration::from_secs(120))),
            (b"10S", Some(Duration::from_secs(10))),
            (b"9999m", Some(Duration::from_millis(9_999))),
            (b"7u", Some(Duration::from_micros(7))),
            (b"99999999n", Some(Duration::from_nanos(99_999_999))),
            (b"0S", Some(Duration::ZERO)),
            (b"99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            (b"100000000S", None),
            (b"", None),
            (b"S", None),
            (b"10", None),
            (b"-1S", None),
            (b"1.5S\xff", None),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_bytes(text).expect("a header value"));
            assert_eq!(timeout(&headers), expected, "{}", text.escape_ascii());
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn the_answer_leaves_before_the_deadline() {
        assert_eq!(patience(Duration::from_secs(10)), Duration::from_millis(9_990));
        assert_eq!(patience(Duration::from_millis(1)), Duration::from_micros(900));
        assert_eq!(patience(Duration::ZERO), Duration::ZERO);
    }
}
