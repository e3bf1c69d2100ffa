//! The tasks that run operations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_catalog::{AuditEntry, CatalogError, Change, OperationFilter, OperationRow, OperationState, ResourceRow};
use logseal_core::OperationId;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::document::OperationDocument;
use super::world::{Fault, Point};
use super::{Effects, Failure, Intent, Operation, StepError, kinds};
use crate::Problem;
use crate::cluster_views::ClusterViews;
use crate::meter;
use crate::operation::world::World;
use crate::resource::plain_location;
use crate::rotation::NewestVersions;

/// Pauses between tries of a step whose trouble passes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Steps that run at the same time; others wait. A step may ask the vault for private operations, which take milliseconds of a core.
const AT_ONCE: usize = 16;

/// Changes of an operation that are kept for those who watch it: more than one has steps to be done and undone.
const CHANGES: usize = 32;

/// All operations: those that run, and those in the catalog.
#[derive(Debug)]
pub struct Operations {
    world: World,
    live: Mutex<HashMap<OperationId, Live>>,
    at_once: Semaphore,
    views: ClusterViews,
    newest: NewestVersions,
}

/// A running operation, as others see it.
#[derive(Clone, Debug)]
struct Live {
    /// Changes with each step, and closes when the operation has ended.
    steps: watch::Receiver<usize>,
    /// The operation after each step; closes as well.
    changes: broadcast::Sender<Arc<Operation>>,
    within: Arc<Within>,
    cancel: Arc<AtomicBool>,
}

impl Live {
    fn tell(&self, operation: &Operation) {
        // An error says that nobody watches.
        if self.changes.receiver_count() > 0 {
            let _ = self.changes.send(Arc::new(operation.clone()));
        }
    }
}

/// The share of the present step that is done.
#[derive(Debug, Default)]
pub(crate) struct Within(AtomicU64);

impl Within {
    pub(crate) fn set(&self, done: usize, all: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        self.0.store((done as f64 / all.max(1) as f64).to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// What a step is given.
#[derive(Debug)]
pub(crate) struct Context<'o> {
    pub(crate) operations: &'o Arc<Operations>,
    pub(crate) world: &'o World,
    pub(crate) within: &'o Within,
}

/// A change that is to become an operation.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) intent: Intent,
    /// The resource as it is while the operation runs.
    pub(crate) resource: ResourceRow,
    /// The version of the resource that the intent was made for; `None` for a new one.
    pub(crate) expected: Option<u64>,
    /// The path that the operation is about.
    pub(crate) target: String,
    pub(crate) location: String,
    /// Who asked for it.
    pub(crate) actor: String,
}

/// How an operation goes on.
enum Next {
    Step,
    End,
    /// A test ends the process here.
    Crash,
}

impl Operations {
    /// The operations over `world`; those that are under way go on when [`Operations::resume`] is called.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        let views = ClusterViews::default();
        Arc::new(Self {
            world,
            live: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            views,
            newest: NewestVersions::default(),
        })
    }

    pub(crate) fn newest(&self) -> &NewestVersions {
        &self.newest
    }

    pub(crate) fn cluster_views(&self) -> &ClusterViews {
        &self.views
    }

    /// What steps work with.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Goes on with every operation that a crash or a stop interrupted; returns how many there are.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when they cannot be read.
    pub async fn resume(self: &Arc<Self>) -> Result<usize, CatalogError> {
        let rows = self.world.catalog.running_operations().await?;
        let count = rows.len();
        for row in rows {
            let id = row.id;
            match Operation::read(row) {
                Ok(operation) => {
                    info!(operation = %id, kind = operation.row.kind, target = operation.row.target, "an operation goes on");
                    self.spawn(operation);
                }
                Err(problem) => error!(operation = %id, reason = problem.message(), "an operation cannot go on"),
            }
        }
        Ok(count)
    }

