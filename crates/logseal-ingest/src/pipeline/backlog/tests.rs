//! The backlog's rules, without a log, a store or a clock.

mod clusters;

use std::time::Duration;

use logseal_core::AekId;
use logseal_crypto::{Aek, Key256, Lease};
use logseal_otlp::ScanLimits;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::*;
use crate::admission::BudgetPermit;
use crate::pipeline::stream::memory_bytes;
use crate::pipeline::tables::WorkspaceTables;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

/// Seals nothing by itself.
const NEVER: CutRule =
    CutRule { max_age: Duration::from_secs(3600), target_file_bytes: usize::MAX, row_group_bytes: usize::MAX };

/// A backlog of one cluster and one workspace.
pub(in crate::pipeline) struct Fixture {
    tables: WorkspaceTables,
    aek: Arc<Aek>,
    budget: Arc<Budget>,
    backlog: Arc<Backlog>,
    now: Instant,
}

/// Frame `sequence` of the file `file`.
pub(in crate::pipeline) fn position(file: u8, sequence: u64) -> Position {
    Position { file: id(file), sequence }
}

fn id(file: u8) -> WalFileId {
    WalFileId::from_bytes([file; 16])
}

fn path(file: u8) -> PathBuf {
    PathBuf::from(format!("{file}.wal"))
}

fn file(n: u8, end: Option<u64>) -> LogFile {
    LogFile::new(id(n), path(n), 100, end)
}

impl Fixture {
    /// With a budget of `bytes` and no files of earlier lives.
    pub(in crate::pipeline) fn new(bytes: usize) -> Self {
        let budget = Budget::new(bytes);
        let backlog = Backlog::new(Arc::clone(&budget));
        backlog.open(CLUSTER, Vec::new());
        let key = Key256::copy_from_slice(&[3; 32]).unwrap();
        Self {
            tables: WorkspaceTables::for_test(WORKSPACE),
            aek: Arc::new(Aek::new(AekId::from_bytes([4; 16]), WORKSPACE, 1, key, Lease::unlimited())),
            budget,
            backlog,
            now: Instant::now(),
        }
    }

    /// `count` rows for the table `table`.
    pub(in crate::pipeline) fn rows(&self, table: &str, count: usize) -> Rows {
        let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
        let table = KeyValue { key: "logseal.table".into(), value: text(table), ..KeyValue::default() };
        let record = LogRecord { body: text("what happened"), ..LogRecord::default() };
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(Resource { attributes: vec![table], ..Resource::default() }),
                scope_logs: vec![ScopeLogs { log_records: vec![record; count], ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }],
        };
        let limits = ScanLimits::default();
        let scanned =
            logseal_otlp::scan(&request.encode_to_vec(), self.tables.schema(), UnixNanos(7), &limits).unwrap();
        let table = self.tables.table(&scanned.chunks[0].schema);
        let bytes = scanned.chunks.iter().map(memory_bytes).sum();
        let permit = self.budget.try_take(bytes).unwrap();
        let stream = Stream { cluster: CLUSTER, table, aek: Arc::clone(&self.aek) };
        Rows { stream, chunks: scanned.chunks, permit }
    }

    fn durable(&self, n: u8, sequence: u64, tables: &[(&str, usize)]) -> Durable {
        let rows = tables.iter().map(|(table, count)| self.rows(table, *count)).collect();
        Durable { position: position(n, sequence), received: UnixNanos(sequence as i64), rows, settled: Vec::new() }
    }

    /// A group of one request joins, the last in its file.
    fn join(&self, n: u8, sequence: u64, tables: &[(&str, usize)]) {
        let head = Head { position: position(n, sequence), path: path(n), bytes: 100 * sequence };
        self.backlog.join(CLUSTER, vec![self.durable(n, sequence, tables)], head, self.now);
    }

    /// Lots of everything that waits, as the cutter takes them.
    fn take_all(&self) -> Vec<Lot> {
        let mut lots = self.backlog.lots(&NEVER, self.now, true);
        lots.sort_by_key(|lot| lot.stream.table.row.name.as_str().to_owned());
        lots
    }

    /// Seals all of `lot`, as `bytes` of pages, and closes the segment if it asks for that.
    fn seal(&self, lot: &Lot, bytes: usize) -> Option<Closed> {
        let key = lot.stream.key();
        let sealed: Vec<_> = lot.parts.iter().map(|part| (Arc::clone(part), true)).collect();
        self.backlog.grown(key, &sealed, bytes);
        let closed = if lot.close { self.backlog.close_segment(key) } else { None };
        self.backlog.release(key, self.now);
        closed
    }

    /// Everything that waits is sealed and closed.
    fn close_all(&self) -> Vec<Closed> {
        self.take_all().iter().map(|lot| self.seal(lot, 100).unwrap()).collect()
    }

    fn retirable(&self) -> Vec<WalFileId> {
        self.backlog
            .retirable()
            .into_iter()
            .map(|(cluster, id, _)| {
                assert_eq!(cluster, CLUSTER);
                id
            })
            .collect()
    }

    /// Frames whose rows are pinned, in order, and the ranges of those that are only in the log.
    fn pinned(&self) -> (Vec<u64>, Vec<(u64, u64)>) {
        let pinned = self.backlog.pin(WORKSPACE);
        let mut loaded: Vec<_> = pinned.parts.iter().map(|(_, part)| part.position.sequence).collect();
        loaded.sort_unstable();
        let mut parked: Vec<_> = pinned.parked.iter().map(|parked| (parked.first, parked.last)).collect();
        parked.sort_unstable();
        (loaded, parked)
    }

    /// Takes of the budget all but `free` bytes.
    fn leave(&self, free: usize) -> BudgetPermit {
        self.budget.try_take(self.budget.free() - free).unwrap()
    }
}

