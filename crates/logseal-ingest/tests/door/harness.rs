//! A door that is served over both protocols, with a scripted intake behind it, and a raw HTTP/2 client before it.

use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use logseal_core::{RandomSource, WorkspaceId};
use logseal_ingest::expansion::{Expansion, Learned};
use logseal_ingest::grpc::{Lifecycle, Services, serve};
use logseal_ingest::http as otlp_http;
use logseal_ingest::{
    Accepted, AuthError, Authenticator, Budget, Door, DoorSettings, IngestError, Intake, IntakeError, IntakeRequest,
};
use logseal_tls::{ClientNames, Listener};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(crate) const KEY: &str = "the-key";
pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([7; 16]);
pub(crate) const OTHER_KEY: &str = "another-key";
pub(crate) const OTHER: WorkspaceId = WorkspaceId::from_bytes([8; 16]);

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), event).await.expect("this takes a moment, not a minute")
}

/// Lets other tasks run until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

type Answerer = dyn Fn(IntakeRequest) -> BoxFuture<'static, Result<Accepted, IntakeError>> + Send + Sync;

/// An intake that does what the test says, and counts.
pub(crate) struct Script {
    answer: Box<Answerer>,
    pub(crate) taken: AtomicUsize,
    pub(crate) learned: Learned,
}

impl Script {
    pub(crate) fn new<F>(answer: impl Fn(IntakeRequest) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<Accepted, IntakeError>> + Send + 'static,
    {
        let answer = Box::new(move |request| -> BoxFuture<'static, _> { Box::pin(answer(request)) });
        Arc::new(Self { answer, taken: AtomicUsize::new(0), learned: Learned::default() })
    }

    /// Accepts everything, as one record.
    pub(crate) fn accept() -> Arc<Self> {
        Self::new(|_request| async { Ok(Accepted { accepted: 1, ..Accepted::default() }) })
    }
}

impl Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

#[async_trait]
impl Intake for Script {
    fn expansion(&self, _: WorkspaceId) -> Expansion {
        self.learned.expansion()
    }

    async fn take(&self, request: IntakeRequest) -> Result<Accepted, IntakeError> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        assert!([WORKSPACE, OTHER].contains(&request.workspace));
        (self.answer)(request).await
    }
}

#[derive(Debug)]
struct Keys;

impl Authenticator for Keys {
    fn workspace_of(&self, key: &str) -> Result<WorkspaceId, AuthError> {
        match key {
            KEY => Ok(WORKSPACE),
            OTHER_KEY => Ok(OTHER),
            "unavailable" => Err(AuthError::Unavailable),
            _ => Err(AuthError::Unknown),
        }
    }

    fn workspace_of_client(&self, _: &ClientNames) -> Result<Option<WorkspaceId>, AuthError> {
        Ok(None)
    }
}

#[derive(Debug)]
struct Seven;

impl RandomSource for Seven {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) budget: Arc<Budget>,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) shutdown: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<(), IngestError>>,
}

impl Server {
    pub(crate) async fn start(intake: Arc<Script>, change: impl FnOnce(&mut DoorSettings)) -> Self {
        Self::start_with(intake, change, |door| door).await
    }

    /// Starts a server whose door is completed by `complete`.
    pub(crate) async fn start_with(
        intake: Arc<Script>,
        change: impl FnOnce(&mut DoorSettings),
        complete: impl FnOnce(Door) -> Door,
    ) -> Self {
        let mut settings = DoorSettings::default();
        change(&mut settings);
        let door = Door::new(&settings, Arc::new(Keys), intake, Arc::new(Seven)).expect("valid settings");
        let door = complete(door);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let http_listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let http = http_listener.local_addr().expect("bound");
        let (ready, is_ready) = watch::channel(true);
        let (shutdown, is_shutdown) = watch::channel(false);
        let budget = Arc::clone(door.budget());
        let http_server = otlp_http::serve(Listener::plain(http_listener), door.clone(), is_shutdown.clone());
        let lifecycle = Lifecycle { ready: is_ready, shutdown: is_shutdown };
        let grpc_server = serve(Listener::plain(listener), door, Services::default(), lifecycle);
        let task = tokio::spawn(async { tokio::join!(grpc_server, http_server).0 });
        Self { address, http, budget, ready, shutdown, task }
    }

