//! A shipper's own durable memory of what it sent and what was acknowledged.
//!
//! One text file per shipper. `sent REQUEST ATTEMPT RECORDS` is written before a request is sent and may be lost;
//! `acked REQUEST ATTEMPT HASH...` is synced after the server's OK and before the next request is sent, with the hash
//! of each record.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::record::{AttemptId, RecordHash};

/// The ledger of one shipper, open for writing.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

/// What the ledger says about one sending of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// Which one.
    pub id: AttemptId,
    /// How many records it had.
    pub records: u32,
    /// The hash of each record in order, when the server acknowledged it.
    pub acknowledged: Option<Vec<RecordHash>>,
}

impl Ledger {
    /// Makes the empty ledger of `shipper` in `folder`, which exists.
    ///
    /// # Errors
    ///
    /// When there is one already, or the folder cannot be written.
    pub fn create(folder: &Path, shipper: u32) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path(folder, shipper))?;
        File::open(folder)?.sync_all()?;
        Ok(Self { file })
    }

    /// Notes that a request of `records` records is about to be sent.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn sent(&mut self, id: AttemptId, records: u32) -> io::Result<()> {
        self.file.write_all(format!("sent {} {} {records}\n", id.request, id.attempt).as_bytes())
    }

    /// Notes that the server acknowledged; durable when this returns.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or synced.
    pub fn acknowledged(&mut self, id: AttemptId, hashes: &[RecordHash]) -> io::Result<()> {
        let mut line = format!("acked {} {}", id.request, id.attempt);
        for hash in hashes {
            line.push(' ');
            HEXLOWER.encode_append(hash, &mut line);
        }
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()
    }

    /// Reads the ledger of `shipper` in `folder`, in the order of sending.
    ///
    /// An unfinished last line is left out: the shipper died in it, before it relied on it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is none of ours.
    pub fn read(folder: &Path, shipper: u32) -> io::Result<Vec<Attempt>> {
        let text = std::fs::read_to_string(path(folder, shipper))?;
        let finished = text.rsplit_once('\n').map_or("", |(finished, _)| finished);
        let mut attempts = Vec::new();
        for (number, line) in finished.lines().enumerate() {
            note(&mut attempts, shipper, line).ok_or_else(|| {
                let start: String = line.chars().take(80).collect();
                io::Error::new(io::ErrorKind::InvalidData, format!("ledger {shipper}, line {number}: `{start}`"))
            })?;
        }
        Ok(attempts)
    }
}

fn path(folder: &Path, shipper: u32) -> PathBuf {
    folder.join(format!("shipper-{shipper}.ledger"))
}

/// Adds what `line` says; nothing when it makes no sense after the lines before.
fn note(attempts: &mut Vec<Attempt>, shipper: u32, line: &str) -> Option<()> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let id = AttemptId { shipper, request: words.next()?.parse().ok()?, attempt: words.next()?.parse().ok()? };
    match kind {
        "sent" => attempts.push(Attempt { id, records: words.next()?.parse().ok()?, acknowledged: None }),
        "acked" => {
            let decode = |word: &str| HEXLOWER.decode(word.as_bytes()).ok()?.try_into().ok();
            let hashes: Vec<RecordHash> = words.by_ref().map(decode).collect::<Option<_>>()?;
            let attempt = attempts.last_mut().filter(|last| last.id == id && last.acknowledged.is_none())?;
            attempt.acknowledged = Some(hashes).filter(|hashes| hashes.len() == attempt.records as usize);
            attempt.acknowledged.as_ref()?;
        }
        _ => return None,
    }
    words.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::records;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("logseal-ledger-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_noted_is_read_back_and_a_torn_line_is_not() {
        let folder = folder("round-trip");
        let mut ledger = Ledger::create(&folder, 4).unwrap();
        let first = AttemptId { shipper: 4, request: 0, attempt: 0 };
        let second = AttemptId { attempt: 1, ..first };
        let hashes: Vec<_> = records(1, second, 3).iter().map(crate::record::Record::hash).collect();
        ledger.sent(first, 3).unwrap();
        ledger.sent(second, 3).unwrap();
        ledger.acknowledged(second, &hashes).unwrap();
        ledger.file.write_all(b"sent 1 0 5").unwrap();
        let expected = vec![
            Attempt { id: first, records: 3, acknowledged: None },
            Attempt { id: second, records: 3, acknowledged: Some(hashes) },
        ];
        assert_eq!(Ledger::read(&folder, 4).unwrap(), expected);
        assert!(Ledger::create(&folder, 4).is_err(), "a ledger is never begun anew");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error() {
        let folder = folder("nonsense");
        let acknowledged = format!("sent 0 0 2\nacked 0 0 {}\n", "00".repeat(32));
        for text in
            ["nonsense\n", "sent 0 0\n", "sent 0 0 1 1\n", "acked 0 0\n", "sent 0 0 1\nacked 0 1 00\n", &acknowledged]
        {
            std::fs::write(path(&folder, 0), text).unwrap();
            assert!(Ledger::read(&folder, 0).is_err(), "{text}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
