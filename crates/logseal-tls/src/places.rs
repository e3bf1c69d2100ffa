//! Places of connections: how many there may be, and which one gives way to a newcomer when all are taken.
//!
//! A limit that only turns newcomers away serves whoever came first: some hundred connections that do nothing, and cost their owner nothing, would
//! keep everybody else out. So at the limit a newcomer takes the place of
//!
//! 1. a connection on which no good credential was ever presented: the oldest one of the network that has most of these; or
//! 2. when those are few, one that was not used for five seconds and has nothing under way: the one that was not used for longest, of the network
//!    that has most of these.
//!
//! Only when there is neither is the newcomer turned away. A client that presents its key with its first request is thus safe from a flood of
//! strangers as soon as that request is looked at, and before that it gives way to as many newcomers as there are places of strangers, or, if
//! the flood comes from other networks, not at all.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logseal_core::{Peer, Standing};
use metrics::Counter;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// How long a connection of a client that proved something was not used, at least, when it gives way. Shippers send more often, so that those
/// which lose theirs to a newcomer are such as come rarely, and can come again.
const IDLE: Duration = Duration::from_secs(5);

/// How many places strangers find before those who proved something give way: an eighth. Over so many the newcomers of a flood are spread, and
/// each has so many arrivals' time to present its key.
const STRANGERS: usize = 8;

/// How often it is looked whether connections that were in use can give way by now.
const LOOK: Duration = Duration::from_secs(1);

/// Places of connections.
#[derive(Debug)]
pub struct Places {
    most: usize,
    began: Instant,
    taken: Mutex<Table>,
    freed: Notify,
    evicted: Counter,
}

impl Places {
    /// `most` places; `evicted` counts connections that gave way.
    #[must_use]
    pub fn new(most: usize, evicted: Counter) -> Arc<Self> {
        let (began, taken) = (Instant::now(), Mutex::default());
        Arc::new(Self { most, began, taken, freed: Notify::new(), evicted })
    }

