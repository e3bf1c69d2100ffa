//! A cluster's key changes under many workspaces and segments.
//!
//! The long form has 1,000 workspaces and 1,000,000 segments, and asserts the goal: what the vault takes for 1,000 unwraps, wraps and
//! verifications, which a control of the same number measures in the same run, and 2 s.
//!
//! ```text
//! LOGSEAL_ROTATION_WORKSPACES=1000 LOGSEAL_ROTATION_SEGMENTS=1000000 cargo test --release --workspace --test reads rotation -- --nocapture
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use logseal_core::SystemClock;
use logseal_crypto::{Key256, OsRandom, RootKey};
use logseal_vault::{Caller, EmbeddedClient, EmbeddedVault, KeyName, KeyVault as _};
use serde_json::json;

use crate::deployment::{Deployment, Size};
use crate::report;

/// What a rotation may take beyond the vault's own time.
const BEYOND: Duration = Duration::from_secs(2);

/// The time that a vault of its own takes to unwrap `keys` keys of one version, wrap them by the next one, and verify each.
async fn control(keys: usize) -> Duration {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = RootKey::new(Key256::copy_from_slice(&[1; 32]).expect("256 bits"));
    let vault = EmbeddedVault::open(dir.path().to_owned(), "https://vault.test", &root, Arc::new(SystemClock));
    let vault = Arc::new(vault.expect("an empty folder"));
    let name = KeyName::parse("kek").expect("a name");
    let first = vault.create_key(&name, 2048).await.expect("a key").id;
    let second = vault.rotate_key(&name).await.expect("a version").id;
    let client = EmbeddedClient::new(vault, Caller::Deployment);
    let key = Key256::generate(OsRandom);
    let wrapped = client.wrap(&first, &key).await.expect("a vault that wraps");
    let start = Instant::now();
    for _ in 0..keys {
        let unwrapped = client.unwrap(&first, &wrapped).await.expect("wrapped a moment ago");
        let renewed = client.wrap(&second, &unwrapped).await.expect("a vault that wraps");
        assert!(client.unwrap(&second, &renewed).await.expect("wrapped a moment ago").ct_eq(&key));
    }
    start.elapsed()
}

/// Scenario: a cluster with many workspaces and segments goes from one version of its key to the next. Guarantee: every account key is under the
/// new version then, and no segment's row has changed; in the long form it takes no more than 2 s beyond the vault's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_costs_the_vaults_time_and_touches_no_segment() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<usize>().expect("a number"));
    let workspaces = number("LOGSEAL_ROTATION_WORKSPACES").unwrap_or(10);
    let segments = number("LOGSEAL_ROTATION_SEGMENTS").unwrap_or(1_000);
    let deployment = Deployment::new(Size { workspaces, operations: 0, segments }).await;
    deployment.command(&["vault", "key", "create", "kek", "--size", "2048"]);
    let cluster = deployment.path("clusters/local", "");
    let adopt = |version: &str| {
        let reference = json!({"keyVaultUri": "https://127.0.0.1:8420", "keyName": "kek", "keyVersion": version});
        Some(json!({"properties": {"keyVaultProperties": reference}}))
    };
    deployment.operation(Method::PATCH, &cluster, adopt("")).await;
    let before = deployment.json(Method::GET, &cluster, None).await;
    let rotated: serde_json::Value =
        serde_json::from_str(&deployment.command(&["vault", "key", "rotate", "kek", "--json"])).expect("JSON");
    let newest = rotated["key"]["kid"].as_str().and_then(|kid| kid.rsplit('/').next()).expect("a version").to_owned();
    assert_ne!(before["properties"]["keyState"]["resolvedVersion"], newest.as_str());

    let vaults = control(workspaces).await;
    let start = Instant::now();
    deployment.operation(Method::PATCH, &cluster, adopt(&newest)).await;
    let took = start.elapsed();
    report(&format!(
        "\nrotation of {workspaces} workspaces with {segments} segments: {took:.2?}; the vault alone {vaults:.2?}"
    ));

    let after = deployment.json(Method::GET, &cluster, None).await;
    let versions = after["properties"]["keyState"]["versions"].as_array().expect("versions").clone();
    let wrapped = |version: &serde_json::Value| version["wrappedKeys"].as_u64().expect("a number");
    let under: Vec<_> = versions.iter().filter(|version| wrapped(version) > 0).collect();
    assert_eq!((under.len(), wrapped(under[0])), (1, workspaces as u64), "{after}");
    assert_eq!(under[0]["version"], newest.as_str());
    assert!(workspaces < 100 || took <= vaults + BEYOND, "{took:?} for {workspaces} workspaces; the vault: {vaults:?}");
    assert!(deployment.segments_are_as_planted().await, "a rotation concerns account keys alone");
}
