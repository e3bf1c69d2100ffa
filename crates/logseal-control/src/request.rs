//! What a request to change a resource becomes: an operation, a change at once, or a refusal.

mod duties;
mod links;
mod regenerate_keys;
mod rotate_key;

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use logseal_catalog::{Change, OperationFilter, OperationState, ResourceFilter, ResourceKind, ResourceRow};
use logseal_core::{AekId, ClusterId, ResourceId, TableId, UnixNanos, WorkspaceId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Problem;
use crate::gate::{Principal, Role};
use crate::json::Object;
use crate::key_check;
use crate::operation::document::{
    CreateCluster, CreateWorkspace, DeleteCluster, DeleteWorkspace, PurgeWorkspace, RecoverWorkspace, UpdateCluster,
    WRITE_WORKSPACE,
};
use crate::operation::runner::{Operations, Submission};
use crate::operation::{Intent, Operation, kinds};
use crate::resource::cluster::{ClusterChange, ClusterDocument};
use crate::resource::identity::{Identity, WantedIdentity};
use crate::resource::key::{KeyReference, WantedKey};
use crate::resource::view::{date, etag, path};
use crate::resource::workspace::{WorkspaceDocument, WorkspaceSettings};
use crate::resource::{Method, ProvisioningState, name};
use crate::settings;

pub(crate) use self::links::{link, unlink};
use self::links::{owner_of, refuse_suspended};
pub(crate) use self::regenerate_keys::regenerate_keys;
pub(crate) use self::rotate_key::{rotate_key, rotate_key_of};

/// Most clusters of a deployment: each has a thread and a log of its own.
const CLUSTERS: u32 = 100;

/// Most workspaces of a deployment, which all are in memory.
const WORKSPACES: u32 = 10_000;

/// How long the name of a deleted cluster is reserved, and a deleted workspace can be recovered.
pub(crate) const KEPT_NAMES: i64 = 14 * 86_400 * 1_000_000_000;

/// Where a resource is, by the path of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'r> {
    pub(crate) subscription: &'r str,
    pub(crate) group: &'r str,
    pub(crate) name: &'r str,
}

/// Who asks, and on which conditions (RFC 9110, section 13.1).
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) actor: String,
    /// `None` for who has all rights.
    role: Option<Role>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

/// What became of a PUT or PATCH of a workspace.
#[derive(Debug)]
pub(crate) enum Written {
    Started { operation: Box<Operation>, is_new: bool },
    Changed(ResourceRow),
}

impl Caller {
    pub(crate) fn new(principal: &Principal, headers: &HeaderMap) -> Self {
        let text =
            |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::to_owned);
        let (actor, role) = (principal.actor.clone(), principal.role());
        Self { actor, role, if_match: text(header::IF_MATCH), if_none_match: text(header::IF_NONE_MATCH) }
    }

    /// `actor`, who has all rights, whatever state the resource is in.
    pub(crate) fn unconditional(actor: &str) -> Self {
        Self { actor: actor.to_owned(), role: None, if_match: None, if_none_match: None }
    }

    fn admit(&self, current: Option<&ResourceRow>) -> Result<(), Problem> {
        let lists = |given: &str, row: &ResourceRow| {
            given.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag(row))
        };
        let matches = self.if_match.as_deref().is_none_or(|given| current.is_some_and(|row| lists(given, row)));
        let differs = self.if_none_match.as_deref().is_none_or(|given| current.is_none_or(|row| !lists(given, row)));
        if matches && differs {
            return Ok(());
        }
        let message = match current {
            Some(row) => format!("the resource's entity tag is {}: read it again and decide anew", etag(row)),
            None => "the resource does not exist".to_owned(),
        };
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message))
    }
}

/// The resource at `place`, also a deleted one.
pub(crate) async fn find(
    operations: &Operations,
    kind: ResourceKind,
    place: Place<'_>,
) -> Result<Option<ResourceRow>, Problem> {
    let Place { subscription, group, name } = place;
    Ok(operations.world().catalog.resource(kind, subscription, group, name).await?)
}

/// The resource at `place`, which is there.
pub(crate) async fn existing(
    operations: &Operations,
    kind: ResourceKind,
    place: Place<'_>,
) -> Result<ResourceRow, Problem> {
    let row = find(operations, kind, place).await?.filter(|row| row.deleted.is_none());
    let word = match kind {
        ResourceKind::Cluster => "cluster",
        ResourceKind::Workspace => "workspace",
    };
    row.ok_or_else(|| {
        Problem::not_found(format!("there is no {word} `{}` in resource group `{}`", place.name, place.group))
    })
}

