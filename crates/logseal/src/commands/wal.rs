//! `logseal wal`: what the write-ahead log shows without any key, and whether it is intact.

mod quarantine;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logseal_catalog::CoverageRow;
use logseal_core::{AekId, TableId, WalFileId};
use logseal_crypto::Aek;
use logseal_keys::{KeyError, Keyring};
use logseal_wal::{
    Disk, FileKeys, FileReader, FileSurvey, FolderProblem, FolderSurvey, Item, Known, SystemDisk, survey_folder,
};
use serde::Serialize;

use crate::cli::WalCommand;
use crate::commands::{print_json, print_table};
use crate::config::Config;
use crate::error::{Chain, CommandError};
use crate::root_key;
use crate::serve::{offline_keyring, text_variables};

/// A file of the log, as shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: PathBuf,
    file: String,
    cluster: String,
    ordinal: u64,
    created: i64,
    bytes: u64,
    entries: u64,
    records: u64,
    /// The highest frame known to have been durable.
    attested: u64,
    /// The last frame that counts.
    valid_to: u64,
    /// Bytes at the end that were never acknowledged.
    torn_bytes: u64,
    keys: Vec<Key>,
    /// What the file has.
    coverage: Vec<Covered>,
    /// What the catalog says became of it; `null` when no catalog was asked.
    settled: Option<Vec<Settled>>,
    problems: Vec<String>,
}

/// A data key of a file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    slot: u16,
    workspace: String,
    aek_id: String,
}

/// The frames of one table and account key in a file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Covered {
    table: String,
    aek_id: String,
    first: u64,
    last: u64,
    frames: u64,
    records: u64,
}

/// Frames of one table and account key that are in a segment or in quarantine.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    table: String,
    aek_id: String,
    first: u64,
    last: u64,
    /// Which segment has them.
    segment: Option<String>,
    quarantined: bool,
}

impl From<&CoverageRow> for Settled {
    fn from(row: &CoverageRow) -> Self {
        Self {
            table: row.table.to_string(),
            aek_id: row.aek.to_string(),
            first: row.first,
            last: row.last,
            segment: row.segment.map(|segment| segment.to_string()),
            quarantined: row.segment.is_none(),
        }
    }
}

pub(crate) async fn run(data_dir: &Path, command: &WalCommand) -> Result<(), CommandError> {
    match command {
        WalCommand::Inspect { dir, json } => inspect(dir, *json).await,
        WalCommand::Quarantine { json } => quarantine::list(data_dir, *json),
        WalCommand::Verify { dir, with_keys, json } => {
            let keyring = if *with_keys { Some(offline_keyring(data_dir).await?) } else { None };
            verify(dir, keyring.as_deref(), *json).await
        }
    }
}

async fn inspect(dir: &Path, json: bool) -> Result<(), CommandError> {
    let (mut shown, mut ids) = (Vec::new(), BTreeSet::new());
    for (_, survey) in surveys(dir)? {
        for file in &survey.files {
            shown.push(show(file, None)?);
            ids.insert(file.header.file);
        }
    }
    let ids: Vec<_> = ids.into_iter().collect();
    // Asked after the files were read: what was settled meanwhile is shown as settled.
    let is_known = match settled(dir, &ids).await {
        Ok(rows) => {
            for file in &mut shown {
                let own = rows.iter().filter(|row| row.file.to_string() == file.file);
                file.settled = Some(own.map(Settled::from).collect());
            }
            true
        }
        Err(reason) => {
            tell(&format!("which frames are in segments or in quarantine is not shown: {}", Chain(&reason)));
            false
        }
    };
    if json {
        return print_json(&shown);
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|file| {
            let name =
                |id: &str, frames: &Covered| format!("{id} {}..{}: {}", frames.first, frames.last, frames.records);
            let coverage: Vec<_> = file.coverage.iter().map(|covered| name(&covered.table, covered)).collect();
            let keys: Vec<_> = file.keys.iter().map(|key| key.aek_id.clone()).collect();
            let settled = file.settled.iter().flatten().map(|settled| {
                let place = settled.segment.as_ref().map_or("quarantine".to_owned(), |id| format!("segment {id}"));
                format!("{} {}..{}: {place}", settled.table, settled.first, settled.last)
            });
            let mut row = vec![
                file.path.display().to_string(),
                file.bytes.to_string(),
                file.entries.to_string(),
                file.records.to_string(),
                file.attested.to_string(),
                file.valid_to.to_string(),
                file.problems.len().to_string(),
                keys.join(", "),
                coverage.join(", "),
            ];
            row.extend(is_known.then(|| settled.collect::<Vec<_>>().join(", ")));
            row
        })
        .collect();
    let mut header = vec![
        "FILE",
        "BYTES",
        "ENTRIES",
        "RECORDS",
        "ATTESTED",
        "VALID TO",
        "PROBLEMS",
        "ACCOUNT KEYS (AEK)",
        "TABLE FRAMES: RECORDS",
    ];
    header.extend(is_known.then_some("SETTLED FRAMES: WHERE"));
    print_table(&header, &rows)
}

