//! The embedded vault against its contract: what is stored opens again, what was altered does not.

use logseal_core::SystemClock;

use super::*;

fn root(byte: u8) -> RootKey {
    RootKey::new(Key256::copy_from_slice(&[byte; 32]).unwrap())
}

fn open(dir: &tempfile::TempDir, root_byte: u8) -> Result<Arc<EmbeddedVault>, VaultError> {
    EmbeddedVault::open(dir.path().to_owned(), "https://127.0.0.1:8420/", &root(root_byte), Arc::new(SystemClock))
        .map(Arc::new)
}

fn client(vault: &Arc<EmbeddedVault>) -> EmbeddedClient {
    EmbeddedClient::new(Arc::clone(vault), Caller::Deployment)
}

fn name() -> KeyName {
    KeyName::parse("kek").unwrap()
}

#[tokio::test]
async fn a_wrapped_key_opens_after_a_restart_with_the_version_that_wrapped_it() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let first = vault.create_key(&name(), 2048).await.unwrap();
    let secret = Key256::copy_from_slice(&[7; 32]).unwrap();
    let wrapped = client(&vault).wrap(&first.id, &secret).await.unwrap();
    assert_eq!(wrapped.len(), 256);
    let second = vault.rotate_key(&name()).await.unwrap();
    assert_ne!(first.id, second.id);
    drop(vault);

    let vault = open(&dir, 1).unwrap();
    assert_eq!(client(&vault).key(&name(), None).await.unwrap().id, second.id, "the newest version is the rotated one");
    assert!(client(&vault).unwrap(&first.id, &wrapped).await.unwrap().ct_eq(&secret));
    assert!(matches!(client(&vault).unwrap(&second.id, &wrapped).await, Err(VaultError::BadWrap(_))));
}

#[tokio::test]
async fn a_disabled_version_neither_wraps_nor_unwraps_and_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let secret = Key256::copy_from_slice(&[7; 32]).unwrap();
    let wrapped = client(&vault).wrap(&id, &secret).await.unwrap();
    vault.set_enabled(&id.name, &id.version, false).unwrap();
    assert!(matches!(client(&vault).wrap(&id, &secret).await, Err(VaultError::KeyDisabled(_))));
    assert!(matches!(client(&vault).unwrap(&id, &wrapped).await, Err(VaultError::KeyDisabled(_))));
    drop(vault);

    let vault = open(&dir, 1).unwrap();
    assert!(matches!(client(&vault).unwrap(&id, &wrapped).await, Err(VaultError::KeyDisabled(_))));
    vault.set_enabled(&id.name, &id.version, true).unwrap();
    assert!(client(&vault).unwrap(&id, &wrapped).await.unwrap().ct_eq(&secret));
}

#[tokio::test]
async fn altered_files_and_foreign_root_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let id = open(&dir, 1).unwrap().create_key(&name(), 2048).await.unwrap().id;
    let path = dir.path().join("keys/kek.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("PRIVATE"), "no clear private key");

    assert!(matches!(open(&dir, 2), Err(VaultError::Integrity { .. })), "another root key");
    for altered in [
        text.replace("\"enabled\": true", "\"enabled\": false"),
        text.replace(id.version.as_str(), &"0".repeat(32)),
        text.replace("\"format\": 1", "\"format\": 2"),
        text.replace("privateKeySealed\": \"", "privateKeySealed\": \"AAAA"),
        String::new(),
    ] {
        std::fs::write(&path, altered).unwrap();
        assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })));
    }
    std::fs::write(&path, text).unwrap();
    std::fs::rename(&path, dir.path().join("keys/other.json")).unwrap();
    assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })), "a key under another name");
}

#[tokio::test]
async fn names_are_unique_and_unknown_ones_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    vault.create_key(&name(), 2048).await.unwrap();
    assert!(matches!(vault.create_key(&name(), 2048).await, Err(VaultError::Exists(_))));
    assert!(matches!(vault.rotate_key(&KeyName::parse("none").unwrap()).await, Err(VaultError::NotFound(_))));
    assert!(matches!(vault.create_key(&KeyName::parse("odd").unwrap(), 1024).await, Err(VaultError::Rsa(_))));
}

#[tokio::test]
async fn altered_wraps_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &Key256::copy_from_slice(&[7; 32]).unwrap()).await.unwrap();
    for index in [0, 100, 255] {
        let mut altered = wrapped.clone();
        altered[index] ^= 1;
        assert!(matches!(client(&vault).unwrap(&id, &altered).await, Err(VaultError::BadWrap(_))));
    }
    assert!(matches!(client(&vault).unwrap(&id, &[]).await, Err(VaultError::BadWrap(_))));
}
