//! Files of a cluster together: missing, swapped, older, truncated and foreign ones are noticed.

use std::path::Path;

use logseal_core::ClusterId;
use logseal_wal::{
    Alteration, Bound, DamageCause, Disk, FileSurvey, FolderProblem, FolderSurvey, survey_file, survey_folder,
};

use crate::fixture::{Log, entry, folder, folder_of, path_of, read};

/// A folder of four files of eight entries each, and its survey.
fn four_files() -> (Log, FolderSurvey) {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    for _file in 0..4 {
        for n in 0..8 {
            writer.append(&entry(n)).unwrap();
        }
        writer.close().unwrap();
    }
    let survey = log.survey();
    assert!(survey.problems.is_empty() && survey.files.iter().all(FileSurvey::is_intact));
    assert_eq!(survey.files.len(), 4);
    (log, survey)
}

fn replace(log: &Log, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = log.disk.bytes(path).unwrap();
    change(&mut bytes);
    log.disk.put(path, bytes);
}

#[test]
fn a_missing_file_is_noticed_by_the_one_after_it() {
    for missing in 0..4 {
        let (log, before) = four_files();
        log.disk.remove(&before.files[missing].path).unwrap();
        let after = log.survey();
        assert_eq!(after.files.len(), 3);
        // Nothing follows the newest: that it existed only the catalog knows.
        let named: Vec<_> = after
            .problems
            .iter()
            .map(|problem| match problem {
                FolderProblem::MissingPredecessor { predecessor, .. } => *predecessor,
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = if missing == 3 { vec![] } else { vec![before.files[missing].predecessor()] };
        assert_eq!(named, expected);
        assert!(after.files.iter().all(FileSurvey::is_intact), "the others are none the worse");
    }
}

/// Power loss cannot shorten a file below what is durable, but a copy or a broken disk can.
#[test]
fn a_file_cut_below_its_valid_to_is_truncated_whatever_is_left() {
    let (log, before) = four_files();
    let file = &before.files[1];
    let whole = log.disk.bytes(&file.path).unwrap();
    for length in 1024..whole.len() {
        log.disk.put(&file.path, whole[..length].to_vec());
        let bound = Bound { successor: before.files[2].header.predecessor, ..Bound::default() };
        let survey = survey_file(&log.disk, &file.path, &bound).unwrap();
        assert_eq!(survey.end, file.end, "{length}");
        let lost: u64 = survey.damages.iter().map(logseal_wal::Damage::frames).sum();
        assert_eq!(survey.frames + lost, file.end, "{length}: {:?}", survey.damages);
        let last = survey.damages.last().unwrap();
        assert_eq!((last.first, last.last), (survey.last_intact + 1, file.end), "{length}");
        assert!(survey.torn.is_none(), "{length}: it was durable");
        let given = read(&log.disk, &file.path, survey.end);
        assert_eq!((given.entries.len() as u64, given.damages), (survey.entries, survey.damages), "{length}");
    }
}

/// A copy of the newest file from before its last entries: what the catalog attests shows it.
#[test]
fn an_older_copy_of_the_newest_file_is_noticed_by_what_the_catalog_attests() {
    let log = Log::default();
    let mut writer = log.writer(None, 1 << 30);
    writer.append(&entry(0)).unwrap();
    writer.sync().unwrap();
    writer.append(&entry(3)).unwrap();
    writer.sync().unwrap();
    let path = path_of(writer.file().unwrap());
    let older = log.disk.bytes(&path).unwrap();
    writer.append(&entry(6)).unwrap();
    writer.sync().unwrap();
    log.disk.put(&path, older);
    let survey = |attested| {
        let file = writer.file().unwrap();
        survey_folder(&log.disk, &folder(), &|id| log.known(id, if id == file { attested } else { 0 })).unwrap()
    };
    assert!(survey(4).files[0].is_intact());
    let older = survey(5);
    let damage = &older.files[0].damages[0];
    assert_eq!((damage.cause, damage.first, damage.last), (DamageCause::Truncated, 5, 5));
    assert_eq!(older.files[0].end, 5, "what is lost stays visible in the next file's header");
}

#[test]
fn files_of_two_clusters_that_changed_places_are_noticed() {
    let log = Log::default();
    let other = ClusterId::from_bytes([0xC2; 16]);
    let mut paths = Vec::new();
    for cluster in [crate::fixture::CLUSTER, other] {
        let mut writer = log.writer_of(cluster, None, 1 << 30);
        writer.append(&entry(0)).unwrap();
        paths.push(folder_of(cluster).join(format!("{}.wal", writer.file().unwrap())));
        writer.close().unwrap();
    }
    let bytes = [log.disk.bytes(&paths[0]).unwrap(), log.disk.bytes(&paths[1]).unwrap()];
    // Under the other's name.
    log.disk.put(&paths[0], bytes[1].clone());
    let survey = survey_file(&log.disk, &paths[0], &Bound::default()).unwrap();
    assert_eq!(survey.alterations, [Alteration::Path]);
    // Under its own name in the other's folder.
    let moved = folder_of(other).join(paths[0].file_name().unwrap());
    log.disk.put(&moved, bytes[0].clone());
    assert_eq!(survey_file(&log.disk, &moved, &Bound::default()).unwrap().alterations, [Alteration::Path]);
    // The registered hash tells it too.
    log.disk.put(&paths[0], bytes[0].clone());
    let hash = survey_file(&log.disk, &paths[1], &Bound::default()).unwrap().header_hash;
    let bound = Bound { header_hash: Some(hash), ..Bound::default() };
    assert_eq!(survey_file(&log.disk, &paths[0], &bound).unwrap().alterations, [Alteration::HeaderHash]);
    // A foreign file is no predecessor for new ones.
    log.disk.remove(&paths[0]).unwrap();
    log.disk.remove(&moved).unwrap();
    log.disk.put(&folder().join(paths[1].file_name().unwrap()), bytes[1].clone());
    let survey = log.survey();
    assert_eq!((survey.files.len(), survey.predecessor()), (1, None));
}

/// A file rewritten with other frames under its own header: each frame intact, the chain is not the successor's.
#[test]
fn a_rewritten_file_does_not_have_its_successor_s_chain() {
    let (log, before) = four_files();
    let file = &before.files[1];
    let bound = Bound { successor: before.files[2].header.predecessor, ..Bound::default() };
    // The last frame is the attestation: made again with another `durable`, checksums right.
    replace(&log, &file.path, |bytes| {
        let at = bytes.len() - logseal_wal::format::HEAD_BYTES;
        let head = bytes[at..].first_chunk().unwrap();
        let mut head = logseal_wal::format::FrameHead::decode(head, file.header.marker).unwrap();
        head.durable -= 1;
        bytes.truncate(at);
        bytes.extend_from_slice(&head.encode(file.header.marker, &[], &[]));
    });
    let survey = survey_file(&log.disk, &file.path, &bound).unwrap();
    assert_eq!((survey.damages.len(), survey.alterations), (0, vec![Alteration::Chain]));
}

/// What lies behind the valid-to of a successor's header is void, intact or not: it was refused to its senders.
#[test]
fn frames_behind_the_valid_to_are_void() {
    let (log, before) = four_files();
    let whole = &before.files[3];
    for end in 0..whole.end {
        let bytes = log.disk.bytes(&whole.path).unwrap();
        // Where frame `end` ends, and the chain there, from a file that was cut there.
        let cut = (1024..=bytes.len())
            .find_map(|length| {
                log.disk.put(&whole.path, bytes[..length].to_vec());
                let survey = survey_file(&log.disk, &whole.path, &Bound::default()).unwrap();
                (survey.last_intact == end && survey.torn.is_none()).then_some(survey)
            })
            .unwrap();
        log.disk.put(&whole.path, bytes.clone());
        let successor = Some(cut.predecessor());
        assert_eq!(cut.end, end);
        let survey = survey_file(&log.disk, &whole.path, &Bound { successor, ..Bound::default() }).unwrap();
        assert!(survey.is_intact(), "{end}: {survey:?}");
        assert_eq!((survey.end, survey.frames, survey.entries), (end, end, cut.entries));
        let mut garbled = bytes.clone();
        garbled[cut.bytes as usize..].fill(0x55);
        log.disk.put(&whole.path, garbled);
        assert_eq!(survey_file(&log.disk, &whole.path, &Bound { successor, ..Bound::default() }).unwrap().frames, end);
        log.disk.put(&whole.path, bytes);
        // But frames that the catalog knows to have been durable cannot be void.
        let bound = Bound { successor, attested: end + 1, header_hash: None };
        let survey = survey_file(&log.disk, &whole.path, &bound).unwrap();
        assert_eq!(survey.alterations, [Alteration::Successor]);
    }
}

#[test]
fn what_is_no_log_file_is_a_problem_of_its_own() {
    let (log, before) = four_files();
    replace(&log, &before.files[2].path, |bytes| bytes[..1024].fill(0));
    log.disk.put(&folder().join("notes.txt"), b"not a log file".to_vec());
    log.disk.put(&folder().join("empty.wal"), Vec::new());
    let after = log.survey();
    assert_eq!(after.files.len(), 3);
    let unreadable: Vec<_> = after
        .problems
        .iter()
        .filter_map(|problem| match problem {
            FolderProblem::Unreadable { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(unreadable.len(), 2);
    assert!(unreadable.contains(&before.files[2].path) && unreadable.contains(&folder().join("empty.wal")));
    assert!(after.problems.iter().any(|problem| matches!(problem, FolderProblem::MissingPredecessor { .. })));
    let nothing =
        survey_folder(&log.disk, &folder_of(ClusterId::from_bytes([9; 16])), &|_| Default::default()).unwrap();
    assert!(nothing.files.is_empty() && nothing.problems.is_empty(), "a folder that does not exist has no files");
}

/// A life that created a file and died before it registered it leaves two files with one predecessor.
#[test]
fn two_files_with_one_predecessor_are_a_fork_only_if_they_disagree() {
    let (log, before) = four_files();
    let predecessor = before.predecessor();
    for _ in 0..2 {
        let mut writer = log.writer(predecessor, 1 << 30);
        writer.append(&entry(0)).unwrap();
        writer.close().unwrap();
    }
    assert!(log.survey().problems.is_empty());
    // One that says less of the predecessor does not make void what the others count.
    let less = predecessor.map(|predecessor| logseal_wal::Predecessor { end: 3, chain: [0; 32], ..predecessor });
    let mut writer = log.writer(less, 1 << 30);
    writer.append(&entry(0)).unwrap();
    writer.close().unwrap();
    let survey = log.survey();
    assert!(
        matches!(survey.problems[..], [FolderProblem::Fork { predecessor }] if predecessor == before.files[3].header.file)
    );
    assert!(survey.files.iter().all(FileSurvey::is_intact));
    assert_eq!(survey.files[3].end, before.files[3].end);
}
