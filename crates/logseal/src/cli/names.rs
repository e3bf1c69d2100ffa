//! The texts that the command line takes as names and values: what is well-formed, so that it is safe in a URL.

use logseal_control::{Role, is_token_name};
use logseal_vault::{KeyName, KeyVersion};

/// The grammar of resource names, as Azure Resource Manager has it for Log Analytics.
pub(super) fn resource_name(text: &str) -> Result<String, &'static str> {
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let ends = !text.starts_with('-') && !text.ends_with('-');
    if (4..=63).contains(&text.len()) && inner && ends {
        Ok(text.to_owned())
    } else {
        Err("a name has 4 to 63 letters, digits and hyphens, and neither begins nor ends with a hyphen")
    }
}

/// A UUID in its usual form: subscriptions and operations.
pub(crate) fn uuid(text: &str) -> Result<String, &'static str> {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    if groups == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        Ok(text.to_owned())
    } else {
        Err("it is a UUID such as 00000000-0000-0000-0000-000000000000")
    }
}

/// A resource group's name.
pub(super) fn resource_group(text: &str) -> Result<String, &'static str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.()".contains(&byte);
    if (1..=90).contains(&text.len()) && text.bytes().all(known) && !text.ends_with('.') {
        Ok(text.to_owned())
    } else {
        Err("a resource group's name has 1 to 90 letters, digits and _-.() and does not end with a dot")
    }
}

/// A cluster, by its name or by its whole id.
pub(super) fn cluster(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { resource_name(text) }
}

/// A key's name, as Key Vault has it.
pub(super) fn key_name(text: &str) -> Result<String, String> {
    KeyName::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A version of a key.
pub(super) fn key_version(text: &str) -> Result<String, String> {
    KeyVersion::parse(&text.to_ascii_lowercase()).map(|version| version.to_string()).map_err(|error| error.to_string())
}

/// A workspace, by its name or by its id.
pub(super) fn workspace(text: &str) -> Result<String, &'static str> {
    resource_name(text)
}

/// A token's name.
pub(super) fn token_name(text: &str) -> Result<String, &'static str> {
    if is_token_name(text) {
        Ok(text.to_owned())
    } else {
        Err(
            "a token's name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen",
        )
    }
}

/// What a token is for.
pub(super) fn role(text: &str) -> Result<String, String> {
    Role::parse(text).map(|role| role.as_str().to_owned()).ok_or_else(|| {
        let names = Role::ALL.map(Role::as_str).join(", ");
        format!("a role is one of: {names}")
    })
}

/// Seconds, as a number with a unit: s, m, h, d or w.
pub(super) fn lifetime(text: &str) -> Result<u64, &'static str> {
    let wrong = "a duration is a number above 0 with a unit, such as 90d, 12h, 30m or 45s";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = number.parse().ok().filter(|number| is_number && *number > 0);
    number.and_then(|number| number.checked_mul(unit)).ok_or(wrong)
}

/// `NAME=VALUE`.
pub(super) fn tag(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag is NAME=VALUE"),
    }
}

/// Gigabytes a day; `none` is -1, as in Azure Resource Manager.
pub(super) fn daily_cap(text: &str) -> Result<f64, &'static str> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(-1.0);
    }
    let cap = text.parse().ok().filter(|cap: &f64| cap.is_finite() && *cap > 0.0);
    cap.ok_or("a daily cap is a number of gigabytes above 0, or `none`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_a_url_are_refused() {
        assert!(resource_name("default").is_ok() && resource_name("a-b4").is_ok());
        for bad in ["", "abc", "a/../b", "a b c", "-abc", "abc-", "a?b=c", "caf\u{e9}s", &"a".repeat(64)] {
            assert!(resource_name(bad).is_err(), "{bad:?}");
            assert!(uuid(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "rg.", "r/g", "r g", "r?g", "..", "r%2Fg", "r\u{e9}", &"r".repeat(91)] {
            assert!(resource_group(bad).is_err(), "{bad:?}");
        }
        assert!(resource_group("rg_1.(x)-").is_ok());
        assert!(uuid("0194d5a0-0000-7000-8000-00000000000A").is_ok());
        assert!(uuid("0194d5a0-0000-7000-8000-00000000000/").is_err());
        assert!(cluster("/subscriptions/x").is_ok() && cluster("prod").is_ok() && cluster("a b").is_err());
    }

    #[test]
    fn lifetimes_have_a_unit() {
        for (text, seconds) in [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600)] {
            assert_eq!(lifetime(text), Ok(seconds), "{text}");
        }
        for bad in ["", "d", "0d", "-1d", "+1d", "1.5h", "90", "1y", "1 d", "99999999999999999999d", "\u{e9}"] {
            assert!(lifetime(bad).is_err(), "{bad:?}");
        }
        assert_eq!(role("key-officer").as_deref(), Ok("key-officer"));
        assert!(role("owner").unwrap_err().contains("reader, operator, key-officer, auditor"));
        assert!(token_name("grafana-1").is_ok() && token_name("a/b").is_err() && token_name("A").is_err());
    }

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(tag("a="), Ok(("a".to_owned(), String::new())));
        assert!(tag("a").is_err() && tag("=b").is_err());
        assert_eq!((daily_cap("1.5"), daily_cap("None")), (Ok(1.5), Ok(-1.0)));
        for bad in ["0", "-1", "inf", "NaN", "much", ""] {
            assert!(daily_cap(bad).is_err(), "{bad}");
        }
    }
}
