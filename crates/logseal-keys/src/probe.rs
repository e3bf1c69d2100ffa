//! Asking the vault whether it still unwraps for a cluster.
//!
//! A probe is a random key that protects nothing, wrapped by the KEK version in use. Unwrapping it shows that the version can be used without
//! any key that protects something leaving the vault. It is kept in the catalog, so that a start asks by an unwrap as well: a disabled key may
//! still wrap, and an expired one only unwraps.

use logseal_catalog::{CatalogError, Change, ClusterRow, KekVersionRow};
use logseal_core::UnixNanos;
use logseal_crypto::{Commitment, Key256, OsRandom, aad};
use logseal_vault::{VaultError, VaultErrorClass};

use crate::availability::Outcome;
use crate::fault::KeyFault;
use crate::keyring::kek_id_of;
use crate::{KeyError, Keyring};

/// How old the note of a version's last use may get before it is written anew, in nanoseconds: with each note all that is shown of the cluster
/// is made anew, which takes a tenth of a second for a thousand workspaces.
const NOTED_EVERY: i64 = 600_000_000_000;

/// What is remembered between two probes of a cluster.
#[derive(Debug, Default)]
pub struct Probe(Option<KekVersionRow>);

impl Keyring {
    /// Probes the KEK version that `cluster` uses, and notes that it was used.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when the catalog cannot say which probe there is; nothing was learned of the vault.
    pub async fn probe_cluster(
        &self,
        cluster: &ClusterRow,
        probe: &mut Probe,
        now: UnixNanos,
    ) -> Result<Outcome, CatalogError> {
        if probe.0.as_ref().is_none_or(|known| known.kek != cluster.kek) {
            let known = self.catalog().kek_versions(cluster.id).await?;
            probe.0 = known.into_iter().find(|row| row.kek == cluster.kek);
        }
        let answer = match &probe.0 {
            Some(row) => self.unwrap_probe(row).await.map(|()| None),
            None => self.first_probe(cluster, now).await,
        };
        match answer {
            Ok(Some(made)) => {
                self.catalog().apply(Change::PutKekVersion(made.clone())).await?;
                probe.0 = Some(made);
            }
            Ok(None) => {
                if let Some(row) = probe.0.as_mut().filter(|row| now.0.saturating_sub(row.used.0) >= NOTED_EVERY) {
                    let noted = KekVersionRow { used: now, ..row.clone() };
                    self.catalog().apply(Change::PutKekVersion(noted.clone())).await?;
                    *row = noted;
                }
            }
            Err(failure) => return Ok(failure),
        }
        Ok(Outcome::Good)
    }

    async fn unwrap_probe(&self, row: &KekVersionRow) -> Result<(), Outcome> {
        let kek = kek_id_of(&row.kek).ok_or(MISMATCH)?;
        let vault = self.vaults.vault_of(row.cluster, &kek).await.map_err(|error| failed(&error))?;
        let key = vault.unwrap(&kek, &row.probe).await.map_err(|error| failed(&error))?;
        let committed = Commitment::from_slice(&row.commitment);
        if committed.is_some_and(|committed| committed.matches(&key, &aad::kek_probe(row.cluster))) {
            Ok(())
        } else {
            Err(MISMATCH)
        }
    }

    /// Makes the probe of a version that has none yet. One that wraps nothing, since it expired, is probed by an account key that it wrapped.
    async fn first_probe(&self, cluster: &ClusterRow, now: UnixNanos) -> Result<Option<KekVersionRow>, Outcome> {
        let kek = kek_id_of(&cluster.kek).ok_or(MISMATCH)?;
        let key = Key256::generate(OsRandom);
        let commitment = Commitment::of(&key, &aad::kek_probe(cluster.id)).as_bytes().to_vec();
        match self.wrap(cluster.id, &kek, &key).await {
            Ok(probe) => {
                let row = KekVersionRow { cluster: cluster.id, kek: cluster.kek.clone(), probe, commitment, used: now };
                self.unwrap_probe(&row).await.map(|()| Some(row))
            }
            Err(error @ VaultError::OutsideValidity { .. }) => {
                let keys = self.catalog().aeks_of_cluster(cluster.id).await;
                let key = keys.ok().and_then(|mut keys| keys.pop()).ok_or_else(|| failed(&error))?;
                match self.prove(&key).await {
                    Ok(()) => Ok(None),
                    Err(KeyError::Vault { source, .. }) => Err(failed(&source)),
                    Err(_) => Err(MISMATCH),
                }
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

const MISMATCH: Outcome = Outcome::Failed(KeyFault::UnwrapFailed, VaultErrorClass::Trouble);

fn failed(error: &VaultError) -> Outcome {
    Outcome::Failed(KeyFault::from(error), error.class())
}