    /// Makes the change an operation, durably, and begins with it.
    pub(crate) async fn start(self: &Arc<Self>, submission: Submission) -> Result<Operation, Problem> {
        let Submission { intent, resource, expected, target, location, actor } = submission;
        let now = self.world.clock.now();
        let before = kinds::references(&self.world, resource.id, &intent).await?;
        let document =
            OperationDocument { intent, done: 0, failure: None, canceled: false, result: None, actor, before };
        let row = OperationRow {
            id: OperationId::from(self.world.ids.next()),
            kind: document.intent.kind().to_owned(),
            resource: resource.id,
            target,
            subscription: resource.subscription.clone(),
            location: plain_location(&location),
            state: OperationState::Running,
            document: String::new(),
            created: now,
            changed: now,
            ended: None,
            version: 1,
        };
        let operation = Operation { row, document };
        let changes = vec![
            Change::PutResource { row: resource, expected },
            Change::PutOperation { row: operation.written(), expected: None },
            Change::Audit(operation.audit("Accepted", &Value::Null, now)),
        ];
        self.world.catalog.apply(Change::All(changes)).await?;
        info!(operation = %operation.row.id, kind = operation.row.kind, target = operation.row.target, "an operation begins");
        self.spawn(operation.clone());
        Ok(operation)
    }

    /// The operation `id`.
    pub(crate) async fn find(&self, id: OperationId) -> Result<Option<Operation>, Problem> {
        self.world.catalog.operation(id).await?.map(Operation::read).transpose()
    }

    /// Operations, newest first.
    pub(crate) async fn list(
        &self,
        filter: OperationFilter<'_>,
        before: Option<OperationId>,
        limit: u32,
    ) -> Result<Vec<Operation>, Problem> {
        self.world.catalog.operations(filter, before, limit).await?.into_iter().map(Operation::read).collect()
    }

    /// The share of the present step of `id` that is done.
    pub(crate) fn within(&self, id: OperationId) -> f64 {
        self.live().get(&id).map_or(0.0, |live| live.within.get())
    }

    /// What becomes of `id` from now on, step by step, until it has ended; `None` when no task runs it.
    pub(crate) fn changes(&self, id: OperationId) -> Option<broadcast::Receiver<Arc<Operation>>> {
        self.live().get(&id).map(|live| live.changes.subscribe())
    }

    /// The operation `id` when it has ended, or as it is after `patience`.
    pub(crate) async fn wait(&self, id: OperationId, patience: Duration) -> Result<Option<Operation>, Problem> {
        let steps = self.live().get(&id).map(|live| live.steps.clone());
        if let Some(mut steps) = steps {
            // An error says that the task is gone: the operation has ended.
            let _ = timeout(patience, async { while steps.changed().await.is_ok() {} }).await;
        }
        self.find(id).await
    }

