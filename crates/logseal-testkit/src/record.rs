//! Numbered records whose content follows from a seed, and a hash over all of it that travels in an attribute.
//!
//! Who reads a record back can tell from the record alone whether a field changed, and from the seed whether it is the
//! one that was sent.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use data_encoding::HEXLOWER;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::ship::{attribute, text};

/// The tables that records are spread over, by their index in the request.
pub const TABLES: [&str; 3] = ["logs", "crash_even", "crash_odd"];

/// Columns of a query that [`StoredRecord::parse`] reads.
pub const COLUMNS: &str = "resource_attributes['crash.shipper'] AS shipper, \
    resource_attributes['crash.request'] AS request, resource_attributes['crash.attempt'] AS attempt, \
    attributes['crash.nth'] AS nth, attributes['crash.hash'] AS hash, CAST(time AS BIGINT) AS unix_nanos, \
    severity_number AS severity, trace_id, body, attributes['word'] AS word, attributes['number'] AS number, \
    attributes['ratio'] AS ratio, attributes['flag'] AS flag, overflow";

/// 2026-01-01T00:00:00Z in nanoseconds since 1970: where the records' times begin.
const EPOCH: i64 = 1_767_225_600_000_000_000;

/// SHA-256 over all fields of a record.
pub type RecordHash = [u8; 32];

/// Random numbers that follow from a seed (SplitMix64: Steele, Lea, Flood, OOPSLA 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// The numbers of `seed` and of the place that `parts` name.
    #[must_use]
    pub fn new(seed: u64, parts: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in parts {
            random.0 = random.draw().wrapping_add(*part);
        }
        random
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.draw() % (most - least + 1)
    }
}

/// The seed that the environment `variable` holds; without one, a fresh one.
///
/// # Panics
///
/// When the variable is no number.
#[must_use]
pub fn seed_of_run(variable: &str) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number")),
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

/// One sending of one request.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttemptId {
    /// Who sends.
    pub shipper: u32,
    /// Which of its requests, from 0.
    pub request: u32,
    /// How often it was sent before.
    pub attempt: u32,
}

/// A record of our own making.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The sending that it belongs to.
    pub id: AttemptId,
    /// Its place in the request, from 0.
    pub nth: u32,
    unix_nanos: i64,
    severity: i64,
    trace_id: String,
    body: String,
    word: String,
    number: i64,
    ratio: f64,
    flag: bool,
}

impl Record {
    /// The record in place `nth` of the sending `id`. All but the number of the attempt is the same each time.
    #[must_use]
    pub fn derive(seed: u64, id: AttemptId, nth: u32) -> Self {
        let mut random = SeededRandom::new(seed, &[id.shipper.into(), id.request.into(), nth.into()]);
        let length = match random.between(0, 99) {
            0 => random.between(2_000, 20_000),
            1..=19 => random.between(200, 600),
            _ => random.between(20, 120),
        };
        let mut body = format!("record {nth} of request {} by shipper {} ", id.request, id.shipper);
        while (body.len() as u64) < length {
            body.push_str(&format!("{:016x} ", random.draw()));
        }
        let words = ["", "alpha", "beta", "gamma \u{3b3}", "quoted \"delta\"", "line\nbreak"];
        Self {
            id,
            nth,
            unix_nanos: EPOCH + (random.draw() >> 16) as i64,
            severity: 1 + (random.draw() % 24) as i64,
            trace_id: format!("{:016x}{:016x}", random.draw() | 1, random.draw()),
            body,
            word: words[(random.draw() % 6) as usize].to_owned(),
            number: random.draw() as i64,
            // A few binary digits after the point: exact in decimal notation too.
            ratio: (random.draw() % 4096) as f64 / 64.0,
            flag: random.draw().is_multiple_of(2),
        }
    }

    /// The table that it goes to.
    #[must_use]
    pub fn table(&self) -> &'static str {
        // Only some requests have records for more than one table.
        if self.id.request.is_multiple_of(3) {
            TABLES[self.nth as usize % 3]
        } else {
            TABLES[self.id.request as usize % 3]
        }
    }

    /// SHA-256 over all fields, those of variable length after their length.
    #[must_use]
    pub fn hash(&self) -> RecordHash {
        let Self { id, nth, unix_nanos, severity, trace_id, body, word, number, ratio, flag } = self;
        let mut hash = Sha256::new();
        for number in [id.shipper, id.request, id.attempt, *nth] {
            hash.update(number.to_le_bytes());
        }
        for number in [*unix_nanos, *severity, *number, i64::from_ne_bytes(ratio.to_ne_bytes()), i64::from(*flag)] {
            hash.update(number.to_le_bytes());
        }
        for text in [trace_id, body, word] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }

    fn to_otlp(&self) -> LogRecord {
        let integer = |number| AnyValue { value: Some(any_value::Value::IntValue(number)) };
        LogRecord {
            time_unix_nano: self.unix_nanos.unsigned_abs(),
            severity_number: self.severity as i32,
            trace_id: HEXLOWER.decode(self.trace_id.as_bytes()).expect("made as hexadecimal"),
            body: Some(text(&self.body)),
            attributes: vec![
                attribute("crash.nth", integer(self.nth.into())),
                attribute("crash.hash", text(HEXLOWER.encode(&self.hash()))),
                attribute("word", text(&self.word)),
                attribute("number", integer(self.number)),
                attribute("ratio", AnyValue { value: Some(any_value::Value::DoubleValue(self.ratio)) }),
                attribute("flag", AnyValue { value: Some(any_value::Value::BoolValue(self.flag)) }),
            ],
            ..LogRecord::default()
        }
    }
}

