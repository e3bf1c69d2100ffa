//! The texts that name resources: what is well-formed.

use http::StatusCode;

use crate::Problem;

/// A resource's name: 4 to 63 letters, digits and hyphens, no hyphen at an end (`clusterName` and `workspaceName` of the published
/// API description).
pub(crate) fn resource(kind: &str, name: &str, code: &'static str) -> Result<(), Problem> {
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if (4..=63).contains(&name.len()) && inner && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    let message =
        format!("a {kind}'s name has 4 to 63 letters, digits and hyphens, and neither begins nor ends with a hyphen");
    Err(Problem::bad(code, "name", message))
}

/// A subscription's id: a UUID in its usual form.
pub(crate) fn subscription(text: &str) -> Result<(), Problem> {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if groups == [8, 4, 4, 4, 12] && digits {
        return Ok(());
    }
    let message = "a subscription id is a UUID such as 00000000-0000-0000-0000-000000000000; it need not exist";
    Err(Problem::bad("InvalidSubscriptionId", "subscription", message))
}

/// A resource group's name: 1 to 90 letters, digits, `_`, `-`, `.`, `(` and `)`, not ending with `.`.
pub(crate) fn resource_group(text: &str) -> Result<(), Problem> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_-.()".contains(c);
    if (1..=90).contains(&text.len()) && text.chars().all(known) && !text.ends_with('.') {
        return Ok(());
    }
    let message = "a resource group's name has 1 to 90 letters, digits and _-.() and does not end with a dot";
    Err(Problem::bad("InvalidResourceGroupName", "resourceGroup", message))
}

/// A location's name.
pub(crate) fn location(text: &str) -> Result<(), Problem> {
    if (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ' || c == '-') {
        return Ok(());
    }
    Err(Problem::bad("LocationNotAvailable", "location", "a location has 1 to 64 letters, digits, spaces and hyphens"))
}

/// The first and last version of the resource provider's published API that is served.
pub(crate) const FIRST_VERSION: &str = "2020-08-01";
pub(crate) const LAST_VERSION: &str = "2025-07-01";

/// The query's `api-version`, which Azure Resource Manager demands of every request.
pub(crate) fn api_version(query: Option<&str>) -> Result<&str, Problem> {
    let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let version = pairs.find(|(name, _)| name.eq_ignore_ascii_case("api-version")).map(|(_, value)| value);
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        let message = format!("the query parameter `api-version` is required, for example ?api-version={LAST_VERSION}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "MissingApiVersionParameter", message));
    };
    let date = version.strip_suffix("-preview").unwrap_or(version);
    let shape =
        |(index, byte): (usize, u8)| if index == 4 || index == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    // Dates in this form compare as text.
    if date.len() == 10 && date.bytes().enumerate().all(shape) && (FIRST_VERSION..=LAST_VERSION).contains(&date) {
        return Ok(version);
    }
    let message = format!("this api-version is not served: versions from {FIRST_VERSION} to {LAST_VERSION} are");
    Err(Problem::new(StatusCode::BAD_REQUEST, "InvalidApiVersionParameter", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_names_are_taken() {
        for good in ["local", "a-b4", "PROBE-1", &"a".repeat(63)] {
            assert!(resource("cluster", good, "InvalidClusterName").is_ok(), "{good}");
        }
        for bad in ["", "abc", "-abc", "abc-", "a_bc", "a/bc", "a..b", "a%2Fb", "caf\u{e9}", &"a".repeat(64)] {
            assert!(resource("cluster", bad, "InvalidClusterName").is_err(), "{bad}");
        }
        assert!(subscription("00000000-0000-0000-0000-00000000000A").is_ok());
        for bad in ["", "x", "00000000-0000-0000-0000-00000000000g", "000000000000-0000-0000-0000-00000000"] {
            assert!(subscription(bad).is_err(), "{bad}");
        }
        assert!(resource_group("rg_1.(x)-").is_ok());
        for bad in ["", "rg.", "r/g", "r g", &"r".repeat(91)] {
            assert!(resource_group(bad).is_err(), "{bad}");
        }
        assert!(location("West Europe").is_ok() && location("").is_err() && location("a/b").is_err());
    }

    #[test]
    fn published_api_versions_are_served_and_others_refused() {
        for good in ["2020-08-01", "2021-12-01-preview", "2023-09-01", "2025-02-01", "2025-07-01"] {
            assert_eq!(api_version(Some(&format!("x=1&API-Version={good}"))).ok(), Some(good));
        }
        for bad in ["", "2019-08-01", "2026-01-01", "latest", "2023/09/01", "2023-09-01-beta", "2023-9-1"] {
            assert!(api_version(Some(&format!("api-version={bad}"))).is_err(), "{bad}");
        }
        assert_eq!(api_version(None).unwrap_err().code(), "MissingApiVersionParameter");
    }
}
