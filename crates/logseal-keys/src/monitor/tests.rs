//! The monitor over a vault that answers as it is told: what follows, and what no longer can be used.

use logseal_catalog::{AekRow, KekRow, TableRow, WorkspaceRow};
use logseal_core::{AekId, SystemClock, SystemSteadyClock, TableId, TableName, WorkspaceId};
use logseal_crypto::{Key256, MacKey, OsRandom};
use logseal_testkit::vault::{Script, ScriptedVault};
use logseal_vault::{KeyId, KeyName, KeyVersion, VaultError};
use metrics_exporter_prometheus::PrometheusBuilder;
use object_store::path::Path;

use super::*;
use crate::{AekOwner, KeyError, OneVault, WrappedKeyStore};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const WORKSPACE: WorkspaceId = WorkspaceId::from_bytes([2; 16]);
const AEK: AekId = AekId::from_bytes([4; 16]);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct NoCopies;

#[async_trait]
impl WrappedKeyStore for NoCopies {
    async fn put_new(&self, _: &Path, _: Vec<u8>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    async fn get(&self, _: &Path) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(None)
    }
}

/// Notes what it is told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<&'static str>>);

#[async_trait]
impl Holder for Told {
    async fn suspend(&self, _: ClusterId) {
        self.0.lock().unwrap().push("suspend");
    }

    async fn resume(&self, _: ClusterId) -> Result<(), String> {
        self.0.lock().unwrap().push("resume");
        Ok(())
    }
}

struct World {
    _dir: tempfile::TempDir,
    vault: Arc<ScriptedVault>,
    keyring: Arc<Keyring>,
    told: Arc<Told>,
    monitor: Arc<Monitor>,
    status: watch::Receiver<KeyStatus>,
}

impl World {
    /// A cluster with one workspace, watched by a monitor that does all in milliseconds; its keys serve for `grace` at most.
    async fn new(grace: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mac = || MacKey::new(Key256::copy_from_slice(&[8; 32]).unwrap());
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite"), mac()).await.unwrap();
        let vault = Arc::<ScriptedVault>::default();
        let vaults = Arc::new(OneVault(Arc::clone(&vault) as _));
        let clock = Arc::new(SystemClock);
        let kek = KeyId {
            vault_uri: "https://v".into(),
            name: KeyName::parse("kek").unwrap(),
            version: KeyVersion::from_bytes([1; 16]),
        };
        let keyring = Keyring::new(vaults, catalog.clone(), Arc::new(NoCopies), mac(), clock);
        provision(&catalog, &keyring, &kek).await;
        let keyring = Arc::new(keyring.watched());
        let told = Arc::<Told>::default();
        let policy = Policy {
            probe: Duration::from_millis(20),
            probe_again: Duration::from_millis(10),
            confirmation: Duration::from_millis(40),
            grace,
            min_state_interval: Duration::ZERO,
        };
        let monitor = watching(&keyring, &told, policy).await;
        let status = monitor.watch(CLUSTER, "local");
        let first = status.borrow().cause.map(|cause| cause.fault);
        assert_eq!(first, Some(KeyFault::NotYetUnwrapped), "until the vault has been asked");
        let mut world = Self { _dir: dir, vault, keyring, told, monitor, status };
        world.until(KeyState::Active).await;
        world
    }

    async fn until(&mut self, state: KeyState) -> KeyStatus {
        let reached = self.status.wait_for(|status| status.state == state);
        timeout(PATIENCE, reached).await.expect("the state in time").expect("a monitor").clone()
    }

    async fn key(&self) -> Result<Arc<logseal_crypto::Aek>, KeyError> {
        self.keyring.aek(AEK).await
    }
}

/// A monitor at its start.
async fn watching(keyring: &Arc<Keyring>, told: &Arc<Told>, policy: Policy) -> Arc<Monitor> {
    let monitor = Monitor::new(MonitorParts {
        catalog: keyring.catalog().clone(),
        keyring: Arc::clone(keyring),
        holder: Arc::clone(told) as _,
        policy,
        steady: Arc::new(SystemSteadyClock),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    });
    monitor.recall().await;
    monitor
}

async fn provision(catalog: &Catalog, keyring: &Keyring, kek: &KeyId) {
    let created = UnixNanos(0);
    let row = crate::kek_row(kek);
    let cluster = ClusterRow { id: CLUSTER, name: "local".into(), created, kek: row };
    let workspace = WorkspaceRow { id: WORKSPACE, name: "w".into(), cluster: CLUSTER, created };
    let tables =
        vec![TableRow { id: TableId::from_bytes([3; 16]), workspace: WORKSPACE, name: TableName::logs(), created }];
    let owner = AekOwner { cluster: &cluster, workspace: &workspace, tables: &tables };
    let aek: AekRow = keyring.new_aek(AEK, owner, 1, kek).await.unwrap();
    assert_ne!(aek.kek, KekRow { version: String::new(), ..aek.kek.clone() });
    catalog.apply(Change::AddCluster(cluster)).await.unwrap();
    catalog.apply(Change::AddWorkspace { workspace, keys: vec![], aek, tables }).await.unwrap();
}

