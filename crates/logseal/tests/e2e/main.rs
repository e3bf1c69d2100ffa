//! The real binary, driven from outside: stock clients, raw requests, and a look at what lies on the disk.

mod access_keys;
mod bad_input;
mod canaries;
mod caps;
mod catalog_loss;
mod cli;
mod faults;
mod formats;
mod full_log;
mod hosts;
mod lifecycle;
mod moving;
mod operations_grpc;
mod otlp_http;
mod outages;
mod readers;
mod real_logs;
mod remote;
mod remote_vault;
mod revocation;
mod roles;
mod service;
mod shippers;
mod tampering;
#[path = "../overload/tenants.rs"]
mod tenants;
mod tls;
mod unavailable;
mod vault;
mod wal;

use logseal_testkit::Server;
use tempfile::TempDir;

/// A server with a data directory of its own. Batches are cut soon, so that tests do not wait for their age.
struct Deployment {
    dir: TempDir,
}

impl Deployment {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self) -> Server {
        self.start_with(&[])
    }

    fn start_with(&self, settings: &[&str]) -> Server {
        let mut arguments = vec!["--set", "segment.max_age_ms=20"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", *setting]));
        Server::start(env!("CARGO_BIN_EXE_logseal"), &self.data_dir(), &arguments)
    }
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs a test for them, with `--nocapture`")]
fn report(text: &str) {
    eprintln!("{text}");
}
