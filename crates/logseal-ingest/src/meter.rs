//! Names of the door's metrics, and the handles that count them.
//!
//! Handles are made when a door or a budget is made, so that a call does not look them up by name. A recorder that is
//! installed later does not see them: install it first.

use std::time::Duration;

use logseal_core::UnixNanos;
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::door::Refusal;
use crate::pipeline::backlog::Backlog;

/// Calls by `protocol`, `grpc` or `http`, and `outcome`: see [`Outcome`].
pub const REQUESTS: &str = "logseal_ingest_requests_total";
/// Records by `outcome`: `accepted` or `rejected`. Records of refused requests are not counted: nobody decoded them.
pub const RECORDS: &str = "logseal_ingest_records_total";
/// Body bytes by `state`: `wire` as received, `decompressed` as handed to the intake.
pub const BYTES: &str = "logseal_ingest_bytes_total";
/// Bytes of the memory budget that are taken.
pub const IN_FLIGHT_BYTES: &str = "logseal_ingest_in_flight_bytes";
/// Calls that wait for budget or for their workspace's pace.
pub const HELD_CALLS: &str = "logseal_ingest_held_calls";
/// Time from a call's header to its acknowledgement; refused calls are not in it.
pub const ACKNOWLEDGEMENT: &str = "logseal_ingest_acknowledgement_seconds";
/// TLS handshakes that came to nothing.
pub const HANDSHAKES_FAILED: &str = "logseal_ingest_handshakes_failed_total";
/// Connections that were closed at once because `ingest.max_connections` were open.
pub const CONNECTIONS_REFUSED: &str = "logseal_ingest_connections_refused_total";
/// Connections that are open.
pub const CONNECTIONS: &str = "logseal_ingest_connections";
/// Jobs handed to the compute threads that have not ended.
pub const CPU_JOBS: &str = "logseal_cpu_jobs";
/// String values that were not UTF-8 and are kept as bytes.
pub const REPLACED_UTF8: &str = "logseal_ingest_replaced_utf8_total";
/// References to a string table (an alpha field of OTLP), treated as absent.
pub const IGNORED_REFERENCES: &str = "logseal_ingest_ignored_string_references_total";
/// Records that were taken in and are in no segment yet.
pub const UNSEALED_RECORDS: &str = "logseal_ingest_unsealed_records";
/// Records of suspended clusters that are in no segment yet: they are in these clusters' logs.
pub const SUSPENDED_RECORDS: &str = "logseal_ingest_suspended_records";
/// Attempts to make a batch a segment, by `outcome`: `stored`, `failed`, or `covered` by another one.
pub const SEGMENTS: &str = "logseal_segments_total";
/// Bytes of stored segments.
pub const SEGMENT_BYTES: &str = "logseal_segment_bytes_total";
/// Time from cutting a batch to its segment being visible in the catalog.
pub const SEGMENT_SECONDS: &str = "logseal_segment_commit_seconds";

/// Requests refused for our own trouble or because of a daily cap, by `reason`.
pub const REFUSALS: &str = "logseal_ingest_refusals_total";
/// How long ago the oldest record was received that is in no segment.
pub const OLDEST_UNSEALED: &str = "logseal_ingest_oldest_unsealed_seconds";
/// Rows that were sealed and moved out of memory before their segment was stored.
pub const EVICTED_BYTES: &str = "logseal_ingest_evicted_bytes_total";
/// Parts of the log that were put into quarantine.
pub const QUARANTINED: &str = "logseal_quarantined_total";
/// Files of the log.
pub const WAL_FILES: &str = "logseal_wal_files";
/// Bytes of the log by `state`: `loaded` (its records are in memory too), `parked` (only in the log), or `suspended` (of a cluster whose keys
/// may not be used).
pub const WAL_BYTES: &str = "logseal_wal_bytes";
/// Bytes of files that the log ended.
pub const WAL_APPENDED_BYTES: &str = "logseal_wal_ended_bytes_total";
/// Time of sealing, writing and syncing one group of requests.
pub const WAL_SYNC_SECONDS: &str = "logseal_wal_sync_seconds";
/// Requests that shared one sync.
pub const WAL_GROUP_REQUESTS: &str = "logseal_wal_group_requests";
/// Failed writes and syncs of the log.
pub const WAL_FAILURES: &str = "logseal_wal_failures_total";
/// Problems that surveys of the log found.
pub const WAL_DAMAGE: &str = "logseal_wal_damage_total";
/// Files of the log that were missing.
pub const WAL_LOST: &str = "logseal_wal_lost_files_total";