fn failing(error: fn() -> VaultError) -> Script {
    Script::Fail(Box::new(error))
}

fn kek() -> KeyId {
    KeyId {
        vault_uri: "https://v".into(),
        name: KeyName::parse("kek").unwrap(),
        version: KeyVersion::from_bytes([1; 16]),
    }
}

/// Scenario: the vault refuses, in each way that it can. Guarantee: the cluster is revoked by the vault's own word, with its code; a handle of a key
/// that somebody still holds is of no use, and no other one is given, with the cluster named; after the next good answer keys are given again.
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_revokes_and_a_good_answer_resumes() {
    let mut world = World::new(Duration::from_secs(3_600)).await;
    let refusals: [(fn() -> VaultError, KeyFault); 4] = [
        (|| VaultError::KeyDisabled(kek()), KeyFault::KeyDisabled),
        (|| VaultError::NotFound("kek".to_owned()), KeyFault::KeyNotFound),
        (|| VaultError::NoIdentity, KeyFault::IdentityMissing),
        (
            || VaultError::AccessDenied {
                caller: "c".to_owned(),
                permission: logseal_vault::Permission::UnwrapKey,
                key: "kek".to_owned(),
            },
            KeyFault::AccessDenied,
        ),
    ];
    for (error, fault) in refusals {
        let held = world.key().await.unwrap();
        world.vault.play(failing(error));
        let status = world.until(KeyState::Revoked).await;
        assert_eq!(status.cause, Some(Cause { fault, definitive: true }));
        assert!(held.lease().check().is_err(), "{fault:?}: what was given is over");
        let refused = world.key().await.unwrap_err();
        assert!(matches!(&refused, KeyError::Suspended(why) if why.cause.fault == fault), "{refused:?}");
        assert!(refused.to_string().contains("cluster `local`"), "{refused}");
        assert!(matches!(world.keyring.current(WORKSPACE).await, Err(KeyError::Suspended(_))));
        world.vault.play(Script::Good);
        world.until(KeyState::Active).await;
        assert!(world.key().await.is_ok() && held.lease().check().is_err(), "an old handle stays over");
    }
    assert_eq!(*world.told.0.lock().unwrap(), [vec!["resume"], ["suspend", "resume"].repeat(4)].concat());
    let audited = async {
        loop {
            let records = world.keyring.catalog().audit(None, 100).await.unwrap();
            if records.len() == 8 {
                return records;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let records = timeout(PATIENCE, audited).await.expect("each revocation and each resumption is recorded, once");
    let outcomes: Vec<_> = records.iter().rev().map(|record| record.entry.outcome.as_str()).collect();
    assert_eq!(outcomes, ["Revoked", "Active"].repeat(4));
    assert!(records[7].entry.after.contains("KeyDisabled"), "{:?}", records[7].entry);
}

/// Scenario: a cluster that resumed a moment before is revoked; the process starts again, twice, and then the key is back. Guarantee: it is
/// Revoked since it was, and the trail says so once; its resumption is held back as if there had been no start, and is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_knows_since_when_a_cluster_is_revoked() {
    let mut world = World::new(Duration::from_secs(3_600)).await;
    let disabled = || failing(|| VaultError::KeyDisabled(kek()));
    world.vault.play(disabled());
    world.until(KeyState::Revoked).await;
    world.vault.play(Script::Good);
    let resumed = world.until(KeyState::Active).await;
    world.vault.play(disabled());
    let revoked = world.until(KeyState::Revoked).await;
    let catalog = world.keyring.catalog().clone();
    let outcomes = async |expected: &[&str]| {
        loop {
            let records = catalog.audit_of(past::ACTION, 100).await.unwrap();
            let found: Vec<_> = records.iter().rev().map(|record| record.entry.outcome.as_str()).collect();
            if found == expected {
                return;
            }
            assert!(found.len() < expected.len(), "{found:?}");
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, outcomes(&["Revoked", "Active", "Revoked"])).await.expect("both are recorded");
    let distance = Duration::from_secs(3);
    for _ in 0..2 {
        let policy = Policy { min_state_interval: distance, ..world.monitor.parts.policy };
        world.monitor = watching(&world.keyring, &world.told, policy).await;
        world.status = world.monitor.watch(CLUSTER, "local");
        let again = world.until(KeyState::Revoked).await;
        // What was written down is when it was recorded, a moment after it was so.
        let later = again.since.0 - revoked.since.0;
        assert!((0..1_000_000_000).contains(&later) && again.cause == revoked.cause, "{later} ns, {:?}", again.cause);
    }
    world.vault.play(Script::Good);
    let back = world.until(KeyState::Active).await;
    let waited = Duration::from_nanos(back.since.0.abs_diff(resumed.since.0));
    assert!(waited >= distance - Duration::from_millis(500), "{waited:?}");
    timeout(PATIENCE, outcomes(&["Revoked", "Active", "Revoked", "Active"])).await.expect("its end is recorded, once");
}

/// Scenario: the vault is in trouble, in each way that it can be. Guarantee: the cluster serves on, Degraded with the trouble's code, and nothing is
/// suspended.
#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_is_waited_out() {
    let mut world = World::new(Duration::from_secs(3_600)).await;
    let troubles: [(fn() -> Script, KeyFault); 10] = [
        (|| failing(|| VaultError::Token("no".to_owned())), KeyFault::TokenUnavailable),
        (|| failing(|| VaultError::Unauthorized), KeyFault::TokenUnavailable),
        (|| failing(|| VaultError::Firewall), KeyFault::NetworkRules),
        (|| failing(|| VaultError::VaultNotFound("v".to_owned())), KeyFault::VaultNotFound),
        (|| failing(|| VaultError::Unresolved("v".to_owned())), KeyFault::VaultUnresolved),
        (|| failing(|| VaultError::Unreachable("refused".to_owned())), KeyFault::VaultUnreachable),
        (|| failing(|| VaultError::Throttled { retry_after: None }), KeyFault::VaultThrottled),
        (|| failing(|| VaultError::Server(500)), KeyFault::VaultFailed),
        (|| failing(|| VaultError::Malformed("html")), KeyFault::VaultMalformed),
        (|| Script::WrongBytes, KeyFault::UnwrapFailed),
    ];
    assert!(world.key().await.is_ok(), "unwrapped once");
    for (script, fault) in troubles {
        world.vault.play(script());
        let status = world.until(KeyState::Degraded).await;
        assert_eq!(status.cause, Some(Cause { fault, definitive: false }));
        assert!(status.until.is_some_and(|until| until > status.since), "it says when its time is over");
        assert!(world.key().await.is_ok(), "{fault:?}: keys in memory serve");
        world.vault.play(Script::Good);
        world.until(KeyState::Active).await;
    }
    assert_eq!(*world.told.0.lock().unwrap(), ["resume"]);
}

/// Scenario: the vault never answers again. Guarantee: a call ends, and when the grace is over the cluster is suspended, as one that comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_stays_away_longer_than_the_grace_suspends() {
    let mut world = World::new(Duration::from_secs(4)).await;
    let held = world.key().await.unwrap();
    world.vault.play(failing(|| VaultError::Unreachable("refused".to_owned())));
    let status = world.until(KeyState::Revoked).await;
    assert_eq!(status.cause, Some(Cause { fault: KeyFault::VaultUnreachable, definitive: false }));
    assert!(held.lease().check().is_err());
    world.vault.play(Script::Good);
    world.until(KeyState::Active).await;
    assert!(world.key().await.is_ok());
}

/// Scenario: nobody watches any more. Guarantee: keys in memory end by themselves when the grace is over, and none is given.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_monitor_uses_fail_closed() {
    let World { keyring, monitor, vault, _dir, .. } = World::new(Duration::from_secs(4)).await;
    let held = keyring.aek(AEK).await.unwrap();
    vault.play(Script::Silent);
    drop(monitor);
    let over = async {
        while held.lease().check().is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, over).await.expect("the lease ends by itself");
    assert!(held.new_dek(logseal_core::SegmentId::from_bytes([9; 16]), OsRandom).is_err());
    assert!(keyring.aek(AEK).await.is_err() && keyring.current(WORKSPACE).await.is_err());
}

/// Scenario: a cluster is watched, then it is deleted. Guarantee: until then it is shown in one state, afterwards in none, nor any time: what looks for states
/// finds nothing of it.
#[tokio::test]
async fn a_cluster_that_is_gone_is_shown_in_no_state() {
    // The one thread of this test shows all that its tasks show.
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let world = World::new(Duration::from_secs(3_600)).await;
    let states = || -> Vec<String> {
        let text = shown.render();
        let of_states = text.lines().filter(|line| line.starts_with("logseal_key_state{"));
        of_states.filter(|line| line.ends_with(" 1")).map(str::to_owned).collect()
    };
    let now = states();
    assert!(now.len() == 1 && now[0].contains("state=\"Active\"") && now[0].contains("cluster=\"local\""), "{now:?}");
    world.monitor.forget(CLUSTER);
    let gone = async {
        while !states().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("in no state in time");
    let text = shown.render();
    for gauge in ["logseal_key_state_since_seconds", "logseal_key_revoked_in_seconds"] {
        assert!(text.contains(&format!("{gauge}{{cluster=\"local\"}} NaN")), "{text}");
    }
}
