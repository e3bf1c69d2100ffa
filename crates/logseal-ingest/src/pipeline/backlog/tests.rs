//! The backlog's rules, without a log, a store or a clock.

use std::time::Duration;

use logseal_core::AekId;
use logseal_crypto::{Aek, Key256};
use logseal_otlp::ScanLimits;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::*;
use crate::admission::BudgetPermit;
use crate::pipeline::tables::WorkspaceTables;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);

/// Cuts nothing by itself.
const NEVER: CutRule =
    CutRule { max_age: Duration::from_secs(3600), target_file_bytes: usize::MAX, max_arrow_bytes: usize::MAX };

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
            tables: WorkspaceTables::for_test(WORKSPACE, CLUSTER),
            aek: Arc::new(Aek::new(AekId::from_bytes([4; 16]), WORKSPACE, 1, key)),
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
        let bytes = scanned.chunks.iter().map(|chunk| chunk.batch.get_array_memory_size()).sum();
        let permit = self.budget.try_take(bytes).unwrap();
        Rows { stream: Stream { table, aek: Arc::clone(&self.aek) }, chunks: scanned.chunks, permit }
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

    fn cut_all(&self) -> Vec<Arc<CutBatch>> {
        self.backlog.cut(&NEVER, self.now, true)
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
        let pinned = self.backlog.pin(CLUSTER, WORKSPACE);
        let mut loaded: Vec<_> = pinned.parts.iter().map(|(_, part)| part.position.sequence).collect();
        loaded.sort_unstable();
        (loaded, pinned.parked.iter().map(|parked| (parked.first, parked.last)).collect())
    }

    /// Takes of the budget all but `free` bytes.
    fn leave(&self, free: usize) -> BudgetPermit {
        self.budget.try_take(self.budget.free() - free).unwrap()
    }
}

fn sequences(batch: &CutBatch) -> Vec<u64> {
    batch.parts.iter().map(|part| part.position.sequence).collect()
}

const PLENTY: usize = 1 << 30;

#[test]
fn a_batch_is_cut_at_its_age_with_its_parts_in_the_order_of_the_log() {
    let fixture = Fixture::new(PLENTY);
    for sequence in [3, 4, 6] {
        fixture.join(1, sequence, &[("a", 1)]);
    }
    let due = fixture.now + NEVER.max_age;
    assert_eq!(fixture.backlog.next_due(&NEVER), Some(due));
    assert!(fixture.backlog.cut(&NEVER, due - Duration::from_nanos(1), false).is_empty());
    let batches = fixture.backlog.cut(&NEVER, due, false);
    assert_eq!(batches.iter().map(|batch| sequences(batch)).collect::<Vec<_>>(), [[3, 4, 6]]);
    assert_eq!(fixture.backlog.next_due(&NEVER), None);
}

#[test]
fn a_batch_is_cut_at_its_size_in_memory_and_at_its_files_expected_size() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 1, &[("a", 10)]);
    let bytes = fixture.backlog.pin(CLUSTER, WORKSPACE).parts[0].1.bytes;
    let cut = |rule: &CutRule| fixture.backlog.cut(rule, fixture.now, false);
    assert!(cut(&CutRule { max_arrow_bytes: bytes + 1, ..NEVER }).is_empty());
    assert_eq!(cut(&CutRule { max_arrow_bytes: bytes, ..NEVER }).len(), 1);

    // Before the first segment a file is taken for a quarter of the memory.
    let half = CutRule { target_file_bytes: bytes / 2, ..NEVER };
    fixture.join(1, 2, &[("a", 10)]);
    assert!(cut(&half).is_empty());
    fixture.join(1, 3, &[("a", 10)]);
    let batches = cut(&half);
    assert_eq!(sequences(&batches[0]), [2, 3]);
    // From then on it is what the last one had.
    fixture.backlog.settled(&batches[0], Some(batches[0].bytes));
    fixture.join(1, 4, &[("a", 10)]);
    assert_eq!(cut(&half).len(), 1);
}

