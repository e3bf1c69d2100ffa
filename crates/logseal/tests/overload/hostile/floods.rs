//! Floods of frames on one connection of HTTP/2, each ended by GOAWAY or without any effect.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::others::Others;
use super::wire::{
    ACK, Attacker, CALM, CONTINUATION, DATA, END_HEADERS, END_STREAM, Ending, HEADERS, NEWEST, PING, PREFACE,
    RST_STREAM, SETTINGS, frame, frames, header, kept_header,
};
use super::{ENDED, EXPORT, Target, check, wire};
use crate::bed::Bed;
use crate::report;

/// Rounds of a flood, each one write. All are far more than any bound.
const ROUNDS: u32 = 200;

/// Connections that each flood is tried on, one after the other.
const AGAIN: usize = 5;

/// Rounds of frames whose answers are not read: more than the buffers of both sockets take.
const UNREAD: u32 = 8_000;

/// At most a hundred streams of the server's: what it is told does not matter.
const STREAMS: &[u8] = &[0, 3, 0, 0, 0, 100];

/// A flood.
struct Flood {
    name: &'static str,
    /// What it begins with, after the preface.
    begin: fn(&Target) -> Vec<u8>,
    /// One round of it.
    round: fn(&Target, u32) -> Vec<u8>,
}

/// Streams of round `round`, a hundred each.
fn streams(round: u32) -> impl Iterator<Item = u32> {
    (0..100).map(move |number| 2 * (100 * round + number) + 1)
}

const FLOODS: &[Flood] = &[
    // CVE-2023-44487.
    Flood {
        name: "rapid reset",
        begin: |_| Vec::new(),
        round: |target, round| {
            let head = target.head(false);
            let cancel = 8_u32.to_be_bytes();
            let pair = |stream| [frame(HEADERS, END_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &cancel)];
            streams(round).flat_map(pair).flatten().collect()
        },
    },
    // CVE-2024-27316 and its like.
    Flood {
        name: "CONTINUATION",
        begin: |target| frame(HEADERS, 0, 1, &target.head(false)),
        round: |_, _| frame(CONTINUATION, 0, 1, &header("a", "b")).repeat(100),
    },
    // CVE-2019-9518.
    Flood {
        name: "empty DATA",
        begin: |target| frame(HEADERS, END_HEADERS, 1, &target.head(true)),
        round: |_, _| frame(DATA, 0, 1, b"").repeat(100),
    },
    Flood {
        name: "a header table that is referred to again and again",
        begin: |target| {
            let bomb = [target.head(false), kept_header("bomb", &"x".repeat(3_900)), vec![NEWEST; 12_000]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)
        },
        round: |_, _| Vec::new(),
    },
    Flood {
        name: "more streams than there may be",
        begin: |_| Vec::new(),
        round: |target, round| {
            let head = target.head(true);
            streams(round).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &head)).collect()
        },
    },
];

/// Scenario: each flood at each listener, some connections one after the other, while others ship. Guarantee: the server ends each of these connections,
/// by `ENHANCE_YOUR_CALM` where that can be read, and no other one.
#[test]
fn hostile_floods_of_frames_end_their_own_connection() {
    let bed = Bed::new("hostile floods", 0, &[]);
    bed.block_on(async {
        for flood in FLOODS {
            let others = Others::start(&bed).await;
            for target in &Target::all(&bed.server) {
                let attack = format!("{}, {}", flood.name, target.name);
                let mut endings = Vec::new();
                for _ in 0..AGAIN {
                    endings.push(run(flood, target).await);
                }
                report(&format!("{attack}: {endings:?}"));
                let is_ended = |ending: &Ending| matches!(ending, Ending::GoAway(CALM) | Ending::Closed);
                bed.require(endings.iter().all(is_ended), || format!("{attack}: {endings:?}"));
            }
            others.end(&bed, flood.name).await;
            check(&bed, flood.name);
        }
    });
    bed.end();
}

async fn run(flood: &Flood, target: &Target) -> Ending {
    let mut attacker = Attacker::connect(target.address).await.expect("a place");
    let begun = [PREFACE, &(flood.begin)(target)].concat();
    let mut goes_on = attacker.send(&begun).await;
    for round in 0..ROUNDS {
        if !goes_on {
            break;
        }
        goes_on = attacker.send(&(flood.round)(target, round)).await;
    }
    attacker.ending(ENDED).await
}

