//! The audit trail: kept from being cut short, and shown.
//!
//! The catalog chains the records and MACs them; who can write the catalog can still put an older copy of it back. Against that the
//! *anchor*, the last record's number and MAC, is kept outside of the catalog. A start that does not find the anchor in the trail says so
//! in the log and in a new record, and goes on from there.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use logseal_catalog::{AuditEntry, AuditFault, AuditHead, AuditRow, AuditVerdict, Catalog, CatalogError, Change};
use logseal_core::{Chain, Clock};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::meter;
use crate::resource::view::date;

/// The action of a record that says that records before it are gone.
pub const ROLLBACK: &str = "logseal/audit/rollback";

/// Most of these records that are shown.
const ROLLBACKS: u32 = 100;

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
        if let Some(head) = self.catalog.audit_head().await? {
            self.set_anchor(head).await;
        }
        Ok(())
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
            Some(anchor) if !self.has(&anchor).await? => {
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

    /// Checks the whole trail, and says where earlier starts found that it had been put back.
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
        Ok(json!({"records": records, "lastSequence": head.map(|head| head.sequence), "faults": faults}))
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