    pub(crate) async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("listening");
        // Headers and body are two writes: without this the second waits 40 ms for a delayed acknowledgement.
        stream.set_nodelay(true).expect("a socket");
        let stream = stream.into_std().expect("a socket");
        let socket = stream.try_clone().expect("a second handle");
        let io = TokioIo::new(TcpStream::from_std(stream).expect("a socket"));
        let (sender, connection) = soon(handshake(TokioExecutor::new(), io)).await.expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        Client { sender, socket }
    }

    /// Waits until every byte of the budget is free.
    pub(crate) async fn idle(&self) {
        drop(soon(self.budget.take(self.budget.total())).await);
    }
}

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A body that the test writes while the call is under way; dropping the sender ends it.
pub(crate) fn open_body() -> (mpsc::UnboundedSender<&'static [u8]>, Body) {
    let (sender, receiver) = mpsc::unbounded();
    (sender, BodyExt::boxed(StreamBody::new(receiver.map(|data| Ok(Frame::data(Bytes::from_static(data)))))))
}

/// `message` behind the 5 bytes of gRPC.
pub(crate) fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[u8::from(compressed)][..], &length.to_be_bytes(), message].concat()
}

#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Body>,
    socket: std::net::TcpStream,
}

impl Client {
    /// Sends `body` to `Export` with credentials and `headers`.
    pub(crate) async fn export(&mut self, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.call(EXPORT, headers, BodyExt::boxed(Full::new(Bytes::from(body)))).await
    }

    /// A header of `headers` takes the place of the usual one; an empty value removes it.
    pub(crate) async fn call(&mut self, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let response = self.send(path, headers, body);
        Answer::read(soon(response).await.expect("an answer")).await
    }

    pub(crate) fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + 'static {
        let bearer = format!("Bearer {KEY}");
        let usual = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", bearer.as_str())];
        let mut all = HeaderMap::new();
        for (name, value) in usual.iter().chain(headers) {
            let name: http::HeaderName = name.parse().expect("a header name");
            if value.is_empty() {
                drop(all.remove(&name))
            } else {
                drop(all.insert(name, value.parse().expect("text")))
            }
        }
        let mut request = Request::post(format!("http://localhost{path}")).body(body).expect("a request");
        *request.headers_mut() = all;
        self.sender.send_request(request)
    }

    /// Cuts the connection.
    pub(crate) fn cut(&self) {
        self.socket.shutdown(Shutdown::Both).expect("still connected");
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    /// `grpc-status`, or -1 without one.
    pub(crate) code: i32,
    pub(crate) message: String,
    /// From `grpc-status-details-bin`; the same as in `google.rpc.retryinfo-bin`.
    pub(crate) retry: Option<Duration>,
    pub(crate) trailers_only: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<prost_types::Duration>,
}

impl RetryInfo {
    fn duration(bytes: &[u8]) -> Duration {
        let info = Self::decode(bytes).expect("a RetryInfo");
        info.delay.expect("a delay").try_into().expect("not negative")
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = soon(body.collect()).await.expect("a whole answer");
        let trailers = collected.trailers().cloned();
        let trailers_only = parts.headers.contains_key("grpc-status");
        let headers = if trailers_only { parts.headers } else { trailers.unwrap_or_default() };
        let code = headers.get("grpc-status").map_or(-1, |v| v.to_str().expect("ASCII").parse().expect("a number"));
        let status = tonic::Status::from_header_map(&headers);
        let retry = status.as_ref().filter(|status| !status.details().is_empty()).map(|status| {
            let details = RpcStatus::decode(status.details()).expect("a google.rpc.Status");
            assert_eq!(details.code, code);
            let python = status.metadata().get_bin("google.rpc.retryinfo-bin").expect("the second form");
            let python = RetryInfo::duration(&python.to_bytes().expect("base64"));
            assert_eq!(RetryInfo::duration(&details.details[0].value), python);
            python
        });
        Self {
            http: parts.status.as_u16(),
            code,
            message: status.map(|status| status.message().to_owned()).unwrap_or_default(),
            retry,
            trailers_only,
            headers,
            body: collected.to_bytes(),
        }
    }

    /// True for a plain acknowledgement.
    pub(crate) fn is_whole(&self) -> bool {
        (self.http, self.code, &self.body[..]) == (200, 0, &[0; 5])
    }

    /// The code and whether the client is told when to come back.
    pub(crate) fn refusal(&self) -> (i32, bool) {
        if self.code == 0 {
            return (0, false);
        }
        assert!(self.trailers_only && self.http == 200 && self.body.is_empty(), "{self:?}");
        assert!(!self.message.is_empty(), "{self:?}");
        (self.code, self.retry.is_some())
    }
}
