//! Rotation policies: when a key gets its next version by itself.
//!
//! Everything here is values: times come in, and what is due comes out. The task that acts on it is `upkeep`.

use std::fmt::{self, Display};

use chrono::{DateTime, Days, Months};
use logseal_core::UnixNanos;
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::{KeyName, VaultError};

/// The longest span: beyond it a policy would never act.
const MOST_MONTHS: u32 = 1_200;
const MOST_DAYS: u32 = 36_500;

/// The least life of a version, in days.
const LEAST_LIFE: u32 = 28;

/// A version lives at least this long before it is rotated, and its successor comes at least this long before it expires, in days.
const LEAST_MARGIN: u32 = 7;

/// A span of calendar time, written as ISO 8601 has it: `P90D`, `P18M`, `P2Y`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span {
    months: u32,
    days: u32,
}

impl Span {
    /// A span of so many days.
    #[must_use]
    pub(crate) const fn days(days: u32) -> Self {
        Self { months: 0, days }
    }

    /// Reads `P[n]Y[n]M[n]W[n]D`; a time of day has no place in a policy.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix(['P', 'p'])?;
        let (mut months, mut days) = (0_u32, 0_u32);
        if rest.is_empty() {
            return None;
        }
        for (unit, in_months, in_days) in [('Y', 12, 0), ('M', 1, 0), ('W', 0, 7), ('D', 0, 1)] {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Some(after) = rest[digits..].strip_prefix([unit, unit.to_ascii_lowercase()]) else { continue };
            let count: u32 = rest[..digits].parse().ok()?;
            months = months.checked_add(count.checked_mul(in_months)?)?;
            days = days.checked_add(count.checked_mul(in_days)?)?;
            rest = after;
        }
        let fits = rest.is_empty() && months <= MOST_MONTHS && days <= MOST_DAYS;
        fits.then_some(Self { months, days })
    }

    /// This long after `time`; `None` beyond the calendar.
    #[must_use]
    pub(crate) fn after(self, time: UnixNanos) -> Option<UnixNanos> {
        let date = DateTime::from_timestamp_nanos(time.0);
        let date = date.checked_add_months(Months::new(self.months))?.checked_add_days(Days::new(self.days.into()))?;
        date.timestamp_nanos_opt().map(UnixNanos)
    }

    /// This long before `time`; `None` beyond the calendar.
    #[must_use]
    pub(crate) fn before(self, time: UnixNanos) -> Option<UnixNanos> {
        let date = DateTime::from_timestamp_nanos(time.0);
        let date = date.checked_sub_months(Months::new(self.months))?.checked_sub_days(Days::new(self.days.into()))?;
        date.timestamp_nanos_opt().map(UnixNanos)
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { months: 0, days } => write!(f, "P{days}D"),
            Self { months, days: 0 } if months % 12 == 0 => write!(f, "P{}Y", months / 12),
            Self { months, days: 0 } => write!(f, "P{months}M"),
            Self { months, days } => write!(f, "P{months}M{days}D"),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no span of days, months or years such as P90D or P2Y"))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// When something is to happen, by a version's life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Trigger {
    /// So long after the version was made.
    TimeAfterCreate(Span),
    /// So long before it expires.
    TimeBeforeExpiry(Span),
}

/// What happens to a key by itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RotationPolicy {
    /// When it gets a new version.
    pub(crate) rotate: Option<Trigger>,
    /// When its owner wants to be told; kept for clients that read it back.
    pub(crate) notify: Option<Trigger>,
    /// How long each version that is made from now on lives.
    pub(crate) expiry: Option<Span>,
    /// When the policy was first set, in nanoseconds of Unix time.
    pub(crate) created: i64,
    /// When it was last set.
    pub(crate) updated: i64,
}

