//! What the audit trail tells a start about clusters that were revoked before it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use logseal_catalog::{Catalog, CatalogError};
use logseal_core::{ClusterId, UnixNanos};
use serde::Deserialize;

use crate::availability::KeyState;

/// What audit records of the states of keys are of.
pub(crate) const ACTION: &str = "logseal/clusters/keyState";

/// So many records are looked at. A cluster whose last one is older than all of these is taken for one that was never revoked: its state is
/// found out anew in any case, only the time since when is lost.
const RECORDS: u32 = 10_000;

/// A cluster that was Revoked.
#[derive(Debug)]
pub(crate) struct Past {
    /// Since when.
    pub(crate) revoked: UnixNanos,
    /// When it resumed before that.
    pub(crate) resumed: Option<UnixNanos>,
}

/// The part of a record that says whose state it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct After {
    cluster_id: String,
}

impl Past {
    /// All clusters whose last record says that they were Revoked.
    pub(crate) async fn of_all(catalog: &Catalog) -> Result<HashMap<ClusterId, Self>, CatalogError> {
        // `None` for a cluster that was not Revoked at last.
        let mut known: HashMap<ClusterId, Option<Self>> = HashMap::new();
        for row in catalog.audit_of(ACTION, RECORDS).await? {
            let after: Option<After> = serde_json::from_str(&row.entry.after).ok();
            let Some(cluster) = after.and_then(|after| after.cluster_id.parse().ok()) else { continue };
            let (at, revoked) = (row.entry.at, row.entry.outcome == KeyState::Revoked.as_str());
            match known.entry(cluster) {
                Entry::Vacant(entry) => drop(entry.insert(revoked.then_some(Self { revoked: at, resumed: None }))),
                Entry::Occupied(mut entry) => {
                    if let (Some(past), false) = (entry.get_mut(), revoked) {
                        past.resumed.get_or_insert(at);
                    }
                }
            }
        }
        Ok(known.into_iter().filter_map(|(cluster, past)| Some((cluster, past?))).collect())
    }
}