/// Describes every metric of this crate to the installed recorder.
pub fn describe() {
    describe_counter!(REQUESTS, Unit::Count, "calls by protocol and outcome");
    describe_counter!(RECORDS, Unit::Count, "records of answered calls by outcome");
    describe_counter!(BYTES, Unit::Bytes, "body bytes on the wire and after decompression");
    describe_counter!(EVICTED_BYTES, Unit::Bytes, "sealed rows moved out of memory before their segment was stored");
    describe_gauge!(IN_FLIGHT_BYTES, Unit::Bytes, "bytes of the memory budget that are taken");
    describe_gauge!(HELD_CALLS, Unit::Count, "calls that wait for budget or pace");
    describe_histogram!(ACKNOWLEDGEMENT, Unit::Seconds, "time from a call's header to its acknowledgement");
    describe_counter!(HANDSHAKES_FAILED, Unit::Count, "TLS handshakes that failed or took too long");
    describe_counter!(CONNECTIONS_REFUSED, Unit::Count, "connections closed at once at the connection limit");
    describe_gauge!(CONNECTIONS, Unit::Count, "open connections");
    describe_counter!(REPLACED_UTF8, Unit::Count, "string values that were not UTF-8 and are kept as bytes");
    describe_counter!(IGNORED_REFERENCES, Unit::Count, "references to a string table, treated as absent");
    describe_gauge!(UNSEALED_RECORDS, Unit::Count, "records taken in that are in no segment yet");
    describe_gauge!(SUSPENDED_RECORDS, Unit::Count, "records of suspended clusters that are in no segment yet");
    describe_counter!(SEGMENTS, Unit::Count, "attempts to make a batch a segment");
    describe_counter!(SEGMENT_BYTES, Unit::Bytes, "bytes of stored segments");
    describe_histogram!(SEGMENT_SECONDS, Unit::Seconds, "time from cutting a batch to its visible segment");
    describe_counter!(REFUSALS, Unit::Count, "requests refused for the server's own trouble or a daily cap, by reason");
    describe_gauge!(OLDEST_UNSEALED, Unit::Seconds, "age of the oldest record that is in no segment");
    describe_counter!(QUARANTINED, Unit::Count, "frames and damaged parts of the log put into quarantine");
    describe_gauge!(WAL_FILES, Unit::Count, "files of the write-ahead log");
    describe_gauge!(WAL_BYTES, Unit::Bytes, "bytes of the write-ahead log by state");
    describe_counter!(WAL_APPENDED_BYTES, Unit::Bytes, "bytes of files that the write-ahead log ended");
    describe_histogram!(WAL_SYNC_SECONDS, Unit::Seconds, "time of sealing, writing and syncing one group");
    describe_histogram!(WAL_GROUP_REQUESTS, Unit::Count, "frames of requests that shared one sync");
    describe_counter!(WAL_FAILURES, Unit::Count, "failed writes and syncs of the write-ahead log");
    describe_counter!(WAL_DAMAGE, Unit::Count, "problems found in the write-ahead log");
    describe_counter!(WAL_LOST, Unit::Count, "files of the write-ahead log that were missing");
    describe_gauge!(CPU_JOBS, Unit::Count, "jobs on the compute threads or waiting for one");
}

/// Brings the gauges of the backlog up to date, at `now`.
pub fn refresh(backlog: &Backlog, now: UnixNanos) {
    let totals = backlog.totals();
    let age = totals.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0).max(0));
    gauge!(UNSEALED_RECORDS).set(totals.records as f64);
    gauge!(OLDEST_UNSEALED).set(age as f64 / 1e9);
    gauge!(WAL_FILES).set(totals.files as f64);
    gauge!(SUSPENDED_RECORDS).set(totals.suspended_records as f64);
    let loaded = totals.bytes.saturating_sub(totals.parked_bytes + totals.suspended_bytes);
    gauge!(WAL_BYTES, "state" => "loaded").set(loaded as f64);
    gauge!(WAL_BYTES, "state" => "suspended").set(totals.suspended_bytes as f64);
    gauge!(WAL_BYTES, "state" => "parked").set(totals.parked_bytes as f64);
}

