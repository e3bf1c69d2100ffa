//! A pipeline with its log, store, catalog and vault in a temporary folder, set up as a server with default settings does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use logseal_bench::Payload;
use logseal_benches::{WORKSPACE, request};
use logseal_catalog::{Catalog, Change, ClusterRow, KekRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, Clock, ClusterId, IdGenerator, NodeId, SystemClock, TableId, TableName, UnixNanos};
use logseal_crypto::{Key256, MacKey, OsRandom, RootKey};
use logseal_ingest::pipeline::backlog::Backlog;
use logseal_ingest::pipeline::commit::{Committer, ParquetEncoder};
use logseal_ingest::pipeline::cutter::{Cutter, CutterParts};
use logseal_ingest::pipeline::frames::Frames;
use logseal_ingest::pipeline::gather::Gatherer;
use logseal_ingest::pipeline::logs::{Logs, LogsParts};
use logseal_ingest::pipeline::quarantine::Quarantine;
use logseal_ingest::pipeline::settings::WalSettings;
use logseal_ingest::pipeline::stream::CutRule;
use logseal_ingest::pipeline::tables::Tables;
use logseal_ingest::pipeline::{Journals, Pipeline};
use logseal_ingest::{Budget, DoorSettings, Hold, Intake as _, IntakeRequest};
use logseal_keys::{AekOwner, Keyring, OneVault, WrappedKeyStore};
use logseal_otlp::{ScanLimits, SchemaLimits};
use logseal_segment::{SegmentSettings, SegmentStore};
use logseal_vault::{EmbeddedVault, KeyName};
use logseal_wal::{Disk, SystemDisk};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::Failed;

/// Requests of 1,000 records that are taken in in turn: several row groups.
const REQUESTS: u64 = 100;

/// Requests that wait for their acknowledgement at the same time.
const IN_FLIGHT: usize = 32;

/// Age and size at which a segment is closed, as the server has them.
const SEGMENT: (Duration, usize) = (Duration::from_secs(60), 64 << 20);

const CLUSTER: ClusterId = ClusterId::from_bytes([2; 16]);
const NODE: NodeId = NodeId::from_bytes([6; 16]);

/// A running pipeline and what it is to take in.
pub(crate) struct World {
    pipeline: Pipeline,
    budget: Arc<Budget>,
    backlog: Arc<Backlog>,
    cutter: Cutter,
    logs: Logs,
    requests: Vec<Bytes>,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids = IdGenerator::new(Arc::clone(&clock), Arc::new(OsRandom));
        let (catalog, keyring) = provision(folder.path()).await?;
        let tables = Arc::new(Tables::new(SchemaLimits::default(), ids.clone(), Arc::clone(&clock)));
        tables.load(&catalog, &keyring, WORKSPACE, "default").await?;
        let settings = DoorSettings::default();
        let for_requests = settings.memory_budget_bytes / 8 * 3;
        let budget = Budget::with_reserve(for_requests, settings.memory_budget_bytes - for_requests);
        let backlog = Backlog::new(Arc::clone(&budget));
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let limits = Arc::new(ScanLimits::default());
        let frames = Frames {
            disk: Arc::clone(&disk),
            keyring: Arc::clone(&keyring),
            tables: Arc::clone(&tables),
            limits: Arc::clone(&limits),
        };
        let quarantine = Quarantine::new(disk, folder.path().join("quarantine"), catalog.clone());
        let segments = SegmentSettings::default();
        let (max_age, target_file_bytes) = SEGMENT;
        let cutter = Cutter::start(CutterParts {
            rule: CutRule { max_age, target_file_bytes, row_group_bytes: segments.row_group_bytes },
            committer: Committer {
                catalog: catalog.clone(),
                store: SegmentStore::local(folder.path().join("store"))?,
                encoder: Arc::new(ParquetEncoder),
                settings: segments,
                budget: Arc::clone(&budget),
                ids: ids.clone(),
                clock: Arc::clone(&clock),
            },
            backlog: Arc::clone(&backlog),
            frames: frames.clone(),
            quarantine: quarantine.clone(),
        });
        let journals: Arc<Journals> = Arc::default();
        let wal = WalSettings::default();
        let logs = Logs::new(LogsParts {
            folder: folder.path().join("wal").join(NODE.to_string()),
            node: NODE,
            limits: wal.check()?,
            file_bytes: wal.file_bytes,
            catalog: catalog.clone(),
            backlog: Arc::clone(&backlog),
            frames,
            quarantine,
            budget: Arc::clone(&budget),
            journals: Arc::clone(&journals),
            ids,
            clock: Arc::clone(&clock),
        });
        logs.open_all(&[CLUSTER]).await?;
        let pipeline = Pipeline { tables, catalog, keyring, journals, limits, clock, gatherer: Gatherer::new() };
        let requests = (0..REQUESTS).map(|index| request(Payload::A, index).into()).collect();
        Ok(Self { pipeline, budget, backlog, cutter, logs, requests, _folder: folder })
    }

    /// Takes requests in for `time`, then waits until all their records are in segments. Returns the number of records.
    pub(crate) async fn take_in(&self, time: Duration) -> Result<u64, Failed> {
        let end = Instant::now() + time;
        let mut takers = JoinSet::new();
        for taker in 0..IN_FLIGHT {
            let (pipeline, budget, requests) = (self.pipeline.clone(), Arc::clone(&self.budget), self.requests.clone());
            takers.spawn(async move {
                let mut records = 0;
                for body in requests.iter().cycle().skip(taker).step_by(IN_FLIGHT) {
                    if Instant::now() >= end {
                        break;
                    }
                    // For the body and for its rows, as at the door.
                    let permit = budget.take(2 * body.len()).await;
                    let hold = Hold::over(WORKSPACE);
                    let request =
                        IntakeRequest { workspace: WORKSPACE, body: body.clone(), compressed: None, permit, hold };
                    records += pipeline.take(request).await?.accepted;
                }
                Ok::<u64, Failed>(records)
            });
        }
        let mut records = 0;
        while let Some(taken) = takers.join_next().await {
            records += taken??;
        }
        while self.backlog.totals().records > 0 {
            self.cutter.flush().await;
        }
        Ok(records)
    }

    pub(crate) async fn end(self) {
        self.pipeline.journals.close();
        self.logs.end().await;
    }
}

