//! Several clusters, workspaces that move between them, and keys that are destroyed.

use super::*;

const OTHER_CLUSTER: ClusterId = ClusterId::from_bytes([11; 16]);
const OTHER_WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([12; 16]);

fn aek(byte: u8) -> Arc<Aek> {
    let key = Key256::copy_from_slice(&[byte; 32]).unwrap();
    Arc::new(Aek::new(AekId::from_bytes([byte; 16]), WORKSPACE, u32::from(byte), key, Lease::unlimited()))
}

impl Fixture {
    /// A group of one request under `aek` joins the log of `cluster`.
    fn join_under(&self, cluster: ClusterId, aek: &Arc<Aek>, n: u8, sequence: u64, tables: &[(&str, usize)]) {
        let mut request = self.durable(n, sequence, tables);
        for rows in &mut request.rows {
            (rows.stream.cluster, rows.stream.aek) = (cluster, Arc::clone(aek));
        }
        let head = Head { position: position(n, sequence), path: path(n), bytes: 100 * sequence };
        self.backlog.join(cluster, vec![request], head, self.now);
    }
}

fn parked_files(fixture: &Fixture, workspace: WorkspaceId) -> Vec<(WalFileId, u64, u64)> {
    let mut parked: Vec<_> = fixture.backlog.pin(workspace).parked.iter().map(|p| (p.file, p.first, p.last)).collect();
    parked.sort_unstable();
    parked
}

/// Scenario: a workspace has loaded rows in the logs of two clusters, evicted ones in the second, and files of earlier lives are parked
/// in both; one of these is surveyed and has frames of another workspace only. Guarantee: a query sees what the workspace has or may
/// have in either log, and reads no file that is known to be of others.
#[test]
fn a_query_looks_in_the_logs_of_all_clusters() {
    let fixture = Fixture::new(1 << 20);
    fixture.join(1, 1, &[("a", 1)]);
    fixture.backlog.open(OTHER_CLUSTER, Vec::new());
    fixture.join_under(OTHER_CLUSTER, &aek(5), 2, 1, &[("a", 400)]);
    fixture.join_under(OTHER_CLUSTER, &aek(5), 2, 2, &[("a", 1)]);
    let lots = fixture.take_all();
    let moved = lots.iter().find(|lot| lot.stream.cluster == OTHER_CLUSTER).unwrap();
    fixture.backlog.grown(moved.stream.key(), &[(Arc::clone(&moved.parts[0]), true)], 100);
    let ballast = fixture.leave(1000);
    fixture.backlog.lots(&NEVER, fixture.now, false);
    assert_eq!(fixture.pinned(), (vec![1, 2], vec![(1, 1)]));
    assert_eq!(parked_files(&fixture, WORKSPACE), [(id(2), 1, 1)]);
    drop((ballast, lots));

    for cluster in [CLUSTER, OTHER_CLUSTER] {
        let first = if cluster == CLUSTER { 21 } else { 31 };
        fixture.backlog.close(cluster);
        fixture.backlog.open(cluster, vec![file(first, Some(5)), file(first + 1, Some(6))]);
    }
    let all = [(id(21), 1, 5), (id(22), 1, 6), (id(31), 1, 5), (id(32), 1, 6)];
    assert_eq!(parked_files(&fixture, WORKSPACE), all, "nobody knows whose frames they have");
    let found = |of: WorkspaceId| Surveyed { records: HashMap::new(), since: UnixNanos(1), workspaces: [of].into() };
    fixture.backlog.surveyed(CLUSTER, id(21), found(OTHER_WORKSPACE));
    fixture.backlog.surveyed(OTHER_CLUSTER, id(31), found(WORKSPACE));
    assert_eq!(parked_files(&fixture, WORKSPACE), all[1..]);
    assert_eq!(parked_files(&fixture, OTHER_WORKSPACE), [all[0], all[1], all[3]]);
}

