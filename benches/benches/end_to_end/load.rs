//! Payloads, connections and compressions, as fast as answers come and at half of that.
//!
//! The servers have default settings but `segment.max_age_ms`, which is 5 s here so that the last segment comes soon after the load ends.

use std::fmt::Write as _;

use logseal_benches::{SOURCES, Source};
use tonic::codec::CompressionEncoding;

use crate::bed::{Bed, Outcome, Requests};
use crate::{Bench, Failed, HALF};

/// Requests that are sent in turn: far more than a row group holds, so that repeats do not flatter the compression.
const POOL_RECORDS: usize = 250_000;

/// The number of connections of which the half is measured.
const HALVED: usize = 2;

/// One row: what is sent and how.
struct Row {
    source: Source,
    connections: usize,
    compression: Option<CompressionEncoding>,
    pace: Pace,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Pace {
    /// As fast as answers come.
    Closed,
    /// Half of what the row before reached, each request at its time.
    Half,
}

impl Row {
    fn closed(source: Source, connections: usize, compression: Option<CompressionEncoding>) -> Self {
        Self { source, connections, compression, pace: Pace::Closed }
    }

    fn wire(&self) -> &'static str {
        match self.compression {
            None => "none",
            Some(CompressionEncoding::Gzip) => "gzip",
            Some(_) => "zstd",
        }
    }

    fn is_wanted(&self, bench: &Bench) -> bool {
        // A half needs what it is the half of.
        let belongs_to_half = self.connections == HALVED && self.compression.is_none();
        bench.wants(self.source.name) || (belongs_to_half && bench.wants(HALF))
    }
}

/// What a row gave.
pub(crate) struct Measured {
    row: Row,
    outcome: Outcome,
    /// OTLP bytes for each record.
    sent: f64,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for source in SOURCES {
        for connections in [1, 2, 4] {
            rows.push(Row::closed(source, connections, None));
            if connections == HALVED {
                rows.push(Row { pace: Pace::Half, ..Row::closed(source, connections, None) });
            }
        }
        let compressed = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
        rows.extend(compressed.map(|compression| Row::closed(source, HALVED, Some(compression))));
    }
    rows
}

/// Measures the rows of `bench`.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Measured>, Failed> {
    let (mut measured, mut requests): (Vec<Measured>, Option<(&str, Requests)>) = (Vec::new(), None);
    for row in rows().into_iter().filter(|row| row.is_wanted(bench)) {
        let made = requests.take().filter(|(name, _)| *name == row.source.name);
        let (_, requests) = requests
            .insert(made.unwrap_or_else(|| (row.source.name, Requests::new(row.source.requests(POOL_RECORDS)))));
        let before = measured.last().filter(|_| row.pace == Pace::Half);
        let rate = before.map(|before| ((before.outcome.report.records_per_s / 2.0) as u64).max(1));
        eprintln!("{}, {} connections, wire {}, {}", row.source.name, row.connections, row.wire(), shown(rate));
        let bed = Bed::start(&bench.binary, &["--set", "segment.max_age_ms=5000"])?;
        let outcome = bed.drive(&bench.runtime, requests, |mut settings| {
            settings.compression = row.compression;
            settings.connections = row.connections;
            // At an open pace a request must find one free at its time.
            settings.in_flight = if row.source.name == "c" || rate.is_some() { 200 } else { 64 };
            settings.records = u64::MAX / 2;
            settings.stop_after = Some(bench.time);
            settings.rate = rate;
            Ok(settings)
        })?;
        measured.push(Measured { row, outcome, sent: requests.bytes_a_record });
    }
    Ok(measured)
}

fn shown(rate: Option<u64>) -> String {
    rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate}/s"))
}

/// The rows as Markdown.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut out = String::from(
        "| payload | connections | wire | pace | records/s | MB/s | server CPU s | records per CPU s | MB per CPU s | peak MiB | p50 ms | p95 ms | p99 ms | late | resent | kept B a record | OTLP : kept |\n\
         | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Measured { row, outcome, sent } in measured {
        let Outcome { report, kept, .. } = outcome;
        let cpu = report.server_cpu_s.unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.0} | {:.1} | {cpu:.1} | {:.0} | {:.1} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {} | {kept:.1} | {:.2} |",
            row.source.name,
            row.connections,
            row.wire(),
            if row.pace == Pace::Half { "half" } else { "closed" },
            report.records_per_s,
            report.bytes_per_s / 1e6,
            report.records_acked as f64 / cpu,
            report.bytes_per_s * report.seconds / cpu / 1e6,
            outcome.peak_mib(),
            report.latency_ms.p50,
            report.latency_ms.p95,
            report.latency_ms.p99,
            report.late.map(|late| late.to_string()).unwrap_or_default(),
            report.retried,
            sent / kept,
        );
    }
    out
}

/// Records per second of CPU time of the rows at full load, with their labels.
pub(crate) fn bars(measured: &[Measured]) -> Vec<(String, f64)> {
    let closed = measured.iter().filter(|measured| measured.row.pace == Pace::Closed);
    closed
        .map(|Measured { row, outcome, .. }| {
            let label = format!("{}, {} conn., wire {}", row.source.name, row.connections, row.wire());
            (label, outcome.report.records_per_cpu_s.unwrap_or_default())
        })
        .collect()
}
