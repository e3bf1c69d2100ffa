//! Keys of shippers: regenerated, kept because they are in use, turned off, and what is known of their use after stops and kills.

use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use logseal_catalog::Catalog;
use logseal_crypto::{Key256, RootKey};
use logseal_testkit::{Server, ship};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message as _;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

use crate::Deployment;
use crate::cli::{done, failed, json};
use crate::lifecycle::request;
use crate::revocation::until;

/// What a shipper that presents `key` is told over gRPC, on a new connection.
async fn grpc(server: &Server, key: &str) -> Code {
    let body = request(&["grpc"]).encode_to_vec();
    ship::export_bytes_with_key(server, key, body.into()).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// The same over HTTP.
async fn http(server: &Server, key: &str) -> (u16, Bytes) {
    let request = Request::post(format!("{}/v1/logs", server.otlp_http()))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Full::new(Bytes::from(request(&["http"]).encode_to_vec())))
        .expect("a request");
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.expect("an answer");
    (answer.status().as_u16(), answer.into_body().collect().await.expect("a whole answer").to_bytes())
}

/// The same on a connection that stays open.
async fn on(connection: &mut LogsServiceClient<Channel>, key: &str) -> Code {
    let mut message = tonic::Request::new(request(&["open"]));
    message.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("a header value"));
    connection.export(message).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn both(server: &Server, key: &str) -> (Code, u16) {
    (grpc(server, key).await, http(server, key).await.0)
}

const TAKEN: (Code, u16) = (Code::Ok, 200);
const REFUSED: (Code, u16) = (Code::Unauthenticated, 401);

fn keys_in(shown: &Value) -> [String; 2] {
    ["primarySharedKey", "secondarySharedKey"].map(|name| shown[name].as_str().expect("a key").to_owned())
}

fn keys(server: &Server) -> [String; 2] {
    keys_in(&json(server, &["workspace", "keys", "default"]))
}

/// `generationTime` and `lastUseTime` of both keys.
fn metadata(server: &Server) -> [[Value; 2]; 2] {
    let shown = json(server, &["workspace", "show", "default"]);
    ["primarySharedKey", "secondarySharedKey"]
        .map(|key| ["generationTime", "lastUseTime"].map(|what| shown["properties"]["keysMetadata"][key][what].clone()))
}

/// As Azure's client asks for other keys: without a body.
async fn regenerate_both(server: &Server) -> [String; 2] {
    let path = format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.OperationalInsights/workspaces/default\
         /regenerateSharedKey?api-version=2025-07-01",
        server.credential("/subscriptionId"),
        server.credential("/resourceGroup"),
    );
    let request = Request::post(format!("{}{path}", server.credential("/endpoints/management")))
        .header(header::AUTHORIZATION, format!("Bearer {}", server.credential("/managementToken")))
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("azure-asyncoperation"), "{:?}", answer.headers());
    let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
    keys_in(&serde_json::from_slice(&body).expect("JSON"))
}

/// Scenario: shippers use both keys, over both protocols and on a connection that stays open; one key is regenerated, then both; the server is
/// killed at once and starts again. Guarantee: when the answer is there the old key is refused everywhere, the new one is taken, and the
/// other one is not touched; credentials.json has the new primary key; all that was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_key_is_refused_at_once_and_for_good() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let first = keys(&server);
    assert_eq!(first[0], server.workspace_key());
    let mut connection = LogsServiceClient::connect(server.otlp_grpc().to_owned()).await.expect("a listener");
    for key in &first {
        assert_eq!((both(&server, key).await, on(&mut connection, key).await), (TAKEN, Code::Ok));
    }
    let second = keys_in(&json(&server, &["workspace", "regenerate-key", "default", "--key", "primary"]));
    assert_eq!(
        (both(&server, &first[0]).await, on(&mut connection, &first[0]).await),
        (REFUSED, Code::Unauthenticated)
    );
    assert_eq!(second[1], first[1]);
    for key in &second {
        assert_eq!((both(&server, key).await, on(&mut connection, key).await), (TAKEN, Code::Ok));
    }
    let text = std::fs::read(deployment.data_dir().join("credentials.json")).expect("it is there");
    let credentials: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(credentials["workspaceKey"], second[0].as_str());
    assert_eq!(credentials["managementToken"], server.credential("/managementToken"), "nothing else is another one");

    let third = regenerate_both(&server).await;
    for key in first.iter().chain(&second) {
        assert_eq!(both(&server, key).await, REFUSED);
    }
    server.kill();
    let server = deployment.start();
    assert_eq!((keys(&server), server.workspace_key()), (third.clone(), third[0].as_str()));
    for key in first.iter().chain(&second) {
        assert_eq!(both(&server, key).await, REFUSED, "after a kill");
    }
    for key in &third {
        assert_eq!(both(&server, key).await, TAKEN);
    }
    assert_eq!(server.value("SELECT count(*) FROM logs"), 16, "what was acknowledged");
    let log = server.log();
    assert!([first, second, third].iter().flatten().all(|key| !log.contains(key.as_str())), "no key is in the log");
}

/// When the catalog of a running server says that the default workspace's primary key was last used.
async fn stored_use(deployment: &Deployment) -> Option<i64> {
    let text = std::fs::read_to_string(deployment.data_dir().join("vault/root.key")).expect("a generated root key");
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).expect("hexadecimal digits");
    let root = RootKey::new(Key256::copy_from_slice(&bytes).expect("256 bits"));
    let file = deployment.data_dir().join("catalog.sqlite");
    let catalog = Catalog::open(&file, root.catalog_mac()).await.expect("the server's catalog");
    let (uses, refused) = catalog.workspace_key_uses().await.expect("it can be read");
    assert!(refused.is_empty(), "{refused:?}");
    catalog.close().await.expect("it can be closed");
    uses.iter().find(|row| row.slot == "primary").map(|row| row.used.0)
}

