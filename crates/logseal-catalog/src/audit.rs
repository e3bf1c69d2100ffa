//! The audit trail: reading it, and finding out whether it is whole.
//!
//! Each record has a number, the MAC of the record before it, and a MAC over both and over what it says; the head names the last
//! one. Who can write the file but has no root key can therefore neither alter a record nor leave one out, except at the end: an
//! older head, put back with the trail of its time, is genuine. Against that a head is kept elsewhere and given to
//! [`Catalog::verify_audit`] as the anchor.

use sqlx::{Executor as _, Row as _, SqliteConnection};

use crate::codec::read;
use crate::rows::Authenticated as _;
use crate::{AuditHead, AuditRow, Catalog, CatalogError};

/// What stands before the first record.
pub(crate) const GENESIS: [u8; 32] = [0; 32];

/// Most faults that a verdict lists: one alteration can be made to look like any number.
const FAULTS: usize = 100;

const NEWEST: &str = "SELECT * FROM audit WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2";

const OF_ACTION: &str = "SELECT * FROM audit WHERE action = ?1 ORDER BY sequence DESC LIMIT ?2";

/// Few, since a record may be large.
const PAGE: &str = "SELECT * FROM audit WHERE sequence >= ?1 ORDER BY sequence LIMIT 50";

const HEAD: &str = "SELECT * FROM audit_head";

/// Something that is wrong with the audit trail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuditFault {
    /// The record is not as it was written; 0 for one with a number that no record has.
    Altered {
        /// Its number.
        sequence: u64,
    },
    /// The record is not there.
    Missing {
        /// Its number.
        sequence: u64,
    },
    /// The record is genuine, but does not follow the one before it, or is not the one that the anchor names.
    Chain {
        /// Its number.
        sequence: u64,
    },
    /// The head is missing or altered, or does not name the last record.
    Head,
    /// The trail ends too early.
    Truncated {
        /// The number of the last record, as head or anchor know it.
        expected: u64,
        /// The number of the last record that is there.
        found: u64,
    },
}

/// What [`Catalog::verify_audit`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditVerdict {
    /// How many records there are.
    pub records: u64,
    /// The head, when it is genuine: a new anchor if there are no faults.
    pub head: Option<AuditHead>,
    /// What is wrong, by record; the first hundred.
    pub faults: Vec<AuditFault>,
}

impl Catalog {
    /// At most `limit` records before the number `before`, newest first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, CatalogError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        self.all(sqlx::query(NEWEST).bind(before).bind(limit)).await
    }

    /// At most `limit` records of `action`, newest first. The whole trail is looked through.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn audit_of(&self, action: &str, limit: u32) -> Result<Vec<AuditRow>, CatalogError> {
        self.all(sqlx::query(OF_ACTION).bind(action).bind(limit)).await
    }

    /// The end of the audit trail; `None` when it has no records.
    ///
    /// # Errors
    ///
    /// As [`Catalog::clusters`].
    pub async fn audit_head(&self) -> Result<Option<AuditHead>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(CatalogError::sql("connect"))?;
        self.read_head(&mut connection).await
    }

    async fn read_head(&self, connection: &mut SqliteConnection) -> Result<Option<AuditHead>, CatalogError> {
        let mut heads: Vec<AuditHead> = self.read_all(connection, sqlx::query(HEAD)).await?;
        match heads.get(1) {
            Some(second) => Err(CatalogError::Integrity { kind: AuditHead::KIND, id: second.label() }),
            None => Ok(heads.pop()),
        }
    }

    /// Checks the whole audit trail, as it is at one moment; `anchor` is a head that was kept elsewhere, which the trail must contain.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Sql`]. What is wrong with the trail is in the verdict.
    pub async fn verify_audit(&self, anchor: Option<AuditHead>) -> Result<AuditVerdict, CatalogError> {
        let mut moment = self.readers.begin().await.map_err(CatalogError::sql("begin snapshot"))?;
        let mut walk = Walk::new(anchor);
        let mut from = Some(i64::MIN);
        while let Some(first) = from {
            let query = sqlx::query(PAGE).bind(first);
            let rows = moment.fetch_all(query).await.map_err(CatalogError::sql("read"))?;
            for row in &rows {
                let sequence = row.try_get("sequence").map_err(CatalogError::sql("read"))?;
                walk.record(sequence, read(&self.mac_key, row).ok());
                from = sequence.checked_add(1);
            }
            if rows.is_empty() {
                break;
            }
        }
        match self.read_head(&mut moment).await {
            Ok(head) => Ok(walk.end(head, false)),
            Err(CatalogError::Integrity { .. }) => Ok(walk.end(None, true)),
            Err(error) => Err(error),
        }
    }
}

/// The check itself: it is shown one record after another.
struct Walk {
    anchor: Option<AuditHead>,
    records: u64,
    /// The number that the next record should have.
    next: u64,
    /// What the next record should name; unknown behind one that is missing or altered.
    previous: Option<Vec<u8>>,
    faults: Vec<AuditFault>,
}

impl Walk {
    fn new(anchor: Option<AuditHead>) -> Self {
        Self { anchor, records: 0, next: 1, previous: Some(GENESIS.to_vec()), faults: Vec::new() }
    }

    fn fault(&mut self, fault: AuditFault) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }

    /// `row` is `None` when it is altered.
    fn record(&mut self, sequence: i64, row: Option<AuditRow>) {
        self.records += 1;
        let sequence = match u64::try_from(sequence) {
            Ok(sequence) if sequence >= self.next => sequence,
            _ => return self.fault(AuditFault::Altered { sequence: 0 }),
        };
        for sequence in (self.next..sequence).take(FAULTS) {
            self.fault(AuditFault::Missing { sequence });
        }
        if sequence > self.next {
            self.previous = None;
        }
        self.next = sequence.saturating_add(1);
        let Some(row) = row else {
            self.previous = None;
            return self.fault(AuditFault::Altered { sequence });
        };
        let breaks = self.previous.as_ref().is_some_and(|previous| *previous != row.previous);
        let strays = self.anchor.as_ref().is_some_and(|a| a.sequence == sequence && a.mac != row.mac);
        if breaks || strays {
            self.fault(AuditFault::Chain { sequence });
        }
        self.previous = Some(row.mac);
    }

    fn end(mut self, head: Option<AuditHead>, is_altered: bool) -> AuditVerdict {
        let found = self.next - 1;
        let fits = match &head {
            None => !is_altered && self.records == 0,
            // An altered last record has been told of: what it should be is not known.
            Some(head) if head.sequence == found => self.previous.as_ref().is_none_or(|mac| *mac == head.mac),
            Some(head) => head.sequence > found,
        };
        if !fits {
            self.fault(AuditFault::Head);
        }
        let expected = [&head, &self.anchor].into_iter().flatten().map(|head| head.sequence).max().unwrap_or(0);
        if expected > found {
            self.fault(AuditFault::Truncated { expected, found });
        }
        AuditVerdict { records: self.records, head, faults: self.faults }
    }
}

#[cfg(test)]
mod tests;
