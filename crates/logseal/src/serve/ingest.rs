//! The ingest pipeline of a server: its logs recovered, its tasks started, its door built.

use std::sync::Arc;
use std::time::Duration;

use logseal_core::{IdGenerator, NodeId};
use logseal_crypto::OsRandom;
use logseal_ingest::pipeline::backlog::Backlog;
use logseal_ingest::pipeline::commit::{Committer, ParquetEncoder};
use logseal_ingest::pipeline::cutter::{Cutter, CutterParts};
use logseal_ingest::pipeline::frames::Frames;
use logseal_ingest::pipeline::gather::Gatherer;
use logseal_ingest::pipeline::logs::{Logs, LogsParts};
use logseal_ingest::pipeline::quarantine::Quarantine;
use logseal_ingest::pipeline::stream::CutRule;
use logseal_ingest::pipeline::{Journals, Pipeline};
use logseal_ingest::{Budget, Door};
use logseal_otlp::ScanLimits;
use logseal_segment::SegmentSettings;
use logseal_wal::{Disk, SystemDisk};

use super::State;
use super::adapters::Shippers;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::CommandError;

/// The running pipeline.
#[derive(Debug)]
pub(super) struct Ingest {
    pub(super) backlog: Arc<Backlog>,
    pub(super) cutter: Cutter,
    pub(super) frames: Frames,
    pub(super) logs: Arc<Logs>,
    journals: Arc<Journals>,
    budget: Arc<Budget>,
}

impl Ingest {
    /// Starts everything behind the door but the logs of clusters: those are opened when their keys can be used.
    pub(super) fn start(state: &State, data_dir: &DataDir, config: &Config) -> Result<Self, CommandError> {
        // Three eighths for requests and their rows until they are sealed, the rest for what they become: pages, growing segments, files to be stored.
        let for_requests = config.ingest.memory_budget_bytes / 8 * 3;
        let budget = Budget::with_reserve(for_requests, config.ingest.memory_budget_bytes - for_requests);
        let backlog = Backlog::new(Arc::clone(&budget));
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let limits = config.wal.check().map_err(|error| CommandError::Config(error.to_string()))?;
        let frames = Frames {
            disk: Arc::clone(&disk),
            keyring: Arc::clone(&state.keyring),
            tables: Arc::clone(&state.tables),
            limits: Arc::new(scan_limits(config)),
        };
        let quarantine = Quarantine::new(Arc::clone(&disk), data_dir.join("quarantine"), state.catalog.clone());
        let cutter = Cutter::start(CutterParts {
            rule: cut_rule(config),
            committer: committer(state, config, &budget),
            backlog: Arc::clone(&backlog),
            frames: frames.clone(),
            quarantine: quarantine.clone(),
        });
        let node =
            node(data_dir, &state.ids).map_err(CommandError::io("find the node's folder of the write-ahead log"))?;
        let journals: Arc<Journals> = Arc::default();
        let logs = Arc::new(Logs::new(LogsParts {
            folder: data_dir.join("wal").join(node.to_string()),
            node,
            limits,
            file_bytes: config.wal.file_bytes,
            catalog: state.catalog.clone(),
            backlog: Arc::clone(&backlog),
            frames: frames.clone(),
            quarantine,
            budget: Arc::clone(&budget),
            journals: Arc::clone(&journals),
            ids: state.ids.clone(),
            clock: Arc::clone(&state.clock),
        }));
        Ok(Self { backlog, cutter, frames, logs, journals, budget })
    }

    /// The door in front of the pipeline.
    pub(super) fn door(&self, state: &State, config: &Config) -> Result<Door, CommandError> {
        let pipeline = Pipeline {
            tables: Arc::clone(&state.tables),
            catalog: state.catalog.clone(),
            keyring: Arc::clone(&state.keyring),
            journals: Arc::clone(&self.journals),
            limits: Arc::clone(&self.frames.limits),
            clock: Arc::clone(&state.clock),
            gatherer: Gatherer::new(),
        };
        let shippers = Shippers {
            keys: Arc::clone(&state.access),
            clients: config.tls.client_workspaces()?,
            clock: Arc::clone(&state.clock),
        };
        let budget = Arc::clone(&self.budget);
        Door::with_budget(&config.ingest, budget, Arc::new(shippers), Arc::new(pipeline), Arc::new(OsRandom))
            .map(|door| door.with_daily_caps(Arc::clone(&state.caps)))
            .map_err(|error| CommandError::Config(error.to_string()))
    }
}

pub(crate) fn scan_limits(config: &Config) -> ScanLimits {
    // What a hostile request can expand to is a part of the budget, whatever its size.
    let budget = config.ingest.memory_budget_bytes as u64;
    ScanLimits { repeated_bytes: budget / 4, null_cells: budget / 32, ..ScanLimits::default() }
}

fn cut_rule(config: &Config) -> CutRule {
    CutRule {
        max_age: Duration::from_millis(config.segment.max_age_ms),
        target_file_bytes: config.segment.target_bytes,
        row_group_bytes: config.segment.row_group_bytes,
    }
}

fn committer(state: &State, config: &Config, budget: &Arc<Budget>) -> Committer {
    let segment = &config.segment;
    let settings = SegmentSettings { row_group_bytes: segment.row_group_bytes, zstd_level: segment.zstd_level };
    Committer {
        catalog: state.catalog.clone(),
        store: state.store.clone(),
        encoder: Arc::new(ParquetEncoder),
        settings,
        budget: Arc::clone(budget),
        ids: state.ids.clone(),
        clock: Arc::clone(&state.clock),
    }
}

/// This node's id: the name of its folder, made at the first start.
fn node(data_dir: &DataDir, ids: &IdGenerator) -> std::io::Result<NodeId> {
    let logs = data_dir.join("wal");
    SystemDisk.create_dir_all(&logs)?;
    let mut nodes: Vec<NodeId> = Vec::new();
    for entry in std::fs::read_dir(&logs)? {
        nodes.extend(entry?.file_name().to_str().and_then(|name| name.parse::<NodeId>().ok()));
    }
    nodes.sort_unstable();
    match nodes.first() {
        Some(node) => Ok(*node),
        None => {
            let node = NodeId::from(ids.next());
            SystemDisk.create_dir_all(&logs.join(node.to_string()))?;
            Ok(node)
        }
    }
}
