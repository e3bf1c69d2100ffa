//! The trail against who can write the file: whatever is altered, removed, put back or brought in from elsewhere is told of.

use std::path::PathBuf;

use logseal_core::{OperationId, UnixNanos};

use super::*;
use crate::catalog::tests::{checkpointed, filled, mac_key, run_sql};
use crate::{AuditEntry, Change};

fn entry(at: i64, outcome: &str) -> AuditEntry {
    AuditEntry {
        at: UnixNanos(at),
        actor: "admin".into(),
        action: "clusters/write".into(),
        resource: "/subscriptions/s/x".into(),
        operation: (at % 2 == 0).then_some(OperationId::from_bytes([7; 16])),
        outcome: outcome.into(),
        before: "{}".into(),
        after: format!("{{\"version\":{at}}}"),
    }
}

async fn append(catalog: &Catalog, numbers: std::ops::RangeInclusive<i64>, outcome: &str) {
    let changes = numbers.map(|at| Change::Audit(entry(at, outcome))).collect();
    catalog.apply(Change::All(changes)).await.unwrap();
}

/// Scenario: records come one by one and several at a time, one of them twice. Guarantee: they are numbered without gaps and
/// chained, are read in pages newest first, and the trail is whole, also with an anchor of any time.
#[tokio::test]
async fn records_are_chained_and_read_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let nothing = AuditVerdict { records: 0, head: None, faults: vec![] };
    assert_eq!(catalog.verify_audit(None).await.unwrap(), nothing);
    assert_eq!(catalog.audit_head().await.unwrap(), None);
    let mut anchors = Vec::new();
    for at in [1, 50, 100, 120] {
        let from = anchors.last().map_or(1, |head: &AuditHead| i64::try_from(head.sequence).unwrap() + 1);
        append(&catalog, from..=at, "Succeeded").await;
        catalog.apply(Change::Audit(entry(at, "Succeeded"))).await.expect("its answer was lost");
        anchors.extend(catalog.audit_head().await.unwrap());
    }
    let mut rows: Vec<AuditRow> = Vec::new();
    loop {
        let page = catalog.audit(rows.last().map(|row| row.sequence), 7).await.unwrap();
        if page.is_empty() {
            break;
        }
        rows.extend(page);
    }
    rows.reverse();
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), (1..=120).collect::<Vec<_>>());
    let mut previous = GENESIS.to_vec();
    for row in &rows {
        assert_eq!(row.previous, previous);
        assert_eq!(row.entry, entry(row.entry.at.0, "Succeeded"));
        previous.clone_from(&row.mac);
    }
    let head = AuditHead { sequence: 120, mac: previous };
    assert_eq!(anchors.last(), Some(&head));
    for anchor in anchors.into_iter().map(Some).chain([None]) {
        let whole = AuditVerdict { records: 120, head: Some(head.clone()), faults: vec![] };
        assert_eq!(catalog.verify_audit(anchor).await.unwrap(), whole);
    }
    let large = AuditEntry { after: "x".repeat((256 << 10) + 1), ..entry(200, "Succeeded") };
    assert!(matches!(catalog.apply(Change::Audit(large)).await, Err(CatalogError::Invalid { .. })));
}

/// A trail of 120 records; a copy of it when it had 100; that copy, continued otherwise.
struct Trails {
    file: PathBuf,
    pristine: Vec<u8>,
    anchor: AuditHead,
    attach: String,
}

async fn trails(dir: &tempfile::TempDir) -> Trails {
    let [file, old, fork] = ["catalog.sqlite", "old.sqlite", "fork.sqlite"].map(|name| dir.path().join(name));
    let catalog = filled(dir).await;
    append(&catalog, 1..=100, "Succeeded").await;
    catalog.close().await.unwrap();
    let bytes = checkpointed(&file).await;
    for copy in [&old, &fork] {
        std::fs::write(copy, &bytes).unwrap();
    }
    let catalog = Catalog::open(&fork, mac_key(1)).await.unwrap();
    append(&catalog, 101..=120, "Failed").await;
    catalog.close().await.unwrap();
    let catalog = Catalog::open(&file, mac_key(1)).await.unwrap();
    append(&catalog, 101..=120, "Succeeded").await;
    let anchor = catalog.audit_head().await.unwrap().unwrap();
    catalog.close().await.unwrap();
    let attach = format!("ATTACH '{}' AS old; ATTACH '{}' AS fork;", old.display(), fork.display());
    Trails { pristine: checkpointed(&file).await, file, anchor, attach }
}