/// Scenario: requests are parked while the store is away. Guarantee: only queries of their workspace read the file.
#[test]
fn a_query_does_not_read_what_others_have_parked() {
    let fixture = Fixture::new(PLENTY);
    let _ballast = fixture.leave(PLENTY / 2 - 1_000_000);
    fixture.backlog.store_failed(true);
    fixture.join(1, 3, &[("a", 1)]);
    assert_eq!(parked_files(&fixture, WORKSPACE), [(id(1), 3, 3)]);
    assert_eq!(parked_files(&fixture, OTHER_WORKSPACE), []);
}

/// Scenario: of two keys with frames in one file, one is destroyed while its rows wait, are sealed, grow, and are stored, each in a
/// stream of its own; then the lots and segments that were under way come to their ends. Guarantee: its rows leave memory and no longer
/// count; the file waits for the other key's rows, and for nothing else.
#[test]
fn rows_of_a_destroyed_key_are_settled_once_wherever_they_are() {
    let fixture = Fixture::new(PLENTY);
    let (gone, live) = (aek(5), aek(6));
    fixture.join_under(CLUSTER, &gone, 1, 1, &[("closed", 1), ("growing", 1), ("sealing", 1)]);
    fixture.join_under(CLUSTER, &gone, 1, 2, &[("closed", 1), ("sealing", 1)]);
    let lots = fixture.take_all();
    let [closed, growing, sealing] = &lots[..] else { panic!("{lots:?}") };
    let closed_segment = fixture.seal(closed, 100).unwrap();
    fixture.backlog.grown(growing.stream.key(), &[(Arc::clone(&growing.parts[0]), true)], 100);
    fixture.backlog.release(growing.stream.key(), fixture.now);
    fixture.join_under(CLUSTER, &gone, 1, 3, &[("waiting", 1), ("growing", 1)]);
    fixture.join_under(CLUSTER, &live, 1, 4, &[("waiting", 7)]);
    fixture.backlog.file_ended(CLUSTER, file(1, Some(4)));
    assert_eq!((fixture.backlog.unsealed_of(&[gone.id()]), fixture.backlog.unsealed_of(&[live.id()])), (7, 7));

    fixture.backlog.shred(&[gone.id()]);
    assert!(fixture.backlog.has_shredded([live.id(), gone.id()]) && !fixture.backlog.has_shredded([live.id()]));
    assert_eq!((fixture.backlog.unsealed_of(&[gone.id()]), fixture.backlog.totals().records), (0, 7));
    assert_eq!(fixture.pinned(), (vec![4], vec![]));
    fixture.backlog.settled(&closed_segment);
    let sealed: Vec<_> = sealing.parts.iter().map(|part| (Arc::clone(part), false)).collect();
    fixture.backlog.grown(sealing.stream.key(), &sealed, 100);
    assert!(fixture.backlog.close_segment(growing.stream.key()).is_none());
    fixture.backlog.release(sealing.stream.key(), fixture.now);
    assert!(fixture.retirable().is_empty(), "the other key's rows are in no segment yet");
    let others = fixture.close_all();
    assert_eq!(others.len(), 1);
    fixture.backlog.settled(&others[0]);
    assert_eq!(fixture.retirable(), [id(1)]);
}