/// The catalog's rows for `files`, if `dir` is a data directory.
async fn settled(dir: &Path, files: &[WalFileId]) -> Result<Vec<CoverageRow>, CommandError> {
    let catalog = dir.join("catalog.sqlite");
    let looking = CommandError::io(format!("look for `{}`", catalog.display()));
    if !catalog.try_exists().map_err(looking)? {
        return Err(CommandError::Refused(format!("`{}` has no catalog", dir.display())));
    }
    let config = Config::load(None, text_variables(), &[])?;
    let root = root_key::existing(dir, &config.vault.root_key_file)?;
    let failed =
        |error: logseal_catalog::CatalogError| CommandError::Catalog { what: "read the catalog", source: error.into() };
    logseal_catalog::coverage_of(&catalog, &root.catalog_mac(), files).await.map_err(failed)
}

async fn verify(dir: &Path, keyring: Option<&Keyring>, json: bool) -> Result<(), CommandError> {
    let (mut shown, mut problems) = (Vec::new(), 0);
    for (_, survey) in surveys(dir)? {
        for problem in &survey.problems {
            // A predecessor that is gone is the usual case: its records are in segments.
            if !matches!(problem, FolderProblem::MissingPredecessor { .. }) {
                problems += 1;
                tell(&describe(problem));
            }
        }
        for survey in &survey.files {
            let aeks = match keyring {
                Some(keyring) => Some(account_keys(survey, keyring).await),
                None => None,
            };
            let file = show(survey, aeks.as_ref())?;
            for problem in &file.problems {
                problems += 1;
                tell(&format!("{}: {problem}", file.path.display()));
            }
            shown.push(file);
        }
    }
    if json {
        print_json(&shown)?;
    } else {
        let entries: u64 = shown.iter().map(|file| file.entries).sum();
        let how = if keyring.is_some() { "opened" } else { "checked without keys" };
        tell(&format!("{} files, {entries} entries {how}, {problems} problems", shown.len()));
    }
    if problems == 0 {
        return Ok(());
    }
    Err(CommandError::Refused(format!("the write-ahead log has {problems} problems")))
}

#[expect(clippy::print_stderr, reason = "findings are for people; --json prints the result alone")]
fn tell(line: &str) {
    eprintln!("{line}");
}

fn describe(problem: &FolderProblem) -> String {
    match problem {
        FolderProblem::Unreadable { path, error } => format!("{}: {}", path.display(), Chain(error)),
        FolderProblem::MissingPredecessor { file, predecessor } => {
            format!("file {file} continues {}, which is not there", predecessor.file)
        }
        FolderProblem::Fork { predecessor } => format!("two files continue {predecessor} and do not agree about it"),
    }
}

