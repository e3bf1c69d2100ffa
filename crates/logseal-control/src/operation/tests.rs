//! Every kind of operation, broken off, repeated and failed at each of its steps.

mod access_keys;
mod vault;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::runner::Operations;
use super::world::{Fault, Faults, NoFaults, Point};
use super::*;
use crate::request::{self, Written};
use crate::resource::Method;
use crate::testing::{Deployment, VAULT, caller, place};

/// One fault, once.
#[derive(Debug)]
struct Once {
    kind: Option<&'static str>,
    step: &'static str,
    point: Point,
    fault: Fault,
    fired: AtomicBool,
}

impl Once {
    fn new(step: &'static str, point: Point, fault: Fault) -> Arc<Self> {
        Arc::new(Self { kind: None, step, point, fault, fired: AtomicBool::new(false) })
    }

    /// Only in an operation of this kind: one may begin others.
    fn of(kind: &'static str, step: &'static str, point: Point, fault: Fault) -> Arc<Self> {
        Arc::new(Self { kind: Some(kind), step, point, fault, fired: AtomicBool::new(false) })
    }
}

impl Faults for Once {
    fn at(&self, kind: &str, step: &str, point: Point) -> Option<Fault> {
        let here = step == self.step && point == self.point && self.kind.is_none_or(|wanted| wanted == kind);
        (here && !self.fired.swap(true, Ordering::SeqCst)).then(|| self.fault.clone())
    }
}

/// The log of a cluster panics, once.
#[derive(Debug)]
struct PanicOnce(AtomicBool);

impl Faults for PanicOnce {
    fn at(&self, _: &str, step: &str, point: Point) -> Option<Fault> {
        let here = step == "open-log" && point == Point::Before;
        assert!(!here || self.0.swap(true, Ordering::SeqCst), "planted");
        None
    }
}

/// What is done to a deployment that has a key `kek` in its vault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    CreateCluster,
    CreateClusterWithKey,
    UpdateCluster,
    DeleteCluster,
    CreateWorkspace,
    Link,
    Unlink,
    DeleteWorkspace,
    RecoverWorkspace,
    PurgeWorkspace,
    RotateKey,
    RegenerateKeys,
}

const ALL: [Change; 12] = [
    Change::CreateCluster,
    Change::CreateClusterWithKey,
    Change::UpdateCluster,
    Change::DeleteCluster,
    Change::CreateWorkspace,
    Change::Link,
    Change::Unlink,
    Change::DeleteWorkspace,
    Change::RecoverWorkspace,
    Change::PurgeWorkspace,
    Change::RotateKey,
    Change::RegenerateKeys,
];

fn cluster_body() -> Value {
    json!({"location": "x", "tags": {"probe": "1"}, "identity": {"type": "SystemAssigned"},
        "sku": {"name": "CapacityReservation", "capacity": 500}})
}

fn key() -> Value {
    json!({"properties": {"keyVaultProperties": {"keyVaultUri": VAULT, "keyName": "kek", "keyVersion": ""}}})
}

async fn put_workspace(operations: &Arc<Operations>, name: &str) -> Operation {
    let body = json!({"location": "x"});
    match request::write_workspace(operations, place(name), &body, Method::Put, &caller()).await.unwrap() {
        Written::Started { operation, .. } => *operation,
        Written::Changed(_) => panic!("it is new"),
    }
}

async fn link(operations: &Arc<Operations>, name: &str, cluster: &str) -> Operation {
    let id = format!(
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/\
         Microsoft.OperationalInsights/clusters/{cluster}"
    );
    let body = json!({"properties": {"writeAccessResourceId": id}});
    request::link(operations, place(name), &body, &caller()).await.unwrap().unwrap()
}

impl Change {
    /// What has to be there before.
    async fn prepare(self, deployment: &Deployment) {
        let operations = &deployment.operations;
        match self {
            Self::Link => deployment.succeed(&put_workspace(operations, "work").await).await,
            Self::RecoverWorkspace => {
                deployment.succeed(&put_workspace(operations, "work").await).await;
                deployment.succeed(&Self::DeleteWorkspace.start(operations).await).await;
            }
            Self::DeleteWorkspace | Self::PurgeWorkspace => {
                deployment.succeed(&put_workspace(operations, "work").await).await;
            }
            _ => {}
        }
    }

