//! The copies of wrapped account keys in the store.

use std::collections::BTreeMap;

use logseal_core::{AekId, Chain, UnixNanos};
use logseal_crypto::MacKey;
use logseal_keys::{KeyCopy, KeyError, Keyring, wrapped_key_copy};
use logseal_segment::{SegmentStore, StoredObject};
use logseal_vault::{KeyName, KeyVault, KeyVersion};

use crate::report::{Outcome, Report};

/// The genuine copies, by key.
#[derive(Debug, Default)]
pub(crate) struct Copies(BTreeMap<AekId, Vec<KeyCopy>>);

impl Copies {
    /// Reads `objects`; those that are not genuine go into the report.
    pub(crate) async fn read(
        store: &SegmentStore,
        objects: &[StoredObject],
        mac_key: &MacKey,
        report: &mut Report,
    ) -> Self {
        let mut copies = Self::default();
        for StoredObject { path, .. } in objects {
            let content = match store.get(path, wrapped_key_copy::COPY_BYTES).await {
                Ok(content) => content,
                Err(error) => {
                    report.keep(path, Outcome::Unreadable, Chain(&error).to_string());
                    continue;
                }
            };
            match wrapped_key_copy::parse(path, &content, mac_key) {
                Ok(copy) => copies.0.entry(copy.aek.id).or_default().push(copy),
                Err(error) => report.keep(path, Outcome::Unreadable, Chain(&error).to_string()),
            }
        }
        copies
    }

    /// All keys, the newest first: the newest one of a cluster says which KEK the cluster uses.
    pub(crate) fn newest_first(&self) -> Vec<AekId> {
        let mut keys: Vec<_> =
            self.0.iter().filter_map(|(id, copies)| copies.first().map(|copy| (copy.aek.created, *id))).collect();
        keys.sort_unstable_by(|one, other| other.cmp(one));
        keys.into_iter().map(|(_, id)| id).collect()
    }

    /// When the first key of the same workspace was made, which is when the workspace was.
    pub(crate) fn workspace_made(&self, copy: &KeyCopy) -> UnixNanos {
        let same = self.0.values().flatten().filter(|other| other.aek.workspace == copy.aek.workspace);
        same.map(|other| other.aek.created).min().unwrap_or(copy.aek.created)
    }

    /// A copy of the newest generation of the same workspace, usable or not: the workspace is linked to its cluster. Older generations may
    /// be of clusters that the workspace has left.
    pub(crate) fn newest_of_workspace<'c>(&'c self, copy: &'c KeyCopy) -> &'c KeyCopy {
        let same = self.0.values().flatten().filter(|other| other.aek.workspace == copy.aek.workspace);
        same.max_by_key(|other| other.aek.generation).unwrap_or(copy)
    }

    /// A copy of `id` that the vault unwraps, of the newest KEK version that does; nothing when there is none.
    ///
    /// # Errors
    ///
    /// What the keyring says to the last one that was tried.
    pub(crate) async fn usable(
        &self,
        id: AekId,
        keyring: &Keyring,
        vault: &dyn KeyVault,
    ) -> Result<Option<&KeyCopy>, KeyError> {
        let mut aged = Vec::new();
        for copy in self.0.get(&id).into_iter().flatten() {
            aged.push((version_made(vault, copy).await, copy));
        }
        aged.sort_by_key(|(made, _)| std::cmp::Reverse(*made));
        let mut refused = None;
        for (_, copy) in aged {
            match keyring.prove(&copy.aek).await {
                Ok(()) => return Ok(Some(copy)),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The paths of the copies of `id`, as they are in the store.
    pub(crate) fn of(&self, id: AekId) -> &[KeyCopy] {
        self.0.get(&id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// When the vault made the version that wrapped `copy`; nothing when it does not know it.
async fn version_made(vault: &dyn KeyVault, copy: &KeyCopy) -> Option<UnixNanos> {
    let (name, version) = (KeyName::parse(&copy.aek.kek.name).ok()?, KeyVersion::parse(&copy.aek.kek.version).ok()?);
    vault.key(&name, Some(&version)).await.ok().map(|properties| properties.created)
}
