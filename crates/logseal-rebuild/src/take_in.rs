//! Keys and segments of the store into a catalog.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt as _;
use logseal_catalog::{
    Catalog, Change, ClusterRow, CoverageRow, SegmentCommit, SegmentRow, WalFileRow, WalFileState, WorkspaceRow,
};
use logseal_core::{AekId, Chain, Clock, ClusterId, UnixNanos, WorkspaceId};
use logseal_crypto::{Dek, MacKey, WrappedDek, aad};
use logseal_keys::{AccessKeys, KeyCopy, KeyError, Keyring, Slot};
use logseal_segment::{SegmentFooter, SegmentStore, StoredObject, footer, inspect};
use logseal_vault::KeyVault;
use zeroize::Zeroizing;

use crate::RebuildError;
use crate::choice::{Frames, Settled, Verdict, choose};
use crate::copies::Copies;
use crate::ends::Ends;
use crate::object::{ObjectKind, SegmentPlace};
use crate::report::{MissingKey, Outcome, Report, TakenCluster, TakenWorkspace};
use crate::tables::{Additions, Tables};

/// A catalog, and what is needed to put back into it what it lacks.
#[derive(Debug)]
pub struct Rebuild {
    /// The catalog: empty, or an older copy. Nobody else writes it meanwhile.
    pub catalog: Catalog,
    /// A keyring over that catalog.
    pub keyring: Arc<Keyring>,
    /// The vault of the keyring.
    pub vault: Arc<dyn KeyVault>,
    /// The store.
    pub store: SegmentStore,
    /// Makes access keys for workspaces that the catalog lacks.
    pub access: AccessKeys,
    /// Authenticates key copies: the catalog's own.
    pub mac_key: MacKey,
    /// Primary access keys that are known from elsewhere.
    pub secrets: Vec<WorkspaceSecret>,
    /// The names of the first cluster and workspace. Copies from before names were in them can be of no others.
    pub first_names: (&'static str, &'static str),
    /// Tells when access keys were made.
    pub clock: Arc<dyn Clock>,
}

/// The primary access key of a workspace.
#[derive(Debug)]
pub struct WorkspaceSecret {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// What its shippers present; wiped, and never shown by `Debug` of its own accord.
    pub primary: Secret,
}

