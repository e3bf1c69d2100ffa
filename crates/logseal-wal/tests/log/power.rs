//! Power failures at random moments: what was acknowledged is there, nothing is made up, no nonce is used twice.
//!
//! Each seed is a history of several process lives over one simulated disk, with I/O errors, kills and power failures.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use logseal_testkit::disk::{Operation, Seeded};
use logseal_wal::format::{FRAMES_OFFSET, FileHeader, FrameHead, FrameKind, HEAD_BYTES};
use logseal_wal::{Damage, DamageCause, Disk, FolderProblem, FolderSurvey, Position, Writer, settle};

use crate::fixture::{Log, entry, path_of, read, request};

const SEEDS: u64 = 600;

/// What a history did.
#[derive(Default)]
struct History {
    log: Log,
    /// All positions ever given out and what was appended there.
    appended: HashMap<Position, u64>,
    /// Those whose sync returned `Ok`, in order.
    acknowledged: Vec<Position>,
    next: u64,
}

impl History {
    /// One process life, until it ends by itself or by an error that the seed sent.
    fn live(&mut self, random: &mut Seeded, writer: &mut Writer) {
        let mut group: Vec<(Position, u64)> = Vec::new();
        for _step in 0..random.below(60) {
            if random.one_in(12) {
                let operations =
                    [Operation::Write, Operation::Sync, Operation::Create, Operation::SyncDir, Operation::CreateDir];
                let operation = operations[random.below(operations.len())];
                self.log.disk.fail(operation, random.next_u64() % 4, ErrorKind::Other);
            }
            if random.one_in(20) {
                self.log.registry.refuse.store(random.below(3) as i64, Ordering::Relaxed);
            }
            if random.one_in(25) {
                let room = random.one_in(2).then(|| random.below(3_000) as u64);
                self.log.disk.set_available(room);
            }
            match random.below(10) {
                0..6 => {
                    let n = self.next;
                    self.next += 1;
                    if let Ok(position) = writer.append(&entry(n)) {
                        assert_eq!(self.appended.insert(position, n), None, "a position is given once");
                        group.push((position, n));
                    } else {
                        group.clear();
                    }
                }
                6..8 => self.acknowledge(writer.sync().is_ok(), &mut group),
                8 => self.acknowledge(writer.attest().is_ok(), &mut group),
                _ => self.acknowledge(writer.close().is_ok(), &mut group),
            }
        }
    }

    fn acknowledge(&mut self, durable: bool, group: &mut Vec<(Position, u64)>) {
        if durable {
            self.acknowledged.extend(group.iter().map(|(position, _)| *position));
        }
        group.clear();
    }

    /// What a start does: settles, surveys, reads; and what it must find.
    fn recover(&mut self, context: &str) -> FolderSurvey {
        if let Some(file) = self.log.survey().files.last() {
            settle(&self.log.disk, &file.path).unwrap();
        }
        let survey = self.log.survey();
        for problem in &survey.problems {
            // A file whose header was never durable was never registered: nothing in it was acknowledged.
            let FolderProblem::Unreadable { path, .. } = problem else { panic!("{context}: {problem:?}") };
            let known = self.log.registry.known.lock().unwrap();
            assert!(known.keys().all(|file| path_of(*file) != *path), "{context}: {problem:?}");
        }
        // After a failed sync and a kill, frames may be there to be read that the disk does not have.
        let sync_failed = self.log.disk.failures(Operation::Sync) > 0;
        let mut order = Vec::new();
        for file in &survey.files {
            assert!(file.alterations.is_empty(), "{context}: {:?}", file.alterations);
            assert!(sync_failed || file.damages.is_empty(), "{context}: {:?}", file.damages);
            let read = read(&self.log.disk, &file.path, file.end);
            for (position, bytes) in read.entries {
                let n = self
                    .appended
                    .get(&position)
                    .unwrap_or_else(|| panic!("{context}: {position:?} was never appended"));
                assert_eq!(bytes, request(*n), "{context}: {position:?}");
                order.push(position);
            }
            for damage in &file.damages {
                self.check_damage(file.header.file, damage, context);
            }
        }
        let rank: HashMap<_, _> = order.iter().zip(0..).map(|(position, rank)| (*position, rank)).collect();
        let ranks: Vec<usize> = self
            .acknowledged
            .iter()
            .map(|position| *rank.get(position).unwrap_or_else(|| panic!("{context}: {position:?} was acknowledged")))
            .collect();
        assert!(ranks.is_sorted(), "{context}: in order");
        survey
    }

