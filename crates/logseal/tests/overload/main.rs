//! The real binary under more load than it can take: blocking clients, an open burst, and many workspaces.
//!
//! Whatever is offered, an acknowledged record is there, a refusal is one on which every client comes back (`UNAVAILABLE`
//! with `RetryInfo`, in the status' details and in the trailer), what was refused is accepted within a minute, and no
//! workspace starves. Under overload the server must go on taking in nearly as much as it can, in bounded memory; since
//! this is a measurement, the short form prints it only, and the long form asserts it.
//!
//! By default each load takes two seconds and there are 50 workspaces, as continuous integration runs it; in the burst
//! the server's memory budget is small then, so that it has to refuse. The long form, with the server's own settings:
//!
//! ```text
//! LOGSEAL_OVERLOAD_SECONDS=60 cargo test --release --workspace --test overload -- --nocapture
//! ```
//!
//! `LOGSEAL_OVERLOAD_SECONDS` is the length of each load; from 30 on it is the long form. `LOGSEAL_OVERLOAD_TENANTS` is the
//! number of workspaces, 1,000 in the long form, and `LOGSEAL_OVERLOAD_CONNECTIONS` the number of connections that all
//! shippers share. Every five seconds (every second in the short form) a line says how many
//! records were offered, accepted, refused and dropped by their shippers in each second, and how much memory the server
//! had. Load and server share the machine.
//!
//! Clients that mean harm are in `hostile`.

mod bed;
mod client;
mod hostile;
mod load;
mod tenants;
mod watch;

use std::time::Duration;

use logseal_bench::Payload;

use crate::bed::{Bed, Form};
use crate::client::messages;
use crate::load::{Closed, Ran, Tenant};
use crate::watch::{Series, Windows};

/// Blocking clients that saturate two cores with requests of 1,000 records: 16 do, and more change nothing.
const SATURATING: usize = 32;

/// Records a second of a burst, at least: also where the saturated rate is measured too low, as on a machine that is busy.
const BURST: f64 = 2e6;

/// Each workspace that has a request under way all the time gets an acknowledgement in each window of this length, in the
/// short form in each load. A call is held for 5 s at most, then told to come back within 5 s: who is refused at the first
/// attempt has another whole one.
const WINDOW: Duration = Duration::from_secs(15);

/// After a burst the first acknowledgement of the load that follows comes within this time: the burst's last requests are
/// before it in the queue, and a call is held for 5 s at most,
const RECOVERED: Duration = Duration::from_secs(5);

/// and after this time nothing is refused any more: the burst's last resends have come by then.
const CALM: Duration = Duration::from_secs(6);

#[expect(clippy::print_stderr, reason = "who runs the long form wants to see the figures over time")]
pub(crate) fn report(text: &str) {
    eprintln!("{text}");
}

/// Scenario: twice as many blocking clients as saturate the server. Guarantee: nothing that was acknowledged is lost,
/// whatever is refused may come back and gets in, and the server takes in as much as before.
#[test]
fn twice_as_many_blocking_clients_as_saturate_are_all_served() {
    let bed = Bed::new("blocking clients", 0, &[]);
    bed.block_on(async {
        let load = bed.load().await;
        let series = Series::start(&load, bed.server.process_id(), bed.form.line());
        let messages = messages(Payload::A, 1_000, 96);
        let group = Closed { first_tenant: 0, tenants: 1, clients: SATURATING, messages: &messages };
        let saturated = load.closed(&[group], bed.form.load).await;
        let most = saturated.accepted_per_s;
        let first = saturated.finished().await;
        let windows = Windows::start(&load, bed.form.window());
        let overloaded = load.closed(&[Closed { clients: 2 * SATURATING, ..group }], bed.form.load).await;
        let found = windows.end();
        let rate = overloaded.accepted_per_s;
        let second = overloaded.finished().await;
        drop(series);

        bed.require(found.is_fair(), || format!("workspaces starved: {found:?}"));
        bed.check(&load, &[&first, &second], Some((most, rate)));
    });
    bed.end();
}