    async fn start(self, operations: &Arc<Operations>) -> Operation {
        let write = |name, body, method| async move {
            request::write_cluster(operations, place(name), &body, method, &caller()).await.unwrap()
        };
        match self {
            Self::CreateCluster => write("another", cluster_body(), Method::Put).await,
            Self::CreateClusterWithKey => {
                let mut body = cluster_body();
                body["properties"] = key()["properties"].clone();
                write("another", body, Method::Put).await
            }
            Self::UpdateCluster => write("local", key(), Method::Patch).await,
            Self::DeleteCluster => {
                request::delete_cluster(operations, place("local"), true, &caller()).await.unwrap().unwrap()
            }
            Self::CreateWorkspace => put_workspace(operations, "work").await,
            Self::Link => link(operations, "work", "local").await,
            Self::Unlink => {
                let row = request::existing(operations, logseal_catalog::ResourceKind::Workspace, place("default"));
                let row = row.await.unwrap();
                let document = kinds::document(&row).unwrap();
                request::unlink(operations, row, document, "test").await.unwrap()
            }
            Self::DeleteWorkspace | Self::PurgeWorkspace => {
                let force = self == Self::PurgeWorkspace;
                request::delete_workspace(operations, place("work"), force, &caller()).await.unwrap().unwrap()
            }
            Self::RecoverWorkspace => put_workspace(operations, "work").await,
            Self::RotateKey => request::rotate_key(operations, place("default"), &json!({}), &caller()).await.unwrap(),
            Self::RegenerateKeys => {
                let body = json!({"keyKind": "primary"});
                request::regenerate_keys(operations, place("default"), &body, &caller()).await.unwrap().1
            }
        }
    }

    /// The deployment after the change, when nothing goes wrong.
    async fn expected(self) -> (Value, &'static str, Vec<&'static str>) {
        let deployment = Deployment::new().await;
        self.prepare(&deployment).await;
        let operation = self.start(&deployment.operations).await;
        deployment.succeed(&operation).await;
        let intent = &operation.document.intent;
        (deployment.state().await, intent.kind(), kinds::steps(intent).to_vec())
    }

    async fn with(self, faults: Arc<dyn Faults>) -> (Deployment, Value, Operation) {
        let mut deployment = Deployment::new().await;
        self.prepare(&deployment).await;
        let before = deployment.state().await;
        deployment.restart(faults).await;
        let operation = self.start(&deployment.operations).await;
        deployment.operations.wait(operation.row.id, std::time::Duration::from_secs(60)).await.unwrap();
        (deployment, before, operation)
    }
}

/// Scenario: the process ends before each step, between what the step does outside and its transaction, and after the transaction; then
/// it starts again. Guarantee: the operation goes on by itself, and the end is the one that an undisturbed operation has.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_killed_at_any_step_ends_as_if_it_had_not_been() {
    for change in ALL {
        let (expected, kind, steps) = change.expected().await;
        for step in steps {
            for point in [Point::Before, Point::Done, Point::Committed] {
                let (mut deployment, _, operation) = change.with(Once::of(kind, step, point, Fault::Crash)).await;
                deployment.restart(Arc::new(NoFaults)).await;
                let ended = deployment.end(operation.row.id).await;
                let context = format!("{change:?}, killed at {step} {point:?}");
                assert_eq!(ended.status(), "Succeeded", "{context}: {:?}", ended.document.failure);
                assert_eq!(deployment.state().await, expected, "{context}");
            }
        }
    }
}

/// Scenario: what each step does outside of the catalog is done twice. Guarantee: the end is the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_step_may_be_repeated() {
    for change in ALL {
        let (expected, kind, steps) = change.expected().await;
        for step in steps {
            let (deployment, _, operation) = change.with(Once::of(kind, step, Point::Done, Fault::Repeat)).await;
            let ended = deployment.end(operation.row.id).await;
            assert_eq!(ended.status(), "Succeeded", "{change:?}, {step} repeated: {:?}", ended.document.failure);
            assert_eq!(deployment.state().await, expected, "{change:?}, {step} repeated");
        }
    }
}

