//! Resources and operations: unique names, versions, one running operation of a resource, pages through indexes.

use logseal_core::{OperationId, ResourceId};

use super::*;
use crate::{AuditEntry, OperationFilter, OperationState, ResourceFilter, ResourceKind};

pub(super) fn resource(id: u8, name: &str) -> ResourceRow {
    ResourceRow {
        id: ResourceId::from_bytes([id; 16]),
        kind: ResourceKind::Workspace,
        subscription: "Sub".into(),
        group: "Group".into(),
        name: name.into(),
        document: "{}".into(),
        version: 1,
        created: UnixNanos(1),
        changed: UnixNanos(2),
        deleted: None,
    }
}

fn put(row: &ResourceRow, expected: Option<u64>) -> Change {
    Change::PutResource { row: row.clone(), expected }
}

fn operation(id: u8, resource: u8) -> OperationRow {
    OperationRow {
        id: OperationId::from_bytes([id; 16]),
        kind: "ClusterUpdate".into(),
        resource: ResourceId::from_bytes([resource; 16]),
        target: "/subscriptions/Sub/x".into(),
        subscription: "Sub".into(),
        location: "westeurope".into(),
        state: OperationState::Running,
        document: "{}".into(),
        created: UnixNanos(1),
        changed: UnixNanos(1),
        ended: None,
        version: 1,
    }
}

fn ended(row: &OperationRow, state: OperationState, at: i64) -> OperationRow {
    let (changed, ended) = (UnixNanos(at), Some(UnixNanos(at)));
    OperationRow { state, changed, ended, version: row.version + 1, ..row.clone() }
}

fn run(row: &OperationRow, expected: Option<u64>) -> Change {
    Change::PutOperation { row: row.clone(), expected }
}

pub(super) fn entry(at: i64) -> AuditEntry {
    AuditEntry {
        at: UnixNanos(at),
        actor: "admin".into(),
        action: "clusters/write".into(),
        resource: "/subscriptions/Sub/x".into(),
        operation: Some(OperationId::from_bytes([7; 16])),
        outcome: "Succeeded".into(),
        before: "{}".into(),
        after: "{\"a\":1}".into(),
    }
}

/// One row of each kind, no column of it NULL.
pub(super) async fn fill(catalog: &Catalog) {
    let gone = ResourceRow { deleted: Some(UnixNanos(9)), ..resource(1, "gone") };
    catalog.apply(put(&gone, None)).await.unwrap();
    let row = operation(7, 1);
    catalog.apply(run(&row, None)).await.unwrap();
    catalog.apply(run(&ended(&row, OperationState::Failed, 5), Some(1))).await.unwrap();
    catalog.apply(Change::Audit(entry(1))).await.unwrap();
}

/// Scenario: a resource is made, changed, renamed, deleted and removed; each change is applied twice. Guarantee: it is found by its
/// name in any case; a change from another version, a second one of its name, and a document that is too large are refused and
/// change nothing.
#[tokio::test]
async fn a_resource_has_its_name_alone_and_changes_from_its_stored_version_only() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let first = resource(1, "Alpha");
    for _ in 0..2 {
        catalog.apply(put(&first, None)).await.unwrap();
    }
    let find = async |name: &str| catalog.resource(ResourceKind::Workspace, "sUB", "GROUP", name).await.unwrap();
    assert_eq!(find("aLPHA").await, Some(first.clone()));
    assert_eq!(find("beta").await, None);
    assert_eq!(catalog.resource(ResourceKind::Cluster, "Sub", "Group", "Alpha").await.unwrap(), None);
    assert_eq!(catalog.resource_by_id(first.id).await.unwrap(), Some(first.clone()));

    let conflicts = [resource(2, "alpha"), ResourceRow { document: "{\"a\":1}".into(), ..first.clone() }];
    for row in conflicts {
        let refused = catalog.apply(put(&row, None)).await;
        assert!(matches!(refused, Err(CatalogError::Conflict { kind: "resource", .. })), "{refused:?}");
    }
    catalog.apply(put(&ResourceRow { kind: ResourceKind::Cluster, ..resource(3, "alpha") }, None)).await.unwrap();
    catalog.apply(put(&ResourceRow { group: "other".into(), ..resource(4, "alpha") }, None)).await.unwrap();

    let second = ResourceRow { document: "{\"a\":2}".into(), version: 2, name: "ALPHA".into(), ..first.clone() };
    for _ in 0..2 {
        catalog.apply(put(&second, Some(1))).await.unwrap();
    }
    let late = ResourceRow { document: "{\"a\":3}".into(), ..second.clone() };
    let unknown = ResourceRow { version: 2, ..resource(9, "unknown") };
    for row in [late, unknown] {
        let refused = catalog.apply(put(&row, Some(1))).await;
        assert!(matches!(refused, Err(CatalogError::Stale { kind: "resource", .. })), "{refused:?}");
    }
    let next = ResourceRow { version: 3, ..second.clone() };
    let wrong = [
        (put(&ResourceRow { version: 4, ..next.clone() }, Some(2)), "skips a version"),
        (put(&ResourceRow { version: 2, ..resource(9, "new") }, None), "begins with 2"),
        (put(&ResourceRow { kind: ResourceKind::Cluster, ..next.clone() }, Some(2)), "becomes another kind"),
        (put(&ResourceRow { document: "x".repeat((256 << 10) + 1), ..next.clone() }, Some(2)), "large"),
        (put(&ResourceRow { version: u64::MAX, ..next.clone() }, Some(u64::MAX - 1)), "no such number"),
    ];
    for (change, why) in wrong {
        let refused = catalog.apply(change).await.expect_err(why);
        assert!(matches!(refused, CatalogError::Invalid { .. } | CatalogError::Stale { .. }), "{why}: {refused:?}");
        assert!(refused.is_decision() && !refused.is_storage());
    }
    let taken = ResourceRow { group: "Other".into(), ..next.clone() };
    let refused = catalog.apply(put(&taken, Some(2))).await;
    assert!(matches!(refused, Err(CatalogError::Conflict { .. })), "{refused:?}");
    assert_eq!(find("alpha").await, Some(second.clone()));

    let gone = ResourceRow { deleted: Some(UnixNanos(50)), ..next };
    catalog.apply(put(&gone, Some(2))).await.unwrap();
    assert_eq!(find("alpha").await, Some(gone.clone()), "its name stays reserved");
    let refused = catalog.apply(Change::RemoveResource { id: gone.id, expected: 2 }).await;
    assert!(matches!(refused, Err(CatalogError::Stale { .. })), "{refused:?}");
    for _ in 0..2 {
        catalog.apply(Change::RemoveResource { id: gone.id, expected: 3 }).await.unwrap();
    }
    assert_eq!(find("alpha").await, None);
    catalog.apply(put(&resource(2, "alpha"), None)).await.expect("its name is free");
}

