//! One life of the pipeline over what outlives it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use logseal_catalog::{AekWrapsRow, Catalog, CatalogError, Change, ClusterRow, ColumnRow, SegmentRow, WalFileRow};
use logseal_core::{AekId, ClusterId, IdGenerator, SystemClock, UnixNanos};
use logseal_crypto::{Aek, Lease, OsRandom, WrappedDek, aad};
use logseal_ingest::grpc::{Lifecycle, Services, serve};
use logseal_ingest::pipeline::backlog::Backlog;
use logseal_ingest::pipeline::commit::Committer;
use logseal_ingest::pipeline::cutter::{Cutter, CutterParts};
use logseal_ingest::pipeline::frames::{Coverage, Frames};
use logseal_ingest::pipeline::gather::Gatherer;
use logseal_ingest::pipeline::journal::Journal;
use logseal_ingest::pipeline::logs::{Logs, LogsParts};
use logseal_ingest::pipeline::quarantine::Quarantine;
use logseal_ingest::pipeline::tables::Tables;
use logseal_ingest::pipeline::unsealed::UnsealedRows;
use logseal_ingest::pipeline::{Journals, Pipeline};
use logseal_ingest::{Budget, Door, IngestError};
use logseal_keys::schema::{open_column_name, seal_column};
use logseal_keys::{AekOwner, Keyring};
use logseal_otlp::{ScanLimits, SchemaLimits};
use logseal_segment::properties::decryption_properties;
use logseal_segment::{SegmentSettings, SegmentStore};
use logseal_tls::Listener;
use logseal_vault::{KeyId, KeyName, KeyVault as _, KeyVersion};
use logseal_wal::Disk;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::records::{Id, Poisoned, TABLES, ids, request};
use crate::settings::Settings;
use crate::world::{Keys, NODE, QUARANTINE, Seen, WORKSPACES, World, node_folder, soon, until, workspace};

/// One life of the process, with a runtime of its own so that it can end at any moment.
#[derive(Debug)]
pub(crate) struct Life {
    runtime: Runtime,
    parts: Parts,
}

impl Life {
    pub(crate) fn new(runtime: Runtime, parts: Parts) -> Self {
        Self { runtime, parts }
    }

    /// Runs a step of the test in this life.
    pub(crate) fn run<T>(&self, step: impl AsyncFnOnce(&Parts) -> T) -> T {
        self.runtime.block_on(step(&self.parts))
    }

    /// The process is killed: nothing is flushed or closed. What it did not sync stays readable.
    pub(crate) fn kill(self) {
        self.parts.world.disk.kill();
        self.end();
    }

    /// The power fails; `seed` decides what becomes of what was not synced.
    pub(crate) fn power_failure(self, seed: u64) {
        let world = Arc::clone(&self.parts.world);
        self.kill();
        world.disk.crash(seed);
    }

    /// Stops as a server does: takes nothing more, makes segments of all that is loaded, closes the log.
    pub(crate) fn stop(self) {
        let Self { runtime, mut parts } = self;
        runtime.block_on(async {
            parts.shutdown.send_replace(true);
            soon("the last calls", &mut parts.server).await.unwrap().unwrap();
            parts.close_logs().await;
            soon("the flush", parts.cutter.flush()).await;
            parts.catalog.close().await.unwrap();
        });
        runtime.block_on(async { drop(parts) });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }

    fn end(self) {
        let Self { runtime, parts } = self;
        parts.server.abort();
        runtime.block_on(parts.close_logs());
        runtime.block_on(async { drop(parts) });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

/// The parts of a life.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) world: Arc<World>,
    pub(crate) catalog: Catalog,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) cutter: Cutter,
    journals: Arc<Journals>,
    pub(crate) logs: Logs,
    ids: IdGenerator,
    pub(crate) frames: Frames,
    server: JoinHandle<Result<(), IngestError>>,
    shutdown: watch::Sender<bool>,
    pub(crate) channel: Channel,
}

