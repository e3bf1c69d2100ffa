//! The vault fails at any of the calls that an operation makes.

use std::time::Duration;

use logseal_keys::KeyFault;

use super::*;
use crate::testing::vault::Trouble;

/// Operations that ask the vault.
const ASKING: [Change; 6] = [
    Change::CreateClusterWithKey,
    Change::UpdateCluster,
    Change::CreateWorkspace,
    Change::Link,
    Change::Unlink,
    Change::RotateKey,
];

/// An operation that waits for the vault is looked at after this time.
const LOOK: Duration = Duration::from_millis(300);

/// Scenario: from each of the calls on that an operation makes, the vault refuses, cannot be reached, or gives another key back; then it is well
/// again. Guarantee: the operation has failed with the fault's own code and is undone, or it waits and succeeds; every account key opens with the
/// version that its row names; the same change made again leads to the end of an undisturbed one.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_fails_at_any_call_costs_no_key() {
    for change in ASKING {
        let undisturbed = Deployment::new().await;
        change.prepare(&undisturbed).await;
        undisturbed.trouble.end();
        undisturbed.succeed(&change.start(&undisturbed.operations).await).await;
        let (calls, expected) = (undisturbed.trouble.calls(), undisturbed.state().await);
        assert!(calls > 0, "{change:?} asks the vault");
        for call in 0..calls {
            for trouble in [Trouble::Refusal, Trouble::Outage, Trouble::WrongBytes] {
                let context = format!("{change:?}, {trouble:?} from call {call} of {calls} on");
                let deployment = Deployment::new().await;
                change.prepare(&deployment).await;
                deployment.trouble.plant(call, trouble);
                let operation = change.start(&deployment.operations).await;
                deployment.operations.wait(operation.row.id, LOOK).await.unwrap();
                deployment.trouble.end();
                let ended = deployment.end(operation.row.id).await;
                if ended.status() == "Failed" {
                    let code = &ended.document.failure.as_ref().unwrap().code;
                    let known = |fault: &KeyFault| fault.code() == code;
                    assert!(code == "KeyDamaged" || KeyFault::ALL.iter().any(known), "{context}: {code}");
                    deployment.unwrap_all().await.unwrap_or_else(|error| panic!("{context}, undone: {error}"));
                    deployment.succeed(&change.start(&deployment.operations).await).await;
                }
                assert_eq!(deployment.state().await, expected, "{context}");
                deployment.unwrap_all().await.unwrap_or_else(|error| panic!("{context}: {error}"));
            }
        }
    }
}