/// All folders with files of a log, in `dir` and below.
fn surveys(dir: &Path) -> Result<Vec<(PathBuf, FolderSurvey)>, CommandError> {
    let reading = |folder: &Path| CommandError::io(format!("read `{}`", folder.display()));
    let (mut folders, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let mut has_log = false;
        for path in SystemDisk.list(&folder).map_err(reading(&folder))? {
            has_log |= path.extension().is_some_and(|extension| extension == "wal");
            if path.is_dir() {
                folders.push(path);
            }
        }
        if has_log {
            let survey = survey_folder(&SystemDisk, &folder, &|_| Known::default())
                .map_err(|error| CommandError::Show(error.into()))?;
            found.push((folder, survey));
        }
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found)
}

type AccountKeys = BTreeMap<AekId, Result<Arc<Aek>, KeyError>>;

/// The account keys that a file needs, as far as the keyring has them.
async fn account_keys(survey: &FileSurvey, keyring: &Keyring) -> AccountKeys {
    let mut keys = AccountKeys::new();
    let Ok(mut reader) = FileReader::open(&SystemDisk, &survey.path) else { return keys };
    reader.until(survey.end);
    while let Ok(Some(item)) = reader.next_item() {
        if let Item::Key(key) = item
            && !keys.contains_key(&key.aek)
        {
            keys.insert(key.aek, keyring.aek(key.aek).await);
        }
    }
    keys
}

/// Reads the file once more for its keys and streams; opens each entry if there are keys.
fn show(survey: &FileSurvey, aeks: Option<&AccountKeys>) -> Result<File, CommandError> {
    let failed = |error: logseal_wal::WalError| CommandError::Show(error.into());
    let mut problems: Vec<String> = survey.damages.iter().map(ToString::to_string).collect();
    problems.extend(survey.alterations.iter().map(|alteration| format!("altered: {alteration:?}")));
    let mut reader = FileReader::open(&SystemDisk, &survey.path).map_err(failed)?;
    reader.until(survey.end);
    let mut opened = FileKeys::new(reader.header());
    let (mut keys, mut coverage): (BTreeMap<u16, Key>, BTreeMap<(TableId, AekId), Covered>) = Default::default();
    while let Some(item) = reader.next_item().map_err(failed)? {
        match item {
            Item::Key(key) => {
                let _ = opened.add(&key, &|id| aeks.and_then(|aeks| aeks.get(&id)?.as_ref().ok().map(Arc::clone)));
                let shown = Key { slot: key.slot, workspace: key.workspace.to_string(), aek_id: key.aek.to_string() };
                keys.insert(key.slot, shown);
            }
            Item::Entry(entry) => {
                let key = opened.aek_of(entry.slot).and_then(|aek| aeks?.get(&aek));
                // Nobody can open what is under a key that was destroyed, and nobody is to.
                let shredded = matches!(key, Some(Err(KeyError::Shredded(_))));
                if aeks.is_some()
                    && !shredded
                    && let Err(error) = entry.open(&opened)
                {
                    problems.push(Chain(&error).to_string());
                }
                let Some(aek) = opened.aek_of(entry.slot) else { continue };
                for part in &entry.parts {
                    let covered = coverage.entry((part.table, aek)).or_insert_with(|| Covered {
                        table: part.table.to_string(),
                        aek_id: aek.to_string(),
                        first: entry.sequence,
                        last: entry.sequence,
                        frames: 0,
                        records: 0,
                    });
                    covered.last = entry.sequence;
                    covered.frames += 1;
                    covered.records += u64::from(part.records);
                }
            }
            Item::Attestation(_) | Item::Damage(_) | Item::Torn(_) => {}
        }
    }
    let id: WalFileId = survey.header.file;
    Ok(File {
        path: survey.path.clone(),
        file: id.to_string(),
        cluster: survey.header.cluster.to_string(),
        ordinal: survey.header.ordinal,
        created: survey.header.created.0,
        bytes: survey.bytes,
        entries: survey.entries,
        records: survey.records,
        attested: survey.attested,
        valid_to: survey.end,
        torn_bytes: survey.torn.as_ref().map_or(0, |torn| torn.bytes),
        keys: keys.into_values().collect(),
        coverage: coverage.into_values().collect(),
        settled: None,
        problems,
    })
}
