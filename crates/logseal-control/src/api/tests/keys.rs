//! Keys of shippers: regenerated, kept because they are in use, and turned off.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::HeaderMap;
use logseal_core::Clock as _;
use logseal_keys::availability::Cause;
use logseal_keys::{KeyFault, NotAccepted, Suspension};

use super::*;
use crate::api::arm::Head;
use crate::api::keys::regenerate_within;
use crate::gate::Principal;
use crate::testing::RECENT_USE;

const REGENERATE: &str = "workspaces/default/regenerateSharedKey";

/// Both keys, the primary one first.
type Keys = [String; 2];

fn keys_in(body: &Value) -> Keys {
    ["primarySharedKey", "secondarySharedKey"].map(|name| body[name].as_str().unwrap_or_default().to_owned())
}

impl Api {
    async fn shared_keys(&self) -> Keys {
        let (status, headers, body) = self.json("POST", &path("workspaces/default/sharedKeys"), &json!({})).await;
        assert_eq!((status, &headers[header::CACHE_CONTROL]), (StatusCode::OK, &"no-store".parse().unwrap()));
        keys_in(&body)
    }

    async fn regenerate(&self, body: &Value) -> (StatusCode, HeaderMap, Value) {
        self.json("POST", &path(REGENERATE), body).await
    }

    /// What the door says to `key`, which a shipper presents now.
    fn present(&self, key: &str) -> Result<WorkspaceId, NotAccepted> {
        self.deployment.operations.world().access.workspace_of(key, self.deployment.clock.now())
    }

    async fn patch(&self, body: &Value) -> (StatusCode, Value) {
        let (status, _, body) = self.json("PATCH", &path("workspaces/default"), body).await;
        (status, body)
    }

