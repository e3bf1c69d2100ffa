//! Ledgers against store, as multisets.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde_json::Value;

use crate::Server;
use crate::ledger::Attempt;
use crate::record::{AttemptId, COLUMNS, Record, RecordHash, StoredRecord};

/// Faults that are told in full; the rest is only counted.
const EXAMPLES: usize = 20;

/// Records that one query may bring: far below the server's limit of rows, and below its limit of bytes.
const PAGE: u64 = 100_000;

/// Compares `ledger` with all that `server` has; `seed` is the one that the records were derived from.
///
/// # Errors
///
/// When a query fails, or when counting gives fewer rows than reading.
pub fn compare(server: &Server, seed: u64, ledger: Vec<Attempt>) -> Result<Findings, String> {
    let pages = pages(&ledger);
    let mut comparison = Comparison::new(seed, ledger);
    for table in tables(server)? {
        let mut unread = count(server, &table)?;
        for (shipper, first, last) in &pages {
            let sql = format!(
                "SELECT {COLUMNS} FROM {table} WHERE resource_attributes['crash.shipper'] = {shipper} \
                 AND resource_attributes['crash.request'] BETWEEN {first} AND {last}"
            );
            let rows = server.query(&sql)?;
            rows.iter().for_each(|row| comparison.add(row));
            let fewer = || format!("table {table} counts fewer rows than it gives");
            unread = unread.checked_sub(rows.len() as u64).ok_or_else(fewer)?;
        }
        comparison.add_unreadable(&table, unread);
    }
    Ok(comparison.finish())
}

/// All rows of all tables.
///
/// # Errors
///
/// When a query fails.
pub fn count_all(server: &Server) -> Result<u64, String> {
    tables(server)?.iter().map(|table| count(server, table)).sum()
}

fn tables(server: &Server) -> Result<Vec<String>, String> {
    let rows = server.query("SHOW TABLES")?;
    let name = |row: &Value| row["table_name"].as_str().map(str::to_owned).ok_or_else(|| format!("no name in {row}"));
    rows.iter().map(name).collect()
}

fn count(server: &Server, table: &str) -> Result<u64, String> {
    let rows = server.query(&format!("SELECT count(*) AS records FROM {table}"))?;
    rows.first().and_then(|row| row["records"].as_u64()).ok_or_else(|| format!("no count of {table}"))
}

/// Ranges (shipper, first request, last request) of at most about [`PAGE`] sent records each.
fn pages(ledger: &[Attempt]) -> Vec<(u32, u32, u32)> {
    let mut pages: Vec<(u32, u32, u32)> = Vec::new();
    let mut records = 0;
    for Attempt { id, records: more, .. } in ledger {
        records += u64::from(*more);
        match pages.last_mut() {
            Some((shipper, _, last)) if *shipper == id.shipper && (records <= PAGE || *last == id.request) => {
                *last = id.request;
            }
            _ => {
                pages.push((id.shipper, id.request, id.request));
                records = u64::from(*more);
            }
        }
    }
    pages
}

/// Compares what was sent with what is stored, row by row.
#[derive(Debug)]
pub struct Comparison {
    seed: u64,
    attempts: BTreeMap<AttemptId, Sent>,
    findings: Findings,
}

#[derive(Debug)]
struct Sent {
    acknowledged: Option<Vec<RecordHash>>,
    /// How often each record was found.
    found: Vec<u32>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// Requests that were sent, each at least once.
    pub requests: u64,
    /// Sendings beyond each request's first.
    pub resent_requests: u64,
    /// Records that the server acknowledged.
    pub acknowledged: u64,
    /// Records found, whatever they are.
    pub stored: u64,
    /// Records found of sendings without an acknowledgement whose request another sending brought in too. Allowed: the
    /// client sent them again.
    pub duplicates_by_resend: u64,
    /// Sendings without an acknowledgement of which some records were found and some not. Allowed: nothing was
    /// promised.
    pub partial_requests: u64,
    /// Acknowledged records that were not found.
    pub missing: u64,
    /// Records with other content than what was sent.
    pub altered: u64,
    /// Records found once more than they were sent.
    pub duplicated_by_server: u64,
    /// Rows that nobody sent.
    pub foreign: u64,
    /// The first faults, told.
    pub examples: Vec<String>,
}

