//! What the vault answers, and what the client makes of it.

use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use futures::future::join_all;
use logseal_crypto::Key256;
use logseal_vault::VaultErrorClass::{self, Refusal, Trouble};
use logseal_vault::azure::AzureSettings;
use logseal_vault::{KeyVault, Permission, VaultError};

use crate::stub::Step;
use crate::world::{HOST, KEY, NumberedTokens, VAULT, VERSION, World, good, kek, refusal, result_of, settings};

#[tokio::test]
async fn get_wrap_and_unwrap_are_the_keys_api() {
    let modulus = BASE64URL_NOPAD.encode(&[0xC0; 256]);
    let bundle = format!(
        r#"{{"key":{{"kid":"{VAULT}/keys/kek/{VERSION}","kty":"RSA","n":"{modulus}","e":"AQAB"}},
            "attributes":{{"enabled":true,"created":1493942451,"recoveryLevel":"Recoverable"}}}}"#
    );
    let wrapped = result_of(&kek().to_string(), &[9; 256]);
    let get = Step::Answer(200, "", bundle.into_bytes());
    let world = World::new([get.clone(), get, Step::Answer(200, "", wrapped), good()]).await;
    let kek = kek();

    let newest = world.vault.key(&kek.name, None).await.unwrap();
    assert_eq!(newest, world.vault.key(&kek.name, Some(&kek.version)).await.unwrap());
    assert!(newest.id == kek && newest.is_rsa() && newest.rsa_bits == 2048 && newest.enabled && newest.recoverable);
    assert_eq!(world.vault.wrap(&kek, &Key256::copy_from_slice(&KEY).unwrap()).await.unwrap(), [9; 256]);
    assert_eq!(world.unwrap().await.unwrap().expose(), &KEY);

    let seen = world.stub.seen();
    let lines: Vec<_> = seen.iter().map(|seen| seen.head.lines().next().unwrap().to_owned()).collect();
    let expected = [
        "GET /keys/kek/?api-version=7.4 HTTP/1.1".to_owned(),
        format!("GET /keys/kek/{VERSION}?api-version=7.4 HTTP/1.1"),
        format!("POST /keys/kek/{VERSION}/wrapkey?api-version=7.4 HTTP/1.1"),
        format!("POST /keys/kek/{VERSION}/unwrapkey?api-version=7.4 HTTP/1.1"),
    ];
    assert_eq!(lines, expected);
    for request in &seen {
        assert_eq!(request.header("host"), Some(HOST));
        assert_eq!(request.header("authorization"), Some("Bearer token-1"));
        assert_eq!(request.server_name.as_deref(), Some(HOST));
    }
    let body = |value: &[u8]| format!(r#"{{"alg":"RSA-OAEP-256","value":"{}"}}"#, BASE64URL_NOPAD.encode(value));
    assert_eq!([&seen[2].body, &seen[3].body], [&body(&KEY), &body(&[9; 256])]);
    assert_eq!(world.connections(), [1, 1, 1, 1], "one connection serves all");
}

