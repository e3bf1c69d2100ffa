//! OTLP over HTTP: `POST /v1/logs` in protobuf or JSON, over HTTP/1.1, or over HTTP/2 by TLS's word or by prior knowledge.
//!
//! ```text
//! Listener -> connection (limit, TLS, first bytes) -> hyper -> call: path, method -> credentials ... -> Intake
//! ```
//!
//! Memory that a client can make the server take beside the budget: a head of `connection::HEADER_BYTES` and as much of its body on a
//! connection of HTTP/1.1; on one of HTTP/2 what the gRPC listener grants.

mod answer;
mod body;
mod call;

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use logseal_tls::Listener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::connection::{
    self, ERROR_RESETS, FRAME_BYTES, HEADER_BYTES, KEEPALIVE, KEEPALIVE_ANSWER, PENDING_RESETS, STREAM_WINDOW,
    connection_window,
};
use crate::door::Door;
use crate::settings::DoorLimits;

/// What is spoken here, by its ALPN names.
pub const PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// The path of the call.
pub const PATH: &str = "/v1/logs";

/// Time in which the next head must have come on a connection of HTTP/1.1; a connection that does nothing ends with it as well. Longer
/// than Go's clients keep a connection (90 s), so that theirs is the end of it.
const HEAD_TIME: Duration = Duration::from_secs(120);

/// Time in which the first head must have come: HTTP's clients connect when they have something to ask.
const FIRST_TIME: Duration = Duration::from_secs(15);

/// Serves `listener` until `shutdown` becomes true, or nobody is left who could say so; then accepts nothing new, lets calls under way
/// finish for at most `ingest.drain_ms`, and cuts what is left.
pub async fn serve(listener: Listener, door: Door, mut shutdown: watch::Receiver<bool>) {
    let limits = *door.admission.limits();
    let builder = builder(&limits);
    let (end, is_end) = watch::channel(false);
    let graceful = GracefulShutdown::new();
    {
        let (places, meter) = (Arc::clone(&door.places), Arc::clone(&door.meter));
        let incoming = connection::incoming(listener, places, connection::PREFACE_TIME, is_end.clone(), meter);
        let mut incoming = pin!(incoming);
        let door = Arc::new(door);
        loop {
            let connection = tokio::select! {
                next = incoming.next() => next,
                _ = shutdown.wait_for(|stop| *stop) => break,
            };
            let Some(Ok(connection)) = connection else { continue };
            let door = Arc::clone(&door);
            let remote = connection.remote.clone();
            let seat = remote.seat.clone();
            let service = service_fn(move |request| {
                let (door, remote) = (Arc::clone(&door), remote.clone());
                let under_way = remote.seat.call();
                async move {
                    let _under_way = under_way;
                    Ok::<_, Infallible>(call::answer(&door, &remote, request).await)
                }
            });
            let served = builder.serve_connection(TokioIo::new(connection), service).into_owned();
            let served = graceful.watch(served);
            let mut is_end = is_end.clone();
            tokio::spawn(async move {
                let asks_nothing = async {
                    sleep(FIRST_TIME).await;
                    if seat.begun() > 0 {
                        pending::<()>().await;
                    }
                };
                // hyper does not look at a connection while it waits for a handler that reads no body.
                tokio::select! {
                    ended = served => if let Err(error) = ended {
                        debug!(error, "a connection ended with an error");
                    },
                    () = asks_nothing => debug!("no request came on a new connection"),
                    _ = is_end.wait_for(|end| *end) => {}
                }
            });
        }
    }
    info!("the OTLP/HTTP server drains");
    let mut drained = pin!(graceful.shutdown());
    if timeout(limits.drain, &mut drained).await.is_err() {
        warn!("calls were still under way at the end of the drain (setting `ingest.drain_ms`); they are cut");
        end.send_replace(true);
        drained.await;
    }
}

fn builder(limits: &DoorLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        // Of head and body alike: hyper has one buffer for both.
        .max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits))
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS);
    builder
}
