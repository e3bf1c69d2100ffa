//! A fresh server, the load on it, and what both say afterwards.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use logseal_bench::{BenchSettings, Payload, Report, ServerProbe};
use logseal_core::UnixNanos;
use logseal_testkit::Server;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::Failed;
use crate::management::Management;

/// Encoded requests with the number of their records, to be sent in turn.
pub(crate) struct Requests {
    all: Arc<[(Bytes, u64)]>,
    /// OTLP bytes for each record.
    pub(crate) bytes_a_record: f64,
}

impl Requests {
    pub(crate) fn new(requests: Vec<Vec<u8>>) -> Self {
        let counted = |request: Vec<u8>| {
            let records = logseal_otlp::framed_records(&request).unwrap_or_default();
            (Bytes::from(request), records)
        };
        let all: Arc<[(Bytes, u64)]> = requests.into_iter().map(counted).collect();
        let add = |(bytes, records), (body, n): &(Bytes, u64)| (bytes + body.len(), records + n);
        let (bytes, records) = all.iter().fold((0, 0), add);
        Self { all, bytes_a_record: bytes as f64 / records as f64 }
    }
}

/// What a run gave.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) segments: usize,
    /// Bytes in the store for each record.
    pub(crate) kept: f64,
}

impl Outcome {
    /// Microseconds of the server's CPU time for each record.
    pub(crate) fn cpu_a_record(&self) -> f64 {
        self.report.server_cpu_s.unwrap_or_default() * 1e6 / self.report.records_acked as f64
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        self.report.server_peak_rss_bytes.unwrap_or_default() as f64 / f64::from(1 << 20)
    }
}

/// A fresh server.
pub(crate) struct Bed {
    pub(crate) server: Server,
    _folder: TempDir,
}

impl Bed {
    pub(crate) fn start(binary: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let binary = binary.to_str().ok_or("a path that is no UTF-8")?;
        Ok(Self { server: Server::start(binary, &folder.path().join("data"), arguments), _folder: folder })
    }

    /// Sends `requests` to the default workspace, two connections with 64 requests in flight each, unless `change` says otherwise; ends when
    /// everything is in segments.
    pub(crate) fn drive(
        self,
        runtime: &Runtime,
        requests: &Requests,
        change: impl FnOnce(BenchSettings) -> Result<BenchSettings, Failed>,
    ) -> Result<Outcome, Failed> {
        let Self { server, .. } = self;
        // The payload is but a label here.
        let mut settings = BenchSettings::new(server.otlp_grpc(), server.workspace_key(), Payload::A, UnixNanos(0))?;
        settings.requests = Some(Arc::clone(&requests.all));
        settings.connections = 2;
        settings.in_flight = 64;
        let settings = change(settings)?;
        let management = Management::of(&server);
        let probe = ServerProbe::new(server.process_id()).when_drained(async move { management.drained().await });
        let report = runtime.block_on(logseal_bench::run(settings, Some(probe)))?;
        if report.errors > 0 || report.rejected > 0 {
            return Err(format!("{} requests failed: {:?}", report.errors, report.first_error).into());
        }
        let listed = server.run(&["segment", "list", "--json"]);
        let segments: Vec<Value> = serde_json::from_slice(&listed.stdout)?;
        let sum = |name: &str| segments.iter().filter_map(|segment| segment[name].as_u64()).sum::<u64>() as f64;
        let kept = sum("bytes") / sum("rows");
        if !server.stop().success() {
            return Err("the server did not stop cleanly".into());
        }
        Ok(Outcome { report, segments: segments.len(), kept })
    }
}
