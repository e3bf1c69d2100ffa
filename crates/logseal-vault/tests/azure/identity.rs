//! Tokens of Azure identities against a scripted identity service: whom is asked, with what, and what is passed on.

use std::io::Write;
use std::sync::Arc;

use logseal_core::{SystemClock, UnixNanos};
use logseal_vault::VaultError;
use logseal_vault::azure::{AzureIdentity, CachedTokens, IdentityTokens, TokenSource};
use logseal_vault::uri::Audience;
use zeroize::Zeroizing;

use crate::stub::{Authority, Step, Stub};
use crate::world::{PUBLIC, ScriptedNetwork, good, kek, parts, settings, uri};

const LOGIN: &str = "login.microsoftonline.com";
const METADATA: &str = "169.254.169.254";

fn granted(lifetime: &str) -> Step {
    let body = format!(r#"{{"token_type":"Bearer",{lifetime},"access_token":"t0ken"}}"#);
    Step::Answer(200, "content-type: application/json\r\n", body.into_bytes())
}

fn service_principal() -> AzureIdentity {
    let secret = Zeroizing::new("s3cret/&+".to_owned());
    AzureIdentity::ClientSecret { tenant: "tenant-1".into(), client: "client-1".into(), secret }
}

struct Service {
    stub: Stub,
    network: Arc<ScriptedNetwork>,
    tokens: IdentityTokens,
}

/// The identity service of a cloud, at `host` with TLS.
async fn service(identity: AzureIdentity, host: &str, script: impl IntoIterator<Item = Step>) -> Service {
    let authority = Authority::new();
    let stub = Stub::start(Some(authority.server(host, (2020, 2100))), script).await;
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&[PUBLIC]]);
    network.route(&format!("{PUBLIC}:443"), Some(stub.address));
    let parts = parts(Arc::<ScriptedNetwork>::clone(&network), &authority, settings());
    Service { stub, network, tokens: IdentityTokens::new(identity, &parts).unwrap() }
}

