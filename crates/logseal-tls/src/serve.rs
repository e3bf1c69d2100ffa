//! HTTP/1.1 and HTTP/2 over TLS or plain, with bounds on connections and on times.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use logseal_core::Peer;
use metrics::{Counter, Unit, counter, describe_counter};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower::{Service, ServiceExt as _};
use tracing::{debug, warn};

use crate::{Acceptor, Listener, Paced, Place, Places, pauses};

/// Counts connections that gave way to newcomers, by `listener`.
const EVICTIONS: &str = "logseal_connections_evicted_total";

/// The protocols that [`serve`] speaks, for [`Acceptor::new`].
pub const PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// How long to wait when the system gives no further connection, for want of file descriptors most of all.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a client of HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(60);

/// Most bytes of a request's head.
const HEAD_BYTES: usize = 32 * 1024;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What metrics call the listener.
    pub name: &'static str,
    /// Connections at the same time. A further one takes the place of one that is not in use ([`Places`]), or waits in the system's queue.
    pub connections: usize,
    /// Requests at the same time on one connection.
    pub streams: u32,
    /// How long the first request may take to come.
    pub head: Duration,
    /// How long a connection stays with nothing under way after its first request; over HTTP/2 up to twice that. The head of a
    /// request may take as long.
    pub idle: Duration,
    /// How long requests under way get to finish at a stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Clients are few: command lines, SDKs and the programs that use them. A request that meets the end of its connection is lost, so the
        // end has to be the client's: they give up connections that they do not use after 5 minutes at most (Prometheus), most after one or two.
        Self {
            name: "management",
            connections: 256,
            streams: 32,
            head: Duration::from_secs(15),
            idle: Duration::from_secs(6 * 60),
            drain: Duration::from_secs(2),
        }
    }
}

/// Serves `service` on `listener` until `shutdown` becomes true; then requests under way get to finish. Each request has a [`Peer`] among
/// its extensions, and the [`Standing`](logseal_core::Standing) of its connection.
///
/// # Errors
///
/// None today; a listener that cannot go on would end with one.
pub async fn serve<S, B>(
    listener: Listener,
    service: S,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let Listener { tcp, acceptor } = listener;
    let places = Places::new(limits.connections, evictions(limits.name));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no connection can be taken now");
                sleep(PAUSE).await;
                continue;
            }
        };
        let peer = Peer::new(address);
        let place = tokio::select! {
            place = places.wait(peer) => place,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let (acceptor, service, shutdown) = (acceptor.clone(), service.clone(), shutdown.clone());
        connections.spawn(async move {
            let given_away = place.given_away();
            let served = connection(stream, (peer, &place), &acceptor, service, limits, shutdown);
            let ended = tokio::select! {
                ended = served => ended,
                // Its place is another's already: nothing of it is waited for.
                () = given_away => Err("it gave way to a newcomer".into()),
            };
            if let Err(error) = ended {
                // Clients come with other authorities, or with no TLS, as they like.
                debug!(error, "a connection ended with an error");
            }
        });
    }
    let _ = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection<S, B>(
    stream: TcpStream,
    (peer, place): (Peer, &Place),
    acceptor: &Acceptor,
    service: S,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    // A small answer in two writes would wait 40 ms for the client's delayed acknowledgement otherwise.
    let _ = stream.set_nodelay(true);
    let stream = Paced::new(acceptor.accept(stream).await?, pauses(limits.name));
    let (seat, counted) = (place.seat(), place.seat().clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(counted.standing().clone());
        let (service, call) = (service.clone(), counted.call());
        async move {
            let answer = service.oneshot(request).await;
            drop(call);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper counts the time between two requests as well.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // hyper has no limit for the first bytes, which tell the version.
    let mut ticks = interval_at(Instant::now() + limits.head, limits.idle);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = shutdown.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {
                match seat.is_idle_since(seen) {
                    // Who has asked for nothing waits for nothing.
                    true if seen == 0 => return Ok(()),
                    true => break,
                    false => {}
                }
                seen = seat.begun();
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    timeout(limits.idle, connection).await?
}

/// What counts connections of `listener` that give way to newcomers.
pub fn evictions(listener: &'static str) -> Counter {
    counter!(EVICTIONS, "listener" => listener)
}

/// Tells the recorder of metrics what this module counts.
pub(crate) fn describe_metrics() {
    describe_counter!(EVICTIONS, Unit::Count, "connections that gave way to newcomers because all places were taken");
}
