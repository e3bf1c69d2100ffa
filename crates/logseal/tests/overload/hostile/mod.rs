//! Clients that mean harm, at each listener, by plain sockets and by frames that no library would send. Whatever they do, the server stays up in bounded
//! memory, others are served meanwhile, and what does harm is ended.
//!
//! Each attack is as long as it takes to be ended, or some seconds. By default there are as many connections as an ordinary limit of open
//! files admits; many more, with the times of others beside them:
//!
//! ```text
//! ulimit -n 65536; LOGSEAL_HOSTILE_CONNECTIONS=10000 cargo test --release --workspace --test overload hostile -- --nocapture
//! ```

mod floods;
mod others;
mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use logseal_testkit::Server;
use logseal_testkit::server::Memory;

use self::others::Others;
use self::wire::{Attacker, DATA, END_HEADERS, HEADERS, PREFACE, frame, frames, head};
use crate::bed::Bed;
use crate::report;

/// Largest resident memory of the server in all these scenarios: what it takes after a start, the rows of the others, and a half of the memory
/// budget once more.
const MEMORY: u64 = 384 * 1024 * 1024;

/// Largest log: a start takes a few kilobytes, and nobody may write into it at will.
const LOG: usize = 64 * 1024;

/// Within this time the server ends a connection that did harm.
const ENDED: Duration = Duration::from_secs(10);

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A listener, and a request that it takes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    path: &'static str,
    content_type: &'static str,
    credential: String,
}

impl Target {
    fn all(server: &Server) -> [Self; 3] {
        let at = |endpoint: &str| {
            endpoint.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address")
        };
        let key = server.workspace_key();
        let target = |name, endpoint, path, content_type, credential: &str| Self {
            name,
            address: at(endpoint),
            path,
            content_type,
            credential: credential.to_owned(),
        };
        let management = server.credential("/endpoints/management");
        let token = server.credential("/managementToken");
        [
            target("OTLP/gRPC", server.otlp_grpc(), EXPORT, "application/grpc", key),
            target("OTLP/HTTP", server.otlp_http(), "/v1/logs", "application/x-protobuf", key),
            target("management", management, "/v1/workspaces/default/query", "application/json", token),
        ]
    }

    /// The head of its request, without a body so far.
    pub(crate) fn head(&self, has_credential: bool) -> Vec<u8> {
        head(self.path, self.content_type, has_credential.then_some(self.credential.as_str()))
    }
}

/// What must hold after each attack.
fn check(bed: &Bed, attack: &str) {
    let memory = Memory::of(bed.server.process_id());
    let peak = memory.map_or(0, |memory| memory.peak);
    report(&format!("{attack}: peak memory {} MiB", peak >> 20));
    bed.require(memory.is_some(), || format!("{attack}: the server is gone"));
    bed.require(peak <= MEMORY, || format!("{attack}: it took {} MiB", peak >> 20));
    let log = bed.server.log().len();
    bed.require(log <= LOG, || format!("{attack}: the log has {log} bytes"));
}

/// How many connections one attack makes.
fn connections() -> usize {
    let number = std::env::var("LOGSEAL_HOSTILE_CONNECTIONS").ok();
    number.map_or(300, |number| number.parse().expect("a number"))
}