impl Comparison {
    /// A comparison with all that was sent; `seed` is the one that the records were derived from.
    #[must_use]
    pub fn new(seed: u64, ledger: Vec<Attempt>) -> Self {
        let mut findings = Findings::default();
        let mut attempts = BTreeMap::new();
        for Attempt { id, records, acknowledged } in ledger {
            findings.requests += u64::from(id.attempt == 0);
            findings.resent_requests += u64::from(id.attempt > 0);
            findings.acknowledged += acknowledged.as_ref().map_or(0, |hashes| hashes.len() as u64);
            attempts.insert(id, Sent { acknowledged, found: vec![0; records as usize] });
        }
        Self { seed, attempts, findings }
    }

    /// Takes one stored row of [`COLUMNS`] into account.
    pub fn add(&mut self, row: &Value) {
        let findings = &mut self.findings;
        findings.stored += 1;
        let place = StoredRecord::parse(row).and_then(|stored| {
            let sent = self.attempts.get_mut(&stored.id)?;
            let found = sent.found.get_mut(stored.nth as usize)?;
            Some((stored, sent.acknowledged.as_ref(), found))
        });
        let Some((StoredRecord { id, nth, hash }, acknowledged, found)) = place else {
            findings.foreign += 1;
            findings.tell(|| format!("foreign: {row}"));
            return;
        };
        *found += 1;
        if *found > 1 {
            findings.duplicated_by_server += 1;
            findings.tell(|| format!("duplicated: {id:?}, record {nth}"));
        }
        let expected = acknowledged
            .and_then(|hashes| hashes.get(nth as usize).copied())
            .unwrap_or_else(|| Record::derive(self.seed, id, nth).hash());
        if hash != Some(expected) {
            findings.altered += 1;
            findings.tell(|| format!("altered: {row}"));
        }
    }

    /// Takes `rows` of `table` into account that are counted there and belong to no request.
    fn add_unreadable(&mut self, table: &str, rows: u64) {
        self.findings.stored += rows;
        self.findings.foreign += rows;
        if rows > 0 {
            self.findings.tell(|| format!("foreign: {rows} rows of table {table} have no shipper that was there"));
        }
    }

    /// What was found, once every stored row was added.
    #[must_use]
    pub fn finish(self) -> Findings {
        let Self { attempts, mut findings, .. } = self;
        // Whether a request came in by a sending other than the one looked at.
        let mut brought_in: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for (id, sent) in &attempts {
            if sent.acknowledged.is_some() || sent.found.iter().any(|found| *found > 0) {
                *brought_in.entry((id.shipper, id.request)).or_default() += 1;
            }
        }
        for (id, sent) in &attempts {
            let absent = sent.found.iter().filter(|found| **found == 0).count();
            let present = sent.found.len() - absent;
            if sent.acknowledged.is_some() {
                findings.missing += absent as u64;
                if absent > 0 {
                    findings.tell(|| format!("missing: {absent} of {} records of {id:?}", sent.found.len()));
                }
            } else if present > 0 {
                findings.partial_requests += u64::from(absent > 0);
                if brought_in.get(&(id.shipper, id.request)).is_some_and(|sendings| *sendings > 1) {
                    findings.duplicates_by_resend += present as u64;
                }
            }
        }
        findings
    }
}

impl Findings {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_faultless(&self) -> bool {
        (self.missing, self.altered, self.duplicated_by_server, self.foreign) == (0, 0, 0, 0)
    }

    fn tell(&mut self, fault: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(fault().chars().take(400).collect());
        }
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests {}, sent again {}", self.requests, self.resent_requests)?;
        writeln!(f, "records acknowledged {}, stored {}", self.acknowledged, self.stored)?;
        writeln!(
            f,
            "allowed: duplicates by resend {}, unacknowledged requests in part {}",
            self.duplicates_by_resend, self.partial_requests
        )?;
        write!(
            f,
            "faults: missing {}, altered {}, duplicated by the server {}, foreign {}",
            self.missing, self.altered, self.duplicated_by_server, self.foreign
        )?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::records;

    const SEED: u64 = 11;

    fn id(request: u32, attempt: u32) -> AttemptId {
        AttemptId { shipper: 0, request, attempt }
    }

    /// Request 0 was acknowledged at once, request 1 at the second try, request 2 never. Two records each.
    fn ledger() -> Vec<Attempt> {
        let sent = |id, acknowledged: bool| {
            let hashes = records(SEED, id, 2).iter().map(Record::hash).collect();
            Attempt { id, records: 2, acknowledged: acknowledged.then_some(hashes) }
        };
        vec![sent(id(0, 0), true), sent(id(1, 0), false), sent(id(1, 1), true), sent(id(2, 0), false)]
    }