fn sequences(lot: &Lot) -> Vec<u64> {
    lot.parts.iter().map(|part| part.position.sequence).collect()
}

fn ranges(closed: &Closed) -> Vec<(u64, u64)> {
    closed.runs.iter().map(|run| (run.first, run.last)).collect()
}

const PLENTY: usize = 1 << 30;

#[test]
fn a_segment_is_closed_at_its_age_with_its_parts_in_the_order_of_the_log() {
    let fixture = Fixture::new(PLENTY);
    for sequence in [3, 4, 6] {
        fixture.join(1, sequence, &[("a", 1)]);
    }
    let due = fixture.now + NEVER.max_age;
    assert_eq!(fixture.backlog.next_due(&NEVER), Some(due));
    assert!(fixture.backlog.lots(&NEVER, due - Duration::from_nanos(1), false).is_empty());
    let lots = fixture.backlog.lots(&NEVER, due, false);
    assert_eq!(lots.iter().map(|lot| (sequences(lot), lot.close)).collect::<Vec<_>>(), [(vec![3, 4, 6], true)]);
    assert_eq!(fixture.backlog.next_due(&NEVER), None, "it is taken");
    assert_eq!(ranges(&fixture.seal(&lots[0], 100).unwrap()), [(3, 6)]);
    assert_eq!(fixture.backlog.next_due(&NEVER), None);
}

/// Scenario: rows for two row groups and a half. Guarantee: the segment grows lot by lot, one at a time, and is closed at the age of its
/// first record, with all of them.
#[test]
fn a_segment_grows_by_row_groups_and_is_as_old_as_its_first_record() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 1, &[("a", 10)]);
    let share = fixture.backlog.pin(WORKSPACE).parts[0].1.row_group_share;
    let rule = CutRule { row_group_bytes: 2 * share, ..NEVER };
    let lots = || fixture.backlog.lots(&rule, fixture.now, false);
    assert!(lots().is_empty());
    (2..=5).for_each(|sequence| fixture.join(1, sequence, &[("a", 10)]));
    let first = lots();
    assert_eq!((sequences(&first[0]), first[0].close), (vec![1, 2], false));
    assert!(lots().is_empty(), "the next one waits for it");
    assert!(fixture.seal(&first[0], 100).is_none());
    let second = lots();
    assert_eq!((sequences(&second[0]), second[0].close), (vec![3, 4], false));
    fixture.seal(&second[0], 200);
    assert!(lots().is_empty(), "half a row group is left");
    assert_eq!(fixture.pinned(), (vec![1, 2, 3, 4, 5], vec![]), "what is sealed is still in memory");

    let due = fixture.now + rule.max_age;
    assert_eq!(fixture.backlog.next_due(&rule), Some(due));
    let last = fixture.backlog.lots(&rule, due, false);
    assert_eq!((sequences(&last[0]), last[0].close), (vec![5], true));
    let closed = fixture.seal(&last[0], 300).unwrap();
    assert_eq!((ranges(&closed), closed.runs.records()), (vec![(1, 5)], 50));
    assert_eq!(fixture.pinned().0, [1, 2, 3, 4, 5], "it is not stored yet");
    fixture.backlog.settled(&closed);
    assert_eq!(fixture.pinned(), (vec![], vec![]));
}

