//! A catalog is lost or older than its store, and comes back: everything that can be opened, each record once, nothing else believed.

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use logseal_catalog::{AekRow, KekRow, TableRow};
use logseal_core::{SegmentId, SystemClock, TableId, TableName, UnixNanos, WalFileId};
use logseal_crypto::{Aek, Key256, Lease, OsRandom, RootKey};
use logseal_keys::{AekOwner, OneVault, WrappedKeyStore};
use logseal_segment::{FooterColumn, FooterCoverage, SegmentIdentity, SegmentSettings, encode};
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyVault as _};
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);
const AEK: AekId = AekId::from_bytes([3; 16]);
const LOGS: TableId = TableId::from_bytes([4; 16]);

#[derive(Debug)]
struct KeyCopies(SegmentStore);

#[async_trait]
impl WrappedKeyStore for KeyCopies {
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.put_new(path, content).await?)
    }

    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        match self.0.get(path, logseal_keys::wrapped_key_copy::COPY_BYTES).await {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(logseal_segment::SegmentError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What outlives a catalog, and the parts of one workspace in it.
struct Deployment {
    dir: tempfile::TempDir,
    root: RootKey,
    vault: Arc<EmbeddedVault>,
    kek: KeyId,
    store: SegmentStore,
}

/// The columns that a segment's table has, by key and kind.
type Columns<'c> = &'c [(&'c str, u8)];

impl Deployment {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = RootKey::new(Key256::copy_from_slice(&[7; 32]).unwrap());
        let vault = EmbeddedVault::open(dir.path().join("vault"), "https://v", &root, Arc::new(SystemClock)).unwrap();
        let kek = vault.create_key(&KeyName::parse("kek").unwrap(), 2048).await.unwrap().id;
        let store = SegmentStore::durable(Arc::new(InMemory::new()));
        Self { dir, root, vault: Arc::new(vault), kek, store }
    }

    fn client(&self) -> EmbeddedClient {
        EmbeddedClient::new(Arc::clone(&self.vault), Caller::Deployment)
    }

    /// A rebuild over the catalog of this name, which is new when there is none.
    async fn rebuild(&self, catalog: &str) -> Rebuild {
        let catalog = Catalog::open(&self.dir.path().join(catalog), self.root.catalog_mac()).await.unwrap();
        let (vault, copies) = (Arc::new(OneVault::embedded(&self.vault)), Arc::new(KeyCopies(self.store.clone())));
        let keyring = Keyring::new(vault, catalog.clone(), copies, self.root.catalog_mac(), Arc::new(SystemClock));
        Rebuild {
            catalog,
            keyring: Arc::new(keyring),
            vault: Arc::new(self.client()),
            store: self.store.clone(),
            access: AccessKeys::new(&self.root),
            mac_key: self.root.catalog_mac(),
            secrets: Vec::new(),
            first_names: ("local", "default"),
            clock: Arc::new(SystemClock),
        }
    }

    /// Makes a workspace `name` with its key's copy in the store, in no catalog yet.
    async fn workspace(&self, id: WorkspaceId, aek: AekId, name: &str) -> (ClusterRow, WorkspaceRow, AekRow) {
        self.generation(id, aek, name, 1).await
    }

    /// As [`Deployment::workspace`], with the key of this generation.
    async fn generation(
        &self,
        id: WorkspaceId,
        aek: AekId,
        name: &str,
        generation: u32,
    ) -> (ClusterRow, WorkspaceRow, AekRow) {
        self.generation_of(CLUSTER, &self.kek, (id, aek, name, generation)).await
    }

    /// As [`Deployment::generation`], of this cluster and under this KEK.
    async fn generation_of(
        &self,
        cluster: ClusterId,
        kek_id: &KeyId,
        (id, aek, name, generation): (WorkspaceId, AekId, &str, u32),
    ) -> (ClusterRow, WorkspaceRow, AekRow) {
        let scratch = self.rebuild(&format!("scratch-{name}.sqlite")).await;
        let created = UnixNanos(5);
        let kek = KekRow {
            vault_uri: kek_id.vault_uri.to_string(),
            name: kek_id.name.to_string(),
            version: kek_id.version.to_string(),
        };
        let cluster = ClusterRow { id: cluster, name: "prod".into(), created, kek };
        let workspace = WorkspaceRow { id, name: name.into(), cluster: cluster.id, created };
        let logs = if id == WORKSPACE { LOGS } else { TableId::from_bytes(*id.as_bytes()) };
        let tables = [TableRow { id: logs, workspace: id, name: TableName::logs(), created }];
        let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
        let row = scratch.keyring.new_aek(aek, owner, generation, kek_id).await.unwrap();
        (cluster, workspace, row)
    }

    async fn aek(&self, row: &AekRow) -> Aek {
        let key = self.client().unwrap(&self.kek, &row.wrapped).await.unwrap();
        Aek::new(row.id, row.workspace, row.generation, key, Lease::unlimited())
    }

    /// Puts a segment of one row per frame into the store.
    async fn segment(&self, aek: &Aek, id: u8, columns: Columns<'_>, frames: (u8, u64, u64)) -> StoredObject {
        let identity = SegmentIdentity {
            cluster: CLUSTER,
            workspace: aek.workspace(),
            table: LOGS,
            segment: SegmentId::from_bytes([id; 16]),
            received: UnixNanos(0),
        };
        let rows = i64::try_from(frames.2 - frames.1 + 1).unwrap();
        let footer = SegmentFooter {
            cluster: CLUSTER,
            workspace: aek.workspace(),
            workspace_name: "w".into(),
            table: LOGS,
            table_name: TableName::logs(),
            aek: aek.id(),
            aek_generation: aek.generation(),
            segment: identity.segment,
            rows: rows.unsigned_abs(),
            min_time: UnixNanos(1),
            max_time: UnixNanos(2),
            created: UnixNanos(3),
            columns: (0..)
                .zip(columns)
                .map(|(ordinal, (key, kind))| FooterColumn { ordinal, container: 0, kind: *kind, key: (*key).into() })
                .collect(),
            coverage: vec![FooterCoverage {
                file: WalFileId::from_bytes([frames.0; 16]),
                first: frames.1,
                last: frames.2,
            }],
        };
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let chunk = RecordBatch::try_from_iter([("time", values)]).unwrap();
        let settings = SegmentSettings { row_group_bytes: 1 << 20, zstd_level: 1 };
        let sealed = encode::seal(&identity, aek, &[chunk], &footer, &settings, OsRandom).unwrap();
        let path = sealed.path.as_path().clone();
        let bytes = sealed.file.content_length() as u64;
        self.store.put_new(&path, sealed.file).await.unwrap();
        StoredObject { path, bytes }
    }

    async fn objects(&self) -> Vec<StoredObject> {
        let mut objects: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        objects.sort_by_key(|object| object.path.to_string());
        objects
    }
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.kept.iter().map(|kept| kept.outcome).collect()
}

/// Scenario: the catalog is gone altogether. Guarantee: cluster, workspace, key, table, columns, segments and coverage are as they
/// were, by id and by name; the segments' keys open from the new rows; a second run changes nothing.
#[tokio::test]
async fn an_empty_catalog_gets_everything_back() {
    let deployment = Deployment::new().await;
    let (_, _, row) = deployment.workspace(WORKSPACE, AEK, "audit").await;
    let aek = deployment.aek(&row).await;
    deployment.segment(&aek, 11, &[("a", 1)], (9, 3, 10)).await;
    deployment.segment(&aek, 12, &[("a", 1), ("b", 2)], (9, 11, 20)).await;
    let before = deployment.objects().await;

    let rebuild = deployment.rebuild("catalog.sqlite").await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.account_keys, report.adopted, report.adopted_records), (1, 2, 18));
    assert_eq!((report.clusters[0].name.as_str(), report.workspaces[0].name.as_str()), ("prod", "audit"));
    assert!(report.kept.is_empty() && report.missing.is_empty(), "{report:?}");

    let snapshot = rebuild.catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(
        snapshot.tables.iter().map(|table| (table.id, table.name.to_string())).collect::<Vec<_>>(),
        [(LOGS, "logs".to_owned())]
    );
    assert_eq!(
        snapshot.columns.iter().map(|column| (column.ordinal, column.kind)).collect::<Vec<_>>(),
        [(0, 1), (1, 2)]
    );
    assert_eq!(
        snapshot.coverage.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(),
        [(3, 10), (11, 20)]
    );
    for segment in &snapshot.segments {
        rebuild.keyring.segment_dek(segment).await.expect("the row's key opens");
    }
    assert_eq!(rebuild.catalog.aeks().await.unwrap(), [row]);
    assert_eq!(rebuild.catalog.workspace_keys().await.unwrap().len(), 2);

    let again = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((again.adopted, again.known, again.account_keys), (0, 2, 0));
    assert_eq!(deployment.objects().await, before, "the store is as it was");
}

/// Scenario: the workspace got a second account key, and segments are under both. Guarantee: both keys come back, with their generations,
/// in one workspace.
#[tokio::test]
async fn all_generations_of_a_key_come_back() {
    let deployment = Deployment::new().await;
    let (_, _, first) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let (_, _, second) = deployment.generation(WORKSPACE, AekId::from_bytes([33; 16]), "default", 2).await;
    deployment.segment(&deployment.aek(&first).await, 11, &[("a", 1)], (9, 3, 10)).await;
    deployment.segment(&deployment.aek(&second).await, 12, &[("a", 1)], (9, 3, 10)).await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.account_keys, report.workspaces.len(), report.adopted), (2, 1, 2), "{report:?}");
    assert_eq!(rebuild.catalog.aeks().await.unwrap(), [first, second]);
}