#[tokio::test]
async fn a_service_principal_asks_the_directory_of_the_vaults_cloud() {
    for (audience, host) in [
        (Audience::Public, LOGIN),
        (Audience::ManagedHsm, LOGIN),
        (Audience::Government, "login.microsoftonline.us"),
        (Audience::China, "login.chinacloudapi.cn"),
    ] {
        let service =
            service(service_principal(), host, [granted(r#""expires_in":3600"#), granted(r#""expires_in":3600"#)])
                .await;
        let token = service.tokens.token(audience).await.unwrap();
        assert!(!format!("{token:?}").contains("t0ken"), "{token:?}");
        assert_eq!(*service.network.lookups.lock().unwrap(), [host]);
        let seen = &service.stub.seen()[0];
        assert!(seen.head.starts_with("POST /tenant-1/oauth2/v2.0/token HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!((seen.header("host"), seen.server_name.as_deref()), (Some(host), Some(host)));
        let scope = format!("{}/.default", audience.resource()).replace(':', "%3A").replace('/', "%2F");
        for part in [
            format!("scope={scope}"),
            "client_id=client-1".into(),
            "client_secret=s3cret%2F%26%2B".into(),
            "grant_type=client_credentials".into(),
        ] {
            assert!(seen.body.contains(&part), "{part}: {}", seen.body);
        }
        // A vault may have refused the first: it must not come again.
        service.tokens.token(audience).await.unwrap();
        assert_eq!(service.stub.seen().len(), 2, "each token is asked for anew");
    }
}

#[tokio::test]
async fn a_workload_identity_shows_its_service_accounts_token() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"service-account-token").unwrap();
    let token_file = file.path().to_owned();
    let identity = AzureIdentity::Workload { tenant: "tenant-1".into(), client: "client-1".into(), token_file };
    let service = service(identity, LOGIN, [granted(r#""expires_in":3600"#)]).await;
    service.tokens.token(Audience::Public).await.unwrap();
    let body = &service.stub.seen()[0].body;
    assert!(body.contains("client_assertion=service-account-token") && body.contains("client_id=client-1"), "{body}");

    file.close().unwrap();
    let error = service.tokens.token(Audience::Public).await.unwrap_err();
    assert!(matches!(&error, VaultError::Token(text) if text.contains("token file")), "{error:?}");
}

#[tokio::test]
async fn a_managed_identity_asks_the_machines_metadata_service() {
    for (client, query) in [(None, ""), (Some("client-1".to_owned()), "&client_id=client-1")] {
        let stub =
            Stub::start(None, [granted(r#""expires_in":"3600","expires_on":"4102444800","resource":"x""#)]).await;
        let network = Arc::new(ScriptedNetwork::default());
        network.names(&[&[METADATA]]);
        network.route(&format!("{METADATA}:80"), Some(stub.address));
        let parts = parts(network, &Authority::new(), settings());
        let tokens = IdentityTokens::new(AzureIdentity::Managed { client }, &parts).unwrap();
        let token = tokens.token(Audience::Public).await.unwrap();
        assert!(format!("{token:?}").contains(&format!("{:?}", UnixNanos(4_102_444_800_000_000_000))), "{token:?}");
        let seen = &stub.seen()[0];
        let line = format!(
            "GET /metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net{query} HTTP/1.1"
        );
        assert_eq!(seen.head.lines().next(), Some(line.as_str()));
        assert_eq!((seen.header("metadata"), seen.header("host")), (Some("true"), Some(METADATA)));
    }
}

#[tokio::test]
async fn what_the_identity_service_says_is_not_passed_on() {
    let refused =
        br#"{"error":"invalid_client","error_description":"AADSTS7000215: WORDS OF OTHERS","error_codes":[7000215]}"#;
    let rows: Vec<(Step, &str)> = vec![
        (
            Step::Answer(401, "", refused.to_vec()),
            "the identity service answered with status 401 and code AADSTS7000215",
        ),
        (Step::Answer(503, "", b"WORDS OF OTHERS".to_vec()), "the identity service answered with status 503"),
        (
            Step::Answer(302, "location: https://evil.example/\r\n", Vec::new()),
            "the identity service answered with status 302",
        ),
        (Step::Answer(200, "", b"WORDS OF OTHERS".to_vec()), "the identity service's answer is malformed"),
        (Step::Answer(200, "", vec![b' '; 10 << 20]), "the identity service's answer is malformed"),
        (Step::Raw(b"WORDS OF OTHERS\r\n\r\n".to_vec()), "the identity service's answer is malformed"),
        (Step::Raw(Vec::new()), "the identity service cannot be reached"),
    ];
    for (step, text) in rows {
        let service = service(service_principal(), LOGIN, [step]).await;
        let error = service.tokens.token(Audience::Public).await.unwrap_err();
        assert!(matches!(&error, VaultError::Token(found) if found == text), "{text}: {error:?}");
        assert_eq!((service.stub.seen().len(), service.network.called().len()), (1, 1), "{text}: asked once");
        assert!(!format!("{:?} {error:?}", service.tokens).contains("s3cret"));
    }
}

#[tokio::test]
async fn the_directorys_name_must_not_lead_to_this_machine() {
    let service = service(service_principal(), LOGIN, [granted(r#""expires_in":3600"#)]).await;
    service.network.names(&[&["127.0.0.1"]]);
    let error = service.tokens.token(Audience::Public).await.unwrap_err();
    assert!(matches!(error, VaultError::Token(_)), "{error:?}");
    assert!(service.network.called().is_empty() && service.stub.seen().is_empty());
}

#[tokio::test]
async fn a_vault_is_asked_with_the_identitys_token() {
    let login = service(service_principal(), LOGIN, [granted(r#""expires_in":3600"#)]).await;
    let authority = Authority::new();
    let vault = Stub::start(Some(authority.server(uri().host(), (2020, 2100))), [good()]).await;
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&[PUBLIC]]);
    network.route(&format!("{PUBLIC}:443"), Some(vault.address));
    let tokens = Arc::new(CachedTokens::new(Arc::new(login.tokens), Arc::new(SystemClock)));
    let caller = logseal_vault::PrincipalId::parse("client-1").unwrap();
    let client =
        logseal_vault::azure::AzureKeyVault::new(uri(), caller, tokens, &parts(network, &authority, settings()));
    logseal_vault::KeyVault::unwrap(&client.unwrap(), &kek(), &[1]).await.unwrap();
    assert_eq!(vault.seen()[0].header("authorization"), Some("Bearer t0ken"));
}
