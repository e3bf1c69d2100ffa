//! Judges one file: what counts, what is damaged, what is void.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use logseal_core::{AekId, ClusterId, NodeId, UnixNanos, WalFileId, WorkspaceId};

use crate::format::{Chain, EntryMetadata, FileHeader, FrameKind, KeyMetadata, Predecessor};
use crate::scan::{self, BadRegion, Depth, ScannedFrame, Scanner, Step};
use crate::{Damage, DamageCause, Disk, Torn, WalError};

/// Damages that a survey keeps apart; what comes after is added to the last one, so that a file of rubbish cannot fill the
/// memory.
const DAMAGES: usize = 4096;

/// What is known of a file from elsewhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bound {
    /// What the next file's header says of this one.
    pub successor: Option<Predecessor>,
    /// A sequence that is known to have been durable; 0 if none is. Does not count when there is a successor.
    pub attested: u64,
    /// The hash of its header, as it was registered.
    pub header_hash: Option<[u8; 32]>,
}

/// Evidence that the file is not the one that it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alteration {
    /// Its header is intact but not the one that was registered.
    HeaderHash,
    /// Its header names another file, cluster or node than its path.
    Path,
    /// Each of its frames is intact, but they are not those that the successor's header vouches for.
    Chain,
    /// It is known to have been durable beyond what its successor's header says counts.
    Successor,
}

impl Display for Alteration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderHash => "the header is not the one that was registered",
            Self::Path => "the header names another file, cluster or node than the path",
            Self::Chain => "the frames are not those that the next file's header vouches for",
            Self::Successor => "frames were durable beyond what the next file's header lets count",
        })
    }
}

/// What a file holds, judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileSurvey {
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: FileHeader,
    /// The hash of its header.
    pub header_hash: [u8; 32],
    /// Its length in bytes.
    pub bytes: u64,
    /// Intact frames that count.
    pub frames: u64,
    /// Entries among them.
    pub entries: u64,
    /// Records in these entries.
    pub records: u64,
    /// These records by the key that they are under, as its key frame says. Those whose key frames are both damaged are in none.
    pub records_of: BTreeMap<(WorkspaceId, AekId), u64>,
    /// When the earliest of these entries came.
    pub first_received: Option<UnixNanos>,
    /// The highest sequence known to have been durable.
    pub attested: u64,
    /// The sequence of the last intact frame that counts; 0 if there is none.
    pub last_intact: u64,
    /// Its valid-to: the last sequence that counts, intact or not.
    pub end: u64,
    /// The chain over the intact frames that count.
    pub chain: [u8; 32],
    /// What is damaged, in the file's order.
    pub damages: Vec<Damage>,
    /// Its torn tail, if it has no successor and does not end with a whole frame.
    pub torn: Option<Torn>,
    /// Evidence that it is another file than it should be.
    pub alterations: Vec<Alteration>,
}

impl FileSurvey {
    /// What the header of a next file says of this one.
    #[must_use]
    pub fn predecessor(&self) -> Predecessor {
        Predecessor { file: self.header.file, ordinal: self.header.ordinal, end: self.end, chain: self.chain }
    }

    /// What is to be reported, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let damages = self.damages.iter().map(ToString::to_string);
        self.alterations.iter().map(ToString::to_string).chain(damages)
    }

    /// Whether there is nothing to report. (A torn tail is not: it was never acknowledged.)
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.damages.is_empty() && self.alterations.is_empty()
    }
}