/// Scenario: the workspace was linked to a second cluster, whose key it got last; segments are under both keys. That key is usable, or its
/// KEK is disabled; all keys are taken in, or those that segments need, the oldest first. Guarantee: the workspace comes back at the second
/// cluster; columns are under the newest key that there is.
#[tokio::test]
async fn a_workspace_comes_back_at_the_cluster_of_its_newest_key() {
    for (usable, keys) in [(true, Keys::All), (true, Keys::Needed), (false, Keys::All), (false, Keys::Needed)] {
        let case = format!("usable {usable}, {keys:?}");
        let deployment = Deployment::new().await;
        let other = ClusterId::from_bytes([44; 16]);
        let name = KeyName::parse("other").unwrap();
        let kek = deployment.vault.create_key(&name, 2048).await.unwrap().id;
        let (_, _, first) = deployment.workspace(WORKSPACE, AEK, "default").await;
        let second = (WORKSPACE, AekId::from_bytes([33; 16]), "default", 2);
        let (_, _, second) = deployment.generation_of(other, &kek, second).await;
        deployment.segment(&deployment.aek(&first).await, 11, &[("a", 1)], (9, 3, 10)).await;
        if usable {
            let key = deployment.client().unwrap(&kek, &second.wrapped).await.unwrap();
            let aek = Aek::new(second.id, second.workspace, second.generation, key, Lease::unlimited());
            deployment.segment(&aek, 12, &[("a", 1), ("b", 1)], (9, 3, 10)).await;
        } else {
            deployment.vault.set_enabled(&name, &kek.version, false).unwrap();
        }
        let rebuild = deployment.rebuild("catalog.sqlite").await;
        let report = rebuild.take_in(keys).await.unwrap();
        assert_eq!(report.adopted, if usable { 2 } else { 1 }, "{case}: {report:?}");
        let workspaces = rebuild.catalog.workspaces().await.unwrap();
        assert_eq!(workspaces.iter().map(|row| row.cluster).collect::<Vec<_>>(), [other], "{case}");
        assert_eq!(rebuild.catalog.clusters().await.unwrap().len(), 2, "{case}");
        let columns = rebuild.catalog.schema(WORKSPACE).await.unwrap().columns;
        if keys == Keys::All {
            let newest = if usable { second.id } else { first.id };
            assert!(!columns.is_empty() && columns.iter().all(|column| column.aek == newest), "{case}");
        }
    }
}