#[tokio::test]
async fn every_answer_is_classified() {
    type Check = fn(&VaultError) -> bool;
    let malformed: Check = |e| matches!(e, VaultError::Malformed(_));
    let denied: Check =
        |e| matches!(e, VaultError::AccessDenied { caller, permission: Permission::UnwrapKey, .. } if caller == "me");
    let html = || b"<html>SECRET OF THE VAULT</html>".to_vec();
    let other = |text: &str| kek().to_string().replace(text, "other");
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 0x1000], b"\r\n".to_vec()].concat();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = result_of(&kek().to_string(), &KEY);
    let gzip = Step::Answer(200, "content-encoding: gzip\r\n", vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF]);
    let rows: Vec<(Step, Check, VaultErrorClass)> = vec![
        (refusal(403, "Forbidden", "KeyDisabled"), |e| matches!(e, VaultError::KeyDisabled(_)), Refusal),
        (refusal(403, "Forbidden", "AccessDenied"), denied, Refusal),
        (refusal(403, "ForbiddenByRbac", "x"), denied, Refusal),
        (refusal(403, "Forbidden", "ForbiddenByFirewall"), |e| matches!(e, VaultError::Firewall), Trouble),
        (refusal(404, "KeyNotFound", "x"), |e| matches!(e, VaultError::NotFound(_)), Refusal),
        (refusal(400, "BadParameter", "x"), |e| matches!(e, VaultError::BadWrap(_)), Trouble),
        (Step::Answer(403, "content-type: text/html\r\n", html()), malformed, Trouble),
        (Step::Answer(404, "content-type: text/html\r\n", html()), malformed, Trouble),
        (Step::Answer(403, "", Vec::new()), malformed, Trouble),
        (Step::Answer(200, "", html()), malformed, Trouble),
        (Step::Answer(200, "", Vec::new()), malformed, Trouble),
        (Step::Answer(200, "", vec![0xFF; 1000]), malformed, Trouble),
        (Step::Answer(200, "", whole[..whole.len() - 3].to_vec()), malformed, Trouble),
        (Step::Answer(200, "", result_of(&other("kek"), &KEY)), malformed, Trouble),
        (Step::Answer(200, "", result_of(&other("kv"), &KEY)), malformed, Trouble),
        (Step::Answer(200, "", result_of(&kek().to_string().replace("78de", "88de"), &KEY)), malformed, Trouble),
        (Step::Answer(200, "", result_of(&kek().to_string(), &KEY[1..])), malformed, Trouble),
        (Step::Answer(200, "", result_of(&kek().to_string(), &[7; 33])), malformed, Trouble),
        (Step::Answer(200, "", vec![b' '; 10 << 20]), malformed, Trouble),
        (Step::Answer(403, "", vec![b' '; 10 << 20]), malformed, Trouble),
        (Step::Flood(chunked, chunk), malformed, Trouble),
        (Step::Flood("HTTP/1.1 200 OK\r\n", b"x-header: 1234567890\r\n".to_vec()), malformed, Trouble),
        (gzip, malformed, Trouble),
        (Step::Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n\r\n".to_vec()), malformed, Trouble),
        (Step::Answer(301, "location: https://evil.example/\r\n", Vec::new()), malformed, Trouble),
        (Step::Answer(307, "location: https://127.0.0.1/\r\n", html()), malformed, Trouble),
        (Step::Answer(308, "location: /keys/kek/x\r\n", html()), malformed, Trouble),
    ];
    for (step, check, class) in rows {
        let shown = format!("{step:.200?}").chars().take(200).collect::<String>();
        let world = World::new([step]).await;
        let error = world.unwrap().await.unwrap_err();
        assert!(check(&error), "{shown}: {error:?}");
        assert_eq!(error.class(), class, "{shown}");
        assert_eq!(world.stub.seen().len(), 1, "{shown}: asked once, followed nowhere");
        assert_eq!(world.network.called().len(), 1, "{shown}: nobody else was called");
        assert!(!format!("{error} {error:?}").contains("SECRET OF THE VAULT"), "{error:?}");
    }
}

#[tokio::test]
async fn troubles_of_the_server_are_repeated_twice() {
    let failing = |status| Step::Answer(status, "", b"oops".to_vec());
    let closed = || Step::Raw(Vec::new());
    let cut = || Step::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec());
    type Check = fn(&Result<Key256, VaultError>) -> bool;
    let server: Check = |r| matches!(r, Err(VaultError::Server(503)));
    let broken: Check = |r| matches!(r, Err(VaultError::Unreachable(_)));
    let fine: Check = |r| matches!(r, Ok(key) if key.expose() == &KEY);
    let rows: Vec<(Vec<Step>, Check, usize)> = vec![
        (vec![failing(503), good()], fine, 2),
        (vec![failing(500), failing(502), good()], fine, 3),
        (vec![failing(429), failing(504), good()], fine, 3),
        (vec![closed(), good()], fine, 2),
        (vec![cut(), closed(), good()], fine, 3),
        (vec![failing(500), failing(500), failing(503), good()], server, 3),
        (vec![closed(), closed(), closed(), good()], broken, 3),
        (vec![cut(), cut(), cut(), good()], broken, 3),
        (
            vec![failing(503), refusal(403, "Forbidden", "KeyDisabled")],
            |r| matches!(r, Err(VaultError::KeyDisabled(_))),
            2,
        ),
    ];
    for (script, check, requests) in rows {
        let shown = format!("{script:?}");
        let world = World::new(script).await;
        let outcome = world.unwrap().await;
        assert!(check(&outcome), "{shown}: {outcome:?}");
        assert_eq!(world.stub.seen().len(), requests, "{shown}");
    }
}

