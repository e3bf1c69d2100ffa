//! OTLP over gRPC: `LogsService/Export`, health and reflection on one HTTP/2 listener.
//!
//! ```text
//! TcpListener -> connection (limit, preface) -> tonic's HTTP/2 -> dispatch -> export -> Intake
//!                                                                     \----> health, reflection v1 and v1alpha
//! ```
//!
//! Memory that a client can make the server take without credentials is bounded by its connections: each has at most
//! [`CONNECTION_WINDOW`] of unread body bytes, one frame of [`FRAME_BYTES`] under way, and headers.

mod answer;
mod connection;
mod deadline;
mod describe;
mod export;
mod framing;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing::{info, warn};

use crate::IngestError;
use crate::door::Door;

/// Unread body bytes of one call: 1 MiB carries 50 MB/s over a round trip of 20 ms, and most requests whole.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// Unread body bytes of one connection: four calls at full speed. More would let every connection take more memory that
/// the budget does not see; HTTP/2's adaptive window is off for the same reason.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Largest HTTP/2 frame. Four times the default saves most of the work per frame; one such frame is less than half of a
/// stream's window, so that a held call's first frame does not open the window for more.
pub const FRAME_BYTES: u32 = 64 * 1024;

/// Largest list of headers: a key, a trace context and room.
const HEADER_BYTES: u32 = 16 * 1024;

/// Pings find clients that went away without a word: `KEEPALIVE` of silence, then `KEEPALIVE_ANSWER` to answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Streams that a client opened and reset before we saw them; one more ends the connection (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Streams that we had to reset for a client's errors; one more ends the connection.
const ERROR_RESETS: usize = 256;

/// What the owner of a server tells it while it runs.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Whether health says `SERVING`. Calls are taken in either way: the intake knows better for each workspace.
    pub ready: watch::Receiver<bool>,
    /// Becomes true to stop the server; a sender that is gone stops it too.
    pub shutdown: watch::Receiver<bool>,
}

/// Serves `listener` until [`Lifecycle::shutdown`]; then accepts nothing new, lets calls under way finish for at most
/// `ingest.drain_ms`, cuts what is left, and returns.
///
/// # Errors
///
/// [`IngestError::Descriptors`] and [`IngestError::Transport`].
pub async fn serve(listener: TcpListener, door: Door, lifecycle: Lifecycle) -> Result<(), IngestError> {
    let limits = *door.admission.limits();
    let mut health = HealthReporter::new();
    let dispatch = Dispatch { routes: describe::routes(&health)?, door: Arc::new(door.clone()) };
    let (end, is_end) = watch::channel(false);
    let (drain, is_drain) = oneshot::channel();
    let connections = connection::incoming(listener, limits.connections, connection::PREFACE_TIME, is_end, door.meter);

    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == export::PATH {
            let door = Arc::clone(&self.door);
            return Box::pin(async move { Ok(export::export(&door, request).await) });
        }
        Box::pin(Service::<Request<Body>>::call(&mut self.routes, request))
    }
}
