//! The stream of an operation's changes.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, unfold};
use logseal_catalog::OperationState;
use logseal_core::OperationId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Status;

use super::message::message;
use super::{status, v1};
use crate::operation::Operation;
use crate::operation::runner::Operations;

/// How often the progress within a step is looked at.
const PROGRESS: Duration = Duration::from_secs(1);

/// One client that watches one operation. It is polled by its connection alone: when that is gone, so is this.
struct Watcher {
    operations: Arc<Operations>,
    id: OperationId,
    /// The steps of the task that runs it; `None` while there is none.
    changes: Option<Receiver<Arc<Operation>>>,
    /// What was read and has to be sent.
    next: Option<Operation>,
    /// What was sent last, with its share.
    sent: Option<(Operation, i32)>,
    progress: Interval,
    shutdown: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// What a watcher does after a wait.
enum Event {
    Change(Arc<Operation>),
    /// Some were missed.
    Lagged,
    /// The task is gone.
    Closed,
    Tick,
    Stop,
}

/// The changes of the operation `id`, beginning with what it is now, as long as `place` is held.
pub(super) async fn watch(
    operations: Arc<Operations>,
    id: OperationId,
    shutdown: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<v1::Operation, Status>> + Send + 'static, Status> {
    // In this order: what changes after the operation was read is in the queue.
    let changes = operations.changes(id);
    let now = operations.find(id).await?.ok_or_else(|| status::unknown(id))?;
    let mut progress = interval(PROGRESS);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress.reset();
    let watcher = Watcher { operations, id, changes, next: Some(now), sent: None, progress, shutdown, _place: place };
    Ok(unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.advance().await {
            Ok(Some(message)) => Some((Ok(message), Some(watcher))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Watcher {
    /// The next message; `None` after the last one.
    async fn advance(&mut self) -> Result<Option<v1::Operation>, Status> {
        loop {
            if let Some(next) = self.next.take() {
                return Ok(Some(self.send(next, 0.0)));
            }
            if self.sent.as_ref().is_some_and(|(sent, _)| sent.row.state != OperationState::Running) {
                return Ok(None);
            }
            match self.event().await {
                Event::Change(change) if self.is_news(&change) => return Ok(Some(self.send((*change).clone(), 0.0))),
                Event::Change(_) | Event::Lagged => {}
                Event::Closed => {
                    self.changes = None;
                    self.read().await?;
                }
                // Nobody runs it yet, or any more: an operation that cannot be begun or gone on with may be one day.
                Event::Tick if self.changes.is_none() => {
                    self.changes = self.operations.changes(self.id);
                    self.read().await?;
                }
                Event::Tick => {
                    let within = self.operations.within(self.id);
                    if let Some((sent, percent)) = self.sent.take() {
                        let shown = message(&sent, within);
                        let is_news = shown.percent_complete > percent;
                        self.sent = Some((sent, percent.max(shown.percent_complete)));
                        if is_news {
                            return Ok(Some(shown));
                        }
                    }
                }
                Event::Stop => return Err(status::stopping()),
            }
        }
    }

    async fn event(&mut self) -> Event {
        let changes = &mut self.changes;
        let change = async {
            match changes {
                Some(changes) => changes.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Changes that are there go first, also before the end of the server.
            biased;
            change = change => match change {
                Ok(change) => Event::Change(change),
                Err(RecvError::Lagged(_)) => Event::Lagged,
                Err(RecvError::Closed) => Event::Closed,
            },
            // A sender that is gone is a server that is.
            _ = self.shutdown.wait_for(|stop| *stop) => Event::Stop,
            _ = self.progress.tick() => Event::Tick,
        }
    }

    /// Reads the operation, and has it sent when it has changed.
    async fn read(&mut self) -> Result<(), Status> {
        let now = self.operations.find(self.id).await?.ok_or_else(|| status::unknown(self.id))?;
        if self.is_news(&now) {
            self.next = Some(now);
        }
        Ok(())
    }

    fn is_news(&self, operation: &Operation) -> bool {
        self.sent.as_ref().is_none_or(|(sent, _)| operation.row.version > sent.row.version)
    }

    fn send(&mut self, operation: Operation, within: f64) -> v1::Operation {
        let shown = message(&operation, within);
        self.sent = Some((operation, shown.percent_complete));
        shown
    }
}
