//! What all requests have in common: token, version, path, body, throttling, reports.

use super::*;

#[tokio::test]
async fn without_the_token_nothing_of_a_request_is_looked_at() {
    let world = World::new().await;
    for (header, value) in [("x-none", ""), ("authorization", "Bearer wrong"), ("authorization", "Basic dDp0")] {
        for path in ["/keys/kek/create?api-version=7.4", "/keys", "/nowhere", "/keys/%ff"] {
            // A body that is never read: polling it would fail the request with another status.
            let body = Body::from_stream(axum_stream_that_fails());
            let request = Request::builder().method("POST").uri(path).header("host", "h").header(header, value);
            let reply = world.send(request.body(body).unwrap()).await;
            reply.refused(401, "Unauthorized", "");
            let challenge = reply.headers["www-authenticate"].to_str().unwrap();
            assert!(
                challenge.starts_with("Bearer authorization=\"https://") && challenge.contains("resource=\""),
                "{challenge}"
            );
        }
    }
    let wrong = world.actions().iter().filter(|(key, _, outcome)| key.is_empty() && outcome == "Unauthorized").count();
    assert_eq!(wrong, 8, "a wrong token is reported, a missing one is not");
    for _ in 0..100 {
        let request = Request::builder().uri("/keys").header("authorization", "Bearer wrong");
        world.send(request.body(Body::empty()).unwrap()).await.refused(401, "Unauthorized", "");
    }
    assert_eq!(world.actions().len(), 10, "reports are bounded");
}

fn axum_stream_that_fails() -> impl futures::Stream<Item = Result<axum::body::Bytes, std::io::Error>> + Send + 'static {
    futures::stream::once(async { Err(std::io::Error::other("this body must not be read")) })
}

#[tokio::test]
async fn a_version_of_the_api_is_needed() {
    let world = World::new().await;
    for (query, status) in [
        ("", 400),
        ("?api-version=", 400),
        ("?api-version=7.9", 400),
        ("?api-version=7.0", 200),
        ("?API-VERSION=7.6-preview.2", 200),
        ("?api-version=2025-07-01", 200),
    ] {
        let request = Request::builder()
            .uri(format!("/keys{query}"))
            .header("host", "h")
            .header("authorization", format!("Bearer {TOKEN}"));
        let reply = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status, "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn paths_compare_without_case_and_with_or_without_a_slash_at_their_end() {
    let (world, version) = World::with_key().await;
    for path in [
        "/keys/kek",
        "/keys/kek/",
        "/Keys/KEK",
        &format!("/keys/kek/{version}/"),
        &format!("/KEYS/kek/{}", version.to_uppercase()),
    ] {
        let key = world.get(path).await.ok();
        assert_eq!(key["key"]["kid"], format!("https://vault.test:8420/keys/kek/{version}"), "{path}");
    }
    for path in ["/keys/kek//wrapkey", "/keys/kek/wrapKey", &format!("/keys/kek/{version}/WrapKey")] {
        let wrapped = world.ask("POST", path, json!({"alg": "RSA-OAEP-256", "value": "AAAA"})).await.ok();
        assert!(wrapped["kid"].as_str().unwrap().ends_with(&version), "{path}");
    }
    world.get("/secrets").await.refused(404, "NotFound", "");
    world.ask("DELETE", "/keys", Value::Null).await.refused(405, "MethodNotAllowed", "");
    world.get("/keys/a_b").await.refused(400, "BadParameter", "");
    world.get("/keys/kek/short").await.refused(400, "BadParameter", "");
    world.get("/keys/%ff").await.refused(400, "BadParameter", "");
}

#[tokio::test]
async fn answers_carry_ids_and_are_not_to_be_kept() {
    let world = World::new().await;
    let request = Request::builder()
        .uri("/keys?api-version=7.4")
        .header("host", "h")
        .header("x-ms-client-request-id", "mine")
        .header("authorization", format!("Bearer {TOKEN}"));
    let reply = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (reply.headers["x-ms-client-request-id"].as_bytes(), reply.headers["cache-control"].as_bytes()),
        (&b"mine"[..], &b"no-store"[..])
    );
    assert_ne!(reply.headers["x-ms-request-id"], world.get("/keys").await.headers["x-ms-request-id"]);
}

