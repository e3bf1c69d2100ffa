//! Who may do what, and when.

use super::*;
use crate::embedded::key::KeyOperation;
use crate::events::VaultEvents;

#[derive(Debug, Default)]
struct Reports(Mutex<Vec<VaultEvent>>);

#[async_trait::async_trait]
impl VaultEvents for Reports {
    async fn report(&self, event: VaultEvent) {
        self.0.lock().unwrap().push(event);
    }
}

fn asked_as(vault: &Arc<EmbeddedVault>, caller: Caller) -> EmbeddedClient {
    EmbeddedClient::new(Arc::clone(vault), caller)
}

#[tokio::test]
async fn an_identity_needs_each_permission_and_nobody_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    let cluster = asked_as(&vault, Caller::Principal(principal("c")));
    for granted in Permission::ALL {
        vault.grant(&name(), principal("C"), [granted].into()).await.unwrap();
        let answers = [
            (Permission::Get, cluster.key(&name(), None).await.err()),
            (Permission::WrapKey, cluster.wrap(&id, &secret()).await.err()),
            (Permission::UnwrapKey, cluster.unwrap(&id, &wrapped).await.err()),
        ];
        for (needed, error) in answers {
            let denied = matches!(error, Some(VaultError::AccessDenied { permission, .. }) if permission == needed);
            assert_eq!((denied, error.is_none()), (needed != granted, needed == granted), "{needed} with {granted}");
        }
    }
    let nobody = asked_as(&vault, Caller::Nobody);
    assert!(matches!(nobody.key(&name(), None).await, Err(VaultError::NoIdentity)));
    assert!(matches!(nobody.unwrap(&id, &wrapped).await, Err(VaultError::NoIdentity)));
    drop((vault, cluster, nobody));
    let cluster = asked_as(&open(&dir, 1).unwrap(), Caller::Principal(principal("c")));
    assert!(cluster.unwrap(&id, &wrapped).await.is_ok(), "grants outlive a restart");
    assert!(matches!(cluster.wrap(&id, &secret()).await, Err(VaultError::AccessDenied { .. })));
}

#[tokio::test]
async fn new_clusters_are_welcomed_on_the_keys_that_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let reserved = KeyName::parse("reserved").unwrap();
    let clock = Hands::new() as Arc<dyn Clock>;
    let vault = EmbeddedVault::open(dir.path().to_owned(), "https://v", &root(1), clock).unwrap();
    let vault = Arc::new(vault.reserving(reserved.clone()));
    let closed = KeyName::parse("closed").unwrap();
    vault.create_key(&reserved, 2048).await.unwrap();
    vault.create_key(&name(), 2048).await.unwrap();
    vault.create(&closed, 2048, NewKey { welcoming: false, ..NewKey::default() }).await.unwrap();
    let reports = Arc::new(Reports::default());
    vault.report_to(Arc::clone(&reports) as _);

    for _ in 0..2 {
        vault.welcome(&principal("c")).await.unwrap();
    }
    let later = KeyName::parse("later").unwrap();
    vault.create(&later, 2048, NewKey { grants: vec![principal("d")], ..NewKey::default() }).await.unwrap();
    let cluster = asked_as(&vault, Caller::Principal(principal("c")));
    assert!(cluster.key(&name(), None).await.is_ok());
    assert!(
        cluster.key(&later, None).await.is_ok(),
        "a key that was being made while the cluster came grants to it too"
    );
    for kept in [&reserved, &closed] {
        assert!(matches!(cluster.key(kept, None).await, Err(VaultError::AccessDenied { .. })), "{kept}");
    }
    let granted: Vec<_> = reports.0.lock().unwrap().iter().map(|event| (event.action, event.key.clone())).collect();
    assert_eq!(granted[0], (action::GRANT, "kek".to_owned()));
    assert!(
        granted[1..].iter().all(|(action, _)| *action == action::READ),
        "repeating it changes nothing: {granted:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_reported_once_until_the_caller_is_admitted_again() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let reports = Arc::new(Reports::default());
    vault.report_to(Arc::clone(&reports) as _);
    let cluster = asked_as(&vault, Caller::Principal(principal("c")));
    let count = || reports.0.lock().unwrap().len();
    for _ in 0..3 {
        assert!(cluster.wrap(&id, &secret()).await.is_err());
    }
    assert_eq!(count(), 1);
    let event = reports.0.lock().unwrap()[0].clone();
    assert_eq!((event.actor.as_str(), event.outcome.as_str(), event.action), ("c", "AccessDenied", action::WRAP));
    vault.grant(&name(), principal("c"), Permission::ALL.into()).await.unwrap();
    assert!(cluster.wrap(&id, &secret()).await.is_ok());
    vault.grant(&name(), principal("c"), [].into()).await.unwrap();
    assert!(cluster.wrap(&id, &secret()).await.is_err());
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn outside_of_its_validity_time_a_key_makes_nothing_new_and_still_opens() {
    let dir = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let vault = open_at(&dir, 1, &hands).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    let change = VersionChange {
        not_before: Some(UnixNanos(BEGIN + DAY)),
        expires: Some(UnixNanos(BEGIN + 2 * DAY)),
        ..VersionChange::default()
    };
    vault.update(&name(), id.version.clone(), change).await.unwrap();
    for (why, wraps) in [("not yet valid", false), ("", true), ("expired", false)] {
        let answer = client(&vault).wrap(&id, &secret()).await;
        match answer {
            Ok(_) => assert!(wraps, "{why}"),
            Err(VaultError::OutsideValidity { why: told, .. }) => assert_eq!((told, wraps), (why, false)),
            Err(other) => panic!("{other}"),
        }
        assert!(client(&vault).unwrap(&id, &wrapped).await.unwrap().ct_eq(&secret()), "{why}");
        hands.forward(DAY);
    }
    let properties = client(&vault).key(&name(), None).await.unwrap();
    assert_eq!(
        (properties.not_before, properties.expires),
        (Some(UnixNanos(BEGIN + DAY)), Some(UnixNanos(BEGIN + 2 * DAY)))
    );
    let backwards = VersionChange { expires: Some(UnixNanos(BEGIN)), ..VersionChange::default() };
    assert!(matches!(vault.update(&name(), id.version, backwards).await, Err(VaultError::Invalid(_))));
}

#[tokio::test]
async fn a_key_does_only_what_its_list_of_operations_says() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    let change = VersionChange { operations: Some([KeyOperation::UnwrapKey].into()), ..VersionChange::default() };
    vault.update(&name(), id.version.clone(), change).await.unwrap();
    assert!(matches!(client(&vault).wrap(&id, &secret()).await, Err(VaultError::OperationNotAllowed { .. })));
    assert!(client(&vault).unwrap(&id, &wrapped).await.is_ok());
}