/// Makes `count` connections, each of which sends `first` and then nothing; one that is ended is made again, for as long as `load` says. Returns
/// how many are open in the end, once they are no more than `most` or the time for that is over.
async fn hold(address: SocketAddr, count: usize, first: &[u8], load: Duration, most: usize) -> usize {
    let (began, mut held) = (Instant::now(), Vec::with_capacity(count));
    while began.elapsed() < load {
        if held.len() == count {
            let ended = held.len();
            held.retain(Attacker::is_open);
            if ended == held.len() {
                // The others share this process.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        }
        // At its limit the server may close a connection before it was written to.
        if let Ok(mut attacker) = Attacker::connect(address).await
            && attacker.send(first).await
        {
            held.push(attacker);
        }
    }
    // What the server has ended is known here a little later.
    let (began, open) = (Instant::now(), || held.iter().filter(|attacker| attacker.is_open()).count());
    while open() > most && began.elapsed() < ENDED {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open()
}

/// Scenario: at each listener many more connections than there may be, which send nothing, a preface alone, or a head that does not end; each that
/// is ended is made again at once. Guarantee: there are never more than the limit, a shipper keeps its connection, and newcomers find a
/// place each time.
#[test]
fn hostile_connections_that_ask_for_nothing_keep_nobody_out() {
    const MOST: usize = 64;
    const SLOW_HEAD: &[u8] = b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    let bed = Bed::new("hostile connections", 0, &[&format!("ingest.max_connections={MOST}")]);
    bed.block_on(async {
        let [grpc, http, management] = Target::all(&bed.server);
        for (attack, target, first, most) in [
            ("silent", &grpc, &b""[..], MOST),
            ("only a preface", &grpc, PREFACE, MOST),
            ("silent", &http, b"", MOST),
            ("a slow head", &http, SLOW_HEAD, MOST),
            ("a slow head", &management, SLOW_HEAD, 256),
        ] {
            let attack = format!("{attack}, {}", target.name);
            let others = Others::start(&bed).await;
            let queries = tokio::spawn(queries(bed.server.credential("/endpoints/management").to_owned()));
            let open = hold(target.address, connections(), first, Duration::from_millis(1_500), most).await;
            report(&format!("{attack}: {open} of {} connections open in the end", connections()));
            bed.require(open <= most, || format!("{attack}: {open} connections are open"));
            let slowest = queries.await.expect("it does not panic");
            bed.require(slowest.is_some_and(|slowest| slowest < ENDED), || {
                format!("{attack}: the management API was not there for others: {slowest:?}")
            });
            others.end(&bed, &attack).await;
            check(&bed, &attack);
        }
    });
    bed.end();
}

/// Asks whether the management API is there, on ten connections; the slowest answer, if all were answered.
async fn queries(endpoint: String) -> Option<Duration> {
    let address: SocketAddr = endpoint.strip_prefix("http://")?.parse().ok()?;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let began = Instant::now();
        let mut client = Attacker::connect_from_here(address).await.ok()?;
        if !client.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await {
            return None;
        }
        let (answer, _) = client.read_until(ENDED, |read| read.starts_with(b"HTTP/1.1 200 ")).await;
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return None;
        }
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Some(slowest)
}

/// Scenario: clients with a good key announce bodies and send a byte of them now and then, over gRPC and over HTTP/1.1. Guarantee: each is refused
/// when the time for its body is over, with an answer on which it would come back; others are served meanwhile.
#[test]
fn hostile_bodies_that_trickle_are_cut_off() {
    const CLIENTS: usize = 100;
    const ANNOUNCED: u32 = 10_000;
    let bed = Bed::new("hostile bodies", 0, &["ingest.body_read_ms=500"]);
    bed.block_on(async {
        let [grpc, http, _] = Target::all(&bed.server);
        let others = Others::start(&bed).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let attacker = Attacker::connect(grpc.address).await.expect("a place");
            let length = [&[0][..], &ANNOUNCED.to_be_bytes()].concat();
            let head = frame(HEADERS, END_HEADERS, 1, &grpc.head(true));
            let begun = [PREFACE, &head, &frame(DATA, 0, 1, &length)].concat();
            clients.push(tokio::spawn(trickle(begin(attacker, &begun).await, frame(DATA, 0, 1, b"x"), |read| {
                frames(read).iter().any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1))
            })));
            let attacker = Attacker::connect(http.address).await.expect("a place");
            let begun = format!(
                "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\nauthorization: Bearer {}\r\ncontent-length: {ANNOUNCED}\r\n\r\n",
                http.path, http.content_type, http.credential
            );
            clients.push(tokio::spawn(trickle(begin(attacker, begun.as_bytes()).await, b"x".to_vec(), |read| {
                read.starts_with(b"HTTP/1.1 503 ")
            })));
        }
        let mut answered = 0;
        for client in clients {
            answered += usize::from(client.await.expect("it does not panic"));
        }
        others.end(&bed, "bodies that trickle").await;
        bed.require(answered == 2 * CLIENTS, || format!("{answered} of {} were refused in time", 2 * CLIENTS));
        check(&bed, "bodies that trickle");
    });
    bed.end();
}

async fn begin(mut attacker: Attacker, begun: &[u8]) -> Attacker {
    assert!(attacker.send(begun).await, "the server takes what begins well");
    attacker
}

/// Sends `piece` again and again until it `is_answered`; whether it is within the time.
async fn trickle(mut attacker: Attacker, piece: Vec<u8>, is_answered: fn(&[u8]) -> bool) -> bool {
    let began = Instant::now();
    let mut read = Vec::new();
    while began.elapsed() < ENDED {
        let (more, ended) = attacker.read_until(Duration::from_millis(100), |_| false).await;
        read.extend(more);
        if is_answered(&read) {
            return true;
        }
        if ended || !attacker.send(&piece).await {
            return false;
        }
    }
    false
}
