//! What has to be done from time to time: retention, the end of what was deleted, and the removal of what nobody needs any more.
//!
//! None of it needs a key, so it also goes on while a cluster's key is out of reach. Each part can be done again at any time.

use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::{CatalogError, Change, ResourceFilter, ResourceKind, ResourceRow, SegmentRow};
use logseal_core::{Chain, UnixNanos};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::audit::AuditTrail;
use crate::operation::kinds;
use crate::operation::runner::Operations;
use crate::request::{KEPT_NAMES, delete_found_workspace};
use crate::resource::workspace::WorkspaceDocument;

/// How often the work is looked for.
const PERIOD: Duration = Duration::from_secs(30);

/// Rows of a page and of a change.
const PAGE: u32 = 500;

const DAY: i64 = 86_400 * 1_000_000_000;

/// For how long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepSettings {
    /// Operations that have ended can be read for this long.
    pub operations: Duration,
    /// Objects stay this long after they have left the catalog: longer than any query runs.
    pub objects: Duration,
}

/// The task.
#[derive(Debug)]
pub struct Upkeep {
    /// The resources.
    pub operations: Arc<Operations>,
    /// The audit trail, whose anchor follows its end.
    pub audit: AuditTrail,
    /// For how long things are kept.
    pub settings: UpkeepSettings,
}

