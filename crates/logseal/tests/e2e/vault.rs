//! The embedded vault: by the command line, over HTTPS as a program would ask it, and by a cluster that uses its keys.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use logseal_testkit::Server;
use logseal_tls::Connector;
use serde_json::{Value, json};

use crate::Deployment;
use crate::cli::{done, failed, json as shown};

/// Asks the server's vault with `token`.
fn ask(server: &Server, method: &str, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
    let authority = server.credential("/endpoints/vault").strip_prefix("https://").expect("HTTPS");
    ask_at(authority, server.credential("/vaultCaFile").as_ref(), method, path, token, body)
}

/// Asks the vault at `authority`, which has a certificate of `ca_file`.
pub(crate) fn ask_at(
    authority: &str,
    ca_file: &Path,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let (host, port) = authority.rsplit_once(':').expect("a port");
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?api-version=7.4"))
        .header("host", authority)
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    let connector = Connector::trusting(ca_file).expect("a certificate");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = connector.connect(host, port.parse().expect("a number")).await.expect("a server that is believed");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    })
}

fn versions(server: &Server, name: &str) -> Vec<(String, bool)> {
    let listed = shown(server, &["vault", "key", "versions", name]);
    let version = |one: &Value| (one["version"].as_str().expect("a version").to_owned(), one["enabled"] == true);
    listed.as_array().expect("an array").iter().map(version).collect()
}

/// Scenario: a key from its making to its recovery, with a restart between. Guarantee: commands and HTTPS show one vault; a disabled or
/// deleted key opens nothing, an enabled or recovered one does again; a wrong token is refused; the trail tells all of it.
#[test]
fn a_key_is_made_rotated_disabled_deleted_and_recovered() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let url = server.credential("/endpoints/vault").to_owned();
    assert!(server.ready_line.contains(&format!(" vault={url}")), "{}", server.ready_line);
    let token = server.credential("/vaultToken").to_owned();
    let made = shown(&server, &["vault", "key", "create", "log-kek", "--size", "2048"]);
    assert!(made["key"]["kid"].as_str().is_some_and(|kid| kid.starts_with(&format!("{url}/keys/log-kek/"))), "{made}");
    let first = versions(&server, "log-kek")[0].0.clone();
    let secret = BASE64URL_NOPAD.encode(&[7; 32]);
    let body = json!({"alg": "RSA-OAEP-256", "value": secret});
    let (status, wrapped) = ask(&server, "POST", &format!("/keys/log-kek/{first}/wrapkey"), &token, &body);
    assert_eq!(status, StatusCode::OK, "{wrapped}");
    let body = json!({"alg": "RSA-OAEP-256", "value": wrapped["value"]});
    let unwrap = |server: &Server, token: &str| {
        let (status, answer) = ask(server, "POST", &format!("/keys/log-kek/{first}/unwrapkey"), token, &body);
        let inner = answer.pointer("/error/innererror/code").or(answer.pointer("/error/code"));
        (status.as_u16(), inner.and_then(Value::as_str).unwrap_or_default().to_owned(), answer["value"].clone())
    };
    assert_eq!(unwrap(&server, &token), (200, String::new(), json!(secret)));
    assert_eq!(unwrap(&server, "wrong").0, 401);

    assert!(done(&server, &["vault", "rotate", "log-kek"]).contains("log-kek"));
    let listed = versions(&server, "log-kek");
    assert_eq!((listed.len(), &listed[1].0), (2, &first), "newest first");
    assert!(done(&server, &["vault", "key", "disable", "log-kek"]).contains("All 2 versions"));
    assert!(versions(&server, "log-kek").iter().all(|(_, enabled)| !enabled));
    assert_eq!(unwrap(&server, &token), (403, "KeyDisabled".to_owned(), Value::Null));
    assert!(done(&server, &["vault", "enable", "log-kek", "--version", &first]).contains(&first));
    assert_eq!(versions(&server, "log-kek").iter().filter(|(_, enabled)| *enabled).count(), 1);
    assert_eq!(unwrap(&server, &token).0, 200);
    assert!(server.stop().success());

    let server = deployment.start();
    assert_eq!(server.credential("/vaultToken"), token, "the token stays");
    assert_eq!(unwrap(&server, &token).0, 200, "the authority stays too");
    assert!(done(&server, &["vault", "delete", "log-kek"]).contains("recover log-kek"));
    assert_eq!(unwrap(&server, &token), (404, "KeyNotFound".to_owned(), Value::Null));
    assert!(failed(&server, &["vault", "key", "show", "log-kek"]).contains("--deleted"));
    assert!(failed(&server, &["vault", "key", "create", "log-kek"]).contains("key recover NAME"));
    assert!(failed(&server, &["vault", "purge", "log-kek"]).contains("protected"));
    assert_eq!(shown(&server, &["vault", "list", "--deleted"])[0]["name"], "log-kek");
    assert!(done(&server, &["vault", "recover", "log-kek"]).contains("log-kek"));
    assert_eq!(unwrap(&server, &token).0, 200);

    assert!(failed(&server, &["vault", "key", "show", "logseal-service-managed"]).contains("ReservedKey"));
    let names = shown(&server, &["vault", "key", "list"]);
    assert_eq!(names.as_array().map(Vec::len), Some(1), "the deployment's own key is not listed: {names}");
    let refused = Command::new(env!("CARGO_BIN_EXE_logseal"))
        .args(["vault", "list", "--data-dir"])
        .arg(deployment.data_dir())
        .env("LOGSEAL_VAULT_TOKEN", "wrong")
        .output()
        .expect("the binary starts");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unauthorized"));

    let records = shown(&server, &["audit", "list", "--limit", "1000"]);
    let told = |action: &str, outcome: &str| {
        records.as_array().expect("an array").iter().any(|record| {
            record["action"].as_str().is_some_and(|known| known == format!("Microsoft.KeyVault/vaults/{action}"))
                && record["outcome"] == outcome
        })
    };
    for (action, outcome) in [
        ("keys/create/action", "Succeeded"),
        ("keys/rotate/action", "Succeeded"),
        ("keys/update/action", "Succeeded"),
        ("keys/delete", "Succeeded"),
        ("keys/recover/action", "Succeeded"),
        ("keys/unwrap/action", "KeyDisabled"),
        ("keys/purge/action", "PurgeProtected"),
        ("access", "Unauthorized"),
    ] {
        assert!(told(action, outcome), "{action} {outcome} in {records}");
    }
    let log = server.log();
    assert!(!log.contains(&token) && !log.contains(&secret), "no secret in the log");
    assert!(server.stop().success());
}

