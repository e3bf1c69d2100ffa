//! What account keys there are, as metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use logseal_catalog::{AekRow, ClusterRow, WorkspaceRow};
use logseal_core::{ClusterId, WorkspaceId};
use metrics::{Unit, describe_gauge, gauge};

use crate::Wraps;

/// Names of metrics.
const WRAPS: &str = "logseal_key_aek_wraps";
const AEKS: &str = "logseal_key_aeks";

pub(crate) fn describe() {
    describe_gauge!(
        WRAPS,
        Unit::Count,
        "wraps by that account key in use of a cluster's workspaces which has made the most; it is replaced at 2^31"
    );
    describe_gauge!(AEKS, Unit::Count, "account keys of a cluster, by the key version that wraps them");
}

/// What is shown of the account keys of one cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Census {
    /// Of the newest generations, which serve new data.
    most_wraps: u64,
    by_version: BTreeMap<String, u64>,
}

/// What there is to show of `keys` and `workspaces`, by cluster.
fn census(keys: &[AekRow], workspaces: &[WorkspaceRow], wraps: &Wraps) -> HashMap<ClusterId, Census> {
    let mut census: HashMap<ClusterId, Census> = HashMap::new();
    for key in keys {
        let of_cluster = census.entry(key.cluster).or_default();
        *of_cluster.by_version.entry(key.kek.version.clone()).or_default() += 1;
    }
    for key in newest(keys, workspaces).into_values() {
        let of_cluster = census.entry(key.cluster).or_default();
        of_cluster.most_wraps = of_cluster.most_wraps.max(wraps.of(key.id));
    }
    census
}

/// Those of `keys` under which new data of `workspaces` is sealed; a workspace whose key is not among them is left out.
#[must_use]
pub fn newest<'k>(keys: &'k [AekRow], workspaces: &[WorkspaceRow]) -> HashMap<WorkspaceId, &'k AekRow> {
    let mut newest: HashMap<WorkspaceId, &AekRow> = HashMap::new();
    for key in keys {
        let known = newest.entry(key.workspace).or_insert(key);
        if known.generation < key.generation {
            *known = key;
        }
    }
    let clusters: HashMap<_, _> = workspaces.iter().map(|workspace| (workspace.id, workspace.cluster)).collect();
    // A newer one is in a cluster whose keys could not be read.
    newest.retain(|workspace, key| clusters.get(workspace) == Some(&key.cluster));
    newest
}

/// The gauges of account keys. Their labels are clusters, and the key versions that wrap account keys of each.
#[derive(Debug, Default)]
pub struct AccountKeyGauges {
    shown: Mutex<Shown>,
}

/// What has a gauge: one that is not there any more is set to zero, once.
#[derive(Debug, Default)]
struct Shown {
    clusters: BTreeSet<String>,
    versions: BTreeSet<(String, String)>,
}

impl AccountKeyGauges {
    /// Brings the gauges up to date. `keys` and `workspaces` are those of all of `clusters`.
    pub fn show(&self, clusters: &[ClusterRow], keys: &[AekRow], workspaces: &[WorkspaceRow], wraps: &Wraps) {
        let mut census = census(keys, workspaces, wraps);
        let (mut most, mut now) = (BTreeMap::new(), BTreeMap::new());
        // Names need not be unique: what has the same labels is one gauge.
        for ClusterRow { id, name, .. } in clusters {
            let Census { most_wraps, by_version } = census.remove(id).unwrap_or_default();
            let known = most.entry(name.clone()).or_insert(0);
            *known = most_wraps.max(*known);
            for (version, keys) in by_version {
                *now.entry((name.clone(), version)).or_insert(0) += keys;
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.clusters.iter().filter(|cluster| !most.contains_key(*cluster)) {
            set_wraps(gone, 0);
        }
        most.iter().for_each(|(cluster, wraps)| set_wraps(cluster, *wraps));
        for gone in shown.versions.iter().filter(|labels| !now.contains_key(labels)) {
            set(gone, 0);
        }
        now.iter().for_each(|(labels, keys)| set(labels, *keys));
        *shown = Shown { clusters: most.into_keys().collect(), versions: now.into_keys().collect() };
    }
}

fn set_wraps(cluster: &str, wraps: u64) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    gauge!(WRAPS, "cluster" => cluster.to_owned()).set(wraps as f64);
}

fn set((cluster, version): &(String, String), keys: u64) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    gauge!(AEKS, "cluster" => cluster.clone(), "version" => version.clone()).set(keys as f64);
}

