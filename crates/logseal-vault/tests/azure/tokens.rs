//! Tokens: for whom they are asked, when they are replaced, and that nobody else sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use logseal_vault::azure::{AzureSettings, AzureVaults, Credential};
use logseal_vault::uri::Audience;
use logseal_vault::{KeyId, KeyVault, PrincipalId, VaultError, VaultErrorClass, VaultUriPolicy};

use crate::stub::{Authority, Step, Stub};
use crate::world::{
    KEY, NumberedTokens, PUBLIC, ScriptedNetwork, World, client, good, kek, parts, result_of, settings,
};

fn challenge() -> Step {
    let header =
        "www-authenticate: Bearer authorization=\"https://evil.example/tenant\", resource=\"https://evil.example\"\r\n";
    Step::Answer(401, header, br#"{"error":{"code":"Unauthorized","message":"x"}}"#.to_vec())
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let world = World::new([challenge(), good(), good()]).await;
    assert!(world.unwrap().await.is_ok() && world.unwrap().await.is_ok());
    let shown: Vec<_> = world.stub.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(shown, ["Bearer token-1", "Bearer token-2", "Bearer token-2"]);
    assert_eq!(*world.source.asked.lock().unwrap(), [Audience::Public; 2], "whatever the challenge names");
    assert_eq!(world.network.called().len(), 1, "nobody else was called");

    let world = World::new([challenge(), challenge(), good()]).await;
    let error = world.unwrap().await.unwrap_err();
    assert!(matches!(error, VaultError::Unauthorized), "{error:?}");
    assert_eq!(error.class(), VaultErrorClass::Trouble, "a token that is not taken is no revocation");
    assert_eq!(world.stub.seen().len(), 2);

    // A new token does not use up the repetitions, and a repetition does not allow a second new token.
    let busy = || Step::Answer(503, "", Vec::new());
    let world = World::new([busy(), challenge(), busy(), good()]).await;
    assert!(world.unwrap().await.is_ok());
    let world = World::new([challenge(), busy(), challenge(), good()]).await;
    assert!(matches!(world.unwrap().await, Err(VaultError::Unauthorized)));
}

#[tokio::test]
async fn without_a_token_nobody_is_called() {
    let hasty = AzureSettings { call_timeout: Duration::from_millis(200), ..settings() };
    for (fails, settings) in [(true, settings()), (false, hasty)] {
        let source = NumberedTokens { fails, hangs: !fails, ..NumberedTokens::default() };
        let world = World::with(settings, source, [good()]).await;
        let error = world.unwrap().await.unwrap_err();
        assert!(matches!(error, VaultError::Token(_)), "{error:?}");
        assert_eq!(error.class(), VaultErrorClass::Trouble);
        assert!(world.network.called().is_empty());
    }
}

#[tokio::test]
async fn each_cloud_has_its_own_audience() {
    for (host, audience) in [
        ("kv.vault.azure.net", Audience::Public),
        ("kv.vault.usgovcloudapi.net", Audience::Government),
        ("kv.vault.azure.cn", Audience::China),
        ("hsm.managedhsm.azure.net", Audience::ManagedHsm),
    ] {
        let authority = Authority::new();
        let kek = KeyId { vault_uri: format!("https://{host}").into(), ..kek() };
        let answer = Step::Answer(200, "", result_of(&kek.to_string(), &KEY));
        let stub = Stub::start(Some(authority.server(host, (2020, 2100))), [answer]).await;
        let network = Arc::new(ScriptedNetwork::default());
        network.names(&[&[PUBLIC]]);
        network.route(&format!("{PUBLIC}:443"), Some(stub.address));
        let source = Arc::new(NumberedTokens::default());
        let uri = VaultUriPolicy::default().parse(&kek.vault_uri).unwrap();
        let vault = client(uri, Arc::<NumberedTokens>::clone(&source), &parts(network, &authority, settings()));
        assert_eq!(vault.unwrap(&kek, &[1]).await.unwrap().expose(), &KEY);
        assert_eq!(*source.asked.lock().unwrap(), [audience], "{host}");
    }
}

#[tokio::test]
async fn neither_token_nor_key_is_shown() {
    let world = World::new([good(), challenge(), challenge()]).await;
    let key = world.unwrap().await.unwrap();
    let error = world.unwrap().await.unwrap_err();
    let shown = format!("{:?} {key:?} {error:?} {error}", world.vault);
    assert!(!shown.contains("token-") && !shown.contains("BwcH") && !shown.contains("7, 7"), "{shown}");
}

/// Scenario: a principal with a credential of its own, one with none, one of the system-assigned ones, and a credential whose tokens may be
/// for anybody, each at a vault of Azure's and at a host that the operator named. Guarantee: nobody is proved with another identity's
/// credential, and tokens of unknown audience go to named hosts only; one vault and principal share a client.
#[tokio::test]
async fn each_identity_is_proved_with_its_own_credential() {
    let principal = |name: &str| PrincipalId::parse(name).unwrap();
    let policy = VaultUriPolicy::default().allow_host("kv.internal:8443", Some(Audience::Public)).unwrap();
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&[PUBLIC]]);
    let parts = parts(Arc::<ScriptedNetwork>::clone(&network), &Authority::new(), settings());
    let sources = [(); 3].map(|()| Arc::new(NumberedTokens { fails: true, ..NumberedTokens::default() }));
    let [own, system, file] = sources.clone();
    let directory = |source| Some(Credential::of_directory(source, Arc::clone(&parts.clock)));
    let file = Credential::for_named_hosts(file, Arc::clone(&parts.clock));
    let credentials =
        HashMap::from([(principal("own"), directory(own)), (principal("none"), None), (principal("file"), Some(file))]);
    let vaults = AzureVaults::new(policy, parts.clone(), credentials, directory(system));
    let asked = || sources.each_ref().map(|source| source.asked.lock().unwrap().len());
    for (name, uri, expected, why) in [
        ("own", "https://kv.vault.azure.net/", [1, 0, 0], ""),
        ("none", "https://kv.vault.azure.net", [1, 0, 0], "azure.identities_file"),
        ("cluster-1", "https://kv.vault.azure.net", [1, 1, 0], ""),
        ("file", "https://kv.vault.azure.net", [1, 1, 0], "azure.hosts"),
        ("file", "https://kv.internal:8443", [1, 1, 1], ""),
    ] {
        let (text, vault) = vaults.vault(uri, &principal(name)).unwrap();
        assert_eq!(*text, *uri.trim_end_matches('/'));
        let error = vault.key(&kek().name, None).await.unwrap_err();
        assert!(matches!(&error, VaultError::Token(text) if text.contains(why)), "{name}: {error}");
        assert_eq!(asked(), expected, "{name} at {uri}");
    }
    assert!(network.called().is_empty());
    let again = || vaults.vault("https://kv.vault.azure.net", &principal("own")).unwrap().1;
    assert!(Arc::ptr_eq(&again(), &again()));
    let refused = vaults.vault("https://kv.example", &principal("own")).unwrap_err();
    assert!(matches!(refused, VaultError::Invalid(_)), "{refused}");
}
