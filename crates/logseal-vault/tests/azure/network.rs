//! Who is called, and as whom the other side must prove itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use logseal_vault::azure::{AzureKeyVault, AzureSettings, CachedTokens, SystemNetwork, TlsTrust};
use logseal_vault::uri::Audience;
use logseal_vault::{KeyId, KeyVault, PrincipalId, VaultError, VaultErrorClass, VaultUriPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::stub::{Authority, Step, Stub};
use crate::world::{
    HOST, KEY, NumberedTokens, PUBLIC, ScriptedNetwork, World, client, good, kek, parts, result_of, settings, uri,
};

#[tokio::test]
async fn a_name_with_an_address_that_is_not_public_is_not_called() {
    for addresses in [
        &["127.0.0.1"][..],
        &["10.0.0.4"],
        &["169.254.169.254"],
        &["168.63.129.16"],
        &["192.168.0.1"],
        &["100.64.0.1"],
        &["0.0.0.0"],
        &["224.0.0.1"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["::ffff:20.1.2.3"],
        &["fd00::1"],
        &["fe80::1"],
        &[PUBLIC, "127.0.0.1"],
        &["127.0.0.1", PUBLIC],
    ] {
        let world = World::new([good()]).await;
        world.network.names(&[addresses]);
        let error = world.unwrap().await.unwrap_err();
        assert!(
            matches!(&error, VaultError::Unreachable(text) if text.contains("not public")),
            "{addresses:?}: {error:?}"
        );
        assert_eq!(error.class(), VaultErrorClass::Trouble);
        assert!(world.network.called().is_empty(), "{addresses:?}: not one connection");
        assert_eq!(world.network.lookups.lock().unwrap().len(), 1, "{addresses:?}: and no second try");
        assert!(
            !addresses.iter().any(|address| error.to_string().contains(address)),
            "it is no oracle for names: {error}"
        );
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_called() {
    // The second lookup would lead to the machine itself.
    let world = World::new([Step::AnswerAndClose(200, result_of(&kek().to_string(), &KEY)), good()]).await;
    world.network.names(&[&[PUBLIC], &["127.0.0.1"]]);
    world.network.route("127.0.0.1:443", Some(world.stub.address));
    assert!(world.unwrap().await.is_ok());
    assert_eq!(*world.network.lookups.lock().unwrap(), [HOST], "resolved once");
    assert_eq!(world.network.called(), [format!("{PUBLIC}:443")]);
    assert_eq!(world.stub.seen()[0].server_name.as_deref(), Some(HOST), "the name goes with the connection");

    // The next connection resolves anew, and its address is checked as well.
    let error = world.unwrap().await.unwrap_err();
    assert!(matches!(error, VaultError::Unreachable(_)), "{error:?}");
    assert_eq!(world.network.called().len(), 1);
}

#[tokio::test]
async fn a_host_that_the_operator_named_may_be_private() {
    let authority = Authority::new();
    let stub = Stub::start(Some(authority.server(HOST, (2020, 2100))), [good()]).await;
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&["10.0.0.4"]]);
    network.route("10.0.0.4:443", Some(stub.address));
    let uri =
        VaultUriPolicy::default().allow_host(HOST, None).and_then(|policy| policy.parse("https://kv.vault.azure.net/"));
    let parts = parts(network, &authority, settings());
    let vault = client(uri.unwrap(), Arc::new(NumberedTokens::default()), &parts);
    assert_eq!(vault.unwrap(&kek(), &[1]).await.unwrap().expose(), &KEY);
}

#[tokio::test]
async fn the_systems_own_resolver_and_sockets_reach_a_named_host_and_port() {
    let authority = Authority::new();
    let stub_of = |port: u16| KeyId { vault_uri: format!("https://localhost:{port}").into(), ..kek() };
    let tls = authority.server("localhost", (2020, 2100));
    let stub = Stub::start(Some(tls), Vec::new()).await;
    let kek = stub_of(stub.address.port());
    stub.push(Step::Answer(200, "", result_of(&kek.to_string(), &KEY)));
    let policy =
        VaultUriPolicy::default().allow_host(&kek.vault_uri["https://".len()..], Some(Audience::Public)).unwrap();
    let parts = parts(Arc::new(SystemNetwork::default()), &authority, settings());
    let vault = client(policy.parse(&kek.vault_uri).unwrap(), Arc::new(NumberedTokens::default()), &parts);
    assert_eq!(vault.unwrap(&kek, &[1]).await.unwrap().expose(), &KEY);
    let authority = format!("localhost:{}", stub.address.port());
    assert_eq!(stub.seen()[0].header("host"), Some(authority.as_str()));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_no_refusal() {
    for lookups in [&[][..], &[&[][..]]] {
        let world = World::new([good()]).await;
        world.network.names(lookups);
        let error = world.unwrap().await.unwrap_err();
        assert!(matches!(&error, VaultError::Unresolved(host) if host == HOST), "{error:?}");
        assert_eq!(error.class(), VaultErrorClass::Trouble);
    }
}

#[tokio::test]
async fn addresses_are_tried_in_turn_and_again() {
    let world = World::new([good()]).await;
    world.network.names(&[&["20.9.9.9", "20.9.9.9", "2603:1030::1", PUBLIC]]);
    assert!(world.unwrap().await.is_ok());
    assert_eq!(world.network.called(), ["20.9.9.9:443", "[2603:1030::1]:443", "20.1.2.3:443"], "each one once");

    let world = World::new([]).await;
    world.network.names(&[&["20.9.9.9"]]);
    let error = world.unwrap().await.unwrap_err();
    assert!(matches!(&error, VaultError::Unreachable(text) if text == "connection refused"), "{error:?}");
    assert_eq!(world.network.called().len(), 3, "the connection was tried twice more");

    let many: Vec<_> = (1..=50).map(|last| format!("20.9.9.{last}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let world = World::new([]).await;
    world.network.names(&[&many]);
    assert!(world.unwrap().await.is_err());
    assert_eq!(world.network.called().len(), 24, "no name makes us call fifty addresses");
}

#[tokio::test]
async fn an_address_that_swallows_everything_takes_its_share_of_the_time_only() {
    let hasty = AzureSettings { connect_timeout: Duration::from_millis(600), ..settings() };
    let world = World::with(hasty, NumberedTokens::default(), [good()]).await;
    world.network.names(&[&["20.9.9.9", PUBLIC]]);
    world.network.route("20.9.9.9:443", None);
    assert!(world.unwrap().await.is_ok());

    let hasty = AzureSettings { connect_timeout: Duration::from_millis(100), ..settings() };
    let world = World::with(hasty, NumberedTokens::default(), []).await;
    world.network.route(&format!("{PUBLIC}:443"), None);
    let error = world.unwrap().await.unwrap_err();
    assert!(matches!(error, VaultError::TimedOut(after) if after.as_millis() == 100), "{error:?}");
    assert_eq!(world.network.called().len(), 3);
}

#[tokio::test]
async fn only_the_right_certificate_is_accepted() {
    let ours = Authority::new();
    let unknown = "its TLS certificate is of an authority that is not trusted here";
    for (tls, reason) in [
        (ours.server("other.vault.azure.net", (2020, 2100)), "its TLS certificate is for another name"),
        (ours.server("*.azure.net", (2020, 2100)), "its TLS certificate is for another name"),
        (ours.server(HOST, (2019, 2020)), "its TLS certificate has expired"),
        (ours.server(HOST, (2098, 2100)), "its TLS certificate is not valid yet"),
        (Authority::named("Another authority").server(HOST, (2020, 2100)), unknown),
        (Authority::new().server(HOST, (2020, 2100)), unknown),
    ] {
        let stub = Stub::start(Some(tls), [good()]).await;
        let (error, calls) = ask(&ours, stub.address).await;
        assert!(matches!(&error, VaultError::Unreachable(text) if text == reason), "{reason}: {error:?}");
        assert_eq!(error.class(), VaultErrorClass::Trouble);
        assert!(stub.seen().is_empty(), "{reason}: nothing was asked, and no token shown");
        assert_eq!(calls, 1, "{reason}: another try would see the same");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    });
    let (error, calls) = ask(&Authority::new(), address).await;
    assert!(matches!(&error, VaultError::Unreachable(text) if text == "it does not speak TLS as it must"), "{error:?}");
    assert_eq!(calls, 1);
    let heard = String::from_utf8_lossy(&server.await.unwrap()).into_owned();
    assert!(!heard.is_empty() && !heard.contains("token-") && !heard.contains("unwrapkey"), "{heard}");
}

/// What an unwrap ends with when the vault's name leads to `address`, and how many connections were made for it.
async fn ask(trusted: &Authority, address: SocketAddr) -> (VaultError, usize) {
    let network = Arc::new(ScriptedNetwork::default());
    network.names(&[&[PUBLIC]]);
    network.route(&format!("{PUBLIC}:443"), Some(address));
    let parts = parts(Arc::<ScriptedNetwork>::clone(&network), trusted, settings());
    let error = client(uri(), Arc::new(NumberedTokens::default()), &parts).unwrap(&kek(), &[1]).await.unwrap_err();
    (error, network.called().len())
}

#[test]
fn authorities_are_read_from_pem_and_never_silently_none() {
    let authority = Authority::new();
    let two = format!("text before\n{}{}", authority.pem, Authority::new().pem);
    assert_eq!(format!("{:?}", TlsTrust::none().with_pem(two.as_bytes()).unwrap()), "TlsTrust(2 authorities)");
    for bad in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(TlsTrust::none().with_pem(bad.as_bytes()), Err(VaultError::Invalid(_))), "{bad:?}");
    }
    let mut none = parts(Arc::new(ScriptedNetwork::default()), &authority, settings());
    none.trust = TlsTrust::none();
    let tokens = CachedTokens::new(Arc::new(NumberedTokens::default()), Arc::clone(&none.clock));
    let caller = PrincipalId::parse("me").unwrap();
    let refused = AzureKeyVault::new(uri(), caller, Arc::new(tokens), &none);
    assert!(matches!(refused, Err(VaultError::Unreachable(_))), "{refused:?}");
}
