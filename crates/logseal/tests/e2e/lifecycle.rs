//! Starting, stopping and starting again.

use std::process::Command;

use logseal_testkit::canary::files_below;
use logseal_testkit::{Server, ship};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

use crate::Deployment;

pub(crate) fn request(bodies: &[&str]) -> ExportLogsServiceRequest {
    let record = |(index, body): (usize, &&str)| LogRecord {
        time_unix_nano: 1 + index as u64,
        body: Some(ship::text(*body)),
        ..LogRecord::default()
    };
    let log_records = bodies.iter().enumerate().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_are_there_after_a_restart_and_credentials_stay() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let [grpc, http] = [server.otlp_grpc(), server.otlp_http()].map(|url| url.strip_prefix("http://").expect("a URL"));
    let expected = format!("logseal ready otlp_grpc={grpc} otlp_http={http} management=http://127.0.0.1:");
    assert!(server.ready_line.starts_with(&expected), "{}", server.ready_line);
    ship::export(&server, &request(&["one", "two"])).await.unwrap();
    let (key, token) = (server.workspace_key().to_owned(), server.credential("/managementToken").to_owned());
    assert!(server.stop().success(), "SIGTERM ends with exit code 0");

    let server = deployment.start();
    assert_eq!(server.workspace_key(), key);
    assert_eq!(server.credential("/managementToken"), token);
    assert_eq!(server.value("SELECT count(*) FROM logs"), 2);
    ship::export(&server, &request(&["three"])).await.unwrap();
    assert_eq!(server.value("SELECT string_agg(body, ' ' ORDER BY body) FROM logs"), "one three two");
    assert!(server.stop().success());
}

/// Scenario: a server is stopped while a client ships. Guarantee: what was acknowledged is in a segment when the process ends, and no
/// log is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_makes_segments_of_what_it_acknowledged() {
    let deployment = Deployment::new();
    // A long age: without the cut at the stop, nothing would be in a segment.
    let server = deployment.start_with(&["segment.max_age_ms=600000"]);
    let pid = std::fs::read_to_string(deployment.data_dir().join("lock")).unwrap().replace("process ", "");
    let mut acknowledged = 0;
    while ship::export(&server, &request(&["late"])).await.is_ok() {
        acknowledged += 1;
        if acknowledged == 10 {
            assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
        }
    }
    assert!(server.stop().success());
    assert!(acknowledged >= 10);
    assert!(files_below(&deployment.data_dir().join("wal")).is_empty(), "all is in segments");
    // The last request may have been stored although its answer was lost.
    let found = deployment.start().value("SELECT count(*) FROM logs").as_u64().expect("a number");
    assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}");
}

/// Scenario: a server was killed while it put a segment. Guarantee: the next start removes the half file, and only that.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_removes_what_a_broken_off_put_left_in_the_store() {
    let deployment = Deployment::new();
    let server = deployment.start();
    ship::export(&server, &request(&["kept"])).await.unwrap();
    assert!(server.stop().success());
    let store = deployment.data_dir().join("store");
    let files = files_below(&store);
    let segment = files.iter().find(|file| file.extension().is_some_and(|extension| extension == "parquet")).unwrap();
    let left = segment.with_extension("parquet#1");
    std::fs::write(&left, b"PAR1").unwrap();
    let server = deployment.start();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while left.exists() {
        assert!(std::time::Instant::now() < patience, "{}", server.log());
        std::thread::yield_now();
    }
    assert_eq!(server.value("SELECT body FROM logs"), "kept");
    assert!(server.stop().success());
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
}

#[test]
fn a_second_server_is_refused_and_told_who_holds_the_directory() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let second = server.run(&[
        "serve",
        "--otlp-grpc",
        "127.0.0.1:0",
        "--otlp-http",
        "127.0.0.1:0",
        "--management",
        "127.0.0.1:0",
        "--vault",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("is in use by process"), "{message}");
}

#[test]
fn a_lost_catalog_is_refused_instead_of_beginning_anew() {
    let deployment = Deployment::new();
    assert!(deployment.start().stop().success());
    let catalog = deployment.data_dir().join("catalog.sqlite");
    std::fs::rename(&catalog, deployment.dir.path().join("elsewhere")).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_logseal"))
        .args([
            "serve",
            "--otlp-grpc",
            "127.0.0.1:0",
            "--otlp-http",
            "127.0.0.1:0",
            "--management",
            "127.0.0.1:0",
            "--vault",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(deployment.data_dir())
        .output();
    let output = command.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("catalog.sqlite") && message.contains("restore it"), "{message}");
    std::fs::rename(deployment.dir.path().join("elsewhere"), &catalog).unwrap();
    assert!(deployment.start().stop().success());
}

#[test]
fn usage_errors_exit_with_2_and_failures_with_1() {
    let deployment = Deployment::new();
    let run = |arguments: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_logseal")).args(arguments).current_dir(deployment.dir.path()).output();
        let output = command.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [
        &["nonsense"][..],
        &["serve", "--set", "nothing.here=1"],
        &["serve", "--otlp-grpc", "0.0.0.0:0"],
        &["serve", "--otlp-http", "0.0.0.0:0"],
    ] {
        let (code, message) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {message}");
    }
    let (code, message) = run(&["query", "SELECT 1"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("start `logseal serve`"), "{message}");
    let (code, _) = run(&["config"]);
    assert_eq!(code, Some(0));
}

#[test]
fn health_is_open_and_metrics_need_the_token() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let get = |path: &str, token: Option<&str>| http_get(server.credential("/endpoints/management"), path, token);
    assert!(get("/healthz", None).starts_with("HTTP/1.1 200"));
    assert!(get("/readyz", None).starts_with("HTTP/1.1 200"));
    assert!(get("/metrics", None).starts_with("HTTP/1.1 401"));
    let metrics = metrics(&server);
    assert!(metrics.contains("logseal_ingest_requests_total"), "{metrics}");
    let build = format!("logseal_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(metrics.lines().any(|line| line == build), "{metrics}");
}

/// What the server says of its readiness.
pub(crate) fn ready(server: &Server) -> String {
    http_get(server.credential("/endpoints/management"), "/readyz", None)
}

/// What the server answers to Prometheus.
pub(crate) fn metrics(server: &Server) -> String {
    http_get(server.credential("/endpoints/management"), "/metrics", Some(server.credential("/managementToken")))
}

pub(crate) fn http_get(endpoint: &str, path: &str, token: Option<&str>) -> String {
    use std::io::{Read as _, Write as _};
    let address = endpoint.strip_prefix("http://").expect("an http URL");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{authorization}connection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}
