//! Whose turn it is to wait for budget: of each workspace one call at a time is in the budget's queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logseal_core::WorkspaceId;

/// Calls that wait for budget.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of each workspace of which a call waits.
    of: HashMap<WorkspaceId, Own>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Own {
    /// Held by the one call of the workspace that is in the budget's queue: however many of its calls wait, those of others are behind one of them.
    queued: Arc<tokio::sync::Mutex<()>>,
    waiting: usize,
}

impl Turns {
    /// A call of `workspace` waits from now on.
    pub(super) fn begin(&self, workspace: WorkspaceId) -> Waiting<'_> {
        let mut state = self.state();
        state.waiting += 1;
        let own = state.of.entry(workspace).or_default();
        own.waiting += 1;
        Waiting { turns: self, workspace, queued: Arc::clone(&own.queued) }
    }

    /// Whether calls of another workspace than `workspace` wait.
    pub(super) fn others_wait(&self, workspace: WorkspaceId) -> bool {
        let state = self.state();
        state.waiting > state.of.get(&workspace).map_or(0, |own| own.waiting)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits, for as long as it exists.
pub(super) struct Waiting<'t> {
    turns: &'t Turns,
    workspace: WorkspaceId,
    queued: Arc<tokio::sync::Mutex<()>>,
}

impl Waiting<'_> {
    /// Waits until no other call of the workspace is in the budget's queue, and keeps them out of it.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.queued.lock().await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.waiting -= 1;
        if let Some(own) = state.of.get_mut(&self.workspace) {
            own.waiting -= 1;
            // Whoever has the turn waits, so nobody has it.
            if own.waiting == 0 {
                state.of.remove(&self.workspace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two calls of one workspace wait and one of another; one after the other ends. Guarantee: the turn is the workspace's as long as a call of it
    /// waits, and nothing is remembered of workspaces of which none does.
    #[tokio::test]
    async fn nothing_is_kept_of_who_does_not_wait() {
        let turns = Turns::default();
        let [one, other] = [1, 2].map(|number| WorkspaceId::from_bytes([number; 16]));
        let (first, second, third) = (turns.begin(one), turns.begin(one), turns.begin(other));
        let turn = second.turn().await;
        drop(first);
        let fourth = turns.begin(one);
        assert!(fourth.queued.try_lock().is_err(), "another call of the workspace has the turn");
        assert!(third.queued.try_lock().is_ok() && turns.others_wait(one));
        drop(third);
        assert_eq!(turns.state().of.keys().collect::<Vec<_>>(), [&one]);
        assert!(!turns.others_wait(one) && turns.others_wait(other));
        drop(turn);
        drop((second, fourth));
        assert!(turns.state().of.is_empty() && !turns.others_wait(other));
    }
}
