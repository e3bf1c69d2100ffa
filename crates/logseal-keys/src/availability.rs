//! Whether a cluster's keys may be used: a state machine over what the key vault answers. No I/O, no clock.
//!
//! ```text
//!                good                        trouble, or a first refusal
//!   +----------+ ----> +--------+ -----------------------------------------> +----------+
//!   | Resuming |       | Active | <----------------------------------------- | Degraded |
//!   +----------+       +--------+                   good                     +----------+
//!     ^      |             |                                                   |
//!     |      |             | second refusal, at least 10 s after the first     | the same, or the grace is over
//!     |      |             v                                                   v
//!     |      |         +---------------------------------------------------------+
//!     |      +-------> |                         Revoked                         |
//!     |  two refusals  +---------------------------------------------------------+
//!     |                    |
//!     +--------------------+  good (held back as long as the last resumption is too recent)
//! ```
//!
//! * A *refusal* is the vault's own word that the key may not be used (see [`VaultErrorClass`]). Two of them, at least
//!   [`Policy::confirmation`] apart and with no success between, revoke. Everything else is a *trouble*: the keys in memory serve on until
//!   [`Policy::grace`] after the last good unwrap.
//! * A start begins in Resuming: nothing is in memory yet. Service begins with the first good unwrap. Of a cluster that was Revoked before, this
//!   is a resumption like others.
//! * Revoked ends with the first good unwrap: the shell is told to resume, and says when it has. A further resumption comes no sooner than
//!   [`Policy::min_state_interval`] after the one before; the first one, and revocations, are never held back.
//!
//! Times are those of a [`SteadyClock`](logseal_core::SteadyClock).

use std::time::Duration;

use logseal_vault::VaultErrorClass;

use crate::fault::KeyFault;

/// Times of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Between two probes of a cluster that is Active.
    pub probe: Duration,
    /// Between two probes of another one.
    pub probe_again: Duration,
    /// Between two refusals that revoke together, at least.
    pub confirmation: Duration,
    /// How long keys in memory serve after the last good unwrap.
    pub grace: Duration,
    /// From one resumption to the next, at least.
    pub min_state_interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            // A change is noticed within this time, a tenth more, a call's 5 s, the confirmation and another call: 42 s.
            probe: Duration::from_secs(20),
            probe_again: Duration::from_secs(5),
            // Key Vault refuses a moment after a grant was made; nobody loses his keys for one such answer.
            confirmation: Duration::from_secs(10),
            grace: Duration::from_secs(3_600),
            min_state_interval: Duration::from_secs(60),
        }
    }
}

/// The state of a cluster's keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyState {
    /// The last unwrap was good.
    Active,
    /// Keys serve, but the last unwrap was not good.
    Degraded,
    /// Nothing serves.
    Revoked,
    /// Nothing serves yet: keys are being unwrapped, or wait for their first good unwrap.
    Resuming,
}

impl KeyState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Degraded => "Degraded",
            Self::Revoked => "Revoked",
            Self::Resuming => "Resuming",
        }
    }

    /// Whether keys in memory may be used.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Degraded)
    }
}

/// Why a cluster does not serve, or is about to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cause {
    /// What is wrong.
    pub fault: KeyFault,
    /// The vault itself said so, and said it again; otherwise it was out of reach for too long, and serving goes on by itself later.
    pub definitive: bool,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The vault unwrapped the right key.
    Good,
    /// It did not.
    Failed(KeyFault, VaultErrorClass),
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Stop all use of the cluster's keys and wipe them.
    Suspend,
    /// Load the cluster's keys and go on, then say [`Availability::resumed`] or [`Availability::not_resumed`].
    Resume,
}

/// The machine of one cluster.
#[derive(Clone, Debug)]
pub struct Availability {
    policy: Policy,
    state: KeyState,
    since: Duration,
    /// When the last good unwrap was asked for.
    good: Option<Duration>,
    /// The first refusal since then.
    refused: Option<Duration>,
    cause: Option<Cause>,
    resumed: Option<Duration>,
    was_active: bool,
    next_probe: Duration,
}

impl Availability {
    /// A cluster at a start.
    #[must_use]
    pub fn new(policy: Policy, now: Duration) -> Self {
        Self {
            policy,
            state: KeyState::Resuming,
            since: now,
            good: None,
            refused: None,
            cause: Some(Cause { fault: KeyFault::NotYetUnwrapped, definitive: false }),
            resumed: None,
            was_active: false,
            next_probe: now,
        }
    }

    /// The cluster was Revoked when the last life of this process ended; `resumed` is when it last resumed before that.
    pub fn was_revoked(&mut self, resumed: Option<Duration>) {
        (self.was_active, self.resumed) = (true, resumed);
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.state
    }

