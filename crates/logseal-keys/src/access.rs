//! Workspace keys: what a shipper presents to ship, and nothing else.
//!
//! A key is 256 random bits in base64url. The catalog holds an HMAC of it under the root key, by which a presented key is
//! found, and a copy sealed under the root key, so that `workspace keys` can show it. Neither needs the cluster's KEK: the
//! door can tell friend from stranger also while the cluster's key is out of reach.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use data_encoding::BASE64URL_NOPAD;
use logseal_catalog::WorkspaceKeyRow;
use logseal_core::{UnixNanos, WorkspaceId};
use logseal_crypto::{Key256, MacKey, OsRandom, RootKey, aad, seal};
use zeroize::Zeroizing;

use crate::KeyError;

/// The slots of a workspace's keys: two, so that one can be replaced while the other is in use.
pub const SLOTS: [&str; 2] = ["primary", "secondary"];

/// Longest credential that is looked at; ours have 43 characters.
const CREDENTIAL_BYTES: usize = 128;

/// The workspace keys of a deployment.
#[derive(Debug)]
pub struct AccessKeys {
    lookup_key: MacKey,
    seal_key: Key256,
    accepted: RwLock<Accepted>,
    /// Not every key could be accepted.
    incomplete: AtomicBool,
}

/// Keys that are accepted.
#[derive(Debug, Default)]
struct Accepted {
    /// HMAC of the key -> workspace. Looking up an HMAC tells an attacker by timing only about HMACs, which he cannot make.
    workspaces: HashMap<[u8; 32], WorkspaceId>,
    /// The workspaces that have one.
    having: HashSet<WorkspaceId>,
}

/// A new workspace key.
#[derive(Debug)]
pub struct NewWorkspaceKey {
    /// The row for the catalog.
    pub row: WorkspaceKeyRow,
}

impl AccessKeys {
    /// The keys under `root`; none is accepted until [`AccessKeys::accept`] is called.
    #[must_use]
    pub fn new(root: &RootKey) -> Self {
        Self {
            lookup_key: root.credential_mac(),
            seal_key: root.credential_seal(),
            accepted: RwLock::default(),
            incomplete: AtomicBool::new(false),
        }
    }