    fn rows(id: AttemptId) -> Vec<Value> {
        records(SEED, id, 2).iter().map(StoredRecord::row).collect()
    }

    /// What a faultless server has: the acknowledged sendings.
    fn promised() -> Vec<Value> {
        [rows(id(0, 0)), rows(id(1, 1))].concat()
    }

    fn found_in(rows: &[Value]) -> Findings {
        let mut comparison = Comparison::new(SEED, ledger());
        rows.iter().for_each(|row| comparison.add(row));
        comparison.finish()
    }

    #[test]
    fn a_faultless_store_is_found_faultless() {
        let findings = found_in(&promised());
        assert!(findings.is_faultless(), "{findings}");
        let counts = Findings { requests: 3, resent_requests: 1, acknowledged: 4, stored: 4, ..Findings::default() };
        assert_eq!(findings, counts);
    }

    #[test]
    fn what_was_sent_without_an_answer_may_be_there_and_is_counted_apart() {
        let findings = found_in(&[promised(), rows(id(1, 0)), rows(id(2, 0))].concat());
        assert!(findings.is_faultless(), "{findings}");
        assert_eq!((findings.duplicates_by_resend, findings.partial_requests), (2, 0));
        let findings = found_in(&[promised(), rows(id(2, 0))[..1].to_vec()].concat());
        assert!(findings.is_faultless(), "{findings}");
        assert_eq!((findings.duplicates_by_resend, findings.partial_requests), (0, 1));
    }

    /// Negative control: each planted fault is found, alone, and as what it is.
    #[test]
    fn planted_faults_are_found() {
        let counts = |findings: Findings| {
            assert!(!findings.is_faultless() && findings.examples.len() == 1, "{findings}");
            [findings.missing, findings.altered, findings.duplicated_by_server, findings.foreign]
        };
        for at in 0..promised().len() {
            let mut lost = promised();
            lost.remove(at);
            assert_eq!(counts(found_in(&lost)), [1, 0, 0, 0]);

            let mut altered = promised();
            altered[at]["body"] = json!("another body");
            assert_eq!(counts(found_in(&altered)), [0, 1, 0, 0]);

            let mut twice = promised();
            twice.push(twice[at].clone());
            assert_eq!(counts(found_in(&twice)), [0, 0, 1, 0]);
        }
        let unacknowledged_twice = [promised(), rows(id(2, 0)), rows(id(2, 0))[..1].to_vec()].concat();
        assert_eq!(counts(found_in(&unacknowledged_twice)), [0, 0, 1, 0]);

        for foreign in [rows(id(3, 0)), rows(id(0, 1)), vec![json!({"body": "from nowhere"})]] {
            let rows = [promised(), foreign[..1].to_vec()].concat();
            assert_eq!(counts(found_in(&rows)), [0, 0, 0, 1]);
        }
    }

    #[test]
    fn pages_hold_all_attempts_of_each_request_once() {
        let ledger: Vec<_> = (0..3)
            .flat_map(|shipper| (0..500).map(move |request| (shipper, request)))
            .flat_map(|(shipper, request)| (0..3).map(move |attempt| AttemptId { shipper, request, attempt }))
            .map(|id| Attempt { id, records: 500, acknowledged: None })
            .collect();
        let pages = pages(&ledger);
        assert!(pages.len() >= 3 * 7, "{pages:?}");
        for Attempt { id, .. } in &ledger {
            let holds = |&&(shipper, first, last): &&(u32, u32, u32)| {
                shipper == id.shipper && (first..=last).contains(&id.request)
            };
            assert_eq!(pages.iter().filter(holds).count(), 1, "{id:?} in {pages:?}");
        }
    }

    /// Scenario: a record is replaced by another one with a hash that fits it. Guarantee: it does not pass,
    /// acknowledged or not.
    #[test]
    fn a_record_with_a_fitting_hash_but_of_another_seed_is_altered() {
        for (acknowledged, id) in [(promised(), id(0, 0)), ([promised(), rows(id(2, 0))].concat(), id(2, 0))] {
            let forged = StoredRecord::row(&Record::derive(SEED + 1, id, 0));
            let is_same = |row: &Value| ["request", "attempt", "nth"].iter().all(|name| row[*name] == forged[*name]);
            let rows: Vec<_> =
                acknowledged.iter().map(|row| if is_same(row) { forged.clone() } else { row.clone() }).collect();
            let findings = found_in(&rows);
            assert_eq!((findings.altered, findings.missing, findings.foreign), (1, 0, 0), "{findings}");
        }
    }
}
