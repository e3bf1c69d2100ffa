//! The key hierarchy end to end on the embedded vault, and each planted or swapped row refused.

use std::error::Error;

use async_trait::async_trait;
use logseal_catalog::{CatalogError, Change, ClusterRow, TableRow, WorkspaceRow};
use logseal_core::{ClusterId, SegmentId, SystemClock, TableId, TableName, UnixNanos};
use logseal_crypto::RootKey;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyVault as _, VaultError};
use object_store::path::Path;

use logseal_catalog::KekRow;

use super::*;
use crate::OneVault;

pub(super) const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([1; 16]);
const CLUSTER: ClusterId = ClusterId::from_bytes([2; 16]);

#[derive(Debug, Default)]
struct Copies(Mutex<Vec<(Path, Vec<u8>)>>);

#[async_trait]
impl WrappedKeyStore for Copies {
    async fn put_new(&self, path: &Path, content: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.lock().unwrap().push((path.clone(), content));
        Ok(())
    }

    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        let copies = self.0.lock().unwrap();
        Ok(copies.iter().find(|(known, _)| known == path).map(|(_, content)| content.clone()))
    }
}

pub(super) struct Deployment {
    dir: tempfile::TempDir,
    vault: Arc<EmbeddedVault>,
    pub(super) catalog: Catalog,
    copies: Arc<Copies>,
    pub(super) kek: KeyId,
}

impl Deployment {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Self::root();
        let vault = EmbeddedVault::open(dir.path().join("vault"), "https://v", &root, Arc::new(SystemClock)).unwrap();
        let kek = vault.create_key(&KeyName::parse("kek").unwrap(), 2048).await.unwrap().id;
        let catalog = Self::catalog(&dir).await;
        Self { dir, vault: Arc::new(vault), catalog, copies: Arc::default(), kek }
    }

    fn root() -> RootKey {
        RootKey::new(Key256::copy_from_slice(&[7; 32]).unwrap())
    }

    async fn catalog(dir: &tempfile::TempDir) -> Catalog {
        Catalog::open(&dir.path().join("catalog.sqlite"), Self::root().catalog_mac()).await.unwrap()
    }

    /// A keyring over the catalog's file as it is now.
    pub(super) async fn reopened(&self) -> Keyring {
        Keyring { catalog: Self::catalog(&self.dir).await, ..self.keyring() }
    }

    fn client(&self) -> EmbeddedClient {
        EmbeddedClient::new(Arc::clone(&self.vault), Caller::Deployment)
    }

    /// A keyring with nothing unwrapped yet, as after a restart.
    pub(super) fn keyring(&self) -> Keyring {
        let mac_key = MacKey::new(Key256::copy_from_slice(&[8; 32]).unwrap());
        let (vault, copies) = (Arc::clone(&self.vault), Arc::clone(&self.copies));
        Keyring::new(Arc::new(OneVault::embedded(&vault)), self.catalog.clone(), copies, mac_key, Arc::new(SystemClock))
    }

    pub(super) async fn provision(&self, aek: AekRow) {
        let (name, created) = ("w".to_owned(), UnixNanos(0));
        let kek = aek.kek.clone();
        self.catalog
            .apply(Change::AddCluster(ClusterRow { id: CLUSTER, name: "c".into(), created, kek }))
            .await
            .unwrap();
        let workspace = WorkspaceRow { id: WORKSPACE, name, cluster: CLUSTER, created };
        let table =
            TableRow { id: TableId::from_bytes([3; 16]), workspace: WORKSPACE, name: TableName::logs(), created };
        self.catalog.apply(Change::AddWorkspace { workspace, keys: vec![], aek, tables: vec![table] }).await.unwrap();
    }
}

pub(super) fn cluster() -> ClusterRow {
    let kek = KekRow { vault_uri: String::new(), name: String::new(), version: String::new() };
    ClusterRow { id: CLUSTER, name: "c".into(), created: UnixNanos(0), kek }
}

pub(super) fn workspace() -> WorkspaceRow {
    WorkspaceRow { id: WORKSPACE, name: "w".into(), cluster: CLUSTER, created: UnixNanos(0) }
}

pub(super) fn owner<'r>(cluster: &'r ClusterRow, workspace: &'r WorkspaceRow) -> AekOwner<'r> {
    AekOwner { cluster, workspace, tables: &[] }
}