/// Scenario: at each listener a client sends PINGs as fast as they are answered, and reads the answers. Guarantee: they are answered, as many as it may send at
/// once and then at the rate that it may, so that a flood of them takes next to nothing of a core.
#[test]
fn hostile_frames_without_a_request_come_at_a_rate() {
    /// What `logseal-tls::paced` lets a client send at once, and in each second; and what may come in a read beyond it, and come in late.
    const AT_ONCE: usize = 4_096;
    const EACH_SECOND: f64 = 2_000.0;
    const BEYOND: usize = 10_000;
    const SENT: usize = 60_000;
    let bed = Bed::new("hostile rates", 0, &[]);
    bed.block_on(async {
        let others = Others::start(&bed).await;
        let mut floods = JoinSet::new();
        for target in Target::all(&bed.server) {
            floods.spawn(async move {
                let mut attacker = Attacker::connect(target.address).await.expect("a place");
                let (began, round) = (Instant::now(), frame(PING, 0, 0, b"12345678").repeat(1_000));
                let mut goes_on = attacker.send(PREFACE).await;
                let mut rest = Vec::new();
                for _ in 0..SENT / 1_000 {
                    goes_on = goes_on && attacker.send(&round).await;
                    rest.extend(attacker.read_until(Duration::from_millis(20), |_| false).await.0);
                }
                let answered = frames(&rest).iter().filter(|(kind, ..)| *kind == PING).count();
                (target.name, answered, began.elapsed(), attacker.is_open())
            });
        }
        while let Some(flood) = floods.join_next().await {
            let (target, answered, took, is_open) = flood.expect("it does not panic");
            report(&format!("PING, {target}: {answered} of {SENT} answered in {took:?}"));
            let most = AT_ONCE + (EACH_SECOND * took.as_secs_f64()) as usize + BEYOND;
            bed.require(answered <= most, || format!("{target}: {answered} were answered in {took:?}"));
            bed.require(answered >= AT_ONCE, || format!("{target}: only {answered} were answered"));
            bed.require(is_open, || format!("{target}: the connection was ended"));
        }
        others.end(&bed, "PING at a rate").await;
        check(&bed, "PING at a rate");
    });
    bed.end();
}

/// Scenario: frames that call for answers, which are not read, and streams of health checks whose messages do not end. HTTP/2 has no number of them that is
/// too high. Guarantee: they take the server's time, but no memory beyond what a connection may have, and others go on.
#[test]
fn hostile_frames_without_a_bound_take_no_memory() {
    let bed = Bed::new("hostile frames", 0, &[]);
    bed.block_on(async {
        let others = Others::start(&bed).await;
        let mut floods = JoinSet::new();
        for (name, flood) in [("PING", frame(PING, 0, 0, b"12345678")), ("SETTINGS", frame(SETTINGS, 0, 0, STREAMS))] {
            for target in Target::all(&bed.server) {
                let flood = flood.repeat(500);
                floods.spawn(async move {
                    let mut attacker = Attacker::connect(target.address).await.expect("a place");
                    let mut goes_on = attacker.send(PREFACE).await;
                    for _ in 0..UNREAD {
                        goes_on = goes_on && attacker.send(&flood).await;
                    }
                    (goes_on, format!("{name}, {}", target.name))
                });
            }
        }
        while let Some(flood) = floods.join_next().await {
            let (all_taken, attack) = flood.expect("it does not panic");
            // A server that does not get rid of its answers reads no more, or ends the connection.
            bed.require(!all_taken, || format!("{attack}: all of it was taken"));
        }
        others.end(&bed, "PING and SETTINGS").await;
        check(&bed, "PING and SETTINGS");

        // Answers to what was never asked, of each of which a library would tell in the log.
        let mut attacker = Attacker::connect(Target::all(&bed.server)[0].address).await.expect("a place");
        let answers = frame(PING, ACK, 0, b"12345678").repeat(10_000);
        bed.require(attacker.send(&[PREFACE, &answers].concat()).await, || "answers to PING: not taken".to_owned());
        let asked = frame(PING, 0, 0, b"12345678");
        let (read, _) = {
            attacker.send(&asked).await;
            attacker.read_until(ENDED, |read| frames(read).iter().any(|(kind, ..)| *kind == PING)).await
        };
        bed.require(frames(&read).iter().any(|(kind, ..)| *kind == PING), || "answers to PING: not read".to_owned());
        check(&bed, "answers to PING");

        let others = Others::start(&bed).await;
        let [grpc, ..] = Target::all(&bed.server);
        let mut held = Vec::new();
        for path in ["/grpc.health.v1.Health/Check", EXPORT] {
            let head = wire::head(path, "application/grpc", None);
            // 4 KiB are announced, and not all of them come: all streams together have less than the window that a connection begins with.
            let message = [&[0, 0, 0, 16, 0][..], &[b'x'; 200]].concat();
            for _ in 0..20 {
                let mut attacker = Attacker::connect(grpc.address).await.expect("a place");
                let mut all = PREFACE.to_vec();
                for stream in (1..512).step_by(2) {
                    all.extend(frame(HEADERS, END_HEADERS, stream, &head));
                    all.extend(frame(DATA, 0, stream, &message));
                }
                attacker.send(&all).await;
                held.push(attacker);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        others.end(&bed, "health checks that do not end").await;
        check(&bed, "health checks that do not end");
        drop(held);
    });
    bed.end();
}
