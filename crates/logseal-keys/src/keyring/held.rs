//! What a keyring has in memory. No I/O; the keyring holds it behind a lock.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use logseal_core::{AekId, ClusterId, WorkspaceId};
use logseal_crypto::{Aek, Lease};

use super::wraps::Counted;
use super::{Link, Suspension};
use crate::KeyError;

/// An unwrapped key, and whose it is.
#[derive(Debug)]
struct Held {
    aek: Arc<Aek>,
    cluster: ClusterId,
}

/// Whether the keys of a cluster may be used.
#[derive(Debug)]
enum Use {
    Leased(Arc<Lease>),
    Suspended(Arc<Suspension>),
}

#[derive(Debug)]
pub(super) struct Unwrapped {
    by_id: HashMap<AekId, Held>,
    /// Asked for on every request.
    links: HashMap<WorkspaceId, Link>,
    clusters: HashMap<ClusterId, Use>,
    /// The lease of clusters that nobody watches.
    unwatched: Option<Arc<Lease>>,
    /// Workspaces whose present cluster does not serve: their requests need not ask the catalog for that.
    away: HashMap<WorkspaceId, Arc<Suspension>>,
    /// Workspaces that are not available in this life, and why.
    refused: HashMap<WorkspaceId, Arc<str>>,
    /// Keys that were destroyed, with what may still hold them. Whoever read a row before that must not bring its key back.
    shredded: HashMap<AekId, Weak<Aek>>,
    /// One for each key, also for one that is unwrapped anew.
    pub(super) counts: HashMap<AekId, Arc<Counted>>,
}

