//! The rotation coordinator: looks for newer versions of clusters' keys, and has clusters in automatic mode adopt them.
//!
//! A cluster in automatic mode (`keyVersion` empty) moves forward only: to an enabled version that was made after the one in use, and only
//! while its key is Active. A pinned cluster is never moved; that there is a newer version is shown. Adopting is the same operation that an
//! update of the cluster is: until it has switched all keys in one transaction, the old version serves.
//!
//! It also has workspaces go on under new account keys before their present ones are too old or have sealed too much (`account_keys`).

mod account_keys;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logseal_catalog::{ResourceFilter, ResourceKind, ResourceRow};
use logseal_core::{Chain, ClusterId};
use logseal_keys::AccountKeyGauges;
use logseal_keys::availability::KeyState;
use logseal_vault::{KeyName, KeyProperties, KeyVersion, VaultError};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::Problem;
use crate::callers::caller_of;
use crate::operation::document::UpdateCluster;
use crate::operation::runner::Operations;
use crate::operation::{Intent, Operation, kinds};
use crate::request::{self, Caller};
use crate::resource::ProvisioningState;
use crate::resource::cluster::ClusterDocument;
use crate::resource::key::KeyReference;

/// Clusters of one page; more than a deployment may have.
const PAGE: u32 = 1_000;

/// Who an operation was begun by, in the audit trail.
const ACTOR: &str = "rotation-coordinator";

/// The newest version of each cluster's key that was seen, enabled or not.
#[derive(Debug, Default)]
pub(crate) struct NewestVersions {
    seen: Mutex<HashMap<ClusterId, String>>,
    version: AtomicU64,
}

impl NewestVersions {
    pub(crate) fn of(&self, cluster: ClusterId) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster).cloned()
    }

    /// Another number whenever [`NewestVersions::of`] says something else.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Notes what was seen; true when it is news.
    fn note(&self, cluster: ClusterId, newest: &KeyVersion) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert(cluster, newest.to_string());
        let news = before.as_deref() != Some(newest.as_str());
        if news {
            self.version.fetch_add(1, Ordering::Release);
        }
        news
    }
}

/// What is to be done about a newer version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Plan {
    /// The version in use is the newest one, or what is newer cannot be used.
    Nothing,
    /// Tell of it: the cluster is pinned.
    Tell,
    /// Adopt it.
    Adopt,
}

/// The rule.
fn plan(key: &KeyReference, state: KeyState, in_use: &KeyProperties, newest: &KeyProperties) -> Plan {
    let is_newer = newest.id.version != in_use.id.version && newest.created > in_use.created;
    match (is_newer, key.key_version.is_empty()) {
        (false, _) => Plan::Nothing,
        (true, false) => Plan::Tell,
        (true, true) if newest.enabled && state == KeyState::Active => Plan::Adopt,
        (true, true) => Plan::Nothing,
    }
}

/// Looks at all clusters again and again.
#[derive(Debug)]
pub struct RotationCoordinator {
    /// Where operations begin.
    pub operations: Arc<Operations>,
    /// How often it looks.
    pub period: Duration,
    /// The age at which account keys are replaced; `None` for never.
    pub aek_max_age: Option<Duration>,
}

impl RotationCoordinator {
    /// Works until the task is dropped.
    pub async fn run(self) {
        let gauges = AccountKeyGauges::default();
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
            if let Err(why) = self.look_at_account_keys(&gauges).await {
                warn!(why, "account keys cannot be looked at now");
            }
        }
    }

    async fn look(&self) {
        let filter = ResourceFilter { kind: ResourceKind::Cluster, subscription: None, group: None, deleted: false };
        match self.operations.world().catalog.resources(filter, None, PAGE).await {
            Ok(clusters) => {
                for row in clusters {
                    if let Err(why) = self.look_at(&row).await {
                        warn!(cluster = row.name, why, "newer versions of a cluster's key cannot be looked for now");
                    }
                }
            }
            Err(error) => warn!(error = %Chain(&error), "clusters cannot be read to look for newer keys"),
        }
    }

    /// One cluster. What fails is tried again the next time.
    async fn look_at(&self, row: &ResourceRow) -> Result<Option<Operation>, String> {
        let world = self.operations.world();
        let document: ClusterDocument = kinds::document(row).map_err(|problem| problem.message().to_owned())?;
        let Some(key) = &document.key else { return Ok(None) };
        let id = row.id.cluster();
        let cluster = world.catalog.cluster(id).await.map_err(|error| Chain(&error).to_string())?;
        let (Some(cluster), Some(status)) = (cluster, world.data.key_status(id)) else { return Ok(None) };
        if document.provisioning_state == ProvisioningState::Updating {
            return Ok(None);
        }
        let (in_use, newest) = match self.versions(id, key, &cluster.kek.version).await {
            Ok(versions) => versions,
            // The monitor says so already.
            Err(_) if status.state != KeyState::Active => return Ok(None),
            Err(error) => return Err(Chain(&error).to_string()),
        };
        let news = self.operations.newest().note(id, &newest.id.version);
        match plan(key, status.state, &in_use, &newest) {
            Plan::Nothing => Ok(None),
            Plan::Tell => {
                if news {
                    info!(cluster = row.name, newest = %newest.id.version, in_use = %in_use.id.version, "the key of a pinned cluster has a newer version");
                }
                Ok(None)
            }
            Plan::Adopt => match self.adopt(row, document).await {
                Ok(operation) => Ok(Some(operation)),
                // Something else changes it: the next look comes soon enough.
                Err(problem) if problem.code() == "OperationInProgress" || problem.code() == "Conflict" => Ok(None),
                Err(problem) => Err(problem.message().to_owned()),
            },
        }
    }

    /// The version in use and the newest one.
    async fn versions(
        &self,
        cluster: ClusterId,
        key: &KeyReference,
        in_use: &str,
    ) -> Result<(KeyProperties, KeyProperties), VaultError> {
        let world = self.operations.world();
        let invalid = |error: logseal_vault::KeyIdError| VaultError::Invalid(error.to_string());
        let caller = caller_of(&world.catalog, &*world.vaults, cluster).await?;
        let (_, vault) = world.vaults.vault(&key.key_vault_uri, &caller)?;
        let name = KeyName::parse(&key.key_name).map_err(invalid)?;
        let version = KeyVersion::parse(in_use).map_err(invalid)?;
        Ok((vault.key(&name, Some(&version)).await?, vault.key(&name, None).await?))
    }

    async fn adopt(&self, row: &ResourceRow, mut document: ClusterDocument) -> Result<Operation, Problem> {
        document.provisioning_state = ProvisioningState::Updating;
        let (settings, key) = (document.settings.clone(), document.key.clone());
        let intent = Intent::UpdateCluster(UpdateCluster {
            settings,
            key,
            resolved: None,
            identity: None,
            default_identity: None,
            to_service_key: false,
        });
        let location = document.settings.location.clone();
        let now = self.operations.world().clock.now();
        let caller = Caller::unconditional(ACTOR);
        self.operations.start(request::submission(row, &document, intent, &location, &caller, now)).await
    }
}

