//! What the command line takes, and what it refuses with exit code 2.

use super::*;

const ID: &str = "0194d5a0-0000-7000-8000-000000000001";

fn read(arguments: &[&str]) -> Result<Cli, clap::Error> {
    let all = ["logseal"].iter().chain(arguments);
    Cli::command().try_get_matches_from(all).and_then(Cli::of)
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands_are_taken_as_documented() {
    for arguments in [
        &["cluster", "list", "--json"][..],
        &["cluster", "create", "prod", "--key-name", "kek"],
        &["cluster", "update", "prod", "--key-vault-uri", "https://v", "--key-name", "kek", "--key-version", "1"],
        &["cluster", "update", "prod", "--key-name", "kek", "--key-rsa-size", "4096", "--no-wait", "--json"],
        &["cluster", "create", "prod", "--tag", "a=b", "--tag", "c=", "--capacity", "500", "--location", "West Europe"],
        &["cluster", "delete", "prod", "--force-delete"],
        &["workspace", "create", "team", "--retention", "90", "--daily-cap", "none"],
        &["workspace", "link", "team", "--cluster", "prod"],
        &["workspace", "link", "team", "--cluster", "/subscriptions/s/resourceGroups/g"],
        &["workspace", "rotate-key", "team", "--no-wait", "--json"],
        &["workspace", "regenerate-key", "team", "--key", "secondary", "--skip-last-usage-check", "--json"],
        &["workspace", "update", "team", "--disable-local-auth", "true", "--skip-last-usage-check"],
        &["workspace", "delete", "team", "--force"],
        &["operation", "list", "--status", "failed", "--limit", "3"],
        &["operation", "wait", ID, "--timeout", "5"],
        &["operation", "cancel", ID],
        &[
            "token",
            "create",
            "--name",
            "grafana",
            "--role",
            "reader",
            "--workspace",
            "team",
            "--workspace",
            ID,
            "--expires",
            "90d",
        ],
        &["token", "list", "--json", "--endpoint", "http://127.0.0.1:1", "--token-file", "t"],
        &["token", "delete", "grafana"],
        &["audit", "verify", "--json"],
        &["completions", "zsh"],
        &["cluster", "list", "--endpoint", "http://127.0.0.1:1", "--token-file", "t", "--subscription", ID],
        &["cluster", "--resource-group", "rg", "show", "prod", "--data-dir", "d"],
        &["segment", "list", "--endpoint", "http://127.0.0.1:1", "--token-file", "t"],
        &["segment", "export-key", ID, "--json", "--endpoint", "http://127.0.0.1:1", "--token-file", "t"],
        &["bench", "ingest", "--endpoint", "https://127.0.0.1:4317", "--ca-file", "ca.pem"],
        &["cluster", "list", "--endpoint", "https://logs.example:8430", "--ca-file", "ca.pem", "--token-file", "t"],
    ] {
        assert!(read(arguments).is_ok(), "{arguments:?}: {:?}", read(arguments).map(|_| ()));
    }
}

#[test]
fn wrong_usage_is_refused_with_exit_code_2() {
    for arguments in [
        &["cluster"][..],
        &["cluster", "show"],
        &["cluster", "show", "a/../b"],
        &["cluster", "create", "prod", "--key-version", "1"],
        &["cluster", "create", "prod", "--key-vault-uri", "https://v"],
        &["cluster", "create", "prod", "--key-rsa-size", "4096"],
        &["cluster", "create", "prod", "--tag", "a"],
        &["cluster", "update", "prod", "--location", "elsewhere"],
        &["workspace", "link", "team"],
        &["workspace", "create", "team", "--daily-cap", "-5"],
        &["workspace", "create", "team", "--retention", "forever"],
        &["token", "create", "--name", "grafana"],
        &["token", "create", "--name", "Grafana", "--role", "reader"],
        &["token", "create", "--name", "grafana", "--role", "owner"],
        &["token", "create", "--name", "grafana", "--role", "reader", "--expires", "soon"],
        &["token", "delete"],
        &["workspace", "rotate-key"],
        &["workspace", "regenerate-key", "team"],
        &["workspace", "regenerate-key", "team", "--key", "both"],
        &["workspace", "update", "team", "--skip-last-usage-check"],
        &["workspace", "update", "team", "--disable-local-auth"],
        &["segment", "export-key"],
        &["segment", "export-key", "../keys"],
        &["operation", "show", "1"],
        &["operation", "list", "--status", "pending"],
        &["operation", "wait", ID, "--timeout", "soon"],
        &["completions", "cmd"],
        &["cluster", "list", "--subscription", "../x"],
        &["cluster", "list", "--resource-group", "r/g"],
        &["cluster", "list", "--token", "secret"],
        &["cluster", "list", "--data-dir", "d", "--endpoint", "http://127.0.0.1:1", "--token-file", "t"],
        &["--data-dir", "d", "query", "SELECT 1", "--endpoint", "http://127.0.0.1:1"],
    ] {
        let refused = read(arguments).map(|_| ()).expect_err(&format!("{arguments:?}"));
        assert_eq!(refused.exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn options_of_the_server_reach_their_command_from_both_places() {
    for arguments in [["workspace", "--endpoint", "http://h", "list"], ["workspace", "list", "--endpoint", "http://h"]]
    {
        let mut cli = read(&arguments).unwrap();
        assert_eq!(cli.server_options().unwrap().endpoint.as_deref(), Some("http://h"), "{arguments:?}");
    }
    // That of the benchmark is the receivers', whatever directory its credentials are from.
    assert!(read(&["bench", "ingest", "--data-dir", "d", "--endpoint", "http://h"]).is_ok());
}
