//! A key in a vault that the network reaches, and all that can go wrong on the way there.

use std::process::Command;
use std::time::{Duration, Instant};

use logseal_testkit::{Server, ship};
use logseal_vault::KeyName;
use serde_json::{Value, json};
use tonic::Code;

use crate::Deployment;
use crate::cli::{done, failed, json as shown};
use crate::lifecycle::request;
use crate::remote::{Remote, Spoil};
use crate::revocation::{count, key_state, until, until_degraded};

/// How long keys in memory serve: the shortest time that there is.
const SHORT_GRACE: Duration = Duration::from_secs(10);

/// The longest call of a probe, a record and a query fit in, also on a busy machine.
const GRACE: Duration = Duration::from_secs(25);

/// Scenario: the vault answers 401, 403 by its firewall, 429, 500, garbage, another key than was wrapped, or not at all, one after the other;
/// then nobody listens at its address for longer than the grace, and the server is killed and started meanwhile. Guarantee: each trouble is told
/// by its code, and stops nothing as long as it is shorter than the grace; a longer one stops the cluster, which comes back by itself with every
/// acknowledged record.
#[test]
fn trouble_with_a_vault_is_told_apart_and_waited_out() {
    let (deployment, mut remote) = (Deployment::new(), Remote::new());
    let server = remote.protecting(&deployment, GRACE);
    let troubles = [
        (Spoil::Refuse(401, "Unauthorized"), "TokenUnavailable"),
        (Spoil::Refuse(403, "ForbiddenByFirewall"), "KeyVaultNetworkRules"),
        (Spoil::Refuse(429, "Throttled"), "KeyVaultThrottled"),
        (Spoil::Refuse(500, "InternalError"), "KeyVaultFailed"),
        (Spoil::Garbage, "KeyVaultMalformed"),
        (Spoil::WrongBytes, "UnwrapFailed"),
        (Spoil::Silence, "KeyVaultTimedOut"),
    ];
    let mut acknowledged = 0;
    for (spoil, code) in troubles {
        remote.spoil(spoil);
        until_degraded(&server, code, GRACE);
        remote.export(&server, code).unwrap();
        acknowledged += 1;
        assert_eq!(count(&server), acknowledged, "{code}: queries go on");
        remote.spoil(Spoil::Nothing);
        until(&server, "Active");
    }

    remote.down();
    until_degraded(&server, "KeyVaultUnreachable", GRACE);
    remote.export(&server, "down").unwrap();
    let shown = until(&server, "Revoked");
    assert_eq!(shown["code"], "KeyVaultUnreachable");
    let refused = remote.export(&server, "lost").unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.metadata().get_bin("google.rpc.retryinfo-bin").is_some(), "it says when to come back");

    server.kill();
    let server = remote.start(&deployment, GRACE);
    assert!(server.ready_line.contains("cluster=local:Resuming"), "{}", server.ready_line);
    assert_eq!(key_state(&server)["code"], "KeyVaultUnreachable", "the management API answers");
    assert_eq!(remote.export(&server, "lost").unwrap_err().code(), Code::Unavailable);
    remote.up();
    until(&server, "Active");
    assert_eq!(count(&server), acknowledged + 1);
    remote.export(&server, "up").unwrap();
    assert!(server.stop().success());
}