/// An access key in clear.
pub struct Secret(pub Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Which account keys are taken in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keys {
    /// All of which the store has a copy: records of theirs may be in the write-ahead log alone.
    All,
    /// Those that a segment needs.
    Needed,
}

/// What the catalog has by now.
struct Known {
    aeks: HashSet<AekId>,
    clusters: HashMap<ClusterId, String>,
    workspaces: HashMap<WorkspaceId, String>,
    copies: Copies,
    /// Keys that were looked for in the copies, found or not.
    tried: HashSet<AekId>,
    report: Report,
}

/// A segment that the catalog lacks.
struct Candidate {
    object: StoredObject,
    place: SegmentPlace,
}

/// A segment whose footer is open.
struct Opened {
    footer: SegmentFooter,
    wrapped: WrappedDek,
    dek: Dek,
}

enum Problem {
    /// The segment stays closed, for this reason.
    Unreadable(String),
    /// It stays closed without this key.
    NoKey(AekId),
    /// The catalog says otherwise.
    Conflict(String),
    /// Nothing can go on.
    Fatal(RebuildError),
}

impl Problem {
    fn unreadable(error: &dyn std::error::Error) -> Self {
        Self::Unreadable(Chain(error).to_string())
    }

    fn of_key(error: KeyError) -> Self {
        match error {
            KeyError::Catalog(error) => Self::Fatal(error.into()),
            error => Self::unreadable(&error),
        }
    }
}

impl Rebuild {
    /// Takes in what the catalog lacks, after it has read and authenticated all that the catalog has. May be repeated.
    ///
    /// # Errors
    ///
    /// [`RebuildError::List`], [`RebuildError::Catalog`]. What was taken in until then is in the catalog, whole segments only.
    pub async fn take_in(&self, keys: Keys) -> Result<Report, RebuildError> {
        let segments = self.known_segments().await?;
        let mut known = self.known().await?;
        let (candidates, copies) = self.list(segments, &mut known.report).await?;
        known.copies = Copies::read(&self.store, &copies, &self.mac_key, &mut known.report).await;
        if keys == Keys::All {
            for id in known.copies.newest_first() {
                self.find_key(id, &mut known).await?;
            }
        }
        let settled = Settled::new(&self.catalog.coverage().await?);
        let mut claims = Vec::new();
        let mut claiming = Vec::new();
        for candidate in candidates {
            match self.open(&candidate, &mut known).await {
                Ok(opened) => match frames(&opened.footer) {
                    Some(frames) => {
                        claims.push(frames);
                        claiming.push(candidate);
                    }
                    None => {
                        let reason = "it names no frames of the log, so nobody can tell whether its records are in other segments";
                        known.report.keep(&candidate.object.path, Outcome::Unreadable, reason);
                    }
                },
                Err(problem) => note(&candidate, problem, &mut known)?,
            }
        }
        let mut tables: HashMap<WorkspaceId, Tables> = HashMap::new();
        for (candidate, verdict) in claiming.iter().zip(choose(&settled, &claims)) {
            match verdict {
                Verdict::Take => match self.adopt(candidate, &mut tables, &mut known).await {
                    Ok(records) => {
                        known.report.adopted += 1;
                        known.report.adopted_records += records;
                    }
                    Err(problem) => note(candidate, problem, &mut known)?,
                },
                Verdict::Orphan => {
                    known.report.keep(
                        &candidate.object.path,
                        Outcome::Orphan,
                        "all of its records are in other segments",
                    );
                }
                Verdict::Partial(Frames { file, first, last, .. }) => {
                    let reason = format!(
                        "some of its records are in other segments, those of the frames {first} to {last} of the log's file \
                         `{file}` may be in none"
                    );
                    known.report.keep(&candidate.object.path, Outcome::Partial, reason);
                }
            }
        }
        Ok(known.report)
    }

    /// Notes as lost the files of the log that the catalog believes to be there and that `exists` denies: a catalog of older date
    /// does not know that they were done with. How many there are.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Catalog`].
    pub async fn note_gone_log_files(&self, exists: impl Fn(&WalFileRow) -> bool) -> Result<u64, RebuildError> {
        let mut gone = 0;
        for row in self.catalog.wal_files().await?.iter().filter(|row| row.state == WalFileState::Live) {
            if !exists(row) {
                let (file, state) = (row.id, WalFileState::Lost);
                self.catalog.apply(Change::SetWalFileState { file, state, at: self.clock.now() }).await?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    async fn known(&self) -> Result<Known, RebuildError> {
        self.catalog.workspace_keys().await?;
        self.catalog.wal_files().await?;
        Ok(Known {
            aeks: self.catalog.aeks().await?.into_iter().map(|row| row.id).collect(),
            clusters: self.catalog.clusters().await?.into_iter().map(|row| (row.id, row.name)).collect(),
            workspaces: self.catalog.workspaces().await?.into_iter().map(|row| (row.id, row.name)).collect(),
            copies: Copies::default(),
            tried: HashSet::new(),
            report: Report::default(),
        })
    }

    /// The paths of the catalog's segments.
    async fn known_segments(&self) -> Result<HashSet<String>, RebuildError> {
        let mut paths = HashSet::new();
        for workspace in self.catalog.workspaces().await? {
            paths.extend(self.catalog.snapshot(workspace.id).await?.segments.into_iter().map(|row| row.path));
        }
        Ok(paths)
    }

    /// The segments that the catalog lacks, in the order of their making, and the key copies.
    async fn list(
        &self,
        mut segments: HashSet<String>,
        report: &mut Report,
    ) -> Result<(Vec<Candidate>, Vec<StoredObject>), RebuildError> {
        let (mut candidates, mut copies) = (Vec::new(), Vec::new());
        let mut objects = self.store.list(None);
        while let Some(object) = objects.try_next().await.map_err(RebuildError::List)? {
            match ObjectKind::of(&object.path) {
                ObjectKind::Segment(_) if segments.remove(object.path.as_ref()) => report.known += 1,
                ObjectKind::Segment(place) => candidates.push(Candidate { object, place }),
                ObjectKind::KeyCopy => copies.push(object),
                ObjectKind::Foreign => report.keep(&object.path, Outcome::Foreign, "its path is none of Logseal's"),
            }
        }
        report.missing = segments.into_iter().collect();
        report.missing.sort_unstable();
        // Ids sort by the time when they were made.
        candidates.sort_by_key(|candidate| candidate.place.segment);
        Ok((candidates, copies))
    }

    /// Whether the catalog has the key `id`, taken in from its copy if need be.
    async fn find_key(&self, id: AekId, known: &mut Known) -> Result<bool, RebuildError> {
        if known.aeks.contains(&id) || !known.tried.insert(id) {
            return Ok(known.aeks.contains(&id));
        }
        let copies = std::mem::take(&mut known.copies);
        let found = match copies.usable(id, &self.keyring, &*self.vault).await {
            Ok(None) => Ok(false),
            Ok(Some(copy)) => self.add_key(copy, &copies, known).await,
            Err(error) => {
                for copy in copies.of(id) {
                    known.report.keep(&copy.path(), Outcome::Unreadable, Chain(&error).to_string());
                }
                Ok(false)
            }
        };
        known.copies = copies;
        found
    }

    /// Adds the cluster of `copy` unless it is there.
    async fn add_cluster(&self, copy: &KeyCopy, created: UnixNanos, known: &mut Known) -> Result<(), RebuildError> {
        let id = copy.aek.cluster;
        if known.clusters.contains_key(&id) {
            return Ok(());
        }
        let wished = copy.cluster_name.as_deref().unwrap_or(self.first_names.0);
        let name = free_name(wished, &id.to_string(), known.clusters.values());
        let row = ClusterRow { id, name: name.clone(), created, kek: copy.aek.kek.clone() };
        self.catalog.apply(Change::AddCluster(row)).await?;
        known.clusters.insert(id, name.clone());
        known.report.clusters.push(TakenCluster { id, name });
        Ok(())
    }

    async fn add_key(&self, copy: &KeyCopy, copies: &Copies, known: &mut Known) -> Result<bool, RebuildError> {
        let (aek, created) = (copy.aek.clone(), copies.workspace_made(copy));
        self.add_cluster(copy, created, known).await?;
        let newest = copies.newest_of_workspace(copy);
        let (id, workspace) = (aek.id, aek.workspace);
        let (change, taken) = if known.workspaces.contains_key(&workspace) {
            (Change::AddAek(aek), None)
        } else {
            let wished = copy.workspace_name.as_deref().unwrap_or(self.first_names.1);
            let name = free_name(wished, &workspace.to_string(), known.workspaces.values());
            self.add_cluster(newest, created, known).await?;
            let row = WorkspaceRow { id: workspace, name: name.clone(), cluster: newest.aek.cluster, created };
            let now = self.clock.now();
            let kept = self.secrets.iter().find(|secret| secret.workspace == workspace);
            let kept = kept.and_then(|secret| self.access.keep(workspace, Slot::Primary, &secret.primary.0, now));
            let primary_key_kept = kept.is_some();
            let primary = kept.unwrap_or_else(|| self.access.generate(workspace, Slot::Primary, now));
            let secondary = self.access.generate(workspace, Slot::Secondary, now);
            let keys = vec![primary.row, secondary.row];
            let change = Change::AddWorkspace { workspace: row, keys, aek, tables: copy.tables.clone() };
            (change, Some(TakenWorkspace { id: workspace, name, primary_key_kept }))
        };
        match self.catalog.apply(change).await {
            Ok(()) => {}
            Err(error) if error.is_decision() => {
                known.report.keep(&copy.path(), Outcome::Conflict, Chain(&error).to_string());
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        known.aeks.insert(id);
        known.report.account_keys += 1;
        if let Some(taken) = taken {
            known.workspaces.insert(workspace, taken.name.clone());
            known.report.workspaces.push(taken);
        }
        Ok(true)
    }

    /// Opens the footer of a segment for the ids in its path.
    async fn open(&self, candidate: &Candidate, known: &mut Known) -> Result<Opened, Problem> {
        let Candidate { object, place } = candidate;
        let ends = Ends::fetch(&self.store, object).await.map_err(|error| Problem::unreadable(&error))?;
        let wrapped = inspect::wrapped_dek(&ends).map_err(|error| Problem::unreadable(&error))?;
        if (wrapped.workspace, wrapped.segment) != (place.workspace, place.segment) {
            return Err(Problem::Unreadable("it is another segment than its path says".to_owned()));
        }
        if !self.find_key(wrapped.aek, known).await.map_err(Problem::Fatal)? {
            return Err(Problem::NoKey(wrapped.aek));
        }
        let aek = self.keyring.aek(wrapped.aek).await.map_err(Problem::of_key)?;
        let dek = aek.danger_unwrap_dek_without_commitment(&wrapped).map_err(|error| Problem::unreadable(&error))?;
        let prefix = aad::segment_file(place.workspace, place.table, place.segment);
        // Decrypting and decoding a long footer takes long.
        let reading = tokio::task::spawn_blocking(move || {
            let footer = footer::read(&ends, &dek, &wrapped, &prefix)?;
            Ok(Opened { footer, wrapped, dek })
        });
        let opened: Result<Opened, logseal_segment::SegmentError> =
            reading.await.map_err(|_| Problem::Unreadable("reading its footer broke off".to_owned()))?;
        let opened = opened.map_err(|error| Problem::unreadable(&error))?;
        let said = (opened.footer.cluster, opened.footer.table, opened.footer.aek_generation);
        if said != (place.cluster, place.table, aek.generation()) {
            return Err(Problem::Unreadable(
                "its footer describes another segment than its path and key say".to_owned(),
            ));
        }
        Ok(opened)
    }

    /// Adds a chosen segment; how many records it has. Its footer is read anew: those of all candidates at once could be large.
    async fn adopt(
        &self,
        candidate: &Candidate,
        tables: &mut HashMap<WorkspaceId, Tables>,
        known: &mut Known,
    ) -> Result<u64, Problem> {
        let opened = self.open(candidate, known).await?;
        // Columns are sealed under the newest key: older ones may go before it, with all that they seal.
        let aek = match self.keyring.newest(candidate.place.workspace).await {
            Ok(newest) => newest,
            Err(_) => self.keyring.aek(opened.wrapped.aek).await.map_err(Problem::of_key)?,
        };
        let tables = match tables.entry(candidate.place.workspace) {
            Entry::Occupied(loaded) => loaded.into_mut(),
            Entry::Vacant(place) => {
                let loaded = Tables::load(&self.catalog, &self.keyring, candidate.place.workspace).await;
                place.insert(loaded.map_err(Problem::of_key)?)
            }
        };
        let columns = opened.footer.columns.len() as u64;
        self.keyring.reserve_wraps(&aek, columns).await.map_err(Problem::of_key)?;
        let additions =
            tables.additions(&opened.footer, &aek).map_err(|reason| Problem::Conflict(reason.to_owned()))?;
        let next_ordinal = additions.next_ordinal;
        let commit = commit_of(&candidate.object, &opened, additions);
        let applied = self.catalog.apply(Change::CommitSegment(Box::new(commit))).await;
        applied.map_err(|error| match error.is_decision() {
            true => Problem::Conflict(Chain(&error).to_string()),
            false => Problem::Fatal(error.into()),
        })?;
        tables.added(&opened.footer, next_ordinal);
        Ok(opened.footer.rows)
    }
}

/// Reports what is wrong with a segment; fails when nothing can go on.
fn note(candidate: &Candidate, problem: Problem, known: &mut Known) -> Result<(), RebuildError> {
    let Candidate { object, place } = candidate;
    let (outcome, reason) = match problem {
        Problem::Fatal(error) => return Err(error),
        Problem::Unreadable(reason) => (Outcome::Unreadable, reason),
        Problem::Conflict(reason) => (Outcome::Conflict, reason),
        Problem::NoKey(id) => {
            match known.report.missing_keys.iter_mut().find(|missing| missing.id == id) {
                Some(missing) => missing.segments += 1,
                None => known.report.missing_keys.push(MissingKey {
                    id,
                    workspace: place.workspace,
                    workspace_name: known.workspaces.get(&place.workspace).cloned(),
                    segments: 1,
                }),
            }
            let reason = format!("its account key `{id}` is neither in the catalog nor, usable, in the store");
            (Outcome::Unreadable, reason)
        }
    };
    known.report.keep(&object.path, outcome, reason);
    Ok(())
}

/// The frames that a footer claims; nothing when there are none or a range of them is impossible.
fn frames(footer: &SegmentFooter) -> Option<Vec<Frames>> {
    let (table, aek) = (footer.table, footer.aek);
    let mut frames: Vec<_> = footer
        .coverage
        .iter()
        .map(|range| Frames { table, aek, file: range.file, first: range.first, last: range.last })
        .collect();
    frames.sort_by_key(|range| (range.file, range.first));
    let apart = frames.windows(2).all(|pair| pair[0].file != pair[1].file || pair[0].last < pair[1].first);
    (!frames.is_empty() && apart && frames.iter().all(|range| range.first <= range.last)).then_some(frames)
}

/// The commit that was lost.
fn commit_of(object: &StoredObject, opened: &Opened, additions: Additions) -> SegmentCommit {
    let Opened { footer, wrapped, dek } = opened;
    let coverage: Vec<_> = footer
        .coverage
        .iter()
        .map(|range| CoverageRow {
            file: range.file,
            table: footer.table,
            aek: footer.aek,
            first: range.first,
            last: range.last,
            segment: Some(footer.segment),
        })
        .collect();
    let segment = SegmentRow {
        id: footer.segment,
        workspace: footer.workspace,
        table: footer.table,
        aek: footer.aek,
        path: object.path.to_string(),
        bytes: object.bytes,
        rows: footer.rows,
        min_time: footer.min_time,
        max_time: footer.max_time,
        created: footer.created,
        wrapped_dek: wrapped.to_bytes(),
        dek_commitment: dek.commitment().as_bytes().to_vec(),
    };
    let attested = coverage.iter().map(|range| (range.file, range.last)).collect();
    SegmentCommit { segment, table: additions.table, columns: additions.columns, coverage, attested }
}

/// `wished`, unless a resource has that name: then it with the end of the id, which is random.
fn free_name<'n>(wished: &str, id: &str, mut taken: impl Iterator<Item = &'n String>) -> String {
    if taken.all(|name| name != wished) {
        return wished.to_owned();
    }
    // A name has at most 63 characters; the end of an id has 12.
    let start: String = wished.chars().take(50).collect();
    format!("{start}-{}", id.rsplit('-').next().unwrap_or(id))
}

#[cfg(test)]
mod tests;
