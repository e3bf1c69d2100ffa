//! Stopping cleanly.

use std::time::Duration;

use axum::Router;
use logseal_catalog::Catalog;
use logseal_ingest::IngestError;
use logseal_ingest::pipeline::batcher::Batcher;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal as listen};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::error::CommandError;

/// Longest time that management requests under way may take to end.
const MANAGEMENT_DRAIN: Duration = Duration::from_secs(5);

/// Waits for SIGTERM or SIGINT and gives its name.
pub(super) async fn signal() -> std::io::Result<&'static str> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Serves the management API until `shutdown` becomes true.
pub(super) async fn serve_management(
    listener: TcpListener,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    // A small answer in two writes would wait 40 ms for the client's delayed acknowledgement otherwise.
    let listener = axum::serve::ListenerExt::tap_io(listener, |tcp| drop(tcp.set_nodelay(true)));
    let stopped = async move { drop(shutdown.wait_for(|stop| *stop).await) };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

/// Cuts what is open while receivers finish their calls, then ends the management API and closes the catalog.
pub(super) async fn in_order(
    shutdown: watch::Sender<bool>,
    batcher: Batcher,
    grpc: JoinHandle<Result<(), IngestError>>,
    management: JoinHandle<std::io::Result<()>>,
    catalog: &Catalog,
) -> Result<(), CommandError> {
    let _ = shutdown.send(true);
    // Calls under way wait for their segments, so the batches are cut now and whatever still comes is cut at once.
    let (grpc, ()) = tokio::join!(grpc, batcher.flush());
    batcher.flush().await;
    match timeout(MANAGEMENT_DRAIN, management).await {
        Err(_) => warn!("management requests did not end in time"),
        Ok(ended) => report("the management API", ended.map_err(std::io::Error::other).and_then(|ended| ended)),
    }
    if let Err(error) = catalog.close().await {
        warn!(%error, "the catalog was not closed cleanly");
    }
    match grpc {
        Ok(ended) => ended.map_err(CommandError::start("serve OTLP/gRPC")),
        Err(panic) => Err(CommandError::Start { what: "serve OTLP/gRPC", source: Box::new(panic) }),
    }
}

fn report(what: &str, ended: std::io::Result<()>) {
    if let Err(error) = ended {
        warn!(what, %error, "a server ended with an error");
    }
}