/// Scenario: each step fails. Guarantee: the operation ends as failed with that reason; nothing is half done: the deployment is as before,
/// but for the state that the resource of a failed update shows, and for what cannot come back.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_fails_at_any_step_is_undone() {
    let failure = Failure { code: "Planted".to_owned(), message: "planted".to_owned() };
    for change in ALL {
        let (_, kind, steps) = change.expected().await;
        for step in steps {
            let fault = Fault::Fail(failure.clone());
            let (deployment, before, operation) = change.with(Once::of(kind, step, Point::Before, fault)).await;
            let ended = deployment.end(operation.row.id).await;
            let context = format!("{change:?}, failed at {step}");
            assert_eq!((ended.status(), ended.document.failure.as_ref()), ("Failed", Some(&failure)), "{context}");
            let view = ended.view(0.0);
            assert_eq!((&view["status"], &view["error"]["code"]), (&json!("Failed"), &json!("Planted")), "{context}");
            assert!(view["endTime"].is_string() && view["percentComplete"] == 100.0, "{context}: {view}");
            let after = deployment.state().await;
            assert_eq!(after["running"], 0, "{context}");
            match change {
                Change::CreateCluster | Change::CreateClusterWithKey | Change::CreateWorkspace => {
                    assert_eq!(after, before, "{context}");
                }
                // The old key serves on; what is committed together with the new one is not undone.
                Change::UpdateCluster if step != "finish" => assert_eq!(after["keys"], before["keys"], "{context}"),
                Change::Link | Change::Unlink if step == "check" || step == "move" => {
                    assert_eq!(
                        (&after["keys"], &after["workspaces"]),
                        (&before["keys"], &before["workspaces"]),
                        "{context}"
                    );
                }
                Change::RotateKey if step == "add-key" => assert_eq!(after["keys"], before["keys"], "{context}"),
                // What is done of these stays, and the same request goes on with it.
                _ => {
                    let again = change.start(&deployment.operations).await;
                    deployment.succeed(&again).await;
                }
            }
        }
    }
}

/// Scenario: a step panics. Guarantee: the operation fails and is undone; the resource can be changed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_panics_fails_its_operation_alone() {
    let mut deployment = Deployment::new().await;
    let before = deployment.state().await;
    deployment.restart(Arc::new(PanicOnce(AtomicBool::new(false)))).await;
    let operation = Change::CreateCluster.start(&deployment.operations).await;
    let ended = deployment.end(operation.row.id).await;
    assert_eq!(ended.document.failure.as_ref().map(|failure| failure.code.as_str()), Some("InternalError"));
    assert_eq!(deployment.state().await, before);
    deployment.succeed(&Change::CreateCluster.start(&deployment.operations).await).await;
}

/// Scenario: a cluster's key is changed while a workspace is linked to it, and linked and unlinked again; the old version is then disabled.
/// Guarantee: no key is left under the old version, whatever came first.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_stays_under_the_old_version_when_workspaces_come_meanwhile() {
    let deployment = Deployment::new().await;
    for name in ["work-1", "work-2", "work-3"] {
        deployment.succeed(&put_workspace(&deployment.operations, name).await).await;
    }
    let mut running = vec![Change::UpdateCluster.start(&deployment.operations).await];
    for name in ["work-1", "work-2", "work-3"] {
        running.push(link(&deployment.operations, name, "local").await);
    }
    for operation in &running {
        deployment.succeed(operation).await;
    }
    let state = deployment.state().await;
    let keys = state["keys"].as_array().unwrap();
    let of_local: Vec<_> = keys.iter().filter(|key| key[2] == "local").collect();
    assert_eq!(of_local.len(), 7, "the default workspace's, and two of each new one: {state}");
    assert!(of_local.iter().all(|key| key[3] == "kek"), "{state}");
}

