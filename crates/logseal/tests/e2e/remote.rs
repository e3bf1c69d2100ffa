//! A vault of the test's own that the network reaches, with a door that spoils its answers and can be shut.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use logseal_core::{Clock as _, SystemClock, SystemSteadyClock};
use logseal_crypto::{BearerToken, Key256, RootKey};
use logseal_testkit::{Server, ship};
use logseal_tls::{Acceptor, Authority, Limits, Listener, acceptor, serve};
use logseal_vault::rest::{self, Clusters, Face};
use logseal_vault::{EmbeddedVault, KeyName, PrincipalId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Deployment;
use crate::cli::done;
use crate::lifecycle::request;
use crate::vault::ask_at;

/// What the vault's administrator knows.
pub(crate) const TOKEN: &str = "token-of-the-remote-vault";

/// What becomes of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Spoil {
    Nothing,
    /// This status, and a body with this code inside of the error.
    Refuse(u16, &'static str),
    /// No JSON.
    Garbage,
    /// Another key than was wrapped.
    WrongBytes,
    /// A key that is not of the type RSA.
    OtherType,
    /// None comes.
    Silence,
}

type Spoiling = Arc<Mutex<Spoil>>;

async fn spoil(State(spoiling): State<Spoiling>, request: Request, next: Next) -> Response {
    let now = *spoiling.lock().expect("no test panicked in it");
    let answer = |status: u16, body: String| {
        let answer = Response::builder().status(status).header("content-type", "application/json");
        answer.body(Body::from(body)).expect("an answer")
    };
    match now {
        Spoil::Nothing => next.run(request).await,
        Spoil::Refuse(status, code) => {
            let error = json!({"error": {"code": "Refused", "message": "m", "innererror": {"code": code}}});
            answer(status, error.to_string())
        }
        Spoil::Garbage => answer(200, "<html>".to_owned()),
        Spoil::Silence => std::future::pending().await,
        Spoil::WrongBytes => rewritten(next.run(request).await, "/value", &BASE64URL_NOPAD.encode(&[9; 32])).await,
        Spoil::OtherType => rewritten(next.run(request).await, "/key/kty", "EC").await,
    }
}

/// The same answer with `text` at `pointer`, if there is something.
async fn rewritten(answer: Response, pointer: &str, text: &str) -> Response {
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 16).await.expect("a body");
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    if let Some(value) = body.pointer_mut(pointer) {
        *value = text.into();
    }
    Response::builder().status(head.status).body(Body::from(body.to_string())).expect("an answer")
}

#[derive(Debug)]
struct NoClusters;

#[async_trait]
impl Clusters for NoClusters {
    async fn principals(&self) -> Result<Vec<PrincipalId>, String> {
        Ok(Vec::new())
    }
}

/// The vault, its door, and who is to believe it.
pub(crate) struct Remote {
    pub(crate) runtime: Runtime,
    pub(crate) vault: Arc<EmbeddedVault>,
    authority: Authority,
    spoiling: Spoiling,
    address: SocketAddr,
    open: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    dir: TempDir,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Remote {
    /// A vault with the key `kek`.
    pub(crate) fn new() -> Self {
        acceptor::install_provider();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = RootKey::new(Key256::copy_from_slice(&[7; 32]).expect("256 bits"));
        let clock = Arc::new(SystemClock);
        let authority = Authority::open(dir.path(), &root, clock.now()).expect("an empty folder");
        let vault = EmbeddedVault::open(dir.path().join("vault"), "https://vault.test", &root, clock);
        let vault = vault.expect("an empty folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let name = KeyName::parse("kek").expect("a name");
        runtime.block_on(vault.create_key(&name, 2048)).expect("a key");
        std::fs::write(dir.path().join("token"), TOKEN).expect("written");
        let token = dir.path().join("token").display().to_string();
        let identities =
            format!("[[identity]]\nid = 'SystemAssignedIdentity'\ncredential = 'token-file'\ntoken_file = '{token}'\n");
        std::fs::write(dir.path().join("identities.toml"), identities).expect("written");
        let spoiling = Arc::new(Mutex::new(Spoil::Nothing));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut remote = Self { runtime, vault: Arc::new(vault), authority, spoiling, address, open: None, dir };
        remote.up();
        remote
    }

    pub(crate) fn up(&mut self) {
        let face = Face {
            vault: Arc::clone(&self.vault),
            token: BearerToken::new(Zeroizing::new(TOKEN.to_owned())),
            clusters: Arc::new(NoClusters),
            clock: Arc::new(SystemSteadyClock),
        };
        let router: Router = rest::router(face).layer(from_fn_with_state(Arc::clone(&self.spoiling), spoil));
        let identity = self.authority.issue(&[], SystemClock.now()).expect("a certificate");
        let acceptor = Acceptor::new(identity, serve::PROTOCOLS).expect("an acceptor");
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).expect("the address is free");
        self.address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        // Who has an open connection looks up no name: it must end between two looks at the key.
        let limits = Limits { idle: Duration::from_secs(10), ..Limits::default() };
        let serving = self.runtime.spawn(async move {
            serve(Listener { tcp: listener, acceptor }, router, limits, stopped).await.expect("it is stopped");
        });
        self.open = Some((stop, serving));
    }

    pub(crate) fn down(&mut self) {
        let (stop, serving) = self.open.take().expect("it is open");
        stop.send(true).expect("it serves");
        self.runtime.block_on(serving).expect("it ends");
    }

    pub(crate) fn spoil(&self, spoil: Spoil) {
        *self.spoiling.lock().expect("no test panicked in it") = spoil;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn uri(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What a server has to be told to use the vault.
    pub(crate) fn settings(&self) -> [String; 3] {
        [
            format!("azure.hosts=localhost:{}=public", self.address.port()),
            format!("azure.ca_file={}", self.file("ca.pem").display()),
            format!("azure.identities_file={}", self.file("identities.toml").display()),
        ]
    }

    /// A server that may use the vault, asks it often, and waits for it as long as `grace`.
    pub(crate) fn start(&self, deployment: &Deployment, grace: Duration) -> Server {
        let mut settings = vec![
            "keys.probe_interval_ms=1000".to_owned(),
            "keys.min_state_interval_ms=0".to_owned(),
            format!("keys.grace_ms={}", grace.as_millis()),
        ];
        settings.extend(self.settings());
        deployment.start_with(&settings.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same, whose cluster `local` is protected by the vault's key.
    pub(crate) fn protecting(&self, deployment: &Deployment, grace: Duration) -> Server {
        let server = self.start(deployment, grace);
        let key = format!("{}/keys/kek", self.uri());
        done(&server, &["cluster", "update", "local", "--key-vault-key-uri", &key]);
        server
    }

    pub(crate) fn export(&self, server: &Server, body: &str) -> Result<(), tonic::Status> {
        self.runtime.block_on(ship::export(server, &request(&[body]))).map(drop)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let authority = format!("localhost:{}", self.address.port());
        let (status, answer) = ask_at(&authority, &self.file("ca.pem"), method, path, TOKEN, body);
        assert!(status.is_success(), "{answer}");
        answer
    }
}
