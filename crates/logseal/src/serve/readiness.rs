//! Whether this node can serve anybody: what `/readyz` and gRPC health say while it runs.

use std::sync::Arc;
use std::time::Duration;

use logseal_keys::Monitor;
use logseal_keys::availability::KeyState;
use tokio::sync::watch;

/// How soon readiness follows the states of keys. Who asks for it asks every few seconds.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps `ready` at what is so, until it is aborted.
pub(super) async fn follow(monitor: Arc<Monitor>, ready: Arc<watch::Sender<bool>>) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let now = serves(monitor.all().iter().map(|(_, status)| status.state));
        ready.send_if_modified(|was| std::mem::replace(was, now) != now);
    }
}

/// A node whose every cluster is out of service is better left alone by load balancers; one that serves a single cluster is not.
fn serves(states: impl Iterator<Item = KeyState>) -> bool {
    let mut states = states.peekable();
    states.peek().is_none() || states.any(|state| matches!(state, KeyState::Active | KeyState::Degraded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_that_serves_is_enough() {
        use KeyState::{Active, Degraded, Resuming, Revoked};
        for (states, expected) in [
            (&[][..], true),
            (&[Revoked, Active], true),
            (&[Revoked, Degraded], true),
            (&[Revoked, Resuming], false),
            (&[Revoked], false),
        ] {
            assert_eq!(serves(states.iter().copied()), expected, "{states:?}");
        }
    }
}
