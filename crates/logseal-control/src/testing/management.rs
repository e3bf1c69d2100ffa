//! The management API over a deployment of a test, without queries.

use std::sync::Arc;

use async_trait::async_trait;
use logseal_catalog::AuditHead;
use logseal_core::WorkspaceId;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Deployment;
use crate::port::{MetricsText, Queries, QueryAnswer, QueryFailure, QueryFailureKind, QueryFormat};
use crate::{AnchorStore, AuditTrail, Management, ManagementToken};

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

/// What the API of `deployment` is made of.
pub(crate) fn management(deployment: &Deployment) -> Management {
    Management {
        token: ManagementToken::new(Zeroizing::new(TOKEN.to_owned())),
        catalog: deployment.catalog.clone(),
        access: Arc::clone(&deployment.access),
        operations: Arc::clone(&deployment.operations),
        audit: AuditTrail::new(deployment.catalog.clone(), Arc::new(NoAnchor), Arc::clone(&deployment.clock) as _),
        queries: Arc::new(NoQueries),
        metrics: Arc::new(NoMetrics),
        ready: watch::channel(true).1,
        public_url: None,
        is_tls: false,
    }
}