pub(super) fn aek_id(byte: u8) -> AekId {
    AekId::from_bytes([byte; 16])
}

fn segment_row(aek: &Aek, segment: SegmentId) -> (SegmentRow, Dek) {
    let (dek, wrapped) = aek.new_dek(segment, OsRandom).unwrap();
    let row = SegmentRow {
        id: segment,
        workspace: WORKSPACE,
        table: TableId::from_bytes([3; 16]),
        aek: aek.id(),
        path: "p".into(),
        bytes: 1,
        rows: 1,
        min_time: UnixNanos(0),
        max_time: UnixNanos(0),
        created: UnixNanos(0),
        wrapped_dek: wrapped.to_bytes(),
        dek_commitment: dek.commitment().as_bytes().to_vec(),
    };
    (row, dek)
}

#[tokio::test]
async fn a_segment_key_opens_after_a_restart_through_kek_and_aek() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let row = keyring.new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
    deployment.provision(row.clone()).await;
    let aek = keyring.current(WORKSPACE).await.unwrap().aek;
    let (segment, dek) = segment_row(&aek, SegmentId::from_bytes([6; 16]));

    let restarted = deployment.keyring();
    restarted.warm(WORKSPACE).await.unwrap();
    assert!(restarted.segment_dek(&segment).await.unwrap().key().unwrap().ct_eq(dek.key().unwrap()));

    let copies = deployment.copies.0.lock().unwrap();
    let (path, content) = &copies[0];
    assert_eq!(path.as_ref(), format!("clusters/{CLUSTER}/keys/{}/{}.json", row.id, row.kek.version));
    let copy: serde_json::Value = serde_json::from_slice(content).unwrap();
    assert_eq!(copy["wrapped"], data_encoding::BASE64.encode(&row.wrapped));
}

#[tokio::test]
async fn swapped_and_altered_keys_are_refused() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let row = keyring.new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
    deployment.provision(row.clone()).await;
    let aek = keyring.current(WORKSPACE).await.unwrap().aek;
    let (first, _) = segment_row(&aek, SegmentId::from_bytes([6; 16]));
    let (second, _) = segment_row(&aek, SegmentId::from_bytes([7; 16]));

    let swapped = SegmentRow { wrapped_dek: second.wrapped_dek.clone(), ..first.clone() };
    assert!(matches!(keyring.segment_dek(&swapped).await, Err(KeyError::SegmentKey(id)) if id == first.id));
    let other_commitment = SegmentRow { dek_commitment: second.dek_commitment.clone(), ..first.clone() };
    assert!(matches!(keyring.segment_dek(&other_commitment).await, Err(KeyError::SegmentKey(_))));
    let unknown = SegmentRow { aek: aek_id(99), ..first };
    assert!(matches!(keyring.segment_dek(&unknown).await, Err(KeyError::UnknownAek(_))));

    // A key that somebody wrapped for himself with the public KEK: it opens, but is not what the row commits to.
    let planted = Key256::copy_from_slice(&[0xEE; 32]).unwrap();
    let wrapped = deployment.client().wrap(&deployment.kek, &planted).await.unwrap();
    let restarted = deployment.keyring();
    let refused = restarted.remember(&AekRow { wrapped, ..row.clone() }).await;
    assert!(matches!(refused, Err(KeyError::Commitment(_))), "{refused:?}");
    for claimed in [AekRow { id: aek_id(9), ..row.clone() }, AekRow { generation: 2, ..row.clone() }] {
        assert!(matches!(restarted.remember(&claimed).await, Err(KeyError::Commitment(_))));
    }
}

#[tokio::test]
async fn a_disabled_kek_stops_a_restarted_keyring() {
    let deployment = Deployment::new().await;
    let row =
        deployment.keyring().new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
    deployment.provision(row).await;
    deployment.vault.set_enabled(&deployment.kek.name, &deployment.kek.version, false).unwrap();
    let refused = deployment.keyring().current(WORKSPACE).await;
    assert!(matches!(refused, Err(KeyError::Vault { source: VaultError::KeyDisabled(_), .. })), "{refused:?}");
}

const OTHER: WorkspaceId = WorkspaceId::from_bytes([9; 16]);