/// Scenario: the key's version expires; later its newest version, which is expired from the start, is asked for. Guarantee: what is protected
/// stays so, since an expired key unwraps; nobody adopts one.
#[test]
fn an_expired_key_serves_on_and_is_not_adopted() {
    let (deployment, remote) = (Deployment::new(), Remote::new());
    let server = remote.protecting(&deployment, GRACE);
    let in_use = key_state(&server)["resolvedVersion"].as_str().unwrap().to_owned();
    let expire = |version: &str| {
        remote.ask("PATCH", &format!("/keys/kek/{version}"), &json!({"attributes": {"exp": 1_000_000_000}}));
    };
    expire(&in_use);
    remote.export(&server, "one").unwrap();
    // A refusal would have revoked the cluster, and trouble have it Degraded: this is how long a probe takes at most.
    let before = probes(&server);
    let started = Instant::now();
    while probes(&server) < before + 3 {
        assert!(started.elapsed() < Duration::from_secs(30), "no probes");
        assert_eq!(key_state(&server)["state"], "Active");
    }
    assert_eq!(count(&server), 1);

    let rotated = remote.ask("POST", "/keys/kek/rotate", &json!({}));
    let newest = rotated["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    expire(&newest);
    let uri = remote.uri();
    let update = ["cluster", "update", "local", "--key-vault-uri", &uri, "--key-name", "kek", "--key-version", &newest];
    let refusal = failed(&server, &update);
    assert!(refusal.contains("KeyOutsideValidity"), "{refusal}");
    assert_eq!(key_state(&server)["resolvedVersion"], in_use.as_str());
    remote.export(&server, "two").unwrap();
    assert_eq!(count(&server), 2);
    assert!(server.stop().success());
}

/// Probes of the cluster's key that were good.
pub(crate) fn probes(server: &Server) -> u64 {
    let metrics = crate::lifecycle::metrics(server);
    let line = metrics.lines().find(|line| {
        line.starts_with("logseal_key_probes_total{") && line.contains("\"local\"") && line.contains("\"good\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Scenario: the process is stopped, as by a debugger or a machine that sleeps; meanwhile the key is disabled; it goes on after the grace is
/// over. Guarantee: not one record is taken under keys that the vault has not confirmed since; with the key enabled all comes back.
#[test]
fn a_process_that_slept_uses_no_key_that_was_not_confirmed_since() {
    let (deployment, remote) = (Deployment::new(), Remote::new());
    let server = remote.protecting(&deployment, SHORT_GRACE);
    remote.export(&server, "before").unwrap();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &server.process_id().to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()));
    };
    signal("-STOP");
    let name = KeyName::parse("kek").unwrap();
    let set = |enabled| {
        let versions = remote.ask("GET", "/keys/kek/versions", &Value::Null);
        for version in versions["value"].as_array().unwrap() {
            let version = version["kid"].as_str().unwrap().rsplit('/').next().unwrap();
            remote.vault.set_enabled(&name, &logseal_vault::KeyVersion::parse(version).unwrap(), enabled).unwrap();
        }
    };
    set(false);
    // The time that passes is the scenario: a lease ends by the clock that counts while nothing runs.
    std::thread::sleep(SHORT_GRACE + Duration::from_secs(1));
    signal("-CONT");
    let refused = remote.export(&server, "after").unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(server.query("SELECT count(*) FROM logs").is_err(), "nothing is shown either");
    assert_eq!(until(&server, "Revoked")["code"], "KeyDisabled");
    set(true);
    until(&server, "Active");
    assert_eq!(count(&server), 1);
    remote.export(&server, "again").unwrap();
    assert_eq!(count(&server), 2);
    assert!(server.stop().success());
}

const IDENTITY: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logs";

/// Scenario: a cluster goes from its own identity to one of the configuration and to the deployment's, each time before that one is granted the
/// key; then the configuration loses the identity. Guarantee: the key is asked for as the identity that the cluster shows; without a grant the
/// cluster is revoked, a permitted identity brings it back, and an identity that is configured no more is told by its code.
#[test]
fn a_cluster_asks_as_the_identity_that_it_was_given() {
    let deployment = Deployment::new();
    let file = deployment.dir.path().join("identities.toml");
    let identity = format!("[[identity]]\nid = '{IDENTITY}'\nprincipal_id = 'user-1'\nclient_id = 'client-1'\n");
    std::fs::write(&file, identity).unwrap();
    let settings = [
        "keys.probe_interval_ms=1000".to_owned(),
        "keys.min_state_interval_ms=0".to_owned(),
        format!("azure.identities_file={}", file.display()),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let server = deployment.start_with(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let export = |server: &Server| runtime.block_on(ship::export(server, &request(&["one"]))).map(drop);
    done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
    done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
    export(&server).unwrap();

    let unknown = failed(&server, &["cluster", "update", "local", "--user-assigned-identity", &format!("{IDENTITY}2")]);
    assert!(unknown.contains("UserAssignedIdentityNotFound"), "{unknown}");
    let moved = shown(&server, &["cluster", "update", "local", "--user-assigned-identity", IDENTITY]);
    let assigned = &moved["identity"]["userAssignedIdentities"][IDENTITY];
    assert_eq!(assigned, &json!({"principalId": "user-1", "clientId": "client-1"}), "{moved}");
    assert_eq!(moved["properties"]["keyState"]["principalId"], "user-1");
    assert_eq!(until(&server, "Revoked")["code"], "KeyAccessDenied");
    done(&server, &["vault", "grant", "--key", "kek", "--cluster", "local"]);
    until(&server, "Active");

    done(&server, &["cluster", "update", "local", "--default-identity", "FirstPartyIdentity"]);
    assert_eq!(key_state(&server)["principalId"], "first-party");
    assert_eq!(until(&server, "Revoked")["code"], "KeyAccessDenied");
    let back = format!("UserAssignedIdentity={IDENTITY}");
    done(&server, &["cluster", "update", "local", "--default-identity", &back]);
    until(&server, "Active");
    let wrong = failed(&server, &["cluster", "update", "local", "--default-identity", "SystemAssignedIdentity"]);
    assert!(wrong.contains("InvalidDefaultIdentity"), "{wrong}");

    assert!(server.stop().success());
    std::fs::write(&file, "").unwrap();
    let server = deployment.start_with(&settings);
    assert!(server.ready_line.contains("cluster=local:Resuming"), "{}", server.ready_line);
    assert_eq!(key_state(&server)["code"], "TokenUnavailable");
    let own =
        ["cluster", "update", "local", "--identity", "SystemAssigned", "--default-identity", "SystemAssignedIdentity"];
    done(&server, &own);
    done(&server, &["vault", "grant", "--key", "kek", "--cluster", "local"]);
    until(&server, "Active");
    assert_eq!(count(&server), 1);
    assert!(server.stop().success());
}