async fn tampered(trails: &Trails, sql: &str) -> Catalog {
    std::fs::write(&trails.file, &trails.pristine).unwrap();
    run_sql(&trails.file, &format!("{}{sql}", trails.attach)).await;
    Catalog::open(&trails.file, mac_key(1)).await.unwrap()
}

const PUT_BACK: &str = "DELETE FROM audit WHERE sequence > 100; DELETE FROM audit_head; \
    INSERT INTO audit_head SELECT * FROM old.audit_head;";

/// Scenario: records and head are altered, removed, reordered, put back, or taken from another trail under the same root key.
/// Guarantee: each is told of with the record's number; what is genuine as a whole, but older, by the anchor.
#[tokio::test]
async fn whatever_is_done_to_the_trail_is_told_of() {
    use AuditFault::{Altered, Chain, Head, Missing, Truncated};
    let dir = tempfile::tempdir().unwrap();
    let trails = trails(&dir).await;
    let planted = "INSERT INTO audit SELECT {}, at, actor, action, resource, operation_id, outcome, before, after, \
        previous, mac FROM audit WHERE sequence = 5;";
    let splice =
        "DELETE FROM audit WHERE sequence = 110; INSERT INTO audit SELECT * FROM fork.audit WHERE sequence = 110;";
    let swap = "UPDATE audit SET sequence = -1 WHERE sequence = 5; UPDATE audit SET sequence = 5 WHERE sequence = 6; \
        UPDATE audit SET sequence = 6 WHERE sequence = -1;";
    let cases = [
        ("UPDATE audit SET outcome = 'Failed' WHERE sequence = 5".to_owned(), vec![Altered { sequence: 5 }]),
        ("UPDATE audit SET operation_id = NULL WHERE sequence = 6".to_owned(), vec![Altered { sequence: 6 }]),
        ("UPDATE audit SET mac = zeroblob(32) WHERE sequence = 120".to_owned(), vec![Altered { sequence: 120 }]),
        ("DELETE FROM audit WHERE sequence = 5".to_owned(), vec![Missing { sequence: 5 }]),
        (
            "DELETE FROM audit WHERE sequence IN (1, 60)".to_owned(),
            vec![Missing { sequence: 1 }, Missing { sequence: 60 }],
        ),
        ("DELETE FROM audit WHERE sequence > 100".to_owned(), vec![Truncated { expected: 120, found: 100 }]),
        ("DELETE FROM audit".to_owned(), vec![Truncated { expected: 120, found: 0 }]),
        (swap.to_owned(), vec![Altered { sequence: 5 }, Altered { sequence: 6 }]),
        (splice.to_owned(), vec![Chain { sequence: 110 }, Chain { sequence: 111 }]),
        (planted.replace("{}", "0"), vec![Altered { sequence: 0 }]),
        (planted.replace("{}", "-9223372036854775808"), vec![Altered { sequence: 0 }]),
        (planted.replace("{}", "121"), vec![Altered { sequence: 121 }, Head]),
        ("DELETE FROM audit_head".to_owned(), vec![Head]),
        ("UPDATE audit_head SET sequence = 121".to_owned(), vec![Head]),
        ("UPDATE audit_head SET last = zeroblob(32)".to_owned(), vec![Head]),
        ("INSERT INTO audit_head SELECT * FROM old.audit_head".to_owned(), vec![Head]),
        ("DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM old.audit_head".to_owned(), vec![Head]),
        ("DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM fork.audit_head".to_owned(), vec![Head]),
    ];
    for (sql, expected) in cases {
        let catalog = tampered(&trails, &sql).await;
        for anchor in [None, Some(trails.anchor.clone())] {
            assert_eq!(catalog.verify_audit(anchor).await.unwrap().faults, expected, "{sql}");
        }
        catalog.close().await.unwrap();
    }
    let replaced = "DELETE FROM audit; DELETE FROM audit_head; INSERT INTO audit SELECT * FROM fork.audit; \
        INSERT INTO audit_head SELECT * FROM fork.audit_head";
    let gone = "DELETE FROM audit; DELETE FROM audit_head";
    for (sql, expected) in [
        (PUT_BACK, Truncated { expected: 120, found: 100 }),
        (replaced, Chain { sequence: 120 }),
        (gone, Truncated { expected: 120, found: 0 }),
    ] {
        let catalog = tampered(&trails, sql).await;
        assert_eq!(catalog.verify_audit(None).await.unwrap().faults, [], "genuine as a whole: {sql}");
        assert_eq!(catalog.verify_audit(Some(trails.anchor.clone())).await.unwrap().faults, [expected], "{sql}");
        catalog.close().await.unwrap();
    }
}

