//! The audit trail: each record carries the MAC of the one before it, and the head names the last one.

use super::control::{DOCUMENT_BYTES, invalid};
use super::{Rows, signed};
use crate::audit::GENESIS;
use crate::codec::mac;
use crate::rows::Authenticated as _;
use crate::{AuditEntry, AuditHead, AuditRow, CatalogError};

/// Records among which one is looked for whose answer was lost.
const REPEATED: u64 = 100;

impl Rows<'_> {
    /// Adds a record behind the last one that the head names. A trail whose head is missing, altered or older than its records takes no
    /// further ones: they would hide that.
    pub(super) async fn audit(&mut self, entry: &AuditEntry) -> Result<(), CatalogError> {
        let heads: Vec<AuditHead> = self.find(sqlx::query("SELECT * FROM audit_head")).await?;
        let (last, previous) = match heads.as_slice() {
            [] => (0, GENESIS.to_vec()),
            [head] => (head.sequence, head.mac.clone()),
            [head, ..] => return Err(altered(head)),
        };
        let r = AuditRow { sequence: last.saturating_add(1), entry: entry.clone(), previous, mac: Vec::new() };
        if [&entry.before, &entry.after].iter().any(|document| document.len() > DOCUMENT_BYTES) {
            return Err(invalid(&r, "its document is larger than 256 KiB"));
        }
        let repeated = sqlx::query("SELECT * FROM audit WHERE sequence > ? AND at = ?")
            .bind(signed(AuditHead::KIND, || last.to_string(), last.saturating_sub(REPEATED))?)
            .bind(entry.at.0);
        if self.find::<AuditRow>(repeated).await?.iter().any(|row| row.entry == *entry) {
            return Ok(());
        }
        let sequence = signed(AuditRow::KIND, || r.label(), r.sequence)?;
        let head = AuditHead { sequence: r.sequence, mac: mac(self.mac_key, &r) };
        let query = sqlx::query("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(sequence)
            .bind(entry.at.0)
            .bind(&entry.actor)
            .bind(&entry.action)
            .bind(&entry.resource)
            .bind(entry.operation.as_ref().map(|id| id.as_bytes().as_slice()))
            .bind(&entry.outcome)
            .bind(&entry.before)
            .bind(&entry.after)
            .bind(&r.previous)
            .bind(&head.mac);
        self.store(AuditRow::KIND, r.label(), query).await.map_err(|error| match error {
            CatalogError::Conflict { .. } => altered(&head),
            error => error,
        })?;
        self.execute("replace audit head", sqlx::query("DELETE FROM audit_head")).await?;
        let query = sqlx::query("INSERT INTO audit_head VALUES (?, ?, ?)")
            .bind(sequence)
            .bind(&head.mac)
            .bind(mac(self.mac_key, &head));
        self.store(AuditHead::KIND, head.label(), query).await
    }
}

fn altered(head: &AuditHead) -> CatalogError {
    CatalogError::Integrity { kind: AuditHead::KIND, id: head.label() }
}
