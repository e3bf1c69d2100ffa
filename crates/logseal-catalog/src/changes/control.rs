//! Resources and operations.

use logseal_core::{ResourceId, UnixNanos};

use super::{Rows, signed, with_id};
use crate::catalog::WORKSPACE;
use crate::change::Concerned;
use crate::codec::{key_of, mac};
use crate::rows::Authenticated;
use crate::{CatalogError, OperationRow, OperationState, ResourceRow, WorkspaceRow};

/// Most bytes of a document.
pub(super) const DOCUMENT_BYTES: usize = 256 << 10;

const RESOURCE: &str = "SELECT * FROM resources WHERE id = ?";

const OPERATION: &str = "SELECT * FROM operations WHERE id = ?";

const PUT_RESOURCE: &str = "INSERT INTO resources (id, kind, subscription, subscription_key, resource_group, \
    resource_group_key, name, name_key, document, version, created, changed, deleted, mac) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
    subscription = excluded.subscription, subscription_key = excluded.subscription_key, \
    resource_group = excluded.resource_group, resource_group_key = excluded.resource_group_key, \
    name = excluded.name, name_key = excluded.name_key, document = excluded.document, version = excluded.version, \
    created = excluded.created, changed = excluded.changed, deleted = excluded.deleted, mac = excluded.mac";

/// What an operation is about never changes.
const PUT_OPERATION: &str = "INSERT INTO operations (id, kind, resource_id, target, subscription, subscription_key, \
    location, state, document, created, changed, ended, version, mac) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
    state = excluded.state, document = excluded.document, changed = excluded.changed, ended = excluded.ended, \
    version = excluded.version, mac = excluded.mac";

/// Whether the operation has ended is asked of its state as well: an end that was planted must not remove one that goes on.
const FORGET_OPERATIONS: &str = "DELETE FROM operations WHERE id IN \
    (SELECT id FROM operations WHERE ended < ? ORDER BY ended LIMIT 1000) AND state <> 1";

