//! Tokens with roles, by the command line, over HTTP and over gRPC.

use std::fs;
use std::process::{Command, Output};

use logseal_control::grpc::v1;
use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use serde_json::{Value, json};
use tonic::Code;

use crate::Deployment;
use crate::cli::{done, failed, json as shown};
use crate::lifecycle::{http_get, metrics, request};
use crate::operations_grpc::client;

/// Makes a token and returns it.
fn made(server: &Server, name: &str, role: &str, more: &[&str]) -> String {
    let arguments = [&["token", "create", "--name", name, "--role", role], more].concat();
    let output = server.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("shown this once"), "a note that is no part of the token");
    String::from_utf8(output.stdout).expect("ASCII").trim_end().to_owned()
}

/// A command of somebody who has a token, and neither the data directory nor its credentials.
fn held(deployment: &Deployment, server: &Server, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    command.current_dir(deployment.dir.path()).args(arguments).env("LOGSEAL_MANAGEMENT_TOKEN", token);
    command.args(["--endpoint", server.credential("/endpoints/management")]).output().expect("the binary starts")
}

/// That a command of theirs succeeds, and what it prints.
pub(crate) fn may(deployment: &Deployment, server: &Server, token: &str, arguments: &[&str]) -> String {
    let output = held(deployment, server, token, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// That one is refused for want of a role, and what it says.
fn may_not(deployment: &Deployment, server: &Server, token: &str, arguments: &[&str]) -> String {
    let output = held(deployment, server, token, arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && message.contains("AuthorizationFailed"), "{arguments:?}: {message}");
    message
}

/// Scenario: one token of each role is made, used for what its role is for and for what it is not, before and after a start; one is deleted. Guarantee:
/// readers read their workspace and nothing else, nobody else reads it, keys are the key officer's, resources the operator's, the trail the auditor's;
/// refusals name the role that is needed; a deleted token opens nothing at once; no token is in a file or in the log.
#[tokio::test(flavor = "multi_thread")]
async fn each_token_opens_what_its_role_is_for() {
    let deployment = Deployment::new();
    let server = deployment.start();
    ship::export(&server, &request(&["one", "two"])).await.expect("accepted");
    done(&server, &["workspace", "create", "team"]);
    // A clean stop makes a segment of what was acknowledged.
    assert!(server.stop().success());
    let server = deployment.start();
    let reader = made(&server, "grafana", "reader", &["--workspace", "default", "--expires", "90d"]);
    let operator = made(&server, "ops", "operator", &[]);
    let officer = made(&server, "keys", "key-officer", &[]);
    let auditor = made(&server, "audit", "auditor", &[]);
    assert!(failed(&server, &["token", "create", "--name", "ops", "--role", "auditor"]).contains("TokenExists"));

    let query = ["query", "SELECT count(*) AS n FROM logs", "--format", "json"];
    let counted: Value = serde_json::from_str(&may(&deployment, &server, &reader, &query)).expect("JSON");
    assert_eq!(counted[0]["n"], 2);
    let elsewhere = ["query", "SELECT 1", "--workspace", "team"];
    assert!(may_not(&deployment, &server, &reader, &elsewhere).contains("with a grant on this workspace"));
    let segment = shown(&server, &["segment", "list"])[0]["id"].as_str().expect("an id").to_owned();
    for denied in [
        &["segment", "export-key", segment.as_str()][..],
        &["workspace", "keys", "default"],
        &["cluster", "update", "local", "--tag", "a=b"],
        &["token", "list"],
        &["audit", "list"],
    ] {
        may_not(&deployment, &server, &reader, denied);
    }
    may(&deployment, &server, &operator, &["workspace", "update", "team", "--retention", "30"]);
    may(&deployment, &server, &operator, &["cluster", "update", "local", "--tag", "a=b"]);
    may_not(&deployment, &server, &operator, &query);
    may_not(&deployment, &server, &operator, &["workspace", "keys", "default"]);
    let own_token = ["token", "create", "--name", "own", "--role", "key-officer"];
    assert!(may_not(&deployment, &server, &operator, &own_token).contains("this needs the management token"));
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    let vault = server.credential("/endpoints/vault").to_owned();
    let key = ["cluster", "update", "local", "--key-name", "kek", "--key-vault-uri", vault.as_str()];
    assert!(may_not(&deployment, &server, &operator, &key).contains("`key-officer`"));
    may(&deployment, &server, &officer, &key);
    assert!(may(&deployment, &server, &officer, &["segment", "export-key", &segment, "--json"]).contains("keyHex"));
    may_not(&deployment, &server, &officer, &query);
    may_not(&deployment, &server, &officer, &["workspace", "delete", "team"]);
    assert!(may(&deployment, &server, &auditor, &["audit", "list"]).contains("token:keys"));
    may_not(&deployment, &server, &auditor, &["cluster", "list"]);
    let management = server.credential("/endpoints/management").to_owned();
    assert!(http_get(&management, "/metrics", Some(&auditor)).starts_with("HTTP/1.1 200"));
    assert!(http_get(&management, "/metrics", Some(&reader)).starts_with("HTTP/1.1 403"));

    let list = v1::ListOperationsRequest::default();
    let listed = client(&server, &auditor).await.list_operations(list.clone()).await.expect("a page").into_inner();
    let id = listed.operations[0].id.clone();
    let cancel = client(&server, &auditor).await.cancel_operation(v1::CancelOperationRequest { id }).await;
    assert_eq!(cancel.unwrap_err().code(), Code::PermissionDenied);
    let refused = client(&server, &reader).await.list_operations(list).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let listed = shown(&server, &["token", "list"]);
    let names: Vec<_> = listed.as_array().expect("an array").iter().map(|token| token["name"].clone()).collect();
    assert_eq!(json!(names), json!(["audit", "grafana", "keys", "ops"]));
    assert!(listed[1]["expires"].is_string() && listed[1]["lastUsed"].is_string(), "{listed}");
    assert_eq!(listed[1]["workspaces"][0]["name"], "default");
    done(&server, &["token", "delete", "ops"]);
    let gone = held(&deployment, &server, &operator, &["workspace", "list"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("Unauthorized"));
    assert!(server.stop().success());

    let server = deployment.start();
    may(&deployment, &server, &reader, &query);
    let gone = held(&deployment, &server, &operator, &["workspace", "list"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("Unauthorized"), "it stays deleted");
    let log = server.log();
    assert!(server.stop().success());
    for token in [reader, operator, officer, auditor] {
        assert!(token.starts_with("lsm_") && !log.contains(&token));
        for file in files_below(&deployment.data_dir()) {
            let content = fs::read(&file).expect("a file of a stopped server");
            let found = content.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{} has a token", file.display());
        }
    }
}

/// Scenario: somebody tries tokens over HTTP, hundreds of them. Guarantee: after a few they are answered 429, the management token gets in from the same
/// address, and the trail has few records of it, and says where they came from.
#[test]
fn who_tries_tokens_is_limited_and_recorded() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let management = server.credential("/endpoints/management").to_owned();
    let status = |token: &str| http_get(&management, "/v1/audit", Some(token)).split(' ').nth(1).map(str::to_owned);
    let answers: Vec<_> = (0..300).filter_map(|number| status(&format!("wrong-{number}"))).collect();
    let unauthorized = answers.iter().filter(|status| *status == "401").count();
    // One comes back every three seconds.
    assert!((20..100).contains(&unauthorized), "{unauthorized}");
    assert!(answers.iter().all(|status| ["401", "429"].contains(&status.as_str())), "{answers:?}");
    assert_eq!(status(server.credential("/managementToken")).as_deref(), Some("200"));
    let records = shown(&server, &["audit", "list", "--limit", "1000"]);
    let refused =
        records.as_array().expect("an array").iter().filter(|record| record["action"] == "logseal/access/refused");
    let refused: Vec<_> = refused.collect();
    assert!((10..60).contains(&refused.len()), "{refused:?}");
    assert_eq!(refused.last().expect("a record")["after"]["peer"], "127.0.0.1");
    let metrics = metrics(&server);
    assert!(metrics.contains("logseal_management_refused_total{reason=\"limited\"}"), "{metrics}");
    assert!(server.stop().success());
}
