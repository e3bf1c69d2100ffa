//! What the vault does by itself: keys that are due get their next version, and deleted ones go when their retention has ended.

use std::sync::Arc;
use std::time::Duration;

use logseal_core::Chain;
use serde_json::Value;
use tracing::{error, info};

use super::{EmbeddedVault, rotation};
use crate::KeyName;
use crate::events::{SUCCEEDED, VaultEvent, action};

/// Policies and retention count days: a minute more or less is nothing.
const EVERY: Duration = Duration::from_secs(60);

impl EmbeddedVault {
    /// Does what is due, for as long as the process lives. What fails is tried again the next time.
    pub async fn keep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.do_what_is_due().await;
        }
    }

    pub(super) async fn do_what_is_due(&self) {
        let keys = self.state.keys();
        let now = self.state.now();
        for name in rotation::due(keys.iter().map(AsRef::as_ref), now) {
            match self.rotate_key(&name).await {
                Ok(made) => {
                    info!(key = %name, version = %made.id.version, "a key was rotated, as its policy says");
                    self.did(action::ROTATE, format!("{name}/{}", made.id.version)).await;
                }
                Err(error) => error!(key = %name, error = %Chain(&error), "a key that is due cannot be rotated now"),
            }
        }
        let over = keys.iter().filter(|key| key.deletion.is_some_and(|deletion| deletion.purge_at <= now));
        for name in over.map(|key| key.name.clone()).collect::<Vec<KeyName>>() {
            match self.purge(&name).await {
                Ok(_) => {
                    info!(key = %name, "a deleted key's retention has ended: it is purged");
                    self.did(action::PURGE, name.to_string()).await;
                }
                Err(error) => error!(key = %name, error = %Chain(&error), "a deleted key cannot be purged now"),
            }
        }
    }

    async fn did(&self, action: &'static str, key: String) {
        let (actor, outcome) = ("logseal".to_owned(), SUCCEEDED.to_owned());
        self.report(VaultEvent { actor, action, key, outcome, detail: Value::Null }).await;
    }
}
