//! How many refusals are answered as such, and how many are recorded: both in bounded memory, however many peers there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_core::{Bucket, Peer, SteadyClock};

/// Within which what was used comes back.
const WINDOW: Duration = Duration::from_secs(60);

/// Credentials of one peer that may open nothing within the window: a person's errors, and a program's that was given the wrong one and tries
/// it again every few seconds.
const ATTEMPTS: u32 = 20;

/// Records within the window.
const RECORDS: u32 = 10;

/// Peers that are told apart, some 100 bytes each. Further ones share one allowance.
const PEERS: usize = 4_096;

/// Peers and their refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    clock: Arc<dyn SteadyClock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    peers: HashMap<IpAddr, Bucket>,
    /// Of the peers for which there is no room.
    others: Bucket,
    /// When there may be room again, so that nobody makes us look at each request.
    full_until: Duration,
    records: Bucket,
    /// Refusals since the last record.
    untold: u64,
}

impl Refusals {
    pub(crate) fn new(clock: Arc<dyn SteadyClock>) -> Self {
        let now = clock.now();
        let state = State {
            peers: HashMap::new(),
            others: Bucket::full(ATTEMPTS, WINDOW, now),
            full_until: now,
            records: Bucket::full(RECORDS, WINDOW, now),
            untold: 0,
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// Takes one attempt of `peer`'s allowance, or says when there will be one.
    pub(crate) fn attempt(&self, peer: Peer) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut state = self.state();
        let network = peer.network();
        if !state.peers.contains_key(&network) && !state.make_room(now) {
            return state.others.take(now);
        }
        state.peers.entry(network).or_insert_with(|| Bucket::full(ATTEMPTS, WINDOW, now)).take(now)
    }

    /// Counts a refusal. When it may be recorded: how many before it were not.
    pub(crate) fn tell(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut state = self.state();
        if state.records.take(now).is_ok() {
            return Some(std::mem::take(&mut state.untold));
        }
        state.untold = state.untold.saturating_add(1);
        None
    }

    /// The refusals that no record tells of; none afterwards.
    pub(crate) fn untold(&self) -> Option<u64> {
        Some(std::mem::take(&mut self.state().untold)).filter(|untold| *untold > 0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether one more peer can be told apart; forgets those of whom nothing is to be remembered.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.peers.len() < PEERS {
            return true;
        }
        if now < self.full_until {
            return false;
        }
        self.peers.retain(|_, bucket| !bucket.is_full(now));
        self.full_until = now + WINDOW / 10;
        self.peers.len() < PEERS
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing::management::Steady;

    fn peer(number: u32) -> Peer {
        Peer::new((Ipv4Addr::from_bits(number), 1).into())
    }

    fn allowed(refusals: &Refusals, peer: Peer) -> usize {
        (0..1_000).take_while(|_| refusals.attempt(peer).is_ok()).count()
    }

    /// Scenario: one peer goes on and on, another begins. Guarantee: each has its own allowance, and it comes back.
    #[test]
    fn each_peer_has_its_own_allowance() {
        let clock = Arc::<Steady>::default();
        let refusals = Refusals::new(Arc::clone(&clock) as _);
        assert_eq!((allowed(&refusals, peer(1)), allowed(&refusals, peer(2))), (20, 20));
        assert_eq!(refusals.attempt(peer(1)), Err(Duration::from_secs(3)));
        clock.advance(Duration::from_secs(3));
        assert_eq!(allowed(&refusals, peer(1)), 1);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(allowed(&refusals, peer(1)), 20);
    }

    /// Scenario: more peers than are told apart. Guarantee: memory stays bounded, further ones share an allowance and are limited, those that are
    /// known are not affected; when time has gone by there is room again.
    #[test]
    fn peers_beyond_the_bound_share_an_allowance() {
        let clock = Arc::<Steady>::default();
        let refusals = Refusals::new(Arc::clone(&clock) as _);
        for number in 0..4_096 {
            assert!(refusals.attempt(peer(number)).is_ok());
        }
        let further = (10_000..11_000).filter(|number| refusals.attempt(peer(*number)).is_ok()).count();
        assert_eq!(further, 20);
        assert_eq!(refusals.state().peers.len(), 4_096);
        assert_eq!(allowed(&refusals, peer(7)), 19);
        clock.advance(Duration::from_secs(60));
        assert_eq!(allowed(&refusals, peer(20_000)), 20);
        assert!(refusals.state().peers.len() < 10);
    }

    /// Scenario: thousands of refusals. Guarantee: few are recorded, and what the records count comes to all of them.
    #[test]
    fn records_are_few_and_count_the_others() {
        let clock = Arc::<Steady>::default();
        let refusals = Refusals::new(Arc::clone(&clock) as _);
        let recorded = (0..5_000).filter_map(|_| refusals.tell()).count();
        assert_eq!(recorded, 10);
        clock.advance(Duration::from_secs(6));
        assert_eq!(refusals.tell(), Some(4_990));
        assert_eq!((refusals.tell(), refusals.untold(), refusals.untold()), (None, Some(1), None));
    }
}