/// Scenario: a frame becomes durable, or is loaded by a replay, just after its key was destroyed; another one is parked. Guarantee: no
/// rows join and none is counted; the file is as free as if the frame were in a segment.
#[test]
fn frames_that_come_after_their_key_was_destroyed_are_settled() {
    let fixture = Fixture::new(PLENTY);
    let gone = aek(5);
    let ballast = fixture.leave(PLENTY / 2 - 1_000_000);
    fixture.backlog.store_failed(true);
    fixture.join_under(CLUSTER, &gone, 1, 1, &[("a", 3)]);
    assert_eq!(fixture.backlog.unsealed_of(&[gone.id()]), 3, "parked");
    fixture.backlog.shred(&[gone.id()]);
    assert_eq!(fixture.backlog.unsealed_of(&[gone.id()]), 0);
    fixture.join_under(CLUSTER, &gone, 1, 2, &[("a", 3)]);
    assert_eq!(fixture.backlog.totals().records, 0);
    drop(ballast);
    let mut frames = vec![fixture.durable(1, 1, &[("a", 3)])];
    frames[0].rows[0].stream.aek = Arc::clone(&gone);
    assert!(fixture.backlog.replayed(CLUSTER, frames, position(1, 3), fixture.now));
    fixture.join_under(CLUSTER, &gone, 1, 3, &[("a", 3)]);
    assert_eq!((fixture.pinned(), fixture.backlog.totals().records), ((vec![], vec![]), 0));
    fixture.backlog.file_ended(CLUSTER, file(1, Some(3)));
    assert_eq!(fixture.retirable(), [id(1)]);
}

/// Scenario: a log is to become empty while nothing is due. Guarantee: its rows are taken at once, those of other clusters are not; who
/// waits for its files learns when the last one is gone.
#[tokio::test]
async fn a_log_that_is_closed_is_sealed_at_once() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 1, &[("a", 1)]);
    fixture.backlog.open(OTHER_CLUSTER, Vec::new());
    fixture.join_under(OTHER_CLUSTER, &aek(5), 2, 1, &[("a", 4)]);
    fixture.backlog.file_ended(OTHER_CLUSTER, file(2, Some(1)));
    assert!(fixture.backlog.lots(&NEVER, fixture.now, false).is_empty());
    fixture.backlog.drain(OTHER_CLUSTER);
    assert_eq!(fixture.backlog.left(OTHER_CLUSTER), (4, 1));
    let lots = fixture.backlog.lots(&NEVER, fixture.now, false);
    assert_eq!(lots.iter().map(|lot| (lot.stream.cluster, lot.close)).collect::<Vec<_>>(), [(OTHER_CLUSTER, true)]);
    fixture.backlog.settled(&fixture.seal(&lots[0], 100).unwrap());
    assert_eq!(fixture.backlog.retirable().len(), 1);
    let backlog = Arc::clone(&fixture.backlog);
    let waiting = tokio::spawn(async move { backlog.files_gone(OTHER_CLUSTER).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    fixture.backlog.retired(OTHER_CLUSTER, id(2));
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    fixture.backlog.close(OTHER_CLUSTER);
    assert_eq!((fixture.backlog.left(OTHER_CLUSTER), fixture.backlog.left(CLUSTER)), ((0, 0), (1, 1)));
}

/// Scenario: one of two logs is suspended and opened again. Guarantee: its records and files are still counted, apart from those that wait
/// for a segment; nothing of it is counted twice, nor after it is gone.
#[test]
fn a_suspended_log_is_still_counted() {
    let fixture = Fixture::new(PLENTY);
    fixture.join(1, 1, &[("a", 1)]);
    fixture.backlog.open(OTHER_CLUSTER, Vec::new());
    fixture.join_under(OTHER_CLUSTER, &aek(5), 2, 1, &[("a", 4)]);
    let bytes = fixture.backlog.log_bytes(OTHER_CLUSTER);
    let counted = || {
        let totals = fixture.backlog.totals();
        (totals.records, totals.files, totals.suspended_records, totals.suspended_bytes)
    };
    assert_eq!(counted(), (5, 2, 0, 0));
    fixture.backlog.suspend(OTHER_CLUSTER);
    assert_eq!(counted(), (1, 2, 4, bytes));
    fixture.backlog.open(OTHER_CLUSTER, vec![file(2, Some(1))]);
    assert_eq!(counted(), (1, 2, 0, 0), "until it is surveyed");
    fixture.backlog.suspend(OTHER_CLUSTER);
    fixture.backlog.close(OTHER_CLUSTER);
    assert_eq!(counted(), (1, 1, 0, 0));
}
