//! `logseal catalog` and `logseal segment adopt`: copies of the catalog, and its return.
//!
//! All but `backup` work on a stopped server's files, under the data directory's lock. What the store and the log have and the
//! catalog lacks is added to a catalog that nobody uses yet; only when it is complete, closed and durable it takes its place.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logseal_catalog::{Catalog, CatalogError};
use logseal_control::provision::{DEFAULT_CLUSTER, DEFAULT_WORKSPACE};
use logseal_control::{AuditTrail, Replacement};
use logseal_core::{Clock, IdGenerator, SystemClock, WalFileId};
use logseal_crypto::{OsRandom, RootKey};
use logseal_ingest::pipeline::frames::{Coverage, FrameReader, Frames, FramesError, Range};
use logseal_ingest::pipeline::tables::Tables;
use logseal_keys::{AccessKeys, KeyError, Keyring, OneVault};
use logseal_rebuild::report::Outcome;
use logseal_rebuild::take_in::{Keys, Secret};
use logseal_rebuild::{Place, Rebuild, Report, WorkspaceSecret};
use logseal_segment::SegmentStore;
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault};
use logseal_wal::{Disk as _, SystemDisk};
use serde::Serialize;

use crate::cli::{CatalogCommand, OfflineOptions};
use crate::commands::{print, print_json, print_table};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::data_dir::DataDir;
use crate::error::{Chain, CommandError};
use crate::{root_key, serve};

pub(crate) async fn run(data_dir: &Path, command: &CatalogCommand) -> Result<(), CommandError> {
    match command {
        CatalogCommand::Backup { file } => backup(data_dir, file).await,
        CatalogCommand::Restore { file, options } => restore(data_dir, file, options).await,
        CatalogCommand::Rebuild(options) => rebuild(data_dir, options).await,
    }
}

async fn backup(data_dir: &Path, to: &Path) -> Result<(), CommandError> {
    let file = Place::new(data_dir).file();
    require(&file, "there is no catalog `{}`; give the server's data directory with --data-dir")?;
    logseal_catalog::backup(&file, to).await.map_err(failed("back the catalog up"))?;
    print(
        format!(
            "The catalog is copied to `{}`. Keep the root key elsewhere: without it the copy is of no use.\n",
            to.display()
        )
        .as_bytes(),
    )
}

async fn restore(data_dir: &Path, copy: &Path, options: &OfflineOptions) -> Result<(), CommandError> {
    require(copy, "there is no file `{}`")?;
    let offline = Offline::open(data_dir, options)?;
    let place = Place::new(data_dir);
    place.clear_next().map_err(failed("make room for the catalog"))?;
    let next = place.next_file();
    logseal_catalog::backup(copy, &next).await.map_err(failed("take the copy of the catalog"))?;
    let nothing = "the copy holds no account key, so no data could be opened with it";
    offline.replace(&place, Replacement::Restored, nothing, options.json).await
}

async fn rebuild(data_dir: &Path, options: &OfflineOptions) -> Result<(), CommandError> {
    let offline = Offline::open(data_dir, options)?;
    let place = Place::new(data_dir);
    if place.is_taken().map_err(failed("look for the catalog"))? {
        return Err(CommandError::Refused(format!(
            "`{file}` or its journal `{file}-wal` is there, and a rebuilt catalog never replaces another one: move the file with its \
             `-wal` and `-shm` elsewhere first, or put a copy in its place with `logseal catalog restore FILE`",
            file = place.file().display()
        )));
    }
    place.clear_next().map_err(failed("make room for the catalog"))?;
    let nothing = "the store has no usable copy of an account key (`clusters/*/keys/`), so nothing in it can be opened";
    offline.replace(&place, Replacement::Rebuilt, nothing, options.json).await
}

/// `logseal segment adopt`.
pub(crate) async fn adopt(data_dir: &Path, options: &OfflineOptions) -> Result<(), CommandError> {
    let offline = Offline::open(data_dir, options)?;
    let file = Place::new(data_dir).file();
    require(
        &file,
        "there is no catalog `{}`: `logseal catalog restore FILE` or `logseal catalog rebuild` brings it back",
    )?;
    let summary = offline.complete(&file, Keys::Needed, None).await?;
    show(&summary, options.json)
}

/// For `map_err`: "cannot `what`: cause".
fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> CommandError {
    move |source| CommandError::Catalog { what, source: Box::new(source) }
}

