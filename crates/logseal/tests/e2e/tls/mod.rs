//! TLS on the listeners, driven from outside: who is served, by which certificate, what becomes of connections when it changes, and who is
//! refused.

mod clients;
mod shippers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use serde_json::json;
use tonic::transport::Channel;

use self::clients::{Authority, Http, channel, export, export_on, half_open, is_ended, open, say_in_clear};
use crate::Deployment;
use crate::cli::{done, failed};

/// Files beside a data directory.
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    fn new(deployment: &Deployment) -> Self {
        Self { dir: deployment.dir.path().to_owned() }
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).expect("a folder of our own");
        path
    }

    /// Puts a certificate and its key where [`Files::settings`] says that they are.
    fn install(&self, (certificate, key): &(String, String)) {
        self.put("tls.key", key);
        self.put("tls.crt", certificate);
    }

    fn settings(&self) -> [String; 2] {
        let at = |name: &str| self.dir.join(name).display().to_string();
        [format!("tls.certificate={}", at("tls.crt")), format!("tls.key={}", at("tls.key"))]
    }
}

/// A server with a certificate of `authority` for this machine.
fn start(deployment: &Deployment, authority: &Authority, settings: &[&str]) -> Server {
    let files = Files::new(deployment);
    files.install(&authority.issue(&["127.0.0.1", "localhost"]));
    let own = files.settings();
    let all: Vec<_> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
    deployment.start_with(&all)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command elsewhere than where its server is.
fn elsewhere(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logseal"));
    for variable in ["DATA_DIR", "ENDPOINT", "TOKEN_FILE", "CA_FILE", "MANAGEMENT_TOKEN", "ROOT_KEY"] {
        command.env_remove(format!("LOGSEAL_{variable}"));
    }
    command.current_dir(dir).args(arguments).output().expect("the binary starts")
}

/// Scenario: a stock gRPC client, HTTP/1.1 and HTTP/2, commands with and without the data directory, and the benchmark, all over TLS; then the
/// same without TLS, and clients that trust somebody else. Guarantee: the first are served, and the others get nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_listener_speaks_tls_and_nothing_else() {
    let deployment = Deployment::new();
    let authority = Authority::new("A");
    let server = start(&deployment, &authority, &[]);
    let management = server.credential("/endpoints/management").to_owned();
    assert!(server.ready_line.contains(&format!(" management={management}")), "{}", server.ready_line);
    assert!(management.starts_with("https://127.0.0.1:"), "{management}");
    let (grpc, http) = (server.otlp_grpc().to_owned(), server.otlp_http().to_owned());
    let ready = format!("otlp_grpc={} otlp_http={}", &grpc["https://".len()..], &http["https://".len()..]);
    assert!(server.ready_line.contains(&ready), "addresses: {}", server.ready_line);
    let key = server.workspace_key();

    export(&grpc, &authority, None, Some(key), "by grpc").await.expect("taken");
    let mut by_http = Http::open(&http, &authority, None, "http/1.1").await.expect("a handshake");
    assert_eq!(by_http.post(Some(key), "by http").await, 200);
    for protocol in ["h2", "http/1.1"] {
        for endpoint in [&http, &management] {
            let stream = open(endpoint, &authority, None, &[protocol]).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()), "{endpoint}");
        }
    }
    assert!(open(&grpc, &authority, None, &["http/1.1"]).await.is_err(), "gRPC is HTTP/2 alone");
    assert_eq!(server.value("SELECT string_agg(body, ', ' ORDER BY body) FROM logs"), "by grpc, by http");

    let files = Files::new(&deployment);
    let dir = files.dir.as_path();
    let ca = files.put("ca.pem", &authority.pem()).display().to_string();
    let token = files.put("token", server.credential("/managementToken")).display().to_string();
    let list = ["cluster", "list", "--endpoint", &management, "--token-file", &token];
    let output = elsewhere(dir, &[&list[..], &["--ca-file", &ca]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let stranger = files.put("stranger.pem", &Authority::new("B").pem()).display().to_string();
    for trust in [&["--ca-file", &stranger][..], &[]] {
        let output = elsewhere(dir, &[&list[..], trust].concat());
        assert_eq!(output.status.code(), Some(1), "{trust:?}");
        assert!(stderr(&output).contains("cert"), "{}", stderr(&output));
    }
    done(&server, &["bench", "ingest", "--records", "100", "--batch", "10", "--json"]);
    done(&server, &["bench", "ingest", "--records", "100", "--batch", "10", "--endpoint", &grpc, "--ca-file", &ca]);
    assert_eq!(server.value("SELECT count(*) FROM logs"), 202);
    failed(&server, &["bench", "ingest", "--records", "1", "--endpoint", &grpc, "--ca-file", &stranger]);

    for endpoint in [&grpc, &http, &management] {
        for hello in [&b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let (answer, time) = say_in_clear(endpoint, hello).await;
            // At most an alert of TLS.
            let said = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.len() < 16 && !said.contains("HTTP"), "nothing is answered in clear: {said}");
            assert!(time < Duration::from_secs(4), "it does not wait for the end of a handshake: {time:?}");
        }
    }
    let plain = Channel::from_shared(grpc.replace("https://", "http://")).expect("a URL");
    if let Ok(channel) = plain.connect().await {
        let refused = export_on(channel, Some(key), "in clear").await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(server.value("SELECT count(*) FROM logs"), 202);
    let secret = fs::read_to_string(dir.join("tls.key")).expect("the key");
    let secret = secret.lines().nth(1).expect("Base64").to_owned();
    let log = server.log();
    assert!(!log.contains(&secret) && !log.contains("ERROR"), "{log}");
    assert!(server.stop().success());
}

/// Scenario: at each listener many clients begin no handshake, or do not go on with it. Guarantee: others are served at once; in the end the
/// server gives the places free by itself.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_end_hold_up_nobody_and_are_ended() {
    let deployment = Deployment::new();
    let authority = Authority::new("A");
    let server = start(&deployment, &authority, &[]);
    let endpoints = [server.otlp_grpc(), server.otlp_http(), server.credential("/endpoints/management")];
    // The record header of a hello of 512 bytes, and its first byte (RFC 8446, section 5.1).
    let begun = [22, 3, 1, 2, 0, 1];
    let mut slow = Vec::new();
    for endpoint in endpoints {
        for _ in 0..50 {
            slow.push(half_open(endpoint, &[]).await);
            slow.push(half_open(endpoint, &begun).await);
        }
    }
    let started = Instant::now();
    export(server.otlp_grpc(), &authority, None, Some(server.workspace_key()), "meanwhile").await.expect("taken");
    let mut http = Http::open(server.otlp_http(), &authority, None, "http/1.1").await.expect("a handshake");
    assert_eq!(http.post(Some(server.workspace_key()), "meanwhile").await, 200);
    let mut api = Http::open(endpoints[2], &authority, None, "http/1.1").await.expect("a handshake");
    assert_eq!(api.ask("GET", "/healthz", None, Vec::new()).await.0, 200);
    assert!(started.elapsed() < Duration::from_secs(4), "they waited for others: {:?}", started.elapsed());
    for stream in slow {
        assert!(is_ended(stream).await);
    }
    let failed = "\nlogseal_ingest_handshakes_failed_total 200\n";
    until(&server, async || metrics(&server, &authority).await.contains(failed)).await;
    assert!(server.stop().success());
}

