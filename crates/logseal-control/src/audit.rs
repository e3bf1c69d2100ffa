//! The audit trail: kept from being cut short, and shown.
//!
//! The catalog chains the records and MACs them; who can write the catalog can still put an older copy of it back. Against that the
//! *anchor*, the last record's number and MAC, is kept outside of the catalog. A start that does not find the anchor in the trail says so
//! in the log and in a new record, and goes on from there.
//!
//! Who has the root key may put an older catalog, or one that was made anew, in the place of another one, since otherwise all would be lost. That is no
//! fault, but must not look like nothing either: a record says so, and which end the trail had that was there before ([`AuditTrail::replace`]). Nobody
//! without the root key can make such a record.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use logseal_catalog::{AuditEntry, AuditFault, AuditHead, AuditRow, AuditVerdict, Catalog, CatalogError, Change};
use logseal_core::{Chain, Clock};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::meter;
use crate::resource::view::date;

/// The action of a record that says that records before it are gone.
pub const ROLLBACK: &str = "logseal/audit/rollback";

/// Most of these records, and of those of each kind of replacement, that are shown.
const ROLLBACKS: u32 = 100;

/// How another catalog came to be in the place of the one that was there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replacement {
    /// A copy of earlier date.
    Restored,
    /// One that was made anew, whose trail begins with the record of it.
    Rebuilt,
}

impl Replacement {
    const ALL: [Self; 2] = [Self::Restored, Self::Rebuilt];

    /// The action of its record.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Restored => "logseal/catalog/restore",
            Self::Rebuilt => "logseal/catalog/rebuild",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Restored => "restored from a copy",
            Self::Rebuilt => "made anew",
        }
    }
}

/// Where the anchor is kept.
pub trait AnchorStore: Debug + Send + Sync {
    /// The anchor; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn load(&self) -> io::Result<Option<AuditHead>>;

    /// Keeps `anchor`, durably, in the place of the one before.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn store(&self, anchor: &AuditHead) -> io::Result<()>;
}

/// The trail with its anchor.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    catalog: Catalog,
    anchor: Arc<dyn AnchorStore>,
    clock: Arc<dyn Clock>,
}