/// PUT or PATCH of a cluster.
pub(crate) async fn write_cluster(
    operations: &Arc<Operations>,
    place: Place<'_>,
    body: &Value,
    method: Method,
    caller: &Caller,
) -> Result<Operation, Problem> {
    let now = operations.world().clock.now();
    let found = find(operations, ResourceKind::Cluster, place).await?;
    if let Some(reserved) = found.as_ref().and_then(|row| row.deleted) {
        let until = date(UnixNanos(reserved.0.saturating_add(KEPT_NAMES)));
        let message =
            format!("a cluster of this name was deleted; the name is reserved until {until}: take another one");
        return Err(if method == Method::Put {
            Problem::conflict("NameReserved", message)
        } else {
            Problem::not_found(message)
        });
    }
    caller.admit(found.as_ref())?;
    match found {
        Some(row) => {
            let mut document: ClusterDocument = kinds::document(&row)?;
            let change = ClusterChange::input(body, Some(&document), &path(&row), method, now.0)?;
            caller.admit_to_change(&change, Some(&document))?;
            if document.provisioning_state == ProvisioningState::Deleting {
                return Err(Problem::conflict("ClusterDeleting", "the cluster is being deleted"));
            }
            document.provisioning_state = ProvisioningState::Updating;
            let new_principal = || operations.world().ids.next().to_string();
            let find = |id: &str| operations.world().vaults.user_assigned(id);
            let identity = change.identity.map(|wanted| Identity::wanted(wanted, new_principal(), find)).transpose()?;
            let ClusterChange { settings, key, default_identity, .. } = change;
            let (key, to_service_key) = match key {
                Some(WantedKey::ServiceManaged) if !operations.world().vaults.may_return_to_service_key() => {
                    return Err(KeyReference::one_way());
                }
                Some(WantedKey::ServiceManaged) => (None, true),
                Some(WantedKey::Customers(key)) => (Some(key), false),
                None => (None, false),
            };
            let resolved = None;
            let update = UpdateCluster { settings, key, resolved, identity, default_identity, to_service_key };
            let intent = Intent::UpdateCluster(update);
            let location = document.settings.location.clone();
            operations.start(submission(&row, &document, intent, &location, caller, now)).await
        }
        None if method == Method::Patch => Err(existing(operations, ResourceKind::Cluster, place)
            .await
            .err()
            .unwrap_or_else(|| Problem::conflict("Conflict", "the cluster was made meanwhile: try again"))),
        None => {
            name::resource("cluster", place.name, "InvalidClusterName")?;
            limit(operations, ResourceKind::Cluster, CLUSTERS).await?;
            let row = new_resource(operations, ResourceKind::Cluster, place, now);
            let change = ClusterChange::input(body, None, &path(&row), method, now.0)?;
            caller.admit_to_change(&change, None)?;
            let wanted = change.identity.unwrap_or(WantedIdentity::SystemAssigned);
            let find = |id: &str| operations.world().vaults.user_assigned(id);
            let identity = Identity::wanted(wanted, operations.world().ids.next().to_string(), find)?;
            let key = match change.key {
                Some(WantedKey::Customers(key)) => Some(key),
                // It is what a new cluster has.
                Some(WantedKey::ServiceManaged) | None => None,
            };
            let document = ClusterDocument {
                provisioning_state: ProvisioningState::Creating,
                settings: change.settings.clone(),
                identity: identity.clone(),
                default_identity: change.default_identity.clone(),
                key: None,
                key_since: now.0,
            };
            let intent = Intent::CreateCluster(CreateCluster {
                settings: change.settings,
                identity,
                default_identity: change.default_identity,
                key,
                resolved: None,
            });
            let location = document.settings.location.clone();
            operations.start(first_submission(row, &document, intent, &location, caller)).await
        }
    }
}

