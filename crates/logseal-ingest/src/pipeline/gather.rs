//! Small requests of one workspace that wait for the log together.
//!
//! What a request costs beside its records (a batch of columns, a frame, a wake-up) is more than ten records do. So while some of a
//! workspace's small requests are under way, those that come meanwhile wait, and then go on as one. A request that finds nothing under way goes on at
//! once: nobody waits for others to come.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use logseal_core::WorkspaceId;
use tokio::sync::oneshot;

use crate::admission::BudgetPermit;
use crate::door::{Accepted, IntakeError};
use crate::expansion::Expansion;

/// Requests up to this size are gathered. Larger ones have so many records that what they cost besides is little.
pub const GATHERED_BYTES: usize = 32 * 1024;

/// Bytes of requests that go on together.
const TOGETHER_BYTES: usize = 512 * 1024;

/// A request that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Its bytes.
    pub body: Bytes,
    /// Covers them and an estimate of their columns.
    pub permit: BudgetPermit,
    /// Where its outcome goes.
    pub outcome: oneshot::Sender<Result<Accepted, IntakeError>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    under_way: usize,
}

/// What waits and what is under way of each workspace. Holds nothing of those of which nothing is.
#[derive(Debug)]
pub struct Gatherer {
    queues: Mutex<HashMap<WorkspaceId, Queue>>,
    most_under_way: usize,
}

impl Gatherer {
    /// Nothing waits. Of one workspace as many lots may be under way as there are compute threads, and two at least: one is written to the log while
    /// the next is read.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_most_under_way(rayon::current_num_threads().max(2))
    }

    fn with_most_under_way(most_under_way: usize) -> Arc<Self> {
        Arc::new(Self { queues: Mutex::default(), most_under_way })
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request of `workspace`; the lot with which to go on now, if there is one.
    #[must_use]
    pub fn add(self: &Arc<Self>, workspace: WorkspaceId, request: Waiting) -> Option<Lot> {
        let mut queues = self.queues();
        let queue = queues.entry(workspace).or_default();
        queue.waiting.push(request);
        if queue.under_way >= self.most_under_way {
            return None;
        }
        queue.under_way += 1;
        Some(Lot { requests: take(&mut queue.waiting), workspace, gatherer: Arc::clone(self), ended: false })
    }

    /// A lot of `workspace` has ended; the requests to go on with in its place, if any wait.
    fn next(&self, workspace: WorkspaceId) -> Vec<Waiting> {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(&workspace) else { return Vec::new() };
        let requests = take(&mut queue.waiting);
        if requests.is_empty() {
            // Under the same lock: what comes after this look finds one lot less, and goes on by itself.
            less_under_way(&mut queues, workspace);
        }
        requests
    }
}

/// One lot less is under way. After the last one nobody goes on with what waits: it is refused.
fn less_under_way(queues: &mut HashMap<WorkspaceId, Queue>, workspace: WorkspaceId) {
    if let Entry::Occupied(mut queue) = queues.entry(workspace) {
        queue.get_mut().under_way -= 1;
        if queue.get().under_way == 0 {
            queue.remove();
        }
    }
}

/// The first requests of `waiting`, as many as may go on together.
fn take(waiting: &mut Vec<Waiting>) -> Vec<Waiting> {
    let mut bytes = 0;
    let fit = waiting.iter().take_while(|request| {
        bytes += request.body.len();
        bytes <= TOGETHER_BYTES
    });
    let count = fit.count();
    let rest = waiting.split_off(count);
    std::mem::replace(waiting, rest)
}

/// The bytes of `requests` one after the other, and the permit for all of them. Each keeps its part of the bytes, so that nothing is in memory twice,
/// and no permit.
///
/// # Panics
///
/// When there are no requests.
pub fn join(requests: &mut [Waiting]) -> (Bytes, BudgetPermit) {
    let mut joined = BytesMut::with_capacity(requests.iter().map(|request| request.body.len()).sum());
    requests.iter().for_each(|request| joined.extend_from_slice(&request.body));
    let joined = joined.freeze();
    let mut permit = requests[0].permit.split(0);
    let mut start = 0;
    for request in requests {
        let end = start + request.body.len();
        request.body = joined.slice(start..end);
        permit.merge(request.permit.split(usize::MAX));
        start = end;
    }
    (joined, permit)
}

/// Undoes [`join`]: each request has a permit again.
pub fn part(requests: &mut [Waiting]) {
    for Waiting { body, permit, .. } in requests {
        permit.overdraw_to(body.len() + Expansion::default().chunk_bytes(body.len()));
    }
}

