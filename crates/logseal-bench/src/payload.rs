//! Deterministic OTLP export requests: the same bytes for the same arguments, on every machine and for ever.
//!
//! Every random choice comes from the SplitMix64 below and every byte from `wire`, so that no update of a library can
//! change what a measurement sends; `testdata/bench/` holds golden bytes.
//!
//! | payload | a record | bytes a record | records a request | request after zstd 1 / 3 |
//! | --- | --- | --- | --- | --- |
//! | [`Payload::A`] | an HTTP access log entry with 6 attributes | 349 | 1,000 | 0.29 / 0.29 |
//! | [`Payload::B`] | a text body of 1,024 bytes with 2 attributes | 1,143 | 1,000 | 0.52 / 0.51 |
//! | [`Payload::C`] | as `A` | 362 | 10 | 0.44 / 0.44 |
//!
//! The bytes a record are a request's length, framing and resource included, divided by its records. A record of `A`
//! holds about 54 bytes of entropy: a trace id and span id in fifteen of sixteen, a request id of 128 bits, client
//! address, object number, size, duration and the two times. A body of `B` is words with hexadecimal and base64 tokens
//! among them.

mod wire;

use std::fmt::{self, Display, Write};
use std::str::FromStr;

use logseal_core::UnixNanos;
use thiserror::Error;
use wire::Value;

/// Which records a run sends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Payload {
    /// Access log entries of about 350 bytes, 1,000 a request.
    A,
    /// Bodies of 1 KiB with real entropy, 1,000 a request.
    B,
    /// The records of `A`, 10 a request: the cost of a call instead of a record's.
    C,
}

/// The text names no payload.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a payload is `a`, `b` or `c`")]
pub struct PayloadError;

impl Payload {
    /// Records a request, unless the caller wants another number.
    #[must_use]
    pub fn default_batch(self) -> usize {
        match self {
            Self::A | Self::B => 1_000,
            Self::C => 10,
        }
    }

    /// The letter on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

impl Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Payload {
    type Err = PayloadError;