    /// Since when it is in that state.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Why it is not Active.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Until when the state lasts if nothing changes: a Degraded cluster's keys serve until then; a Resuming one is held back until then.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        match self.state {
            KeyState::Degraded => self.lease_end(),
            KeyState::Resuming => self.held_until(),
            KeyState::Active | KeyState::Revoked => None,
        }
    }

    /// Until when keys may be used.
    #[must_use]
    pub fn lease_end(&self) -> Option<Duration> {
        self.good.map(|good| good.saturating_add(self.policy.grace))
    }

    /// When the next probe is due. `jitter` between -1 and 1 spreads the probes of many clusters by a tenth.
    #[must_use]
    pub fn next_probe(&self, jitter: f64) -> Duration {
        let tenth = self.policy.probe.mul_f64(0.1 * jitter.abs().min(1.0));
        match self.state {
            KeyState::Active if jitter < 0.0 => self.next_probe.saturating_sub(tenth),
            KeyState::Active => self.next_probe.saturating_add(tenth),
            _ => self.next_probe,
        }
    }

    /// A probe is due at once: something about the key was changed.
    pub fn probe_now(&mut self, now: Duration) {
        self.next_probe = now;
    }

    /// A probe was asked for at `asked` and answered at `answered`.
    pub fn probed(&mut self, asked: Duration, answered: Duration, outcome: Outcome) -> Option<Command> {
        let overdue = self.passed(answered);
        let command = match outcome {
            Outcome::Good => self.found_good(asked, answered),
            Outcome::Failed(fault, class) => self.found_bad(answered, fault, class),
        };
        self.next_probe = match (self.state, self.refused) {
            (KeyState::Active, _) => answered + self.policy.probe,
            // Not before it can confirm the first one, and not later.
            (KeyState::Degraded | KeyState::Resuming, Some(first)) if first + self.policy.confirmation > answered => {
                (answered + self.policy.probe_again).max(first + self.policy.confirmation)
            }
            _ => answered + self.policy.probe_again,
        };
        overdue.or(command)
    }

    /// Time passed: the grace may be over.
    pub fn passed(&mut self, now: Duration) -> Option<Command> {
        let over = self.state.serves() && self.lease_end().is_none_or(|end| now >= end);
        over.then(|| {
            let fault = self.cause.map_or(KeyFault::VaultUnreachable, |cause| cause.fault);
            self.revoke(now, Cause { fault, definitive: false })
        })
    }

    /// The shell has done what [`Command::Resume`] asked for.
    pub fn resumed(&mut self, now: Duration) {
        if self.state == KeyState::Resuming {
            self.enter(KeyState::Active, now);
            self.cause = None;
            // A start is no resumption.
            self.resumed = self.was_active.then_some(now).or(self.resumed);
            self.was_active = true;
            self.next_probe = now + self.policy.probe;
        }
    }

    /// The shell could not do it: it is told again after the next good probe.
    pub fn not_resumed(&mut self, fault: KeyFault) {
        if self.state == KeyState::Resuming {
            self.cause = Some(Cause { fault, definitive: false });
        }
    }

    fn found_good(&mut self, asked: Duration, now: Duration) -> Option<Command> {
        self.refused = None;
        self.good = self.good.max(Some(asked));
        match self.state {
            KeyState::Active => None,
            KeyState::Degraded => {
                self.enter(KeyState::Active, now);
                self.cause = None;
                None
            }
            KeyState::Revoked | KeyState::Resuming => {
                if self.state == KeyState::Revoked {
                    self.enter(KeyState::Resuming, now);
                }
                self.held_until().is_none_or(|end| now >= end).then_some(Command::Resume)
            }
        }
    }

    fn found_bad(&mut self, now: Duration, fault: KeyFault, class: VaultErrorClass) -> Option<Command> {
        let refusal = class == VaultErrorClass::Refusal;
        let confirmed =
            refusal && self.refused.is_some_and(|first| now.saturating_sub(first) >= self.policy.confirmation);
        if refusal {
            self.refused.get_or_insert(now);
        }
        let is_definitive = self.cause.is_some_and(|cause| cause.definitive);
        match self.state {
            KeyState::Revoked => {
                // What the vault said for itself stays until it says something else for itself.
                if confirmed || !is_definitive {
                    self.cause = Some(Cause { fault, definitive: confirmed });
                }
                None
            }
            _ if confirmed => {
                let served = self.state.serves();
                let command = self.revoke(now, Cause { fault, definitive: true });
                served.then_some(command)
            }
            KeyState::Active => {
                self.enter(KeyState::Degraded, now);
                self.cause = Some(Cause { fault, definitive: false });
                None
            }
            KeyState::Degraded | KeyState::Resuming => {
                self.cause = Some(Cause { fault, definitive: false });
                None
            }
        }
    }

    fn revoke(&mut self, now: Duration, cause: Cause) -> Command {
        self.enter(KeyState::Revoked, now);
        self.cause = Some(cause);
        self.good = None;
        Command::Suspend
    }

    fn held_until(&self) -> Option<Duration> {
        self.resumed.map(|resumed| resumed + self.policy.min_state_interval)
    }

    fn enter(&mut self, state: KeyState, now: Duration) {
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests;
