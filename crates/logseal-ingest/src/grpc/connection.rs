//! TCP connections: accepted up to a limit, timed out before their HTTP/2 preface, ended when draining takes too long.
//!
//! tonic leaves all three to whoever brings the connections, and its own accept loop spins when the process has no file
//! descriptors left.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::admission::Counted;
use crate::meter::Meter;

/// Bytes of the HTTP/2 client preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Time in which the preface must have come: a client has it ready when it connects.
pub(super) const PREFACE_TIME: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which is what running out of file descriptors looks like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of `listener`, at most `most` at a time, each to send its preface within `preface_time`, all ended once
/// `end` is true.
///
/// Beyond the limit a connection is closed at once: its client then knows, and tries again, where one that waits in the
/// backlog would sit out its deadline without a word.
pub(super) fn incoming(
    listener: TcpListener,
    most: usize,
    preface_time: Duration,
    end: watch::Receiver<bool>,
    meter: Arc<Meter>,
) -> impl Stream<Item = io::Result<Connection>> {
    let slots = Arc::new(Semaphore::new(most));
    unfold((listener, slots, end, meter), move |(listener, slots, end, meter)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                meter.connections_refused.increment(1);
                debug!("a connection was closed at the limit (setting `ingest.max_connections`)");
                continue;
            };
            // Delayed acknowledgements cost 40 ms an answer otherwise. A socket that refuses the option is dead already.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                preface_missing: PREFACE_BYTES,
                cut: Box::pin(cut(end.clone(), Some(preface_time))),
                is_cut: None,
                end: end.clone(),
                _slot: slot,
                _counted: Counted::new(&meter.connections),
            };
            return Some((Ok(connection), (listener, slots, end, meter)));
        }
    })
}

type Cut = Pin<Box<dyn Future<Output = io::ErrorKind> + Send>>;

/// Waits for the reason to cut a connection.
async fn cut(mut end: watch::Receiver<bool>, time: Option<Duration>) -> io::ErrorKind {
    let timer = async {
        match time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A sender that is gone ends connections too: nobody is left who could.
        _ = end.wait_for(|end| *end) => io::ErrorKind::ConnectionAborted,
        () = timer => io::ErrorKind::TimedOut,
    }
}

/// A TCP stream that fails when it is to be cut.
pub(super) struct Connection {
    stream: TcpStream,
    preface_missing: usize,
    cut: Cut,
    is_cut: Option<io::ErrorKind>,
    end: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
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
                self.cut = Box::pin(cut(self.end.clone(), None));
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Short, so that tests need not wait for the five seconds of the product.
    const PREFACE: Duration = Duration::from_millis(50);

    async fn connect(most: usize) -> (TcpStream, impl Stream<Item = io::Result<Connection>>, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (end, is_end) = watch::channel(false);
        let connections = incoming(listener, most, PREFACE, is_end, Arc::new(Meter::new()));
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

    /// Scenario: a second connection where one is allowed. Guarantee: it is closed at once; a third is served when the
    /// first has gone.
    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let (first, connections, _end) = connect(1).await;
        let address = first.peer_addr().expect("connected");
        let mut connections = pin!(connections);
        let served = connections.next().await.expect("a connection").expect("accepted");
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
}