/// Scenario: the row of one workspace's key is altered on the disk: the key, its commitment, its id, its owner. Guarantee: that key is
/// refused, by id and by workspace, with an error that lasts and never with one that says that it is unknown; the key of another
/// workspace opens all the same.
#[tokio::test]
async fn an_altered_key_row_takes_no_key_of_another_workspace_with_it() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let row = keyring.new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
    deployment.provision(row.clone()).await;
    let other = WorkspaceRow { id: OTHER, name: "other".into(), ..workspace() };
    let others = keyring.new_aek(aek_id(6), owner(&cluster(), &other), 1, &deployment.kek).await.unwrap();
    let added = Change::AddWorkspace { workspace: other, keys: vec![], aek: others, tables: vec![] };
    deployment.catalog.apply(added).await.unwrap();
    deployment.catalog.close().await.unwrap();
    let file = deployment.dir.path().join("catalog.sqlite");
    let pristine = std::fs::read(&file).unwrap();
    let (id, owner) = (row.id.as_bytes().to_vec(), WORKSPACE.as_bytes().to_vec());
    for needle in [row.wrapped.clone(), row.commitment.clone(), id, owner] {
        let mut altered = pristine.clone();
        let places: Vec<_> =
            (0..altered.len() - needle.len()).filter(|at| altered[*at..].starts_with(&needle)).collect();
        places.iter().for_each(|at| altered[at + needle.len() - 1] ^= 0x80);
        assert!(!places.is_empty());
        std::fs::write(&file, altered).unwrap();
        let restarted = deployment.reopened().await;
        let by_id = restarted.aek(row.id).await.err();
        for refused in [by_id, restarted.warm(WORKSPACE).await.err(), restarted.current(WORKSPACE).await.err()] {
            let error = refused.expect("an altered row");
            assert!(
                matches!(error, KeyError::Catalog(CatalogError::Integrity { .. })) && error.is_lasting(),
                "{error:?}"
            );
        }
        restarted.warm(OTHER).await.unwrap();
        restarted.aek(aek_id(6)).await.unwrap();
        restarted.catalog.close().await.unwrap();
    }
    std::fs::write(&file, &pristine).unwrap();
    deployment.reopened().await.warm(WORKSPACE).await.expect("the pristine row is fine");
}

/// Scenario: a workspace is refused while its key is known; two reasons are given. Guarantee: no key for new data, with the first reason;
/// what it protects still opens; a start ends it.
#[tokio::test]
async fn a_refused_workspace_gets_no_key_for_new_data() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let row = keyring.new_aek(aek_id(5), owner(&cluster(), &workspace()), 1, &deployment.kek).await.unwrap();
    deployment.provision(row).await;
    keyring.warm(WORKSPACE).await.unwrap();
    assert_eq!(keyring.refusal(WORKSPACE), None);
    keyring.refuse(WORKSPACE, &KeyError::KekName(aek_id(8)));
    keyring.refuse(WORKSPACE, &KeyError::KekName(aek_id(9)));
    let why = KeyError::KekName(aek_id(8)).to_string();
    assert_eq!(keyring.refusal(WORKSPACE).as_deref(), Some(why.as_str()));
    let refused = keyring.current(WORKSPACE).await.unwrap_err();
    assert!(matches!(refused, KeyError::Refused { .. }) && refused.to_string().contains(&why), "{refused:?}");
    keyring.aek(aek_id(5)).await.unwrap();
    deployment.keyring().current(WORKSPACE).await.unwrap();
}

/// Scenario: after a restart the first key that is asked for is one of an older generation. Guarantee: new data gets the newest one.
#[tokio::test]
async fn an_older_key_is_never_taken_for_the_newest_one() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let (cluster, workspace) = (cluster(), workspace());
    let first = keyring.new_aek(aek_id(7), owner(&cluster, &workspace), 1, &deployment.kek).await.unwrap();
    deployment.provision(first).await;
    let second = keyring.new_aek(aek_id(5), owner(&cluster, &workspace), 2, &deployment.kek).await.unwrap();
    deployment.catalog.apply(Change::AddAek(second)).await.unwrap();
    let restarted = deployment.keyring();
    assert_eq!(restarted.aek(aek_id(7)).await.unwrap().generation(), 1);
    assert_eq!(restarted.current(WORKSPACE).await.unwrap().aek.generation(), 2);
}