/// DELETE of a cluster; `None` when it is not there.
pub(crate) async fn delete_cluster(
    operations: &Arc<Operations>,
    place: Place<'_>,
    force: bool,
    caller: &Caller,
) -> Result<Option<Operation>, Problem> {
    let found = find(operations, ResourceKind::Cluster, place).await?.filter(|row| row.deleted.is_none());
    caller.admit(found.as_ref())?;
    let Some(row) = found else { return Ok(None) };
    let mut document: ClusterDocument = kinds::document(&row)?;
    if let Some(why) = operations.world().keyring.suspension(row.id.cluster())
        && !operations.world().catalog.workspaces_of(row.id.cluster()).await?.is_empty()
    {
        let message = format!(
            "{why}; until then its workspaces cannot be unlinked: mend the key, or delete the workspaces with `force=true` before the cluster"
        );
        return Err(Problem::new(Problem::suspended(&why).status(), why.cause.fault.code(), message));
    }
    if !force {
        kinds::refuse_live_data(operations.world(), row.id.cluster()).await?;
    }
    document.provisioning_state = ProvisioningState::Deleting;
    let intent = Intent::DeleteCluster(DeleteCluster { force });
    let location = document.settings.location.clone();
    let now = operations.world().clock.now();
    operations.start(submission(&row, &document, intent, &location, caller, now)).await.map(Some)
}

/// PUT or PATCH of a workspace.
pub(crate) async fn write_workspace(
    operations: &Arc<Operations>,
    place: Place<'_>,
    body: &Value,
    method: Method,
    caller: &Caller,
) -> Result<Written, Problem> {
    let world = operations.world();
    let now = world.clock.now();
    let found = find(operations, ResourceKind::Workspace, place).await?;
    caller.admit(found.as_ref().filter(|row| row.deleted.is_none()))?;
    let Some(row) = found else {
        if method == Method::Patch {
            return Err(Problem::not_found(format!("there is no workspace `{}` to change", place.name)));
        }
        name::resource("workspace", place.name, "InvalidWorkspaceName")?;
        limit(operations, ResourceKind::Workspace, WORKSPACES).await?;
        let row = new_resource(operations, ResourceKind::Workspace, place, now);
        let settings = WorkspaceSettings::input(body, None, &path(&row), method, now.0)?;
        let intent = Intent::CreateWorkspace(CreateWorkspace {
            settings: settings.clone(),
            aek: AekId::from(world.ids.next()),
            table: TableId::from(world.ids.next()),
        });
        let location = settings.location.clone();
        let document = WorkspaceDocument { provisioning_state: ProvisioningState::Creating, settings, link: None };
        let operation = operations.start(first_submission(row, &document, intent, &location, caller)).await?;
        return Ok(Written::Started { operation: Box::new(operation), is_new: true });
    };
    let mut document: WorkspaceDocument = kinds::document(&row)?;
    if let Some(deleted) = row.deleted {
        if method == Method::Patch {
            return Err(Problem::not_found(format!("workspace `{}` is deleted; a PUT recovers it", place.name)));
        }
        let settings = WorkspaceSettings::input(body, Some(&document), &path(&row), method, now.0)?;
        check_keys(operations, &row, (&document.settings, &settings), body, caller).await?;
        refuse_suspended(operations, &[owner_of(operations, &row).await?])?;
        document.provisioning_state = ProvisioningState::Creating;
        let location = document.settings.location.clone();
        let intent = Intent::RecoverWorkspace(RecoverWorkspace { settings, deleted: deleted.0 });
        let mut recovered = submission(&row, &document, intent, &location, caller, now);
        recovered.resource.deleted = None;
        let operation = Box::new(operations.start(recovered).await?);
        return Ok(Written::Started { operation, is_new: true });
    }
    let settings = WorkspaceSettings::input(body, Some(&document), &path(&row), method, now.0)?;
    refuse_busy(operations, &row).await?;
    if settings == document.settings {
        // Not in vain when the answer to the change before was lost.
        settings::tell(world, row.id.workspace(), &settings, row.version);
        return Ok(Written::Changed(row));
    }
    check_keys(operations, &row, (&document.settings, &settings), body, caller).await?;
    let access = (document.settings.access, settings.access);
    // What else changes is no matter of keys.
    let [before, after] = [access.0, access.1]
        .map(|features| if access.0 == access.1 { Value::Null } else { json!({"features": features}) });
    document.settings = settings;
    let next = changed(&row, &document, now);
    let audit = logseal_catalog::AuditEntry {
        at: now,
        actor: caller.actor.clone(),
        action: WRITE_WORKSPACE.to_owned(),
        resource: path(&row),
        operation: None,
        outcome: "Succeeded".to_owned(),
        before: before.to_string(),
        after: after.to_string(),
    };
    let put = Change::PutResource { row: next.clone(), expected: Some(row.version) };
    world.catalog.apply(Change::All(vec![put, Change::Audit(audit)])).await?;
    settings::tell(world, next.id.workspace(), &document.settings, next.version);
    Ok(Written::Changed(next))
}