/// Scenario: three quarters of the budget are taken, first by sealed rows of one stream, then by rows that wait. Guarantee: sealed rows
/// go first and are then read from the log, once; what was pinned stays. Only when that is not enough the largest rows that wait are
/// sealed.
#[test]
fn short_memory_evicts_sealed_rows_and_then_seals_the_largest() {
    let fixture = Fixture::new(1 << 20);
    fixture.join(1, 1, &[("sealed", 400)]);
    let lots = fixture.take_all();
    fixture.seal(&lots[0], 100);
    fixture.join(1, 2, &[("small", 1), ("sealed", 1)]);
    let held = fixture.backlog.pin(WORKSPACE);
    assert_eq!(fixture.pinned(), (vec![1, 2, 2], vec![]));
    let before = fixture.budget.free();
    let ballast = fixture.leave(1000);
    fixture.backlog.lots(&NEVER, fixture.now, false);
    assert_eq!(fixture.pinned(), (vec![2, 2], vec![(1, 1)]));
    let parked = fixture.backlog.pin(WORKSPACE).parked.remove(0);
    assert_eq!(parked.of.map(|run| (run.stream == lots[0].stream.key(), run.records)), Some((true, 400)));
    assert_eq!(fixture.budget.free(), 1000, "a query still reads them");
    drop((held, ballast, lots));
    // Then they go, on a thread of their own.
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    while fixture.budget.free() <= before {
        assert!(std::time::Instant::now() < patience, "they are still there");
        std::thread::yield_now();
    }
    assert_eq!(fixture.backlog.totals().records, 402, "they count as before");
}

/// Scenario: the replay waits while more than half of the budget is taken, by sealed rows or by rows that wait, and nothing is due.
/// Guarantee: room is made for it at once, not only when segments are old enough.
#[test]
fn room_is_made_for_a_replay_that_waits() {
    for sealed in [true, false] {
        let fixture = Fixture::new(1 << 20);
        fixture.join(1, 1, &[("a", 300)]);
        if sealed {
            let lot = fixture.take_all().remove(0);
            fixture.seal(&Lot { close: false, ..lot }, 100);
        }
        let _ballast = fixture.leave(400 << 10);
        assert!(fixture.backlog.lots(&NEVER, fixture.now, false).is_empty(), "memory is not short");
        assert_eq!(fixture.pinned(), (vec![1], vec![]));
        fixture.backlog.want_room();
        let lots = fixture.backlog.lots(&NEVER, fixture.now, false);
        match sealed {
            true => assert_eq!(fixture.pinned(), (vec![], vec![(1, 1)])),
            false => assert_eq!(lots.len(), 1),
        }
    }
}

/// Scenario: rows that wait take what is short. Guarantee: the largest are sealed, as many as are worth doing at once.
#[test]
fn short_memory_seals_the_largest_rows_that_wait() {
    let fixture = Fixture::new(1 << 20);
    fixture.join(1, 1, &[("small", 1)]);
    while fixture.budget.free() > fixture.budget.total() * 7 / 10 {
        fixture.join(1, 2, &[("large", 200)]);
    }
    assert!(fixture.backlog.lots(&NEVER, fixture.now, false).is_empty(), "memory is not short yet");
    let _ballast = fixture.leave(1000);
    let lots = fixture.backlog.lots(&NEVER, fixture.now, false);
    let taken: Vec<_> = lots.iter().map(|lot| (lot.stream.table.row.name.as_str().to_owned(), lot.close)).collect();
    assert_eq!(taken, [("large".to_owned(), false)]);
    assert!(fixture.backlog.lots(&NEVER, fixture.now, false).is_empty(), "enough is under way");
}

/// Scenario: two growing segments take more than three eighths of the budget. Guarantee: the larger one is closed.
#[test]
fn growing_segments_that_take_too_much_are_closed_largest_first() {
    let fixture = Fixture::new(1 << 20);
    fixture.join(1, 1, &[("a", 1), ("b", 1)]);
    let mut lots = fixture.take_all();
    lots.iter_mut().for_each(|lot| lot.close = false);
    fixture.seal(&lots[0], 300 << 10);
    fixture.seal(&lots[1], 80 << 10);
    assert!(fixture.backlog.lots(&NEVER, fixture.now, false).is_empty());
    fixture.join(1, 2, &[("b", 1)]);
    fixture.backlog.grown(lots[1].stream.key(), &[], 90 << 10);
    let lots = fixture.backlog.lots(&NEVER, fixture.now, false);
    let taken: Vec<_> =
        lots.iter().map(|lot| (lot.stream.table.row.name.as_str(), lot.parts.len(), lot.close)).collect();
    assert_eq!(taken, [("a", 0, true)]);
}

