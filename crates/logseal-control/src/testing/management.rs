//! The management API over a deployment of a test, without queries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use logseal_catalog::AuditHead;
use logseal_core::{SteadyClock, WorkspaceId};
use logseal_crypto::BearerToken;
use tokio::sync::watch;

use super::Deployment;
use crate::gate::tokens::WantedToken;
use crate::port::{MetricsText, Queries, QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat};
use crate::{AnchorStore, AuditTrail, Gate, GateParts, Management, Role};

/// The management token.
pub(crate) const TOKEN: &str = "token";

#[derive(Debug)]
struct NoQueries;

#[async_trait]
impl Queries for NoQueries {
    async fn run(
        &self,
        _: WorkspaceId,
        _: &str,
        _: Option<usize>,
        _: QueryFormat,
    ) -> Result<QueryAnswer, QueryFailure> {
        let message = "there is no engine".to_owned();
        Err(QueryFailure { kind: QueryFailureKind::Unavailable, code: "QueryUnavailable", message })
    }
}

#[derive(Debug)]
struct NoMetrics;

impl MetricsText for NoMetrics {
    fn render(&self) -> String {
        String::new()
    }
}

#[derive(Debug)]
pub(crate) struct NoAnchor;

impl AnchorStore for NoAnchor {
    fn load(&self) -> std::io::Result<Option<AuditHead>> {
        Ok(None)
    }

    fn store(&self, _: &AuditHead) -> std::io::Result<()> {
        Ok(())
    }
}

/// A steady clock that a test moves.
#[derive(Debug, Default)]
pub(crate) struct Steady(Mutex<Duration>);

impl SteadyClock for Steady {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

impl Steady {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

fn audit(deployment: &Deployment) -> AuditTrail {
    AuditTrail::new(deployment.catalog.clone(), Arc::new(NoAnchor), Arc::clone(&deployment.clock) as _)
}

/// Who is let into `deployment`, as after a start.
pub(crate) async fn gate(deployment: &Deployment, steady: Arc<Steady>) -> Arc<Gate> {
    let parts = GateParts {
        management_token: BearerToken::new(TOKEN.to_owned().into()),
        lookup_key: deployment.token_mac(),
        catalog: deployment.catalog.clone(),
        audit: audit(deployment),
        ids: deployment.operations.world().ids.clone(),
        clock: Arc::clone(&deployment.clock) as _,
        steady,
    };
    Gate::open(parts).await.unwrap()
}

/// What the API of `deployment` is made of.
pub(crate) async fn management(deployment: &Deployment) -> Management {
    Management {
        gate: gate(deployment, Arc::default()).await,
        catalog: deployment.catalog.clone(),
        access: Arc::clone(&deployment.access),
        operations: Arc::clone(&deployment.operations),
        audit: audit(deployment),
        queries: Arc::new(NoQueries),
        metrics: Arc::new(NoMetrics),
        ready: watch::channel(true).1,
        public_url: None,
        is_tls: false,
    }
}

/// A new token of `role`; a reader's names the default workspace.
pub(crate) async fn token(api: &Management, role: Role) -> String {
    let workspaces = match role {
        Role::Reader => vec![api.catalog.workspaces().await.unwrap()[0].id],
        _ => Vec::new(),
    };
    let wanted = WantedToken { name: role.as_str().to_owned(), role, workspaces, expires: None };
    api.gate.create(wanted, "test").await.unwrap().value.to_string()
}