/// Refuses settings that turn keys off which are in use, where that is asked for.
async fn check_keys(
    operations: &Operations,
    row: &ResourceRow,
    (now, next): (&WorkspaceSettings, &WorkspaceSettings),
    body: &Value,
    caller: &Caller,
) -> Result<(), Problem> {
    if key_check::skips(&mut Object::root(body)?)? {
        return Ok(());
    }
    let world = operations.world();
    let refused = key_check::refuse_recent_off(world, row, now.access, next.access);
    if let Err(problem) = &refused {
        key_check::record(world, row, &caller.actor, WRITE_WORKSPACE, problem).await;
    }
    refused
}

/// DELETE of a workspace; `None` when it is not there. With `force` also one that was deleted before.
pub(crate) async fn delete_workspace(
    operations: &Arc<Operations>,
    place: Place<'_>,
    force: bool,
    caller: &Caller,
) -> Result<Option<Operation>, Problem> {
    let found = find(operations, ResourceKind::Workspace, place).await?;
    let found = found.filter(|row| force || row.deleted.is_none());
    caller.admit(found.as_ref())?;
    let Some(row) = found else { return Ok(None) };
    delete_found_workspace(operations, &row, force, &caller.actor).await.map(Some)
}

/// Deletes the workspace of `row`; with `force` for good.
pub(crate) async fn delete_found_workspace(
    operations: &Arc<Operations>,
    row: &ResourceRow,
    force: bool,
    actor: &str,
) -> Result<Operation, Problem> {
    let mut document: WorkspaceDocument = kinds::document(row)?;
    document.provisioning_state = ProvisioningState::Deleting;
    let intent =
        if force { Intent::PurgeWorkspace(PurgeWorkspace {}) } else { Intent::DeleteWorkspace(DeleteWorkspace {}) };
    let location = document.settings.location.clone();
    let caller = Caller::unconditional(actor);
    let now = operations.world().clock.now();
    operations.start(submission(row, &document, intent, &location, &caller, now)).await
}

/// Refuses while an operation changes the resource.
async fn refuse_busy(operations: &Operations, row: &ResourceRow) -> Result<(), Problem> {
    let state = Some(OperationState::Running);
    let filter = OperationFilter { subscription: None, resource: Some(row.id), state };
    match operations.list(filter, None, 1).await?.first() {
        None => Ok(()),
        Some(running) => Err(Problem::conflict(
            "OperationInProgress",
            format!("operation `{}` changes this resource: wait for it to end and try again", running.row.id),
        )),
    }
}

async fn limit(operations: &Operations, kind: ResourceKind, limit: u32) -> Result<(), Problem> {
    let filter = ResourceFilter { kind, subscription: None, group: None, deleted: false };
    if operations.world().catalog.resources(filter, None, limit).await?.len() < limit as usize {
        return Ok(());
    }
    Err(Problem::conflict(
        "ResourceLimitReached",
        format!("a deployment has at most {limit} of them: delete one first"),
    ))
}

fn new_resource(operations: &Operations, kind: ResourceKind, place: Place<'_>, now: UnixNanos) -> ResourceRow {
    let id = operations.world().ids.next();
    let id = match kind {
        ResourceKind::Cluster => ResourceId::from(ClusterId::from(id)),
        ResourceKind::Workspace => ResourceId::from(WorkspaceId::from(id)),
    };
    ResourceRow {
        id,
        kind,
        subscription: place.subscription.to_owned(),
        group: place.group.to_owned(),
        name: place.name.to_owned(),
        document: String::new(),
        version: 0,
        created: now,
        changed: now,
        deleted: None,
    }
}

fn changed<D: Serialize>(row: &ResourceRow, document: &D, now: UnixNanos) -> ResourceRow {
    let document = serde_json::to_string(document).expect("a document has string keys only");
    ResourceRow { document, version: row.version + 1, changed: now, ..row.clone() }
}

pub(crate) fn submission<D: Serialize>(
    row: &ResourceRow,
    document: &D,
    intent: Intent,
    location: &str,
    caller: &Caller,
    now: UnixNanos,
) -> Submission {
    Submission {
        intent,
        resource: changed(row, document, now),
        expected: Some(row.version),
        target: path(row),
        location: location.to_owned(),
        actor: caller.actor.clone(),
    }
}

fn first_submission<D: Serialize>(
    row: ResourceRow,
    document: &D,
    intent: Intent,
    location: &str,
    caller: &Caller,
) -> Submission {
    let now = row.created;
    Submission { expected: None, ..submission(&row, document, intent, location, caller, now) }
}
