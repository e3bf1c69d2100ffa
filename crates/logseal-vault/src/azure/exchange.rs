//! One HTTP/1.1 exchange with one host, over connections that are kept for the next one.
//!
//! Everything is bounded: the head and the body of an answer, how many connections are kept, and for how long. There are no redirects: a
//! status is handed to the caller as it came.

use std::fmt::{self, Debug};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::connect::{ConnectError, Dialer, Target};

/// The longest body that is read.
pub(super) const ANSWER_BYTES: usize = 64 * 1024;

/// The longest head that is read.
const HEAD_BYTES: usize = 64 * 1024;

/// How many idle connections are kept.
const IDLE_CONNECTIONS: usize = 4;

/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// The body; wiped after use, since it may hold a key or a token.
    pub(super) body: Result<Zeroizing<Vec<u8>>, BodyFault>,
}

/// Why a body is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyFault {
    /// It is longer than [`ANSWER_BYTES`].
    TooLong,
    /// The connection ended in the middle of it.
    Broken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// There is no connection.
    Connect(ConnectError),
    /// The connection broke before the answer's head.
    Broken,
    /// What came back is not HTTP.
    NotHttp,
}

/// The connections to one host.
pub(super) struct Connections {
    dialer: Dialer,
    target: Target,
    idle_limit: Duration,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection and the task that drives it. The task ends with it, also when the peer hangs.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connections {
    pub(super) fn new(dialer: Dialer, target: Target, idle_limit: Duration) -> Self {
        Self { dialer, target, idle_limit, idle: Mutex::default() }
    }

    /// Sends `request`, whose URI is in origin form and which names its host itself, and reads the answer.
    pub(super) async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, ExchangeError> {
        while let Some(mut connection) = self.take_idle() {
            // The peer may have closed it meanwhile. Nothing that is sent here changes anything in a vault, so it may be sent again.
            if connection.sender.ready().await.is_ok()
                && let Ok(response) = connection.sender.send_request(request.clone()).await
            {
                return Ok(self.read(connection, response).await);
            }
        }
        let mut connection = self.connect().await.map_err(ExchangeError::Connect)?;
        match connection.sender.send_request(request).await {
            Ok(response) => Ok(self.read(connection, response).await),
            Err(error) if error.is_parse() => Err(ExchangeError::NotHttp),
            Err(_) => Err(ExchangeError::Broken),
        }
    }

    async fn read(&self, connection: Connection, response: Response<Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        let body = read_body(body).await;
        // A body that was not read to its end leaves the connection unusable.
        if body.is_ok() {
            self.keep(connection);
        }
        Answer { status: head.status, retry_after: retry_after(&head.headers), body }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let stream = TokioIo::new(self.dialer.dial(&self.target).await?);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let broken = |_| ConnectError::Broken(io::ErrorKind::BrokenPipe);
        let (sender, connection) = builder.handshake(stream).await.map_err(broken)?;
        // Its error reaches the exchange that is under way; between exchanges it only ends the connection.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|idle| idle.since.elapsed() < self.idle_limit && !idle.connection.sender.is_closed());
        idle.pop().map(|idle| idle.connection)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS && !connection.sender.is_closed() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // A panic cannot leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("target", &self.target).finish_non_exhaustive()
    }
}

async fn read_body(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, BodyFault> {
    let announced = body.size_hint().upper().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > ANSWER_BYTES) {
        return Err(BodyFault::TooLong);
    }
    // Room for all of it at once: growing would leave copies behind that nobody wipes.
    let mut read = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(ANSWER_BYTES)));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyFault::Broken)?.into_data() else { continue };
        if read.len() + data.len() > read.capacity().min(ANSWER_BYTES) {
            return Err(BodyFault::TooLong);
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

/// Whole seconds, which is the form that Key Vault sends; a date is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_bounded() {
        for (text, expected) in [
            ("0", Some(0)),
            ("3", Some(3)),
            (" 3 ", Some(3)),
            ("999999999999", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
