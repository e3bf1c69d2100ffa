//! `logseal wal quarantine`: what was set aside, as far as it shows without any key.

use std::io;
use std::path::{Path, PathBuf};

use arrow::temporal_conversions::timestamp_ns_to_datetime;
use logseal_core::{UnixNanos, WalFileId};
use logseal_wal::{Damage, DamageCause, Disk as _, FileReader, Item, SystemDisk, WalError};
use serde::Serialize;

use crate::commands::{print_json, print_table};
use crate::error::{Chain, CommandError};

/// What stands in the table for what nobody knows.
const UNKNOWN: &str = "-";

/// A file in quarantine, as shown.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct SetAside {
    path: PathBuf,
    /// The file of the log that it was copied from.
    file: Option<String>,
    cluster: Option<String>,
    /// The first and the last frame, as the copy's name says; without frames the last one is below the first.
    first: Option<u64>,
    last: Option<u64>,
    frames: u64,
    /// Records of these frames, as far as what tells of them is intact.
    records: u64,
    /// When the first of the intact frames was received.
    received: Option<i64>,
    bytes: u64,
    /// Why it was set aside, if the copy shows it.
    reason: Option<String>,
}

/// Lists `data_dir/quarantine`, oldest file of the log first.
pub(super) fn list(data_dir: &Path, json: bool) -> Result<(), CommandError> {
    let exists = data_dir.try_exists().map_err(CommandError::io(format!("look for `{}`", data_dir.display())))?;
    if !exists {
        return Err(CommandError::Refused(format!("there is no data directory `{}`", data_dir.display())));
    }
    let folder = data_dir.join("quarantine");
    let paths = match SystemDisk.list(&folder) {
        // It is made when something goes there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        paths => paths.map_err(CommandError::io(format!("read `{}`", folder.display())))?,
    };
    let is_copy = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    let mut shown: Vec<_> = paths.into_iter().filter(is_copy).filter_map(show).collect();
    // The ids of the log's files sort by time.
    shown.sort_by(|left, right| (&left.file, left.first, &left.path).cmp(&(&right.file, right.first, &right.path)));
    if json {
        return print_json(&shown);
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|aside| {
            let frames = match (aside.first, aside.last) {
                (Some(first), Some(last)) if first < last => format!("{first}..{last}"),
                (Some(first), Some(last)) if first == last => first.to_string(),
                _ => UNKNOWN.to_owned(),
            };
            let received = aside.received.map(UnixNanos).and_then(in_words);
            vec![
                aside.path.display().to_string(),
                aside.cluster.unwrap_or_else(|| UNKNOWN.to_owned()),
                frames,
                aside.records.to_string(),
                received.unwrap_or_else(|| UNKNOWN.to_owned()),
                aside.bytes.to_string(),
                aside.reason.unwrap_or_else(|| "intact; the log of its time says why".to_owned()),
            ]
        })
        .collect();
    print_table(&["FILE", "CLUSTER", "FRAMES", "RECORDS", "RECEIVED", "BYTES", "REASON"], &rows)
}

/// RFC 3339 in UTC.
fn in_words(time: UnixNanos) -> Option<String> {
    Some(timestamp_ns_to_datetime(time.0)?.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// What the copy at `path` shows; `None` when it went away meanwhile, because it is being made anew.
fn show(path: PathBuf) -> Option<SetAside> {
    let named = path.file_name().and_then(|name| parse(name.to_str()?));
    let mut aside = SetAside { path, ..SetAside::default() };
    if let Some((file, first, last)) = named {
        (aside.file, aside.first, aside.last) = (Some(file.to_string()), Some(first), Some(last));
        aside.frames = last.saturating_add(1).saturating_sub(first);
    }
    match aside.read() {
        Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            aside.reason = Some(format!("not known, the copy cannot be read: {}", Chain(&error)));
            Some(aside)
        }
        Ok(()) => Some(aside),
    }
}

/// The file of the log and the first and last frame in the name of a copy, `<file>.<first>-<last>.wal`.
fn parse(name: &str) -> Option<(WalFileId, u64, u64)> {
    let (file, frames) = name.strip_suffix(".wal")?.split_once('.')?;
    let (first, last) = frames.split_once('-')?;
    Some((file.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
}

impl SetAside {
    fn read(&mut self) -> Result<(), WalError> {
        let mut reader = FileReader::open(&SystemDisk, &self.path)?;
        self.bytes = reader.file_bytes();
        self.cluster = Some(reader.header().cluster.to_string());
        let (Some(first), Some(last)) = (self.first, self.last) else {
            self.reason = Some("not known, the file is not named as a copy is".to_owned());
            return Ok(());
        };
        if last < first {
            self.reason = Some("bytes that belong to no frame".to_owned());
            return Ok(());
        }
        reader.until(last);
        let mut damaged: Option<Damage> = None;
        let mut entries = 0;
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Entry(entry) if entry.sequence >= first => {
                    entries += 1;
                    self.records += entry.parts.iter().map(|part| u64::from(part.records)).sum::<u64>();
                    let earliest = self.received.map_or(entry.received.0, |known| known.min(entry.received.0));
                    self.received = Some(earliest);
                }
                // What lies between the keys and the frames is not in the copy, and is missing from nothing.
                Item::Damage(damage) if damage.bytes > 0 && damage.last >= first => {
                    self.records += damage.parts.iter().map(|part| u64::from(part.records)).sum::<u64>();
                    damaged.get_or_insert(damage);
                }
                _ => {}
            }
        }
        self.reason = match damaged {
            Some(damage) => Some(cause(damage.cause).to_owned()),
            None if entries == 0 => Some("not known, the copy is not complete".to_owned()),
            None => None,
        };
        Ok(())
    }
}

fn cause(cause: DamageCause) -> &'static str {
    match cause {
        DamageCause::HeaderCopy => "damaged: a copy of the file's header",
        DamageCause::Head => "damaged: no intact head",
        DamageCause::Metadata => "damaged: its metadata",
        DamageCause::Body => "damaged: its body",
        // An evidence that ends early and a copy that a crash ended look the same.
        DamageCause::Cut => "damaged or half copied: it is cut off",
        DamageCause::Gap | DamageCause::Truncated => "damaged: frames are missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_copies_are_taken_for_such() {
        let id = "0194d5a0-0000-7000-8000-000000000001";
        let file = id.parse().unwrap();
        assert_eq!(parse(&format!("{id}.7-9.wal")), Some((file, 7, 9)));
        assert_eq!(parse(&format!("{id}.{}-0.wal", u64::MAX)), Some((file, u64::MAX, 0)));
        for bad in ["", ".wal", "7-9.wal", &format!("{id}.wal"), &format!("{id}.7.wal"), &format!("{id}.7-9")] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for bad in ["-7-9", "7-9-11", "7-x", "+-1", "18446744073709551616-1"] {
            assert_eq!(parse(&format!("{id}.{bad}.wal")), None, "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(in_words(UnixNanos(1_700_000_000_123_456_789)).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert!(in_words(UnixNanos(i64::MIN)).is_some() && in_words(UnixNanos(i64::MAX)).is_some());
    }
}
