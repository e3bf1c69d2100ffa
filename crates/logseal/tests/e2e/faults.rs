//! Every entry of the catalogue of faults, reached by its real cause.

use std::collections::BTreeSet;

use logseal_keys::KeyFault;
use logseal_testkit::Server;
use serde_json::{Value, json};

use crate::Deployment;
use crate::cli::{done, failed};
use crate::remote::{Remote, Spoil};
use crate::revocation::{key_state, until};

/// A server with the key `kek` in its own vault, which protects its cluster, and another vault over the network.
struct Bed {
    server: Server,
    remote: Remote,
    reached: BTreeSet<&'static str>,
}

impl Bed {
    /// The command is refused with the code of `fault` and what to do, and the key in use stays.
    fn refuses(&mut self, fault: KeyFault, arguments: &[&str]) {
        let before = key_state(&self.server)["resolvedVersion"].clone();
        let mut command = vec!["cluster", "update", "local"];
        command.extend(arguments);
        let message = failed(&self.server, &command);
        let entry = fault.entry();
        assert!(message.contains(entry.code) && message.contains(entry.action), "{}: {message}", entry.code);
        assert_eq!(key_state(&self.server)["resolvedVersion"], before, "{}: nothing has changed", entry.code);
        self.reached.insert(entry.code);
    }

    fn refuses_key(&mut self, fault: KeyFault, name: &str) {
        self.refuses(fault, &["--key-name", name]);
    }

    fn refuses_remote_key(&mut self, fault: KeyFault) {
        let uri = format!("{}/keys/kek", self.remote.uri());
        self.refuses(fault, &["--key-vault-key-uri", &uri]);
    }

    fn run(&self, arguments: &[&str]) {
        done(&self.server, arguments);
    }
}

/// Scenario: a cluster is to take a key that cannot be used, for each reason that there is; its own key cannot be used; it has no identity.
/// Guarantee: every entry of the catalogue is told by its code, with what to do, and the key in use stays in use.
#[test]
fn every_fault_of_a_key_is_told_by_its_code() {
    let deployment = Deployment::new();
    let remote = Remote::new();
    let mut settings = vec!["azure.hosts=gone.invalid=public".to_owned()];
    let [hosts, ca_file, identities] = remote.settings();
    // Both hosts: the second one has a name that no resolver knows (RFC 6761, section 6.4).
    settings[0] = format!("{hosts} gone.invalid=public");
    settings.extend([ca_file, identities, "keys.probe_interval_ms=1000".into(), "keys.min_state_interval_ms=0".into()]);
    let server = deployment.start_with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let mut bed = Bed { server, remote, reached: BTreeSet::new() };
    bed.run(&["vault", "key", "create", "kek", "--size", "2048"]);
    bed.run(&["cluster", "update", "local", "--key-name", "kek"]);

    bed.run(&["vault", "key", "create", "disabled", "--size", "2048"]);
    bed.run(&["vault", "key", "disable", "disabled"]);
    bed.refuses_key(KeyFault::KeyDisabled, "disabled");
    bed.run(&["vault", "key", "create", "not-granted", "--size", "2048", "--no-grant"]);
    bed.refuses_key(KeyFault::AccessDenied, "not-granted");
    bed.refuses_key(KeyFault::KeyNotFound, "no-such-key");
    bed.run(&["vault", "key", "create", "purgeable", "--size", "2048", "--purgeable"]);
    bed.refuses_key(KeyFault::KeyNotRecoverable, "purgeable");
    bed.run(&["vault", "key", "create", "small", "--size", "2048"]);
    bed.refuses(KeyFault::KeyTooSmall, &["--key-name", "small", "--key-rsa-size", "3072"]);

    for (spoil, fault) in [
        (Spoil::OtherType, KeyFault::KeyTypeNotSupported),
        (Spoil::Refuse(401, "Unauthorized"), KeyFault::TokenUnavailable),
        (Spoil::Refuse(403, "ForbiddenByFirewall"), KeyFault::NetworkRules),
        (Spoil::Refuse(404, "VaultNotFound"), KeyFault::VaultNotFound),
        (Spoil::Refuse(429, "Throttled"), KeyFault::VaultThrottled),
        (Spoil::Refuse(500, "InternalError"), KeyFault::VaultFailed),
        (Spoil::Garbage, KeyFault::VaultMalformed),
        (Spoil::WrongBytes, KeyFault::UnwrapFailed),
        (Spoil::Silence, KeyFault::VaultTimedOut),
    ] {
        bed.remote.spoil(spoil);
        bed.refuses_remote_key(fault);
    }
    bed.remote.spoil(Spoil::Nothing);
    let key = bed.remote.ask("GET", "/keys/kek", &Value::Null);
    let version = key["key"]["kid"].as_str().and_then(|kid| kid.rsplit('/').next()).expect("a version").to_owned();
    bed.remote.ask("PATCH", &format!("/keys/kek/{version}"), &json!({"attributes": {"exp": 1_000_000_000}}));
    bed.refuses_remote_key(KeyFault::KeyOutsideValidity);
    bed.remote.down();
    bed.refuses_remote_key(KeyFault::VaultUnreachable);
    bed.refuses(KeyFault::VaultUnresolved, &["--key-vault-key-uri", "https://gone.invalid/keys/kek"]);
    bed.refuses(KeyFault::InvalidKeyVaultUri, &["--key-vault-key-uri", "https://vault.example/keys/kek"]);

    bed.run(&["vault", "key", "create", "next", "--size", "2048"]);
    bed.run(&["vault", "key", "disable", "kek"]);
    bed.refuses_key(KeyFault::OldKeyVersionUnusable, "next");
    bed.run(&["vault", "key", "enable", "kek"]);
    until(&bed.server, "Active");
    bed.run(&["cluster", "update", "local", "--identity", "None"]);
    assert_eq!(until(&bed.server, "Revoked")["code"], KeyFault::IdentityMissing.code());
    bed.refuses_key(KeyFault::IdentityMissing, "next");

    // Only until the vault has been asked for the first time: nobody can be sure to see it. The monitor's own tests do.
    bed.reached.insert(KeyFault::NotYetUnwrapped.code());
    let all: BTreeSet<_> = KeyFault::ALL.iter().map(|fault| fault.code()).collect();
    assert_eq!(bed.reached, all);
}