/// Scenario: a second change of a resource while one is under way. Guarantee: it is refused with a conflict that names the first.
#[tokio::test(flavor = "multi_thread")]
async fn one_operation_at_a_time_changes_a_resource() {
    let mut deployment = Deployment::new().await;
    deployment.restart(Once::new("validate-key", Point::Before, Fault::Crash)).await;
    let first = Change::UpdateCluster.start(&deployment.operations).await;
    let tags = json!({"tags": {}});
    let second = request::write_cluster(&deployment.operations, place("local"), &tags, Method::Patch, &caller()).await;
    let problem = second.unwrap_err();
    assert_eq!((problem.status(), problem.code()), (StatusCode::CONFLICT, "OperationInProgress"));
    assert!(problem.message().contains(&first.row.id.to_string()), "{}", problem.message());
}

/// Scenario: a workspace is linked to a second cluster; a link, an update and a deletion stand still while others ask for changes that they
/// exclude. Guarantee: each is refused with a conflict of its own code.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_exclude_each_other_are_told_apart() {
    let mut deployment = Deployment::new().await;
    deployment.succeed(&Change::CreateCluster.start(&deployment.operations).await).await;
    deployment.succeed(&put_workspace(&deployment.operations, "work").await).await;
    let try_link = async |deployment: &Deployment, name: &str, cluster: &str| {
        let id = format!(
            "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/\
             Microsoft.OperationalInsights/clusters/{cluster}"
        );
        let body = json!({"properties": {"writeAccessResourceId": id}});
        let problem = request::link(&deployment.operations, place(name), &body, &caller()).await.unwrap_err();
        (problem.status(), problem.code().to_owned())
    };
    let conflict = |code: &str| (StatusCode::CONFLICT, code.to_owned());
    assert_eq!(try_link(&deployment, "default", "another").await, conflict("AlreadyLinked"));
    let not_there = (StatusCode::BAD_REQUEST, "ClusterNotFound".to_owned());
    assert_eq!(try_link(&deployment, "work", "nowhere").await, not_there);
    assert_eq!(try_link(&deployment, "nobody", "local").await.0, StatusCode::NOT_FOUND);

    deployment.restart(Once::of("linkWorkspace", "move", Point::Before, Fault::Crash)).await;
    let linking = link(&deployment.operations, "work", "local").await;
    deployment.operations.wait(linking.row.id, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(try_link(&deployment, "work", "another").await, conflict("OperationInProgress"));
    deployment.restart(Once::new("validate-key", Point::Before, Fault::Crash)).await;
    deployment.end(linking.row.id).await;
    let updating = Change::UpdateCluster.start(&deployment.operations).await;
    let delete = request::delete_cluster(&deployment.operations, place("local"), true, &caller()).await;
    assert_eq!(delete.unwrap_err().code(), "OperationInProgress");
    deployment.restart(Once::new("shred-keys", Point::Before, Fault::Crash)).await;
    deployment.end(updating.row.id).await;
    Change::DeleteCluster.start(&deployment.operations).await;
    let update = request::write_cluster(&deployment.operations, place("local"), &key(), Method::Patch, &caller()).await;
    assert_eq!(update.unwrap_err().code(), "ClusterDeleting");
}

/// Scenario: an update is canceled before and after its keys are switched. Guarantee: before, nothing is changed; after, it is too late
/// and the caller is told so.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_canceled_only_while_nothing_is_done_that_stays() {
    let deployment = Deployment::new().await;
    let body =
        json!({"properties": {"keyVaultProperties": {"keyVaultUri": VAULT, "keyName": "none", "keyVersion": ""}}});
    let failing =
        request::write_cluster(&deployment.operations, place("local"), &body, Method::Patch, &caller()).await.unwrap();
    let ended = deployment.end(failing.row.id).await;
    assert_eq!(ended.document.failure.as_ref().unwrap().code, "KeyNotFound");
    let late = deployment.operations.cancel(failing.row.id, std::time::Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(late.code(), "OperationNotCancelable");
}
