//! Clusters, workspaces and operations by the command line: against a real server, and against one that never finishes.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use logseal_testkit::{Server, ship};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::Deployment;
use crate::lifecycle::{metrics, request};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command that succeeds prints.
pub(crate) fn done(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

pub(crate) fn json(server: &Server, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&done(server, &arguments)).expect("JSON alone")
}

/// What a command that fails says.
pub(crate) fn failed(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stderr(&output)
}

fn names(listing: &Value) -> Vec<&str> {
    listing.as_array().expect("an array").iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

/// Scenario: a cluster and a workspace from their making to their end. Guarantee: each command waits for its operation and shows what
/// came of it; `--json` prints JSON alone; what cannot be done fails with exit code 1 and says what to do.
#[test]
fn clusters_and_workspaces_are_made_linked_shown_and_deleted() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let made = done(&server, &["cluster", "create", "prod", "--tag", "team=x", "--capacity", "200"]);
    assert!(made.contains("service-managed") && made.contains("team=x"), "{made}");
    let message = failed(&server, &["cluster", "create", "prod"]);
    assert!(message.contains("already") && message.contains("cluster update prod"), "{message}");
    let cluster = json(&server, &["cluster", "show", "PROD"]);
    assert_eq!((cluster["name"].as_str(), cluster["sku"]["capacity"].as_u64()), (Some("prod"), Some(200)));
    assert_eq!(cluster["properties"]["provisioningState"], "Succeeded");
    assert_eq!(names(&json(&server, &["cluster", "list"])), ["local", "prod"]);
    let listed = done(&server, &["cluster", "list"]);
    assert!(listed.starts_with("NAME ") && listed.lines().count() == 3, "{listed}");
    let updated = json(&server, &["cluster", "update", "prod", "--tag", "team=y"]);
    assert_eq!((&updated["tags"]["team"], &updated["sku"]["capacity"]), (&"y".into(), &200.into()));

    let workspace = json(&server, &["workspace", "create", "team", "--retention", "90"]);
    let id = workspace["properties"]["customerId"].as_str().expect("an id").to_owned();
    assert_eq!(workspace["properties"]["retentionInDays"], 90);
    assert!(failed(&server, &["workspace", "create", "team"]).contains("already"));
    let capped = json(&server, &["workspace", "update", "team", "--daily-cap", "1.5"]);
    assert_eq!(capped["properties"]["workspaceCapping"]["dailyQuotaGb"], 1.5);
    assert_eq!(server.query_in("team", "SELECT count(*) AS n FROM logs").expect("a query")[0]["n"], 0);
    let linked = json(&server, &["workspace", "link", "team", "--cluster", "prod"]);
    let cluster_id = linked["properties"]["features"]["clusterResourceId"].as_str().expect("a link");
    assert!(cluster_id.ends_with("/clusters/prod"), "{cluster_id}");
    let listed = done(&server, &["workspace", "list"]);
    let row = listed.lines().find(|line| line.starts_with("team ")).expect("the workspace");
    assert!(row.contains(&id) && row.contains(" prod ") && row.ends_with("90 days"), "{row}");
    let associated = &json(&server, &["cluster", "show", "prod"])["properties"]["associatedWorkspaces"];
    assert_eq!(associated[0]["workspaceName"], "team");
    let unlinked = json(&server, &["workspace", "unlink", "team"]);
    assert!(unlinked["properties"]["features"]["clusterResourceId"].is_null(), "{unlinked}");
    assert!(json(&server, &["workspace", "keys", "team"])["primarySharedKey"].is_string());

    assert!(done(&server, &["workspace", "delete", "team", "--force"]).contains("for good"));
    let message = failed(&server, &["workspace", "delete", "team"]);
    assert!(message.contains("no workspace `team`") && message.contains("workspace list"), "{message}");
    assert!(!names(&json(&server, &["workspace", "list"])).contains(&"team"));
    assert!(done(&server, &["cluster", "delete", "prod"]).contains("`prod` is deleted"));
    let message = failed(&server, &["cluster", "show", "prod"]);
    assert!(message.contains("ResourceNotFound") && message.contains("cluster list"), "{message}");

    let records = json(&server, &["audit", "list", "--limit", "1000"]);
    let records = records.as_array().expect("an array");
    let outcomes = |action: &str| -> Vec<&str> {
        let of = records.iter().filter(|record| record["action"].as_str().is_some_and(|known| known.ends_with(action)));
        of.filter_map(|record| record["outcome"].as_str()).collect()
    };
    assert!(outcomes("clusters/delete").contains(&"Succeeded"), "{records:?}");
    assert!(outcomes("workspaces/linkedServices/write").contains(&"Succeeded"), "{records:?}");
    let newest = json(&server, &["audit", "list", "--limit", "1"]);
    assert_eq!(newest.as_array().map(Vec::len), Some(1));
    assert!(done(&server, &["audit", "list"]).lines().any(|line| line.contains("clusters/prod")));
    assert!(done(&server, &["audit", "verify"]).contains(&format!("All {} records", records.len())));
    assert_eq!(json(&server, &["audit", "verify"])["faults"].as_array().map(Vec::len), Some(0));
    assert!(server.stop().success());
}

