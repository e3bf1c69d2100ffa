//! What it costs when a cluster's key is out of reach, with the settings that everybody has: how long until records and queries are refused,
//! how long until both are taken again, and that no record is lost on the way.

mod clients;

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use serde_json::{Value, json};

use self::clients::{Clients, TURN, first_after, lock, longest_pause};
use crate::cli::{done, json as shown};
use crate::hosts::Hosts;
use crate::remote::{Remote, Spoil};
use crate::remote_vault::probes;
use crate::revocation::{key_state, until, until_degraded};
use crate::{Deployment, report};

/// Within this time a refusal of the vault ends everything that the key protects.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// Within this time everything goes on after the key is back.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

/// Records, or answers, that fail to come for so long have stopped; shorter pauses are those of a busy machine.
const PAUSE: Duration = Duration::from_secs(5);

/// Where the key is, and how to get at it.
struct Bed {
    deployment: Deployment,
    server: Server,
    remote: Option<Remote>,
    hosts: Option<Hosts>,
}

impl Bed {
    fn remote(&mut self) -> &mut Remote {
        self.remote.as_mut().expect("its key is there")
    }

    fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("its names are there")
    }

    fn run(&self, arguments: &[&str]) {
        done(&self.server, arguments);
    }

    fn versions(&self) -> Vec<String> {
        let versions = shown(&self.server, &["vault", "key", "versions", "kek"]);
        let version = |one: &Value| one["version"].as_str().expect("a version").to_owned();
        versions.as_array().expect("an array").iter().map(version).collect()
    }
}

/// Where the key is.
#[derive(Clone, Copy, PartialEq)]
enum Vault {
    Embedded,
    Remote,
    /// A remote one, whose name can be made to go.
    RemoteByHostsFile,
}