    /// A place for a connection of `peer`, of a connection that gives way if need be; `None` when none can.
    #[must_use = "dropping it gives the place back"]
    pub fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut table = self.table();
        if table.taken.len() >= self.most {
            let victim = table.victim(self.most, self.began.elapsed())?;
            // Its end is the end of what it waits on.
            table.taken.remove(&victim);
            self.evicted.increment(1);
        }
        let id = table.next;
        table.next += 1;
        let seat = Seat { standing: Standing::default(), activity: Arc::new(Activity::new(self.began)) };
        let (stays, goes) = watch::channel(());
        table.taken.insert(id, Taken { network: peer.network(), seat: seat.clone(), _stays: stays });
        drop(table);
        Some(Place { places: Arc::clone(self), id, seat, goes })
    }

    /// As [`Places::take`], but waits until there is one.
    pub async fn wait(self: &Arc<Self>, peer: Peer) -> Place {
        loop {
            if let Some(place) = self.take(peer) {
                return place;
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Places that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.most.saturating_sub(self.table().taken.len())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// In the order in which they came.
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    network: IpAddr,
    seat: Seat,
    _stays: watch::Sender<()>,
}

impl Table {
    /// Who gives way at `now`. It looks at all of them, which takes microseconds for some hundred, and is done only for newcomers at the limit.
    fn victim(&self, most: usize, now: Duration) -> Option<u64> {
        let (proven, strangers): (Vec<_>, Vec<_>) =
            self.taken.iter().partition(|(_, taken)| taken.seat.standing.is_proven());
        let unused = || {
            let unused = proven.iter().filter_map(|(id, taken)| {
                let since = taken.seat.activity.idle_since()?;
                (now.saturating_sub(since) >= IDLE).then_some((taken.network, (since, **id)))
            });
            first_of_largest(unused).map(|(_, id)| id)
        };
        let oldest = || first_of_largest(strangers.iter().map(|(id, taken)| (taken.network, **id)));
        if strangers.len() < most.div_ceil(STRANGERS) { unused().or_else(oldest) } else { oldest() }
    }
}

/// The smallest of what the network has that has most; between networks that have as many, the smallest of all.
fn first_of_largest<T: Copy + Ord>(all: impl Iterator<Item = (IpAddr, T)>) -> Option<T> {
    let mut networks: HashMap<IpAddr, (usize, T)> = HashMap::new();
    for (network, item) in all {
        let (count, first) = networks.entry(network).or_insert((0, item));
        *count += 1;
        *first = item.min(*first);
    }
    networks.into_values().min_by_key(|(count, first)| (std::cmp::Reverse(*count), *first)).map(|(_, first)| first)
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
    seat: Seat,
    goes: watch::Receiver<()>,
}

impl Place {
    /// What is known of the connection.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Ends when the connection has to give way: it then has no place any more, and is to be ended at once.
    pub fn given_away(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut goes = self.goes.clone();
        async move {
            // Nothing is ever sent: what can change is that the other end is gone.
            let _ = goes.changed().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.table().taken.remove(&self.id).is_some() {
            self.places.freed.notify_one();
        }
    }
}

/// What is known of a connection, for those who serve its requests.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    standing: Standing,
    activity: Arc<Activity>,
}

impl Seat {
    /// Whether its client proved anything.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// A request that begins; it ends when this is dropped, also when its client is gone.
    #[must_use = "dropping it ends the request"]
    pub fn call(&self) -> Call {
        self.activity.begun.fetch_add(1, Relaxed);
        Call(Arc::clone(&self.activity))
    }

    /// Requests that have begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.activity.begun.load(Relaxed)
    }

    /// Whether nothing is under way, and nothing began after `begun` requests had.
    #[must_use]
    pub fn is_idle_since(&self, begun: u64) -> bool {
        let ended = self.activity.ended.load(Relaxed);
        self.begun() == begun && ended == begun
    }
}

/// What happens on a connection.
#[derive(Debug)]
struct Activity {
    /// What times are counted from.
    epoch: Instant,
    begun: AtomicU64,
    ended: AtomicU64,
    /// When the last request ended, or the connection began, in milliseconds.
    last: AtomicU64,
}

impl Activity {
    fn new(epoch: Instant) -> Self {
        let last = AtomicU64::new(milliseconds(epoch));
        Self { epoch, begun: AtomicU64::new(0), ended: AtomicU64::new(0), last }
    }

    /// Since when nothing is under way, if that is so.
    fn idle_since(&self) -> Option<Duration> {
        let ended = self.ended.load(Relaxed);
        (self.begun.load(Relaxed) == ended).then(|| Duration::from_millis(self.last.load(Relaxed)))
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A request under way.
#[derive(Debug)]
pub struct Call(Arc<Activity>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.last.store(milliseconds(self.0.epoch), Relaxed);
        self.0.ended.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(network: u32) -> Peer {
        Peer::new((Ipv4Addr::from_bits(network), 1).into())
    }

    fn places(most: usize) -> Arc<Places> {
        Places::new(most, Counter::noop())
    }

    fn is_given_away(place: &Place) -> bool {
        place.goes.has_changed().is_err()
    }

    fn proven(places: &Arc<Places>, network: u32) -> Place {
        let place = places.take(peer(network)).expect("a place");
        drop(place.seat().call());
        place.seat().standing().prove();
        place
    }

    /// Scenario: all places are taken by connections that proved nothing, most of them of one network. Guarantee: newcomers take the places of that
    /// network, the oldest first, and other networks' stay as long as they have fewer.
    #[test]
    fn strangers_of_the_network_with_most_of_them_give_way_first() {
        let places = places(6);
        let other = places.take(peer(2)).expect("a place");
        let flood: Vec<_> = (0..5).map(|_| places.take(peer(1)).expect("a place")).collect();
        let newcomers: Vec<_> = [2, 3, 1].map(|network| places.take(peer(network)).expect("a stranger's place")).into();
        let gone: Vec<_> = flood.iter().map(is_given_away).collect();
        assert_eq!(gone, [true, true, true, false, false]);
        assert!(!is_given_away(&other) && !newcomers.iter().any(is_given_away));
        assert_eq!(places.free(), 0);
        drop((flood, other));
        assert_eq!(places.free(), 3, "who had none any more gives none back");
    }

    /// Scenario: all places but one belong to clients that proved something; strangers come without end. Guarantee: they have that one place among
    /// them, and the newest of them has it.
    #[test]
    fn who_proved_something_stays_through_a_flood() {
        let places = places(4);
        let served: Vec<_> = (0..3).map(|_| proven(&places, 1)).collect();
        let mut last = places.take(peer(1)).expect("a place");
        for _ in 0..1_000 {
            let next = places.take(peer(1)).expect("the place of the one before");
            assert!(is_given_away(&last) && !is_given_away(&next));
            last = next;
        }
        assert!(!served.iter().any(is_given_away));
    }

    /// Scenario: all places belong to clients that proved something and are in use, or were a moment ago; later one of them was not used for a
    /// while. Guarantee: a newcomer is turned away, then takes that one's place; a request under way keeps its place however long it takes.
    #[test]
    fn connections_in_use_turn_newcomers_away_and_unused_ones_give_way() {
        let places = places(2);
        let (busy, idle) = (proven(&places, 1), proven(&places, 1));
        assert!(places.take(peer(2)).is_none(), "both were used a moment ago");
        let call = busy.seat().call();
        let later = places.began.elapsed() + IDLE;
        assert_eq!(places.table().victim(2, later), Some(idle.id));
        drop(idle);
        let stranger = places.take(peer(2)).expect("a place");
        assert_eq!(places.table().victim(2, later), Some(stranger.id));
        drop((call, stranger));
        assert_eq!(places.table().victim(2, later + IDLE), Some(busy.id), "what has ended protects no more");
    }

    /// Scenario: strangers have a few of many places, the others are those of clients that proved something and left long ago. Guarantee: newcomers
    /// take unused places until strangers have their share, then strangers' own.
    #[test]
    fn strangers_get_a_share_of_unused_places_and_no_more() {
        let places = places(16);
        let served: Vec<_> = (0..15).map(|_| proven(&places, 1)).collect();
        let first = places.take(peer(2)).expect("a place");
        let later = places.began.elapsed() + IDLE;
        assert_eq!(places.table().victim(16, later), Some(served[0].id));
        drop(served);
        let served: Vec<_> = (0..14).map(|_| proven(&places, 1)).collect();
        let second = places.take(peer(3)).expect("a place");
        assert_eq!(places.table().victim(16, later + IDLE), Some(first.id));
        assert!(!served.iter().chain([&second]).any(is_given_away));
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_is_given_back() {
        let places = places(1);
        let busy = proven(&places, 1);
        let waits = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.wait(peer(2)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let given_away = busy.given_away();
        drop(busy);
        given_away.await;
        drop(waits.await.expect("no panic"));
        assert_eq!(places.free(), 1);
    }
}
