//! The same load over more workspaces and with more attribute keys: what a record takes must not grow with either.
//!
//! The first row lasts as long as a load lasts; the others send as many records as it did, but begin no request after twice that time. The servers have
//! default settings: segments are closed after a minute, and a row ends when all its records are in segments.

use std::fmt::Write as _;

use logseal_bench::Payload;
use logseal_benches::{request, with_attribute_keys};

use crate::bed::{Bed, Outcome, Requests};
use crate::management::Management;
use crate::{Bench, Failed};

/// Requests of 1,000 records that are sent in turn. A prime number, so that each workspace gets all of them in its turns.
const REQUESTS: u64 = 251;

/// Workspaces, and attribute keys in all; each record has six.
const ROWS: [(usize, usize); 5] = [(1, 6), (100, 6), (1_000, 6), (1, 60), (1, 600)];

/// What a row gave.
pub(crate) struct Measured {
    workspaces: usize,
    keys: usize,
    outcome: Outcome,
}

/// Measures all rows.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Measured>, Failed> {
    let mut measured: Vec<Measured> = Vec::new();
    for (workspaces, keys) in ROWS {
        eprintln!("{workspaces} workspaces, {keys} attribute keys");
        let requests = (0..REQUESTS).map(|index| with_attribute_keys(&request(Payload::A, index), keys)).collect();
        let bed = Bed::start(&bench.binary, &[])?;
        // A single one is the default workspace; it does not take part beside others.
        let made = if workspaces > 1 { workspaces } else { 0 };
        let shared = bench.runtime.block_on(Management::of(&bed.server).make_workspaces(made))?;
        let as_many = measured.first().map(|first| first.outcome.report.records_acked);
        let outcome = bed.drive(&bench.runtime, &Requests::new(requests), |mut settings| {
            settings.records = as_many.unwrap_or(u64::MAX / 2);
            settings.stop_after = Some(if as_many.is_some() { bench.time * 2 } else { bench.time });
            Ok(if shared.is_empty() { settings } else { settings.with_workspace_keys(&shared)? })
        })?;
        measured.push(Measured { workspaces, keys, outcome });
    }
    Ok(measured)
}

/// The rows as Markdown.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut out = String::from(
        "| workspaces | attribute keys | records | records/s | CPU us a record | to the first row | peak MiB | p99 ms | resent | segments | kept B a record |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let first = measured.first().map(|first| first.outcome.cpu_a_record()).unwrap_or_default();
    for Measured { workspaces, keys, outcome } in measured {
        let Outcome { report, segments, kept } = outcome;
        let _ = writeln!(
            out,
            "| {workspaces} | {keys} | {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} | {} | {segments} | {kept:.1} |",
            report.records_acked,
            report.records_per_s,
            outcome.cpu_a_record(),
            outcome.cpu_a_record() / first,
            outcome.peak_mib(),
            report.latency_ms.p99,
            report.retried,
        );
    }
    out
}
