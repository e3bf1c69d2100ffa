//! The client against the embedded vault's REST face: real keys, and the same answers as the vault itself gives.

use std::mem::discriminant;
use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use logseal_core::{SystemClock, SystemSteadyClock, UnixNanos};
use logseal_crypto::{BearerToken, Key256, RootKey};
use logseal_vault::azure::AzureKeyVault;
use logseal_vault::rest::{Clusters, Face, router};
use logseal_vault::{
    Caller, EmbeddedClient, EmbeddedVault, KeyId, KeyName, KeyProperties, KeyVault, KeyVersion, PrincipalId, VaultError,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::stub::Authority;
use crate::world::{HOST, KEY, NumberedTokens, PUBLIC, ScriptedNetwork, VAULT, client, parts, settings, uri};

#[derive(Debug)]
struct NoClusters;

#[async_trait::async_trait]
impl Clusters for NoClusters {
    async fn principals(&self) -> Result<Vec<PrincipalId>, String> {
        Ok(Vec::new())
    }
}

/// One vault, seen through its REST face and in process.
struct Both {
    vault: Arc<EmbeddedVault>,
    remote: AzureKeyVault,
    local: EmbeddedClient,
    _dir: TempDir,
}

async fn both() -> Both {
    let dir = tempfile::tempdir().unwrap();
    let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).unwrap());
    let vault = EmbeddedVault::open(dir.path().to_owned(), VAULT, &root, Arc::new(SystemClock)).unwrap();
    let vault = Arc::new(vault);
    let token = BearerToken::new(Zeroizing::new("token-1".to_owned()));
    let (clusters, clock) = (Arc::new(NoClusters), Arc::new(SystemSteadyClock));
    let face = router(Face { vault: Arc::clone(&vault), token, clusters, clock });

    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&[PUBLIC]]);
    network.route(&format!("{PUBLIC}:443"), Some(listener.local_addr().unwrap()));
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(HOST, (2020, 2100))));
    tokio::spawn(serve(listener, acceptor, face));
    let remote = client(uri(), Arc::new(NumberedTokens::default()), &parts(network, &authority, settings()));
    let local = EmbeddedClient::new(Arc::clone(&vault), Caller::Deployment);
    Both { vault, remote, local, _dir: dir }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, face: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, face) = (acceptor.clone(), face.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(face)).await;
        });
    }
}

fn secret() -> Key256 {
    Key256::copy_from_slice(&KEY).unwrap()
}

#[tokio::test]
async fn keys_look_the_same_and_open_what_the_other_side_wrapped() {
    let Both { vault, remote, local, _dir } = both().await;
    let name = KeyName::parse("Log-Kek").unwrap();
    let first = vault.create_key(&name, 2048).await.unwrap().id;
    let second = vault.rotate_key(&name).await.unwrap().id;
    for version in [None, Some(&first.version), Some(&second.version)] {
        // The keys API has whole seconds.
        let whole = |found: KeyProperties| KeyProperties {
            created: UnixNanos(found.created.seconds() * 1_000_000_000),
            ..found
        };
        let seen = remote.key(&name, version).await.unwrap();
        assert_eq!(seen, whole(local.key(&name, version).await.unwrap()), "{version:?}");
        assert_eq!(seen.id, if version == Some(&first.version) { first.clone() } else { second.clone() });
    }
    for kek in [&first, &second] {
        let by_remote = remote.wrap(kek, &secret()).await.unwrap();
        let by_local = local.wrap(kek, &secret()).await.unwrap();
        assert!(local.unwrap(kek, &by_remote).await.unwrap().ct_eq(&secret()));
        assert!(remote.unwrap(kek, &by_local).await.unwrap().ct_eq(&secret()));
    }
}

#[tokio::test]
async fn failures_are_the_same_as_the_vaults_own() {
    let Both { vault, remote, local, _dir } = both().await;
    let name = KeyName::parse("kek").unwrap();
    let good = vault.create_key(&name, 2048).await.unwrap().id;
    let wrapped = local.wrap(&good, &secret()).await.unwrap();
    let disabled = vault.rotate_key(&name).await.unwrap().id;
    vault.set_enabled(&name, &disabled.version, false).unwrap();
    let no_key = KeyId { name: KeyName::parse("none").unwrap(), ..good.clone() };
    let no_version = KeyId { version: KeyVersion::from_bytes([1; 16]), ..good.clone() };

    let mut altered = wrapped.clone();
    altered[100] ^= 1;
    for (kek, wrapped) in [
        (&disabled, &wrapped),
        (&no_key, &wrapped),
        (&no_version, &wrapped),
        (&good, &altered),
        (&good, &wrapped[1..].to_vec()),
    ] {
        let errors = [remote.unwrap(kek, wrapped).await.unwrap_err(), local.unwrap(kek, wrapped).await.unwrap_err()];
        assert_alike(&errors);
    }
    for kek in [&disabled, &no_key, &no_version] {
        let errors = [remote.wrap(kek, &secret()).await.unwrap_err(), local.wrap(kek, &secret()).await.unwrap_err()];
        assert_alike(&errors);
    }
    for (name, version) in [(&no_key.name, None), (&name, Some(&no_version.version))] {
        let errors = [remote.key(name, version).await.unwrap_err(), local.key(name, version).await.unwrap_err()];
        assert_alike(&errors);
    }
    assert!(!remote.key(&name, None).await.unwrap().enabled, "a disabled key is shown as one");
}

fn assert_alike(errors: &[VaultError; 2]) {
    let [remote, local] = errors;
    assert_eq!(discriminant(remote), discriminant(local), "{errors:?}");
    assert_eq!(remote.class(), local.class(), "{errors:?}");
}
