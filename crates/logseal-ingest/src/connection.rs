//! Connections: accepted up to a limit, timed out before their first request, ended when draining takes too long; and what one may
//! take beside the budget.
//!
//! At the limit a newcomer takes the place of a connection that showed no good credential, or was not used for a while ([`Places`]).
//!
//! Where they come over TLS, a handshake has its own time and holds nothing but its place within the limit, and none waits for another.
//!
//! tonic and hyper leave all three to whoever brings the connections, and tonic's own accept loop spins when the process has no file
//! descriptors left.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{Stream, unfold};
use logseal_core::Peer;
use logseal_tls::{ClientNames, Listener, Paced, Place, Places, Seat};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::admission::Counted;
use crate::meter::Meter;
use crate::settings::DoorLimits;

/// Unread body bytes of one call: what each held call takes outside the budget. 128 KiB carry 6 MB/s over a round trip of 20 ms, and
/// a connection carries many calls.
pub(crate) const STREAM_WINDOW: u32 = 128 * 1024;

/// Unread body bytes of one connection beside those of held calls: what calls that are being read have under way. HTTP/2's adaptive
/// window is off, since memory that it would take is outside the budget.
const READING_WINDOW: u32 = 4 * 1024 * 1024;

/// Largest HTTP/2 frame. Twice the default saves work per frame; it is less than half of a stream's window, so that reading the first
/// one, which says how long the body is, does not open a held call's window for more.
pub(crate) const FRAME_BYTES: u32 = 32 * 1024;

/// Largest list of headers: a key, a trace context and room.
pub(crate) const HEADER_BYTES: u32 = 16 * 1024;

/// Pings find clients that went away without a word: `KEEPALIVE` of silence, then `KEEPALIVE_ANSWER` to answer.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);
pub(crate) const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Streams that a client opened and reset before we saw them; one more ends the connection (CVE-2023-44487).
pub(crate) const PENDING_RESETS: usize = 20;

/// Streams that we had to reset for a client's errors; one more ends the connection.
pub(crate) const ERROR_RESETS: usize = 256;

/// Unread body bytes of one HTTP/2 connection. Held calls must never use it up: those that have their budget would wait for the rest of
/// their bodies, and hold the budget that the others wait for.
pub(crate) fn connection_window(limits: &DoorLimits) -> u32 {
    let held_calls = limits.held_calls.min(limits.streams as usize);
    // What HTTP/2 can express is far more than the calls of one connection can hold.
    let most = (1 << 31) - 1;
    u32::try_from(held_calls).unwrap_or(most).saturating_mul(STREAM_WINDOW).saturating_add(READING_WINDOW).min(most)
}

/// Bytes of the HTTP/2 client preface (RFC 9113, section 3.4). No request of HTTP/1.1 that names its host is shorter.
const PREFACE_BYTES: usize = 24;