    async fn features(&self, features: Value) {
        let (status, body) = self.patch(&json!({"properties": {"features": features}})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    async fn audit(&self) -> Vec<Value> {
        self.get("/v1/audit?top=1000").await.1["value"].as_array().unwrap().clone()
    }
}

/// Scenario: Azure's client asks for other keys, without a body; then one key is asked for by its name. Guarantee: the answer has both keys
/// and where the operation is that made them, which is over; what was replaced is refused and what was not is taken; the workspace says
/// when each key was made; the audit trail says who replaced which; no text but the answer has a key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_regenerated_both_or_one() {
    let api = api().await;
    let first = api.shared_keys().await;
    let made = |shown: &Value| {
        let keys = &shown["properties"]["keysMetadata"];
        ["primarySharedKey", "secondarySharedKey"].map(|name| keys[name]["generationTime"].as_str().unwrap().to_owned())
    };
    let (_, before) = api.get(&path("workspaces/default")).await;
    api.deployment.clock.advance(Duration::from_secs(60));

    let request = Request::post(path(REGENERATE)).header(header::AUTHORIZATION, "Bearer token");
    let request = request.header(header::HOST, "logs.test:8430").body(Body::empty()).unwrap();
    let (status, text, headers) = api.send(request).await;
    assert_eq!((status, &headers[header::CACHE_CONTROL]), (StatusCode::OK, &"no-store".parse().unwrap()), "{text}");
    assert!(!headers.contains_key(header::RETRY_AFTER) && !headers.contains_key(header::LOCATION), "{headers:?}");
    let second = keys_in(&serde_json::from_str(&text).unwrap());
    assert_eq!(api.shared_keys().await, second);
    assert!(first.iter().all(|key| !second.contains(key) && key.len() == 43));
    let url = headers["azure-asyncoperation"].to_str().unwrap();
    let (_, ended) = api.get(url.strip_prefix("http://logs.test:8430").unwrap()).await;
    assert_eq!(
        (&ended["status"], &ended["properties"]),
        (&json!("Succeeded"), &json!({"keyKinds": ["primary", "secondary"]})),
        "{ended}"
    );
    for (old, new) in first.iter().zip(&second) {
        assert_eq!((api.present(old), api.present(new)), (Err(NotAccepted::Unknown), Ok(api.workspace)));
    }
    let (_, after) = api.get(&path("workspaces/default")).await;
    assert!(made(&before).iter().zip(made(&after)).all(|(old, new)| *old < new), "{before} {after}");
    assert_eq!(*api.deployment.server.regenerated.lock().unwrap(), [api.workspace]);

    api.deployment.clock.advance(Duration::from_secs(60));
    let (status, _, body) = api.regenerate(&json!({"KeyKind": "Secondary"})).await;
    let third = keys_in(&body);
    assert_eq!((status, &third[0]), (StatusCode::OK, &second[0]), "{body}");
    assert_ne!(third[1], second[1]);
    let taken = [&third[0], &third[1], &second[1]].map(|key| api.present(key).is_ok());
    assert_eq!(taken, [true, true, false]);

    let records = api.audit().await;
    let told: Vec<_> = records.iter().map(|record| (record["action"].clone(), record["outcome"].clone())).collect();
    let action = json!("Microsoft.OperationalInsights/workspaces/regenerateSharedKey/action");
    let expected = ["Succeeded", "Accepted", "Succeeded", "Accepted"].map(|outcome| (action.clone(), json!(outcome)));
    assert_eq!(told, expected, "{records:?}");
    let newest = &records[0];
    assert_eq!((&newest["after"]["keyKinds"], &newest["actor"]), (&json!(["secondary"]), &json!("management-token")));
    assert_eq!(newest["after"]["primary"]["generationTime"], newest["before"]["primary"]["generationTime"]);
    assert_ne!(newest["after"]["secondary"]["generationTime"], newest["before"]["secondary"]["generationTime"]);
    let (_, operations) = api.get("/v1/operations").await;
    assert_eq!(operations["value"][0]["kind"], "regenerateWorkspaceKeys");
    let told = format!("{operations}{records:?}{after}");
    for key in [&first, &second, &third].into_iter().flatten() {
        assert!(!told.contains(key.as_str()), "{told}");
    }
}

/// Scenario: the server does not come to take the new keys within the time that a request waits; later it does. Guarantee: the answer is 202 and has no key,
/// but where the operation can be followed, which runs until then and succeeds; then the keys are others, and the operation's result is the workspace.
#[tokio::test(flavor = "multi_thread")]
async fn a_regeneration_that_takes_long_is_followed() {
    let api = api().await;
    let first = api.shared_keys().await;
    let held = api.deployment.server.taking.lock().await;
    let hurried = |State(management): State<Arc<Management>>, head: Head, body: Bytes| async move {
        regenerate_within(&management, &head, &body, Duration::from_millis(50)).await
    };
    let route = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.OperationalInsights/workspaces/{name}/regenerateSharedKey";
    let router = Router::new().route(route, post(hurried)).layer(Extension(Arc::new(Principal::management())));
    let router = router.with_state(Arc::new(management(&api.deployment).await));
    let request = Request::post(path(REGENERATE)).header(header::HOST, "logs.test:8430").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((status, &headers[header::RETRY_AFTER]), (StatusCode::ACCEPTED, &"1".parse().unwrap()), "{body:?}");
    assert!(body.is_empty(), "{body:?}");
    let at = |name: &str| headers[name].to_str().unwrap().strip_prefix("http://logs.test:8430").unwrap().to_owned();
    assert_eq!(api.get(&at("azure-asyncoperation")).await.1["status"], "Updating");
    assert_eq!(api.get(&at("location")).await.0, StatusCode::ACCEPTED);

    drop(held);
    assert_eq!(api.follow(&headers).await["status"], "Succeeded");
    let (status, result) = api.get(&at("location")).await;
    assert_eq!((status, &result["name"]), (StatusCode::OK, &json!("default")), "{result}");
    let second = api.shared_keys().await;
    for (old, new) in first.iter().zip(&second) {
        assert_eq!((api.present(old), api.present(new)), (Err(NotAccepted::Unknown), Ok(api.workspace)));
    }
}

/// Scenario: bodies that say nothing known, a workspace that is not there, an entity tag of before. Guarantee: each is refused, and no key
/// changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_regeneration_that_is_not_understood_changes_nothing() {
    let api = api().await;
    let first = api.shared_keys().await;
    for body in [
        json!({"keyKind": "tertiary"}),
        json!({"keyKind": 1}),
        json!({"kind": "primary"}),
        json!({"skipAccountKeysLastUsageCheck": "yes"}),
        json!(["primary"]),
    ] {
        let (status, _, answer) = api.regenerate(&body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (StatusCode::BAD_REQUEST, &json!("InvalidRequestContent")),
            "{body} {answer}"
        );
    }
    let none = api.json("POST", &path("workspaces/none/regenerateSharedKey"), &json!({})).await;
    assert_eq!(none.0, StatusCode::NOT_FOUND);
    let request = Request::post(path(REGENERATE)).header(header::AUTHORIZATION, "Bearer token");
    let (status, answer, _) = api.send(request.header(header::IF_MATCH, "\"0\"").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{answer}");
    assert_eq!(api.shared_keys().await, first);
    assert!(api.get("/v1/operations").await.1["value"].as_array().unwrap().is_empty(), "nothing was begun");
}

/// Scenario: the primary key is in use, and regeneration is asked for with and without the check, of each key and of both, in either spelling
/// of the word that insists, and when the last use is long ago. Guarantee: with the check a key that was used within 12 hours stays, the
/// refusal says when that was, and is audited; the other key is regenerated; who insists, who waits and who has no check gets new keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_in_use_is_regenerated_only_for_who_insists() {
    let api = api().await;
    let first = api.shared_keys().await;
    assert_eq!(api.present(&first[0]), Ok(api.workspace));
    let (_, shown) = api.get(&path("workspaces/default")).await;
    let metadata = &shown["properties"]["keysMetadata"];
    let used = metadata["primarySharedKey"]["lastUseTime"].as_str().unwrap_or_default().to_owned();
    assert!(!used.is_empty() && metadata["secondarySharedKey"]["lastUseTime"].is_null(), "{metadata}");
    api.features(json!({"enableKeyCheckBeforeRegeneration": true})).await;

