//! Sets damaged or undecodable parts of a file aside, still sealed, before the file is deleted.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::format::FrameKind;
use crate::scan::{self, Depth, Scanner, Step};
use crate::{Damage, Disk, WalError};

/// Most key frames that a writer puts into a file: two for each slot.
const KEY_FRAMES: usize = 2 * u16::MAX as usize;

/// What to set aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The intact frames with these sequences.
    Frames {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The bytes of a damage.
    Damage(Damage),
}

impl Evidence {
    fn sequences(&self) -> (u64, u64) {
        match self {
            Self::Frames { first, last } => (*first, *last),
            Self::Damage(damage) => (damage.first, damage.last),
        }
    }
}

/// Copies evidence from `source` to `folder`, as `<file uuid>.<first>-<last>.wal`, durable when this returns; its path.
///
/// The copy is itself a file of the log: both header copies, the key frames of the slots involved (of all slots if it is not
/// known which), then the frames or the damaged bytes as they are. A reader of it reports the frames between as missing.
/// Nothing is opened: whoever has the AEK later can. Doing it again gives the same file.
///
/// # Errors
///
/// [`WalError::NoEvidence`] when none of it is in `source`; [`WalError::Header`]; [`WalError::Io`].
pub fn quarantine(disk: &dyn Disk, source: &Path, evidence: &Evidence, folder: &Path) -> Result<PathBuf, WalError> {
    let (mut scanner, header, _) = scan::open(disk, source)?;
    let plan = Plan::make(&mut scanner, evidence)?;
    let (first, last) = evidence.sequences();
    let path = folder.join(format!("{}.{first}-{last}.wal", header.file));
    disk.create_dir_all(folder).map_err(WalError::io("create", folder))?;
    let mut file = match disk.create_new(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Perhaps half of it, from an earlier try. The source still has all.
            disk.remove(&path).map_err(WalError::io("remove", path.as_path()))?;
            disk.create_new(&path)
        }
        result => result,
    }
    .map_err(WalError::io("create", path.as_path()))?;
    let copy = header.encode();
    let mut write = |bytes: &[u8]| file.append(bytes).map_err(WalError::io("write", path.as_path()));
    write(&[copy, copy].concat())?;
    for (offset, bytes) in plan.ranges {
        scanner.copy(offset, bytes, &mut write)?;
    }
    file.sync().map_err(WalError::io("sync", path.as_path()))?;
    disk.sync_dir(folder).map_err(WalError::io("sync", folder))?;
    Ok(path)
}

/// The byte ranges to copy, in order.
struct Plan {
    ranges: Vec<(u64, u64)>,
}

impl Plan {
    fn make(scanner: &mut Scanner, evidence: &Evidence) -> Result<Self, WalError> {
        let path = scanner.path().to_owned();
        let (first, last) = evidence.sequences();
        let mut slots = HashSet::new();
        let mut evidence_ranges = Vec::new();
        let mut keys = Vec::new();
        loop {
            match scanner.step(Depth::Heads)? {
                Step::Frame(frame) => {
                    let head = frame.head;
                    let bytes = frame.bytes();
                    let wanted = (first..=last).contains(&head.sequence);
                    if matches!(evidence, Evidence::Frames { .. }) && wanted {
                        slots.insert(head.slot);
                        push_range(&mut evidence_ranges, frame.offset, bytes);
                    } else if head.kind == FrameKind::Key && keys.len() < KEY_FRAMES {
                        keys.push((head.slot, frame.offset, bytes));
                    }
                    if head.sequence >= last && matches!(evidence, Evidence::Frames { .. }) {
                        break;
                    }
                }
                Step::Bad(_) => {}
                Step::End => break,
            }
        }
        if let Evidence::Damage(damage) = evidence {
            slots.extend(damage.slot);
            let end = damage.offset.checked_add(damage.bytes);
            if damage.bytes > 0 && end.is_some_and(|end| end <= scanner.size()) {
                push_range(&mut evidence_ranges, damage.offset, damage.bytes);
            }
            // Keys of later frames open nothing in the damaged bytes, and the bytes must come last.
            keys.retain(|(_, offset, _)| *offset < damage.offset);
        }
        if evidence_ranges.is_empty() {
            return Err(WalError::NoEvidence { path });
        }
        let mut ranges = Vec::new();
        for (slot, offset, bytes) in keys {
            if slots.is_empty() || slots.contains(&slot) {
                push_range(&mut ranges, offset, bytes);
            }
        }
        ranges.extend(evidence_ranges);
        Ok(Self { ranges })
    }
}

/// Adds a range, joined to the one before if they touch.
fn push_range(ranges: &mut Vec<(u64, u64)>, offset: u64, bytes: u64) {
    match ranges.last_mut() {
        Some((start, length)) if *start + *length == offset => *length += bytes,
        _ => ranges.push((offset, bytes)),
    }
}