#[tokio::test]
async fn retry_after_is_honored_within_the_time_of_the_call() {
    for status in [429, 503] {
        let busy = |headers| Step::Answer(status, headers, b"busy".to_vec());
        let world = World::new([busy("retry-after: 1\r\n"), good()]).await;
        let begin = Instant::now();
        assert!(world.unwrap().await.is_ok());
        assert!(begin.elapsed() >= Duration::from_secs(1), "{status}: came back after {:?}", begin.elapsed());

        // Beyond the call's time nothing is gained by waiting: the caller learns it at once.
        let world = World::new([busy("retry-after: 30\r\n"), good()]).await;
        let begin = Instant::now();
        let error = world.unwrap().await.unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(15), "{status}: waited for {:?}", begin.elapsed());
        assert_eq!(world.stub.seen().len(), 1);
        match status {
            429 => {
                assert!(matches!(error, VaultError::Throttled { retry_after: Some(after) } if after.as_secs() == 30))
            }
            _ => assert!(matches!(error, VaultError::Server(503))),
        }
    }
}

#[tokio::test]
async fn a_vault_that_hangs_uses_up_the_call_and_no_more() {
    let limit = Duration::from_millis(400);
    let hasty = AzureSettings { call_timeout: limit, ..settings() };
    for begun in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let world = World::with(hasty, NumberedTokens::default(), [Step::Hang(begun.to_vec())]).await;
        let error = world.unwrap().await.unwrap_err();
        assert!(matches!(error, VaultError::TimedOut(after) if after == limit), "{error:?}");
        assert_eq!(world.stub.seen().len(), 1, "it was the answer that was missing");
    }
    // Endless interim answers are no progress either.
    let world =
        World::with(hasty, NumberedTokens::default(), [Step::Flood("", b"HTTP/1.1 100 x\r\n\r\n".to_vec())]).await;
    assert!(matches!(world.unwrap().await, Err(VaultError::TimedOut(_))));
}

#[tokio::test]
async fn connections_are_kept_and_replaced_when_they_are_gone() {
    let closing = Step::AnswerAndClose(200, result_of(&kek().to_string(), &KEY));
    let world = World::new([good(), refusal(403, "Forbidden", "x"), closing, good(), good()]).await;
    for expected in [true, false, true, true, true] {
        assert_eq!(world.unwrap().await.is_ok(), expected);
    }
    assert_eq!(
        world.connections(),
        [1, 1, 1, 2, 2],
        "refusals keep the connection; one that the server closed is replaced"
    );
    assert_eq!((world.stub.left(), world.network.called().len()), (0, 2));

    let unkept = AzureSettings { idle_timeout: Duration::ZERO, ..settings() };
    let world = World::with(unkept, NumberedTokens::default(), [good(), good()]).await;
    assert!(world.unwrap().await.is_ok() && world.unwrap().await.is_ok());
    assert_eq!(world.connections(), [1, 2], "an idle connection is not kept for longer than was said");

    let too_long = Step::Answer(200, "", vec![b' '; 65_537]);
    let world = World::new([too_long, good()]).await;
    assert!(world.unwrap().await.is_err() && world.unwrap().await.is_ok());
    assert_eq!(world.connections(), [1, 2], "a connection with an unread rest is not used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_call_after_the_other_stays_on_one_connection_with_many_threads() {
    let world = World::new(vec![good(); 100]).await;
    for _ in 0..100 {
        assert!(world.unwrap().await.is_ok());
    }
    assert_eq!(world.connections(), [1; 100]);
}

#[tokio::test]
async fn calls_side_by_side_have_their_own_connections() {
    let world = World::new(vec![good(); 16]).await;
    let calls: Vec<_> = (0..16).map(|_| world.unwrap()).collect();
    for call in join_all(calls).await {
        assert_eq!(call.unwrap().expose(), &KEY);
    }
    assert_eq!(world.source.asked.lock().unwrap().len(), 1, "one token for all");
}

#[tokio::test]
async fn a_key_of_another_vault_is_not_asked_for() {
    let world = World::new([good()]).await;
    let mut other = kek();
    other.vault_uri = "https://other.vault.azure.net".into();
    let key = Key256::copy_from_slice(&KEY).unwrap();
    assert!(matches!(world.vault.unwrap(&other, &[1]).await, Err(VaultError::Invalid(_))));
    assert!(matches!(world.vault.wrap(&other, &key).await, Err(VaultError::Invalid(_))));
    assert!(world.network.called().is_empty() && world.source.asked.lock().unwrap().is_empty());
}
