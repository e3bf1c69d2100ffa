//! Workspace keys: what a shipper presents to ship, and nothing else.
//!
//! A workspace has two, so that one can be replaced while the other is in use. A key is 256 random bits in base64url. The catalog holds an
//! HMAC of it under the root key, by which a presented key is found, and a copy sealed under the root key, so that `workspace keys` can show
//! it. Neither needs the cluster's KEK: the door can tell friend from stranger also while the cluster's key is out of reach.
//!
//! When a key was last presented is noted in memory, at most once a second, and given to whoever stores it ([`AccessKeys::unsaved`]): a
//! request costs the catalog nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use data_encoding::BASE64URL_NOPAD;
use logseal_catalog::{WorkspaceKeyRow, WorkspaceKeyUseRow};
use logseal_core::{UnixNanos, WorkspaceId};
use logseal_crypto::{Key256, MacKey, OsRandom, RootKey, aad, seal};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::KeyError;

/// Longest credential that is looked at; ours have 43 characters.
const CREDENTIAL_BYTES: usize = 128;

/// How exactly a key's use is noted: threads that serve the same key do not write to one place for each request.
const EXACTNESS: u64 = 1_000_000_000;

/// The time of a use that never was, or is not known.
const NEVER: i64 = i64::MIN;

/// Which of a workspace's keys.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The one that `credentials.json` has of the default workspace.
    Primary,
    /// The other one.
    Secondary,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Secondary];

    /// As the catalog and the management API call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The slot of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.as_str() == name)
    }
}

/// The workspace keys of a deployment.
#[derive(Debug)]
pub struct AccessKeys {
    lookup_key: MacKey,
    seal_key: Key256,
    known: RwLock<Known>,
    /// Not every key could be accepted.
    incomplete: AtomicBool,
}

/// What is known of keys and workspaces. Changes are rare; each request reads.
#[derive(Debug, Default)]
struct Known {
    /// By HMAC of the key. How long this takes tells an attacker about HMACs only, which he can neither choose nor foresee: however near a
    /// guess is to a key, its HMAC is as far away as any other.
    keys: HashMap<[u8; 32], Arc<Entry>>,
    /// Of each workspace the keys by slot, also while they are not accepted.
    slots: HashMap<WorkspaceId, [Option<Arc<Entry>>; 2]>,
    /// Workspaces that are deleted and can be recovered.
    closed: HashSet<WorkspaceId>,
    /// What settings say of workspaces, with the version that they are from.
    local_auth: HashMap<WorkspaceId, (bool, u64)>,
}

/// A key.
#[derive(Debug)]
struct Entry {
    workspace: WorkspaceId,
    slot: Slot,
    lookup: [u8; 32],
    created: UnixNanos,
    /// When it was last presented.
    used: AtomicI64,
    /// What of that is stored.
    saved: AtomicI64,
}

impl Entry {
    /// `None` for a row that no version of this code writes.
    fn of(row: &WorkspaceKeyRow) -> Option<Self> {
        Some(Self {
            workspace: row.workspace,
            slot: Slot::parse(&row.slot)?,
            lookup: row.lookup.as_slice().try_into().ok()?,
            created: row.created,
            used: AtomicI64::new(NEVER),
            saved: AtomicI64::new(NEVER),
        })
    }

    fn note_use(&self, now: UnixNanos) {
        // Also when the clock was put back: it would take the old time until the clock is there again to note anything.
        if self.used.load(Ordering::Relaxed).abs_diff(now.0) >= EXACTNESS {
            self.used.store(now.0, Ordering::Relaxed);
        }
    }

    fn last_used(&self) -> Option<UnixNanos> {
        Some(self.used.load(Ordering::Relaxed)).filter(|used| *used != NEVER).map(UnixNanos)
    }
}

impl Known {
    fn insert(&mut self, entry: Entry) {
        let entry = Arc::new(entry);
        self.slots.entry(entry.workspace).or_default()[entry.slot as usize] = Some(Arc::clone(&entry));
        self.keys.insert(entry.lookup, entry);
    }

    /// Takes all keys of `workspace` away.
    fn take(&mut self, workspace: WorkspaceId) -> Vec<Arc<Entry>> {
        let taken: Vec<_> = self.slots.remove(&workspace).into_iter().flatten().flatten().collect();
        for entry in &taken {
            self.keys.remove(&entry.lookup);
        }
        taken
    }
}

/// A new workspace key.
#[derive(Debug)]
pub struct NewWorkspaceKey {
    /// The row for the catalog.
    pub row: WorkspaceKeyRow,
}

/// What is known of a key beside itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyMetadata {
    /// Which one it is.
    pub slot: Slot,
    /// When it was made.
    pub created: UnixNanos,
    /// When it was last presented and accepted, to the second; `None` if never. After a crash up to a minute of it is forgotten.
    pub last_used: Option<UnixNanos>,
}

/// Why a presented key opens nothing.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NotAccepted {
    /// No workspace has it.
    #[error("unknown workspace key")]
    Unknown,
    /// Its workspace takes no keys.
    #[error("workspace keys are turned off for this workspace")]
    LocalAuthDisabled,
}

impl AccessKeys {
    /// The keys under `root`; none is accepted until [`AccessKeys::accept`] is called.
    #[must_use]
    pub fn new(root: &RootKey) -> Self {
        Self {
            lookup_key: root.credential_mac(),
            seal_key: root.credential_seal(),
            known: RwLock::default(),
            incomplete: AtomicBool::new(false),
        }
    }

