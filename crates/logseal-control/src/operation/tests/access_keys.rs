//! Access keys that are regenerated while the process ends and steps fail.

use logseal_keys::{NotAccepted, Slot};

use super::*;

/// The keys of the default workspace as the catalog has them, in clear.
async fn keys(deployment: &Deployment) -> Vec<String> {
    let workspace = deployment.catalog.workspaces().await.unwrap()[0].id;
    let rows = deployment.catalog.workspace_keys_of(workspace).await.unwrap();
    rows.iter().map(|row| deployment.access.reveal(row).unwrap().to_string()).collect()
}

/// Which of `keys` the door takes.
fn taken(deployment: &Deployment, keys: &[String]) -> Vec<bool> {
    let now = logseal_core::UnixNanos(1);
    let taken = |key: &String| match deployment.operations.world().access.workspace_of(key, now) {
        Ok(_) => true,
        Err(NotAccepted::Unknown) => false,
        Err(NotAccepted::LocalAuthDisabled) => panic!("keys are on"),
    };
    keys.iter().map(taken).collect()
}

/// Scenario: the primary key is regenerated, the process ends or a step fails at each point, and it goes on. Guarantee: the old primary key is
/// taken exactly as long as the catalog has it, the new one afterwards, and the secondary one throughout.
#[tokio::test(flavor = "multi_thread")]
async fn the_door_takes_the_keys_that_the_catalog_has_whatever_happens() {
    let (_, kind, steps) = Change::RegenerateKeys.expected().await;
    let failure = Failure { code: "Planted".to_owned(), message: "planted".to_owned() };
    for step in steps {
        for (point, fault) in [
            (Point::Before, Fault::Crash),
            (Point::Done, Fault::Crash),
            (Point::Committed, Fault::Crash),
            (Point::Done, Fault::Repeat),
            (Point::Before, Fault::Fail(failure.clone())),
        ] {
            let context = format!("{step} {point:?} {fault:?}");
            let mut deployment = Deployment::new().await;
            let before = keys(&deployment).await;
            assert_eq!(taken(&deployment, &before), [true, true]);
            let crashes = matches!(fault, Fault::Crash);
            deployment.restart(Once::of(kind, step, point, fault)).await;
            let operation = Change::RegenerateKeys.start(&deployment.operations).await;
            deployment.end(operation.row.id).await;
            if crashes {
                deployment.restart(Arc::new(NoFaults)).await;
                deployment.end(operation.row.id).await;
            }
            let after = keys(&deployment).await;
            assert_eq!(taken(&deployment, &after), [true, true], "{context}");
            assert_eq!(after[Slot::Secondary as usize], before[Slot::Secondary as usize], "{context}");
            let stays = after[Slot::Primary as usize] == before[Slot::Primary as usize];
            assert_eq!(taken(&deployment, &before), [stays, true], "{context}");
            let fails = !crashes && point == Point::Before;
            assert_eq!(stays, fails && step == "replace-keys", "{context}");
        }
    }
}

/// Scenario: the row of the other key was altered. Guarantee: a key that is replaced is refused from then on all the same, and what is
/// unknown from then on may be the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_beside_one_that_cannot_be_read() {
    let deployment = Deployment::new().await;
    let before = keys(&deployment).await;
    let workspace = deployment.catalog.workspaces().await.unwrap()[0].id;
    let rows = deployment.catalog.workspace_keys_of(workspace).await.unwrap();
    deployment.spoil(&rows[Slot::Secondary as usize]).await;
    let operation = Change::RegenerateKeys.start(&deployment.operations).await;
    deployment.succeed(&operation).await;
    assert_eq!(taken(&deployment, &before), [false, false]);
    assert!(!deployment.operations.world().access.is_complete());
}