impl Unwrapped {
    /// Nothing yet. Clusters that are neither suspended nor resumed have the lease `unwatched`; without it they do not serve.
    pub(super) fn new(unwatched: Option<Arc<Lease>>) -> Self {
        Self {
            by_id: HashMap::new(),
            links: HashMap::new(),
            clusters: HashMap::new(),
            unwatched,
            away: HashMap::new(),
            refused: HashMap::new(),
            shredded: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// The lease under which keys of `cluster` are used now.
    pub(super) fn lease_of(&self, cluster: ClusterId) -> Result<Arc<Lease>, KeyError> {
        match (self.clusters.get(&cluster), &self.unwatched) {
            (Some(Use::Leased(lease)), _) => Ok(Arc::clone(lease)),
            (Some(Use::Suspended(why)), _) => Err(KeyError::Suspended(Arc::clone(why))),
            (None, Some(lease)) => Ok(Arc::clone(lease)),
            (None, None) => Err(KeyError::Suspended(Arc::new(Suspension::unwatched(cluster)))),
        }
    }

    /// From now on keys of `cluster` are used under `lease`.
    pub(super) fn resume(&mut self, cluster: ClusterId, lease: Arc<Lease>) {
        self.let_go(cluster);
        self.clusters.insert(cluster, Use::Leased(lease));
    }

    /// From now on no key of the cluster is given; what was given is over with its lease.
    pub(super) fn suspend(&mut self, why: Arc<Suspension>) {
        if let Some(Use::Leased(lease)) = self.clusters.get(&why.cluster) {
            lease.end();
        }
        self.let_go(why.cluster);
        self.clusters.insert(why.cluster, Use::Suspended(why));
    }

    /// Nothing of `cluster` is remembered: it is gone.
    pub(super) fn forget_cluster(&mut self, cluster: ClusterId) {
        self.let_go(cluster);
        self.clusters.remove(&cluster);
    }

    fn let_go(&mut self, cluster: ClusterId) {
        self.by_id.retain(|_, held| held.cluster != cluster);
        self.links.retain(|_, link| link.cluster != cluster);
        self.away.retain(|_, why| why.cluster != cluster);
    }

    pub(super) fn suspension(&self, cluster: ClusterId) -> Option<Arc<Suspension>> {
        match self.clusters.get(&cluster) {
            Some(Use::Suspended(why)) => Some(Arc::clone(why)),
            _ => None,
        }
    }

    /// The key `id`; `None` when it was not unwrapped yet.
    pub(super) fn known(&self, id: AekId) -> Option<Result<Arc<Aek>, KeyError>> {
        if self.shredded.contains_key(&id) {
            return Some(Err(KeyError::Shredded(id)));
        }
        let aek = &self.by_id.get(&id)?.aek;
        Some(aek.lease().check().map(|()| Arc::clone(aek)).map_err(KeyError::from))
    }

    /// The count of the key `id`.
    pub(super) fn counted(&mut self, id: AekId) -> Result<Arc<Counted>, KeyError> {
        if self.shredded.contains_key(&id) {
            return Err(KeyError::Shredded(id));
        }
        Ok(Arc::clone(self.counts.entry(id).or_default()))
    }

    /// Keeps `aek`, which was unwrapped for `cluster` under the lease that it names.
    pub(super) fn remember(&mut self, aek: Arc<Aek>, cluster: ClusterId) -> Result<Arc<Aek>, KeyError> {
        let id = aek.id();
        if self.shredded.contains_key(&id) {
            return Err(KeyError::Shredded(id));
        }
        // It may have been suspended, and even resumed, while the vault was asked.
        if !Arc::ptr_eq(&self.lease_of(cluster)?, aek.lease()) {
            aek.lease().check()?;
            return Err(logseal_crypto::LeaseOver.into());
        }
        self.by_id.insert(id, Held { aek: Arc::clone(&aek), cluster });
        Ok(aek)
    }

    /// Where new data of `workspace` goes; `None` when that was not looked up yet.
    pub(super) fn link(&self, workspace: WorkspaceId) -> Option<Result<Link, KeyError>> {
        if let Some(why) = self.refused.get(&workspace) {
            return Some(Err(KeyError::Refused { workspace, why: Arc::clone(why) }));
        }
        if let Some(why) = self.away.get(&workspace) {
            return Some(Err(KeyError::Suspended(Arc::clone(why))));
        }
        let link = self.links.get(&workspace)?;
        Some(link.aek.lease().check().map(|()| link.clone()).map_err(KeyError::from))
    }

    /// Follows `link` unless a newer one is followed already: callers read the catalog at different moments.
    pub(super) fn follow(&mut self, workspace: WorkspaceId, link: Link) -> Result<Link, KeyError> {
        if self.shredded.contains_key(&link.aek.id()) {
            return Err(KeyError::Shredded(link.aek.id()));
        }
        link.aek.lease().check()?;
        self.away.remove(&workspace);
        let followed = self.links.entry(workspace).or_insert_with(|| link.clone());
        if followed.aek.generation() < link.aek.generation() {
            *followed = link;
        }
        Ok(followed.clone())
    }

    /// The newest key of `workspace` is one of the suspended cluster `why`.
    pub(super) fn send_away(&mut self, workspace: WorkspaceId, why: &Arc<Suspension>) {
        let now = self.suspension(why.cluster);
        if now.is_some_and(|now| Arc::ptr_eq(&now, why)) && !self.links.contains_key(&workspace) {
            self.away.insert(workspace, Arc::clone(why));
        }
    }

    pub(super) fn refuse(&mut self, workspace: WorkspaceId, why: impl FnOnce() -> Arc<str>) {
        self.refused.entry(workspace).or_insert_with(why);
    }

    pub(super) fn refusal(&self, workspace: WorkspaceId) -> Option<Arc<str>> {
        self.refused.get(&workspace).map(Arc::clone)
    }

    pub(super) fn shred(&mut self, aeks: &[AekId]) {
        self.links.retain(|_, link| !aeks.contains(&link.aek.id()));
        for id in aeks {
            let users = self.by_id.remove(id).map(|held| Arc::downgrade(&held.aek));
            self.counts.remove(id);
            let known = self.shredded.entry(*id).or_default();
            if let Some(users) = users {
                *known = users;
            }
        }
    }

    pub(super) fn is_shredded(&self, id: AekId) -> bool {
        self.shredded.contains_key(&id)
    }

    pub(super) fn is_in_use(&self, aeks: &[AekId]) -> bool {
        aeks.iter().filter_map(|id| self.shredded.get(id)).any(|users| users.strong_count() > 0)
    }

    pub(super) fn forget(&mut self, workspace: WorkspaceId) {
        self.links.remove(&workspace);
        self.away.remove(&workspace);
        self.refused.remove(&workspace);
        self.by_id.retain(|_, held| held.aek.workspace() != workspace);
    }

    /// What `workspace` was looked up for may be another now.
    pub(super) fn look_again(&mut self, workspace: WorkspaceId) {
        self.away.remove(&workspace);
    }
}