/// Scenario: a cluster is to have a key that does not exist. Guarantee: the command that waits fails with the operation's code and
/// names the operation; without waiting it succeeds, and `operation wait` tells how it ended.
#[test]
fn an_operation_that_fails_fails_who_waits_for_it() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let message = failed(&server, &["cluster", "update", "local", "--key-name", "no-such-key"]);
    assert!(message.contains("KeyNotFound: ") && message.contains("logseal operation show "), "{message}");
    let listed = json(&server, &["operation", "list", "--status", "failed"]);
    let id = names(&listed)[0].to_owned();
    assert!(message.contains(&id), "{message}: {id}");
    assert!(done(&server, &["operation", "show", &id]).contains("KeyNotFound"));

    let begun = json(&server, &["cluster", "update", "local", "--key-name", "no-such-key", "--no-wait"]);
    let id = begun["name"].as_str().expect("an operation").to_owned();
    assert_eq!(begun["kind"], "updateCluster");
    assert!(failed(&server, &["operation", "wait", &id, "--timeout", "60"]).contains("KeyNotFound"));
    assert!(failed(&server, &["operation", "cancel", &id]).contains("OperationNotCancelable"));
    // Counted when it is told of, which may be a moment after who asks has seen it.
    let counted = "logseal_operations_total{kind=\"updateCluster\",status=\"Failed\"} 2";
    let deadline = Instant::now() + Duration::from_secs(30);
    while !metrics(&server).lines().any(|line| line == counted) {
        assert!(Instant::now() < deadline, "{}", metrics(&server));
    }
    let table = done(&server, &["operation", "list", "--limit", "1"]);
    assert!(table.contains("updateCluster") && table.contains("clusters/local"), "{table}");
    assert_eq!(json(&server, &["cluster", "show", "local"])["properties"]["keyState"]["state"], "Active");
}