/// Scenario: resources of several subscriptions and groups, some deleted, are listed in pages of every size. Guarantee: the pages of a
/// filter are all that it lets through, once, in the order of subscription, group and name without case.
#[tokio::test]
async fn resources_are_listed_in_pages_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let mut all = Vec::new();
    for (index, subscription) in ["b", "A", "C"].into_iter().enumerate() {
        for (at, group) in ["x", "Y"].into_iter().enumerate() {
            for (number, name) in (0_u8..).zip(["n0", "N1", "n2", "N3", "n4"]) {
                let id = u8::try_from(index * 50 + at * 20).unwrap() + number + 1;
                let (subscription, group) = (subscription.into(), group.into());
                let deleted = (number == 3).then_some(UnixNanos(1));
                let row = ResourceRow { subscription, group, deleted, ..resource(id, name) };
                catalog.apply(put(&row, None)).await.unwrap();
                all.push(row);
            }
        }
    }
    all.sort_by_key(|row| [&row.subscription, &row.group, &row.name].map(|text| text.to_ascii_lowercase()));
    for subscription in [None, Some("a"), Some("B"), Some("none")] {
        for group in [None, Some("X"), Some("y")] {
            for deleted in [false, true] {
                let filter = ResourceFilter { kind: ResourceKind::Workspace, subscription, group, deleted };
                let same =
                    |text: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(text));
                let expected: Vec<_> = all
                    .iter()
                    .filter(|row| same(&row.subscription, subscription) && same(&row.group, group))
                    .filter(|row| row.deleted.is_some() == deleted)
                    .cloned()
                    .collect();
                for size in [1, 2, 100] {
                    let mut found: Vec<ResourceRow> = Vec::new();
                    loop {
                        let page = catalog.resources(filter, found.last(), size).await.unwrap();
                        if page.is_empty() {
                            break;
                        }
                        found.extend(page);
                    }
                    assert_eq!(found, expected, "{filter:?}, {size}");
                }
            }
        }
    }
    let clusters = ResourceFilter { kind: ResourceKind::Cluster, subscription: None, group: None, deleted: false };
    assert_eq!(catalog.resources(clusters, None, 100).await.unwrap(), []);
}

