//! Stopping cleanly.

use std::io::Error;
use std::time::Duration;

use logseal_catalog::Catalog;
use logseal_ingest::IngestError;
use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::ingest::Ingest;
use super::usage::UsageKeeper;

/// Longest time for everything that is under way: a clean stop takes 30 s at most, also with a store that hangs.
const DRAIN: Duration = Duration::from_secs(22);

/// How long the store may fail at a stop before its segments are left to the next start.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest time for the last changes of the catalog and for closing it.
const CLOSE: Duration = Duration::from_secs(2);

/// Longest time that requests to administer something may take to end.
const ADMINISTRATION_DRAIN: Duration = Duration::from_secs(3);

/// A clean stop takes no longer.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// SIGTERM and SIGINT, caught from the moment this exists: made before anybody is told that the server is ready.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for a signal, or for a server to end by itself, and says which it was.
    pub(super) async fn reason(
        mut self,
        grpc: &mut JoinHandle<Result<(), IngestError>>,
        http: &mut JoinHandle<()>,
        management: &mut JoinHandle<std::io::Result<()>>,
        vault: &mut JoinHandle<std::io::Result<()>>,
    ) -> Reason {
        tokio::select! {
            _ = self.terminate.recv() => Reason::Asked("SIGTERM"),
            _ = self.interrupt.recv() => Reason::Asked("SIGINT"),
            _ = grpc => Reason::Broken("the OTLP/gRPC server ended by itself"),
            _ = http => Reason::Broken("the OTLP/HTTP server ended by itself"),
            _ = management => Reason::Broken("the management server ended by itself"),
            _ = vault => Reason::Broken("the key vault's server ended by itself"),
        }
    }
}

/// Why the server stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// By this signal.
    Asked(&'static str),
    /// Because of this.
    Broken(&'static str),
}

/// Lets receivers finish their calls, closes the log, makes segments of what is open, then ends the management API and the key vault
/// and closes the catalog. What does not become a segment in time stays in the log for the next start.
pub(super) async fn in_order(
    shutdown: watch::Sender<bool>,
    ingest: Ingest,
    (grpc, http): (JoinHandle<Result<(), IngestError>>, JoinHandle<()>),
    administration: [(&str, JoinHandle<std::io::Result<()>>); 2],
    usage: &UsageKeeper,
    catalog: &Catalog,
) {
    let _ = shutdown.send(true);
    let Ingest { logs, cutter, backlog, .. } = ingest;
    let drained = timeout(DRAIN, async {
        // Both drain at the same time.
        report("OTLP/HTTP", http.await.map_err(Error::other));
        report("OTLP/gRPC", grpc.await.map_err(Error::other).and_then(|ended| ended.map_err(Error::other)));
        logs.end().await;
        // A store that does not take segments is not waited for: the log has the records.
        tokio::select! {
            () = cutter.flush() => true,
            () = backlog.store_keeps_failing(PATIENCE) => false,
        }
    });
    if !drained.await.unwrap_or(false) {
        info!("not all records became segments in time; they are in the write-ahead log for the next start");
    }
    let ended = timeout(ADMINISTRATION_DRAIN, async {
        for (what, server) in administration {
            report(what, server.await.map_err(Error::other).and_then(|ended| ended));
        }
    });
    if ended.await.is_err() {
        warn!("requests to the management API or the key vault did not end in time");
    }
    let closed = timeout(CLOSE, async {
        usage.save().await;
        catalog.close().await
    });
    if !matches!(closed.await, Ok(Ok(()))) {
        warn!("the catalog was not closed cleanly; the next start takes care of it");
    }
}

fn report(what: &str, ended: std::io::Result<()>) {
    if let Err(error) = ended {
        warn!(what, %error, "a server ended with an error");
    }
}