impl Parts {
    pub(crate) async fn start(world: Arc<World>, settings: Settings) -> Self {
        let catalog = world.catalog().await;
        // Waits for what a killed life's connection is still doing.
        catalog.apply(Change::ForgetWalFiles { retired_before: UnixNanos(i64::MIN) }).await.unwrap();
        let keyring = Arc::new(World::keyring(world.vault(), &catalog));
        keyring.learn_shredded().await.unwrap();
        let ids = IdGenerator::new(Arc::new(SystemClock), Arc::new(OsRandom));
        let tables = Arc::new(Tables::new(SchemaLimits::default(), ids.clone(), Arc::new(SystemClock)));
        for row in catalog.workspaces().await.unwrap() {
            match tables.load(&catalog, &keyring, row.id, &row.name).await {
                Err(error) if error.is_lasting() => {}
                loaded => loaded.unwrap(),
            }
        }
        let door = settings.door();
        let budget = Budget::new(door.memory_budget_bytes);
        let backlog = Backlog::new(Arc::clone(&budget));
        let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
        let limits = Arc::new(ScanLimits::default());
        let frames = Frames {
            disk: Arc::clone(&disk),
            keyring: Arc::clone(&keyring),
            tables: Arc::clone(&tables),
            limits: Arc::clone(&limits),
        };
        let quarantine = Quarantine::new(Arc::clone(&disk), QUARANTINE.into(), catalog.clone());
        let cutter = Cutter::start(CutterParts {
            rule: settings.rule(),
            committer: Committer {
                catalog: catalog.clone(),
                store: SegmentStore::durable(Arc::new(world.store.clone())),
                encoder: Arc::<Poisoned>::clone(&world.encoder),
                settings: SegmentSettings { row_group_bytes: settings.row_group_bytes, ..SegmentSettings::default() },
                budget: Arc::clone(&budget),
                ids: ids.clone(),
                clock: Arc::new(SystemClock),
            },
            backlog: Arc::clone(&backlog),
            frames: frames.clone(),
            quarantine: quarantine.clone(),
        });
        let journals: Arc<Journals> = Arc::default();
        let logs = Logs::new(LogsParts {
            folder: node_folder(),
            node: NODE,
            limits: settings.space,
            file_bytes: settings.file_bytes,
            catalog: catalog.clone(),
            backlog: Arc::clone(&backlog),
            frames: frames.clone(),
            quarantine,
            budget: Arc::clone(&budget),
            journals: Arc::clone(&journals),
            ids: ids.clone(),
            clock: Arc::new(SystemClock),
        });
        let clusters: Vec<_> = catalog.clusters().await.unwrap().into_iter().map(|row| row.id).collect();
        logs.open_all(&clusters).await.unwrap();
        let pipeline = Pipeline {
            tables,
            catalog: catalog.clone(),
            keyring: Arc::clone(&keyring),
            journals: Arc::clone(&journals),
            limits,
            clock: Arc::new(SystemClock),
            gatherer: Gatherer::new(),
        };
        let door =
            Door::with_budget(&door, Arc::clone(&budget), Arc::new(Keys), Arc::new(pipeline), Arc::new(OsRandom))
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, is_shutdown) = watch::channel(false);
        let lifecycle = Lifecycle { ready: watch::channel(true).1, shutdown: is_shutdown };
        let server = tokio::spawn(serve(Listener::plain(listener), door, Services::default(), lifecycle));
        let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self {
            world,
            catalog,
            keyring,
            backlog,
            budget,
            cutter,
            journals,
            logs,
            ids,
            frames,
            server,
            shutdown,
            channel,
        }
    }

    async fn close_logs(&self) {
        soon("the end of the logs", self.logs.end()).await;
    }

    /// The log of `cluster`.
    pub(crate) fn log(&self, cluster: ClusterId) -> Journal {
        self.journals.of(cluster).unwrap()
    }

    /// New records for the tables of `workspace`.
    pub(crate) fn new_records(&self, workspace: u8, count: u32) -> Vec<Id> {
        let mut ledger = self.world.ledger.lock().unwrap();
        let numbers = ledger.next..ledger.next + count;
        ledger.next = numbers.end;
        numbers.map(|number| Id { number, workspace, table: (number % 3) as u8 }).collect()
    }

    /// Ships `records` of one workspace as one request with bodies longer by `padding`, and enters the outcome in the ledger.
    pub(crate) async fn send(&self, records: &[Id], padding: usize) -> Result<(), Status> {
        self.send_with(records, "key", padding).await
    }

    /// As [`Parts::send`], with attributes whose names begin with `keys`.
    pub(crate) async fn send_with(&self, records: &[Id], keys: &str, padding: usize) -> Result<(), Status> {
        let mut message = Request::new(request(records, keys, padding));
        let key = format!("Bearer {}", records[0].workspace).parse().unwrap();
        message.metadata_mut().insert("authorization", key);
        let outcome = LogsServiceClient::new(self.channel.clone()).export(message).await;
        let mut ledger = self.world.ledger.lock().unwrap();
        let entered = if outcome.is_ok() { &mut ledger.acknowledged } else { &mut ledger.refused };
        entered.extend(records);
        drop(ledger);
        let answer = outcome?.into_inner();
        assert_eq!(answer.partial_success.map_or(0, |partial| partial.rejected_log_records), 0);
        Ok(())
    }

    /// Ships `count` new records.
    pub(crate) async fn ship(&self, workspace: u8, count: u32) -> Result<Vec<Id>, Status> {
        let records = self.new_records(workspace, count);
        self.send(&records, 0).await.map(|()| records)
    }

    /// Ships `requests` at the same time.
    pub(crate) async fn ship_all(&self, requests: &[(u8, u32)]) {
        join_all(requests.iter().map(|(workspace, count)| self.ship(*workspace, *count))).await;
    }

    /// Adds a cluster to the catalog, with the KEK of the others.
    pub(crate) async fn add_cluster(&self, id: ClusterId) {
        let kek = self.catalog.clusters().await.unwrap().remove(0).kek;
        let row = ClusterRow { id, name: id.to_string(), created: UnixNanos(0), kek };
        self.catalog.apply(Change::AddCluster(row)).await.unwrap();
    }

    /// Links workspace `n` to the cluster `to`, as an operation does: a new key, all columns sealed under it, one change of the catalog,
    /// then the pipeline follows.
    pub(crate) async fn link(&self, n: u8, to: ClusterId) {
        while let Err(error) = self.try_link(n, to).await {
            assert!(matches!(error, CatalogError::Stale { .. }), "{error:?}");
        }
        assert_eq!(self.keyring.warm(workspace(n)).await.unwrap().cluster, to);
    }

    async fn try_link(&self, n: u8, to: ClusterId) -> Result<(), CatalogError> {
        let row = self.catalog.workspace(workspace(n)).await.unwrap().unwrap();
        let cluster = self.catalog.cluster(to).await.unwrap().unwrap();
        let schema = self.catalog.schema(row.id).await.unwrap();
        let generation = self.catalog.aeks_of(row.id).await.unwrap().last().unwrap().generation + 1;
        let id = AekId::from(self.ids.next());
        let kek = KeyId {
            vault_uri: cluster.kek.vault_uri.as_str().into(),
            name: KeyName::parse(&cluster.kek.name).unwrap(),
            version: KeyVersion::parse(&cluster.kek.version).unwrap(),
        };
        let owner = AekOwner { cluster: &cluster, workspace: &row, tables: &schema.tables };
        let aek = self.keyring.new_aek(id, owner, generation, &kek).await.unwrap();
        let key = self.world.client().unwrap(&kek, &aek.wrapped).await.unwrap();
        let sealer = Aek::new(id, row.id, generation, key, Lease::unlimited());
        let mut columns = Vec::new();
        for column in &schema.columns {
            let old = self.keyring.aek(column.aek).await.unwrap();
            let ColumnRow { table, ordinal, container, kind, .. } = *column;
            let name = open_column_name(&old, column).unwrap();
            columns.push(seal_column(&sealer, table, ordinal, container, kind, &name).unwrap());
        }
        let (from, rewrapped) = (row.cluster, Vec::new());
        let counted = Change::ReserveAekWraps(AekWrapsRow { aek: id, wraps: columns.len() as u64 });
        let moved = Change::MoveWorkspace { workspace: row.id, from, to, aek, rewrapped, columns };
        self.catalog.apply(Change::All(vec![moved, counted])).await
    }

    /// Gives workspace `n` a new account key of the cluster that it is linked to, as an operation does.
    pub(crate) async fn rotate_key(&self, n: u8) {
        let row = self.catalog.workspace(workspace(n)).await.unwrap().unwrap();
        self.link(n, row.cluster).await;
    }

    /// The account keys of workspace `n`.
    pub(crate) async fn aeks_of(&self, n: u8) -> Vec<AekId> {
        self.catalog.aeks_of(workspace(n)).await.unwrap().into_iter().map(|row| row.id).collect()
    }

    /// Destroys workspace `n`, as an operation does: first in the catalog.
    pub(crate) async fn shred(&self, n: u8) {
        let aeks = self.aeks_of(n).await;
        let change = Change::ShredWorkspace { workspace: workspace(n), at: UnixNanos(1) };
        self.catalog.apply(change).await.unwrap();
        self.follow(Some(n), &aeks).await;
        self.forget_acknowledged(n);
    }

    /// Tells the pipeline that `aeks` were destroyed, with them a workspace, as a server does.
    pub(crate) async fn follow(&self, n: Option<u8>, aeks: &[AekId]) {
        self.keyring.shred(aeks);
        if let Some(n) = n {
            self.keyring.forget(workspace(n));
            self.frames.tables.remove(workspace(n));
        }
        self.cutter.shred(aeks);
        soon("rolling", self.logs.roll(aeks)).await;
        until("the keys to be let go of", async || !self.keyring.is_in_use(aeks)).await;
    }

    /// Nobody expects the records of workspace `n` any more.
    pub(crate) fn forget_acknowledged(&self, n: u8) {
        self.world.ledger.lock().unwrap().acknowledged.retain(|id| id.workspace != n);
    }

    /// What a query of every workspace sees.
    pub(crate) async fn query(&self) -> Seen {
        let mut seen = Seen::default();
        for n in WORKSPACES {
            seen.extend(self.query_one(n).await);
        }
        seen
    }

    /// What a query of one workspace sees.
    pub(crate) async fn query_one(&self, n: u8) -> Seen {
        let pinned = self.backlog.pin(workspace(n));
        let snapshot = self.catalog.snapshot(workspace(n)).await.unwrap();
        let unsealed = UnsealedRows::new(pinned, Coverage::new(&snapshot.coverage), self.frames.clone());
        let mut seen = Seen::default();
        for table in &snapshot.tables {
            let name = table.name.as_str();
            let right = |id: Id| {
                assert_eq!((id.workspace, TABLES[usize::from(id.table)]), (n, name), "a record is where it belongs");
                id
            };
            for row in snapshot.segments.iter().filter(|row| row.table == table.id) {
                seen.sealed.extend(self.read(row).await.into_iter().map(right));
            }
            seen.loaded.extend(unsealed.batches(table.id).iter().flat_map(ids).map(right));
            if let Some(parked) = unsealed.parked(table.id) {
                let mut rows = parked.read();
                while let Some(batch) = rows.next().await {
                    seen.parked.extend(ids(&batch.unwrap()).into_iter().map(right));
                }
            }
        }
        seen
    }

    /// The records of a segment, from the store and not through its faults.
    async fn read(&self, row: &SegmentRow) -> Vec<Id> {
        if let Some(known) = self.world.read.lock().unwrap().get(&row.id) {
            return known.clone();
        }
        let path = Path::parse(&row.path).unwrap();
        let file: Bytes = self.world.objects.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(file.len() as u64, row.bytes);
        let dek = self.keyring.segment_dek(row).await.unwrap();
        let wrapped = WrappedDek::from_bytes(&row.wrapped_dek).unwrap();
        let aad = aad::segment_file(row.workspace, row.table, row.id);
        let properties = decryption_properties(&dek, &wrapped, &aad).unwrap();
        let options = ArrowReaderOptions::new().with_file_decryption_properties(properties);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap().build().unwrap();
        let records: Vec<Id> = reader.flat_map(|batch| ids(&batch.unwrap())).collect();
        assert_eq!(records.len() as u64, row.rows);
        self.world.read.lock().unwrap().insert(row.id, records.clone());
        records
    }

    /// A query sees every acknowledged record once, and none that was not sent or is there twice.
    pub(crate) async fn check(&self, context: &str) -> Seen {
        // Taken before the query begins: what is acknowledged meanwhile may be seen or not.
        let acknowledged = self.world.ledger.lock().unwrap().acknowledged.clone();
        let seen = self.query().await;
        let counts = seen.counts();
        let missing: Vec<_> = acknowledged.iter().filter(|id| !counts.contains_key(id)).collect();
        assert!(missing.is_empty(), "{context}: {} acknowledged records are missing: {missing:?}", missing.len());
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{context}: seen more than once: {twice:?}");
        seen
    }

    /// Waits until everything is in segments and the replay has nothing left.
    pub(crate) async fn sealed(&self) {
        for cluster in self.catalog.clusters().await.unwrap() {
            if let Some(mut replaying) = self.logs.replaying(cluster.id).await {
                soon("the replay", replaying.wait_for(|replaying| !*replaying)).await.unwrap();
            }
        }
        until("everything in segments", async || self.backlog.totals().records == 0).await;
    }

    /// The catalog's rows of the log of `cluster`.
    pub(crate) async fn log_rows(&self, cluster: ClusterId) -> Vec<WalFileRow> {
        self.catalog.wal_files().await.unwrap().into_iter().filter(|row| row.cluster == cluster).collect()
    }
}
