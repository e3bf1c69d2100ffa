//! Deletion, recovery, purging and rotation, with a clock that is set by hand.

use super::*;
use crate::embedded::rotation::{Span, Trigger};

async fn is_there(vault: &Arc<EmbeddedVault>) -> bool {
    client(vault).key(&name(), None).await.is_ok()
}

#[tokio::test]
async fn a_deleted_key_does_nothing_keeps_its_name_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    assert!(matches!(vault.recover(&name()).await, Err(VaultError::NotFound(_))), "it is not deleted");
    let deleted = vault.delete(&name()).await.unwrap();
    assert_eq!(deleted.deletion.unwrap().purge_at, UnixNanos(BEGIN + 90 * DAY));
    for _restart in 0..2 {
        let vault = open(&dir, 1).unwrap();
        assert!(matches!(client(&vault).key(&name(), None).await, Err(VaultError::NotFound(_))));
        assert!(matches!(client(&vault).wrap(&id, &secret()).await, Err(VaultError::NotFound(_))));
        assert!(matches!(client(&vault).unwrap(&id, &wrapped).await, Err(VaultError::NotFound(_))));
        assert!(matches!(vault.create_key(&name(), 2048).await, Err(VaultError::Deleted(_))));
        assert!(matches!(vault.rotate_key(&name()).await, Err(VaultError::NotFound(_))));
        assert!(matches!(vault.set_enabled(&name(), &id.version, true), Err(VaultError::NotFound(_))));
        assert!(matches!(vault.delete(&name()).await, Err(VaultError::NotFound(_))));
        assert!(matches!(vault.purge(&name()).await, Err(VaultError::PurgeProtected(_))));
    }
    vault.recover(&name()).await.unwrap();
    assert!(client(&vault).unwrap(&id, &wrapped).await.unwrap().ct_eq(&secret()));
    assert!(client(&open(&dir, 1).unwrap()).unwrap(&id, &wrapped).await.is_ok(), "after a restart too");
}

#[tokio::test]
async fn a_purgeable_key_can_be_purged_at_once_and_says_that_it_is_not_recoverable() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    vault.create(&name(), 2048, NewKey { purgeable: true, ..NewKey::default() }).await.unwrap();
    assert!(!client(&vault).key(&name(), None).await.unwrap().recoverable);
    assert!(matches!(vault.purge(&name()).await, Err(VaultError::NotFound(_))), "it is not deleted");
    vault.delete(&name()).await.unwrap();
    vault.purge(&name()).await.unwrap();
    assert!(matches!(vault.recover(&name()).await, Err(VaultError::NotFound(_))));
    assert!(!dir.path().join("keys/kek.json").exists());
    vault.create_key(&name(), 2048).await.expect("the name is free again");
}

#[tokio::test]
async fn a_deleted_key_goes_by_itself_when_its_retention_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let vault = open_at(&dir, 1, &hands).unwrap();
    vault.create_key(&name(), 2048).await.unwrap();
    vault.delete(&name()).await.unwrap();
    hands.forward(90 * DAY - 1);
    vault.do_what_is_due().await;
    assert!(vault.state.key(&name()).is_ok());
    hands.forward(1);
    vault.do_what_is_due().await;
    assert!(vault.state.key(&name()).is_err());
    assert!(open(&dir, 1).unwrap().state.key(&name()).is_err());
}

fn policy(rotate: Option<Trigger>, expiry: Option<Span>) -> RotationPolicy {
    RotationPolicy { rotate, notify: None, expiry, created: 0, updated: 0 }
}

#[tokio::test]
async fn a_key_is_rotated_when_its_policy_says_and_its_new_version_expires_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let vault = open_at(&dir, 1, &hands).unwrap();
    let first = vault.create_key(&name(), 2048).await.unwrap().id;
    let after = Some(Trigger::TimeAfterCreate(Span::days(30)));
    assert!(matches!(
        vault.set_policy(&name(), policy(Some(Trigger::TimeBeforeExpiry(Span::days(30))), None)).await,
        Err(VaultError::Invalid(_))
    ));
    vault.set_policy(&name(), policy(after, Some(Span::days(60)))).await.unwrap();
    hands.forward(30 * DAY - 1);
    vault.do_what_is_due().await;
    assert_eq!(client(&vault).key(&name(), None).await.unwrap().id, first);
    drop(vault);

    let vault = open_at(&dir, 1, &hands).unwrap();
    hands.forward(1);
    vault.do_what_is_due().await;
    let second = client(&vault).key(&name(), None).await.unwrap();
    assert_ne!(second.id, first);
    assert_eq!(second.expires, Some(UnixNanos(BEGIN + 90 * DAY)));
    vault.do_what_is_due().await;
    assert_eq!(client(&vault).key(&name(), None).await.unwrap().id, second.id, "once");

    let before = Some(Trigger::TimeBeforeExpiry(Span::days(10)));
    vault.set_policy(&name(), policy(before, Some(Span::days(60)))).await.unwrap();
    hands.forward(49 * DAY);
    vault.do_what_is_due().await;
    assert_eq!(client(&vault).key(&name(), None).await.unwrap().id, second.id);
    hands.forward(DAY);
    vault.do_what_is_due().await;
    assert_ne!(client(&vault).key(&name(), None).await.unwrap().id, second.id);
}

#[tokio::test]
async fn a_policy_does_not_bring_back_what_its_owner_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let vault = open_at(&dir, 1, &hands).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    vault.set_policy(&name(), policy(Some(Trigger::TimeAfterCreate(Span::days(7))), None)).await.unwrap();
    vault.set_enabled(&name(), &id.version, false).unwrap();
    hands.forward(8 * DAY);
    vault.do_what_is_due().await;
    assert_eq!(vault.state.key(&name()).unwrap().versions.len(), 1, "the newest version is disabled");
    vault.set_enabled(&name(), &id.version, true).unwrap();
    vault.delete(&name()).await.unwrap();
    vault.do_what_is_due().await;
    assert_eq!(vault.state.key(&name()).unwrap().versions.len(), 1, "the key is deleted");
    vault.recover(&name()).await.unwrap();
    vault.do_what_is_due().await;
    assert!(is_there(&vault).await);
    assert_eq!(vault.state.key(&name()).unwrap().versions.len(), 2);
}
