//! Account keys that are replaced because of their age, or because of how much they have sealed.
//!
//! Replacing is the same operation that a request begins. One that failed is tried again after a while.

use std::time::Duration;

use logseal_catalog::{AekRow, OperationFilter, OperationState};
use logseal_core::{Chain, ResourceId, UnixNanos};
use logseal_keys::account_keys::newest;
use logseal_keys::{AccountKeyGauges, WRAPS_LIMIT};
use tracing::{info, warn};

use super::{ACTOR, RotationCoordinator};
use crate::Problem;
use crate::operation::{Intent, Operation};
use crate::request::{self, Caller};

/// Operations that are begun at one look: more may be due, after a year of many workspaces that were made on one day.
const AT_ONCE: usize = 100;

/// After an operation that failed, the next one is begun this much later.
const RETRY: Duration = Duration::from_secs(3_600);

/// Why a key is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Due {
    Age,
    Wraps,
}

/// The rule.
fn due(created: UnixNanos, wraps: u64, now: UnixNanos, max_age: Option<Duration>) -> Option<Due> {
    if wraps >= WRAPS_LIMIT {
        return Some(Due::Wraps);
    }
    let age = u128::try_from(now.0.saturating_sub(created.0)).unwrap_or(0);
    max_age.is_some_and(|max_age| age >= max_age.as_nanos()).then_some(Due::Age)
}

impl RotationCoordinator {
    /// Shows what account keys there are, and begins to replace those that are due. What fails is tried again at the next look.
    pub(super) async fn look_at_account_keys(&self, gauges: &AccountKeyGauges) -> Result<Vec<Operation>, String> {
        let world = self.operations.world();
        let unread = |error: &dyn std::error::Error| Chain(error).to_string();
        let clusters = world.catalog.clusters().await.map_err(|error| unread(&error))?;
        let wraps = world.keyring.wraps().await.map_err(|error| unread(&error))?;
        let (mut keys, mut workspaces) = (Vec::new(), Vec::new());
        for cluster in &clusters {
            let (of, linked) =
                tokio::join!(world.catalog.aeks_of_cluster(cluster.id), world.catalog.workspaces_of(cluster.id));
            match of.and_then(|of| Ok((of, linked?))) {
                Ok((of, linked)) => {
                    keys.extend(of);
                    workspaces.extend(linked);
                }
                Err(error) => {
                    warn!(cluster = cluster.name, error = %Chain(&error), "account keys of a cluster cannot be looked at now");
                }
            }
        }
        gauges.show(&clusters, &keys, &workspaces, &wraps);
        let now = world.clock.now();
        let mut begun = Vec::new();
        for key in newest(&keys, &workspaces).into_values() {
            let Some(due) = due(key.created, wraps.of(key.id), now, self.aek_max_age) else { continue };
            match self.replace(key, due, now).await {
                Ok(operation) => begun.extend(operation),
                // Something else changes the workspace: the next look comes soon enough.
                Err(problem) if problem.code() == "OperationInProgress" || problem.code() == "Conflict" => {}
                Err(problem) => {
                    warn!(workspace = %key.workspace, why = problem.message(), "an account key that is due cannot be replaced now");
                }
            }
            if begun.len() == AT_ONCE {
                break;
            }
        }
        Ok(begun)
    }

    /// Begins to replace `key`; `None` when its workspace has to wait.
    async fn replace(&self, key: &AekRow, due: Due, now: UnixNanos) -> Result<Option<Operation>, Problem> {
        let world = self.operations.world();
        let id = ResourceId::from(key.workspace);
        let row = world.catalog.resource_by_id(id).await?.filter(|row| row.deleted.is_none());
        let Some(row) = row.filter(|_| world.keyring.suspension(key.cluster).is_none()) else { return Ok(None) };
        let filter = OperationFilter { resource: Some(id), ..OperationFilter::default() };
        let last = self.operations.list(filter, None, 1).await?;
        if last.first().is_some_and(|last| failed_lately(last, now)) {
            return Ok(None);
        }
        info!(workspace = row.name, aek = %key.id, generation = key.generation, ?due, "an account key is due to be replaced");
        request::rotate_key_of(&self.operations, &row, &Caller::unconditional(ACTOR)).await.map(Some)
    }
}

