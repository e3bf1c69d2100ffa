//! The methods of `logseal.v1.Operations`.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::Stream;
use logseal_core::OperationId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status};

use super::message::message;
use super::v1::operations_server;
use super::{listing, status, v1};
use crate::operation::Operation;
use crate::operation::runner::Operations;

/// How long a wait takes of which nobody says how long.
const WAIT: Duration = Duration::from_secs(30);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What calls may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Calls that wait or watch at the same time. Each costs a stream of its connection, a timer and a place in a queue of changes.
    pub(super) watchers: usize,
    /// How long the end of a canceled operation is waited for.
    pub(super) cancel: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { watchers: 256, cancel: Duration::from_secs(30) }
    }
}

/// The service.
#[derive(Debug)]
pub(super) struct OperationsService {
    operations: Arc<Operations>,
    shutdown: watch::Receiver<bool>,
    watchers: Arc<Semaphore>,
    bounds: Bounds,
}

impl OperationsService {
    pub(super) fn new(operations: Arc<Operations>, shutdown: watch::Receiver<bool>, bounds: Bounds) -> Self {
        Self { operations, shutdown, watchers: Arc::new(Semaphore::new(bounds.watchers)), bounds }
    }

    /// A place among those who wait and watch.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| status::too_many(self.bounds.watchers))
    }

    fn shown(&self, operation: &Operation) -> Response<v1::Operation> {
        Response::new(message(operation, self.operations.within(operation.row.id)))
    }
}

fn id(text: &str) -> Result<OperationId, Status> {
    text.parse().map_err(|_| status::invalid(format!("`id` is `{text}`, which is no operation's id: it is a UUID")))
}

fn patience(timeout: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(timeout) = timeout else { return Ok(WAIT) };
    let timeout = Duration::try_from(timeout)
        .map_err(|_| status::invalid("`timeout` is negative or no duration; it can be 0 or more"))?;
    Ok(timeout.min(LONGEST_WAIT))
}

#[tonic::async_trait]
impl operations_server::Operations for OperationsService {
    type WatchOperationStream = Changes;

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let id = id(&request.get_ref().id)?;
        let found = self.operations.find(id).await?.ok_or_else(|| status::unknown(id))?;
        Ok(self.shown(&found))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        listing::list(&self.operations, request.into_inner()).await.map(Response::new)
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let (id, patience) = (id(&request.id)?, patience(request.timeout)?);
        let _place = self.place()?;
        let mut shutdown = self.shutdown.clone();
        let found = tokio::select! {
            found = self.operations.wait(id, patience) => found?,
            _ = shutdown.wait_for(|stop| *stop) => return Err(status::stopping()),
        };
        Ok(self.shown(&found.ok_or_else(|| status::unknown(id))?))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let id = id(&request.get_ref().id)?;
        let mut shutdown = self.shutdown.clone();
        let ended = tokio::select! {
            ended = self.operations.cancel(id, self.bounds.cancel) => ended?,
            _ = shutdown.wait_for(|stop| *stop) => return Err(status::stopping()),
        };
        Ok(self.shown(&ended))
    }

    async fn watch_operation(&self, request: Request<v1::WatchOperationRequest>) -> Result<Response<Changes>, Status> {
        let id = id(&request.get_ref().id)?;
        let place = self.place()?;
        let changes = super::watch::watch(Arc::clone(&self.operations), id, self.shutdown.clone(), place).await?;
        Ok(Response::new(Changes(Box::pin(changes))))
    }
}

/// The answer of `WatchOperation`.
pub(super) struct Changes(Pin<Box<dyn Stream<Item = Result<v1::Operation, Status>> + Send>>);

impl Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Stream for Changes {
    type Item = Result<v1::Operation, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
