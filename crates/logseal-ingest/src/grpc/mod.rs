//! OTLP over gRPC: `LogsService/Export`, health, reflection and what the server's owner adds, on one HTTP/2 listener.
//!
//! ```text
//! Listener -> connection (limit, TLS, preface) -> tonic's HTTP/2 -> dispatch -> export -> Intake
//!                                                                     \----> health, reflection v1 and v1alpha, `Services`
//! ```
//!
//! Memory that a client can make the server take beside the budget is bounded by its calls: each has at most `connection::STREAM_WINDOW` of
//! unread body bytes until it is refused, which happens at once if it has no credentials or too many calls are held.

mod answer;
mod deadline;
mod describe;
mod export;
mod framing;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use logseal_tls::Listener;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing::{info, warn};

use crate::IngestError;
use crate::connection::{
    self, ERROR_RESETS, FRAME_BYTES, HEADER_BYTES, KEEPALIVE, KEEPALIVE_ANSWER, PENDING_RESETS, Remote, STREAM_WINDOW,
    connection_window,
};
use crate::door::Door;

/// What is spoken here, by its ALPN name.
pub const PROTOCOLS: &[&str] = &["h2"];

/// What the owner of a server tells it while it runs.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Whether health says `SERVING`. Calls are taken in either way: the intake knows better for each workspace.
    pub ready: watch::Receiver<bool>,
    /// Becomes true to stop the server; a sender that is gone stops it too.
    pub shutdown: watch::Receiver<bool>,
}

/// What a listener serves beside OTLP, health and reflection: whose it is, this crate does not know.
///
/// Its calls are outside the byte budget and come with whatever credentials their clients send, so each service has to check its callers
/// before it reads a body, and to bound what they can make it hold. It is to end long answers when the server stops.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// The services.
    pub routes: Routes,
    /// Encoded `google.protobuf.FileDescriptorSet`s, for reflection.
    pub descriptors: Vec<&'static [u8]>,
}

/// Serves `listener` until [`Lifecycle::shutdown`]; then accepts nothing new, lets calls under way finish for at most
/// `ingest.drain_ms`, cuts what is left, and returns.
///
/// # Errors
///
/// [`IngestError::Descriptors`] and [`IngestError::Transport`].
pub async fn serve(
    listener: Listener,
    door: Door,
    services: Services,
    lifecycle: Lifecycle,
) -> Result<(), IngestError> {
    let limits = *door.admission.limits();
    let mut health = HealthReporter::new();
    let dispatch = Dispatch { routes: describe::routes(&health, services)?, door: Arc::new(door.clone()) };
    let (end, is_end) = watch::channel(false);
    let (drain, is_drain) = oneshot::channel();
    let connections = connection::incoming(listener, door.places, connection::PREFACE_TIME, is_end, door.meter);

    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(&limits))
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.streams)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
        .serve_with_incoming_shutdown(dispatch, connections, async {
            // A steward that is gone cannot happen before the server is: both are polled below.
            let _ = is_drain.await;
        });

    let steward = async {
        let Lifecycle { ready, mut shutdown } = lifecycle;
        tokio::select! {
            () = describe::follow(&health, ready) => (),
            _ = shutdown.wait_for(|stop| *stop) => (),
        }
        describe::stop(&mut health).await;
        info!("the gRPC server drains");
        let _ = drain.send(());
        sleep(limits.drain).await;
        warn!("calls were still under way at the end of the drain (setting `ingest.drain_ms`); they are cut");
        end.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = server => result.map_err(IngestError::Transport),
        () = steward => Ok(()),
    }
}

/// Sends `Export` straight to its handler and everything else through tonic's routes, which also have the answer to
/// methods that do not exist.
#[derive(Clone, Debug)]
struct Dispatch {
    door: Arc<Door>,
    routes: Routes,
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // tonic's routes are always ready; readiness here must not depend on them for `Export`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let remote: Remote = request.extensions_mut().remove().unwrap_or_default();
        let under_way = remote.seat.call();
        if request.uri().path() == export::PATH {
            let door = Arc::clone(&self.door);
            return Box::pin(async move {
                let _under_way = under_way;
                Ok(export::export(&door, &remote, request).await)
            });
        }
        let admitted = match describe::admit(&remote, request.uri().path()) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::pin(ready(Ok(refusal.into_http()))),
        };
        // Each apart, so that services need not know this crate's type.
        request.extensions_mut().insert(remote.client);
        request.extensions_mut().insert(remote.peer);
        request.extensions_mut().insert(remote.seat.standing().clone());
        let answer = Service::<Request<Body>>::call(&mut self.routes, request);
        Box::pin(async move {
            let _under_way = under_way;
            Ok(describe::hold(admitted, answer.await?))
        })
    }
}
