//! How often each account key seals: counted, and reserved in the catalog before it happens.
//!
//! Wraps are reserved in blocks, when the first data under a key is to be sealed and whenever half of a block is left. So a key seals what the
//! catalog knows of only, and a crash counts at most one block too many.

use std::collections::HashMap;
use std::sync::Arc;

use logseal_catalog::{AekWrapsRow, Change};
use logseal_core::{AekId, Chain};
use logseal_crypto::{Aek, WrapCount};
use tokio::sync::Mutex;
use tracing::warn;

use super::Keyring;
use crate::KeyError;

/// Wraps that are reserved at a time. Each start that uses a key may cost so many of [`WRAPS_LIMIT`]: half a million starts are as good as none.
const BLOCK: u64 = 4_096;

/// With fewer left, more are reserved while these still serve.
const LOW: u64 = BLOCK / 2;

/// As often a key counts as used that nobody counted: one that an earlier version made, or whose catalog was lost. A segment and a file of
/// the log each second for three months are fewer.
pub const UNCOUNTED: u64 = 1 << 24;

/// A key that sealed so often is replaced. AES-GCM with random nonces allows 2^32 invocations (NIST SP 800-38D, section 8.3); half of that is
/// margin for the time that the replacement takes, and for a catalog that was put back to an older state.
pub const WRAPS_LIMIT: u64 = 1 << 31;

/// The count of one key, and the turn of who reserves more.
#[derive(Debug)]
pub(super) struct Counted {
    count: Arc<WrapCount>,
    turn: Mutex<()>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { count: WrapCount::unreserved(), turn: Mutex::default() }
    }
}

impl Counted {
    pub(super) fn count(&self) -> Arc<WrapCount> {
        Arc::clone(&self.count)
    }

    /// `None` when nothing was reserved in this life.
    fn used(&self) -> Option<u64> {
        (self.count.used() > 0 || self.count.left() > 0).then(|| self.count.used())
    }
}

/// How often keys have sealed.
#[derive(Clone, Debug, Default)]
pub struct Wraps(HashMap<AekId, u64>);

impl FromIterator<(AekId, u64)> for Wraps {
    fn from_iter<T: IntoIterator<Item = (AekId, u64)>>(counts: T) -> Self {
        Self(counts.into_iter().collect())
    }
}

impl Wraps {
    /// How often the key `aek` did; never too low but for keys that are [`UNCOUNTED`].
    #[must_use]
    pub fn of(&self, aek: AekId) -> u64 {
        self.0.get(&aek).copied().unwrap_or(UNCOUNTED)
    }
}

impl Keyring {
    /// Makes sure that `aek` may seal `wraps` times. Usually it may, and nothing is done.
    ///
    /// # Errors
    ///
    /// [`KeyError::Shredded`], and [`KeyError::Catalog`] when no more can be reserved and what is left does not do.
    pub async fn reserve_wraps(&self, aek: &Aek, wraps: u64) -> Result<(), KeyError> {
        let has = |least| aek.wraps().left() >= least;
        if has(wraps.max(LOW)) {
            return Ok(());
        }
        let counted = self.unwrapped().counted(aek.id())?;
        let _turn = match counted.turn.try_lock() {
            Ok(turn) => turn,
            // Who can go on does not wait for who reserves more.
            Err(_) if has(wraps) => return Ok(()),
            Err(_) => counted.turn.lock().await,
        };
        if has(wraps.max(LOW)) {
            return Ok(());
        }
        match self.reserve(aek.id(), &counted, wraps).await {
            // The next one tries again.
            Err(error) if has(wraps) && !error.is_lasting() => Ok(()),
            reserved => reserved,
        }
    }

    async fn reserve(&self, aek: AekId, counted: &Counted, wraps: u64) -> Result<(), KeyError> {
        let used = match counted.used() {
            Some(used) => used,
            // All that was reserved in earlier lives may have been used.
            None => self.catalog.aek_wraps_of(aek).await?.unwrap_or(UNCOUNTED),
        };
        let reserved = used + wraps + BLOCK;
        self.catalog.apply(Change::ReserveAekWraps(AekWrapsRow { aek, wraps: reserved })).await?;
        counted.count.reserve(used, reserved);
        Ok(())
    }

    /// How often the keys in the catalog have sealed. Rows that were altered are told of in the log and count as missing.
    ///
    /// # Errors
    ///
    /// [`KeyError::Catalog`].
    pub async fn wraps(&self) -> Result<Wraps, KeyError> {
        let (rows, altered) = self.catalog.aek_wraps().await?;
        for error in altered {
            warn!(error = %Chain(&error), "how often an account key was used cannot be read");
        }
        let unwrapped = self.unwrapped();
        let used = |row: &AekWrapsRow| unwrapped.counts.get(&row.aek).and_then(|counted| counted.used());
        Ok(rows.iter().map(|row| (row.aek, used(row).unwrap_or(row.wraps))).collect())
    }
}

#[cfg(test)]
mod tests {
    use logseal_catalog::AekRow;
    use logseal_core::SegmentId;
    use logseal_crypto::{OsRandom, WrapError};

