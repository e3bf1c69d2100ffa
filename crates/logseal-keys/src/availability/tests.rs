//! The machine driven by hand: what each answer of the vault leads to, and how soon.

use logseal_vault::VaultErrorClass::{Refusal, Trouble};

use super::*;

const DISABLED: Outcome = Outcome::Failed(KeyFault::KeyDisabled, Refusal);
const DOWN: Outcome = Outcome::Failed(KeyFault::VaultUnreachable, Trouble);

/// A machine whose shell probes when it is due, without jitter, and resumes at once.
struct Driven {
    machine: Availability,
    now: Duration,
    suspended: Vec<Duration>,
    resumed: Vec<Duration>,
}

impl Driven {
    fn new() -> Self {
        let now = Duration::from_secs(1_000);
        Self { machine: Availability::new(Policy::default(), now), now, suspended: Vec::new(), resumed: Vec::new() }
    }

    fn active() -> Self {
        let mut driven = Self::new();
        driven.run(1, Outcome::Good);
        assert_eq!(driven.machine.state(), KeyState::Active);
        driven
    }

    /// Lets `seconds` pass in which each probe is answered so at once.
    fn run(&mut self, seconds: u64, answer: Outcome) {
        let end = self.now + Duration::from_secs(seconds);
        while self.machine.next_probe(0.0) < end {
            self.now = self.machine.next_probe(0.0).max(self.now);
            let command = self.machine.probed(self.now, self.now, answer);
            self.obey(command);
        }
        self.now = end;
        let command = self.machine.passed(end);
        self.obey(command);
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Suspend) => self.suspended.push(self.now),
            Some(Command::Resume) => {
                self.machine.resumed(self.now);
                self.resumed.push(self.now);
            }
            None => {}
        }
    }

    fn check(&self, state: KeyState, cause: Option<(KeyFault, bool)>) {
        let found = self.machine.cause().map(|cause| (cause.fault, cause.definitive));
        assert_eq!((self.machine.state(), found), (state, cause));
    }
}

#[test]
fn a_start_serves_from_its_first_good_unwrap_on() {
    let mut driven = Driven::new();
    driven.check(KeyState::Resuming, Some((KeyFault::NotYetUnwrapped, false)));
    driven.run(60, DOWN);
    driven.check(KeyState::Resuming, Some((KeyFault::VaultUnreachable, false)));
    driven.run(6, Outcome::Good);
    driven.check(KeyState::Active, None);
    assert!(driven.suspended.is_empty(), "there was nothing to suspend");
}