/// Time in which the preface must have come: a client has it ready when it connects.
pub(crate) const PREFACE_TIME: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which is what running out of file descriptors looks like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of `listener`, each with one of `places`, each to send its preface within `preface_time`, all ended once `end` is true.
///
/// Where no connection can give way a further one is closed at once: its client then knows, and tries again, where one that waits in the
/// backlog would sit out its deadline without a word.
pub(crate) fn incoming(
    listener: Listener,
    places: Arc<Places>,
    preface_time: Duration,
    end: watch::Receiver<bool>,
    meter: Arc<Meter>,
) -> impl Stream<Item = io::Result<Connection>> {
    let Listener { tcp, acceptor } = listener;
    // They end with the stream that has them.
    let handshakes = JoinSet::<io::Result<Connection>>::new();
    unfold((tcp, places, end, meter, handshakes), move |(tcp, places, end, meter, mut handshakes)| {
        let acceptor = acceptor.clone();
        async move {
            loop {
                let accepted = tokio::select! {
                    accepted = tcp.accept() => accepted,
                    Some(ended) = handshakes.join_next() => match ended {
                        Ok(Ok(connection)) => return Some((Ok(connection), (tcp, places, end, meter, handshakes))),
                        Ok(Err(error)) => {
                            // Clients come with other authorities, or with no TLS, as they like.
                            meter.handshakes_failed.increment(1);
                            debug!(%error, "a handshake failed");
                            continue;
                        }
                        Err(_) => continue,
                    },
                };
                let (stream, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let peer = Peer::new(address);
                let Some(place) = places.take(peer) else {
                    meter.connections_refused.increment(1);
                    debug!("a connection was closed at the limit (setting `ingest.max_connections`)");
                    continue;
                };
                // Delayed acknowledgements cost 40 ms an answer otherwise. A socket that refuses the option is dead already.
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let (counted, ending) = (Counted::new(&meter.connections), end.clone());
                let pauses = meter.pauses.clone();
                let given_away = place.given_away();
                let begun = move |stream: logseal_tls::Stream| Connection {
                    remote: Remote {
                        client: stream.client_names(),
                        peer,
                        seat: place.seat().clone(),
                        ..Remote::default()
                    },
                    stream: Paced::new(stream, pauses),
                    preface_missing: PREFACE_BYTES,
                    cut: Box::pin(cut(ending.clone(), place.given_away(), Some(preface_time))),
                    is_cut: None,
                    end: ending,
                    place,
                    _counted: counted,
                };
                if acceptor.is_tls() {
                    let acceptor = acceptor.clone();
                    handshakes.spawn(async move {
                        tokio::select! {
                            accepted = acceptor.accept(stream) => accepted.map(begun),
                            () = given_away => Err(io::ErrorKind::ConnectionAborted.into()),
                        }
                    });
                    continue;
                }
                let connection = begun(logseal_tls::Stream::Plain(stream));
                return Some((Ok(connection), (tcp, places, end, meter, handshakes)));
            }
        }
    })
}

type Cut = Pin<Box<dyn Future<Output = io::ErrorKind> + Send>>;

/// Waits for the reason to cut a connection.
async fn cut(
    mut end: watch::Receiver<bool>,
    given_away: impl Future<Output = ()>,
    time: Option<Duration>,
) -> io::ErrorKind {
    let timer = async {
        match time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A sender that is gone ends connections too: nobody is left who could.
        _ = end.wait_for(|end| *end) => io::ErrorKind::ConnectionAborted,
        () = given_away => io::ErrorKind::ConnectionAborted,
        () = timer => io::ErrorKind::TimedOut,
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Whom the client proved to be.
    pub(crate) client: ClientNames,
    /// Where it is.
    pub(crate) peer: Peer,
    /// Its place.
    pub(crate) seat: Seat,
    /// Calls that it may yet make at once without credentials: what each of them holds is in no budget.
    pub(crate) open_calls: Arc<Semaphore>,
}

/// Most of these of one connection. A client asks for the health of a server and follows it: that is two.
pub(crate) const OPEN_CALLS: usize = 16;

impl Default for Remote {
    fn default() -> Self {
        Self {
            client: ClientNames::default(),
            peer: Peer::unknown(),
            seat: Seat::default(),
            open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
        }
    }
}

/// A stream that fails when it is to be cut.
pub(crate) struct Connection {
    /// Who is at its other end.
    pub(crate) remote: Remote,
    stream: Paced<logseal_tls::Stream>,
    preface_missing: usize,
    cut: Cut,
    is_cut: Option<io::ErrorKind>,
    end: watch::Receiver<bool>,
    place: Place,
    _counted: Counted,
}

impl Connection {
    /// Replaces `Pending` by an error once the connection is to be cut. Data that is there goes first.
    fn or_cut<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            return progress;
        }
        if self.is_cut.is_none()
            && let Poll::Ready(kind) = self.cut.as_mut().poll(cx)
        {
            self.is_cut = Some(kind);
        }
        self.is_cut.map_or(Poll::Pending, |kind| Poll::Ready(Err(kind.into())))
    }

    fn received(&mut self, bytes: usize) {
        if self.preface_missing > 0 {
            self.preface_missing = self.preface_missing.saturating_sub(bytes);
            if self.preface_missing == 0 && self.is_cut.is_none() {
                // From here on keepalive pings tell whether the client is there.
                self.cut = Box::pin(cut(self.end.clone(), self.place.given_away(), None));
            }
        }
    }
}