/// Scenario: requests come at a multiple of the rate that the server can take, from shippers that drop what finds no place
/// in their queues; then at a quarter of that rate. Guarantee: as above, and the load after the burst is accepted at once.
#[test]
fn a_burst_is_refused_politely_and_forgotten_when_it_is_over() {
    // The long form has the payload that takes most memory. In the two seconds of the short one a burst does not fill the
    // server's own budget, and calls would only be held.
    let small = ["ingest.max_request_bytes=4194304", "ingest.memory_budget_bytes=67108864", "ingest.hold_ms=200"];
    let (payload, settings, in_flight): (_, &[_], _) =
        if Form::of_run().is_long { (Payload::B, &[], 512) } else { (Payload::A, &small, 256) };
    let bed = Bed::new("burst", 0, settings);
    bed.block_on(async {
        let load = bed.load().await;
        let series = Series::start(&load, bed.server.process_id(), bed.form.line());
        let messages = messages(payload, 1_000, 48);
        let group = Closed { first_tenant: 0, tenants: 1, clients: SATURATING, messages: &messages };
        let saturated = load.closed(&[group], bed.form.load).await;
        let most = saturated.accepted_per_s;
        let first = saturated.finished().await;
        let burst = load.open(&messages, BURST.max(4.0 * most), in_flight, bed.form.load).await;
        let rate = burst.accepted_per_s;
        let length = bed.form.load.max(CALM + Duration::from_millis(500));
        let normal = load.open(&messages, most / 4.0, in_flight, length).await;
        let after = normal.began;
        let (second, third) = tokio::join!(burst.finished(), normal.finished());
        drop(series);

        let (during, resent) = (second.seen(), second.notes().resent.len());
        let (later, notes) = (third.seen(), third.notes().clone());
        let recovered = notes.first_acknowledgement.map(|first| first - after);
        let refused_until = notes.last_refusal.map(|last| last - after);
        report(&format!(
            "burst: {during:?}\nafter it: {later:?}, first answer {recovered:?}, last refusal {refused_until:?}"
        ));
        bed.require(during.dropped > 0 && resent > 0, || format!("no burst, so nothing was tested: {during:?}"));
        bed.require(later.dropped == 0, || format!("the load after the burst found no place: {later:?}"));
        bed.require(recovered.is_some_and(|time| time < RECOVERED), || format!("first answer after {recovered:?}"));
        bed.require(refused_until.is_none_or(|time| time < CALM), || format!("still refused after {refused_until:?}"));
        bed.check(&load, &[&first, &second, &third], Some((most, rate)));
    });
    bed.end();
}

/// Scenario: many workspaces, each with its own keys and a blocking client, beside one with as many clients as saturate the
/// server twice. Guarantee: as above, and the greedy one starves nobody.
#[test]
fn no_workspace_starves_beside_a_greedy_one() {
    let bed = Bed::new("many workspaces", Form::of_run().tenants, &[]);
    bed.block_on(async {
        let load = bed.load().await;
        let series = Series::start(&load, bed.server.process_id(), bed.form.line());
        let (large, small) = (messages(Payload::A, 1_000, 32), messages(Payload::A, 100, 64));
        let greedy = Closed { first_tenant: 0, tenants: 1, clients: 2 * SATURATING, messages: &large };
        let others = Closed { first_tenant: 1, tenants: bed.form.tenants, clients: 1, messages: &small };
        let windows = Windows::start(&load, bed.form.window());
        let ran = load.closed(&[greedy, others], bed.form.load).await;
        let found = windows.end();
        let Ran { accepted_per_s, .. } = ran;
        let phase = ran.finished().await;
        drop(series);

        let mut answers: Vec<_> = load.tenants.iter().map(Tenant::answers).collect();
        let greedy = answers.remove(0);
        answers.sort_unstable();
        report(&format!(
            "{accepted_per_s:.0} records a second; requests accepted: greedy {greedy}, others {} to {}, median {}; in each \
             window at least {:?}",
            answers[0],
            answers[answers.len() - 1],
            answers[answers.len() / 2],
            found.fewest_answers
        ));
        bed.require(found.is_fair(), || format!("workspaces starved: {found:?}"));
        bed.check(&load, &[&phase], None);
    });
    bed.end();
}