impl AuditTrail {
    /// The trail in `catalog`, held against the anchor.
    #[must_use]
    pub fn new(catalog: Catalog, anchor: Arc<dyn AnchorStore>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, anchor, clock }
    }

    /// Looks whether the trail still has the anchor; when not, that becomes a record, and the anchor goes on from there. A trail that
    /// cannot even take the record is reported, and stops changes of resources, but nothing else.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when the trail cannot be read or written for a trouble that passes.
    pub async fn begin(&self) -> Result<(), CatalogError> {
        let Some(anchor) = self.anchor().await else { return Ok(()) };
        if self.has(&anchor).await? {
            return Ok(());
        }
        if let Some(record) = self.replacement(&anchor).await? {
            warn!(
                record,
                expected = anchor.sequence,
                "another catalog was put in the place of the one before: the audit trail lacks records, as its own record says"
            );
            return self.move_anchor().await;
        }
        meter::audit_fault(meter::LACKS_RECORDS);
        let found = self.catalog.audit_head().await.ok().flatten().map_or(0, |head| head.sequence);
        error!(
            expected = anchor.sequence,
            found, "the audit trail lacks records: the catalog was put back to an older state, or was altered"
        );
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: "logseal".to_owned(),
            action: ROLLBACK.to_owned(),
            resource: String::new(),
            operation: None,
            outcome: "Detected".to_owned(),
            before: json!({"sequence": anchor.sequence}).to_string(),
            after: json!({"sequence": found}).to_string(),
        };
        match self.catalog.apply(Change::Audit(entry)).await {
            Err(error @ CatalogError::Integrity { .. }) => {
                meter::audit_fault(meter::TAKES_NONE);
                error!(error = %Chain(&error), "the audit trail takes no records: resources cannot be changed until it is repaired");
                return Ok(());
            }
            applied => applied?,
        }
        self.move_anchor().await
    }

    async fn move_anchor(&self) -> Result<(), CatalogError> {
        if let Some(head) = self.catalog.audit_head().await? {
            self.set_anchor(head).await;
        }
        Ok(())
    }

    /// Adds a record that this catalog takes the place of another one, and returns its number. The anchor stays: by this record the next start knows that
    /// what it names is not there any more, and the other catalog may still stay in its place.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Integrity`] when the trail takes no records, since it was altered; [`CatalogError`].
    pub async fn replace(&self, how: Replacement) -> Result<u64, CatalogError> {
        let named = |head: Option<AuditHead>| head.as_ref().map_or(Value::Null, end).to_string();
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: "command-line".to_owned(),
            action: how.action().to_owned(),
            resource: String::new(),
            operation: None,
            outcome: "Succeeded".to_owned(),
            before: named(self.anchor().await),
            after: named(self.catalog.audit_head().await?),
        };
        self.catalog.apply(Change::Audit(entry)).await?;
        Ok(self.catalog.audit_head().await?.map_or(0, |head| head.sequence))
    }

    /// The number of the record that says that the trail that `anchor` is of was replaced by this one.
    async fn replacement(&self, anchor: &AuditHead) -> Result<Option<u64>, CatalogError> {
        let anchor = end(anchor);
        let names = |row: &AuditRow| serde_json::from_str::<Value>(&row.entry.before).is_ok_and(|end| end == anchor);
        Ok(self.replacements().await?.iter().map(|(_, row)| row).find(|row| names(row)).map(|row| row.sequence))
    }

    /// The newest records of replacements.
    async fn replacements(&self) -> Result<Vec<(Replacement, AuditRow)>, CatalogError> {
        let mut found = Vec::new();
        for how in Replacement::ALL {
            match self.catalog.audit_of(how.action(), ROLLBACKS).await {
                Ok(rows) => found.extend(rows.into_iter().map(|row| (how, row))),
                // Who checks the whole trail finds the altered one.
                Err(CatalogError::Integrity { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Adds a record at the end of the trail. When this returns it is durable.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when the trail takes no records: what the record is of must not happen then.
    pub(crate) async fn record(&self, entry: AuditEntry) -> Result<(), CatalogError> {
        self.catalog.apply(Change::Audit(entry)).await
    }

    /// Moves the anchor to the present end of the trail, unless the trail lacks the record that the anchor names.
    pub async fn keep(&self) {
        if let Err(error) = self.follow().await {
            meter::audit_fault(meter::UNREADABLE);
            error!(error = %Chain(&error), "the audit trail's end cannot be read, its anchor stays");
        }
    }

    async fn follow(&self) -> Result<(), CatalogError> {
        let Some(head) = self.catalog.audit_head().await? else { return Ok(()) };
        match self.anchor().await {
            Some(anchor) if anchor == head => {}
            Some(anchor) if !self.has(&anchor).await? && self.replacement(&anchor).await?.is_none() => {
                meter::audit_fault(meter::LACKS_RECORDS);
                error!(
                    expected = anchor.sequence,
                    found = head.sequence,
                    "the audit trail lacks records: its anchor stays"
                );
            }
            _ => self.set_anchor(head).await,
        }
        Ok(())
    }

    /// Whether the trail has the record that `anchor` names.
    async fn has(&self, anchor: &AuditHead) -> Result<bool, CatalogError> {
        match self.catalog.audit(Some(anchor.sequence.saturating_add(1)), 1).await {
            Ok(rows) => Ok(rows.iter().any(|row| row.sequence == anchor.sequence && row.mac == anchor.mac)),
            Err(CatalogError::Integrity { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn anchor(&self) -> Option<AuditHead> {
        let store = Arc::clone(&self.anchor);
        match spawn_blocking(move || store.load()).await.map_err(io::Error::other).flatten() {
            Ok(anchor) => anchor,
            Err(error) => {
                meter::audit_fault(meter::UNREADABLE);
                warn!(%error, "the audit trail's anchor cannot be read: whether records are gone is not known");
                None
            }
        }
    }

    async fn set_anchor(&self, head: AuditHead) {
        let store = Arc::clone(&self.anchor);
        if let Err(error) = spawn_blocking(move || store.store(&head)).await.map_err(io::Error::other).flatten() {
            warn!(%error, "the audit trail's anchor cannot be written now");
        }
    }

    /// Records, newest first.
    ///
    /// # Errors
    ///
    /// [`CatalogError`].
    pub(crate) async fn page(&self, before: Option<u64>, limit: u32) -> Result<Vec<Value>, CatalogError> {
        Ok(self.catalog.audit(before, limit).await?.into_iter().map(view).collect())
    }

    /// Checks the whole trail, and says where earlier starts found that it had been put back, and where other catalogs took the place of one before.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when it cannot be read; what is wrong with it is in the value.
    pub(crate) async fn verify(&self) -> Result<Value, CatalogError> {
        let anchor = self.anchor().await;
        let AuditVerdict { records, head, faults } = self.catalog.verify_audit(anchor).await?;
        let mut faults: Vec<_> = faults.iter().map(fault).collect();
        let rollbacks = match self.catalog.audit_of(ROLLBACK, ROLLBACKS).await {
            // An altered record is among the faults already.
            Err(CatalogError::Integrity { .. }) => Vec::new(),
            rollbacks => rollbacks?,
        };
        faults.extend(rollbacks.iter().map(|row| {
            let (number, before, after) = (row.sequence, &row.entry.before, &row.entry.after);
            json!(format!(
                "record {number} says that the trail was put back: it had {before} and was found with {after}"
            ))
        }));
        let notices: Vec<_> = self.replacements().await?.iter().map(|(how, row)| notice(*how, row)).collect();
        let last = head.map(|head| head.sequence);
        Ok(json!({"records": records, "lastSequence": last, "faults": faults, "notices": notices}))
    }
}

fn view(row: AuditRow) -> Value {
    let AuditRow { sequence, entry, .. } = row;
    // What was written as JSON is shown as JSON.
    let parsed = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    json!({
        "sequence": sequence,
        "time": date(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "resource": entry.resource,
        "operation": entry.operation.map(|id| id.to_string()),
        "outcome": entry.outcome,
        "before": parsed(entry.before),
        "after": parsed(entry.after),
    })
}

/// What records say of an end of a trail.
fn end(head: &AuditHead) -> Value {
    json!({"sequence": head.sequence, "mac": HEXLOWER.encode(&head.mac)})
}

fn notice(how: Replacement, row: &AuditRow) -> String {
    let sequence = |end: &str| serde_json::from_str::<Value>(end).ok()?.get("sequence")?.as_u64();
    let before = match sequence(&row.entry.before) {
        Some(last) => format!("the trail that was there before had a record {last}"),
        None => "how far the trail that was there before went is not known".to_owned(),
    };
    let after = match sequence(&row.entry.after) {
        Some(last) => format!("this one went to record {last}"),
        None => "this one begins here".to_owned(),
    };
    let (number, words, at) = (row.sequence, how.words(), date(row.entry.at));
    format!("record {number} says that the catalog was {words} at {at}: {before}, {after}")
}

fn fault(fault: &AuditFault) -> Value {
    let text = match fault {
        AuditFault::Altered { sequence } => format!("record {sequence} was altered"),
        AuditFault::Missing { sequence } => format!("record {sequence} is missing"),
        AuditFault::Chain { sequence } => format!("record {sequence} does not follow the one before it"),
        AuditFault::Head => "the end of the trail is not the one that was written".to_owned(),
        AuditFault::Truncated { expected, found } => {
            format!("the trail ends with record {found}, although there was a record {expected}")
        }
    };
    text.into()
}