/// Scenario: a server is managed without its data directory. Guarantee: endpoint and token file suffice; a wrong token is refused; a
/// data directory that is named in the command line counts more than variables.
#[test]
fn a_server_is_managed_from_elsewhere() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let token = deployment.dir.path().join("token");
    std::fs::write(&token, server.credential("/managementToken")).expect("a token file");
    let elsewhere = |arguments: &[&str]| {
        let mut command = command(deployment.dir.path());
        command.args(arguments).env("LOGSEAL_ENDPOINT", server.credential("/endpoints/management"));
        command.env("LOGSEAL_TOKEN_FILE", &token).output().expect("the binary starts")
    };
    let output = elsewhere(&["cluster", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(names(&serde_json::from_slice(&output.stdout).expect("JSON")), ["local"]);
    let output = elsewhere(&["query", "SELECT 1 AS one", "--format", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = elsewhere(&["workspace", "show", "default", "--resource-group", "other"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ResourceNotFound"), "{}", stderr(&output));

    std::fs::write(&token, "a-wrong-token").expect("a token file");
    let output = elsewhere(&["cluster", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Unauthorized"), "{}", stderr(&output));
    let own = deployment.data_dir();
    assert!(elsewhere(&["cluster", "list", "--data-dir", own.to_str().expect("a path")]).status.success());
    let output = elsewhere(&["cluster", "list", "--endpoint", "http://logs.example:8430"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("plain HTTP"), "{}", stderr(&output));
}

/// Scenario: SIGINT while a command waits for an operation that does not end. Guarantee: it ends at once with exit code 1, and says
/// that the operation goes on and how to follow it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_says_that_the_operation_goes_on() {
    const ID: &str = "0194d5a0-0000-7000-8000-000000000001";
    let (asked, mut questions) = mpsc::channel(16);
    let status = |State(asked): State<mpsc::Sender<()>>| async move {
        let _ = asked.send(()).await;
        format!(r#"{{"name":"{ID}","status":"Updating"}}"#)
    };
    let router = Router::new().route(&format!("/v1/operations/{ID}"), get(status)).with_state(asked);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let dir = TempDir::new().expect("a folder");
    let mut command = command(dir.path());
    command.args(["operation", "wait", ID, "--endpoint", &endpoint]).env("LOGSEAL_MANAGEMENT_TOKEN", "token");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // At the second question it listens for the signal for certain.
    for _ in 0..2 {
        questions.recv().await.expect("a question");
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIGINT is sent");
    let output =
        tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("joined").expect("our own child");
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("goes on") && message.contains(&format!("logseal operation wait {ID}")), "{message}");
    assert!(!message.contains('\r'), "no progress where nobody watches: {message:?}");
}

/// Scenario: commands without a server. Guarantee: usage errors exit with 2, a missing server with 1 and what to look at, and scripts
/// for shells need none.
#[test]
fn without_a_server_the_command_line_says_what_to_do() {
    let dir = TempDir::new().expect("a folder");
    let run = |arguments: &[&str]| command(dir.path()).args(arguments).output().expect("the binary starts");
    for arguments in [
        &["cluster", "create", "x"][..],
        &["cluster", "update", "prod", "--key-version", "1"],
        &["workspace", "list", "--endpoint", "https://logs.example"],
        &["workspace", "list", "--endpoint", "http://127.0.0.1:1"],
        &["audit", "list", "--token-file", "t"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let output = run(&["cluster", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("start `logseal serve`"), "{}", stderr(&output));
    let output = run(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("key-vault-uri"));

    let deployment = Deployment::new();
    let server = deployment.start();
    assert!(server.stop().success());
    let data_dir = deployment.data_dir();
    let output = run(&["cluster", "list", "--data-dir", data_dir.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("cannot reach") && message.contains(&data_dir.display().to_string()), "{message}");
}

/// Scenario: the benchmark beside a client that goes on sending, so that the server is never without records outside a segment. Guarantee: it ends, counts
/// its own records, and says why it has no CPU time.
#[tokio::test(flavor = "multi_thread")]
async fn the_benchmark_ends_beside_others_who_send() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let data_dir = deployment.data_dir().display().to_string();
    let mut bench = command(deployment.data_dir().as_path());
    bench.args(["bench", "ingest", "--records", "100", "--batch", "10", "--json", "--data-dir", &data_dir]);
    let mut bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let limit = Instant::now() + Duration::from_secs(50);
    while bench.try_wait().expect("our own child").is_none() && Instant::now() < limit {
        ship::export(&server, &request(&["of another"])).await.expect("taken");
    }
    // Does nothing when it has ended.
    bench.kill().expect("our own child");
    let output = bench.wait_with_output().expect("our own child");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON alone");
    assert_eq!(report["records_acked"], 100);
    let note = report["server_note"].as_str().unwrap_or_default();
    assert!(note.contains("no CPU time") && note.contains("others send records"), "{report}");
    assert!(server.stop().success());
}

/// The binary in a folder that is no data directory's, with no variable of ours.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    command.current_dir(folder);
    for variable in
        ["DATA_DIR", "ENDPOINT", "TOKEN_FILE", "CA_FILE", "SUBSCRIPTION", "RESOURCE_GROUP", "MANAGEMENT_TOKEN"]
    {
        command.env_remove(format!("LOGSEAL_{variable}"));
    }
    command
}