/// Scenario: operations of resources begin, end and are asked to begin again, each change twice. Guarantee: a resource has one running
/// operation, which a refusal names; one that has ended never changes; versions and ends are consistent.
#[tokio::test]
async fn a_resource_has_one_running_operation_and_an_ended_one_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let first = operation(1, 1);
    for _ in 0..2 {
        catalog.apply(run(&first, None)).await.unwrap();
    }
    catalog.apply(run(&operation(2, 2), None)).await.expect("of another resource");
    match catalog.apply(run(&operation(3, 1), None)).await.unwrap_err() {
        error @ CatalogError::Busy { resource, operation } => {
            assert_eq!((resource, operation), (first.resource, first.id));
            assert!(error.is_decision());
        }
        other => panic!("{other:?}"),
    }
    let other = OperationRow { kind: "Other".into(), ..first.clone() };
    let refused = catalog.apply(run(&other, None)).await;
    assert!(matches!(refused, Err(CatalogError::Conflict { kind: "operation", .. })), "{refused:?}");
    assert_eq!(catalog.running_operations().await.unwrap(), [first.clone(), operation(2, 2)]);

    let step = OperationRow { document: "{\"step\":1}".into(), version: 2, changed: UnixNanos(3), ..first.clone() };
    for _ in 0..2 {
        catalog.apply(run(&step, Some(1))).await.unwrap();
    }
    let stale = ended(&first, OperationState::Canceled, 9);
    let refused = catalog.apply(run(&stale, Some(1))).await;
    assert!(matches!(refused, Err(CatalogError::Stale { kind: "operation", .. })), "{refused:?}");
    let done = ended(&step, OperationState::Succeeded, 10);
    let wrong = [
        OperationRow { ended: None, ..done.clone() },
        OperationRow { state: OperationState::Running, ..done.clone() },
        OperationRow { target: "/another".into(), ..done.clone() },
        OperationRow { document: "x".repeat((256 << 10) + 1), ..done.clone() },
        OperationRow { version: 4, ..done.clone() },
    ];
    for row in wrong {
        let refused = catalog.apply(run(&row, Some(2))).await;
        assert!(matches!(refused, Err(CatalogError::Invalid { kind: "operation", .. })), "{refused:?}");
    }
    for _ in 0..2 {
        catalog.apply(run(&done, Some(2))).await.unwrap();
    }
    assert_eq!(catalog.operation(first.id).await.unwrap(), Some(done.clone()));
    let again = OperationRow { state: OperationState::Running, ended: None, version: 4, ..done.clone() };
    for row in [ended(&done, OperationState::Failed, 11), again] {
        let refused = catalog.apply(run(&row, Some(3))).await;
        assert!(matches!(refused, Err(CatalogError::Stale { .. })), "{refused:?}");
    }
    catalog.apply(run(&operation(3, 1), None)).await.expect("the resource is free again");
}

/// Scenario: operations of two subscriptions, in several states, are listed in pages and forgotten. Guarantee: the pages of a filter
/// are all that it lets through, newest first; those that ended before a time go, others and running ones stay.
#[tokio::test]
async fn operations_are_listed_newest_first_and_forgotten_when_they_ended_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let mut all = Vec::new();
    for id in 1..=40_u8 {
        let subscription = if id % 2 == 0 { "Even" } else { "Odd" };
        let row = OperationRow { subscription: subscription.into(), ..operation(id, id % 5) };
        let state = [OperationState::Succeeded, OperationState::Failed][usize::from(id % 3 == 0)];
        let row = if id > 35 { row } else { OperationRow { version: 1, ..ended(&row, state, i64::from(id)) } };
        catalog.apply(run(&row, None)).await.unwrap();
        all.insert(0, row);
    }
    for subscription in [None, Some("even"), Some("none")] {
        for resource in [None, Some(ResourceId::from_bytes([2; 16]))] {
            for state in [None, Some(OperationState::Running), Some(OperationState::Failed)] {
                let filter = OperationFilter { subscription, resource, state };
                let expected: Vec<_> = all
                    .iter()
                    .filter(|row| subscription.is_none_or(|wanted| wanted.eq_ignore_ascii_case(&row.subscription)))
                    .filter(|row| resource.is_none_or(|wanted| wanted == row.resource))
                    .filter(|row| state.is_none_or(|wanted| wanted == row.state))
                    .cloned()
                    .collect();
                let mut found: Vec<OperationRow> = Vec::new();
                loop {
                    let page = catalog.operations(filter, found.last().map(|row| row.id), 3).await.unwrap();
                    if page.is_empty() {
                        break;
                    }
                    found.extend(page);
                }
                assert_eq!(found, expected, "{filter:?}");
            }
        }
    }
    catalog.apply(Change::ForgetOperations { ended_before: UnixNanos(30) }).await.unwrap();
    let left = catalog.operations(OperationFilter::default(), None, 100).await.unwrap();
    assert_eq!(left, all[..11], "30 and later, and those that go on");
}

/// Scenario: several changes are one, and the last of them is refused; then none is. Guarantee: none of them is there; then all are.
#[tokio::test]
async fn several_changes_happen_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = filled(&dir).await;
    let row = resource(1, "a");
    let busy = Change::All(vec![put(&row, None), run(&operation(1, 1), None), run(&operation(2, 1), None)]);
    assert!(matches!(catalog.apply(busy).await, Err(CatalogError::Busy { .. })));
    assert_eq!(catalog.resource_by_id(row.id).await.unwrap(), None);
    assert_eq!(catalog.running_operations().await.unwrap(), []);
    let nested = Change::All(vec![put(&row, None), Change::All(vec![])]);
    assert!(matches!(catalog.apply(nested).await, Err(CatalogError::Invalid { .. })));
    let both = Change::All(vec![put(&row, None), run(&operation(1, 1), None), Change::Audit(entry(1))]);
    for _ in 0..2 {
        catalog.apply(both.clone()).await.unwrap();
    }
    assert_eq!(catalog.resource_by_id(row.id).await.unwrap(), Some(row));
    assert_eq!(catalog.running_operations().await.unwrap(), [operation(1, 1)]);
    assert_eq!(catalog.audit(None, 10).await.unwrap().len(), 1, "a repetition is not recorded twice");
}