    /// A new random key for `workspace`, not accepted yet.
    #[must_use]
    pub fn generate(&self, workspace: WorkspaceId, slot: &str, now: UnixNanos) -> NewWorkspaceKey {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(Key256::generate(OsRandom).expose()));
        self.row_of(workspace, slot, &secret, now)
    }

    /// The row of a key that `workspace` has already, for a catalog that lost it; not accepted yet. `None` when `secret` is not
    /// of the form that [`AccessKeys::generate`] gives.
    #[must_use]
    pub fn keep(&self, workspace: WorkspaceId, slot: &str, secret: &str, now: UnixNanos) -> Option<NewWorkspaceKey> {
        let bytes = BASE64URL_NOPAD.decode(secret.as_bytes()).map(Zeroizing::new).ok()?;
        (bytes.len() == 32).then(|| self.row_of(workspace, slot, secret, now))
    }

    fn row_of(&self, workspace: WorkspaceId, slot: &str, secret: &str, now: UnixNanos) -> NewWorkspaceKey {
        let row = WorkspaceKeyRow {
            workspace,
            slot: slot.to_owned(),
            lookup: self.lookup(secret).to_vec(),
            sealed: seal::seal(&self.seal_key, &aad::workspace_key(workspace, slot), secret.as_bytes(), OsRandom),
            created: now,
        };
        NewWorkspaceKey { row }
    }

    /// Accepts the key of `row` from now on.
    pub fn accept(&self, row: &WorkspaceKeyRow) {
        if let Ok(lookup) = row.lookup.as_slice().try_into() {
            let mut accepted = self.accepted.write().unwrap_or_else(PoisonError::into_inner);
            accepted.workspaces.insert(lookup, row.workspace);
            accepted.having.insert(row.workspace);
        }
    }

    /// From now on `workspace` has the keys of `rows`, and no others.
    pub fn replace(&self, workspace: WorkspaceId, rows: &[WorkspaceKeyRow]) {
        let own = rows.iter().filter(|row| row.workspace == workspace);
        let lookups: Vec<[u8; 32]> = own.filter_map(|row| row.lookup.as_slice().try_into().ok()).collect();
        // In one step: a key that stays is accepted throughout.
        let mut accepted = self.accepted.write().unwrap_or_else(PoisonError::into_inner);
        accepted.workspaces.retain(|_, of| *of != workspace);
        if lookups.is_empty() {
            accepted.having.remove(&workspace);
        } else {
            accepted.having.insert(workspace);
        }
        accepted.workspaces.extend(lookups.into_iter().map(|lookup| (lookup, workspace)));
    }

    /// From now on a key that is not accepted may still be a workspace's: the row of some key cannot be used.
    pub fn set_incomplete(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Whether a key that is not accepted is nobody's.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }

    /// Whether `workspace` has a key: one that is there has.
    #[must_use]
    pub fn has(&self, workspace: WorkspaceId) -> bool {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).having.contains(&workspace)
    }

    /// The workspace that `credential` may ship to.
    #[must_use]
    pub fn workspace_of(&self, credential: &str) -> Option<WorkspaceId> {
        if credential.len() > CREDENTIAL_BYTES {
            return None;
        }
        let lookup = self.lookup(credential);
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).workspaces.get(&lookup).copied()
    }

    /// The key of `row` in clear, for its owner.
    ///
    /// # Errors
    ///
    /// [`KeyError::AccessKey`] when the sealed copy does not open.
    pub fn reveal(&self, row: &WorkspaceKeyRow) -> Result<Zeroizing<String>, KeyError> {
        let failed = || KeyError::AccessKey { workspace: row.workspace, slot: row.slot.clone() };
        let opened = seal::open(&self.seal_key, &aad::workspace_key(row.workspace, &row.slot), &row.sealed);
        String::from_utf8(opened.map_err(|_| failed())?.to_vec()).map(Zeroizing::new).map_err(|_| failed())
    }

    fn lookup(&self, credential: &str) -> [u8; 32] {
        *self.lookup_key.mac("workspace key v1", &[credential.as_bytes()]).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);

    fn keys(root: u8) -> AccessKeys {
        AccessKeys::new(&RootKey::new(Key256::copy_from_slice(&[root; 32]).unwrap()))
    }

    #[test]
    fn only_an_accepted_key_opens_its_workspace() {
        let keys = keys(1);
        let new = keys.generate(WORKSPACE, "primary", UnixNanos(0));
        let secret = keys.reveal(&new.row).unwrap();
        assert_eq!(secret.len(), 43, "256 bits in base64url");
        assert_eq!((keys.workspace_of(&secret), keys.has(WORKSPACE)), (None, false), "not accepted yet");
        keys.accept(&new.row);
        assert!(keys.has(WORKSPACE));
        assert_eq!(keys.workspace_of(&secret), Some(WORKSPACE));
        for wrong in ["", "x", &secret[1..], &format!("{}x", secret.as_str()), &"y".repeat(100_000)] {
            assert_eq!(keys.workspace_of(wrong), None);
        }
    }

    /// Scenario: of a workspace's two keys one is regenerated; then the workspace is suspended. Guarantee: the replaced key is nobody's,
    /// the other one and those of other workspaces go on; of a suspended workspace none does.
    #[test]
    fn a_workspace_has_the_keys_that_it_was_given_last() {
        let keys = keys(1);
        let other = WorkspaceId::from_bytes([2; 16]);
        let new = |workspace, slot| keys.generate(workspace, slot, UnixNanos(0)).row;
        let (primary, secondary, next) =
            (new(WORKSPACE, "primary"), new(WORKSPACE, "secondary"), new(WORKSPACE, "primary"));
        let others = new(other, "primary");
        keys.replace(other, std::slice::from_ref(&others));
        let accepted = |row: &WorkspaceKeyRow| keys.workspace_of(&keys.reveal(row).unwrap());
        keys.replace(WORKSPACE, &[primary.clone(), secondary.clone(), others.clone()]);
        assert_eq!([&primary, &secondary, &others].map(accepted), [Some(WORKSPACE), Some(WORKSPACE), Some(other)]);
        keys.replace(WORKSPACE, &[next.clone(), secondary.clone()]);
        assert_eq!([&primary, &secondary, &next].map(accepted), [None, Some(WORKSPACE), Some(WORKSPACE)]);
        keys.replace(WORKSPACE, &[]);
        assert_eq!([&secondary, &next, &others].map(accepted), [None, None, Some(other)]);
        assert_eq!([WORKSPACE, other].map(|workspace| keys.has(workspace)), [false, true]);
    }

    /// Scenario: the catalog is lost, the key is known from elsewhere. Guarantee: shippers go on with it, and nothing short of a
    /// key of ours is taken for one.
    #[test]
    fn a_kept_key_is_the_same_key() {
        let keys = keys(1);
        let secret = keys.reveal(&keys.generate(WORKSPACE, "primary", UnixNanos(0)).row).unwrap();
        let kept = keys.keep(WORKSPACE, "primary", &secret, UnixNanos(1)).unwrap();
        keys.accept(&kept.row);
        assert_eq!(keys.workspace_of(&secret), Some(WORKSPACE));
        for wrong in ["", "short", &secret[1..], &format!("{}AA", secret.as_str()), &"!".repeat(43)] {
            assert!(keys.keep(WORKSPACE, "primary", wrong, UnixNanos(1)).is_none());
        }
    }

    #[test]
    fn a_stored_key_opens_only_in_its_place_and_under_its_root() {
        let new = keys(1).generate(WORKSPACE, "primary", UnixNanos(0));
        let moved = WorkspaceKeyRow { slot: "secondary".into(), ..new.row.clone() };
        assert!(keys(1).reveal(&moved).is_err());
        assert!(keys(2).reveal(&new.row).is_err());
        let text = format!("{:?}", new);
        assert!(!text.contains(keys(1).reveal(&new.row).unwrap().as_str()), "Debug does not show the key");
    }
}