/// Beside each request: `Services` may ask where it comes from.
impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let progress = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received(buffer.filled().len() - before);
        self.or_cut(cx, progress)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, data);
        self.or_cut(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_cut(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.or_cut(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.or_cut(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt;
    use logseal_core::{Clock as _, SystemClock};
    use logseal_crypto::{Key256, RootKey};
    use logseal_tls::{Acceptor, Authority, Connector};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Short, so that tests need not wait for the five seconds of the product.
    const PREFACE: Duration = Duration::from_millis(50);

    fn places(most: usize) -> Arc<Places> {
        Places::new(most, metrics::Counter::noop())
    }

    async fn connect(most: usize) -> (TcpStream, impl Stream<Item = io::Result<Connection>>, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (end, is_end) = watch::channel(false);
        let listener = Listener::plain(listener);
        let connections = incoming(listener, places(most), PREFACE, is_end, Arc::new(Meter::new()));
        (TcpStream::connect(address).await.expect("listening"), connections, end)
    }

    /// Scenario: a client connects and says nothing. Guarantee: the connection ends by itself after the
    /// preface's time; one that sent its preface stays until it is ended.
    #[tokio::test]
    async fn silence_before_the_preface_ends_a_connection() {
        let (mut client, connections, end) = connect(1).await;
        let mut connections = pin!(connections);
        let mut connection = connections.next().await.expect("a connection").expect("accepted");
        let read = tokio::time::timeout(PREFACE_TIME, connection.read_u8()).await;
        assert_eq!(read.expect("cut by then").expect_err("cut").kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(client.read(&mut [0]).await.expect("closed"), 0);
        drop(end);
    }

    #[tokio::test]
    async fn a_connection_with_preface_stays_until_the_end() {
        let (mut client, connections, end) = connect(1).await;
        let mut connections = pin!(connections);
        let mut connection = connections.next().await.expect("a connection").expect("accepted");
        client.write_all(&[b'x'; PREFACE_BYTES]).await.expect("sent");
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.expect("received");
        let more = tokio::time::timeout(4 * PREFACE, connection.read_u8()).await;
        assert!(more.is_err(), "still open");
        end.send(true).expect("watched");
        let error = connection.read_u8().await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    /// Scenario: a second connection where one is allowed, whose client presented a good key a moment ago. Guarantee: it is closed at once; a third is
    /// served when the first has gone.
    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let (first, connections, _end) = connect(1).await;
        let address = first.peer_addr().expect("connected");
        let mut connections = pin!(connections);
        let served = connections.next().await.expect("a connection").expect("accepted");
        served.remote.seat.standing().prove();
        let mut second = TcpStream::connect(address).await.expect("listening");
        let mut byte = [0];
        tokio::select! {
            closed = second.read(&mut byte) => assert_eq!(closed.ok().unwrap_or_default(), 0),
            _ = connections.next() => panic!("served beyond the limit"),
        }
        drop(served);
        let _third = TcpStream::connect(address).await.expect("listening");
        assert!(connections.next().await.expect("a connection").is_ok());
    }

    /// Scenario: all places are taken by clients that presented no key; over TLS also by such as begin no handshake. Guarantee: a newcomer gets the place
    /// of the oldest of them at once, which is ended.
    #[tokio::test]
    async fn who_presented_no_key_gives_way_to_a_newcomer() {
        let (mut first, connections, _end) = connect(1).await;
        let address = first.peer_addr().expect("connected");
        let mut connections = pin!(connections);
        first.write_all(&[b'x'; PREFACE_BYTES]).await.expect("sent");
        let mut stranger = connections.next().await.expect("a connection").expect("accepted");
        stranger.read_exact(&mut [0; PREFACE_BYTES]).await.expect("it has its preface");
        let _second = TcpStream::connect(address).await.expect("listening");
        let newcomer = connections.next().await.expect("a connection").expect("accepted");
        assert_eq!(stranger.read_u8().await.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
        drop((stranger, newcomer));
        assert_eq!(first.read(&mut [0]).await.expect("closed"), 0);
    }

    /// Scenario: of two clients one connects and never begins its handshake. Guarantee: it has a place of the limit, the other one is served
    /// meanwhile; then it is ended, and its place is free.
    #[tokio::test]
    async fn a_handshake_that_does_not_come_holds_its_place_only_for_a_while() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).expect("256 bits"));
        let authority = Authority::open(dir.path(), &root, SystemClock.now()).expect("an empty folder");
        let identity = authority.issue(&[], SystemClock.now()).expect("a certificate");
        let acceptor = Acceptor::new(identity, &["h2"]).expect("a certificate and its key");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("bound");
        let (_end, is_end) = watch::channel(false);
        let (places, meter) = (places(2), Arc::new(Meter::new()));
        let connections = incoming(Listener { tcp, acceptor }, Arc::clone(&places), PREFACE, is_end, meter);
        let mut connections = pin!(connections);
        let mut silent = TcpStream::connect(address).await.expect("listening");
        let client = Connector::trusting(authority.certificate_file()).expect("its authority");
        let (served, connected) = tokio::join!(connections.next(), client.connect("localhost", address.port()));
        let served = served.expect("a connection").expect("a handshake");
        assert!(connected.is_ok() && served.remote.client == ClientNames::default());
        assert_eq!(places.free(), 0);
        let mut byte = [0];
        tokio::select! {
            ended = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut byte)) => {
                assert_eq!(ended.expect("it is ended").ok().unwrap_or_default(), 0);
            }
            _ = connections.next() => panic!("it is no connection"),
        }
        assert_eq!(places.free(), 1);
        let mut half_open = TcpStream::connect(address).await.expect("listening");
        served.remote.seat.standing().prove();
        let (third, connected) = tokio::join!(connections.next(), client.connect("localhost", address.port()));
        assert!(third.expect("a connection").is_ok() && connected.is_ok(), "it does not wait for the half-open one");
        assert_eq!(half_open.read(&mut byte).await.ok().unwrap_or_default(), 0, "whose place it has");
        drop(served);
        assert_eq!(places.free(), 2);
    }
}