impl RotationPolicy {
    /// Refuses what could not be acted on. `now` stands for the time at which a version is made: spans of months have no fixed length.
    ///
    /// # Errors
    ///
    /// [`VaultError::Invalid`] with the rule.
    pub(crate) fn check(&self, now: UnixNanos) -> Result<(), VaultError> {
        let invalid = |message: &str| Err(VaultError::Invalid(message.to_owned()));
        let beyond = || VaultError::Invalid("the policy's spans lead beyond the year 2262".to_owned());
        let margin = Span::days(LEAST_MARGIN);
        let expires = match self.expiry {
            None => None,
            Some(life) => Some(life.after(now).ok_or_else(beyond)?),
        };
        if expires.is_some_and(|expires| Some(expires) < Span::days(LEAST_LIFE).after(now)) {
            return invalid("`expiryTime` must be at least 28 days (P28D)");
        }
        for trigger in [self.rotate, self.notify].into_iter().flatten() {
            if matches!(trigger, Trigger::TimeBeforeExpiry(_)) && expires.is_none() {
                return invalid("`timeBeforeExpiry` needs an `expiryTime`");
            }
        }
        let at = match (self.rotate, expires) {
            (None, _) => return Ok(()),
            (Some(Trigger::TimeAfterCreate(span)), _) => span.after(now),
            (Some(Trigger::TimeBeforeExpiry(span)), expires) => expires.and_then(|expires| span.before(expires)),
        };
        let at = at.ok_or_else(beyond)?;
        if Some(at) < margin.after(now) {
            return invalid("a key is rotated at the earliest 7 days after it was made");
        }
        if expires.is_some_and(|expires| Some(at) > margin.before(expires)) {
            return invalid("a key is rotated at the latest 7 days before it expires");
        }
        Ok(())
    }

    /// When a version that is made at `created` expires.
    pub(super) fn expires(&self, created: UnixNanos) -> Option<UnixNanos> {
        self.expiry?.after(created)
    }
}

/// The keys that get a new version at `now`.
///
/// A key whose newest version is disabled waits: its owner has stopped it, and a new version would bring it back.
pub(crate) fn due<'k>(keys: impl Iterator<Item = &'k Key>, now: UnixNanos) -> Vec<KeyName> {
    let is_due = |key: &&Key| {
        let newest = key.newest();
        let at = match key.rotation.as_ref().and_then(|policy| policy.rotate) {
            None => None,
            Some(Trigger::TimeAfterCreate(span)) => span.after(newest.created),
            Some(Trigger::TimeBeforeExpiry(span)) => newest.attributes.expires.and_then(|end| span.before(end)),
        };
        key.deletion.is_none() && newest.attributes.enabled && at.is_some_and(|at| at <= now)
    };
    keys.filter(is_due).map(|key| key.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        Span::parse(text).unwrap()
    }

    #[test]
    fn spans_are_iso_8601_without_a_time_of_day() {
        for (text, shown) in [("P90D", "P90D"), ("P18M", "P18M"), ("P2Y", "P2Y"), ("P1Y6M", "P18M"), ("p2w", "P14D")] {
            assert_eq!(span(text).to_string(), shown);
        }
        for bad in ["", "P", "90D", "P90", "PT5H", "P1D2M", "P-1D", "P1.5Y", "P99999999999D", "P101Y", "P1D "] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn months_are_the_calendars() {
        let january = UnixNanos(1_769_817_600_000_000_000); // 2026-01-31
        assert_eq!(span("P1M").after(january), Some(UnixNanos(1_772_236_800_000_000_000)), "2026-02-28");
        assert_eq!(span("P1M").before(january), Some(UnixNanos(1_767_139_200_000_000_000)), "2025-12-31");
        assert_eq!(span("P100Y").after(UnixNanos(i64::MAX)), None);
    }

    #[test]
    fn policies_that_could_not_be_acted_on_are_refused() {
        let now = UnixNanos(1_769_817_600_000_000_000);
        let policy = |rotate, expiry: Option<&str>| RotationPolicy {
            rotate,
            notify: None,
            expiry: expiry.map(span),
            created: 0,
            updated: 0,
        };
        let (after, before) =
            (|text| Some(Trigger::TimeAfterCreate(span(text))), |text| Some(Trigger::TimeBeforeExpiry(span(text))));
        for good in [
            policy(None, None),
            policy(None, Some("P28D")),
            policy(after("P7D"), None),
            policy(after("P18M"), Some("P2Y")),
            policy(before("P30D"), Some("P2Y")),
        ] {
            good.check(now).unwrap();
        }
        for bad in [
            policy(None, Some("P27D")),
            policy(after("P6D"), None),
            policy(before("P30D"), None),
            policy(after("P2Y"), Some("P2Y")),
            policy(before("P6D"), Some("P28D")),
            policy(before("P28D"), Some("P28D")),
        ] {
            assert!(matches!(bad.check(now), Err(VaultError::Invalid(_))), "{bad:?}");
        }
    }
}