impl Rows<'_> {
    pub(super) async fn put_resource(&mut self, r: &ResourceRow, expected: Option<u64>) -> Result<(), CatalogError> {
        check(r, &r.document, r.version, expected)?;
        let stored: Option<ResourceRow> = self.find_one(RESOURCE, r.id.as_bytes()).await?;
        if !is_next(r, stored.as_ref(), stored.as_ref().map(|stored| stored.version), expected)? {
            return Ok(());
        }
        if stored.as_ref().is_some_and(|stored| stored.kind != r.kind) {
            return Err(invalid(r, "its kind never changes"));
        }
        // Clusters show no workspace that is deleted.
        if stored.is_some_and(|stored| stored.deleted.is_some() != r.deleted.is_some()) {
            let workspace: Option<WorkspaceRow> = self.find_one(WORKSPACE, r.id.as_bytes()).await?;
            self.concerned.add(workspace.map_or(Concerned::All, |workspace| Concerned::one(workspace.cluster)));
        }
        let query = sqlx::query(PUT_RESOURCE)
            .bind(r.id.as_bytes().as_slice())
            .bind(i64::from(r.kind.code()))
            .bind(&r.subscription)
            .bind(key_of(&r.subscription))
            .bind(&r.group)
            .bind(key_of(&r.group))
            .bind(&r.name)
            .bind(key_of(&r.name))
            .bind(&r.document)
            .bind(signed(ResourceRow::KIND, || r.label(), r.version)?)
            .bind(r.created.0)
            .bind(r.changed.0)
            .bind(r.deleted.map(|time| time.0))
            .bind(mac(self.mac_key, r));
        self.store(ResourceRow::KIND, r.label(), query).await
    }

    pub(super) async fn remove_resource(&mut self, id: ResourceId, expected: u64) -> Result<(), CatalogError> {
        match self.find_one::<ResourceRow>(RESOURCE, id.as_bytes()).await? {
            None => Ok(()),
            Some(stored) if stored.version == expected => {
                self.execute("remove resource", with_id("DELETE FROM resources WHERE id = ?", id.as_bytes())).await
            }
            Some(stored) => Err(stale(&stored)),
        }
    }

    pub(super) async fn put_operation(&mut self, r: &OperationRow, expected: Option<u64>) -> Result<(), CatalogError> {
        check(r, &r.document, r.version, expected)?;
        if r.state.is_terminal() != r.ended.is_some() {
            return Err(invalid(r, "its end and its state contradict each other"));
        }
        let stored: Option<OperationRow> = self.find_one(OPERATION, r.id.as_bytes()).await?;
        if !is_next(r, stored.as_ref(), stored.as_ref().map(|stored| stored.version), expected)? {
            return Ok(());
        }
        if let Some(stored) = stored {
            if stored.state.is_terminal() {
                return Err(stale(r));
            }
            let same = OperationRow {
                state: r.state,
                document: r.document.clone(),
                changed: r.changed,
                ended: r.ended,
                version: r.version,
                ..stored
            };
            if same != *r {
                return Err(invalid(r, "what it is about never changes"));
            }
        }
        if r.state == OperationState::Running {
            let query = with_id("SELECT * FROM operations WHERE resource_id = ? AND state = 1", r.resource.as_bytes());
            let running: Vec<OperationRow> = self.find(query).await?;
            if let Some(other) = running.iter().find(|other| other.id != r.id) {
                return Err(CatalogError::Busy { resource: r.resource, operation: other.id });
            }
        }
        let query = sqlx::query(PUT_OPERATION)
            .bind(r.id.as_bytes().as_slice())
            .bind(&r.kind)
            .bind(r.resource.as_bytes().as_slice())
            .bind(&r.target)
            .bind(&r.subscription)
            .bind(key_of(&r.subscription))
            .bind(&r.location)
            .bind(i64::from(r.state.code()))
            .bind(&r.document)
            .bind(r.created.0)
            .bind(r.changed.0)
            .bind(r.ended.map(|time| time.0))
            .bind(signed(OperationRow::KIND, || r.label(), r.version)?)
            .bind(mac(self.mac_key, r));
        self.store(OperationRow::KIND, r.label(), query).await
    }

    pub(super) async fn forget_operations(&mut self, ended_before: UnixNanos) -> Result<(), CatalogError> {
        self.execute("forget operations", sqlx::query(FORGET_OPERATIONS).bind(ended_before.0)).await
    }
}

/// Refuses a row whose document is too large or whose version does not follow `expected`.
fn check<R: Authenticated>(row: &R, document: &str, version: u64, expected: Option<u64>) -> Result<(), CatalogError> {
    if document.len() > DOCUMENT_BYTES {
        return Err(invalid(row, "its document is larger than 256 KiB"));
    }
    if expected.unwrap_or(0).checked_add(1) != Some(version) {
        return Err(invalid(row, "its version is not the next one"));
    }
    Ok(())
}

/// Whether `row` comes next after what is stored; `false` when it is there already, because its answer was lost.
fn is_next<R: Authenticated + PartialEq>(
    row: &R,
    stored: Option<&R>,
    version: Option<u64>,
    expected: Option<u64>,
) -> Result<bool, CatalogError> {
    match stored {
        Some(stored) if stored == row => Ok(false),
        Some(_) if expected.is_none() => Err(CatalogError::Conflict { kind: R::KIND, id: row.label() }),
        _ if version == expected => Ok(true),
        _ => Err(stale(row)),
    }
}

pub(super) fn invalid<R: Authenticated>(row: &R, why: &'static str) -> CatalogError {
    CatalogError::Invalid { kind: R::KIND, id: row.label(), why }
}

fn stale<R: Authenticated>(row: &R) -> CatalogError {
    CatalogError::Stale { kind: R::KIND, id: row.label() }
}