/// Scenario: the catalog gets a link to another cluster; a query opens what is under the new key before the link is taken up; a reader of
/// the older catalog comes late. Guarantee: cluster and key change together, when the link is taken up, and never back.
#[tokio::test]
async fn cluster_and_key_of_new_data_change_together() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let (cluster, workspace) = (cluster(), workspace());
    let other = ClusterRow { id: ClusterId::from_bytes([9; 16]), name: "other".into(), ..cluster.clone() };
    let first = keyring.new_aek(aek_id(7), owner(&cluster, &workspace), 1, &deployment.kek).await.unwrap();
    let kek = first.kek.clone();
    deployment.provision(first.clone()).await;
    let link = async || keyring.current(WORKSPACE).await.map(|link| (link.cluster, link.aek.id())).unwrap();
    assert_eq!(link().await, (CLUSTER, aek_id(7)));
    deployment.catalog.apply(Change::AddCluster(ClusterRow { kek, ..other.clone() })).await.unwrap();
    let second = keyring.new_aek(aek_id(5), owner(&other, &workspace), 2, &deployment.kek).await.unwrap();
    deployment.catalog.apply(Change::AddAek(second)).await.unwrap();
    assert_eq!(keyring.aek(aek_id(5)).await.unwrap().generation(), 2);
    assert_eq!(keyring.newest(WORKSPACE).await.unwrap().id(), aek_id(5));
    assert_eq!(link().await, (CLUSTER, aek_id(7)), "it is not taken up yet");
    assert_eq!(keyring.warm(WORKSPACE).await.unwrap().cluster, other.id);
    keyring.link(&first).await.unwrap();
    assert_eq!(link().await, (other.id, aek_id(5)));
}

/// Scenario: a key is destroyed while somebody uses it; somebody else has read its row before. Guarantee: it is given to nobody again, under
/// no name and also after a restart, and told from a key that never was; who asks learns when the last user has let go of it; new data
/// falls back to nothing that was destroyed.
#[tokio::test]
async fn a_destroyed_key_is_never_given_again() {
    let deployment = Deployment::new().await;
    let keyring = deployment.keyring();
    let (cluster, workspace) = (cluster(), workspace());
    let first = keyring.new_aek(aek_id(7), owner(&cluster, &workspace), 1, &deployment.kek).await.unwrap();
    deployment.provision(first.clone()).await;
    let second = keyring.new_aek(aek_id(5), owner(&cluster, &workspace), 2, &deployment.kek).await.unwrap();
    deployment.catalog.apply(Change::AddAek(second.clone())).await.unwrap();
    let user = keyring.warm(WORKSPACE).await.unwrap();
    let before = deployment.keyring();
    deployment.catalog.apply(Change::ShredAeks { aeks: vec![aek_id(5)], at: UnixNanos(1) }).await.unwrap();
    for _ in 0..2 {
        keyring.shred(&[aek_id(5)]);
        assert!(keyring.is_shredded(aek_id(5)) && keyring.is_in_use(&[aek_id(5)]));
    }
    drop(user);
    assert!(!keyring.is_in_use(&[aek_id(5)]));
    let restarted = deployment.keyring();
    restarted.learn_shredded().await.unwrap();
    for (when, keyring) in [("told", &keyring), ("not told", &before), ("restarted", &restarted)] {
        let refused = keyring.aek(aek_id(5)).await;
        assert!(matches!(refused, Err(KeyError::Shredded(id)) if id == aek_id(5)), "{when}: {refused:?}");
        assert!(matches!(keyring.aek(aek_id(66)).await, Err(KeyError::UnknownAek(_))), "{when}");
        if when != "not told" {
            assert!(matches!(keyring.remember(&second).await, Err(KeyError::Shredded(_))), "{when}");
            assert!(matches!(keyring.link(&second).await, Err(KeyError::Shredded(_))), "{when}");
        }
        assert_eq!(keyring.current(WORKSPACE).await.unwrap().aek.id(), aek_id(7), "{when}");
    }
}

#[tokio::test]
async fn unknown_workspaces_have_no_key() {
    let deployment = Deployment::new().await;
    let refused = deployment.keyring().current(WorkspaceId::from_bytes([42; 16])).await;
    assert!(matches!(refused, Err(KeyError::NoAek(_))));
    assert!(matches!(deployment.keyring().warm(OTHER).await, Err(KeyError::NoAek(_))));
}