#[cfg(test)]
mod tests {
    use logseal_core::UnixNanos;
    use logseal_vault::KeyId;
    use serde_json::json;

    use super::*;
    use crate::resource::Method;
    use crate::testing::{Deployment, VAULT, caller, place};

    fn version(byte: u8, created: i64, enabled: bool) -> KeyProperties {
        KeyProperties {
            id: KeyId {
                vault_uri: VAULT.into(),
                name: KeyName::parse("kek").unwrap(),
                version: KeyVersion::from_bytes([byte; 16]),
            },
            key_type: "RSA".into(),
            rsa_bits: 2048,
            enabled,
            created: UnixNanos(created),
            not_before: None,
            expires: None,
            recoverable: true,
        }
    }

    #[test]
    fn automatic_mode_moves_forward_only_and_pinned_mode_never() {
        let key = |version: &str| KeyReference {
            key_vault_uri: VAULT.to_owned(),
            key_name: "kek".to_owned(),
            key_version: version.to_owned(),
            key_rsa_size: None,
        };
        let (old, new) = (version(1, 10, true), version(2, 20, true));
        let cases = [
            ("", KeyState::Active, &old, &new, Plan::Adopt),
            ("", KeyState::Active, &old, &old, Plan::Nothing),
            ("", KeyState::Active, &new, &old, Plan::Nothing),
            ("", KeyState::Active, &old, &version(2, 20, false), Plan::Nothing),
            ("", KeyState::Degraded, &old, &new, Plan::Nothing),
            ("", KeyState::Revoked, &old, &new, Plan::Nothing),
            ("pinned", KeyState::Active, &old, &new, Plan::Tell),
            ("pinned", KeyState::Active, &new, &old, Plan::Nothing),
        ];
        for (configured, state, in_use, newest, expected) in cases {
            let planned = plan(&key(configured), state, in_use, newest);
            assert_eq!(planned, expected, "`{configured}` {state:?} {:?} {:?}", in_use.created, newest.created);
        }
    }

    /// Scenario: a cluster in automatic mode and a pinned one; their key is rotated in the vault. Guarantee: the first adopts the new version at
    /// the next look, and does nothing at the one after it; the second goes on, and shows that there is a newer one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_version_is_adopted_once_and_only_where_nobody_pinned_one() {
        let deployment = Deployment::new().await;
        let name = KeyName::parse("kek").unwrap();
        let (first, caller) = (deployment.version_of("kek").await, caller());
        for (cluster, version) in [("auto-1", ""), ("pinned-1", first.as_str())] {
            let key = json!({"keyVaultUri": VAULT, "keyName": "kek", "keyVersion": version});
            let body = json!({"location": "x", "properties": {"keyVaultProperties": key}});
            let made = request::write_cluster(&deployment.operations, place(cluster), &body, Method::Put, &caller);
            deployment.succeed(&made.await.unwrap()).await;
        }
        // Versions are ordered by when they were made.
        deployment.clock.advance(Duration::from_secs(1));
        deployment.vault.rotate_key(&name).await.unwrap();
        let second = deployment.version_of("kek").await;
        let coordinator = RotationCoordinator {
            operations: Arc::clone(&deployment.operations),
            period: Duration::from_secs(1),
            aek_max_age: None,
        };
        let row = |name| request::existing(&deployment.operations, ResourceKind::Cluster, place(name));
        let operation = coordinator.look_at(&row("auto-1").await.unwrap()).await.unwrap().expect("an operation");
        deployment.succeed(&operation).await;
        let auto = row("auto-1").await.unwrap();
        assert!(coordinator.look_at(&auto).await.unwrap().is_none());
        let pinned = row("pinned-1").await.unwrap();
        assert!(coordinator.look_at(&pinned).await.unwrap().is_none());
        let version =
            async |row: &ResourceRow| deployment.catalog.cluster(row.id.cluster()).await.unwrap().unwrap().kek.version;
        assert_eq!((version(&auto).await, version(&pinned).await), (second.clone(), first));
        assert_eq!(deployment.operations.newest().of(pinned.id.cluster()), Some(second));
    }
}
