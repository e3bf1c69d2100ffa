//! The embedded vault against its contract: what is stored opens again, what was altered does not, and what may be done is done only then.

mod access;
mod life;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use logseal_core::UnixNanos;
use logseal_crypto::Key256;
use tempfile::TempDir;

use super::*;
use crate::{Caller, KeyVault as _};

const DAY: i64 = 86_400_000_000_000;

/// 2026-01-31T00:00:00Z.
const BEGIN: i64 = 1_769_817_600_000_000_000;

/// A clock that is set by hand.
#[derive(Debug)]
pub(crate) struct Hands(AtomicI64);

impl Hands {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(BEGIN)))
    }

    pub(crate) fn forward(&self, time: i64) {
        self.0.fetch_add(time, Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(Relaxed))
    }
}

fn root(byte: u8) -> RootKey {
    RootKey::new(Key256::copy_from_slice(&[byte; 32]).unwrap())
}

fn open(dir: &TempDir, root_byte: u8) -> Result<Arc<EmbeddedVault>, VaultError> {
    open_at(dir, root_byte, &Hands::new())
}

fn open_at(dir: &TempDir, root_byte: u8, hands: &Arc<Hands>) -> Result<Arc<EmbeddedVault>, VaultError> {
    let clock = Arc::clone(hands) as Arc<dyn Clock>;
    EmbeddedVault::open(dir.path().to_owned(), "https://127.0.0.1:8420/", &root(root_byte), clock).map(Arc::new)
}

fn client(vault: &Arc<EmbeddedVault>) -> EmbeddedClient {
    EmbeddedClient::new(Arc::clone(vault), Caller::Deployment)
}

fn name() -> KeyName {
    KeyName::parse("kek").unwrap()
}

fn secret() -> Key256 {
    Key256::copy_from_slice(&[7; 32]).unwrap()
}

fn principal(text: &str) -> PrincipalId {
    PrincipalId::parse(text).unwrap()
}

#[tokio::test]
async fn a_wrapped_key_opens_after_a_restart_with_the_version_that_wrapped_it() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let first = vault.create_key(&name(), 2048).await.unwrap();
    let wrapped = client(&vault).wrap(&first.id, &secret()).await.unwrap();
    assert_eq!(wrapped.len(), 256);
    let second = vault.rotate_key(&name()).await.unwrap();
    assert_ne!(first.id, second.id);
    drop(vault);

    let vault = open(&dir, 1).unwrap();
    assert_eq!(client(&vault).key(&name(), None).await.unwrap().id, second.id, "the newest version is the rotated one");
    assert!(client(&vault).unwrap(&first.id, &wrapped).await.unwrap().ct_eq(&secret()));
    assert!(matches!(client(&vault).unwrap(&second.id, &wrapped).await, Err(VaultError::BadWrap(_))));
}

#[tokio::test]
async fn a_disabled_version_neither_wraps_nor_unwraps_and_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    vault.set_enabled(&id.name, &id.version, false).unwrap();
    assert!(matches!(client(&vault).wrap(&id, &secret()).await, Err(VaultError::KeyDisabled(_))));
    assert!(matches!(client(&vault).unwrap(&id, &wrapped).await, Err(VaultError::KeyDisabled(_))));
    drop(vault);

    let vault = open(&dir, 1).unwrap();
    assert!(matches!(client(&vault).unwrap(&id, &wrapped).await, Err(VaultError::KeyDisabled(_))));
    vault.set_enabled(&id.name, &id.version, true).unwrap();
    assert!(client(&vault).unwrap(&id, &wrapped).await.unwrap().ct_eq(&secret()));
}

#[tokio::test]
async fn altered_files_and_foreign_root_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    vault.grant(&name(), principal("p-1"), [Permission::Get].into()).await.unwrap();
    drop(vault);
    let path = dir.path().join("keys/kek.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("PRIVATE"), "no clear private key");

    assert!(matches!(open(&dir, 2), Err(VaultError::Integrity { .. })), "another root key");
    for (from, to) in [
        ("\"enabled\": true", "\"enabled\": false"),
        ("\"purgeable\": false", "\"purgeable\": true"),
        ("\"welcoming\": true", "\"welcoming\": false"),
        ("\"get\"", "\"unwrapKey\""),
        ("p-1", "p-2"),
        ("\"expires\": null", "\"expires\": 1"),
        ("\"deletion\": null", "\"deletion\": {\"at\": 1, \"purgeAt\": 1}"),
        (id.version.as_str(), &"0".repeat(32)),
        ("\"format\": 2", "\"format\": 1"),
        ("privateKeySealed\": \"", "privateKeySealed\": \"AAAA"),
        ("\"name\": \"kek\"", "\"name\": \"key\""),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })), "{from} -> {to}");
    }
    std::fs::write(&path, "").unwrap();
    assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })));
    std::fs::write(&path, text.replace("\"format\": 2", "\"format\": 3")).unwrap();
    let message = open(&dir, 1).unwrap_err().to_string();
    assert!(message.contains("has format 3, this version of logseal knows formats 1 to 2"), "{message}");
    std::fs::write(&path, text).unwrap();
    std::fs::rename(&path, dir.path().join("keys/other.json")).unwrap();
    assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })), "a key under another name");
}

