//! The result of a run, as one JSON object for programs and as aligned lines for people.

use std::fmt::{self, Display};

use serde::Serialize;

use crate::latency::Histogram;

/// What a run measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The payload's letter.
    pub payload: &'static str,
    /// Records a request.
    pub batch: usize,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Records a second that were to be sent, at an open pace; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Requests that started more than 10 ms after their time, because every call in flight was taken or this process
    /// did not get its core; absent in a closed loop, where requests have no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    /// Records that the server acknowledged, without those it rejected.
    pub records_acked: u64,
    /// From the first request's start to the last acknowledgement.
    pub seconds: f64,
    /// `records_acked / seconds`; 0 when nothing was acknowledged.
    pub records_per_s: f64,
    /// OTLP bytes of the acknowledged requests, without HTTP/2 and gRPC framing, a second.
    pub bytes_per_s: f64,
    /// From a request's start to its acknowledgement, resends and waits included. At an open pace the start is the
    /// time at which the request was due: what a slow server keeps from being sent counts as its latency. Timers are
    /// exact to a millisecond there.
    pub latency_ms: LatencyMs,
    /// Records that the server refused by partial success.
    pub rejected: u64,
    /// Attempts beyond the first, of all requests. The server may have stored an attempt whose answer was lost.
    pub retried: u64,
    /// 99 of 100 requests that were refused at least once (`UNAVAILABLE` or `RESOURCE_EXHAUSTED`) and accepted later
    /// took no longer from the first refusal to the acknowledgement, in milliseconds; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resent_accepted_p99_ms: Option<f64>,
    /// Such refusals that did not say with `RetryInfo` when to come back.
    pub refused_without_retry_info: u64,
    /// Requests given up: a final refusal, or resent for too long.
    pub errors: u64,
    /// The first such refusal, as the server said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// User and system time of a local server from the start until no record was outside a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
    /// `records_acked / server_cpu_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_cpu_s: Option<f64>,
    /// Largest resident memory of a local server, over its whole life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_peak_rss_bytes: Option<u64>,
    /// Why a value of the server is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_note: Option<String>,
}

/// Percentiles of the latency, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Median.
    pub p50: f64,
    /// 95 of 100 requests were not slower.
    pub p95: f64,
    /// 99 of 100 requests were not slower.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl From<&Histogram> for LatencyMs {
    fn from(histogram: &Histogram) -> Self {
        let millis = |micros: u64| micros as f64 / 1e3;
        Self {
            p50: millis(histogram.percentile(50.0)),
            p95: millis(histogram.percentile(95.0)),
            p99: millis(histogram.percentile(99.0)),
            max: millis(histogram.max()),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<20} {value}");
        let LatencyMs { p50, p95, p99, max } = self.latency_ms;
        let (batch, connections, in_flight) = (self.batch, self.connections, self.in_flight);
        line("payload", format!("{}, {batch} records a request", self.payload))?;
        line("connections", format!("{connections}, each with {in_flight} requests in flight"))?;
        if let (Some(rate), Some(late)) = (self.rate, self.late) {
            line("open pace", format!("{rate} records a second, {late} requests started late"))?;
        }
        line("records acknowledged", self.records_acked.to_string())?;
        line("seconds", format!("{:.3}", self.seconds))?;
        line("records a second", format!("{:.0}", self.records_per_s))?;
        line("MB a second", format!("{:.1}", self.bytes_per_s / 1e6))?;
        line("latency ms", format!("p50 {p50:.2}   p95 {p95:.2}   p99 {p99:.2}   max {max:.2}"))?;
        line("rejected records", self.rejected.to_string())?;
        line("resent requests", self.retried.to_string())?;
        if let Some(p99) = self.resent_accepted_p99_ms {
            line("refused, accepted", format!("p99 {p99:.0} ms from the first refusal"))?;
        }
        if self.refused_without_retry_info > 0 {
            line("without RetryInfo", format!("{} refusals", self.refused_without_retry_info))?;
        }
        line("failed requests", self.errors.to_string())?;
        if let Some(error) = &self.first_error {
            line("first failure", error.clone())?;
        }
        if let Some(cpu) = self.server_cpu_s {
            line("server CPU seconds", format!("{cpu:.2}"))?;
        }
        if let Some(rate) = self.records_per_cpu_s {
            line("records a CPU second", format!("{rate:.0}"))?;
        }
        if let Some(peak) = self.server_peak_rss_bytes {
            line("server peak memory", format!("{:.1} MiB", peak as f64 / 1_048_576.0))?;
        }
        if let Some(note) = &self.server_note {
            line("server", note.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            payload: "a",
            batch: 1_000,
            connections: 4,
            in_flight: 8,
            rate: Some(500_000),
            late: Some(7),
            records_acked: 1_000_000,
            seconds: 2.5,
            records_per_s: 400_000.0,
            bytes_per_s: 139_200_000.0,
            latency_ms: LatencyMs { p50: 5.0, p95: 9.0, p99: 12.0, max: 30.5 },
            rejected: 0,
            retried: 3,
            resent_accepted_p99_ms: Some(1_250.0),
            refused_without_retry_info: 1,
            errors: 0,
            first_error: None,
            server_cpu_s: Some(2.0),
            records_per_cpu_s: Some(500_000.0),
            server_peak_rss_bytes: Some(512 << 20),
            server_note: None,
        }
    }

    #[test]
    fn json_has_the_contracts_names() {
        let json = serde_json::to_value(report()).expect("serializes");
        for name in [
            "records_acked",
            "seconds",
            "records_per_s",
            "bytes_per_s",
            "rejected",
            "retried",
            "rate",
            "late",
            "resent_accepted_p99_ms",
            "refused_without_retry_info",
            "errors",
            "server_cpu_s",
            "server_peak_rss_bytes",
            "records_per_cpu_s",
            "batch",
            "connections",
        ] {
            assert!(json[name].is_number(), "{name}");
        }
        for name in ["p50", "p95", "p99", "max"] {
            assert!(json["latency_ms"][name].is_number(), "{name}");
        }
        assert_eq!(json["payload"], "a");
        assert!(json.get("first_error").is_none());
    }

    #[test]
    fn a_closed_loop_without_refusals_has_no_fields_about_either() {
        let closed = Report { rate: None, late: None, resent_accepted_p99_ms: None, ..report() };
        let json = serde_json::to_value(&closed).expect("serializes");
        for name in ["rate", "late", "resent_accepted_p99_ms"] {
            assert!(json.get(name).is_none(), "{name}");
        }
        assert!(json["refused_without_retry_info"].is_number());
        assert!(!closed.to_string().contains("pace"));
    }

    #[test]
    fn a_remote_server_has_no_server_fields() {
        let remote = Report { server_cpu_s: None, records_per_cpu_s: None, server_peak_rss_bytes: None, ..report() };
        let json = serde_json::to_value(&remote).expect("serializes");
        assert!(json.as_object().expect("an object").keys().all(|k| !k.contains("server") && !k.contains("cpu")));
        assert!(!remote.to_string().contains("server"));
    }

    #[test]
    fn the_text_is_aligned() {
        let text = report().to_string();
        assert!(text.lines().all(|line| line.as_bytes()[20] == b' ' && line.as_bytes()[21] != b' '), "{text}");
        assert!(text.contains("records a second     400000\n"), "{text}");
    }
}