#[tokio::test]
async fn an_odd_host_is_refused_and_never_gets_into_an_identifier() {
    let (world, _) = World::with_key().await;
    for host in ["", "a b", "user@host", "host/path", "\"><script>"] {
        let request = Request::builder()
            .uri("/keys/kek?api-version=7.4")
            .header("host", host)
            .header("authorization", format!("Bearer {TOKEN}"));
        world.send(request.body(Body::empty()).unwrap()).await.refused(400, "BadParameter", "");
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_a_wrong_one_says_what_is_wrong() {
    let (world, version) = World::with_key().await;
    let wrap = format!("/keys/kek/{version}/wrapkey");
    let large = json!({"alg": "RSA-OAEP-256", "value": "A".repeat(70_000)});
    assert_eq!(world.ask("POST", &wrap, large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for (path, body, why) in [
        ("/keys/new/create", json!({}), "kty"),
        ("/keys/new/create", json!({"kty": "EC"}), "EC"),
        ("/keys/new/create", json!({"kty": "RSA", "key_size": 1024}), "2048, 3072, 4096"),
        ("/keys/new/create", json!({"kty": "RSA", "public_exponent": 3}), "65537"),
        ("/keys/new/create", json!({"kty": "RSA", "key_ops": ["export"]}), "export"),
        ("/keys/new/create", json!({"kty": "RSA", "release_policy": {}}), "release_policy"),
        ("/keys/new/create", json!({"kty": "RSA", "attributes": {"exportable": true}}), "exportable"),
        ("/keys/new/create", json!({"kty": "RSA", "attributes": {"exp": -1}}), "exp"),
        ("/keys/new/create", json!({"kty": "RSA", "attributes": {"exp": i64::MAX}}), "exp"),
        ("/keys/new/create", json!({"kty": "RSA", "attributes": {"nbf": 20, "exp": 10}}), "later"),
        ("/keys/new/create", json!({"kty": "RSA", "tags": {"a": "x".repeat(257)}}), "256"),
        ("/keys/new/create", json!({"kty": "RSA", "logseal": {"grant": true}}), "grant"),
        (wrap.as_str(), json!({"alg": "RSA1_5", "value": "AA"}), "RSA-OAEP-256"),
        (wrap.as_str(), json!({"alg": "RSA-OAEP-256", "value": "not base64!"}), "base64url"),
        (wrap.as_str(), json!({"alg": "RSA-OAEP-256", "value": "A".repeat(300)}), "190"),
        (wrap.as_str(), json!({"alg": "RSA-OAEP-256", "value": "AA", "aad": "AA"}), "aad"),
        (wrap.as_str(), json!([]), "understood"),
    ] {
        let reply = world.ask("POST", path, body.clone()).await;
        reply.refused(400, "BadParameter", "");
        let message = reply.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{body}: {message}");
    }
    assert!(world.vault.state.key(&KeyName::parse("new").unwrap()).is_err(), "nothing was made");
}

#[tokio::test]
async fn more_requests_than_a_size_allows_are_told_when_to_come_back() {
    let (world, _) = World::with_key().await;
    let mut taken = 0;
    let throttled = loop {
        let reply = world.get("/keys/kek").await;
        if !reply.status.is_success() {
            break reply;
        }
        taken += 1;
    };
    assert_eq!(taken, 4_000);
    throttled.refused(429, "Throttled", "");
    assert_eq!(throttled.headers["retry-after"], "1");
}

#[tokio::test]
async fn the_deployments_own_key_is_neither_shown_nor_changed() {
    let world = World::new().await;
    for (method, path) in [
        ("GET", "/keys/service"),
        ("GET", "/keys/SERVICE"),
        ("GET", "/keys/service/versions"),
        ("GET", "/keys/service/grants"),
        ("PATCH", "/keys/service"),
        ("DELETE", "/keys/service"),
        ("POST", "/keys/service/rotate"),
        ("POST", "/keys/service/create"),
        ("POST", "/keys/service/unwrapkey"),
        ("PUT", "/keys/service/rotationpolicy"),
        ("PUT", "/keys/service/grants/p"),
        ("DELETE", "/deletedkeys/service"),
    ] {
        world.ask(method, path, Value::Null).await.refused(403, "Forbidden", "ReservedKey");
    }
    assert_eq!(world.get("/keys").await.ok()["value"], json!([]));
    let reported = world.actions().iter().filter(|(_, _, outcome)| outcome == "ReservedKey").count();
    assert_eq!(reported, 10, "refusals are reported, within their bound");
    assert_eq!(world.vault.state.key(&KeyName::parse("service").unwrap()).unwrap().versions.len(), 1);
}

#[tokio::test]
async fn every_change_is_reported_with_who_and_what() {
    let (world, version) = World::with_key().await;
    world.ask("PATCH", &format!("/keys/kek/{version}"), json!({"attributes": {"enabled": false}})).await.ok();
    world.ask("POST", "/keys/kek/rotate", Value::Null).await.ok();
    world.ask("PUT", "/keys/kek/grants/p-1", Value::Null).await.ok();
    world.ask("DELETE", "/keys/kek/grants/p-1", Value::Null).await.ok();
    world.ask("PUT", "/keys/kek/rotationpolicy", json!({})).await.ok();
    world.ask("POST", &format!("/keys/kek/{version}/unwrapkey"), json!({"alg": "RSA-OAEP", "value": ""})).await;
    world.ask("DELETE", "/keys/kek", Value::Null).await.ok();
    world.ask("DELETE", "/deletedkeys/kek", Value::Null).await.refused(403, "Forbidden", "PurgeProtected");
    world.ask("POST", "/deletedkeys/kek/recover", Value::Null).await.ok();
    world.get("/keys/kek").await.ok();
    world.get("/keys/none").await.refused(404, "KeyNotFound", "");
    let one = format!("kek/{version}");
    let expected = [
        ("kek", "create/action", "Succeeded"),
        (&one, "update/action", "Succeeded"),
        ("kek", "rotate/action", "Succeeded"),
        ("kek", "grants/write", "Succeeded"),
        ("kek", "grants/delete", "Succeeded"),
        ("kek", "rotationpolicy/write", "Succeeded"),
        (&one, "unwrap/action", "KeyDisabled"),
        ("kek", "delete", "Succeeded"),
        ("kek", "purge/action", "PurgeProtected"),
        ("kek", "recover/action", "Succeeded"),
    ];
    assert_eq!(world.actions(), expected.map(|(key, action, outcome)| (key.to_owned(), action, outcome.to_owned())));
    let reports = world.reports.0.lock().unwrap();
    assert!(reports.iter().all(|event| event.actor == "vault-token"));
    assert_eq!(reports[1].detail["attributes"]["enabled"], false);
    assert_eq!(reports[3].detail["principal"], "p-1");
}