#[test]
fn a_start_with_a_revoked_key_says_so() {
    let mut driven = Driven::new();
    driven.run(12, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
    assert!(driven.suspended.is_empty());
    driven.run(6, Outcome::Good);
    driven.check(KeyState::Active, None);
}

#[test]
fn a_start_of_a_cluster_that_was_revoked_is_a_resumption() {
    let resumed = |ago: Option<u64>| {
        let mut driven = Driven::new();
        driven.machine.was_revoked(ago.map(|ago| driven.now - Duration::from_secs(ago)));
        driven.run(12, DISABLED);
        driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
        let good = driven.now;
        driven.run(120, Outcome::Good);
        driven.check(KeyState::Active, None);
        driven.resumed[0] - good
    };
    assert!(resumed(None) <= Duration::from_secs(5), "the first one is not held back");
    assert!(resumed(Some(900)) <= Duration::from_secs(5));
    let held = resumed(Some(20));
    assert!(held >= Duration::from_secs(60 - 20 - 12) && held <= Duration::from_secs(60 - 20 - 12 + 5), "{held:?}");
}

#[test]
fn two_refusals_revoke_well_within_a_minute() {
    let mut driven = Driven::active();
    let changed = driven.now;
    driven.run(60, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
    let waited = driven.suspended[0] - changed;
    assert!(waited <= Duration::from_secs(32), "{waited:?}");
    assert_eq!(driven.suspended.len(), 1);
}

#[test]
fn one_refusal_between_good_answers_revokes_nothing() {
    let mut driven = Driven::active();
    for _ in 0..20 {
        driven.run(1, Outcome::Good);
        driven.machine.probe_now(driven.now);
        driven.run(1, DISABLED);
        driven.check(KeyState::Degraded, Some((KeyFault::KeyDisabled, false)));
        driven.machine.probe_now(driven.now);
        driven.run(1, Outcome::Good);
        driven.check(KeyState::Active, None);
    }
    assert!(driven.suspended.is_empty());
}

#[test]
fn refusals_that_come_close_together_wait_for_one_that_confirms_them() {
    let mut driven = Driven::active();
    for _ in 0..5 {
        driven.machine.probe_now(driven.now);
        driven.run(1, DISABLED);
    }
    driven.check(KeyState::Degraded, Some((KeyFault::KeyDisabled, false)));
    driven.run(6, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
}

#[test]
fn a_trouble_between_two_refusals_does_not_clear_the_first() {
    let mut driven = Driven::active();
    driven.machine.probe_now(driven.now);
    driven.run(1, DISABLED);
    driven.machine.probe_now(driven.now);
    driven.run(5, DOWN);
    driven.run(10, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
}

#[test]
fn an_outage_is_waited_out_for_the_grace_and_no_longer() {
    let mut driven = Driven::active();
    let good = driven.machine.lease_end().unwrap() - Policy::default().grace;
    driven.run(3_500, DOWN);
    driven.check(KeyState::Degraded, Some((KeyFault::VaultUnreachable, false)));
    assert_eq!(driven.machine.until(), Some(good + Policy::default().grace));
    assert!(driven.suspended.is_empty());
    driven.run(200, DOWN);
    driven.check(KeyState::Revoked, Some((KeyFault::VaultUnreachable, false)));
    assert_eq!(driven.suspended.len(), 1);
    driven.run(10, Outcome::Good);
    driven.check(KeyState::Active, None);
}

#[test]
fn a_refusal_during_an_outage_revokes_by_the_vaults_own_word() {
    let mut driven = Driven::active();
    driven.run(4_000, DOWN);
    driven.run(20, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
    driven.run(60, DOWN);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
    driven.run(20, Outcome::Failed(KeyFault::AccessDenied, Refusal));
    driven.check(KeyState::Revoked, Some((KeyFault::AccessDenied, true)));
}

#[test]
fn the_first_resumption_is_prompt_and_a_flapping_keys_next_one_waits() {
    let mut driven = Driven::active();
    driven.run(60, DISABLED);
    let enabled = driven.now;
    driven.run(10, Outcome::Good);
    driven.check(KeyState::Active, None);
    let first = *driven.resumed.last().unwrap();
    assert!(first - enabled <= Duration::from_secs(5));

    driven.machine.probe_now(driven.now);
    driven.run(12, DISABLED);
    driven.check(KeyState::Revoked, Some((KeyFault::KeyDisabled, true)));
    driven.run(10, Outcome::Good);
    assert_eq!(driven.machine.state(), KeyState::Resuming);
    assert_eq!(driven.machine.until(), Some(first + Policy::default().min_state_interval));
    driven.run(60, Outcome::Good);
    driven.check(KeyState::Active, None);
    let second = *driven.resumed.last().unwrap();
    assert!((60..=66).contains(&(second - first).as_secs()), "{:?}", second - first);
}

/// Scenario: nobody probed for longer than the grace, because the process was stopped. Guarantee: the first good answer does not go on with
/// keys whose time was over.
#[test]
fn a_good_answer_after_the_grace_was_over_loads_keys_anew() {
    let mut driven = Driven::active();
    driven.now += Duration::from_secs(4_000);
    let command = driven.machine.probed(driven.now, driven.now, Outcome::Good);
    assert_eq!(command, Some(Command::Suspend));
    assert_eq!(driven.machine.state(), KeyState::Resuming);
    driven.now += Duration::from_secs(5);
    assert_eq!(driven.machine.probed(driven.now, driven.now, Outcome::Good), Some(Command::Resume));
}

#[test]
fn probes_are_spread_by_a_tenth_and_never_more() {
    let driven = Driven::active();
    let due = driven.machine.next_probe(0.0);
    assert_eq!(driven.machine.next_probe(1.0) - due, Duration::from_secs(2));
    assert_eq!(due - driven.machine.next_probe(-1.0), Duration::from_secs(2));
    assert_eq!(driven.machine.next_probe(9.0) - due, Duration::from_secs(2));
}

#[test]
fn a_resumption_that_fails_is_tried_again() {
    let mut driven = Driven::new();
    assert_eq!(driven.machine.probed(driven.now, driven.now, Outcome::Good), Some(Command::Resume));
    driven.machine.not_resumed(KeyFault::VaultTimedOut);
    driven.check(KeyState::Resuming, Some((KeyFault::VaultTimedOut, false)));
    driven.run(6, Outcome::Good);
    driven.check(KeyState::Active, None);
}
