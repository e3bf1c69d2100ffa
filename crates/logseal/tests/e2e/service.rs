//! The server as a service of its machine: what its manager and its kernel are told.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use logseal_testkit::Server;

use crate::Deployment;

/// Scenario: the server starts with a socket of a service manager, and stops. Guarantee: the manager is told that it is ready, and that it stops.
#[test]
fn a_service_manager_is_told_of_the_start_and_of_the_stop() {
    let deployment = Deployment::new();
    let path = deployment.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    let told = || {
        let mut buffer = [0; 64];
        let bytes = socket.recv(&mut buffer).expect("told in time");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let environment = [("NOTIFY_SOCKET", path.as_os_str())];
    let server = Server::start_in(&environment, env!("CARGO_BIN_EXE_logseal"), &deployment.data_dir(), &[]);
    assert_eq!(told(), "READY=1");
    assert!(server.stop().success());
    assert_eq!(told(), "STOPPING=1");
}

/// Guarantee: the kernel writes no core image of the server and starts no program for one, and nothing can change that while it runs.
#[test]
fn there_are_no_core_images() {
    let deployment = Deployment::new();
    let server = deployment.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process_id())).expect("Linux");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
    let [soft, hard] = [0, 1].map(|at| line.split_whitespace().nth(at).expect("a number"));
    // 1, but where the test itself may have none.
    assert!(["0", "1"].contains(&hard) && soft == hard, "{line}");
}