/// Scenario: shippers hold the key that credentials.json still has. Guarantee: they go on with it.
#[tokio::test]
async fn a_known_access_key_stays_and_unknown_ones_are_new() {
    let deployment = Deployment::new().await;
    deployment.workspace(WORKSPACE, AEK, "default").await;
    let access = AccessKeys::new(&deployment.root);
    let secret = access.reveal(&access.generate(WORKSPACE, Slot::Primary, UnixNanos(0)).row).unwrap();
    let mut rebuild = deployment.rebuild("catalog.sqlite").await;
    let text = secret.to_string();
    rebuild.secrets = vec![WorkspaceSecret { workspace: WORKSPACE, primary: Secret(secret) }];
    assert!(!format!("{rebuild:?}").contains(&text), "never shown");
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert!(report.workspaces[0].primary_key_kept);
    let rows = rebuild.catalog.workspace_keys().await.unwrap();
    rows.iter().for_each(|row| access.accept(row));
    assert_eq!((rows.len(), access.workspace_of(&text, UnixNanos(0))), (2, Ok(WORKSPACE)));
}

/// Scenario: a copy of the catalog from before the last segments and the last workspace. Guarantee: what it lacks is added, what it
/// has stays, and what the store has lost is named.
#[tokio::test]
async fn an_older_copy_is_completed() {
    let deployment = Deployment::new().await;
    let (_, _, row) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let aek = deployment.aek(&row).await;
    let lost = deployment.segment(&aek, 11, &[("a", 1)], (9, 3, 10)).await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    rebuild.take_in(Keys::All).await.unwrap();

    let (second, second_aek) = (WorkspaceId::from_bytes([22; 16]), AekId::from_bytes([33; 16]));
    deployment.workspace(second, second_aek, "second").await;
    deployment.segment(&aek, 12, &[("a", 1), ("new", 3)], (9, 11, 20)).await;
    let needed = rebuild.take_in(Keys::Needed).await.unwrap();
    assert_eq!((needed.adopted, needed.known, needed.account_keys), (1, 1, 0), "no segment needs the second workspace");
    deployment.store.delete(&lost.path).await.unwrap();
    let all = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((all.adopted, all.known, all.account_keys), (0, 1, 1));
    assert_eq!(all.workspaces[0].name, "second");
    assert_eq!(all.missing, [lost.path.to_string()]);
}