#[cfg(test)]
mod tests {
    use logseal_catalog::KekRow;
    use logseal_core::{AekId, ClusterId, UnixNanos, WorkspaceId};
    use metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn kek(version: &str) -> KekRow {
        KekRow { vault_uri: "v".into(), name: "kek".into(), version: version.into() }
    }

    fn cluster(n: u8) -> ClusterRow {
        ClusterRow { id: ClusterId::from_bytes([n; 16]), name: format!("c{n}"), created: UnixNanos(0), kek: kek("new") }
    }

    fn workspace(n: u8, of: u8) -> WorkspaceRow {
        let (id, cluster) = (WorkspaceId::from_bytes([n; 16]), cluster(of).id);
        WorkspaceRow { id, name: format!("w{n}"), cluster, created: UnixNanos(0) }
    }

    fn key(id: u8, workspace: u8, generation: u32, of: u8, version: &str) -> AekRow {
        AekRow {
            id: AekId::from_bytes([id; 16]),
            workspace: WorkspaceId::from_bytes([workspace; 16]),
            cluster: cluster(of).id,
            generation,
            kek: kek(version),
            wrapped: Vec::new(),
            commitment: Vec::new(),
            created: UnixNanos(0),
        }
    }

    /// Scenario: a workspace went from cluster 1 to cluster 2, another one has two generations in cluster 1, under two versions. Guarantee: each
    /// key counts where it is wrapped, and the wraps of those keys alone that serve new data; of a workspace whose newest key is not there
    /// nothing is said.
    #[test]
    fn keys_are_counted_where_they_are_and_wraps_of_the_newest_ones() {
        let workspaces = [workspace(1, 2), workspace(2, 1), workspace(3, 1)];
        let keys = [
            key(1, 1, 1, 1, "old"),
            key(2, 1, 2, 2, "new"),
            key(3, 2, 1, 1, "old"),
            key(4, 2, 2, 1, "new"),
            key(5, 3, 1, 2, "new"),
        ];
        let wraps = keys.iter().zip([90, 2, 80, 4, 70]).map(|(key, wraps)| (key.id, wraps)).collect();
        let versions = |pairs: &[(&str, u64)]| pairs.iter().map(|(version, n)| ((*version).to_owned(), *n)).collect();
        let expected = [
            (cluster(1).id, Census { most_wraps: 4, by_version: versions(&[("new", 1), ("old", 2)]) }),
            (cluster(2).id, Census { most_wraps: 2, by_version: versions(&[("new", 2)]) }),
        ];
        assert_eq!(census(&keys, &workspaces, &wraps), HashMap::from(expected));
        let newest = newest(&keys, &workspaces);
        assert_eq!(newest.get(&workspaces[1].id).map(|key| key.generation), Some(2));
        assert_eq!(newest.get(&workspaces[2].id), None, "its newest key is another cluster's");
    }

    /// Scenario: of two clusters with account keys one is deleted. Guarantee: nothing is shown of it any more but zeros, and of the other what there is.
    #[test]
    fn a_cluster_that_is_gone_has_no_keys_and_no_wraps() {
        let (workspaces, keys) = ([workspace(1, 1), workspace(2, 2)], [key(1, 1, 1, 1, "v"), key(2, 2, 1, 2, "v")]);
        let wraps: Wraps = keys.iter().map(|key| (key.id, 3_000_000_000)).collect();
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = |clusters: &[ClusterRow], gauges: &AccountKeyGauges, from: usize| {
            with_local_recorder(&recorder, || gauges.show(clusters, &keys[from..], &workspaces[from..], &wraps));
            let mut lines: Vec<_> = recorder.handle().render().lines().map(str::to_owned).collect();
            lines.retain(|line| line.starts_with("logseal"));
            lines.sort();
            lines
        };
        let gauges = AccountKeyGauges::default();
        let lines = |first: [&str; 2]| {
            let labels = [r#"aek_wraps{cluster="c1"}"#, r#"aek_wraps{cluster="c2"}"#];
            let by_version = [r#"aeks{cluster="c1",version="v"}"#, r#"aeks{cluster="c2",version="v"}"#];
            let wraps = labels.iter().zip([first[0], "3000000000"]);
            let keys = by_version.iter().zip([first[1], "1"]);
            wraps.chain(keys).map(|(labels, value)| format!("logseal_key_{labels} {value}")).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[cluster(1), cluster(2)], &gauges, 0), lines(["3000000000", "1"]));
        assert_eq!(shown(&[cluster(2)], &gauges, 1), lines(["0", "0"]));
    }
}