/// What the management API says at `/metrics`, with the metrics of certificates.
async fn metrics(server: &Server, authority: &Authority) -> String {
    let management = server.credential("/endpoints/management");
    let mut api = Http::open(management, authority, None, "http/1.1").await.expect("a handshake");
    let (status, text) = api.ask("GET", "/metrics", Some(server.credential("/managementToken")), Vec::new()).await;
    assert_eq!(status, 200, "{text}");
    text
}

/// Scenario: certificate and key are replaced while connections are open; then by a pair that does not belong together. Guarantee: new
/// connections get the new certificate, open ones go on; the bad pair is in the log as an error and in a metric, and changes nothing; commands of this
/// machine know the certificate in use all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_without_a_stop_and_a_bad_one_is_not() {
    let deployment = Deployment::new();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let server = start(&deployment, &first, &[]);
    let (files, key) = (Files::new(&deployment), server.workspace_key());
    let mut open_before = Http::open(server.otlp_http(), &first, None, "http/1.1").await.expect("a handshake");
    assert_eq!(open_before.post(Some(key), "before").await, 200);
    let grpc_before = channel(server.otlp_grpc(), &first, None).await.expect("a handshake");
    export_on(grpc_before.clone(), Some(key), "before").await.expect("taken");
    let used = "\nlogseal_tls_certificate_refused 0\n";
    until(&server, async || metrics(&server, &first).await.contains(used)).await;

    files.install(&second.issue(&["127.0.0.1"]));
    let endpoints = [server.otlp_grpc(), server.otlp_http(), server.credential("/endpoints/management")];
    for endpoint in endpoints {
        until(&server, async || open(endpoint, &second, None, &["h2"]).await.is_ok()).await;
        assert!(open(endpoint, &first, None, &["h2"]).await.is_err(), "the old one is not served any more");
    }
    assert_eq!(open_before.post(Some(key), "on the old connection").await, 200);
    export_on(grpc_before, Some(key), "on the old connection").await.expect("taken");
    export(server.otlp_grpc(), &second, None, Some(key), "on a new one").await.expect("taken");
    assert_eq!(server.value("SELECT count(*) FROM logs"), 5);

    files.put("tls.key", &first.issue(&["127.0.0.1"]).1);
    until(&server, async || server.log().contains("the new certificate is not used")).await;
    let log = server.log();
    assert!(log.contains("does not belong to the certificate") && log.contains("tls.key"), "{log}");
    until(&server, async || metrics(&server, &second).await.contains("\nlogseal_tls_certificate_refused 1\n")).await;
    export(server.otlp_grpc(), &second, None, Some(key), "as before").await.expect("taken");
    assert_eq!(server.value("SELECT count(*) FROM logs"), 6);
    files.install(&first.issue(&["127.0.0.1"]));
    until(&server, async || open(server.otlp_grpc(), &first, None, &["h2"]).await.is_ok()).await;
    until(&server, async || metrics(&server, &first).await.contains(used)).await;
    let shown = metrics(&server, &first).await;
    // What the authority issues is valid until the year 4096.
    assert!(shown.contains("\nlogseal_tls_certificate_expires_seconds 67090"), "{shown}");
    assert_eq!(server.log().matches("ERROR").count(), 1, "{}", server.log());
    assert!(server.stop().success());
}