    let primary = json!({"keyKind": "primary"});
    for body in [&primary, &json!({}), &json!({"keyKind": "primary", "skipAccountKeysLastUsageCheck": false})] {
        let (status, headers, refused) = api.regenerate(body).await;
        let code = &refused["error"]["code"];
        assert_eq!((status, code), (StatusCode::CONFLICT, &json!("KeyRecentlyUsed")), "{body} {refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("primary key was last used at {used}")), "{message}");
        assert!(message.contains("12 h") && !message.contains("secondary"), "{message}");
        assert!(!headers.contains_key(header::RETRY_AFTER), "Azure's clients would send it again");
        let newest = api.audit().await.remove(0);
        assert_eq!(newest["outcome"], "Refused: KeyRecentlyUsed", "{newest}");
        assert!(newest["action"].as_str().unwrap().ends_with("regenerateSharedKey/action"), "{newest}");
        assert_eq!(newest["before"]["primary"]["lastUseTime"], used.as_str(), "{newest}");
    }
    assert_eq!(api.shared_keys().await, first);
    let (status, _, body) = api.regenerate(&json!({"keyKind": "secondary"})).await;
    assert_eq!((status, &keys_in(&body)[0]), (StatusCode::OK, &first[0]), "{body}");

    for skip in ["skipAccountKeysLastUsageCheck", "SkipAccountKeysLastUsageCheck"] {
        let before = api.shared_keys().await;
        api.present(&before[0]).unwrap();
        let (status, _, body) = api.regenerate(&json!({"keyKind": "primary", skip: true})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_ne!(keys_in(&body)[0], before[0]);
        assert_eq!(api.audit().await[0]["after"]["skipAccountKeysLastUsageCheck"], true);
    }
    let before = api.shared_keys().await;
    assert_eq!(api.regenerate(&primary).await.0, StatusCode::OK, "a new key was never used");
    let after = api.shared_keys().await;
    assert_ne!(after[0], before[0]);
    api.present(&after[0]).unwrap();
    api.deployment.clock.advance(RECENT_USE - Duration::from_secs(1));
    assert_eq!(api.regenerate(&primary).await.0, StatusCode::CONFLICT);
    api.deployment.clock.advance(Duration::from_secs(1));
    assert_eq!(api.regenerate(&primary).await.0, StatusCode::OK, "12 hours are over");
    api.present(&api.shared_keys().await[0]).unwrap();
    api.features(json!({"enableKeyCheckBeforeRegeneration": false})).await;
    assert_eq!(api.regenerate(&primary).await.0, StatusCode::OK, "nobody asked for the check");
}

/// Scenario: keys are turned off and on, with and without the check, which the same request may take away; then the server starts anew.
/// Guarantee: while they are off none is taken, and what they are refused for is told from an unknown key; with the check keys in use are
/// turned off only for who insists; refusals and changes are audited; a start knows it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_turned_off_when_they_are_not_in_use_or_by_who_insists() {
    let mut api = api().await;
    let keys = api.shared_keys().await;
    let (on, off) = (json!({"disableLocalAuth": false}), json!({"disableLocalAuth": true}));
    api.features(json!({"enableKeyCheckBeforeDisableLocalAuth": true})).await;
    api.features(off.clone()).await;
    assert_eq!(api.present(&keys[0]), Err(NotAccepted::LocalAuthDisabled), "no key was ever used");
    assert_eq!(api.present("nobody's"), Err(NotAccepted::Unknown));
    let newest = api.audit().await.remove(0);
    assert_eq!(
        (&newest["before"]["features"]["disableLocalAuth"], &newest["after"]["features"]["disableLocalAuth"]),
        (&json!(false), &json!(true)),
        "{newest}"
    );
    api.features(on.clone()).await;
    assert_eq!(api.present(&keys[1]), Ok(api.workspace));

    let without_check = json!({"disableLocalAuth": true, "enableKeyCheckBeforeDisableLocalAuth": false});
    for features in [off.clone(), without_check] {
        let (status, refused) = api.patch(&json!({"properties": {"features": features}})).await;
        let code = &refused["error"]["code"];
        assert_eq!((status, code), (StatusCode::CONFLICT, &json!("KeyRecentlyUsed")), "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("secondary key was last used at"), "{refused}");
        let newest = api.audit().await.remove(0);
        assert_eq!(
            (&newest["outcome"], &newest["action"]),
            (&json!("Refused: KeyRecentlyUsed"), &json!("Microsoft.OperationalInsights/workspaces/write"))
        );
    }
    let (_, shown) = api.get(&path("workspaces/default")).await;
    let features = &shown["properties"]["features"];
    assert_eq!(
        (&features["disableLocalAuth"], &features["enableKeyCheckBeforeDisableLocalAuth"]),
        (&json!(false), &json!(true)),
        "nothing was changed"
    );
    assert_eq!(api.present(&keys[1]), Ok(api.workspace));
    let body = json!({"SkipAccountKeysLastUsageCheck": true, "properties": {"features": off}});
    let (status, shown) = api.patch(&body).await;
    assert_eq!((status, &shown["properties"]["features"]["disableLocalAuth"]), (StatusCode::OK, &json!(true)));
    assert_eq!(shown.get("skipAccountKeysLastUsageCheck"), None);
    assert_eq!(keys.iter().map(|key| api.present(key)).collect::<Vec<_>>(), [Err(NotAccepted::LocalAuthDisabled); 2]);

    api.deployment.restart(Arc::new(crate::NoFaults)).await;
    api.deployment.operations.tell_settings().await.unwrap();
    assert_eq!(api.present(&keys[0]), Err(NotAccepted::LocalAuthDisabled), "after a start");
}

/// Scenario: the key of a workspace's cluster is revoked. Guarantee: its shippers' keys are regenerated all the same: a key that leaked
/// must not wait.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_regenerated_while_the_cluster_is_revoked() {
    let api = api().await;
    let first = api.shared_keys().await;
    let cluster = api.deployment.catalog.workspaces().await.unwrap().remove(0).cluster;
    let cause = Cause { fault: KeyFault::KeyDisabled, definitive: true };
    let why = Suspension { cluster, name: "local".into(), cause };
    api.deployment.operations.world().keyring.suspend(Arc::new(why));
    let (status, _, body) = api.regenerate(&json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(api.present(&first[0]), Err(NotAccepted::Unknown));
    assert_eq!(api.present(&keys_in(&body)[0]), Ok(api.workspace));
}
