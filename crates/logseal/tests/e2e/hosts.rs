//! A server that looks host names up in a file of the test's own: a name can be made to go.
//!
//! The file is mounted over `/etc/hosts` in a mount namespace, and resolvers are told to ask nobody else.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The names that the server knows.
pub(crate) struct Hosts {
    file: PathBuf,
    server: PathBuf,
}

impl Hosts {
    /// In the folder `dir`; `None` where namespaces or mounts are not permitted.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        let (file, switch, server) = (dir.join("hosts"), dir.join("nsswitch.conf"), dir.join("server"));
        std::fs::write(&switch, "hosts: files\n").expect("a folder of our own");
        let hosts = Self { file, server };
        hosts.know(true);
        let mounts = format!(
            "mount --bind '{}' /etc/hosts && mount --bind '{}' /etc/nsswitch.conf",
            hosts.file.display(),
            switch.display()
        );
        // Root needs no user namespace, others do.
        let permitted = |options: &&str| {
            let tried = Command::new("sh").args(["-c", &format!("unshare {options} sh -c \"{mounts}\"")]).output();
            tried.is_ok_and(|output| output.status.success())
        };
        let options = ["--mount", "--user --map-root-user --mount"].into_iter().find(permitted)?;
        let binary = env!("CARGO_BIN_EXE_logseal");
        let script =
            format!("#!/bin/sh\nexec unshare {options} sh -c \"{mounts} && exec '{binary}' \\\"\\$@\\\"\" sh \"$@\"\n");
        // By another process: one that this one forks for another test must not inherit the file while it is open for writing.
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", &script])
            .arg(&hosts.server)
            .status();
        assert!(written.is_ok_and(|status| status.success()), "the folder is our own");
        Some(hosts)
    }

    /// Starts the server where the file counts.
    pub(crate) fn server(&self) -> &str {
        self.server.to_str().expect("a path of text")
    }

    /// Whether `localhost` has an address from now on.
    pub(crate) fn know(&self, localhost: bool) {
        let text = if localhost { "127.0.0.1 localhost\n" } else { "127.0.0.1 elsewhere\n" };
        // In place: what is mounted is the file, not its name.
        std::fs::write(&self.file, text).expect("a folder of our own");
    }
}
