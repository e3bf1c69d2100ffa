//! Keys over REST: their life, what is computed with them, who may use them.

use data_encoding::BASE64URL_NOPAD;
use logseal_core::UnixNanos;

use super::*;

const DAY: i64 = 86_400_000_000_000;

async fn wrapped(world: &World, alg: &str) -> Value {
    let value = BASE64URL_NOPAD.encode(&[7; 32]);
    world.ask("POST", "/keys/kek/wrapkey", json!({"alg": alg, "value": value})).await.ok()["value"].clone()
}

#[tokio::test]
async fn a_key_is_shown_with_its_public_part_only() {
    let world = World::new().await;
    let body = json!({
        "kty": "RSA", "key_size": 3072, "key_ops": ["wrapKey", "unwrapKey"], "tags": {"a": "b"},
        "attributes": {"enabled": true, "nbf": 1_700_000_000, "exp": 1_900_000_000},
    });
    let key = world.ask("POST", "/keys/Kek/create", body).await.ok();
    let (id, members) = (key["key"]["kid"].as_str().unwrap(), key["key"].as_object().unwrap());
    assert!(id.starts_with("https://vault.test:8420/keys/Kek/"), "{id}");
    assert_eq!(members.keys().collect::<Vec<_>>(), ["e", "key_ops", "kid", "kty", "n"]);
    assert_eq!((&key["key"]["e"], key["key"]["n"].as_str().unwrap().len()), (&json!("AQAB"), 512));
    assert_eq!(key["key"]["key_ops"], json!(["wrapKey", "unwrapKey"]));
    assert_eq!(
        key["attributes"],
        json!({"enabled": true, "nbf": 1_700_000_000, "exp": 1_900_000_000, "created": 1_769_817_600, "updated": 1_769_817_600,
            "recoveryLevel": "Recoverable", "recoverableDays": 90, "exportable": false})
    );
    assert_eq!(key["tags"], json!({"a": "b"}));
    assert_eq!(world.get("/keys/kek").await.ok(), key);
}