/// Scenario: a crash came between put and commit, and the replay made other segments of the same records. Guarantee: each record once,
/// the rest is named and stays.
#[tokio::test]
async fn orphans_and_partial_segments_are_kept_and_not_added() {
    let deployment = Deployment::new().await;
    let (_, _, row) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let aek = deployment.aek(&row).await;
    let orphan = deployment.segment(&aek, 11, &[], (9, 3, 12)).await;
    deployment.segment(&aek, 12, &[], (9, 3, 7)).await;
    deployment.segment(&aek, 13, &[], (9, 8, 20)).await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.adopted, report.adopted_records), (2, 18));
    assert_eq!((&report.kept[0].path, outcomes(&report)), (&orphan.path, vec![Outcome::Orphan]));

    deployment.segment(&aek, 14, &[], (9, 15, 30)).await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.adopted, outcomes(&report)), (0, vec![Outcome::Orphan, Outcome::Partial]));
    assert!(report.kept[1].reason.contains("frames 21 to 30"), "{:?}", report.kept);
    assert_eq!(deployment.objects().await.len(), 5);
}

/// Scenario: objects in the store that are damaged, planted or moved, by one who has no key. Guarantee: none is believed, each is named,
/// the good ones are taken in all the same.
#[tokio::test]
async fn what_does_not_open_is_named_and_harms_nothing_else() {
    let deployment = Deployment::new().await;
    let (_, _, row) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let aek = deployment.aek(&row).await;
    let good = deployment.segment(&aek, 11, &[], (9, 3, 10)).await;
    let content = deployment.store.get(&good.path, u64::MAX).await.unwrap().to_vec();
    let folder = good.path.as_ref().rsplit_once('/').unwrap().0.to_owned();
    let id = |byte: u8| SegmentId::from_bytes([byte; 16]);
    let other_table = folder.replace(&LOGS.to_string(), &TableId::from_bytes([44; 16]).to_string());
    let mut altered = content.clone();
    let at = altered.len() - 40;
    altered[at] ^= 1;
    let strangers_aek = Aek::new(AEK, WORKSPACE, 1, Key256::copy_from_slice(&[1; 32]).unwrap(), Lease::unlimited());
    let unknown_aek = Aek::new(
        AekId::from_bytes([99; 16]),
        WORKSPACE,
        1,
        Key256::copy_from_slice(&[1; 32]).unwrap(),
        Lease::unlimited(),
    );
    deployment.segment(&strangers_aek, 15, &[], (8, 1, 1)).await;
    deployment.segment(&unknown_aek, 16, &[], (8, 1, 1)).await;
    let planted: [(String, Vec<u8>); 7] = [
        (format!("{folder}/{}.parquet", id(12)), content.clone()),
        (format!("{other_table}/{}.parquet", id(11)), content.clone()),
        (format!("{folder}/{}.parquet", id(13)), content[..content.len() - 9].to_vec()),
        (format!("{folder}/{}.parquet", id(14)), vec![]),
        (format!("{}/{}.parquet", folder.replace("date=1970-01-01", "date=1970-01-02"), id(11)), altered),
        (format!("clusters/{CLUSTER}/keys/{AEK}/{}.json", "0".repeat(32)), b"{\"format\":1}".to_vec()),
        ("notes/readme.txt".to_owned(), b"hello".to_vec()),
    ];
    for (path, content) in &planted {
        deployment.store.put_new(&Path::from(path.as_str()), content.clone()).await.unwrap();
    }
    let before = deployment.objects().await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.adopted, report.adopted_records), (1, 8));
    assert_eq!((report.count(Outcome::Unreadable), report.count(Outcome::Foreign)), (8, 1), "{report:?}");
    for (path, _) in &planted {
        assert!(report.kept.iter().any(|kept| kept.path.as_ref() == path && !kept.reason.is_empty()), "{path}");
    }
    assert_eq!((report.missing_keys.len(), report.missing_keys[0].id), (1, unknown_aek.id()));
    assert_eq!(report.missing_keys[0].workspace_name.as_deref(), Some("default"));
    assert_eq!(deployment.objects().await, before, "nothing was deleted");
}