fn require(file: &Path, otherwise: &str) -> Result<(), CommandError> {
    match file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::Refused(otherwise.replace("{}", &file.display().to_string()))),
        Err(error) => Err(CommandError::io(format!("look for `{}`", file.display()))(error)),
    }
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    #[serde(flatten)]
    report: Report,
    /// Where the catalog is that was in the place before.
    replaced: Option<PathBuf>,
    /// Records of the write-ahead log that are in no segment; the next start replays them.
    log_records: u64,
    /// Files of the log that the catalog lists and that are gone.
    gone_log_files: u64,
    /// What could not be read of the log.
    log_problems: Vec<String>,
    /// The number of the record in the audit trail which says that another catalog was there before.
    audit_record: Option<u64>,
    /// Why there is none.
    audit_problem: Option<String>,
    /// Whether the catalog has any account key.
    #[serde(skip)]
    has_keys: bool,
}

/// A stopped server's data directory.
struct Offline {
    data_dir: DataDir,
    config: Config,
    root: RootKey,
    clock: Arc<dyn Clock>,
}

impl Offline {
    fn open(data_dir: &Path, options: &OfflineOptions) -> Result<Self, CommandError> {
        let config = Config::load(options.config.as_deref(), serve::text_variables(), &options.set)?;
        // Neither a directory nor keys are made: they would hide that the right ones are elsewhere.
        require(data_dir, "there is no data directory `{}`")?;
        let data_dir = DataDir::lock(data_dir)?;
        require(
            &data_dir.join("vault/keys"),
            "`{}` is gone: without the vault's keys nothing can be opened; put them back",
        )?;
        let root = root_key::find_existing(&data_dir, &config.vault.root_key_file)?;
        Ok(Self { data_dir, config, root, clock: Arc::new(SystemClock) })
    }

    /// Completes the next catalog and puts it in its place. Refused as `nothing` says when it then has no account key.
    async fn replace(&self, place: &Place, how: Replacement, nothing: &str, json: bool) -> Result<(), CommandError> {
        let next = place.next_file();
        let completed = self.complete(&next, Keys::All, Some(how)).await.and_then(|summary| match summary.has_keys {
            true => Ok(summary),
            false => {
                let reasons =
                    summary.report.kept.iter().take(3).map(|kept| format!("; `{}`: {}", kept.path, kept.reason));
                Err(CommandError::Refused(format!("{nothing}{}", reasons.collect::<String>())))
            }
        });
        let mut summary = match completed {
            Ok(summary) => summary,
            Err(error) => {
                // What is left of it is removed by the next attempt at the latest.
                let _ = place.clear_next();
                return Err(error);
            }
        };
        summary.replaced = place.install(self.clock.now()).map_err(failed("put the catalog in its place"))?;
        show(&summary, json)
    }

    /// Adds to the catalog in `file` what it lacks, a record of `how` among it, and closes it.
    async fn complete(&self, file: &Path, keys: Keys, how: Option<Replacement>) -> Result<Summary, CommandError> {
        let catalog = Catalog::open(file, self.root.catalog_mac()).await.map_err(failed("open the catalog"))?;
        let completed = self.complete_open(&catalog, keys, how).await;
        let closed = catalog.close().await.map_err(failed("close the catalog"));
        let summary = completed?;
        closed?;
        Ok(summary)
    }

    async fn complete_open(
        &self,
        catalog: &Catalog,
        keys: Keys,
        how: Option<Replacement>,
    ) -> Result<Summary, CommandError> {
        let vault =
            EmbeddedVault::open(self.data_dir.join("vault"), serve::VAULT_URI, &self.root, Arc::clone(&self.clock));
        let vault = Arc::new(vault.map_err(failed("open the embedded vault"))?);
        let store = SegmentStore::local(serve::store_root(&self.data_dir, &self.config.store.url))
            .map_err(failed("open the object store"))?;
        let keyring = Arc::new(Keyring::new(
            Arc::new(OneVault::embedded(&vault)),
            catalog.clone(),
            Arc::new(serve::KeyCopies(store.clone())),
            self.root.catalog_mac(),
            Arc::clone(&self.clock),
        ));
        let rebuild = Rebuild {
            catalog: catalog.clone(),
            keyring: Arc::clone(&keyring),
            vault: Arc::new(EmbeddedClient::new(vault, Caller::Deployment)),
            store,
            access: AccessKeys::new(&self.root),
            mac_key: self.root.catalog_mac(),
            secrets: self.secrets(),
            first_names: (DEFAULT_CLUSTER, DEFAULT_WORKSPACE),
            clock: Arc::clone(&self.clock),
        };
        let mut summary = Summary {
            report: rebuild.take_in(keys).await.map_err(failed("complete the catalog"))?,
            ..Summary::default()
        };
        summary.has_keys = !catalog.aeks().await.map_err(failed("read the catalog"))?.is_empty();
        self.keep_log_tables(catalog, &keyring, &mut summary)
            .await
            .map_err(failed("add tables of the write-ahead log"))?;
        let logs = self.data_dir.join("wal");
        let exists = |row: &logseal_catalog::WalFileRow| {
            let folder = logs.join(row.node.to_string()).join(row.cluster.to_string());
            folder.join(format!("{}.wal", row.id)).try_exists().unwrap_or(true)
        };
        summary.gone_log_files = rebuild.note_gone_log_files(exists).await.map_err(failed("complete the catalog"))?;
        if let Some(how) = how {
            self.record(catalog, how, &mut summary).await?;
        }
        Ok(summary)
    }