/// What follows from an outage.
#[derive(Clone, Copy)]
enum Effect {
    /// The cluster is revoked with this code.
    Stops(&'static str),
    /// Keys in memory serve on; the state is Degraded with this code, or Active without one.
    Serves(Option<&'static str>),
}

/// A way for a key to get out of reach, and back.
struct Outage {
    name: &'static str,
    vault: Vault,
    effect: Effect,
    /// Settings that are not those that everybody has.
    settings: &'static [&'static str],
    begin: fn(&mut Bed),
    end: fn(&mut Bed),
}

/// The key is in the embedded vault, whose word stops the cluster.
const fn refused(name: &'static str, code: &'static str, begin: fn(&mut Bed), end: fn(&mut Bed)) -> Outage {
    Outage { name, vault: Vault::Embedded, effect: Effect::Stops(code), settings: &[], begin, end }
}

/// The key is in a vault over the network that has trouble.
const fn trouble(name: &'static str, code: &'static str, begin: fn(&mut Bed)) -> Outage {
    let end = |bed: &mut Bed| bed.remote().spoil(Spoil::Nothing);
    Outage { name, vault: Vault::Remote, effect: Effect::Serves(Some(code)), settings: &[], begin, end }
}

const OUTAGES: [Outage; 17] = [
    refused(
        "key disabled",
        "KeyDisabled",
        |bed| bed.run(&["vault", "key", "disable", "kek"]),
        |bed| bed.run(&["vault", "key", "enable", "kek"]),
    ),
    refused(
        "newest of three versions disabled",
        "KeyDisabled",
        |bed| bed.run(&["vault", "key", "disable", "kek", "--version", &bed.versions()[0]]),
        |bed| bed.run(&["vault", "key", "enable", "kek", "--version", &bed.versions()[0]]),
    ),
    refused(
        "grant removed",
        "KeyAccessDenied",
        |bed| bed.run(&["vault", "revoke", "--key", "kek", "--cluster", "local"]),
        |bed| bed.run(&["vault", "grant", "--key", "kek", "--cluster", "local"]),
    ),
    refused(
        "key deleted",
        "KeyNotFound",
        |bed| bed.run(&["vault", "key", "delete", "kek"]),
        |bed| bed.run(&["vault", "key", "recover", "kek"]),
    ),
    refused(
        "identity None",
        "IdentityMissing",
        |bed| bed.run(&["cluster", "update", "local", "--identity", "None"]),
        |bed| {
            bed.run(&["cluster", "update", "local", "--identity", "SystemAssigned"]);
            bed.run(&["vault", "grant", "--key", "kek", "--cluster", "local"]);
        },
    ),
    Outage {
        name: "key expired",
        vault: Vault::Remote,
        effect: Effect::Serves(None),
        settings: &[],
        begin: |bed| {
            let version = key_state(&bed.server)["resolvedVersion"].as_str().expect("a version").to_owned();
            let expired = json!({"attributes": {"exp": 1_000_000_000}});
            bed.remote().ask("PATCH", &format!("/keys/kek/{version}"), &expired);
        },
        end: |_| {},
    },
    trouble("401", "TokenUnavailable", |bed| bed.remote().spoil(Spoil::Refuse(401, "Unauthorized"))),
    trouble("403 of a firewall", "KeyVaultNetworkRules", |bed| {
        bed.remote().spoil(Spoil::Refuse(403, "ForbiddenByFirewall"));
    }),
    trouble("404 for the vault", "KeyVaultNotFound", |bed| bed.remote().spoil(Spoil::Refuse(404, "VaultNotFound"))),
    trouble("429", "KeyVaultThrottled", |bed| bed.remote().spoil(Spoil::Refuse(429, "Throttled"))),
    trouble("500", "KeyVaultFailed", |bed| bed.remote().spoil(Spoil::Refuse(500, "InternalError"))),
    trouble("garbage", "KeyVaultMalformed", |bed| bed.remote().spoil(Spoil::Garbage)),
    trouble("wrong bytes", "UnwrapFailed", |bed| bed.remote().spoil(Spoil::WrongBytes)),
    trouble("no answer", "KeyVaultTimedOut", |bed| bed.remote().spoil(Spoil::Silence)),
    Outage {
        name: "name does not resolve",
        vault: Vault::RemoteByHostsFile,
        effect: Effect::Serves(Some("KeyVaultUnresolved")),
        settings: &[],
        begin: |bed| bed.hosts().know(false),
        end: |bed| bed.hosts().know(true),
    },
    Outage {
        name: "vault down",
        vault: Vault::Remote,
        effect: Effect::Serves(Some("KeyVaultUnreachable")),
        settings: &[],
        begin: |bed| bed.remote().down(),
        end: |bed| bed.remote().up(),
    },
    Outage {
        name: "vault down, grace of 40 s",
        vault: Vault::Remote,
        effect: Effect::Stops("KeyVaultUnreachable"),
        settings: &["keys.grace_ms=40000"],
        begin: |bed| bed.remote().down(),
        end: |bed| bed.remote().up(),
    },
];

/// One line of the table.
struct Measured {
    name: &'static str,
    effect: Effect,
    /// From the beginning of the outage to the last acknowledgement and the last answer; of an outage that stops nothing, the longest
    /// time without any.
    stopped: [Duration; 2],
    /// From its end to the first of them.
    resumed: [Duration; 2],
    records: usize,
    refused: u64,
    missing: i64,
}

impl Outage {
    /// `None` where this machine does not permit it.
    fn bed(&self) -> Option<Bed> {
        let deployment = Deployment::new();
        let remote = (self.vault != Vault::Embedded).then(Remote::new);
        let hosts = match self.vault {
            Vault::RemoteByHostsFile => Some(Hosts::new(deployment.dir.path())?),
            Vault::Embedded | Vault::Remote => None,
        };
        let mut settings: Vec<String> = self.settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.extend(remote.iter().flat_map(Remote::settings));
        let arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let binary = hosts.as_ref().map_or(env!("CARGO_BIN_EXE_logseal"), Hosts::server);
        let server = Server::start(binary, &deployment.data_dir(), &arguments);
        match &remote {
            Some(remote) => {
                let key = format!("{}/keys/kek", remote.uri());
                done(&server, &["cluster", "update", "local", "--key-vault-key-uri", &key]);
            }
            None => {
                done(&server, &["vault", "key", "create", "kek", "--size", "2048"]);
                done(&server, &["vault", "key", "rotate", "kek"]);
                done(&server, &["vault", "key", "rotate", "kek"]);
                done(&server, &["cluster", "update", "local", "--key-name", "kek"]);
            }
        }
        Some(Bed { deployment, server, remote, hosts })
    }