/// Asks until the answer is yes.
async fn until(server: &Server, ask: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Scenario: starts on addresses that others reach, and with files that cannot be used. Guarantee: each is refused, and told what to set.
#[test]
fn starts_that_would_be_unsafe_are_refused() {
    let deployment = Deployment::new();
    let (files, authority) = (Files::new(&deployment), Authority::new("A"));
    files.install(&authority.issue(&["127.0.0.1"]));
    let [certificate, key] = files.settings();
    let other = files.put("other.key", &authority.issue(&["127.0.0.1"]).1);
    let (other, nothing) = (format!("tls.key={}", other.display()), "tls.certificate=/nonexistent/tls.crt");
    let public = "listen.management=0.0.0.0:0";
    let generated = deployment.data_dir().join("vault/root.key");
    fs::create_dir_all(deployment.data_dir().join("vault")).expect("a folder of our own");
    fs::write(&generated, "5a".repeat(32)).expect("a folder of our own");
    let named = format!("vault.root_key_file={}", generated.display());
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (&["listen.otlp_grpc=0.0.0.0:0"], 2, &["`listen.otlp_grpc`", "`tls.certificate`", "`tls.key`"]),
        (&["listen.otlp_http=[::]:0"], 2, &["`listen.otlp_http`", "`tls.certificate`", "`tls.key`"]),
        (&[public], 2, &["`listen.management`", "`tls.certificate`", "`tls.key`"]),
        (&[public, &certificate, &key], 2, &["`listen.management`", "`vault.root_key_file`", "LOGSEAL_ROOT_KEY"]),
        (&[public, &certificate, &key, &named], 2, &["`vault.root_key_file`", "LOGSEAL_ROOT_KEY"]),
        (&[&certificate], 2, &["`tls.certificate`", "`tls.key`"]),
        (&[nothing, &key], 1, &["`tls.certificate`", "/nonexistent/tls.crt"]),
        (&[&certificate, &other], 1, &["`tls.key`", "other.key", "does not belong to the certificate"]),
    ];
    for (settings, code, expected) in cases {
        let data_dir = deployment.data_dir().display().to_string();
        let free = ["otlp_grpc", "otlp_http", "management", "vault"].map(|name| format!("listen.{name}=127.0.0.1:0"));
        let all = free.iter().map(String::as_str).chain(settings.iter().copied());
        let arguments: Vec<_> =
            ["serve", "--data-dir", &data_dir].into_iter().chain(all.flat_map(|setting| ["--set", setting])).collect();
        let output = elsewhere(&files.dir, &arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{settings:?}: {message}");
        for word in expected {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}

/// Scenario: TLS, a root key that is kept elsewhere, and an address of every network. Guarantee: it is served; the vault is not.
#[tokio::test(flavor = "multi_thread")]
async fn with_tls_and_a_root_key_of_its_own_other_addresses_are_served() {
    let deployment = Deployment::new();
    let (files, authority) = (Files::new(&deployment), Authority::new("A"));
    let root = files.put("root.key", &"5a".repeat(32));
    let root = format!("vault.root_key_file={}", root.display());
    let everywhere = ["listen.otlp_grpc=0.0.0.0:0", "listen.management=0.0.0.0:0", &root];
    let server = start(&deployment, &authority, &everywhere);
    assert!(server.ready_line.contains("otlp_grpc=0.0.0.0:"), "{}", server.ready_line);
    assert!(server.otlp_grpc().starts_with("https://127.0.0.1:"), "what clients of this machine dial");
    export(server.otlp_grpc(), &authority, None, Some(server.workspace_key()), "from afar").await.expect("taken");
    assert_eq!(server.query("SELECT body FROM logs").expect("rows"), [json!({"body": "from afar"})]);
    assert!(server.stop().success());
}