impl Upkeep {
    /// Works until the task is dropped.
    pub async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.once().await;
        }
    }

    /// Does what is due now. What fails is said and left for the next time.
    pub async fn once(&self) {
        self.audit.keep().await;
        report("operations cannot be forgotten now", self.forget_operations().await);
        report("names cannot be released now", self.release_names().await);
        report("deleted workspaces cannot be purged now", self.purge_workspaces().await);
        report("retention cannot be applied now", self.apply_retention().await);
        report("objects cannot be removed now", self.remove_garbage().await);
    }

    fn before(&self, age: i64) -> UnixNanos {
        UnixNanos(self.operations.world().clock.now().0.saturating_sub(age))
    }

    async fn forget_operations(&self) -> Result<(), CatalogError> {
        let ended_before = self.before(nanos(self.settings.operations));
        self.operations.world().catalog.apply(Change::ForgetOperations { ended_before }).await
    }

    /// The name of a cluster that was deleted long enough ago is free again.
    async fn release_names(&self) -> Result<(), CatalogError> {
        for row in self.deleted(ResourceKind::Cluster).await? {
            let change = Change::RemoveResource { id: row.id, expected: row.version };
            self.operations.world().catalog.apply(change).await?;
        }
        Ok(())
    }

    /// A workspace that was deleted long enough ago goes for good.
    async fn purge_workspaces(&self) -> Result<(), CatalogError> {
        for row in self.deleted(ResourceKind::Workspace).await? {
            if let Err(problem) = delete_found_workspace(&self.operations, &row, true, "retention").await {
                warn!(workspace = row.name, reason = problem.message(), "a deleted workspace cannot be purged now");
            }
        }
        Ok(())
    }

    async fn deleted(&self, kind: ResourceKind) -> Result<Vec<ResourceRow>, CatalogError> {
        let before = self.before(KEPT_NAMES);
        let mut rows = self.resources(kind, true).await?;
        rows.retain(|row| row.deleted.is_some_and(|deleted| deleted < before));
        Ok(rows)
    }

    async fn resources(&self, kind: ResourceKind, deleted: bool) -> Result<Vec<ResourceRow>, CatalogError> {
        let filter = ResourceFilter { kind, subscription: None, group: None, deleted };
        self.operations.world().catalog.resources(filter, None, u32::MAX).await
    }

    /// Segments that were received longer ago than their workspace keeps them leave the catalog, and later the store.
    async fn apply_retention(&self) -> Result<(), CatalogError> {
        for row in self.resources(ResourceKind::Workspace, false).await? {
            loop {
                let expired = expired(&self.operations, &row, PAGE).await?;
                if expired.is_empty() {
                    break;
                }
                let (segments, rows) = (expired.len(), expired.iter().map(|segment| segment.rows).sum::<u64>());
                let at = self.operations.world().clock.now();
                let segments_removed = expired.into_iter().map(|segment| segment.id).collect();
                let change = Change::RemoveSegments { segments: segments_removed, at };
                self.operations.world().catalog.apply(change).await?;
                info!(workspace = row.name, segments, rows, "retention has removed segments");
            }
        }
        Ok(())
    }

    /// Objects that have been out of the catalog for long enough are deleted: first the object, then its row.
    async fn remove_garbage(&self) -> Result<(), CatalogError> {
        let world = self.operations.world();
        let before = self.before(nanos(self.settings.objects));
        loop {
            let (mut removed, mut failed) = (Vec::new(), Vec::new());
            for garbage in world.catalog.garbage(before, PAGE).await? {
                match world.objects.delete(&garbage.path).await {
                    Ok(()) => removed.push(garbage.path),
                    Err(error) => failed.push((garbage.path, error)),
                }
            }
            let is_last = removed.is_empty() || !failed.is_empty();
            // One line for all: the store may be away.
            if let Some((path, error)) = failed.first() {
                warn!(objects = failed.len(), path, error, "objects cannot be deleted now");
            }
            world.catalog.apply(Change::ForgetGarbage { paths: removed }).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// At most `limit` segments of the workspace of `row` that retention removes next.
pub(crate) async fn expired(
    operations: &Operations,
    row: &ResourceRow,
    limit: u32,
) -> Result<Vec<SegmentRow>, CatalogError> {
    let world = operations.world();
    match kept_since(row, world.clock.now()) {
        Some(before) => world.catalog.expired_segments(row.id.workspace(), before, limit).await,
        None => Ok(Vec::new()),
    }
}

/// What the workspace of `row` received before this is not kept any more at `now`; `None` when it keeps everything.
pub(crate) fn kept_since(row: &ResourceRow, now: UnixNanos) -> Option<UnixNanos> {
    let days = kinds::document::<WorkspaceDocument>(row).ok()?.settings.retention_in_days?;
    Some(UnixNanos(now.0.saturating_sub(i64::from(days).saturating_mul(DAY))))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn report(what: &'static str, outcome: Result<(), CatalogError>) {
    if let Err(error) = outcome {
        warn!(error = %Chain(&error), "{what}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use logseal_catalog::{AuditHead, CoverageRow, SegmentCommit};
    use logseal_core::{Clock as _, SegmentId};
    use serde_json::json;

    use super::*;
    use crate::audit::{AnchorStore, Replacement};
    use crate::request;
    use crate::resource::Method;
    use crate::testing::{Deployment, caller, place};

    #[derive(Debug, Default)]
    struct Anchor(Mutex<Option<AuditHead>>);

    impl AnchorStore for Anchor {
        fn load(&self) -> std::io::Result<Option<AuditHead>> {
            Ok(self.0.lock().unwrap().clone())
        }

        fn store(&self, anchor: &AuditHead) -> std::io::Result<()> {
            *self.0.lock().unwrap() = Some(anchor.clone());
            Ok(())
        }
    }

    fn upkeep(deployment: &Deployment) -> Upkeep {
        let anchor = Arc::<Anchor>::default();
        let audit = AuditTrail::new(deployment.catalog.clone(), anchor, Arc::clone(&deployment.clock) as _);
        let settings = UpkeepSettings { operations: Duration::from_secs(86_400), objects: Duration::from_secs(600) };
        Upkeep { operations: Arc::clone(&deployment.operations), audit, settings }
    }

    async fn add_segment(deployment: &Deployment, number: u8) -> String {
        let workspace = deployment.catalog.workspaces().await.unwrap().remove(0);
        let table = deployment.catalog.schema(workspace.id).await.unwrap().tables.remove(0);
        let aek = deployment.catalog.aeks_of(workspace.id).await.unwrap().remove(0);
        let path = format!("clusters/c/workspaces/w/tables/t/{number}.parquet");
        let segment = SegmentRow {
            id: SegmentId::from_bytes([number; 16]),
            workspace: workspace.id,
            table: table.id,
            aek: aek.id,
            path: path.clone(),
            bytes: 1,
            rows: 10,
            min_time: UnixNanos(0),
            max_time: UnixNanos(0),
            created: deployment.clock.now(),
            wrapped_dek: vec![number],
            dek_commitment: vec![number],
        };
        let coverage: Vec<CoverageRow> = Vec::new();
        let commit = SegmentCommit { segment, table, columns: Vec::new(), coverage, attested: Vec::new() };
        deployment.catalog.apply(Change::CommitSegment(Box::new(commit))).await.unwrap();
        deployment.store.plant(&path);
        path
    }

    async fn segments(deployment: &Deployment) -> usize {
        let workspace = deployment.catalog.workspaces().await.unwrap().remove(0);
        deployment.catalog.snapshot(workspace.id).await.unwrap().segments.len()
    }

    /// Scenario: one segment is 31 days old and one 29, of a workspace that keeps 30. Guarantee: a dry run names the first; it leaves the
    /// catalog, and its object goes later than any query could still read it; the other one stays.
    #[tokio::test]
    async fn retention_removes_what_is_older_than_asked_for_rows_first() {
        let deployment = Deployment::new().await;
        let upkeep = upkeep(&deployment);
        let old = add_segment(&deployment, 1).await;
        deployment.clock.advance(Duration::from_secs(2 * 86_400));
        let young = add_segment(&deployment, 2).await;
        deployment.clock.advance(Duration::from_secs(29 * 86_400));
        let row = request::existing(&deployment.operations, ResourceKind::Workspace, place("default")).await.unwrap();
        let dry: Vec<_> = expired(&deployment.operations, &row, 10).await.unwrap();
        assert_eq!(dry.iter().map(|segment| segment.path.as_str()).collect::<Vec<_>>(), [old.as_str()]);
        assert_eq!(segments(&deployment).await, 2, "looking removes nothing");

        upkeep.once().await;
        assert_eq!(segments(&deployment).await, 1);
        assert!(deployment.store.paths().contains(&old), "a query may still read it");
        deployment.clock.advance(Duration::from_secs(601));
        upkeep.once().await;
        assert!(!deployment.store.paths().contains(&old) && deployment.store.paths().contains(&young));
    }

    /// Scenario: a cluster and a workspace are deleted; 14 days pass. Guarantee: until then the name is reserved and the workspace can come
    /// back; then the name is free and the workspace's keys are gone.
    #[tokio::test]
    async fn what_was_deleted_goes_for_good_after_a_fortnight() {
        let deployment = Deployment::new().await;
        let upkeep = upkeep(&deployment);
        let operations = &deployment.operations;
        let body = json!({"location": "x"});
        let caller = caller();
        let made = request::write_cluster(operations, place("another"), &body, Method::Put, &caller).await.unwrap();
        deployment.succeed(&made).await;
        let gone = request::delete_cluster(operations, place("another"), false, &caller).await.unwrap().unwrap();
        deployment.succeed(&gone).await;
        let gone = request::delete_workspace(operations, place("default"), false, &caller).await.unwrap().unwrap();
        deployment.succeed(&gone).await;

        deployment.clock.advance(Duration::from_secs(13 * 86_400));
        upkeep.once().await;
        assert_eq!(deployment.catalog.aeks().await.unwrap().len(), 1, "it can be recovered");
        let refused = request::write_cluster(operations, place("another"), &body, Method::Put, &caller).await;
        assert_eq!(refused.unwrap_err().code(), "NameReserved");

        deployment.clock.advance(Duration::from_secs(86_401));
        upkeep.once().await;
        for running in deployment.catalog.running_operations().await.unwrap() {
            deployment.end(running.id).await;
        }
        assert!(deployment.catalog.aeks().await.unwrap().is_empty(), "its keys are shredded");
        let made = request::write_cluster(operations, place("another"), &body, Method::Put, &caller).await.unwrap();
        deployment.succeed(&made).await;
    }

    /// Scenario: the catalog is put back to a state from before the last changes, its audit trail with it. Guarantee: the next start
    /// notices by the anchor, and says so in the trail.
    #[tokio::test]
    async fn an_audit_trail_that_was_put_back_is_noticed() {
        let deployment = Deployment::new().await;
        let anchor = Arc::<Anchor>::default();
        let trail =
            AuditTrail::new(deployment.catalog.clone(), Arc::clone(&anchor) as _, Arc::clone(&deployment.clock) as _);
        let gone = request::delete_workspace(&deployment.operations, place("default"), false, &caller()).await;
        deployment.succeed(&gone.unwrap().unwrap()).await;
        trail.keep().await;
        trail.begin().await.unwrap();
        assert_eq!(trail.verify().await.unwrap()["faults"], json!([]));
        let records = trail.page(None, 10).await.unwrap();
        assert_eq!(records.len(), 2, "accepted and succeeded: {records:?}");
        assert_eq!(records[0]["action"], "Microsoft.OperationalInsights/workspaces/delete");
        assert!(records[0]["before"]["kek"].is_string() && records[1]["outcome"] == "Accepted", "{records:?}");

        let later = AuditHead { sequence: 7, mac: vec![7; 32] };
        anchor.store(&later).unwrap();
        trail.keep().await;
        assert_eq!(anchor.load().unwrap(), Some(later), "a trail that lacks the anchor does not move it");
        assert_ne!(trail.verify().await.unwrap()["faults"], json!([]));
        trail.begin().await.unwrap();
        let newest = trail.page(None, 1).await.unwrap().remove(0);
        assert_eq!((&newest["action"], &newest["before"]["sequence"]), (&json!(crate::audit::ROLLBACK), &json!(7)));
        trail.keep().await;
        let faults = trail.verify().await.unwrap()["faults"].clone();
        assert!(faults.as_array().unwrap().len() == 1 && faults[0].as_str().unwrap().contains("put back"), "{faults}");
    }

    /// Scenario: a catalog without the records of the anchor takes the place of another one, and says so; it is opened and goes on; then the anchor is
    /// of a trail that it says nothing of. Guarantee: it takes the anchor over, shows no fault, and tells of it for ever; of the other anchor it is a
    /// trail that was put back.
    #[tokio::test]
    async fn a_replaced_catalog_says_which_trail_was_there_before() {
        let deployment = Deployment::new().await;
        let anchor = Arc::<Anchor>::default();
        let trail =
            AuditTrail::new(deployment.catalog.clone(), Arc::clone(&anchor) as _, Arc::clone(&deployment.clock) as _);
        let lost = AuditHead { sequence: 7, mac: vec![7; 32] };
        anchor.store(&lost).unwrap();
        assert_eq!(trail.replace(Replacement::Rebuilt).await.unwrap(), 1);
        assert_eq!(anchor.load().unwrap(), Some(lost), "the other catalog may still stay");
        trail.begin().await.unwrap();
        assert_eq!(anchor.load().unwrap().unwrap().sequence, 1, "no record of a rollback");
        let gone = request::delete_workspace(&deployment.operations, place("default"), false, &caller()).await;
        deployment.succeed(&gone.unwrap().unwrap()).await;
        trail.keep().await;
        trail.begin().await.unwrap();
        let verified = trail.verify().await.unwrap();
        assert_eq!((&verified["faults"], &verified["records"]), (&json!([]), &json!(3)), "{verified}");
        let notices = verified["notices"].as_array().unwrap();
        let text = notices[0].as_str().unwrap();
        assert!(notices.len() == 1 && text.starts_with("record 1 says that the catalog was made anew"), "{text}");
        assert!(text.ends_with("had a record 7, this one begins here"), "{text}");

        anchor.store(&AuditHead { sequence: 7, mac: vec![8; 32] }).unwrap();
        trail.begin().await.unwrap();
        let faults = trail.verify().await.unwrap()["faults"].clone();
        assert!(faults.as_array().unwrap().len() == 1 && faults[0].as_str().unwrap().contains("put back"), "{faults}");
    }
}