    /// Has the audit trail say what became of the one before.
    async fn record(&self, catalog: &Catalog, how: Replacement, summary: &mut Summary) -> Result<(), CommandError> {
        let anchor = Arc::new(serve::AnchorFile::of(&self.data_dir));
        match AuditTrail::new(catalog.clone(), anchor, Arc::clone(&self.clock)).replace(how).await {
            Ok(number) => summary.audit_record = Some(number),
            // A trail that was altered is no reason to do without all else that the catalog has.
            Err(error @ CatalogError::Integrity { .. }) => summary.audit_problem = Some(Chain(&error).to_string()),
            Err(error) => return Err(failed("add to the audit trail")(error)),
        }
        Ok(())
    }

    fn secrets(&self) -> Vec<WorkspaceSecret> {
        let known = Credentials::workspace_key(self.data_dir.path());
        let secret = known.and_then(|(workspace, key)| {
            Some(WorkspaceSecret { workspace: workspace.parse().ok()?, primary: Secret(key) })
        });
        secret.into_iter().collect()
    }

    /// Adds tables and columns that records in the log have and the catalog lacks, in the order of the log. At the start it would be
    /// too late: a new request could give a table of the same name another id before the replay comes to its records.
    async fn keep_log_tables(
        &self,
        catalog: &Catalog,
        keyring: &Arc<Keyring>,
        summary: &mut Summary,
    ) -> Result<(), CatalogError> {
        let ids = IdGenerator::new(Arc::clone(&self.clock), Arc::new(OsRandom));
        let tables = Tables::new(serve::schema_limits(&self.config), ids, Arc::clone(&self.clock));
        for row in catalog.workspaces().await? {
            if let Err(error) = tables.load(catalog, keyring, row.id, &row.name).await {
                summary.log_problems.push(format!("workspace `{}`: {}", row.name, Chain(&error)));
            }
        }
        let frames = Frames {
            disk: Arc::new(SystemDisk),
            keyring: Arc::clone(keyring),
            tables: Arc::new(tables),
            limits: Arc::new(serve::scan_limits(&self.config)),
        };
        let coverage = Coverage::new(&catalog.coverage().await?);
        for path in self.log_files(summary) {
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<WalFileId>().ok());
            let Some(file) = id.filter(|_| path.extension().is_some_and(|extension| extension == "wal")) else {
                continue;
            };
            let range = Range { file, path, first: 1, last: u64::MAX };
            match keep_tables_of(catalog, &frames, &range, &coverage).await {
                Ok(records) => summary.log_records += records,
                Err(LogProblem::Catalog(error)) if !error.is_decision() => return Err(error),
                Err(problem) => summary.log_problems.push(format!("`{}`: {}", range.path.display(), Chain(&problem))),
            }
        }
        Ok(())
    }

    /// The files of all logs, each cluster's in their order: ids sort by time.
    fn log_files(&self, summary: &mut Summary) -> Vec<PathBuf> {
        let mut paths = vec![self.data_dir.join("wal")];
        // wal/<node>/<cluster>/<file>
        for _ in 0..3 {
            let mut below = Vec::new();
            for folder in paths.iter().filter(|path| path.is_dir()) {
                match SystemDisk.list(folder) {
                    Ok(listed) => below.extend(listed),
                    Err(error) => summary.log_problems.push(format!("`{}`: {error}", folder.display())),
                }
            }
            paths = below;
        }
        paths
    }
}