    fn from_str(text: &str) -> Result<Self, PayloadError> {
        match text {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            "c" => Ok(Self::C),
            _ => Err(PayloadError),
        }
    }
}

/// Nanoseconds between two records: 100,000 records a second of log time.
const RECORD_STEP: u64 = 10_000;

/// The bytes of an `ExportLogsServiceRequest` with `records` records: one resource, one scope.
///
/// Requests with different `index` have different content. Times increase from record to record and from one index to
/// the next, starting at `base`.
#[must_use]
pub fn request(payload: Payload, seed: u64, index: u64, records: usize, base: UnixNanos) -> Vec<u8> {
    // Two rounds of mixing, so that neighboring seeds and indexes share nothing.
    let mut random = SplitMix64(SplitMix64(seed).next() ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
    let start = u64::try_from(base.0).unwrap_or(0);
    let mut scope_logs = Vec::with_capacity(records * if payload == Payload::B { 1_200 } else { 400 } + 64);
    wire::bytes(&mut scope_logs, 1, &scope(payload));
    let mut record = Vec::with_capacity(1_400);
    let mut text = String::with_capacity(1_100);
    for n in 0..records as u64 {
        let slot = index.wrapping_mul(records as u64).wrapping_add(n);
        let time = start.wrapping_add(slot.wrapping_mul(RECORD_STEP)).wrapping_add(random.below(RECORD_STEP));
        record.clear();
        text.clear();
        match payload {
            Payload::A | Payload::C => access_log(&mut record, &mut text, time, &mut random),
            Payload::B => application_log(&mut record, &mut text, time, &mut random),
        }
        wire::bytes(&mut scope_logs, 2, &record);
    }
    let mut resource_logs = Vec::with_capacity(scope_logs.len() + 256);
    wire::bytes(&mut resource_logs, 1, &resource(payload));
    wire::bytes(&mut resource_logs, 2, &scope_logs);
    let mut out = Vec::with_capacity(resource_logs.len() + 8);
    wire::bytes(&mut out, 1, &resource_logs);
    out
}

fn resource(payload: Payload) -> Vec<u8> {
    let name = if payload == Payload::B { "billing" } else { "storefront" };
    let mut out = Vec::new();
    wire::attribute(&mut out, 1, "service.name", Value::Text(name));
    wire::attribute(&mut out, 1, "service.version", Value::Text("4.12.0"));
    wire::attribute(&mut out, 1, "deployment.environment.name", Value::Text("bench"));
    out
}

fn scope(payload: Payload) -> Vec<u8> {
    let name = if payload == Payload::B { "billing.jobs" } else { "http.server" };
    let mut out = Vec::new();
    wire::bytes(&mut out, 1, name.as_bytes());
    wire::bytes(&mut out, 2, b"1.0.0");
    out
}

/// Method, route, and the concrete path up to the number that ends it.
const ROUTES: [(&str, &str, &str); 12] = [
    ("GET", "/v2/orders/{id}", "/v2/orders/"),
    ("GET", "/v2/products/{id}", "/v2/products/"),
    ("GET", "/v2/customers/{id}", "/v2/customers/"),
    ("GET", "/v2/carts/{id}/lines", "/v2/carts/lines/"),
    ("GET", "/v2/stock/{sku}", "/v2/stock/"),
    ("GET", "/img/{id}", "/img/"),
    ("POST", "/v2/orders", "/v2/orders?cart="),
    ("POST", "/v2/payments", "/v2/payments?order="),
    ("POST", "/v2/search", "/v2/search?session="),
    ("PUT", "/v2/carts/{id}", "/v2/carts/"),
    ("PATCH", "/v2/customers/{id}", "/v2/customers/"),
    ("DELETE", "/v2/carts/{id}", "/v2/carts/"),
];

const AGENTS: [&str; 8] = [
    "shop-android/4.12.0",
    "shop-android/4.11.2",
    "shop-ios/4.12.0",
    "shop-ios/4.9.1",
    "curl/8.9.1",
    "Go-http-client/2.0",
    "axios/1.7.2",
    "okhttp/4.12.0",
];

/// A record of payloads `A` and `C`.
fn access_log(out: &mut Vec<u8>, text: &mut String, time: u64, random: &mut SplitMix64) {
    let (method, route, path) = pick(&ROUTES, random);
    let status: u64 = match random.below(100) {
        0..88 => 200,
        88..92 => 201,
        92..95 => 304,
        95..98 => 404,
        98 => 429,
        _ => 500,
    };
    let (number, level) = severity_of(status);
    let nanos = random.log_uniform(150_000, 900_000_000);
    let size = random.log_uniform(80, 60_000);
    let object = random.below(100_000_000);
    let client = random.next().to_le_bytes();

    head(out, time, random.log_uniform(20_000, 5_000_000), number, level);
    // `write!` into a String cannot fail.
    let _ = write!(text, "{method} {path}{object:08} {status} {size} ");
    hex(text, random, 32);
    body(out, text);
    wire::attribute(out, 6, "http.request.method", Value::Text(method));
    wire::attribute(out, 6, "http.route", Value::Text(route));
    wire::attribute(out, 6, "http.response.status_code", Value::Int(status));
    wire::attribute(out, 6, "http.server.request.duration", Value::Double(nanos as f64 / 1e9));
    text.clear();
    let _ = write!(text, "{}.{}.{}.{}", client[0], client[1], client[2], client[3]);
    wire::attribute(out, 6, "client.address", Value::Text(text));
    wire::attribute(out, 6, "user_agent.original", Value::Text(pick(&AGENTS, random)));
    if random.below(16) != 0 {
        trace(out, random);
    }
}

const WORDS: [&str; 64] = [
    "accepted",
    "account",
    "after",
    "amount",
    "and",
    "attempt",
    "balance",
    "batch",
    "because",
    "before",
    "bucket",
    "cache",
    "cannot",
    "card",
    "charge",
    "closed",
    "commit",
    "connection",
    "could",
    "credit",
    "currency",
    "customer",
    "debit",
    "deferred",
    "delivered",
    "duplicate",
    "expired",
    "failed",
    "for",
    "from",
    "gateway",
    "invoice",
    "is",
    "ledger",
    "limit",
    "lock",
    "merchant",
    "next",
    "not",
    "of",
    "order",
    "partner",
    "payment",
    "pending",
    "queue",
    "reached",
    "received",
    "refund",
    "rejected",
    "request",
    "retry",
    "schedule",
    "settled",
    "shipment",
    "since",
    "slow",
    "the",
    "timeout",
    "to",
    "token",
    "transfer",
    "waiting",
    "was",
    "with",
];

const FIELDS: [&str; 8] = ["id", "etag", "sig", "cursor", "session", "digest", "nonce", "ref"];

const LOGGERS: [&str; 6] =
    ["billing.charge", "billing.refund", "billing.ledger", "billing.invoice", "billing.settlement", "billing.webhook"];

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Length of a body of payload `B`.
const BODY_BYTES: usize = 1_024;

/// A record of payload `B`.
fn application_log(out: &mut Vec<u8>, text: &mut String, time: u64, random: &mut SplitMix64) {
    let (number, level) = match random.below(100) {
        0..10 => (5, "DEBUG"),
        10..85 => (9, "INFO"),
        85..96 => (13, "WARN"),
        _ => (17, "ERROR"),
    };
    head(out, time, random.log_uniform(20_000, 5_000_000), number, level);
    while text.len() < BODY_BYTES {
        match random.below(16) {
            0..12 => text.push_str(pick(&WORDS, random)),
            12 => {
                let _ = write!(text, "{}", random.log_uniform(1, 1_000_000));
            }
            13 | 14 => {
                text.push_str(pick(&FIELDS, random));
                text.push('=');
                hex(text, random, 32);
            }
            _ => {
                text.push_str(pick(&FIELDS, random));
                text.push(':');
                for _ in 0..43 {
                    text.push(char::from(BASE64[random.below(64) as usize]));
                }
                text.push('=');
            }
        }
        text.push(' ');
    }
    // The text is ASCII, so any cut is at a character.
    text.truncate(BODY_BYTES);
    body(out, text);
    wire::attribute(out, 6, "logger.name", Value::Text(pick(&LOGGERS, random)));
    wire::attribute(out, 6, "thread.id", Value::Int(random.below(64)));
    trace(out, random);
}

fn severity_of(status: u64) -> (u64, &'static str) {
    match status {
        500.. => (17, "ERROR"),
        400.. => (13, "WARN"),
        _ => (9, "INFO"),
    }
}

/// Times and severity: fields 1, 11, 2 and 3 of a `LogRecord`.
fn head(out: &mut Vec<u8>, time: u64, observed_after: u64, number: u64, level: &str) {
    wire::fixed64(out, 1, time);
    wire::int(out, 2, number);
    wire::bytes(out, 3, level.as_bytes());
    wire::fixed64(out, 11, time.wrapping_add(observed_after));
}

fn body(out: &mut Vec<u8>, text: &str) {
    let mut any = Vec::with_capacity(text.len() + 4);
    wire::any_value(&mut any, Value::Text(text));
    wire::bytes(out, 5, &any);
}

/// A sampled trace: flags, trace id and span id.
fn trace(out: &mut Vec<u8>, random: &mut SplitMix64) {
    wire::fixed32(out, 8, 1);
    let mut id = [0_u8; 16];
    id[..8].copy_from_slice(&random.next().to_le_bytes());
    id[8..].copy_from_slice(&random.next().to_le_bytes());
    wire::bytes(out, 9, &id);
    wire::bytes(out, 10, &random.next().to_le_bytes());
}

fn hex(text: &mut String, random: &mut SplitMix64, digits: usize) {
    let mut word = 0;
    for n in 0..digits {
        if n % 16 == 0 {
            word = random.next();
        }
        text.push(char::from(b"0123456789abcdef"[(word & 15) as usize]));
        word >>= 4;
    }
}

fn pick<T: Copy>(list: &[T], random: &mut SplitMix64) -> T {
    list[random.below(list.len() as u64) as usize]
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), written out here because its output is part of the golden bytes.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, by multiplication; the bias at these bounds is far below what a benchmark could notice.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// In `low..high`, each octave as likely as the next: the shape of durations and sizes.
    ///
    /// Integer arithmetic only, because `powf` differs between platforms.
    fn log_uniform(&mut self, low: u64, high: u64) -> u64 {
        let octaves = u64::from((high / low).ilog2()) + 1;
        let floor = low << self.below(octaves);
        (floor + self.below(floor)).min(high - 1)
    }
}

#[cfg(test)]
mod tests;
