//! What workspaces have sent today, and when their keys were last used, kept across restarts.
//!
//! It is stored every 30 s, at a clean stop, and at once when a workspace reaches its daily cap, then together with a record in the audit
//! trail. So a crash forgets what was counted, and which keys were used, in the last 30 s.

use std::sync::Arc;
use std::time::Duration;

use logseal_catalog::{Catalog, CatalogError, Change};
use logseal_control::Operations;
use logseal_ingest::DailyCaps;
use logseal_ingest::quota::Unsaved;
use logseal_keys::AccessKeys;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use super::State;
use crate::error::{Chain, CommandError};

/// How often what has changed is stored.
const PERIOD: Duration = Duration::from_secs(30);

/// Rows of one change: other changes of the catalog wait for it.
const ROWS: usize = 200;

/// Stores what workspaces send, and when their keys were used.
#[derive(Debug)]
pub(super) struct UsageKeeper {
    caps: Arc<DailyCaps>,
    access: Arc<AccessKeys>,
    catalog: Catalog,
    operations: Arc<Operations>,
    /// Held while something is stored, so that nothing older is stored after it.
    saving: Mutex<()>,
}

impl UsageKeeper {
    /// Goes on from what was stored, with the settings that workspaces have.
    pub(super) async fn begin(state: &State, operations: &Arc<Operations>) -> Result<Self, CommandError> {
        let (rows, refused) = state.catalog.usage().await.map_err(CommandError::start("read what workspaces sent"))?;
        for refusal in &refused {
            error!(error = %Chain(refusal), "what a workspace sent today is not known: it is counted from 0");
        }
        state.caps.load(&rows);
        let (rows, refused) =
            state.catalog.workspace_key_uses().await.map_err(CommandError::start("read when keys were used"))?;
        for refusal in &refused {
            error!(error = %Chain(refusal), "when a workspace's key was last used is not known: it counts as never used");
        }
        state.access.load_uses(&rows);
        operations.tell_settings().await.map_err(CommandError::start("read the workspaces' settings"))?;
        Ok(Self {
            caps: Arc::clone(&state.caps),
            access: Arc::clone(&state.access),
            catalog: state.catalog.clone(),
            operations: Arc::clone(operations),
            saving: Mutex::default(),
        })
    }

    /// Works until the task is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.caps.reached() => {}
            }
            self.save().await;
        }
    }

    /// Stores what has changed. What fails is said and left for the next time.
    pub(super) async fn save(&self) {
        let _saving = self.saving.lock().await;
        let (reached, usual): (Vec<_>, Vec<_>) =
            self.caps.unsaved().into_iter().partition(|unsaved| unsaved.reached.is_some());
        // Those that are audited one by one: a trail that takes no record must not keep all others from being stored.
        for unsaved in reached.chunks(1).chain(usual.chunks(ROWS)) {
            if let Err(error) = self.store(unsaved).await {
                warn!(error = %Chain(&error), "what workspaces sent cannot be stored now");
            }
        }
        for uses in self.access.unsaved().chunks(ROWS) {
            match self.catalog.apply(Change::PutWorkspaceKeyUses(uses.to_vec())).await {
                Ok(()) => self.access.saved(uses),
                Err(error) => warn!(error = %Chain(&error), "when keys were used cannot be stored now"),
            }
        }
    }

    async fn store(&self, unsaved: &[Unsaved]) -> Result<(), CatalogError> {
        let mut changes = vec![Change::PutUsage(unsaved.iter().map(|unsaved| unsaved.row.clone()).collect())];
        for Unsaved { row, reached } in unsaved {
            let Some(reached) = reached else { continue };
            let entry = self.operations.daily_cap_reached(row.workspace, reached.at, reached.cap, reached.used).await?;
            changes.push(Change::Audit(entry));
        }
        self.catalog.apply(Change::All(changes)).await?;
        self.caps.saved(unsaved);
        for Unsaved { row, reached } in unsaved {
            if let Some(reached) = reached {
                let (cap, used) = (reached.cap, reached.used);
                warn!(workspace = %row.workspace, cap, used, "a workspace has reached its daily cap: its records are refused until midnight (UTC)");
            }
        }
        Ok(())
    }
}
