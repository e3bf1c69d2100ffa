//! The audit trail: kept from being cut short, and shown.
//!
//! The catalog chains the records and MACs them; who can write the catalog can still put an older copy of it back. Against that the
//! *anchor*, the last record's number and MAC, is kept outside of the catalog. A start that does not find the anchor in the trail says so
//! in the log and in a new record, and goes on from there.

use std::fmt::Debug;
use std::sync::Arc;

use logseal_catalog::{AuditEntry, AuditFault, AuditHead, AuditRow, AuditVerdict, Catalog, CatalogError, Change};
use logseal_core::{Chain, Clock};
use serde_json::{Value, json};
use tracing::{error, warn};

use crate::resource::view::date;

/// The action of a record that says that records before it are gone.
pub const ROLLBACK: &str = "logseal/audit/rollback";

/// Where the anchor is kept.
pub trait AnchorStore: Debug + Send + Sync {
    /// The anchor; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn load(&self) -> std::io::Result<Option<AuditHead>>;

    /// Keeps `anchor`, durably, in the place of the one before.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn store(&self, anchor: &AuditHead) -> std::io::Result<()>;
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

    /// Looks whether the trail still has the anchor; when not, that becomes a record.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when the trail cannot be read or written.
    pub async fn begin(&self) -> Result<(), CatalogError> {
        let anchor = match self.anchor.load() {
            Ok(Some(anchor)) => anchor,
            Ok(None) => return Ok(()),
            Err(error) => {
                warn!(%error, "the audit trail's anchor cannot be read: whether records are gone is not known");
                return Ok(());
            }
        };
        let newest = self.catalog.audit(Some(anchor.sequence.saturating_add(1)), 1).await;
        if matches!(&newest, Ok(rows) if rows.iter().any(|row| row.sequence == anchor.sequence && row.mac == anchor.mac))
        {
            return Ok(());
        }
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
        self.catalog.apply(Change::Audit(entry)).await
    }

    /// Moves the anchor to the present end of the trail.
    pub async fn keep(&self) {
        let head = match self.catalog.audit_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                error!(error = %Chain(&error), "the audit trail's end cannot be read, its anchor stays");
                return;
            }
        };
        let stored = self.anchor.load().ok().flatten();
        if stored.is_some_and(|anchor| anchor == head) {
            return;
        }
        if let Err(error) = self.anchor.store(&head) {
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

    /// Checks the whole trail.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when it cannot be read; what is wrong with it is in the value.
    pub(crate) async fn verify(&self) -> Result<Value, CatalogError> {
        let anchor = self.anchor.load().ok().flatten();
        let AuditVerdict { records, head, faults } = self.catalog.verify_audit(anchor).await?;
        let faults: Vec<_> = faults.iter().map(fault).collect();
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