    /// Cancels the operation `id`, if it can still be canceled, and returns how it ended.
    pub(crate) async fn cancel(&self, id: OperationId, patience: Duration) -> Result<Operation, Problem> {
        let unknown = || Problem::not_found(format!("there is no operation `{id}`"));
        let operation = self.find(id).await?.ok_or_else(unknown)?;
        if let Some(live) = self.live().get(&id) {
            live.cancel.store(true, Ordering::Relaxed);
        }
        let operation = match operation.row.state {
            OperationState::Running => self.wait(id, patience).await?.ok_or_else(unknown)?,
            _ => operation,
        };
        match operation.row.state {
            OperationState::Canceled | OperationState::Running => Ok(operation),
            OperationState::Succeeded | OperationState::Failed => Err(Problem::conflict(
                "OperationNotCancelable",
                format!(
                    "operation `{id}` has ended as `{}`, or was past the step up to which it can be canceled",
                    operation.status()
                ),
            )),
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<OperationId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(self: &Arc<Self>, operation: Operation) {
        let (step, steps) = watch::channel(0);
        let changes = broadcast::Sender::new(CHANGES);
        let live = Live { steps, changes, within: Arc::default(), cancel: Arc::default() };
        self.live().insert(operation.row.id, live.clone());
        let operations = Arc::clone(self);
        tokio::spawn(async move {
            let id = operation.row.id;
            operations.contain(operation, &live, &step).await;
            // Whoever waits is woken by the sender's end, and must then not find it here any more.
            operations.live().remove(&id);
            drop(step);
        });
    }

    /// Runs the operation to its end, also when a step panics: that is a failure as any other.
    async fn contain(self: &Arc<Self>, operation: Operation, live: &Live, step: &watch::Sender<usize>) {
        let mut next = Some(operation);
        while let Some(operation) = next.take() {
            let id = operation.row.id;
            let (operations, live_too, step) = (Arc::clone(self), live.clone(), step.clone());
            let driven = tokio::spawn(async move { operations.drive(operation, &live_too, &step).await });
            if driven.await.is_ok() {
                return;
            }
            error!(operation = %id, "a step of an operation panicked");
            let stored = self.find(id).await.ok().flatten();
            let Some(mut stored) = stored.filter(|stored| stored.row.state == OperationState::Running) else { return };
            if stored.document.failure.is_some() {
                error!(operation = %id, "an operation cannot be undone in this life, the next start tries again");
                return;
            }
            let message = "the server has a defect: its log says where; please report it".to_owned();
            let failure = Failure { code: "InternalError".to_owned(), message };
            match self.turn_back(&mut stored, failure, false).await {
                Ok(_) => next = Some(stored),
                Err(why) => error!(operation = %id, why, "an operation stands still until the next start"),
            }
        }
    }

    /// Runs the operation to its end.
    async fn drive(self: &Arc<Self>, mut operation: Operation, live: &Live, step: &watch::Sender<usize>) {
        let mut pause = FIRST_PAUSE;
        loop {
            live.within.set(0, 1);
            match self.advance(&mut operation, live).await {
                Ok(Next::Step) => {
                    pause = FIRST_PAUSE;
                    step.send_modify(|steps| *steps += 1);
                    live.tell(&operation);
                }
                Ok(Next::End) => {
                    live.tell(&operation);
                    let (id, kind, status) = (operation.row.id, &operation.row.kind, operation.status());
                    meter::operation_ended(kind, status);
                    match &operation.document.failure {
                        None => info!(operation = %id, kind, status, "an operation has ended"),
                        Some(Failure { code, message }) => {
                            warn!(operation = %id, kind, status, code, message, "an operation has ended");
                        }
                    }
                    return;
                }
                Ok(Next::Crash) => return,
                Err(why) => {
                    warn!(operation = %operation.row.id, kind = operation.row.kind, why, "a step of an operation is tried again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Does or undoes one step and commits it; an error passes.
    async fn advance(self: &Arc<Self>, operation: &mut Operation, live: &Live) -> Result<Next, String> {
        let steps = kinds::steps(&operation.document.intent);
        let undoing = operation.document.failure.is_some();
        let done = operation.document.done;
        if !undoing && live.cancel.load(Ordering::Relaxed) && done < kinds::cancelable(&operation.document.intent) {
            let message = "it was canceled before anything that cannot be undone was done".to_owned();
            let failure = Failure { code: "OperationCanceled".to_owned(), message };
            return self.turn_back(operation, failure, true).await;
        }
        if undoing && done == 0 {
            return self.end_undone(operation, live).await;
        }
        let step = if undoing { steps[done - 1] } else { steps[done] };
        let (kind, faults) = (operation.row.kind.clone(), &self.world.faults);
        let mut next = operation.clone();
        let context = Context { operations: self, world: &self.world, within: &live.within };
        // One that waits for others must not keep them waiting.
        let waits_for_others = matches!(operation.document.intent, Intent::DeleteCluster(_));
        let _turn = if waits_for_others { None } else { self.at_once.acquire().await.ok() };
        let mut outcome = match faults.at(&kind, step, Point::Before) {
            Some(Fault::Crash) => return Ok(Next::Crash),
            Some(Fault::Fail(failure)) => Err(StepError::Failed(failure)),
            _ => step_of(&mut next, step, undoing, &context).await,
        };
        match faults.at(&kind, step, Point::Done) {
            Some(Fault::Crash) => return Ok(Next::Crash),
            Some(Fault::Repeat) => {
                next = operation.clone();
                outcome = step_of(&mut next, step, undoing, &context).await;
            }
            Some(Fault::Fail(failure)) => outcome = Err(StepError::Failed(failure)),
            None => {}
        }
        let outcome = match outcome {
            Ok(effects) => {
                next.document.done = if undoing { done - 1 } else { done + 1 };
                let ends = !undoing && next.document.done == steps.len();
                self.commit(operation, next, effects, ends.then_some(OperationState::Succeeded)).await.map(|()| ends)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(ends) => match faults.at(&kind, step, Point::Committed) {
                Some(Fault::Crash) => Ok(Next::Crash),
                _ if ends => Ok(Next::End),
                _ => Ok(Next::Step),
            },
            Err(StepError::Passing(why)) => Err(format!("{step}: {why}")),
            Err(StepError::Back(to)) if !undoing => {
                let mut next = operation.clone();
                next.document.done = steps.iter().position(|known| *known == to).unwrap_or(0);
                kinds::renew(&mut next, &self.world).await.map_err(passing)?;
                self.commit(operation, next, Effects::new(), None).await.map_err(passing)?;
                Ok(Next::Step)
            }
            Err(StepError::Failed(failure)) if !undoing => self.turn_back(operation, failure, false).await,
            Err(StepError::Failed(failure)) => {
                // Nobody is helped by an operation that never ends: what is left is said.
                error!(operation = %operation.row.id, step, code = failure.code, message = failure.message, "a step of an operation cannot be undone");
                let mut next = operation.clone();
                next.document.done = done - 1;
                self.commit(operation, next, Effects::new(), None).await.map_err(passing)?;
                Ok(Next::Step)
            }
            Err(StepError::Back(_)) => Err(format!("{step}: it changed while it was undone")),
        }
    }

    async fn turn_back(&self, operation: &mut Operation, failure: Failure, canceled: bool) -> Result<Next, String> {
        let mut next = operation.clone();
        next.document.failure = Some(failure);
        next.document.canceled = canceled;
        self.commit(operation, next, Effects::new(), None).await.map_err(passing)?;
        Ok(Next::Step)
    }

    async fn end_undone(self: &Arc<Self>, operation: &mut Operation, live: &Live) -> Result<Next, String> {
        let context = Context { operations: self, world: &self.world, within: &live.within };
        let effects = kinds::undone(operation, &context).await.map_err(passing)?;
        let state = if operation.document.canceled { OperationState::Canceled } else { OperationState::Failed };
        let next = operation.clone();
        self.commit(operation, next, effects, Some(state)).await.map_err(passing)?;
        Ok(Next::End)
    }

    /// Commits `effects` together with the operation as it is to be; with `end` it has ended.
    async fn commit(
        &self,
        operation: &mut Operation,
        mut next: Operation,
        mut effects: Effects,
        end: Option<OperationState>,
    ) -> Result<(), StepError> {
        let now = self.world.clock.now();
        next.row.changed = now;
        next.row.version = operation.row.version + 1;
        if let Some(state) = end {
            next.row.state = state;
            next.row.ended = Some(now);
            let after = kinds::references(&self.world, next.row.resource, &next.document.intent).await?;
            effects.push(Change::Audit(next.audit(next.status(), &after, now)));
        }
        effects.push(Change::PutOperation { row: next.written(), expected: Some(operation.row.version) });
        match self.world.catalog.apply(Change::All(effects)).await {
            Ok(()) => {}
            Err(error) => {
                // An answer that was lost is no failure: the row tells.
                let stored = self.world.catalog.operation(next.row.id).await?;
                if !stored.is_some_and(|stored| stored.version == next.row.version && stored == next.written()) {
                    return Err(kinds::refused(&operation.document.intent, error));
                }
            }
        }
        *operation = next;
        Ok(())
    }
}

async fn step_of(
    operation: &mut Operation,
    step: &'static str,
    undoing: bool,
    context: &Context<'_>,
) -> Result<Effects, StepError> {
    if undoing { kinds::undo(operation, step, context).await } else { kinds::run(operation, step, context).await }
}

fn passing(error: StepError) -> String {
    match error {
        StepError::Passing(why) => why,
        StepError::Failed(failure) => format!("{}: {}", failure.code, failure.message),
        StepError::Back(step) => format!("it has to go back to `{step}`"),
    }
}

impl Operation {
    fn audit(&self, outcome: &str, after: &Value, at: logseal_core::UnixNanos) -> AuditEntry {
        let outcome = match &self.document.failure {
            Some(failure) => format!("{outcome}: {}", failure.code),
            None => outcome.to_owned(),
        };
        AuditEntry {
            at,
            actor: self.document.actor.clone(),
            action: self.document.intent.action().to_owned(),
            resource: self.row.target.clone(),
            operation: Some(self.row.id),
            outcome,
            before: self.document.before.to_string(),
            after: after.to_string(),
        }
    }
}