/// The records of the sending `id`.
#[must_use]
pub fn records(seed: u64, id: AttemptId, count: u32) -> Vec<Record> {
    (0..count).map(|nth| Record::derive(seed, id, nth)).collect()
}

/// `records`, all of the sending `id`, as one request.
#[must_use]
pub fn request(id: AttemptId, records: &[Record]) -> ExportLogsServiceRequest {
    let integer = |number: u32| AnyValue { value: Some(any_value::Value::IntValue(number.into())) };
    let for_table = |table: &&'static str| {
        let log_records: Vec<_> =
            records.iter().filter(|record| record.table() == *table).map(Record::to_otlp).collect();
        let attributes = vec![
            attribute("logseal.table", text(*table)),
            attribute("crash.shipper", integer(id.shipper)),
            attribute("crash.request", integer(id.request)),
            attribute("crash.attempt", integer(id.attempt)),
        ];
        let resource = Some(Resource { attributes, ..Resource::default() });
        (!log_records.is_empty()).then(|| ResourceLogs {
            resource,
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        })
    };
    ExportLogsServiceRequest { resource_logs: TABLES.iter().filter_map(for_table).collect() }
}

/// What a query gave back for a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredRecord {
    /// The sending that it says it belongs to.
    pub id: AttemptId,
    /// The place in the request that it says it has.
    pub nth: u32,
    /// The hash of its fields; nothing when it is another one than the record carries, or when something came beside
    /// the fields.
    pub hash: Option<RecordHash>,
}

impl StoredRecord {
    /// Reads a row of [`COLUMNS`]. Nothing when the row does not say which record it is.
    #[must_use]
    pub fn parse(row: &Value) -> Option<Self> {
        let small = |name: &str| row[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let id = AttemptId { shipper: small("shipper")?, request: small("request")?, attempt: small("attempt")? };
        let nth = small("nth")?;
        let fields = || {
            let text = |name: &str| row[name].as_str().map(str::to_owned);
            Some(Record {
                id,
                nth,
                unix_nanos: row["unix_nanos"].as_i64()?,
                severity: row["severity"].as_i64()?,
                trace_id: text("trace_id")?,
                body: text("body")?,
                word: text("word")?,
                number: row["number"].as_i64()?,
                ratio: row["ratio"].as_f64()?,
                flag: row["flag"].as_bool()?,
            })
        };
        let carried = |hash: &RecordHash| row["hash"].as_str() == Some(&HEXLOWER.encode(hash));
        let hash = fields().map(|record| record.hash()).filter(carried).filter(|_| row["overflow"].is_null());
        Some(Self { id, nth, hash })
    }

    /// The row that a faultless store gives for `record`.
    #[cfg(test)]
    pub(crate) fn row(record: &Record) -> Value {
        serde_json::json!({
            "shipper": record.id.shipper, "request": record.id.request, "attempt": record.id.attempt, "nth": record.nth,
            "hash": HEXLOWER.encode(&record.hash()), "unix_nanos": record.unix_nanos, "severity": record.severity,
            "trace_id": record.trace_id, "body": record.body, "word": record.word, "number": record.number,
            "ratio": record.ratio, "flag": record.flag, "overflow": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: AttemptId = AttemptId { shipper: 1, request: 3, attempt: 0 };

    /// Guarantee: each field that is stored counts; without that the checker would be blind for it.
    #[test]
    fn a_change_of_any_field_is_seen() {
        let row = StoredRecord::row(&Record::derive(7, ID, 2));
        assert!(StoredRecord::parse(&row).is_some_and(|stored| stored.hash.is_some()));
        let columns = row.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(columns.len(), 14);
        for column in columns {
            let mut changed = row.clone();
            changed[&column] = match &row[&column] {
                Value::Number(number) if number.is_f64() => json!(number.as_f64().map(|number| number + 0.5)),
                Value::Number(number) => json!(number.as_i64().map(|number| number ^ 1)),
                Value::Bool(flag) => json!(!flag),
                Value::String(text) => json!(format!("{text}x")),
                _ => json!("{}"),
            };
            assert!(StoredRecord::parse(&changed).is_none_or(|stored| stored.hash.is_none()), "{column}");
            changed[&column] = json!([]);
            assert!(StoredRecord::parse(&changed).is_none_or(|stored| stored.hash.is_none()), "{column}");
        }
    }

    #[test]
    fn an_attempt_changes_the_hash_and_nothing_else() {
        let again = AttemptId { attempt: 1, ..ID };
        let (first, second) = (Record::derive(7, ID, 2), Record::derive(7, again, 2));
        assert_ne!(first.hash(), second.hash());
        assert_eq!(Record { id: again, ..first }, second);
        assert_ne!(Record::derive(8, ID, 2).body, second.body, "the seed decides the content");
    }

    #[test]
    fn a_request_has_all_its_records_once_whatever_their_tables() {
        for request_number in 0..4 {
            let id = AttemptId { request: request_number, ..ID };
            let records = records(7, id, 20);
            let sent = request(id, &records);
            let count: usize = sent.resource_logs.iter().map(|resource| resource.scope_logs[0].log_records.len()).sum();
            assert_eq!(count, 20);
            assert_eq!(sent.resource_logs.len(), if request_number % 3 == 0 { 3 } else { 1 });
        }
    }
}