/// Scenario: the store fails and half of the budget is taken; later there is room again. Guarantee: requests stay in the log alone, in one
/// run from the first on, until the replay has read behind the last durable frame; what joins while it reads is not passed over.
#[test]
fn an_outage_parks_until_the_replay_has_caught_up() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 3, &[("a", 1)]);
    let ballast = fixture.leave(PLENTY / 2 - 1_000_000);
    fixture.join(1, 4, &[("a", 1)]);
    fixture.backlog.store_failed(true);
    assert_eq!(fixture.pinned(), (vec![3, 4], vec![]), "half of the budget alone parks nothing");
    fixture.join(1, 5, &[("a", 2), ("b", 1)]);
    fixture.join(1, 7, &[("b", 4)]);
    assert_eq!(fixture.pinned(), (vec![3, 4], vec![(5, 7)]));
    let totals = fixture.backlog.totals();
    assert_eq!((totals.records, totals.oldest, totals.parked_bytes), (9, Some(UnixNanos(3)), 700));

    drop(ballast);
    fixture.backlog.store_failed(false);
    fixture.join(1, 9, &[("a", 1)]);
    assert_eq!(fixture.pinned(), (vec![3, 4], vec![(5, 9)]), "none overtakes what is parked");

    let cursor = fixture.backlog.cursor(CLUSTER).unwrap();
    assert_eq!((cursor.next, cursor.durable, cursor.ended), (position(1, 5), 9, false));
    let frames = vec![fixture.durable(1, 5, &[("a", 2), ("b", 1)]), fixture.durable(1, 7, &[("b", 4)])];
    assert!(!fixture.backlog.replayed(CLUSTER, frames, position(1, 8), fixture.now));
    assert_eq!(fixture.pinned(), (vec![3, 4, 5, 5, 7], vec![(8, 9)]));
    // One more joins after the replay looked how far it may read.
    fixture.join(1, 10, &[("a", 1)]);
    let frames = vec![fixture.durable(1, 9, &[("a", 1)])];
    assert!(!fixture.backlog.replayed(CLUSTER, frames, position(1, 10), fixture.now));
    assert_eq!(fixture.pinned(), (vec![3, 4, 5, 5, 7, 9], vec![(10, 10)]));
    let frames = vec![fixture.durable(1, 10, &[("a", 1)])];
    assert!(fixture.backlog.replayed(CLUSTER, frames, position(1, 11), fixture.now));
    assert!(fixture.backlog.cursor(CLUSTER).is_none());
    fixture.join(1, 11, &[("a", 1)]);
    // A replay that ends behind that says again where it was: frames that are loaded must not be parked, and so loaded, once more.
    assert!(fixture.backlog.replayed(CLUSTER, Vec::new(), position(1, 11), fixture.now));
    assert!(fixture.backlog.cursor(CLUSTER).is_none());
    assert_eq!(fixture.pinned(), (vec![3, 4, 5, 5, 7, 9, 10, 11], vec![]));
    assert_eq!(fixture.backlog.totals().parked_bytes, 0);
}

/// Scenario: the replay waits for a cursor while the first request is parked. Guarantee: it is woken.
#[tokio::test]
async fn the_first_parked_request_wakes_the_replays() {
    let fixture = Fixture::new(PLENTY);
    let waiting = [fixture.backlog.replay_due.notified(), fixture.backlog.replay_due.notified()];
    let _ballast = fixture.leave(PLENTY / 2 - 1_000_000);
    fixture.backlog.store_failed(true);
    fixture.join(1, 3, &[("a", 1)]);
    for woken in waiting {
        tokio::time::timeout(Duration::from_secs(10), woken).await.unwrap();
    }
}

/// Scenario: two frames around one that the replay finds settled. Guarantee: they may share a batch, and no range.
#[test]
fn a_settled_frame_divides_a_range() {
    let fixture = Fixture::new(PLENTY);
    fixture.backlog.open(CLUSTER, vec![file(1, Some(9))]);
    let key = fixture.rows("a", 1).stream.key();
    let passed = |sequence| Durable { settled: vec![key], ..fixture.durable(1, sequence, &[]) };
    let frames = vec![
        fixture.durable(1, 3, &[("a", 1), ("b", 1)]),
        Durable { settled: vec![key], ..fixture.durable(1, 4, &[("b", 1)]) },
        passed(5),
        fixture.durable(1, 6, &[("a", 1), ("b", 1)]),
        fixture.durable(1, 8, &[("a", 1)]),
        passed(9),
    ];
    assert!(fixture.backlog.replayed(CLUSTER, frames, position(1, 10), fixture.now));
    fixture.join(2, 3, &[("a", 1)]);
    let closed = fixture.close_all();
    assert_eq!(ranges(&closed[0]), [(3, 3), (6, 8), (3, 3)]);
    assert_eq!(ranges(&closed[1]), [(3, 6)]);
}