    /// A new random key for `workspace`, not accepted yet.
    #[must_use]
    pub fn generate(&self, workspace: WorkspaceId, slot: Slot, now: UnixNanos) -> NewWorkspaceKey {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(Key256::generate(OsRandom).expose()));
        self.row_of(workspace, slot, &secret, now)
    }

    /// The row of a key that `workspace` has already, for a catalog that lost it; not accepted yet. `None` when `secret` is not
    /// of the form that [`AccessKeys::generate`] gives.
    #[must_use]
    pub fn keep(&self, workspace: WorkspaceId, slot: Slot, secret: &str, now: UnixNanos) -> Option<NewWorkspaceKey> {
        let bytes = BASE64URL_NOPAD.decode(secret.as_bytes()).map(Zeroizing::new).ok()?;
        (bytes.len() == 32).then(|| self.row_of(workspace, slot, secret, now))
    }

    fn row_of(&self, workspace: WorkspaceId, slot: Slot, secret: &str, now: UnixNanos) -> NewWorkspaceKey {
        let slot = slot.as_str();
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
        match Entry::of(row) {
            Some(entry) => self.write().insert(entry),
            None => self.set_incomplete(),
        }
    }

    /// From now on `workspace` has the keys of `rows`, and no others. What is known of the use of those that it had before stays known.
    pub fn replace(&self, workspace: WorkspaceId, rows: &[WorkspaceKeyRow]) {
        let own = rows.iter().filter(|row| row.workspace == workspace);
        let entries: Vec<_> = own.filter_map(Entry::of).collect();
        // In one step: a key that stays is accepted throughout.
        let mut known = self.write();
        let before = known.take(workspace);
        for entry in entries {
            if let Some(same) = before.iter().find(|same| same.lookup == entry.lookup) {
                entry.used.store(same.used.load(Ordering::Relaxed), Ordering::Relaxed);
                entry.saved.store(same.saved.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            known.insert(entry);
        }
        known.closed.remove(&workspace);
    }

    /// Accepts no key of `workspace` until [`AccessKeys::replace`] is called.
    pub fn suspend(&self, workspace: WorkspaceId) {
        self.write().closed.insert(workspace);
    }

    /// Forgets `workspace`, which is gone for good.
    pub fn forget(&self, workspace: WorkspaceId) {
        let mut known = self.write();
        known.take(workspace);
        known.closed.remove(&workspace);
        known.local_auth.remove(&workspace);
    }

    /// Whether `workspace` takes keys at all, as `version` of its settings has it; what older versions say is passed over.
    pub fn set_local_auth(&self, workspace: WorkspaceId, is_on: bool, version: u64) {
        let mut known = self.write();
        let stored = known.local_auth.entry(workspace).or_insert((is_on, version));
        if stored.1 <= version {
            *stored = (is_on, version);
        }
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

    /// Whether `workspace` has a key, turned off or not: one that is there, and is not deleted, has.
    #[must_use]
    pub fn has(&self, workspace: WorkspaceId) -> bool {
        let known = self.read();
        known.slots.contains_key(&workspace) && !known.closed.contains(&workspace)
    }

    /// The workspace that `credential`, which is presented `now`, may ship to. That it was presented is noted.
    ///
    /// # Errors
    ///
    /// [`NotAccepted`].
    pub fn workspace_of(&self, credential: &str, now: UnixNanos) -> Result<WorkspaceId, NotAccepted> {
        if credential.len() > CREDENTIAL_BYTES {
            return Err(NotAccepted::Unknown);
        }
        let lookup = self.lookup(credential);
        let known = self.read();
        let entry = known.keys.get(&lookup).ok_or(NotAccepted::Unknown)?;
        let workspace = entry.workspace;
        if known.closed.contains(&workspace) {
            return Err(NotAccepted::Unknown);
        }
        if known.local_auth.get(&workspace).is_some_and(|(is_on, _)| !is_on) {
            return Err(NotAccepted::LocalAuthDisabled);
        }
        entry.note_use(now);
        Ok(workspace)
    }

    /// What is known of the keys of `workspace`, by slot.
    #[must_use]
    pub fn metadata(&self, workspace: WorkspaceId) -> Vec<KeyMetadata> {
        let known = self.read();
        let entries = known.slots.get(&workspace).into_iter().flatten().flatten();
        entries
            .map(|entry| KeyMetadata { slot: entry.slot, created: entry.created, last_used: entry.last_used() })
            .collect()
    }

    /// Goes on from what is stored of keys' uses.
    pub fn load_uses(&self, rows: &[WorkspaceKeyUseRow]) {
        let known = self.read();
        for row in rows {
            let Ok(lookup) = <[u8; 32]>::try_from(row.lookup.as_slice()) else { continue };
            if let Some(entry) = known.keys.get(&lookup) {
                entry.used.store(row.used.0, Ordering::Relaxed);
                entry.saved.store(row.used.0, Ordering::Relaxed);
            }
        }
    }

    /// The uses of keys that are to be stored.
    #[must_use]
    pub fn unsaved(&self) -> Vec<WorkspaceKeyUseRow> {
        let known = self.read();
        let unsaved = known.keys.values().filter_map(|entry| {
            let used = entry.last_used().filter(|used| used.0 != entry.saved.load(Ordering::Relaxed))?;
            Some(WorkspaceKeyUseRow {
                workspace: entry.workspace,
                slot: entry.slot.as_str().to_owned(),
                lookup: entry.lookup.to_vec(),
                used,
            })
        });
        unsaved.collect()
    }

    /// `rows` are stored.
    pub fn saved(&self, rows: &[WorkspaceKeyUseRow]) {
        let known = self.read();
        for row in rows {
            let Ok(lookup) = <[u8; 32]>::try_from(row.lookup.as_slice()) else { continue };
            if let Some(entry) = known.keys.get(&lookup) {
                entry.saved.store(row.used.0, Ordering::Relaxed);
            }
        }
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

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