/// How a call came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl Protocol {
    const ALL: [(Self, &'static str); 2] = [(Self::Grpc, "grpc"), (Self::Http, "http")];
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All records were accepted.
    Accepted,
    /// Some records were rejected, or there was a warning.
    Partial,
    /// Framing, compression or content cannot be decoded.
    Invalid,
    /// Over `ingest.max_request_bytes`.
    TooLarge,
    /// After the workspace's daily cap was reached.
    DailyCap,
    /// Credentials are missing or unknown.
    Unauthenticated,
    /// An encoding or method that does not exist here.
    Unsupported,
    /// Refused for our own trouble: overload, keys, disk, shutdown.
    Unavailable,
    /// The client's deadline passed.
    Deadline,
    /// The client went away.
    Aborted,
}

impl Outcome {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Accepted, "accepted"),
        (Self::Partial, "partial"),
        (Self::Invalid, "invalid"),
        (Self::TooLarge, "too_large"),
        (Self::DailyCap, "daily_cap"),
        (Self::Unauthenticated, "unauthenticated"),
        (Self::Unsupported, "unsupported"),
        (Self::Unavailable, "unavailable"),
        (Self::Deadline, "deadline"),
        (Self::Aborted, "aborted"),
    ];
}

impl From<&Refusal> for Outcome {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated { .. } | Refusal::LocalAuthDisabled => Self::Unauthenticated,
            Refusal::Undecodable(_) => Self::Invalid,
            Refusal::TooLarge(_) => Self::TooLarge,
            Refusal::CapReached { .. } => Self::DailyCap,
            Refusal::Unsupported(_) => Self::Unsupported,
            Refusal::Unavailable { .. } => Self::Unavailable,
            Refusal::DeadlinePassed => Self::Deadline,
            Refusal::Disconnected => Self::Aborted,
        }
    }
}

/// Handles of a door.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    requests: Vec<(Protocol, Outcome, Counter)>,
    pub(crate) records_accepted: Counter,
    pub(crate) records_rejected: Counter,
    pub(crate) wire_bytes: Counter,
    pub(crate) decompressed_bytes: Counter,
    pub(crate) daily_cap: Counter,
    acknowledgement: Histogram,
    pub(crate) handshakes_failed: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) pauses: Counter,
    pub(crate) connections: Gauge,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let requests = Protocol::ALL.into_iter().flat_map(|(protocol, name)| {
            let requests = move |outcome| counter!(REQUESTS, "protocol" => name, "outcome" => outcome);
            Outcome::ALL.map(|(outcome, name)| (protocol, outcome, requests(name)))
        });
        Self {
            requests: requests.collect(),
            records_accepted: counter!(RECORDS, "outcome" => "accepted"),
            records_rejected: counter!(RECORDS, "outcome" => "rejected"),
            wire_bytes: counter!(BYTES, "state" => "wire"),
            decompressed_bytes: counter!(BYTES, "state" => "decompressed"),
            daily_cap: counter!(REFUSALS, "reason" => "daily_cap"),
            acknowledgement: histogram!(ACKNOWLEDGEMENT),
            handshakes_failed: counter!(HANDSHAKES_FAILED),
            connections_refused: counter!(CONNECTIONS_REFUSED),
            pauses: logseal_tls::pauses("otlp"),
            connections: gauge!(CONNECTIONS),
        }
    }

    /// Counts one call that came by `protocol` and ended as `outcome` after `elapsed`.
    pub(crate) fn ended(&self, protocol: Protocol, outcome: Outcome, elapsed: Duration) {
        let known = |(p, o, _): &&(Protocol, Outcome, Counter)| (*p, *o) == (protocol, outcome);
        if let Some((_, _, requests)) = self.requests.iter().find(known) {
            requests.increment(1);
        }
        if matches!(outcome, Outcome::Accepted | Outcome::Partial) {
            self.acknowledgement.record(elapsed.as_secs_f64());
        }
    }
}