    /// Damage may only be in what was never acknowledged.
    fn check_damage(&self, file: logseal_core::WalFileId, damage: &Damage, context: &str) {
        assert_ne!(damage.cause, DamageCause::HeaderCopy, "{context}");
        let lost =
            |position: &&Position| position.file == file && (damage.first..=damage.last).contains(&position.sequence);
        assert_eq!(self.acknowledged.iter().find(lost), None, "{context}: {damage:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_every_history() {
    let (mut lives, mut acknowledged, mut sealed) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Seeded::new(seed);
        let mut history = History::default();
        for life in 0..=random.below(5) {
            let context = format!("seed {seed}, life {life}");
            let survey = history.recover(&context);
            let file_bytes = [2_000, 20_000, 1 << 30][random.below(3)];
            let mut writer = history.log.writer(survey.predecessor(), file_bytes);
            history.live(&mut random, &mut writer);
            history.log.disk.heal();
            history.log.disk.set_available(None);
            history.log.registry.refuse.store(0, Ordering::Relaxed);
            if random.one_in(3) {
                history.log.disk.kill();
            } else {
                history.log.disk.crash(random.next_u64());
            }
            lives += 1;
        }
        history.recover(&format!("seed {seed}, end"));
        acknowledged += history.acknowledged.len();
        sealed += nonces_are_unique(&history.log, seed);
    }
    // The histories must not be empty ones.
    assert!(lives > 2 * SEEDS && acknowledged > 10_000 && sealed > 20_000, "{lives} {acknowledged} {sealed}");
}

/// Over all bytes ever handed to the disk, also those that it refused or lost: a pair of key and nonce seals one text.
fn nonces_are_unique(log: &Log, seed: u64) -> usize {
    let mut sealed: HashMap<([u8; 32], [u8; 4], u64), Vec<u8>> = HashMap::new();
    let mut commitments_of_files = HashMap::new();
    for (path, bytes) in log.disk.history() {
        let Some(copy) = bytes.first_chunk() else { continue };
        let header = FileHeader::decode(copy).unwrap();
        let mut rest = bytes.get(FRAMES_OFFSET as usize..).unwrap_or_default();
        let mut keys: HashMap<u16, [u8; 32]> = HashMap::new();
        while let Some(head) = rest.first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::decode(head, header.marker).unwrap();
            let (metadata, body) = rest[HEAD_BYTES..].split_at(head.metadata_bytes as usize);
            let (body, next) = body.split_at(head.body_bytes as usize);
            match head.kind {
                FrameKind::Key => {
                    let commitment = *body.last_chunk().unwrap();
                    assert_eq!(*keys.entry(head.slot).or_insert(commitment), commitment);
                    let owner = commitments_of_files.entry(commitment).or_insert(path.clone());
                    assert_eq!(*owner, path, "seed {seed}: a key is used in one file only");
                }
                FrameKind::Entry => {
                    let nonce = (keys[&head.slot], header.nonce_field, head.sequence);
                    let text = [metadata, body].concat();
                    let before = sealed.insert(nonce, text.clone());
                    assert!(
                        before.is_none_or(|before| before == text),
                        "seed {seed}: {path:?} frame {}",
                        head.sequence
                    );
                }
                FrameKind::Attestation => {}
            }
            rest = next;
        }
    }
    sealed.len()
}

/// The rule in its smallest form, at every byte of an unsynced group, for tails that are cut and for tails that are zeroed.
#[test]
fn a_cut_or_zeroed_unsynced_tail_never_harms_what_was_synced() {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    let mut positions = Vec::new();
    for n in 0..4 {
        positions.push((writer.append(&entry(n)).unwrap(), request(n)));
    }
    writer.sync().unwrap();
    let path = path_of(writer.file().unwrap());
    let durable = log.disk.bytes(&path).unwrap().len();
    for n in 4..8 {
        writer.append(&entry(n)).unwrap();
    }
    writer.sync().unwrap();
    let whole = log.disk.bytes(&path).unwrap();
    for length in durable..whole.len() {
        for zeroed in [false, true] {
            let mut bytes = whole.clone();
            if zeroed {
                bytes[length..].fill(0);
            } else {
                bytes.truncate(length);
            }
            log.disk.put(&path, bytes);
            let survey = log.survey().files.remove(0);
            assert!(survey.is_intact(), "{length}");
            let given = read(&log.disk, &path, survey.end).entries;
            assert_eq!(given[..4], positions, "{length}");
            // The next life does not touch the tail: it is void, not rewritten.
            let mut next = log.writer(Some(survey.predecessor()), 1 << 30);
            let position = next.append(&entry(9)).unwrap();
            assert_ne!(position.file, positions[0].0.file);
            log.disk.remove(&path_of(position.file)).unwrap();
        }
    }
}