fn failed_lately(last: &Operation, now: UnixNanos) -> bool {
    let since = |ended: UnixNanos| u128::try_from(now.0.saturating_sub(ended.0)).unwrap_or(0);
    matches!(last.document.intent, Intent::RotateKey(_))
        && last.row.state == OperationState::Failed
        && last.row.ended.is_some_and(|ended| since(ended) < RETRY.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logseal_catalog::{AekWrapsRow, Change, ResourceKind};
    use logseal_keys::availability::Cause;
    use logseal_keys::{KeyFault, Suspension};

    use super::*;
    use crate::operation::document::RotateKey;
    use crate::testing::{Deployment, caller, place};

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_key_is_due_by_its_age_or_by_its_wraps() {
        let day = |n: i64| UnixNanos(n * 86_400 * 1_000_000_000);
        let cases = [
            (WRAPS_LIMIT - 1, 89, Some(90 * DAY), None),
            (0, 90, Some(90 * DAY), Some(Due::Age)),
            (0, 9_000, None, None),
            (WRAPS_LIMIT, 0, None, Some(Due::Wraps)),
            (WRAPS_LIMIT, 90, Some(90 * DAY), Some(Due::Wraps)),
            // The clock was put back.
            (0, -3, Some(90 * DAY), None),
        ];
        for (wraps, days, max_age, expected) in cases {
            assert_eq!(due(day(0), wraps, day(days), max_age), expected, "{wraps} wraps, {days} days, {max_age:?}");
        }
    }

    async fn look(deployment: &Deployment, max_age: Option<Duration>) -> Vec<Operation> {
        let operations = Arc::clone(&deployment.operations);
        let coordinator = RotationCoordinator { operations, period: DAY, aek_max_age: max_age };
        let begun = coordinator.look_at_account_keys(&AccountKeyGauges::default()).await.unwrap();
        for operation in &begun {
            deployment.end(operation.row.id).await;
        }
        begun
    }

    async fn generations(deployment: &Deployment) -> Vec<u32> {
        let workspace = deployment.catalog.workspaces().await.unwrap().remove(0).id;
        deployment.catalog.aeks_of(workspace).await.unwrap().iter().map(|key| key.generation).collect()
    }

    /// Scenario: a key is 90 days old; it is looked at with an age of 90 days, again at once, and later without an age. Guarantee: it is
    /// replaced once, by the coordinator, and the new one not before it is as old; without an age never.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_old_key_is_replaced_once() {
        let deployment = Deployment::new().await;
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 0);
        deployment.clock.advance(90 * DAY);
        assert_eq!(look(&deployment, None).await.len(), 0);
        let begun = look(&deployment, Some(90 * DAY)).await;
        assert_eq!((begun.len(), begun[0].document.actor.as_str()), (1, ACTOR));
        assert_eq!(generations(&deployment).await, [1, 2]);
        deployment.clock.advance(89 * DAY);
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 0);
        deployment.clock.advance(DAY);
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 1);
        assert_eq!(generations(&deployment).await, [1, 2, 3]);
    }

    /// Scenario: a key has sealed 2^31 times less one, and then once more. Guarantee: it is replaced, whatever its age, and its successor counts
    /// from the beginning.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_that_sealed_too_much_is_replaced() {
        let deployment = Deployment::new().await;
        let key = deployment.catalog.aeks().await.unwrap().remove(0).id;
        for (wraps, expected) in [(WRAPS_LIMIT - 1, 0), (WRAPS_LIMIT, 1)] {
            deployment.catalog.apply(Change::ReserveAekWraps(AekWrapsRow { aek: key, wraps })).await.unwrap();
            assert_eq!(look(&deployment, None).await.len(), expected, "{wraps}");
        }
        let keys = deployment.catalog.aeks().await.unwrap();
        let wraps = deployment.operations.world().keyring.wraps().await.unwrap();
        let counts: Vec<_> = keys.iter().map(|key| (key.generation, wraps.of(key.id))).collect();
        assert_eq!(counts, [(1, WRAPS_LIMIT), (2, 0)]);
    }

    /// Scenario: keys are due of a workspace whose cluster is suspended, then of one that is deleted. Guarantee: nothing is begun, until the
    /// cluster serves and the workspace is back.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_replaced_now_waits() {
        let deployment = Deployment::new().await;
        deployment.clock.advance(90 * DAY);
        let keyring = &deployment.operations.world().keyring;
        let workspace = deployment.catalog.workspaces().await.unwrap().remove(0);
        let cause = Cause { fault: KeyFault::KeyDisabled, definitive: true };
        let (cluster, name) = (workspace.cluster, workspace.name.as_str().into());
        keyring.suspend(Arc::new(Suspension { cluster, name, cause }));
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 0);
        let body = serde_json::json!({});
        let refused = request::rotate_key(&deployment.operations, place("default"), &body, &caller()).await;
        assert_eq!(refused.unwrap_err().code(), KeyFault::KeyDisabled.code());
        assert_eq!(generations(&deployment).await, [1]);
        keyring.forget_cluster(cluster);

        let gone = request::delete_workspace(&deployment.operations, place("default"), false, &caller()).await;
        deployment.succeed(&gone.unwrap().unwrap()).await;
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 0);
        let row = request::find(&deployment.operations, ResourceKind::Workspace, place("default")).await.unwrap();
        assert!(row.is_some_and(|row| row.deleted.is_some()));
        let body = serde_json::json!({"location": "local"});
        let put = crate::resource::Method::Put;
        let back = request::write_workspace(&deployment.operations, place("default"), &body, put, &caller()).await;
        let request::Written::Started { operation, .. } = back.unwrap() else { panic!("it comes back") };
        deployment.succeed(&operation).await;
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 1);
    }

    /// Scenario: replacing a key fails since the KEK is disabled, which its monitor has not noticed; an hour passes; the KEK is enabled.
    /// Guarantee: the failure is not repeated at each look, and an hour later it is tried again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_replacement_that_failed_is_tried_again_later() {
        let deployment = Deployment::new().await;
        deployment.clock.advance(90 * DAY);
        let service = deployment.operations.world().vaults.service_key();
        deployment.vault.set_enabled(&service.name, &service.version, false).unwrap();
        let failed = look(&deployment, Some(90 * DAY)).await;
        let ended = deployment.end(failed[0].row.id).await;
        assert_eq!(ended.row.state, OperationState::Failed);
        assert!(matches!(ended.document.intent, Intent::RotateKey(RotateKey { .. })));
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 0);
        deployment.vault.set_enabled(&service.name, &service.version, true).unwrap();
        deployment.clock.advance(RETRY);
        assert_eq!(look(&deployment, Some(90 * DAY)).await.len(), 1);
        assert_eq!(generations(&deployment).await, [1, 2]);
        assert_eq!(deployment.state().await["running"], 0, "and each key has one copy");
    }
}