/// Scenario: a copy of a wrapped key was replaced by one from another deployment, or the vault lost the KEK. Guarantee: no workspace
/// appears, and its segments are named.
#[tokio::test]
async fn a_key_that_the_vault_does_not_prove_is_not_taken_in() {
    let deployment = Deployment::new().await;
    let (_, _, row) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let aek = deployment.aek(&row).await;
    deployment.segment(&aek, 11, &[], (9, 3, 10)).await;
    deployment.vault.set_enabled(&deployment.kek.name, &deployment.kek.version, false).unwrap();
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.adopted, report.account_keys, report.missing_keys.len()), (0, 0, 1));
    assert!(report.kept.iter().any(|kept| kept.reason.contains("disabled")), "{report:?}");
    assert_eq!(rebuild.catalog.workspaces().await.unwrap(), []);

    deployment.vault.set_enabled(&deployment.kek.name, &deployment.kek.version, true).unwrap();
    assert_eq!(rebuild.take_in(Keys::All).await.unwrap().adopted, 1, "later it is taken in");
}

/// Scenario: after a restore by hand the server went on, and gave a name or a type anew that a segment in the store has otherwise.
/// Guarantee: the segment is named, and the catalog stays as it is; a mere other order of columns is no obstacle.
#[tokio::test]
async fn a_segment_that_disagrees_with_the_catalog_is_a_conflict() {
    let deployment = Deployment::new().await;
    let (cluster, workspace, row) = deployment.workspace(WORKSPACE, AEK, "default").await;
    let aek = deployment.aek(&row).await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    rebuild.catalog.apply(Change::AddCluster(cluster)).await.unwrap();
    let logs = TableRow { id: LOGS, workspace: WORKSPACE, name: TableName::logs(), created: UnixNanos(0) };
    let change = Change::AddWorkspace { workspace, keys: vec![], aek: row, tables: vec![logs.clone()] };
    rebuild.catalog.apply(change).await.unwrap();
    let columns = [("b", 2), ("a", 1)].iter().zip(0..);
    let columns = columns
        .map(|((key, kind), ordinal)| logseal_keys::schema::seal_column(&aek, LOGS, ordinal, 0, *kind, key).unwrap())
        .collect();
    rebuild.catalog.apply(Change::AddTable { table: logs, columns }).await.unwrap();

    deployment.segment(&aek, 11, &[("a", 1), ("b", 2), ("c", 3)], (9, 3, 10)).await;
    deployment.segment(&aek, 12, &[("a", 5)], (9, 11, 20)).await;
    let report = rebuild.take_in(Keys::All).await.unwrap();
    assert_eq!((report.adopted, outcomes(&report)), (1, vec![Outcome::Conflict]));
    let snapshot = rebuild.catalog.snapshot(WORKSPACE).await.unwrap();
    assert_eq!(snapshot.columns.iter().map(|column| column.kind).collect::<Vec<_>>(), [2, 1, 3]);
}

