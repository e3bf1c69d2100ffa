//! What follows when the keys of a cluster may be used, or must not be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logseal_catalog::Catalog;
use logseal_core::{Chain, ClusterId};
use logseal_ingest::cpu;
use logseal_ingest::pipeline::cutter::Cutter;
use logseal_ingest::pipeline::logs::Logs;
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::availability::KeyState;
use logseal_keys::{Holder, KeyStatus, Keyring};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use tracing::{error, warn};

use super::workspaces;

/// How long a start waits for the first answer about a cluster's key: longer than one call to a vault takes.
const FIRST_ANSWER: Duration = Duration::from_secs(8);

/// The log, the tables and the queries of clusters, as the states of their keys allow.
#[derive(Debug)]
pub(super) struct RunningClusters {
    pub(super) catalog: Catalog,
    pub(super) keyring: Arc<Keyring>,
    pub(super) tables: Arc<Tables>,
    pub(super) logs: Arc<Logs>,
    pub(super) cutter: Cutter,
    /// Tells of each cluster that is suspended.
    pub(super) suspensions: broadcast::Sender<ClusterId>,
}

#[async_trait]
impl Holder for RunningClusters {
    async fn suspend(&self, cluster: ClusterId) {
        // Nobody may be asking anything.
        let _ = self.suspensions.send(cluster);
        if let Err(error) = self.logs.suspend(cluster, &self.cutter).await {
            warn!(%cluster, error = %Chain(&error), "a log that is being closed is not suspended");
        }
        // The names of attributes are content.
        match self.catalog.workspaces_of(cluster).await {
            Ok(linked) => linked.iter().for_each(|row| self.tables.remove(row.id)),
            Err(error) => {
                error!(%cluster, error = %Chain(&error), "attribute names of a suspended cluster stay in memory: the catalog cannot say whose they are");
            }
        }
        // What was dropped is wiped by the allocator; what jobs left on their stacks is not.
        cpu::wipe_stacks();
    }

    async fn resume(&self, cluster: ClusterId) -> Result<(), String> {
        let linked = self.catalog.workspaces_of(cluster).await.map_err(|error| Chain(&error).to_string())?;
        for row in linked {
            match workspaces::open(&self.catalog, &self.keyring, &self.tables, &row).await {
                Err(error) if error.is_lasting() => {
                    self.keyring.refuse(row.id, &error);
                    error!(workspace = %row.name, id = %row.id, error = %Chain(&error), "a workspace is not available until it is repaired and the server is started again");
                }
                opened => drop(opened.map_err(|error| Chain(&error).to_string())?),
            }
        }
        self.logs.open(cluster).await.map_err(|error| Chain(&error).to_string())
    }
}

/// Waits until it is known whether the key of a cluster can be used: it can be, or the vault has answered, or has not in time.
pub(super) async fn first_answer(status: &mut watch::Receiver<KeyStatus>) -> KeyStatus {
    let answered = status.wait_for(|status| {
        let unknown = logseal_keys::KeyFault::NotYetUnwrapped;
        status.state != KeyState::Resuming || status.cause.is_none_or(|cause| cause.fault != unknown)
    });
    let _ = timeout(FIRST_ANSWER, answered).await;
    status.borrow().clone()
}