/// A cluster with one workspace, and its keys under a key of an embedded vault.
async fn provision(folder: &Path) -> Result<(Catalog, Arc<Keyring>), Failed> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let root = RootKey::new(Key256::generate(OsRandom));
    let vault = EmbeddedVault::open(folder.join("vault"), "https://vault", &root, Arc::clone(&clock))?;
    let kek = vault.create_key(&KeyName::parse("kek")?, 2048).await?.id;
    let catalog = Catalog::open(&folder.join("catalog.sqlite"), root.catalog_mac()).await?;
    let vaults = Arc::new(OneVault::embedded(&Arc::new(vault)));
    let mac_key = MacKey::new(Key256::generate(OsRandom));
    let keyring = Keyring::new(vaults, catalog.clone(), Arc::new(NoCopies), mac_key, clock);
    let created = UnixNanos(0);
    let row =
        KekRow { vault_uri: kek.vault_uri.to_string(), name: kek.name.to_string(), version: kek.version.to_string() };
    let cluster = ClusterRow { id: CLUSTER, name: "local".to_owned(), created, kek: row };
    let workspace = WorkspaceRow { id: WORKSPACE, name: "default".to_owned(), cluster: CLUSTER, created };
    let id = TableId::from_bytes([3; 16]);
    let tables = vec![TableRow { id, workspace: WORKSPACE, name: TableName::logs(), created }];
    let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
    let aek = keyring.new_aek(AekId::from_bytes([5; 16]), owner, 1, &kek).await?;
    catalog.apply(Change::AddCluster(cluster)).await?;
    catalog.apply(Change::AddWorkspace { workspace, keys: Vec::new(), aek, tables }).await?;
    Ok((catalog, Arc::new(keyring)))
}

/// Nobody looks for copies of keys here.
#[derive(Debug)]
struct NoCopies;

#[async_trait]
impl WrappedKeyStore for NoCopies {
    async fn put_new(&self, _: &object_store::path::Path, _: Vec<u8>) -> Result<(), Failed> {
        Ok(())
    }

    async fn get(&self, _: &object_store::path::Path) -> Result<Option<Vec<u8>>, Failed> {
        Ok(None)
    }
}