/// Scenario: three quarters of the budget are taken, and neither stream is due. Guarantee: the largest batch is cut; the others only if
/// less than a quarter of the budget would be on its way into segments.
#[test]
fn short_memory_cuts_the_largest_batch() {
    for (small_joins, expected) in [(false, 1), (true, 2)] {
        let fixture = Fixture::new(1 << 20);
        fixture.join(1, 1, &[("small", 1)]);
        while fixture.budget.free() > fixture.budget.total() * (if small_joins { 9 } else { 7 }) / 10 {
            fixture.join(1, 2, &[("large", 200)]);
        }
        assert!(fixture.backlog.cut(&NEVER, fixture.now, false).is_empty(), "memory is not short yet");
        let _ballast = fixture.leave(1000);
        let batches = fixture.backlog.cut(&NEVER, fixture.now, false);
        assert_eq!(batches.len(), expected);
        assert_eq!(batches[0].stream.table.row.name.as_str(), "large");
    }
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
    let of = |table: &str, batches: &[Arc<CutBatch>]| {
        let batch = batches.iter().find(|batch| batch.stream.table.row.name.as_str() == table).unwrap();
        batch.ranges().iter().map(|(first, last)| (first.sequence, last.sequence)).collect::<Vec<_>>()
    };
    let batches = fixture.cut_all();
    assert_eq!(of("a", &batches), [(3, 3), (6, 8), (3, 3)]);
    assert_eq!(of("b", &batches), [(3, 6)]);
}

/// Scenario: two files end; the younger one's records are stored first. Guarantee: a file goes when each of its parts is settled, never
/// before an older one, never while it is written, and is given once.
#[test]
fn files_go_in_order_when_their_parts_are_settled() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 3, &[("a", 1), ("b", 1)]);
    let first = fixture.cut_all();
    fixture.backlog.file_ended(CLUSTER, file(1, Some(3)));
    fixture.join(2, 3, &[("a", 1)]);
    let second = fixture.cut_all();
    fixture.backlog.settled(&second[0], Some(10));
    fixture.backlog.file_ended(CLUSTER, file(2, Some(4)));
    fixture.join(3, 3, &[("a", 1)]);
    assert_eq!(fixture.pinned().0, [3, 3, 3], "what is settled is not pinned");

    fixture.backlog.settled(&first[0], Some(10));
    assert!(fixture.retirable().is_empty(), "a part of the first file is in no segment yet");
    fixture.backlog.settled(&first[1], None);
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

/// Scenario: a batch goes on as its halves. Guarantee: its rows stay pinned once, and its file waits for both.
#[test]
fn halves_stay_pinned_and_hold_the_file() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 3, &[("a", 1)]);
    fixture.join(1, 4, &[("a", 1)]);
    let batch = fixture.cut_all().remove(0);
    fixture.backlog.file_ended(CLUSTER, file(1, Some(4)));
    let (first, second) = batch.halves().unwrap();
    fixture.backlog.halved(&batch, [Arc::clone(&first), Arc::clone(&second)]);
    assert_eq!(fixture.pinned().0, [3, 4]);
    fixture.backlog.settled(&first, Some(1));
    assert_eq!((fixture.pinned().0, fixture.retirable()), (vec![4], vec![]));
    fixture.backlog.settled(&second, None);
    assert_eq!((fixture.pinned().0, fixture.retirable()), (vec![], vec![id(1)]));
}

/// Scenario: a query reads a parked file that is replayed and stored meanwhile. Guarantee: the file stays until the query ends.
#[test]
fn a_query_holds_the_files_that_it_reads() {
    let fixture = Fixture::new(PLENTY);
    fixture.backlog.open(CLUSTER, vec![file(1, Some(5))]);
    let pinned = fixture.backlog.pin(CLUSTER, WORKSPACE);
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
