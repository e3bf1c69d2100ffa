//! The door of the embedded vault: its listener and certificate, whom new keys are granted to, and where its events go.

mod addresses;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use logseal_catalog::{AuditEntry, Catalog, Change};
use logseal_control::cluster_principals;
use logseal_core::{Chain, Clock, SystemSteadyClock};
use logseal_crypto::{BearerToken, RootKey};
use logseal_tls::{Acceptor, Authority, Limits, Listener, acceptor, serve};
use logseal_vault::rest::{self, Clusters, Face};
use logseal_vault::{EmbeddedVault, PrincipalId, VaultEvent, VaultEvents};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;
use zeroize::Zeroizing;

pub(super) use self::addresses::Addresses;
use super::key_vaults::KeyVaults;
use super::{VAULT_URI, bind, local_addr};
use crate::data_dir::DataDir;
use crate::error::CommandError;

/// Where the vault will be served, once it is known who may come in.
#[derive(Debug)]
pub(super) struct Door {
    listener: Listener,
    pub(super) url: String,
    pub(super) ca_file: PathBuf,
    pub(super) addresses: Arc<Addresses>,
}

impl Door {
    /// Binds `address`, with a certificate of the deployment's authority.
    pub(super) async fn open(
        data_dir: &DataDir,
        root: &RootKey,
        address: SocketAddr,
        clock: &dyn Clock,
    ) -> Result<Self, CommandError> {
        acceptor::install_provider();
        let tcp = bind("the key vault", address)?;
        let address = local_addr(&tcp)?;
        let authority = Authority::open(&data_dir.join("vault"), root, clock.now())
            .map_err(CommandError::start("open the certificate authority"))?;
        let identity = authority.issue(&[address.ip()], clock.now());
        let acceptor = identity.and_then(|identity| Acceptor::new(identity, serve::PROTOCOLS));
        let acceptor = acceptor.map_err(CommandError::start("make the key vault's certificate"))?;
        let addresses = Arc::new(Addresses::with(&data_dir.join("vault/addresses.json"), address)?);
        let finding = CommandError::io("find the certificate authority's file");
        let ca_file = authority.certificate_file().canonicalize().map_err(finding)?;
        Ok(Self { listener: Listener { tcp, acceptor }, url: format!("https://{address}"), ca_file, addresses })
    }

    /// Serves `vault` to whoever has `token`, until `shutdown` becomes true.
    pub(super) fn serve(
        self,
        vault: &Arc<EmbeddedVault>,
        token: Zeroizing<String>,
        clusters: Principals,
        shutdown: watch::Receiver<bool>,
    ) -> JoinHandle<std::io::Result<()>> {
        let face = Face {
            vault: Arc::clone(vault),
            token: BearerToken::new(token),
            clusters: Arc::new(clusters),
            clock: Arc::new(SystemSteadyClock),
        };
        let limits = Limits { name: "vault", ..Limits::default() };
        tokio::spawn(serve(self.listener, rest::router(face), limits, shutdown))
    }
}

/// Whoever has the vault's token commands its keys: it is served to this machine only.
pub(super) fn refuse_public(address: SocketAddr) -> Result<(), CommandError> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(CommandError::Config(format!(
        "`listen.vault` is {address}: the embedded key vault is served on loopback addresses such as 127.0.0.1 only"
    )))
}

/// Whom keys that are open to every cluster are granted to.
#[derive(Debug)]
pub(super) struct Principals {
    pub(super) catalog: Catalog,
    pub(super) vaults: Arc<KeyVaults>,
}

#[async_trait]
impl Clusters for Principals {
    async fn principals(&self) -> Result<Vec<PrincipalId>, String> {
        let found = cluster_principals(&self.catalog, &*self.vaults).await;
        found.map(|found| found.into_iter().collect()).map_err(|error| Chain(&error).to_string())
    }
}

/// The audit trail as the vault sees it.
#[derive(Debug)]
pub(super) struct Audited {
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl VaultEvents for Audited {
    async fn report(&self, event: VaultEvent) {
        let VaultEvent { actor, action, key, outcome, detail } = event;
        let resource = if key.is_empty() { VAULT_URI.to_owned() } else { format!("{VAULT_URI}/keys/{key}") };
        let entry = AuditEntry {
            at: self.clock.now(),
            actor,
            action: action.to_owned(),
            resource,
            operation: None,
            outcome,
            before: String::new(),
            after: if detail.is_null() { String::new() } else { detail.to_string() },
        };
        if let Err(error) = self.catalog.apply(Change::Audit(entry)).await {
            error!(action, error = %Chain(&error), "the audit trail does not take a record of the key vault");
        }
    }
}