/// Scenario: of five frames the second and the last are set aside while they are sealed. Guarantee: the segment's runs lie around them,
/// also that of the next lot; their file does not wait for them.
#[test]
fn a_frame_that_is_set_aside_divides_a_range() {
    let fixture = Fixture::new(PLENTY);
    (1..=5).for_each(|sequence| fixture.join(1, sequence, &[("a", 1)]));
    let lot = fixture.take_all().remove(0);
    let outcome = |part: &Arc<Part>| (Arc::clone(part), ![2, 5].contains(&part.position.sequence));
    let outcomes: Vec<_> = lot.parts.iter().map(outcome).collect();
    fixture.backlog.grown(lot.stream.key(), &outcomes, 100);
    assert_eq!(fixture.pinned().0, [1, 3, 4]);
    fixture.backlog.release(lot.stream.key(), fixture.now);
    fixture.join(1, 6, &[("a", 1)]);
    let closed = fixture.close_all();
    assert_eq!(ranges(&closed[0]), [(1, 1), (3, 4), (6, 6)]);
    fixture.backlog.file_ended(CLUSTER, file(1, Some(6)));
    assert!(fixture.retirable().is_empty());
    fixture.backlog.settled(&closed[0]);
    assert_eq!(fixture.retirable(), [id(1)]);
}

/// Scenario: two files end; the younger one's records are stored first. Guarantee: a file goes when each of its parts is settled, never
/// before an older one, never while it is written, and is given once.
#[test]
fn files_go_in_order_when_their_parts_are_settled() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 3, &[("a", 1), ("b", 1)]);
    let first = fixture.close_all();
    fixture.backlog.file_ended(CLUSTER, file(1, Some(3)));
    fixture.join(2, 3, &[("a", 1)]);
    let second = fixture.close_all();
    fixture.backlog.settled(&second[0]);
    fixture.backlog.file_ended(CLUSTER, file(2, Some(4)));
    fixture.join(3, 3, &[("a", 1)]);
    assert_eq!(fixture.pinned().0, [3, 3, 3], "what is settled is not pinned");

    fixture.backlog.settled(&first[0]);
    assert!(fixture.retirable().is_empty(), "a part of the first file is in no segment yet");
    fixture.backlog.settled(&first[1]);
    assert_eq!(fixture.retirable(), [id(1), id(2)]);
    assert!(fixture.retirable().is_empty(), "each is given once");
    fixture.backlog.not_retired(CLUSTER, id(1));
    assert_eq!(fixture.retirable(), [id(1)]);
    assert_eq!(fixture.backlog.log_bytes(CLUSTER), 500);
    fixture.backlog.retired(CLUSTER, id(1));
    fixture.backlog.retired(CLUSTER, id(2));
    assert_eq!((fixture.backlog.log_bytes(CLUSTER), fixture.backlog.totals().files), (300, 1));
    assert_eq!(fixture.backlog.path_of(CLUSTER, id(3)), Some(path(3)));
}

/// Scenario: a query reads a parked file that is replayed and stored meanwhile. Guarantee: the file stays until the query ends.
#[test]
fn a_query_holds_the_files_that_it_reads() {
    let fixture = Fixture::new(PLENTY);
    fixture.backlog.open(CLUSTER, vec![file(1, Some(5))]);
    let pinned = fixture.backlog.pin(WORKSPACE);
    assert!(fixture.retirable().is_empty(), "it is not replayed yet");
    assert!(fixture.backlog.replayed(CLUSTER, Vec::new(), position(1, 6), fixture.now));
    assert!(fixture.retirable().is_empty(), "it is being read");
    drop(pinned);
    assert_eq!(fixture.retirable(), [id(1)]);
}

/// Scenario: the only sync of a new file failed, so that none of its frames ever joined. Guarantee: it counts as taken room and is
/// retired.
#[test]
fn a_file_without_a_durable_frame_is_retired_too() {
    let fixture = Fixture::new(PLENTY);
    fixture.backlog.file_ended(CLUSTER, file(1, Some(0)));
    assert_eq!(fixture.backlog.log_bytes(CLUSTER), 100);
    assert_eq!(fixture.retirable(), [id(1)]);
}