/// Scenario: a workspace has keys in use kept. Its primary key is used; the server is stopped, then killed a while after another use.
/// Guarantee: with the key's use known to the second after the stop, and to within a minute after the kill, the key is neither regenerated nor
/// turned off, and goes on; the other key is regenerated; who insists gets a new key, and turns keys off, which shippers are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_use_is_kept_through_stops_and_kills() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let first = keys(&server);
    assert_eq!(both(&server, &first[0]).await, TAKEN);
    let features = ["--key-check-before-regeneration", "true", "--key-check-before-disable-local-auth", "true"];
    done(&server, &[&["workspace", "update", "default"], &features[..]].concat());
    let known = metadata(&server);
    let used = known[0][1].as_str().expect("it was used").to_owned();
    assert!(known[1][1].is_null(), "{known:?}");
    assert!(server.stop().success());

    let server = deployment.start();
    assert_eq!(metadata(&server), known, "after a stop");
    let regenerate = |key| ["workspace", "regenerate-key", "default", "--key", key];
    let refused = failed(&server, &regenerate("primary"));
    assert!(refused.contains("KeyRecentlyUsed") && refused.contains(&used), "{refused}");
    let refused = failed(&server, &["workspace", "update", "default", "--disable-local-auth", "true"]);
    assert!(refused.contains("KeyRecentlyUsed") && refused.contains(&used), "{refused}");
    assert_eq!(keys(&server), first);
    assert_eq!(both(&server, &first[0]).await, TAKEN);

    let before = stored_use(&deployment).await.expect("the stop stored it");
    let began = Instant::now();
    while stored_use(&deployment).await == Some(before) {
        assert!(began.elapsed() < Duration::from_secs(60), "the last use is not stored within a minute");
        assert_eq!(grpc(&server, &first[0]).await, Code::Ok, "it is used all the time");
        std::thread::sleep(Duration::from_millis(500));
    }
    server.kill();
    let server = deployment.start();
    let after = metadata(&server);
    assert!(after[0][1].as_str().expect("it is known after a kill") > used.as_str(), "{after:?}");
    assert_eq!(after[1], known[1]);
    assert!(failed(&server, &regenerate("primary")).contains("KeyRecentlyUsed"), "after a kill");
    let second = keys_in(&json(&server, &regenerate("secondary")));
    assert_eq!((&second[0], both(&server, &second[1]).await), (&first[0], TAKEN), "a key that was never used");

    let insisted = [&regenerate("primary")[..], &["--skip-last-usage-check"]].concat();
    let third = keys_in(&json(&server, &insisted));
    assert_eq!([&first[0], &third[0]].map(|key| key == &second[0]), [true, false]);
    assert_eq!((both(&server, &first[0]).await, both(&server, &third[0]).await), (REFUSED, TAKEN));
    let off = ["workspace", "update", "default", "--disable-local-auth", "true", "--skip-last-usage-check"];
    assert!(done(&server, &off).contains("turned off"));
    for _ in 0..2 {
        let (status, body) = http(&server, &third[0]).await;
        assert!(status == 401 && String::from_utf8_lossy(&body).contains("disableLocalAuth"), "{status} {body:?}");
        assert_eq!((grpc(&server, &third[1]).await, both(&server, "nobody's").await), (Code::Unauthenticated, REFUSED));
    }
    assert!(server.stop().success());
    let server = deployment.start();
    assert_eq!(both(&server, &third[0]).await, REFUSED, "after a stop");
    done(&server, &["workspace", "update", "default", "--disable-local-auth", "false"]);
    assert_eq!(both(&server, &third[0]).await, TAKEN);

    let records = json(&server, &["audit", "list", "--limit", "1000"]);
    let records = records.as_array().expect("an array");
    let refused = records.iter().filter(|record| record["outcome"] == "Refused: KeyRecentlyUsed").count();
    let regenerated = records.iter().filter(|record| {
        record["outcome"] == "Succeeded"
            && record["action"] == "Microsoft.OperationalInsights/workspaces/regenerateSharedKey/action"
    });
    assert_eq!((refused, regenerated.count()), (3, 2), "{records:?}");
}

/// Scenario: the key of a cluster is disabled, and a key of its workspace is regenerated. Guarantee: the door tells the old key from the new one:
/// whoever has the first is refused for good, and whoever has the other is told to come back, and is taken once the cluster is.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_apart_while_the_cluster_is_revoked() {
    let deployment = Deployment::new();
    let server = deployment.start_with(&["keys.probe_interval_ms=1000", "keys.min_state_interval_ms=0"]);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    let first = keys(&server);
    done(&server, &["vault", "key", "disable", "kek"]);
    until(&server, "Revoked");
    let second = keys_in(&json(&server, &["workspace", "regenerate-key", "default", "--key", "primary"]));
    assert_eq!(both(&server, &first[0]).await, REFUSED);
    for key in &second {
        assert_eq!(both(&server, key).await, (Code::Unavailable, 503));
    }
    done(&server, &["vault", "key", "enable", "kek"]);
    until(&server, "Active");
    assert_eq!((both(&server, &first[0]).await, both(&server, &second[0]).await), (REFUSED, TAKEN));
}