#[tokio::test]
async fn creating_a_key_again_adds_a_version_of_the_size_that_is_asked_for() {
    let (world, first) = World::with_key().await;
    world.hands.forward(DAY);
    let second = world.ask("POST", "/keys/kek/create", json!({"kty": "RSA", "key_size": 3072})).await.ok();
    let second = second["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let listed = world.get("/keys/kek/versions").await.ok();
    let ids: Vec<_> = listed["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["kid"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(ids, [second.as_str(), first.as_str()], "newest first");
    let refused = json!({"kty": "RSA", "logseal": {"purgeable": true}});
    world.ask("POST", "/keys/kek/create", refused).await.refused(400, "BadParameter", "");
}

#[tokio::test]
async fn what_a_client_wrapped_opens_and_what_it_did_not_gets_one_answer() {
    let (world, version) = World::with_key().await;
    let open = async |body: Value| world.ask("POST", &format!("/keys/kek/{version}/unwrapkey"), body).await;
    for alg in ["RSA-OAEP", "RSA-OAEP-256"] {
        let value = wrapped(&world, alg).await;
        let padded = format!("{}==", value.as_str().unwrap());
        for value in [value, json!(padded)] {
            let opened = open(json!({"alg": alg, "value": value})).await.ok();
            assert_eq!(opened["value"], BASE64URL_NOPAD.encode(&[7; 32]));
        }
    }
    let other = wrapped(&world, "RSA-OAEP").await;
    let mut messages = std::collections::BTreeSet::new();
    for value in [
        other,
        json!(BASE64URL_NOPAD.encode(&[1; 256])),
        json!(BASE64URL_NOPAD.encode(&[0; 256])),
        json!("AA"),
        json!(""),
    ] {
        let reply = open(json!({"alg": "RSA-OAEP-256", "value": value})).await;
        reply.refused(400, "BadParameter", "");
        messages.insert(reply.body.to_string());
    }
    assert_eq!(messages.len(), 1, "an attacker learns no more than that: {messages:?}");
}

#[tokio::test]
async fn a_digest_is_signed_and_verified() {
    let (world, _) = World::with_key().await;
    let digest = BASE64URL_NOPAD.encode(&[5; 32]);
    let signed = world.ask("POST", "/keys/kek/sign", json!({"alg": "PS256", "value": digest})).await.ok();
    for (digest, valid) in [(&digest, true), (&BASE64URL_NOPAD.encode(&[6; 32]), false)] {
        let body = json!({"alg": "PS256", "digest": digest, "value": signed["value"]});
        assert_eq!(world.ask("POST", "/keys/kek/verify", body).await.ok()["value"], valid);
    }
    world.ask("POST", "/keys/kek/sign", json!({"alg": "ES256", "value": digest})).await.refused(
        400,
        "BadParameter",
        "",
    );
    world.ask("POST", "/keys/kek/sign", json!({"alg": "RS512", "value": digest})).await.refused(
        400,
        "BadParameter",
        "",
    );
    world.ask("POST", "/keys/kek/backup", Value::Null).await.refused(501, "NotImplemented", "");
    let random = world.ask("POST", "/rng", json!({"count": 128})).await.ok();
    assert_eq!(random["value"].as_str().unwrap().len(), 171);
    world.ask("POST", "/rng", json!({"count": 129})).await.refused(400, "BadParameter", "");
}

#[tokio::test]
async fn attributes_decide_what_may_be_done() {
    let (world, version) = World::with_key().await;
    let value = wrapped(&world, "RSA-OAEP-256").await;
    let (wrap, unwrap) = ("/keys/kek/wrapkey", "/keys/kek/unwrapkey");
    let body = json!({"alg": "RSA-OAEP-256", "value": value});
    let change = async |attributes: Value| {
        let path = format!("/keys/kek/{version}");
        world.ask("PATCH", &path, json!({"attributes": attributes})).await.ok()
    };
    assert_eq!(change(json!({"enabled": false})).await["attributes"]["enabled"], false);
    for path in [wrap, unwrap] {
        world.ask("POST", path, body.clone()).await.refused(403, "Forbidden", "KeyDisabled");
    }
    let now = 1_769_817_600;
    change(json!({"enabled": true, "nbf": now + 86_400, "exp": now + 2 * 86_400})).await;
    let small = json!({"alg": "RSA-OAEP-256", "value": "AAAA"});
    for inner in ["KeyNotYetValid", "", "KeyExpired"] {
        let reply = world.ask("POST", wrap, small.clone()).await;
        assert_eq!(reply.inner(), inner);
        assert_eq!(reply.status, if inner.is_empty() { 200 } else { 403 });
        world.ask("POST", unwrap, body.clone()).await.ok();
        world.hands.forward(DAY);
    }
    let path = format!("/keys/kek/{version}");
    world.ask("PATCH", &path, json!({"key_ops": ["wrapKey"], "tags": {"x": "y"}})).await.ok();
    world.ask("POST", unwrap, body).await.refused(403, "Forbidden", "KeyOperationForbidden");
    let kept = world.get(&path).await.ok();
    assert_eq!((&kept["attributes"]["nbf"], &kept["tags"]["x"]), (&json!(now + 86_400), &json!("y")));
    world.ask("PATCH", &format!("/keys/kek/{}", "0".repeat(32)), json!({})).await.refused(404, "KeyNotFound", "");
}

#[tokio::test]
async fn a_deleted_key_is_listed_apart_recovered_or_purged() {
    let (world, version) = World::with_key().await;
    let value = wrapped(&world, "RSA-OAEP-256").await;
    world.get("/deletedkeys/kek").await.refused(404, "KeyNotFound", "");
    let deleted = world.ask("DELETE", "/keys/kek", Value::Null).await.ok();
    assert_eq!(deleted["recoveryId"], "https://vault.test:8420/deletedkeys/kek");
    let (at, purge) = (deleted["deletedDate"].as_i64().unwrap(), deleted["scheduledPurgeDate"].as_i64().unwrap());
    assert_eq!(purge - at, 7_776_000);
    let body = json!({"alg": "RSA-OAEP-256", "value": value});
    for (method, path) in [
        ("GET", "/keys/kek"),
        ("GET", "/keys/kek/versions"),
        ("DELETE", "/keys/kek"),
        ("POST", "/keys/kek/rotate"),
        ("GET", "/keys/kek/rotationpolicy"),
    ] {
        world.ask(method, path, Value::Null).await.refused(404, "KeyNotFound", "");
    }
    world.ask("POST", &format!("/keys/kek/{version}/unwrapkey"), body.clone()).await.refused(404, "KeyNotFound", "");
    world.ask("POST", "/keys/kek/create", json!({"kty": "RSA"})).await.refused(
        409,
        "Conflict",
        "ObjectIsDeletedButRecoverable",
    );
    assert_eq!(world.get("/keys").await.ok()["value"], json!([]));
    assert_eq!(world.get("/deletedkeys").await.ok()["value"][0]["recoveryId"], deleted["recoveryId"]);
    assert_eq!(world.get("/deletedkeys/kek").await.ok(), deleted);
    world.ask("DELETE", "/deletedkeys/kek", Value::Null).await.refused(403, "Forbidden", "PurgeProtected");
    world.ask("POST", "/deletedkeys/kek/recover", Value::Null).await.ok();
    world.ask("POST", &format!("/keys/kek/{version}/unwrapkey"), body).await.ok();

    let body = json!({"kty": "RSA", "logseal": {"purgeable": true}});
    let made = world.ask("POST", "/keys/short/create", body).await.ok();
    assert_eq!(made["attributes"]["recoveryLevel"], "Recoverable+Purgeable");
    world.ask("DELETE", "/keys/short", Value::Null).await.ok();
    assert_eq!(world.ask("DELETE", "/deletedkeys/short", Value::Null).await.status, StatusCode::NO_CONTENT);
    world.get("/deletedkeys/short").await.refused(404, "KeyNotFound", "");
}

#[tokio::test]
async fn a_rotation_policy_is_kept_as_it_was_sent_and_refused_when_it_could_not_be_acted_on() {
    let (world, _) = World::with_key().await;
    assert_eq!(world.get("/keys/kek/rotationpolicy").await.ok()["lifetimeActions"], json!([]));
    let policy = json!({
        "lifetimeActions": [
            {"trigger": {"timeAfterCreate": "P18M"}, "action": {"type": "rotate"}},
            {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}},
        ],
        "attributes": {"expiryTime": "P2Y"},
    });
    world.ask("PUT", "/keys/kek/rotationpolicy", policy).await.ok();
    let kept = world.get("/keys/kek/rotationPolicy/").await.ok();
    assert_eq!(
        kept["lifetimeActions"][0],
        json!({"trigger": {"timeAfterCreate": "P18M"}, "action": {"type": "Rotate"}})
    );
    assert_eq!(kept["lifetimeActions"][1]["action"]["type"], "Notify");
    assert_eq!(kept["attributes"]["expiryTime"], "P2Y");
    let action = |trigger: Value| json!({"lifetimeActions": [{"trigger": trigger, "action": {"type": "rotate"}}]});
    for bad in [
        action(json!({"timeAfterCreate": "P1D"})),
        action(json!({"timeAfterCreate": "soon"})),
        action(json!({"timeBeforeExpiry": "P30D"})),
        action(json!({})),
        json!({"attributes": {"expiryTime": "P1D"}}),
        json!({"lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "explode"}}]}),
    ] {
        world.ask("PUT", "/keys/kek/rotationpolicy", bad).await.refused(400, "BadParameter", "");
    }
    let key = world.vault.state.key(&KeyName::parse("kek").unwrap()).unwrap();
    assert_eq!(key.rotation.as_ref().unwrap().updated, UnixNanos(1_769_817_600_000_000_000).0, "the good one stays");
}

#[tokio::test]
async fn new_keys_are_granted_to_the_clusters_unless_they_say_no() {
    let (world, _) = World::with_key().await;
    let all = json!(Permission::ALL.map(Permission::as_str));
    let granted = world.get("/keys/kek/grants").await.ok();
    assert_eq!(granted, json!({"value": [{"principalId": CLUSTER, "permissions": all}], "newClusters": true}));
    world.ask("POST", "/keys/closed/create", json!({"kty": "RSA", "logseal": {"grants": false}})).await.ok();
    assert_eq!(world.get("/keys/closed/grants").await.ok(), json!({"value": [], "newClusters": false}));
    let some = world.ask("PUT", "/keys/closed/grants/P-1", json!({"permissions": ["get"]})).await.ok();
    assert_eq!(some["value"], json!([{"principalId": "p-1", "permissions": ["get"]}]));
    world.ask("PUT", "/keys/closed/grants/p-1", json!({"permissions": ["own"]})).await.refused(400, "BadParameter", "");
    world.ask("PUT", "/keys/closed/grants/p-1", json!({"permissions": []})).await.refused(400, "BadParameter", "");
    assert_eq!(world.ask("DELETE", "/keys/closed/grants/p-1", Value::Null).await.ok()["value"], json!([]));
}

#[tokio::test]
async fn listings_come_in_pages_that_link_to_each_other() {
    let world = World::new().await;
    for name in ["a", "B", "c", "d", "e"] {
        world.ask("POST", &format!("/keys/{name}/create"), json!({"kty": "RSA"})).await.ok();
    }
    let (mut path, mut names, mut pages) = ("/keys?maxresults=2".to_owned(), Vec::new(), 0);
    loop {
        let page = world.get(&path).await.ok();
        names.extend(
            page["value"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = page["nextLink"].as_str() else { break };
        path = next.strip_prefix("https://vault.test:8420").unwrap().replace("?api-version=7.4&", "?");
        // A page goes on also when the key at its end is gone meanwhile.
        world.ask("DELETE", "/keys/B", Value::Null).await;
    }
    assert_eq!((names.join(" ").as_str(), pages), ("a B c d e", 3));
    for bad in ["/keys?maxresults=0", "/keys?maxresults=26", "/keys?maxresults=x", "/keys?$skiptoken=***"] {
        world.get(bad).await.refused(400, "BadParameter", "");
    }
}

#[tokio::test]
async fn a_key_that_was_made_elsewhere_is_taken_in() {
    let world = World::new().await;
    let body: Value = serde_json::from_str(include_str!("imported.json")).unwrap();
    let made = world.ask("PUT", "/keys/brought", json!({"key": body, "tags": {"from": "elsewhere"}})).await.ok();
    assert_eq!((&made["key"]["n"], &made["tags"]["from"]), (&body["n"], &json!("elsewhere")));
    let value = BASE64URL_NOPAD.encode(b"secret");
    let sealed = world.ask("POST", "/keys/brought/encrypt", json!({"alg": "RSA-OAEP", "value": value})).await.ok();
    let opened =
        world.ask("POST", "/keys/brought/decrypt", json!({"alg": "RSA-OAEP", "value": sealed["value"]})).await.ok();
    assert_eq!(opened["value"], value);
    let mut public = body.clone();
    public["d"] = Value::Null;
    let reply = world.ask("PUT", "/keys/brought", json!({"key": public})).await;
    reply.refused(400, "BadParameter", "");
    assert!(reply.body["error"]["message"].as_str().unwrap().contains("`key.d`"), "{reply:?}");
    let mut wrong = body.clone();
    wrong["d"] = body["p"].clone();
    world.ask("PUT", "/keys/brought", json!({"key": wrong})).await.refused(400, "BadParameter", "");
}
