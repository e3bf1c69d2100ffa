//! Numbers of JSON as the whole or broken numbers of a message, exactly or not at all.

use super::lexer::Lexer;

/// Why a number is not what its field has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoNumber {
    Malformed,
    NotWhole,
    OutOfRange,
}

/// Most digits of a whole number that any field can have: those of `u64::MAX`.
const DIGITS: i64 = 20;

/// The whole number that `text`, a number of JSON, stands for: `1000`, `1e3` and `1000.0` are the same.
pub(super) fn whole(text: &[u8]) -> Result<i128, NoNumber> {
    checked(text)?;
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let broken = mantissa.iter().position(|byte| *byte == b'.').map_or(0, |at| mantissa.len() - at - 1);
    // The digits without zeros at both ends, and by which power of ten they are to be multiplied.
    let digits = || mantissa.iter().filter(|byte| **byte != b'.');
    let zeros_before = digits().take_while(|byte| **byte == b'0').count();
    let count = digits().count();
    if zeros_before == count {
        return Ok(0);
    }
    let zeros_after = digits().rev().take_while(|byte| **byte == b'0').count();
    let significant = count - zeros_before - zeros_after;
    let power = exponent.saturating_add(length(zeros_after)).saturating_sub(length(broken));
    if power < 0 {
        return Err(NoNumber::NotWhole);
    }
    if length(significant).saturating_add(power) > DIGITS {
        return Err(NoNumber::OutOfRange);
    }
    let value = digits().skip(zeros_before).take(significant).fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    // At most 20 digits in all, which an `i128` holds twice.
    let value = (0..power).fold(value, |value, _| value * 10);
    Ok(if negative { -value } else { value })
}

/// An exponent; one that is beyond all bounds is so as well here.
fn exponent(text: &[u8]) -> i64 {
    let negative = text.first() == Some(&b'-');
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let value = digits.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -value } else { value }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The double next to `text`, a number of JSON.
pub(super) fn double(text: &[u8]) -> Result<f64, NoNumber> {
    checked(text)?;
    let value: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NoNumber::Malformed)?;
    if value.is_finite() { Ok(value) } else { Err(NoNumber::OutOfRange) }
}

/// Strings hold numbers as well: what is in them need not be one.
fn checked(text: &[u8]) -> Result<(), NoNumber> {
    let mut lexer = Lexer::new(text);
    let is_number = lexer.number().is_ok_and(|number| number.len() == text.len());
    if is_number { Ok(()) } else { Err(NoNumber::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::NoNumber::{Malformed, NotWhole, OutOfRange};
    use super::*;

    #[test]
    fn whole_numbers_are_exact_in_every_form() {
        let many_zeros = format!("1{}e-5000", "0".repeat(5_000));
        let long_fraction = format!("7.{}", "0".repeat(5_000));
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("0.000e99999999999999999999", Ok(0)),
            ("18446744073709551615", Ok(i128::from(u64::MAX))),
            ("-9223372036854775808", Ok(i128::from(i64::MIN))),
            ("9007199254740993", Ok(9_007_199_254_740_993)), // no double has it
            ("1e3", Ok(1_000)),
            ("1E+3", Ok(1_000)),
            ("-1.5e1", Ok(-15)),
            ("1.0", Ok(1)),
            ("1000e-3", Ok(1)),
            ("0.001e3", Ok(1)),
            (&many_zeros, Ok(1)),
            (&long_fraction, Ok(7)),
            ("1.5", Err(NotWhole)),
            ("1e-1", Err(NotWhole)),
            ("1e-99999999999999999999", Err(NotWhole)),
            ("1e20", Err(OutOfRange)),
            ("1e99999999999999999999", Err(OutOfRange)),
            ("123456789012345678901", Err(OutOfRange)),
            ("", Err(Malformed)),
            ("+1", Err(Malformed)),
            ("01", Err(Malformed)),
            (" 1", Err(Malformed)),
            ("1 ", Err(Malformed)),
            ("0x10", Err(Malformed)),
            ("one", Err(Malformed)),
        ] {
            assert_eq!(whole(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn doubles_are_finite_numbers() {
        for (text, expected) in [
            ("0", Ok(0.0)),
            ("-1.5e-3", Ok(-0.0015)),
            ("1.7976931348623157e308", Ok(f64::MAX)),
            ("1e-400", Ok(0.0)),
            ("1e400", Err(OutOfRange)),
            ("inf", Err(Malformed)),
            ("NaN", Err(Malformed)),
            ("1.", Err(Malformed)),
            ("", Err(Malformed)),
        ] {
            assert_eq!(double(text.as_bytes()), expected, "{text}");
        }
        assert!(double(b"-0.0").unwrap().is_sign_negative());
    }
}