/// Scenario: the log's file that an older copy lists was done with since. Guarantee: it is noted once, here, and not reported as a loss at
/// each start.
#[tokio::test]
async fn files_of_the_log_that_are_gone_are_noted() {
    let deployment = Deployment::new().await;
    let rebuild = deployment.rebuild("catalog.sqlite").await;
    for byte in [1, 2] {
        let row = WalFileRow {
            id: WalFileId::from_bytes([byte; 16]),
            node: logseal_core::NodeId::from_bytes([1; 16]),
            cluster: CLUSTER,
            ordinal: byte.into(),
            header_hash: vec![0; 32],
            created: UnixNanos(0),
            state: WalFileState::Live,
            changed: UnixNanos(0),
            attested: 0,
        };
        rebuild.catalog.apply(Change::RegisterWalFile(row)).await.unwrap();
    }
    assert_eq!(rebuild.note_gone_log_files(|row| row.ordinal == 1).await.unwrap(), 1);
    let states: Vec<_> = rebuild.catalog.wal_files().await.unwrap().into_iter().map(|row| row.state).collect();
    assert_eq!(states, [WalFileState::Live, WalFileState::Lost]);
    assert_eq!(rebuild.note_gone_log_files(|row| row.ordinal == 1).await.unwrap(), 0);
}

#[test]
fn a_taken_name_gets_the_end_of_the_id() {
    let id = WORKSPACE.to_string();
    let free = |taken: &[&str]| {
        free_name("default", &id, taken.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().iter())
    };
    assert_eq!(free(&["other"]), "default");
    assert_eq!(free(&["default"]), "default-020202020202");
    assert_eq!(free_name(&"n".repeat(63), &id, std::iter::once(&"n".repeat(63))).len(), 63);
}
