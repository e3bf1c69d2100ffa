//! The REST face through its router: tables of requests, statuses and codes.

mod keys;
mod requests;

use std::sync::Mutex;

use axum::body::to_bytes;
use http::HeaderMap;
use logseal_core::Clock;
use logseal_crypto::{Key256, RootKey};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::embedded::tests::Hands;
use crate::events::VaultEvents;
use crate::{KeyName, Permission};

const TOKEN: &str = "the-token-of-the-vault";

/// The first cluster of the deployment.
const CLUSTER: &str = "0194d5a0-0000-7000-8000-000000000001";

#[derive(Debug)]
struct Standing;

impl SteadyClock for Standing {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[derive(Debug)]
struct OneCluster;

#[async_trait]
impl Clusters for OneCluster {
    async fn principals(&self) -> Result<Vec<PrincipalId>, String> {
        Ok(vec![PrincipalId::parse(CLUSTER).unwrap()])
    }
}

#[derive(Debug, Default)]
struct Reports(Mutex<Vec<VaultEvent>>);

#[async_trait]
impl VaultEvents for Reports {
    async fn report(&self, event: VaultEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A vault behind its REST face, with a key `service` that is reserved.
struct World {
    _dir: TempDir,
    vault: Arc<EmbeddedVault>,
    hands: Arc<Hands>,
    reports: Arc<Reports>,
    router: Router,
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn code(&self) -> &str {
        self.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }

    fn inner(&self) -> &str {
        self.body.pointer("/error/innererror/code").and_then(Value::as_str).unwrap_or_default()
    }

    #[track_caller]
    fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str, inner: &str) {
        assert_eq!((self.status.as_u16(), self.code(), self.inner()), (status, code, inner), "{self:?}");
        assert!(!self.body["error"]["message"].as_str().unwrap().is_empty());
    }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hands = Hands::new();
        let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
        let clock = Arc::clone(&hands) as Arc<dyn Clock>;
        let vault = EmbeddedVault::open(dir.path().to_owned(), "https://127.0.0.1:8420", &root, clock).unwrap();
        let service = KeyName::parse("service").unwrap();
        let vault = Arc::new(vault.reserving(service.clone()));
        vault.create_key(&service, 2048).await.unwrap();
        let reports = Arc::new(Reports::default());
        vault.report_to(Arc::clone(&reports) as _);
        let router = router(Face {
            vault: Arc::clone(&vault),
            token: BearerToken::new(Zeroizing::new(TOKEN.to_owned())),
            clusters: Arc::new(OneCluster),
            clock: Arc::new(Standing),
        });
        Self { _dir: dir, vault, hands, reports, router }
    }

    /// The same with a key `kek` of 2048 bits, made over REST.
    async fn with_key() -> (Self, String) {
        let world = Self::new().await;
        let made = world.ask("POST", "/keys/kek/create", json!({"kty": "RSA"})).await.ok();
        let version = made["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        (world, version)
    }

    async fn send(&self, request: Request) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// Asks with token and version; `null` for no body. As SDKs do, it says no content type.
    async fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        let join = if path.contains('?') { '&' } else { '?' };
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}{join}api-version=7.4"))
            .header("host", "vault.test:8420")
            .header("authorization", format!("Bearer {TOKEN}"));
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, Value::Null).await
    }

    fn actions(&self) -> Vec<(String, &'static str, String)> {
        let reports = self.reports.0.lock().unwrap();
        let action = |event: &VaultEvent| {
            (event.key.clone(), event.action.rsplit("/keys/").next().unwrap(), event.outcome.clone())
        };
        reports.iter().map(action).collect()
    }
}