/// Requests that go on together. When it is dropped before its end, it and what waits behind it is refused.
#[derive(Debug)]
pub struct Lot {
    requests: Vec<Waiting>,
    workspace: WorkspaceId,
    gatherer: Arc<Gatherer>,
    /// It does not count as under way any more.
    ended: bool,
}

impl Lot {
    /// Whose requests they are.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// The requests; afterwards there are none.
    #[must_use]
    pub fn requests(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.requests)
    }

    /// The lot that goes on in place of this one, which has ended.
    #[must_use]
    pub fn next(mut self) -> Option<Self> {
        self.requests = self.gatherer.next(self.workspace);
        self.ended = self.requests.is_empty();
        (!self.ended).then_some(self)
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        if !self.ended {
            less_under_way(&mut self.gatherer.queues(), self.workspace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Budget;

    const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

    type Outcome = oneshot::Receiver<Result<Accepted, IntakeError>>;

    fn waiting(budget: &Arc<Budget>, bytes: usize) -> (Waiting, Outcome) {
        let (outcome, result) = oneshot::channel();
        let permit = budget.overdraw(bytes);
        (Waiting { body: vec![0; bytes].into(), permit, outcome }, result)
    }

    fn sizes(requests: &[Waiting]) -> Vec<usize> {
        requests.iter().map(|request| request.body.len()).collect()
    }

    /// Scenario: requests of one workspace come one after the other, while two lots are under way. Guarantee: the first two go on at once, the others
    /// together when one of those ends, as many as may; another workspace does not wait for them; nothing is kept at the end.
    #[test]
    fn what_comes_meanwhile_goes_on_together() {
        let (gatherer, budget) = (Gatherer::with_most_under_way(2), Budget::new(1 << 30));
        let mut outcomes = Vec::new();
        let mut add = |workspace, bytes| {
            let (request, outcome) = waiting(&budget, bytes);
            outcomes.push(outcome);
            gatherer.add(workspace, request)
        };
        let mut first = add(WORKSPACE, 1).expect("nothing is under way");
        let mut second = add(WORKSPACE, 2).expect("one more may be");
        assert!(add(WORKSPACE, 3).is_none() && add(WORKSPACE, 4).is_none());
        let mut other = add(WorkspaceId::from_bytes([2; 16]), 5).expect("another workspace");
        assert_eq!(
            (sizes(&first.requests()), sizes(&second.requests()), sizes(&other.requests())),
            (vec![1], vec![2], vec![5])
        );

        let mut together = first.next().expect("two wait");
        assert_eq!(sizes(&together.requests()), [3, 4]);
        let large: Vec<_> = (0..TOGETHER_BYTES / GATHERED_BYTES + 3).map(|_| add(WORKSPACE, GATHERED_BYTES)).collect();
        assert!(large.iter().all(Option::is_none));
        let mut full = second.next().expect("more than fit wait");
        assert_eq!(full.requests().len(), TOGETHER_BYTES / GATHERED_BYTES);
        let mut rest = together.next().expect("the rest");
        assert_eq!(rest.requests().len(), 3);
        assert!(rest.next().is_none() && full.next().is_none() && other.next().is_none());
        assert!(gatherer.queues().is_empty());
        assert!(add(WORKSPACE, 6).is_some(), "it begins anew");
    }

    /// Scenario: lots break off while requests wait behind them. Guarantee: as long as one is left, it goes on with them; behind the last one they
    /// are refused instead of waiting for ever.
    #[test]
    fn nobody_waits_behind_what_broke_off() {
        let (gatherer, budget) = (Gatherer::with_most_under_way(2), Budget::new(1 << 30));
        let add = |bytes| {
            let (request, outcome) = waiting(&budget, bytes);
            (gatherer.add(WORKSPACE, request), outcome)
        };
        let (first, second) = (add(1).0, add(2).0.expect("a lot"));
        let (none, mut third) = add(3);
        assert!(none.is_none());
        drop(first);
        let mut lot = second.next().expect("what waits");
        assert_eq!(sizes(&lot.requests()), [3]);
        assert!(third.try_recv().is_err());
        let (also_under_way, _first) = add(4);
        let (none, mut fifth) = add(5);
        assert!(also_under_way.is_some() && none.is_none());
        drop((lot, also_under_way));
        assert!(matches!(fifth.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(gatherer.queues().is_empty());
    }
}
