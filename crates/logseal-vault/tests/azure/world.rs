//! A client, the server that it talks to, and a network that does what a test says.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use logseal_core::{SystemClock, UnixNanos};
use logseal_crypto::{Key256, OsRandom};
use logseal_vault::azure::{
    AccessToken, AzureKeyVault, AzureParts, AzureSettings, CachedTokens, Network, TlsTrust, TokenSource,
};
use logseal_vault::uri::Audience;
use logseal_vault::{KeyId, KeyName, KeyVault, KeyVersion, PrincipalId, VaultError, VaultUri, VaultUriPolicy};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::stub::{Authority, Step, Stub};

pub(crate) const VAULT: &str = "https://kv.vault.azure.net";
pub(crate) const HOST: &str = "kv.vault.azure.net";
pub(crate) const VERSION: &str = "78deebed173b48e48f55abf87ed4cf71";
pub(crate) const PUBLIC: &str = "20.1.2.3";
pub(crate) const KEY: [u8; 32] = [7; 32];

/// Answers name lookups and routes connections as it is told, and remembers who was called.
#[derive(Debug, Default)]
pub(crate) struct ScriptedNetwork {
    /// The answers to lookups, one each; the last one stays. No answer: the name does not exist.
    pub(crate) names: Mutex<VecDeque<Vec<IpAddr>>>,
    /// Where connections to an address really go; `None` hangs, no entry is refused.
    pub(crate) routes: Mutex<HashMap<SocketAddr, Option<SocketAddr>>>,
    pub(crate) lookups: Mutex<Vec<String>>,
    pub(crate) called: Mutex<Vec<SocketAddr>>,
}

impl ScriptedNetwork {
    pub(crate) fn names(&self, lookups: &[&[&str]]) {
        let parsed = lookups.iter().map(|found| found.iter().map(|text| text.parse().unwrap()).collect());
        *self.names.lock().unwrap() = parsed.collect();
    }

    pub(crate) fn route(&self, from: &str, to: Option<SocketAddr>) {
        self.routes.lock().unwrap().insert(from.parse().unwrap(), to);
    }

    pub(crate) fn called(&self) -> Vec<String> {
        self.called.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

#[async_trait]
impl Network for ScriptedNetwork {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.lock().unwrap().push(host.to_owned());
        let mut names = self.names.lock().unwrap();
        let found = if names.len() > 1 { names.pop_front() } else { names.front().cloned() };
        found.ok_or_else(|| io::Error::other("no such name"))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.called.lock().unwrap().push(address);
        let route = self.routes.lock().unwrap().get(&address).copied();
        match route {
            Some(Some(to)) => TcpStream::connect(to).await,
            Some(None) => std::future::pending().await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// Numbers its tokens, and remembers for whom they were asked.
#[derive(Debug, Default)]
pub(crate) struct NumberedTokens {
    pub(crate) asked: Mutex<Vec<Audience>>,
    pub(crate) fails: bool,
    pub(crate) hangs: bool,
}

#[async_trait]
impl TokenSource for NumberedTokens {
    async fn token(&self, audience: Audience) -> Result<AccessToken, VaultError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let mut asked = self.asked.lock().unwrap();
        asked.push(audience);
        if self.fails {
            return Err(VaultError::Token("status 503".into()));
        }
        Ok(AccessToken::new(Zeroizing::new(format!("token-{}", asked.len())), UnixNanos(i64::MAX)))
    }
}

pub(crate) struct World {
    pub(crate) stub: Stub,
    pub(crate) network: Arc<ScriptedNetwork>,
    pub(crate) source: Arc<NumberedTokens>,
    pub(crate) vault: AzureKeyVault,
}

/// Short enough for a test, long enough for a busy machine.
pub(crate) fn settings() -> AzureSettings {
    AzureSettings {
        call_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ..AzureSettings::default()
    }
}

pub(crate) fn parts(network: Arc<dyn Network>, authority: &Authority, settings: AzureSettings) -> AzureParts {
    let trust = TlsTrust::none().with_pem(authority.pem.as_bytes()).unwrap();
    AzureParts { network, trust, clock: Arc::new(SystemClock), random: Arc::new(OsRandom), settings }
}

pub(crate) fn uri() -> VaultUri {
    VaultUriPolicy::default().parse(VAULT).unwrap()
}

pub(crate) fn client(uri: VaultUri, source: Arc<dyn TokenSource>, parts: &AzureParts) -> AzureKeyVault {
    let tokens = Arc::new(CachedTokens::new(source, Arc::new(SystemClock)));
    AzureKeyVault::new(uri, PrincipalId::parse("me").unwrap(), tokens, parts).unwrap()
}

impl World {
    pub(crate) async fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self::with(settings(), NumberedTokens::default(), script).await
    }

    pub(crate) async fn with(
        settings: AzureSettings,
        source: NumberedTokens,
        script: impl IntoIterator<Item = Step>,
    ) -> Self {
        let authority = Authority::new();
        let stub = Stub::start(Some(authority.server(HOST, (2020, 2100))), script).await;
        let network = Arc::new(ScriptedNetwork::default());
        network.names(&[&[PUBLIC]]);
        network.route(&format!("{PUBLIC}:443"), Some(stub.address));
        let source = Arc::new(source);
        let parts = parts(Arc::<ScriptedNetwork>::clone(&network), &authority, settings);
        let vault = client(uri(), Arc::<NumberedTokens>::clone(&source), &parts);
        Self { stub, network, source, vault }
    }

    pub(crate) async fn unwrap(&self) -> Result<Key256, VaultError> {
        self.vault.unwrap(&kek(), &[9; 256]).await
    }

    /// Over which connections the requests came.
    pub(crate) fn connections(&self) -> Vec<usize> {
        self.stub.seen().iter().map(|seen| seen.connection).collect()
    }
}

pub(crate) fn kek() -> KeyId {
    let name = KeyName::parse("kek").unwrap();
    KeyId { vault_uri: VAULT.into(), name, version: KeyVersion::parse(VERSION).unwrap() }
}

pub(crate) fn result_of(kid: &str, value: &[u8]) -> Vec<u8> {
    format!(r#"{{"kid":"{kid}","value":"{}"}}"#, BASE64URL_NOPAD.encode(value)).into_bytes()
}

/// The good answer to an unwrap.
pub(crate) fn good() -> Step {
    Step::Answer(200, "content-type: application/json\r\n", result_of(&kek().to_string(), &KEY))
}

pub(crate) fn refusal(status: u16, code: &str, inner: &str) -> Step {
    let body =
        format!(r#"{{"error":{{"code":"{code}","message":"SECRET OF THE VAULT","innererror":{{"code":"{inner}"}}}}}}"#);
    Step::Answer(status, "content-type: application/json\r\n", body.into_bytes())
}