/// Scenario: a cluster takes a key under the address at which the vault is served now, and the next start serves it elsewhere. Guarantee:
/// the cluster's key is found all the same; keys say which clusters may use them.
#[test]
fn a_cluster_takes_a_key_by_any_address_of_the_vault_and_shows_in_its_grants() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let url = server.credential("/endpoints/vault").to_owned();
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["vault", "key", "create", "apart", "--size", "2048", "--no-grant"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek", "--key-vault-uri", &url]);
    assert!(server.stop().success());

    let server = deployment.start();
    let again = format!("{}/", url.replace("127.0.0.1", "LocalHost"));
    done(&server, &["vault", "key", "rotate", "kek"]);
    let updated = shown(&server, &["cluster", "update", "local", "--key-name", "kek", "--key-vault-uri", &again]);
    assert_eq!(updated["properties"]["provisioningState"], "Succeeded", "{updated}");

    let granted = |name: &str| {
        let (status, grants) =
            ask(&server, "GET", &format!("/keys/{name}/grants"), server.credential("/vaultToken"), &json!({}));
        assert_eq!(status, StatusCode::OK);
        grants["value"].as_array().expect("grants").len()
    };
    assert_eq!((granted("kek"), granted("apart")), (1, 0));
    done(&server, &["cluster", "create", "second"]);
    assert_eq!((granted("kek"), granted("apart")), (2, 0), "a new cluster is welcomed where all are");
    assert!(done(&server, &["vault", "grant", "--key", "apart", "--cluster", "second"]).contains("may use"));
    assert_eq!(granted("apart"), 1);
    assert!(done(&server, &["vault", "revoke", "--key", "apart", "--cluster", "second"]).contains("any more"));
    assert_eq!(granted("apart"), 0);
    let message = failed(&server, &["vault", "grant", "--key", "apart", "--cluster", "none"]);
    assert!(message.contains("cluster list"), "{message}");
    assert!(server.stop().success());
}