/// Writes `name`'s file as the first version of this program did.
fn write_format_1(dir: &TempDir, root_byte: u8) -> String {
    use logseal_crypto::{OsRandom, aad, seal};
    let (root, version, created) = (root(root_byte), "ab".repeat(16), BEGIN);
    let rsa = RsaKey::generate(2048).unwrap();
    let aad = aad::vault_private_key("kek", &version);
    let sealed = seal::seal(&root.vault_seal(), &aad, rsa.to_pkcs8().unwrap().as_ref(), OsRandom);
    let sealed = data_encoding::BASE64.encode(&sealed);
    let fields: [&[u8]; 5] = [b"kek", version.as_bytes(), &[1], &created.to_le_bytes(), sealed.as_bytes()];
    let mac = root.vault_mac().mac("embedded vault key v1", &fields);
    let file = json!({"format": 1, "mac": data_encoding::HEXLOWER.encode(mac.as_bytes()), "versions": [
        {"version": version, "enabled": true, "created": created, "privateKeySealed": sealed}]});
    std::fs::create_dir_all(dir.path().join("keys")).unwrap();
    std::fs::write(dir.path().join("keys/kek.json"), file.to_string()).unwrap();
    version
}

#[tokio::test]
async fn format_1_is_read_and_becomes_format_2_with_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let version = write_format_1(&dir, 1);
    let path = dir.path().join("keys/kek.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let vault = open(&dir, 1).unwrap();
    let key = client(&vault).key(&name(), None).await.unwrap();
    assert_eq!((key.id.version.as_str(), key.enabled, key.recoverable), (version.as_str(), true, true));
    let wrapped = client(&vault).wrap(&key.id, &secret()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before, "reading changes nothing");

    vault.welcome(&principal("new")).await.unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"format\": 2"));
    drop(vault);
    let vault = open(&dir, 1).unwrap();
    let newcomer = EmbeddedClient::new(Arc::clone(&vault), Caller::Principal(principal("new")));
    assert!(newcomer.unwrap(&key.id, &wrapped).await.unwrap().ct_eq(&secret()));

    std::fs::write(&path, before.replace("true", "false")).unwrap();
    assert!(matches!(open(&dir, 1), Err(VaultError::Integrity { .. })), "format 1 is authenticated too");
}

#[tokio::test]
async fn names_are_unique_without_regard_to_case_and_unknown_ones_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    vault.create_key(&name(), 2048).await.unwrap();
    let other_case = KeyName::parse("KEK").unwrap();
    for taken in [name(), other_case.clone()] {
        assert!(matches!(vault.create_key(&taken, 2048).await, Err(VaultError::Exists(_))));
    }
    assert_eq!(client(&vault).key(&other_case, None).await.unwrap().id.name, name(), "shown as its maker wrote it");
    assert!(matches!(vault.rotate_key(&KeyName::parse("none").unwrap()).await, Err(VaultError::NotFound(_))));
    assert!(matches!(vault.create_key(&KeyName::parse("odd").unwrap(), 1024).await, Err(VaultError::Invalid(_))));
}

#[tokio::test]
async fn altered_wraps_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(&dir, 1).unwrap();
    let id = vault.create_key(&name(), 2048).await.unwrap().id;
    let wrapped = client(&vault).wrap(&id, &secret()).await.unwrap();
    for index in [0, 100, 255] {
        let mut altered = wrapped.clone();
        altered[index] ^= 1;
        assert!(matches!(client(&vault).unwrap(&id, &altered).await, Err(VaultError::BadWrap(_))));
    }
    assert!(matches!(client(&vault).unwrap(&id, &[]).await, Err(VaultError::BadWrap(_))));
}