    use super::super::tests::{Deployment, WORKSPACE, aek_id, cluster, owner, workspace};
    use super::*;

    async fn provisioned(counted: bool) -> (Deployment, AekRow) {
        let deployment = Deployment::new().await;
        let keyring = deployment.keyring();
        let row = keyring.new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
        deployment.provision(row.clone()).await;
        if counted {
            let begun = Change::ReserveAekWraps(AekWrapsRow { aek: row.id, wraps: 0 });
            deployment.catalog.apply(begun).await.unwrap();
        }
        (deployment, row)
    }

    fn seal(aek: &Aek) -> Result<(), WrapError> {
        aek.new_dek(SegmentId::from_bytes([6; 16]), OsRandom).map(drop)
    }

    /// Scenario: a new key seals three times, is suspended with its cluster and resumed, and seals once more; then the process is killed, three
    /// times. Guarantee: the catalog knows of each wrap before it happens; within a life the count is exact, also over a suspension; after a
    /// kill it is not lower than what was sealed, and each life that sealed costs one block at most.
    #[tokio::test]
    async fn a_crash_counts_too_much_and_never_too_little() {
        let (deployment, row) = provisioned(true).await;
        let mut sealed = 0;
        for life in 0..3 {
            let keyring = deployment.keyring();
            assert_eq!(
                keyring.wraps().await.unwrap().of(row.id),
                life * (BLOCK + 1),
                "nothing was sealed in this life"
            );
            let base = life * (BLOCK + 1);
            let aek = keyring.current(WORKSPACE).await.unwrap().aek;
            for _ in 0..3 {
                seal(&aek).unwrap();
            }
            keyring.resume(cluster().id, logseal_crypto::Lease::unlimited());
            let again = keyring.current(WORKSPACE).await.unwrap().aek;
            assert!(!Arc::ptr_eq(&aek, &again));
            seal(&again).unwrap();
            sealed += 4;
            let stored = deployment.catalog.aek_wraps_of(row.id).await.unwrap().unwrap();
            assert_eq!(keyring.wraps().await.unwrap().of(row.id), base + 4);
            assert!(stored >= base + 4 && stored >= sealed, "{stored}");
            assert!(stored <= (life + 1) * (BLOCK + 1), "{stored}");
        }
    }

    /// Scenario: a key is opened by its id, as for a query, and asked to seal; then it seals more than two blocks, one after the other.
    /// Guarantee: it seals nothing before something is reserved, and afterwards never runs out.
    #[tokio::test]
    async fn a_key_seals_only_what_is_reserved_and_does_not_run_out() {
        let (deployment, row) = provisioned(true).await;
        let keyring = deployment.keyring();
        let opened = keyring.aek(row.id).await.unwrap();
        assert!(matches!(seal(&opened), Err(WrapError::Exhausted(_))));
        for n in 0..2 * BLOCK + 10 {
            seal(&keyring.current(WORKSPACE).await.unwrap().aek).unwrap();
            assert!(deployment.catalog.aek_wraps_of(row.id).await.unwrap().unwrap() > n);
        }
        assert_eq!(keyring.wraps().await.unwrap().of(row.id), 2 * BLOCK + 10);
        keyring.reserve_wraps(&opened, 100 * BLOCK).await.unwrap();
        assert!(opened.wraps().left() >= 100 * BLOCK, "as many columns of one request");
    }

    /// Scenario: the catalog takes nothing any more. Guarantee: what is reserved serves; then nothing is sealed, with an error that passes.
    #[tokio::test]
    async fn without_the_catalog_a_key_seals_what_it_has_and_then_nothing() {
        let (deployment, row) = provisioned(true).await;
        let keyring = deployment.keyring();
        let aek = keyring.current(WORKSPACE).await.unwrap().aek;
        let left = aek.wraps().left();
        deployment.catalog.close().await.unwrap();
        for _ in 0..left {
            keyring.current(WORKSPACE).await.unwrap();
            seal(&aek).unwrap();
        }
        let refused = keyring.current(WORKSPACE).await.unwrap_err();
        assert!(matches!(refused, KeyError::Catalog(_)) && !refused.is_lasting(), "{refused:?}");
        assert!(matches!(seal(&aek), Err(WrapError::Exhausted(_))));
        let stored = deployment.reopened().await.wraps().await.unwrap();
        assert_eq!(stored.of(row.id), left);
    }

    /// Scenario: a key that an earlier version made seals. Guarantee: it counts as used as often as that version may have used it.
    #[tokio::test]
    async fn a_key_of_before_the_count_begins_high() {
        let (deployment, row) = provisioned(false).await;
        let keyring = deployment.keyring();
        assert_eq!(keyring.wraps().await.unwrap().of(row.id), UNCOUNTED);
        seal(&keyring.current(WORKSPACE).await.unwrap().aek).unwrap();
        assert_eq!(keyring.wraps().await.unwrap().of(row.id), UNCOUNTED + 1);
        assert!(deployment.keyring().wraps().await.unwrap().of(row.id) > UNCOUNTED);
    }
}
