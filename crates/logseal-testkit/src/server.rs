//! The real binary as a process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a start may take: the first one makes an RSA key.
const START: Duration = Duration::from_secs(60);

/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(30);

/// Free ports of this machine.
const LISTENERS: [&str; 4] = [
    "listen.otlp_grpc=127.0.0.1:0",
    "listen.otlp_http=127.0.0.1:0",
    "listen.management=127.0.0.1:0",
    "listen.vault=127.0.0.1:0",
];

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    data_dir: PathBuf,
    child: Child,
    log: PathBuf,
    /// The line that it printed when it was ready.
    pub ready_line: String,
    /// `credentials.json`.
    pub credentials: Value,
}

impl Server {
    /// Starts `binary serve` on free ports with `arguments` and waits until it is ready.
    ///
    /// Its temporary folder is `<data_dir>.tmp` and its stderr goes to `<data_dir>.log`, so that tests can search both.
    ///
    /// # Panics
    ///
    /// When it does not become ready; the message holds its stderr.
    #[must_use]
    pub fn start(binary: &str, data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_in(&[], binary, data_dir, arguments)
    }

    /// As [`Server::start`], with these variables in its environment as well.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    #[must_use]
    pub fn start_in(environment: &[(&str, &OsStr)], binary: &str, data_dir: &Path, arguments: &[&str]) -> Self {
        let log = data_dir.with_extension("log");
        let temporary = data_dir.with_extension("tmp");
        std::fs::create_dir_all(&temporary).expect("the test's folder is writable");
        let stderr = File::options().create(true).append(true).open(&log).expect("the test's folder is writable");
        let mut child = Command::new(binary)
            .arg("serve")
            // As settings: those of a test come later, and win.
            .args(LISTENERS.iter().flat_map(|listener| ["--set", *listener]))
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            .env("TMPDIR", &temporary)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (lines, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let ready_line = ready.recv_timeout(START).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("not ready; its stderr:\n{}", std::fs::read_to_string(&log).unwrap_or_default())
        });
        let text = std::fs::read(data_dir.join("credentials.json")).expect("written before the ready line");
        let credentials = serde_json::from_slice(&text).expect("JSON");
        Self { binary: binary.into(), data_dir: data_dir.into(), child, log, ready_line, credentials }
    }

    /// One of the texts in `credentials.json`.
    ///
    /// # Panics
    ///
    /// When there is no such text.
    #[must_use]
    pub fn credential(&self, pointer: &str) -> &str {
        self.credentials.pointer(pointer).and_then(Value::as_str).expect("a text in credentials.json")
    }

    /// URL of OTLP/gRPC.
    #[must_use]
    pub fn otlp_grpc(&self) -> &str {
        self.credential("/endpoints/otlpGrpc")
    }

    /// URL of OTLP/HTTP, without a path.
    #[must_use]
    pub fn otlp_http(&self) -> &str {
        self.credential("/endpoints/otlpHttp")
    }

    /// The default workspace's primary key.
    #[must_use]
    pub fn workspace_key(&self) -> &str {
        self.credential("/workspaceKey")
    }

    /// Runs a command of the binary against this server.
    ///
    /// # Panics
    ///
    /// When the binary cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.binary)
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .output()
            .expect("the binary starts")
    }

    /// The rows of a query, as JSON objects.
    ///
    /// # Errors
    ///
    /// What the command printed on stderr when it failed.
    pub fn query(&self, sql: &str) -> Result<Vec<Value>, String> {
        self.query_in("default", sql)
    }

    /// The rows of a query of the workspace named `workspace`, as JSON objects.
    ///
    /// # Errors
    ///
    /// What the command printed on stderr when it failed.
    pub fn query_in(&self, workspace: &str, sql: &str) -> Result<Vec<Value>, String> {
        let output = self.run(&["query", sql, "--workspace", workspace, "--format", "json"]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// The first value of a query's first row.
    ///
    /// # Panics
    ///
    /// When the query fails or has no row.
    #[must_use]
    pub fn value(&self, sql: &str) -> Value {
        let rows = self.query(sql).expect("the query runs");
        let row = rows.first().and_then(Value::as_object).expect("a row");
        row.values().next().cloned().unwrap_or(Value::Null)
    }

    /// The largest resident memory of the process so far, in bytes.
    ///
    /// # Panics
    ///
    /// Where there is no `/proc`.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        Memory::of(self.process_id()).expect("Linux, and a running process").peak
    }

    /// The process's id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the server wrote to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process with SIGKILL and waits for its end.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    ///
    /// When it does not end within 30 s.
    #[must_use]
    pub fn stop(mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM is sent");
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after SIGTERM; its stderr:\n{}", self.log());
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All of it now.
    pub resident: u64,
    /// What of it is no file's: heap and stacks.
    pub anonymous: u64,
    /// The largest `resident` so far.
    pub peak: u64,
}

impl Memory {
    /// The memory of the process `id`; `None` when it is gone, or where there is no `/proc`.
    #[must_use]
    pub fn of(id: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let bytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")?, peak: bytes("VmHWM")? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_process_is_consistent_and_a_missing_one_has_none() {
        let memory = Memory::of(std::process::id()).expect("Linux");
        assert!(0 < memory.anonymous && memory.anonymous <= memory.resident && memory.resident <= memory.peak);
        assert!(Memory::of(u32::MAX).is_none());
    }
}