    fn measure(&self) -> Option<Measured> {
        let mut bed = self.bed()?;
        let clients = Clients::of(&bed.server);
        clients.until("records and answers", Duration::from_secs(30), |seen| {
            seen.acknowledged.len() > 10 && seen.answered.len() > 3
        });
        let began = Instant::now();
        (self.begin)(&mut bed);
        let (stopped, resumed) = match self.effect {
            Effect::Stops(code) => {
                let limit = STOPPED_WITHIN + PAUSE;
                clients.until("refusals of all", limit, |seen| {
                    [&seen.acknowledged, &seen.answered]
                        .iter()
                        .all(|all| all.last().is_some_and(|last| last.elapsed() > PAUSE))
                });
                let state = until(&bed.server, "Revoked");
                assert_eq!(state["code"], code, "{}", self.name);
                let stopped = {
                    let seen = lock(&clients.seen);
                    [&seen.acknowledged, &seen.answered]
                        .map(|all| all.last().map_or(Duration::ZERO, |last| last.saturating_duration_since(began)))
                };
                (self.end)(&mut bed);
                let ended = Instant::now();
                clients.until("records and answers again", Duration::from_secs(60), |seen| {
                    [&seen.acknowledged, &seen.answered].iter().all(|all| first_after(all, ended).is_some())
                });
                let seen = lock(&clients.seen);
                let resumed = [&seen.acknowledged, &seen.answered]
                    .map(|all| first_after(all, ended).map_or(Duration::MAX, |first| first - ended));
                (stopped, resumed)
            }
            Effect::Serves(code) => {
                match code {
                    Some(code) => until_degraded(&bed.server, code, STOPPED_WITHIN),
                    None => until_probed_twice(&bed.server),
                }
                let state = key_state(&bed.server)["state"].clone();
                assert_eq!(state, if code.is_some() { "Degraded" } else { "Active" }, "{}", self.name);
                let now = Instant::now();
                let stopped = {
                    let seen = lock(&clients.seen);
                    [&seen.acknowledged, &seen.answered].map(|all| longest_pause(all, began, now))
                };
                (self.end)(&mut bed);
                let ended = Instant::now();
                until(&bed.server, "Active");
                (stopped, [ended.elapsed(); 2])
            }
        };
        let (seen, records) = clients.end();
        let found = bed.server.value("SELECT count(DISTINCT body) FROM logs").as_i64().expect("a number");
        let stored = bed.server.value("SELECT count(*) FROM logs").as_i64().expect("a number");
        assert_eq!(found, stored, "{}: no record twice", self.name);
        let missing = i64::try_from(records).expect("a small number") - found;
        let Bed { deployment, server, .. } = bed;
        assert!(server.stop().success(), "{}", self.name);
        drop(deployment);
        let refused = seen.refused;
        Some(Measured { name: self.name, effect: self.effect, stopped, resumed, records, refused, missing })
    }
}

/// Waits until two more probes of the key were good.
fn until_probed_twice(server: &Server) {
    let (before, started) = (probes(server), Instant::now());
    while probes(server) < before + 2 {
        assert!(started.elapsed() < STOPPED_WITHIN, "no good probes: {}", key_state(server));
        thread::sleep(TURN);
    }
}

fn table(measured: &[Measured]) -> String {
    let seconds = |times: [Duration; 2]| times.map(|time| format!("{:.1}", time.as_secs_f64())).join(" | ");
    let mut table = String::from(
        "| outage | effect | records stop, s | queries stop, s | records again, s | queries again, s | acknowledged | refused | missing |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Measured { name, effect, stopped, resumed, records, refused, missing } in measured {
        let (word, stop) = match effect {
            Effect::Stops(code) => (format!("Revoked, {code}"), seconds(*stopped)),
            Effect::Serves(Some(code)) => (format!("Degraded, {code}"), "never | never".to_owned()),
            Effect::Serves(None) => ("Active".to_owned(), "never | never".to_owned()),
        };
        let resumed = seconds(*resumed);
        let _ = writeln!(table, "| {name} | {word} | {stop} | {resumed} | {records} | {refused} | {missing} |");
    }
    table
}

/// Scenario: each way for a key to get out of reach and back, with the settings that everybody has, while clients ship and ask. Guarantee: the
/// vault's own word stops both within a minute, and its trouble neither as long as the grace lasts; both go on within ten seconds after; each
/// record that was acknowledged is there, once, and clients that send again what was refused lose none.
#[test]
fn an_outage_stops_what_it_must_in_time_and_loses_nothing() {
    let measured: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = OUTAGES.iter().map(|outage| scope.spawn(|| outage.measure())).collect();
        running.into_iter().filter_map(|one| one.join().expect("it is measured")).collect()
    });
    report(&table(&measured));
    if measured.len() < OUTAGES.len() {
        report("a name that does not resolve is not measured: this machine permits no mounts in a namespace");
    }
    for Measured { name, effect, stopped, resumed, refused, missing, .. } in measured {
        match effect {
            Effect::Stops(_) => {
                assert!(stopped.iter().all(|time| *time <= STOPPED_WITHIN), "{name} stops in time");
                assert!(resumed.iter().all(|time| *time <= RESUMED_WITHIN), "{name} resumes in time");
                assert!(refused > 0, "{name}: it was stopped");
            }
            Effect::Serves(_) => {
                assert!(stopped.iter().all(|pause| *pause < PAUSE), "{name} stops nothing");
                assert_eq!(refused, 0, "{name} stops nothing");
            }
        }
        assert_eq!(missing, 0, "{name} loses nothing");
    }
}