#[derive(Debug, thiserror::Error)]
enum LogProblem {
    #[error("a file of the write-ahead log cannot be read now; the next start tries again")]
    Frames(#[from] FramesError),
    #[error("the catalog refuses a table of the write-ahead log")]
    Catalog(#[source] CatalogError),
    #[error("a table of the write-ahead log cannot be sealed")]
    Key(#[source] KeyError),
}

impl LogProblem {
    fn of(error: KeyError) -> Self {
        match error {
            KeyError::Catalog(error) => Self::Catalog(error),
            error => Self::Key(error),
        }
    }
}

/// Adds the tables and columns of one file's frames that no segment covers; how many records they have.
async fn keep_tables_of(
    catalog: &Catalog,
    frames: &Frames,
    range: &Range,
    coverage: &Coverage,
) -> Result<u64, LogProblem> {
    let mut reader = FrameReader::open(frames, range).await?;
    let mut records = 0;
    while let Some(lot) = reader.next(|position, _, stream| !coverage.covers(position, stream)).await? {
        // What gives no rows is quarantined by the replay.
        for rows in lot.into_iter().filter_map(|frame| frame.rows.ok()).flatten() {
            let made = rows.stream.table.make_durable(catalog, &frames.keyring, &rows.stream.aek).await;
            made.map_err(LogProblem::of)?;
            records += rows.chunks.iter().map(|chunk| chunk.batch.num_rows() as u64).sum::<u64>();
        }
    }
    Ok(records)
}

fn show(summary: &Summary, json: bool) -> Result<(), CommandError> {
    if json {
        return print_json(summary);
    }
    let Summary { report, replaced, log_records, gone_log_files, log_problems, .. } = summary;
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{words}");
    };
    for cluster in &report.clusters {
        line(format_args!("Cluster `{}` ({}) is back.", cluster.name, cluster.id));
    }
    for workspace in &report.workspaces {
        let keys = if workspace.primary_key_kept {
            "its primary access key is the one in credentials.json, its secondary one is new"
        } else {
            "its access keys are new: `logseal workspace keys` shows them, and its shippers need them"
        };
        line(format_args!("Workspace `{}` ({}) is back; {keys}.", workspace.name, workspace.id));
    }
    let count = |outcome| report.count(outcome);
    line(format_args!(
        "Segments: {} taken in with {} records, {} known, {} orphans, {} partial, {} unreadable, {} in conflict, {} gone; {} foreign \
         objects.",
        report.adopted,
        report.adopted_records,
        report.known,
        count(Outcome::Orphan),
        count(Outcome::Partial),
        count(Outcome::Unreadable),
        count(Outcome::Conflict),
        report.missing.len(),
        count(Outcome::Foreign)
    ));
    line(format_args!("Write-ahead log: {log_records} records are in no segment; the next start replays them."));
    if *gone_log_files > 0 {
        line(format_args!(
            "Write-ahead log: {gone_log_files} files that the catalog lists are gone. That is usual for a copy of earlier date: files \
             go once their records are in segments."
        ));
    }
    for problem in log_problems {
        line(format_args!("Write-ahead log: {problem}."));
    }
    for key in &report.missing_keys {
        let name = key.workspace_name.as_deref().unwrap_or("of unknown name");
        line(format_args!(
            "Workspace {name} ({}): {} segments stay closed, their account key `{}` is missing.",
            key.workspace, key.segments, key.id
        ));
    }
    for path in &report.missing {
        line(format_args!("Gone from the store: `{path}`."));
    }
    if let Some(number) = summary.audit_record {
        line(format_args!(
            "Audit trail: record {number} says that another catalog was here before, and so does `logseal audit verify` from now on."
        ));
    }
    if let Some(problem) = &summary.audit_problem {
        line(format_args!("Audit trail: it takes no records, and the next start will say so: {problem}."));
    }
    if let Some(replaced) = replaced {
        line(format_args!("The catalog from before is kept as `{}`.", replaced.display()));
    }
    print(text.as_bytes())?;
    if report.kept.is_empty() {
        return Ok(());
    }
    print(b"Not taken in, and kept where they are:\n")?;
    let rows: Vec<_> = report
        .kept
        .iter()
        .map(|kept| vec![kept.outcome.word().to_owned(), kept.path.to_string(), kept.reason.clone()])
        .collect();
    print_table(&["WHAT", "OBJECT", "WHY"], &rows)
}