/// Makes durable what a process wrote to a file and may not have synced before it was killed.
///
/// Frames that only the page cache has can be read now and be gone after a power failure. So call this on the newest file
/// before its survey's end becomes the valid-to of a new file. It writes nothing.
///
/// # Errors
///
/// [`WalError::Io`] when the disk refuses.
pub fn settle(disk: &dyn Disk, path: &Path) -> Result<(), WalError> {
    let mut file = disk.open(path).map_err(WalError::io("open", path))?;
    file.sync().map_err(WalError::io("sync", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(folder).map_err(WalError::io("sync", folder))
}

/// Reads a whole file, checks every checksum in what counts, and judges it by the rules of the crate's documentation.
///
/// A file without a successor is read twice: first for what its heads attest.
///
/// # Errors
///
/// [`WalError::Header`] when neither copy of the header is intact, [`WalError::Io`] when the disk refuses.
pub fn survey_file(disk: &dyn Disk, path: &Path, bound: &Bound) -> Result<FileSurvey, WalError> {
    let (mut scanner, header, damaged_copies) = scan::open(disk, path)?;
    let header_hash = header.hash();
    let attested = match bound.successor {
        Some(successor) => successor.end,
        None => bound.attested.max(attested_by_heads(disk, path)?),
    };
    let mut survey = FileSurvey {
        path: path.to_owned(),
        header_hash,
        bytes: scanner.size(),
        frames: 0,
        entries: 0,
        records: 0,
        records_of: BTreeMap::new(),
        first_received: None,
        attested,
        last_intact: 0,
        end: attested,
        chain: header_hash,
        damages: (0..2).filter(|copy| damaged_copies[*copy]).map(Damage::header_copy).collect(),
        torn: None,
        alterations: Vec::new(),
        header,
    };
    survey.walk(&mut scanner, bound.successor.is_some())?;
    survey.compare(bound);
    Ok(survey)
}

fn attested_by_heads(disk: &dyn Disk, path: &Path) -> Result<u64, WalError> {
    let (mut scanner, ..) = scan::open(disk, path)?;
    while !matches!(scanner.step(Depth::Heads)?, Step::End) {}
    Ok(scanner.attested())
}

impl FileSurvey {
    fn walk(&mut self, scanner: &mut Scanner, has_successor: bool) -> Result<(), WalError> {
        let mut slots = HashMap::new();
        loop {
            if has_successor && scanner.last() >= self.end {
                break;
            }
            match scanner.step(Depth::From(0))? {
                Step::End => break,
                Step::Frame(frame) => self.count(scanner, &frame, &mut slots),
                Step::Bad(region) => {
                    if !self.bad(scanner, &region, has_successor) {
                        break;
                    }
                }
            }
        }
        self.bytes = scanner.size();
        let counted = self.last_intact.max(self.damages.iter().map(|damage| damage.last).max().unwrap_or(0));
        if counted < self.attested {
            self.damages.push(Damage::truncated(counted + 1, self.attested, self.bytes));
        }
        if !has_successor {
            self.end = self.end.max(self.last_intact);
        }
        Ok(())
    }

    /// Whether the walk goes on behind a bad region.
    fn bad(&mut self, scanner: &mut Scanner, region: &BadRegion, has_successor: bool) -> bool {
        if region.first <= self.attested {
            let damage = Damage::of(scanner, region, self.attested);
            self.report(damage);
            // A region that reaches beyond what is attested is damage up to there and the torn tail from there on.
            if region.last.is_some_and(|last| last <= self.attested) {
                return true;
            }
        }
        if !has_successor {
            let sequence = region.first.max(self.attested.saturating_add(1));
            let bytes = scanner.size() - region.offset;
            self.torn = Some(Torn { sequence, offset: region.offset, bytes });
        }
        false
    }

    fn report(&mut self, damage: Damage) {
        let full = self.damages.len() >= DAMAGES;
        match self.damages.last_mut() {
            Some(last) if full => {
                last.last = last.last.max(damage.last);
                last.bytes = (damage.offset + damage.bytes).saturating_sub(last.offset);
            }
            _ => self.damages.push(damage),
        }
    }

    /// Counts an intact frame; `slots` are the keys so far.
    fn count(&mut self, scanner: &Scanner, frame: &ScannedFrame, slots: &mut HashMap<u16, (WorkspaceId, AekId)>) {
        self.chain = scan::chain_after(Chain(self.chain), scanner, frame).0;
        self.last_intact = frame.head.sequence;
        self.frames += 1;
        let (_, metadata, _) = scanner.frame(frame);
        if frame.head.kind == FrameKind::Key
            && let Some(KeyMetadata { workspace, aek }) = KeyMetadata::decode(metadata)
        {
            slots.insert(frame.head.slot, (workspace, aek));
        }
        if frame.head.kind == FrameKind::Entry {
            self.entries += 1;
            if let Some(entry) = EntryMetadata::decode(metadata) {
                let records = entry.parts.iter().map(|part| u64::from(part.records)).sum::<u64>();
                self.records += records;
                if let Some(key) = slots.get(&frame.head.slot) {
                    *self.records_of.entry(*key).or_default() += records;
                }
                self.first_received = Some(self.first_received.map_or(entry.received, |at| at.min(entry.received)));
            }
        }
    }

    fn compare(&mut self, bound: &Bound) {
        if bound.header_hash.is_some_and(|hash| hash != self.header_hash) {
            self.alterations.push(Alteration::HeaderHash);
        }
        if !path_fits(&self.path, &self.header) {
            self.alterations.push(Alteration::Path);
        }
        let Some(successor) = bound.successor else { return };
        let frames_intact = self.damages.iter().all(|damage| damage.cause == DamageCause::HeaderCopy);
        if successor.file != self.header.file || frames_intact && successor.chain != self.chain {
            self.alterations.push(Alteration::Chain);
        }
        if bound.attested > successor.end {
            self.alterations.push(Alteration::Successor);
        }
    }
}

/// Whether those parts of the path that are ids, `<node>/<cluster>/<file>.wal`, are the header's.
fn path_fits(path: &Path, header: &FileHeader) -> bool {
    let text = |path: Option<&Path>| path.and_then(Path::file_stem).and_then(|name| name.to_str()).map(str::to_owned);
    let mut ancestors = path.ancestors();
    let (file, cluster, node) = (text(ancestors.next()), text(ancestors.next()), text(ancestors.next()));
    file.and_then(|name| name.parse::<WalFileId>().ok()).is_none_or(|id| id == header.file)
        && cluster.and_then(|name| name.parse::<ClusterId>().ok()).is_none_or(|id| id == header.cluster)
        && node.and_then(|name| name.parse::<NodeId>().ok()).is_none_or(|id| id == header.node)
}