/// Scenario: a record with the largest number there is was planted. Guarantee: the verdict comes at once, and is no longer than a
/// hundred faults.
#[tokio::test]
async fn a_verdict_is_short_whatever_numbers_are_planted() {
    let dir = tempfile::tempdir().unwrap();
    let trails = trails(&dir).await;
    let far = format!("UPDATE audit SET sequence = {} WHERE sequence = 50", i64::MAX);
    let catalog = tampered(&trails, &far).await;
    let verdict = catalog.verify_audit(None).await.unwrap();
    assert_eq!((verdict.records, verdict.faults.len()), (120, 100));
    assert_eq!(verdict.faults[..2], [AuditFault::Missing { sequence: 50 }, AuditFault::Missing { sequence: 121 }]);
}

/// Scenario: the head is altered, removed, doubled or put back, and something is to be recorded. Guarantee: that is refused with all
/// that belongs to it: a further record would hide what was done.
#[tokio::test]
async fn a_trail_without_its_genuine_head_takes_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let trails = trails(&dir).await;
    for sql in [
        "DELETE FROM audit_head",
        "UPDATE audit_head SET last = zeroblob(32)",
        "INSERT INTO audit_head SELECT * FROM old.audit_head",
        "DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM old.audit_head",
    ] {
        let catalog = tampered(&trails, sql).await;
        let paths = vec!["a".to_owned()];
        let changes = vec![Change::AddGarbage { paths, at: UnixNanos(1) }, Change::Audit(entry(999, "Succeeded"))];
        let refused = catalog.apply(Change::All(changes)).await;
        assert!(matches!(refused, Err(CatalogError::Integrity { kind: "audit head", .. })), "{sql}: {refused:?}");
        assert_eq!(catalog.garbage(UnixNanos(9), 9).await.unwrap(), []);
        catalog.close().await.unwrap();
    }
    let catalog = tampered(&trails, "SELECT 1").await;
    catalog.apply(Change::Audit(entry(999, "Succeeded"))).await.expect("the pristine trail takes it");
}

/// Scenario: a trail is checked under another root key than it was written under. Guarantee: no record and no head passes for genuine.
#[tokio::test]
async fn a_trail_under_another_root_key_is_altered_throughout() {
    let dir = tempfile::tempdir().unwrap();
    let trails = trails(&dir).await;
    let foreign = Catalog::open(&trails.file, mac_key(2)).await.unwrap();
    let verdict = foreign.verify_audit(Some(trails.anchor)).await.unwrap();
    assert_eq!((verdict.records, verdict.faults.len(), verdict.head), (120, 100, None));
    assert!(verdict.faults.iter().all(|fault| matches!(fault, AuditFault::Altered { .. })));
}
